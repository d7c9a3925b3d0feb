"""From what a visitor gives, a clip, a skeleton video, keypoints or a built-in motion, to the skeletons to be followed.

Read top to bottom: read the chosen part, find out what it shows, find the people, put their joints in order, draw.
"""

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.catalog import CATALOG, find_motion
from pipelines.events import Progress
from pipelines.media import clips, measuring, uploads, video
from pipelines.media.measuring import Measured
from pipelines.media.uploads import Choice
from pipelines.messages import said
from pipelines.poses import keypoints, openpose_json, rainbow, retargeting, skeleton, tracking
from pipelines.poses.keypoints import Poses
from pipelines.tasks import PoseToVideo

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager

READING = said("Reading the clip")
SIDE = 768  # pixels of the longer side in which a clip is looked at: OpenPose looks at 184 rows
PEOPLE = said("people")
FOUND = {"blazepose": PEOPLE, "miniature-openpose": said("drawn figures"), "openpose": PEOPLE}  # by each detector
COMPANIONS = {  # what is kept with a video -> how its file's name goes on after the video's
    "skeletons": "-skeletons.mp4",
    "source": "-source.mp4",
    "keypoints": "-keypoints.json",
}


@dataclass(frozen=True)
class PoseSequence:
    """What the dancer follows."""

    pictures: np.ndarray  # the skeletons in the model's colours, uint8 [F, H, W, 3], of the size of the task
    poses: Poses | None  # the same as joints; None where they came as pictures
    source: np.ndarray | None  # the frames of the clip, uint8 [F, h, w, 3]; None where there were only joints
    fps: float  # at which it moves as fast as the clip
    facts: dict[str, Any]  # "poses": what was found, for a person

    def first(self, count: int) -> "PoseSequence":
        """The first `count` frames of it."""
        poses, source, told = self.poses, self.source, dict(self.facts["poses"])
        told |= {"frames": count, "frames_without_anybody": [n for n in told["frames_without_anybody"] if n < count]}
        if "confidence_of_frames" in told:
            told["confidence_of_frames"] = told["confidence_of_frames"][:count]
        return replace(
            self,
            pictures=self.pictures[:count],
            poses=None if poses is None else poses.frames(range(count)),
            source=None if source is None else source[:count],
            facts=self.facts | {"poses": told},
        )


def skeletons(
    task: PoseToVideo,
    models: "ModelManager | None",
    clip: Path | None = None,
    known: Path | None = None,
    measured: Measured | None = None,
) -> Generator[Progress, None, PoseSequence]:
    """The skeletons that `task` asks for. `clip` is the upload; it and `models` are None only where the task names a
    motion. `measured` is what was measured of it, if that is known. In the folder `known`, if there is one, it is
    remembered where people were found.

    Closing the generator stops the work within a frame. Raises ValueError, in words for the person who asked, where
    the upload can't be used, where the part that is used is empty, and where nobody is found in it.
    """
    yield Progress(READING, 0, 1)
    card = models.card(task.model) if models is not None else CATALOG.get(task.model)
    drawing = card.skeletons if card is not None else "coco"
    frames, unread = None, None
    people = clip is not None  # motions and drawn figures have a character's proportions already
    if clip is None or openpose_json.is_keypoints(clip):
        whole = openpose_json.read(find_motion(task.motion) if clip is None else clip)
        choice = clips.used(task, keypoints.as_clip(whole))
        if any(margins := _margins(task, whole.width, whole.height)):
            whole = keypoints.crop(whole, *margins)
        poses = replace(whole.frames(choice.indices), fps=choice.fps)
        origin = said("a built-in motion") if clip is None else said("keypoints")
    else:
        assert models is not None
        settings = models.settings
        measured = measured or measuring.measure(clip, settings)
        choice = clips.used(task, measured.clip)
        part = (task.start, task.end, task.frames, task.stride)
        kept = max(1 - task.left - task.right, 1 - task.top - task.bottom)  # what is cut off need not be sharp
        side = min(round(SIDE / max(kept, 0.5)), settings.upload_side)
        frames = uploads.frames(clip, settings, *part, side=side, measured=measured)
        frames = _cropped(frames, task)
        yield Progress(READING, 1, 1)
        drawn = _drawn(task, frames)
        if drawn == "coco" == drawing:
            return _as_they_are(task, frames, choice)
        if drawn == "coco":
            raise ValueError(
                said(
                    "These skeletons are in FollowYourPose's colours, which this model does not know. Upload the clip "
                    "that they were made of, or keypoints (JSON)."
                )
            )
        if drawn == "openpose":
            poses, origin = rainbow.read(frames, choice.fps), said("skeletons in OpenPose's colours, drawn anew")
            unread = rainbow.tell_unread(rainbow.unread(frames, poses), choice.frames)
        else:
            poses, by = yield from _people(task, frames, choice.fps, models, known)
            people = FOUND[by] == PEOPLE
            origin = said("{who} found by {detector}", who=FOUND[by], detector=said(models.detector(by).title))

    if frames is None:
        everybody = tracking.track(poses)
    else:
        everybody = tracking.lasting(tracking.track(poses, tracking.looks(frames, poses)))
    dancers = models.card(task.model).dancers if models is not None and task.clip and task.person is None else 0
    chosen = keypoints.foremost(everybody, dancers) if dancers else keypoints.choose(everybody, task.person)
    facts = _told(choice, origin) | {
        "people": everybody.joints.shape[1],
        "confidence": round(float(chosen.confidence.mean()), 3),
        "confidence_of_frames": [round(value, 3) for value in chosen.confidence.tolist()],
        "frames_without_anybody": keypoints.absent(chosen),
    }
    notes = [facts.pop("note", None), unread, keypoints.tell_absent(chosen)]
    if task.gaps:
        chosen = keypoints.fill_gaps(chosen)
    chosen = keypoints.smooth(chosen, task.smoothing)
    body = None
    if task.retarget and people:
        assert models is not None
        body = models.card(task.model).body_of(task.prompt)
    if body is None:
        placed = keypoints.place(chosen, task.width, task.height, task.placing)
    else:
        facts["proportions"], body = body
        placed = retargeting.retarget(chosen, body, task.width, task.height)
    if dancers:
        placed = keypoints.apart(placed)
        if placed.joints.shape[1] < everybody.joints.shape[1]:
            notes.append(
                said(
                    "Of {people} people those most in view are followed: this model draws {dancers} at most, and only "
                    "apart. Choose one of them under “Who is followed”.",
                    people=everybody.joints.shape[1],
                    dancers=dancers,
                )
            )
    if lost := keypoints.outside(placed):
        count = int(placed.seen.sum())
        notes.append(
            said(
                "{lost} of {count} joints lie outside the picture: place the skeletons by fit to see them all.",
                lost=lost,
                count=count,
            )
        )
    if any(notes):
        facts["note"] = reduce(_then, filter(None, notes))
    return PoseSequence(skeleton.draw(placed, drawing), placed, frames, choice.fps, {"poses": facts})


