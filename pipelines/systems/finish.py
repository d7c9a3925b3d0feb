"""A video once more, larger, smoother or both: from file to file, frame by frame, without a model."""

import json
import tempfile
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from pipelines.events import FINISHING, Progress, Result
from pipelines.media import measuring, uploads, video
from pipelines.settings import Settings
from pipelines.systems import finishing
from pipelines.tasks import Finish, to_json

LONGEST = 3600.0  # seconds; a video of few frames may be slow


def make(task: Finish, path: Path, settings: Settings, source: Path) -> Generator[Progress | Result, None, None]:
    """Finishes the video `source` as `task` says and writes it to `path`, with its sound; the Result comes last.

    Closing it early leaves nothing behind. Raises ValueError where `source` can't be read or would become too large.
    """
    started = time.perf_counter()
    settings = replace(settings, upload_seconds=LONGEST)
    measured = measuring.measure(source, settings)
    clip = measured.clip
    frames, width, height, fps = task.becomes(clip.frames, clip.width, clip.height, clip.fps)
    yield Progress(FINISHING, 0, frames)
    side = max(clip.width, clip.height)
    given = uploads.frames(source, settings, frames=clip.frames, side=side, measured=measured)
    path.parent.mkdir(parents=True, exist_ok=True)
    description = to_json(task)
    with tempfile.TemporaryDirectory(prefix="marionette-") as folder:
        sound = Path(folder) / "sound.m4a" if clip.sound else None
        if sound:
            uploads.sound(source, sound, settings, 0.0, clip.seconds, measured=measured)
        with video.writing(path, frames, width, height, fps, description, sound) as write:
            for number, frame in enumerate(finishing.interpolate(given, task.interpolate), 1):
                write(finishing.upscale(frame, task.upscale))
                yield Progress(FINISHING, number, frames)
    facts = {"task": json.loads(description), "seconds": time.perf_counter() - started}
    facts |= {"frames": frames, "width": width, "height": height, "fps": fps, "sound": clip.sound}
    facts["from"] = {"frames": len(given), "width": clip.width, "height": clip.height, "fps": clip.fps}
    new = f"all whose number, counted from 0, is no multiple of {task.interpolate}"
    facts["interpolated_frames"] = {"count": frames - len(given), "which": new if task.interpolate > 1 else "none"}
    yield Result(path, facts)
