"""What a dancer will follow, found and shown before anything is generated. Standard library at import."""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.events import Progress
from pipelines.tasks import FindPoses, PoseToVideo

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager
    from pipelines.poses.pose_sequence import PoseSequence
    from pipelines.poses.search import Found

Outcome = TypeVar("Outcome")
HEIGHT = 320  # pixels of the moving picture, at most
GAP = 8  # between the clip and the skeletons
WAITING = Progress("Waiting for another search to end", 0, 1)


@dataclass(frozen=True)
class PosePreview:
    """The skeletons of a task, for a look at them."""

    picture: bytes  # an animated WebP: the clip, where there is one, and to its right the skeletons, in step
    beside: bool  # whether the clip is in it
    facts: dict[str, Any]  # what was found, as "poses" in the facts of a video
    fps: float  # at which it moves as fast as the clip
    keypoints: str | None  # as OpenPose's JSON; None where the skeletons came as pictures


class PosePreviews:
    """Looks for people in one clip after another, in a thread of its own: whoever waits for it may go away.

    Of one owner only the latest search goes on; the one before it is given up.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "pose_preview")
        self._latest: dict[str, _Search] = {}

    def run(
        self, task: PoseToVideo, models: "Callable[[], ModelManager]", owner: str, clip: Path | None, known: Path | None
    ) -> Generator[Progress | None, None, PosePreview | None]:
        """Progress, frame by frame, and None after a quarter of a second without any; returns the skeletons.

        A motion of the library is read at once; `models` are asked for only where there is a clip. Closing the
        generator ends the search within a frame. None where it was stopped. Raises ValueError as
        sequence.skeletons does.
        """
        if clip is None:
            self.stop(owner)
            return (yield from _preview(task, None))
        return (yield from self._run(lambda: _preview(task, models(), clip, known), owner))

    def find(
        self, task: FindPoses, models: "Callable[[], ModelManager]", owner: str, clip: Path
    ) -> Generator[Progress | None, None, "Found | None"]:
        """As `run`, for the joints of everybody in the clip. Raises ValueError as search.search does."""

        def begin() -> "Generator[Progress, None, Found]":
            from pipelines.poses.search import search

            return search(task, models(), clip)

        return (yield from self._run(begin, owner))

    def _run(
        self, begin: Callable[[], Generator[Progress, None, Outcome]], owner: str
    ) -> Generator[Progress | None, None, Outcome | None]:
        self.stop(owner)
        search = self._latest[owner] = _Search()
        self._thread.submit(search.run, begin)
        try:
            return (yield from search.follow())
        finally:
            search.stopped = True
            if self._latest.get(owner) is search:
                del self._latest[owner]

    def stop(self, owner: str) -> None:
        """Ends the search of `owner` within a frame, if there is one."""
        if search := self._latest.get(owner):
            search.stopped = True

    def close(self) -> None:
        for search in list(self._latest.values()):
            search.stopped = True
        self._thread.shutdown(cancel_futures=True)


@dataclass
class _Search:
    """One search, made in one thread and followed in another."""

    stopped: bool = False
    progress: Progress = WAITING
    end: object = None  # what was found, or an exception
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def run(self, begin: Callable[[], Generator[Progress, None, object]]) -> None:
        try:
            if self.stopped:
                return
            with closing(begin()) as events:
                while not self.stopped:
                    try:
                        self._tell(progress=next(events))
                    except StopIteration as finished:
                        return self._tell(end=finished.value)
        except BaseException as error:  # whatever it is, whoever follows must hear of it
            self._tell(end=error)

    def _tell(self, **news: object) -> None:
        with self._changed:
            for name, value in news.items():
                setattr(self, name, value)
            self._changed.notify_all()

    def follow(self) -> Generator[Progress | None, None, Any]:
        told = None
        while True:
            with self._changed:
                if self.progress is told and self.end is None:
                    self._changed.wait(0.25)
                progress, end = self.progress, self.end
            if isinstance(end, BaseException):
                raise end
            if end is not None:
                return end
            if self.stopped:
                return None
            yield None if progress is told else progress
            told = progress


def _preview(
    task: PoseToVideo, models: "ModelManager | None", clip: Path | None = None, known: Path | None = None
) -> Generator[Progress, None, PosePreview]:
    from pipelines.poses.pose_sequence import skeletons

    return _shown((yield from skeletons(task, models, clip, known)))


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
