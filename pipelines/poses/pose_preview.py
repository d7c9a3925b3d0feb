"""What a dancer will follow, drawn and shown before anything is generated; and what a search found.

Standard library at import: the page takes both from a worker.
"""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.events import Progress
from pipelines.tasks import PoseToVideo

if TYPE_CHECKING:
    from pipelines.media.measuring import Measured
    from pipelines.models.manager import ModelManager
    from pipelines.poses.pose_sequence import PoseSequence

HEIGHT = 320  # pixels of the moving picture, at most
GAP = 8  # between the clip and the skeletons


@dataclass(frozen=True)
class PosePreview:
    """The skeletons of a task, for a look at them."""

    picture: bytes  # an animated WebP: the clip, where there is one, and to its right the skeletons, in step
    beside: bool  # whether the clip is in it
    facts: dict[str, Any]  # what was found, as "poses" in the facts of a video
    fps: float  # at which it moves as fast as the clip
    keypoints: str | None  # as OpenPose's JSON; None where the skeletons came as pictures


@dataclass(frozen=True)
class Found:
    """Everybody in a clip, and where, in pixels of the clip; see search.search."""

    text: str  # as OpenPose's JSON, all frames in one list, everybody keeping one place
    facts: dict[str, Any]  # what was found, for a person


def preview(
    task: PoseToVideo,
    models: "ModelManager | None",
    clip: Path | None = None,
    known: Path | None = None,
    measured: "Measured | None" = None,
) -> Generator[Progress, None, PosePreview]:
    """The skeletons that `task` asks for, drawn for a look at them. Takes what sequence.skeletons does, is stopped as
    that is, and raises ValueError as that does."""
    from pipelines.poses.pose_sequence import skeletons

    return _shown((yield from skeletons(task, models, clip, known, measured)))


def _shown(sequence: "PoseSequence") -> PosePreview:
    import cv2
    import numpy as np

    from pipelines.media import video
    from pipelines.poses import openpose_json

    def small(frame: np.ndarray) -> np.ndarray:
        high, wide = frame.shape[:2]
        shrink = height / high
        way = cv2.INTER_AREA if shrink < 1 else cv2.INTER_CUBIC
        return cv2.resize(frame, (max(1, round(wide * shrink)), height), interpolation=way)

    height = min(HEIGHT, sequence.pictures.shape[1])
    frames = [small(frame) for frame in sequence.pictures]
    if sequence.source is not None:
        gap = np.zeros((height, GAP, 3), np.uint8)
        frames = [np.hstack([small(one), gap, other]) for one, other in zip(sequence.source, frames, strict=True)]
    poses = sequence.poses
    return PosePreview(
        picture=video.animation(np.stack(frames), sequence.fps),
        beside=sequence.source is not None,
        facts=sequence.facts["poses"],
        fps=sequence.fps,
        keypoints=None if poses is None else openpose_json.text(poses),
    )