def keep(sequence: PoseSequence, video_path: Path, fps: float) -> None:
    """Writes what is known of the skeletons beside the video that followed them, for a look at both: COMPANIONS."""
    files = {kind: _beside(video_path, kind) for kind in COMPANIONS}
    if sequence.pictures.max() > video.BLACK:
        video.write(sequence.pictures, files["skeletons"], fps)
    if sequence.source is not None:
        video.write(sequence.source, files["source"], fps)
    if sequence.poses is not None:
        openpose_json.write(sequence.poses, files["keypoints"])


def kept(video_path: Path) -> dict[str, Path]:
    """What `keep` has written beside the video: a key of COMPANIONS each."""
    files = {kind: _beside(video_path, kind) for kind in COMPANIONS}
    return {kind: file for kind, file in files.items() if file.exists()}


def _beside(video_path: Path, kind: str) -> Path:
    return video_path.with_name(video_path.stem + COMPANIONS[kind])


def _margins(task: PoseToVideo, width: int, height: int) -> tuple[int, int, int, int]:
    """How many pixels are cut off at the left, right, top and bottom of a picture of this size."""
    left, right = (round(share * width) for share in (task.left, task.right))
    top, bottom = (round(share * height) for share in (task.top, task.bottom))
    return left, right, top, bottom


def _cropped(frames: np.ndarray, task: PoseToVideo) -> np.ndarray:
    _, height, width, _ = frames.shape
    left, right, top, bottom = _margins(task, width, height)
    if left + right >= width or top + bottom >= height:
        raise ValueError(said("The crop leaves nothing of the clip's few pixels. Cut off less."))
    return frames[:, top : height - bottom, left : width - right]


def _people(
    task: PoseToVideo, frames: np.ndarray, fps: float, models: "ModelManager", known: Path | None
) -> Generator[Progress, None, tuple[Poses, str]]:
    """As detection.extract, but does not detect again what the same detector found in the same frames before."""
    from pipelines.poses import detection  # and with it torch, which a motion does not need

    if known is None:
        return (yield from detection.extract(frames, fps, task.detector, models))
    networks = [f"{name}/{part}" for name in detection.used(task.detector) for part in models.detector(name).parts]
    asked = (task.detector, *map(models.key, networks), task.start, task.end, task.frames, task.stride)
    asked += (task.left, task.right, task.top, task.bottom)
    file = known / f"people-{hashlib.sha256(repr(asked).encode()).hexdigest()[:32]}.npz"
    if file.exists():
        _, height, width, _ = frames.shape
        with np.load(file, allow_pickle=False) as content:
            return Poses(content["joints"], width, height, fps), str(content["by"])
    poses, by = yield from detection.extract(frames, fps, task.detector, models)
    with video.whole(file) as temporary, temporary.open("wb") as new:
        np.savez(new, joints=poses.joints, by=by)
    return poses, by


def _drawn(task: PoseToVideo, frames: np.ndarray) -> str | None:
    """A key of skeleton.KINDS, or None for people. Raises ValueError where there should be skeletons and are none."""
    if task.shown == "clip":
        return None
    drawn = skeleton.recognise(frames)
    if task.shown == "skeleton" and drawn is None:
        raise ValueError(
            said(
                "This part of the clip shows no skeletons in FollowYourPose's or OpenPose's colours on black. Choose "
                "another part of it, or have people looked for in it."
            )
        )
    return drawn


def _as_they_are(task: PoseToVideo, frames: np.ndarray, choice: Choice) -> PoseSequence:
    """Skeletons in the right colours, of which no joints are known."""
    if task.person is not None:
        raise ValueError(said("The people in this skeleton video can't be told apart. Keep all of them."))
    pictures = skeleton.place_frames(frames, task.width, task.height, task.placing)
    black = np.flatnonzero(pictures.reshape(len(pictures), -1).max(axis=1) <= video.BLACK).tolist()
    facts = _told(choice, "skeletons in FollowYourPose's colours, as they are") | {"frames_without_anybody": black}
    return PoseSequence(pictures, None, frames, choice.fps, {"poses": facts})


def _then(first: str, second: str) -> str:
    return said("{first} {second}", first=first, second=second)


def _told(choice: Choice, origin: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"origin": origin, "frames": choice.frames, "fps": round(choice.fps, 3)}
    if choice.frames < choice.wanted:
        facts["note"] = said(
            "The chosen part has {frames} frames and not {wanted}: all of them are used.",
            frames=choice.frames,
            wanted=choice.wanted,
        )
    return facts
