"""The part of a clip that a task uses: which frames they are, and those frames in the shape that a model takes."""

import math
from pathlib import Path

import numpy as np

from pipelines.media import measuring, uploads
from pipelines.media.measuring import Clip, Measured
from pipelines.media.uploads import Choice
from pipelines.messages import said
from pipelines.settings import Settings
from pipelines.tasks import PoseToVideo, TextToVideo, Tune

SOUND = "sound.m4a"  # in a tuned model's folder: that of the part that it was tuned on
SILENT = said("There is no sound to keep. Choose a clip with sound, or do without.")


def used(task: Tune | PoseToVideo, clip: Clip) -> Choice:
    """Which frames of `clip` the task uses. Raises ValueError as uploads.choose does."""
    return uploads.choose(clip, task.start, task.end, task.frames, task.stride)


def changed(task: TextToVideo, clip: Clip) -> int:
    """How many frames of `clip` the task begins with. Raises ValueError as uploads.pace does."""
    return uploads.pace(clip, task.fps, task.clip_start, task.frames)[1]


def read_changed(task: TextToVideo, path: Path, settings: Settings, measured: Measured | None = None) -> np.ndarray:
    """The frames that `task` begins with, of the upload `path`, as `read` has them: the middle of each."""
    measured = measured or measuring.measure(path, settings)
    side = _side(task, measured.clip, settings)
    frames = uploads.paced(path, settings, task.fps, task.clip_start, task.frames, side, measured)
    return np.stack([cut(frame, task.width, task.height, 0.5, 0.5) for frame in frames])


def _side(task: TextToVideo | Tune, clip: Clip, settings: Settings) -> int:
    """The longest side at which the picture of `clip` covers that of the task."""
    scale = max(task.width / clip.width, task.height / clip.height)
    return min(settings.upload_side, math.ceil(max(clip.width, clip.height) * scale))


def read(task: Tune, path: Path, settings: Settings, measured: Measured | None = None) -> tuple[np.ndarray, float]:
    """The frames that `task` uses of the upload `path`, [F, H, W, 3] uint8, and how many there are a second.

    `measured` is what was measured of it; where it is not given, that is done now. The frames have the task's shape:
    scaled evenly, and cut where they are too wide or too high, never squashed. Raises ValueError as uploads.frames
    does.
    """
    measured = measured or measuring.measure(path, settings)
    choice = used(task, measured.clip)
    frames = uploads.frames(
        path,
        settings,
        task.start,
        task.end,
        task.frames,
        task.stride,
        side=_side(task, measured.clip, settings),
        measured=measured,
    )
    return np.stack([cut(frame, task.width, task.height, task.across, task.down) for frame in frames]), choice.fps


def cut(frame: np.ndarray, width: int, height: int, across: float, down: float) -> np.ndarray:
    """The part [height, width, 3] of `frame` that lies at `across` and `down`, each from 0 to 1, as large as can be."""
    import cv2  # which takes a while: it waits for the first clip

    scale = max(width / frame.shape[1], height / frame.shape[0])
    scaled_width, scaled_height = max(width, round(frame.shape[1] * scale)), max(height, round(frame.shape[0] * scale))
    frame = cv2.resize(
        frame, (scaled_width, scaled_height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    left, top = round(across * (scaled_width - width)), round(down * (scaled_height - height))
    return frame[top : top + height, left : left + width]
