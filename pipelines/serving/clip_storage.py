"""The clips that visitors have uploaded: kept under names that nobody can guess, beside a preview and measures."""

import json
import math
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipelines.catalog import find_motion
from pipelines.media import clips, measuring, uploads, video
from pipelines.media.colour import Pixels
from pipelines.media.measuring import Clip, Measured
from pipelines.messages import said
from pipelines.poses import keypoints, openpose_json
from pipelines.poses.keypoints import Poses, as_clip
from pipelines.serving.shown import Shown
from pipelines.settings import Settings
from pipelines.tasks import PoseToVideo

LOST = said("There is no such clip here. Upload it again.")
SIDE, FRAMES = 256, 400  # pixels and frames at most of the preview of keypoints


@dataclass(frozen=True)
class Kept:
    """A clip among the data."""

    name: str
    file: Path  # as it was uploaded: only `uploads` may read it
    preview: Path  # an MP4 file of it that every browser plays
    clip: Clip
    measured: Measured | None  # None for keypoints, and for a clip from before this was kept


class Clips:
    """The folder `clips` among the data: a folder a clip, with the upload, a preview, and whose it is."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._seen = Shown(settings)
        self._folder = settings.data.absolute() / "clips"

    def keep(self, path: str | Path, owner: str, poses: bool = False) -> Kept:
        """Takes a copy of the upload `path`, a clip or, where `poses` are wanted, OpenPose's JSON or a zip of that.

        Raises ValueError, as measuring.inspect and openpose_json.read do, where it can't be used.
        """
        found = openpose_json.read(path) if poses and openpose_json.is_keypoints(path) else None
        if found is None:
            measured = measuring.measure(path, self._settings)
            clip = measured.clip
        else:
            measured, clip = None, as_clip(found)
        name = secrets.token_hex(16)
        folder = self._folder / name
        folder.mkdir(parents=True)
        try:
            shutil.copyfile(path, folder / "upload", follow_symlinks=False)
            if found is None:
                uploads.normalise(folder / "upload", folder / "preview.mp4", self._settings, measured)
            else:
                _preview(found, folder / "preview.mp4")
            with video.whole(folder / "clip.json") as file:  # the last: a folder without it is not finished
                facts = {"owner": owner, **asdict(clip), "measured": None if measured is None else _noted(measured)}
                file.write_text(json.dumps(facts), "utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self.get(name, owner)

    def get(self, name: str, owner: str) -> Kept:
        """The clip called `name`. Raises ValueError for an unknown one, or one of somebody else than `owner`."""
        folder = self._folder / name
        try:
            facts = json.loads((folder / "clip.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(LOST) from error
        if owner != facts.pop("owner"):
            raise ValueError(LOST)
        noted = facts.pop("measured", None)
        clip = Clip(**facts)
        measured = None if noted is None else _recalled(noted, clip)
        return Kept(name, folder / "upload", folder / "preview.mp4", clip, measured)

    def owners(self) -> dict[str, str]:
        """Whose each clip is, by its name; "" for one that is not whole."""
        found = {}
        for folder in self._folder.glob(32 * "[0-9a-f]"):
            try:
                found[folder.name] = str(json.loads((folder / "clip.json").read_text("utf-8"))["owner"])
            except (OSError, ValueError, KeyError, TypeError):
                found[folder.name] = ""
        return found

    def delete(self, name: str) -> None:
        """Deletes the clip called `name`."""
        shutil.rmtree(self._folder / name)
        self._seen.forget("clips", name)

    def of(self, owner: str) -> Iterator[tuple[str, Path]]:
        """The names of the owner's clips, and the uploads."""
        for folder in self._folder.glob("*"):
            with suppress(ValueError):
                yield folder.name, self.get(folder.name, owner).file


def pace(task: PoseToVideo, path: Path | None, measured: Measured | None) -> float:
    """Frames a second at which the video of `task` moves as fast as the upload `path`, or as its built-in motion.

    `measured` is what was measured of a clip; None for keypoints.

    Raises ValueError where that can't be used.
    """
    if measured is None:
        return clips.used(task, as_clip(openpose_json.read(path or find_motion(task.motion)))).fps
    return clips.used(task, measured.clip).fps


def sound(task: PoseToVideo, path: Path, out: Path, settings: Settings, measured: Measured | None = None) -> float:
    """Writes the sound of the part of the upload `path` that `task` uses as the M4A file `out`, as long as its video.

    Returns how many times as fast as in the clip it is played: 1, but where the video moves at another pace. Raises
    ValueError where there is none.
    """
    if openpose_json.is_keypoints(path):
        raise ValueError(clips.SILENT)
    measured = measured or measuring.measure(path, settings)
    choice = clips.used(task, measured.clip)
    seconds, length = choice.frames / choice.fps, choice.frames / task.fps
    uploads.sound(path, out, settings, choice.first / measured.clip.fps, seconds, length, measured)
    return seconds / length


def _noted(measured: Measured) -> dict[str, Any]:
    """What was measured beside the clip itself, ready for JSON."""
    return {"start": str(measured.start), "pixels": asdict(measured.pixels), "most": measured.most}


def _recalled(noted: dict[str, Any], clip: Clip) -> Measured:
    return Measured(clip, Fraction(noted["start"]), Pixels(**noted["pixels"]), noted["most"])


def _preview(poses: Poses, path: Path) -> None:
    """Raises ValueError where there is nothing to be drawn."""
    from pipelines.poses import skeleton  # and with it OpenCV, which takes a while: it waits for the first clip

    shrink = SIDE / max(poses.width, poses.height)
    width, height = (max(2, 2 * round(length * shrink / 2)) for length in (poses.width, poses.height))
    stride = max(math.ceil(len(poses.joints) / FRAMES), math.ceil(poses.fps / measuring.PREVIEW_FPS))
    small = keypoints.place(poses, width, height).frames(range(0, len(poses.joints), stride))
    pictures = skeleton.draw(small)
    if pictures.max() == 0:
        raise ValueError(
            said("There is no limb in the keypoints, only single joints. Upload those of a clip with people.")
        )
    video.write(pictures, path, poses.fps / stride)
