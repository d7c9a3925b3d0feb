"""Everybody in a clip, and where: the joints of people as they are in the clip's own picture, in one list of frames."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import Refusal
from pipelines.events import Progress
from pipelines.media import measuring, uploads
from pipelines.media.measuring import Measured
from pipelines.messages import said
from pipelines.pose_tasks import FindPoses
from pipelines.poses import detection, keypoints, openpose_json, rainbow, skeleton, tracking
from pipelines.poses.keypoints import Poses
from pipelines.poses.pose_preview import Found
from pipelines.poses.pose_sequence import FOUND, READING, SIDE

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager

CHUNK = 128  # frames that are in memory at once: 130 MB


def search(
    task: FindPoses, models: "ModelManager", clip: Path, measured: Measured | None = None
) -> Generator[Progress, None, Found]:
    """Finds the people in every frame that `task` names of the upload `clip`, of which `measured` may be known.

    Closing the generator stops the work within a frame. Raises ValueError, in words for the person who asked, where
    the upload can't be used, where it holds too many frames, and where nobody is found in it.
    """
    yield Progress(READING, 0, 1)
    if openpose_json.is_keypoints(clip):
        raise ValueError(said("These are keypoints already. Give the clip that they were made of."))
    settings = models.settings
    measured = measured or measuring.measure(clip, settings)
    whole = measured.clip
    choice = uploads.choose(whole, task.start, task.end, whole.frames, task.stride)
    most = openpose_json.MAX_FRAMES
    if choice.frames > most:
        raise ValueError(
            said(
                "{frames} frames are too many: {most} are allowed. Choose a part of the clip, or a larger stride.",
                frames=choice.frames,
                most=most,
            )
        )
    detector, kind, parts, worn, unread = task.detector, None, [], [], []
    for done in range(0, choice.frames, CHUNK):
        start = choice.indices[done] / whole.fps
        count = min(CHUNK, choice.frames - done)
        side = min(SIDE, settings.upload_side)
        frames = uploads.frames(clip, settings, start, None, count, task.stride, side, measured)
        if not parts:
            kind = skeleton.recognise(frames)
            if kind == "coco":
                raise ValueError(
                    said("These are skeletons in FollowYourPose's colours, whose joints can't be read back.")
                )
        if kind == "openpose":
            part = rainbow.read(frames, choice.fps)
            unread += rainbow.unread(frames, part)
        else:
            part, detector = yield from _told(
                detection.find(frames, choice.fps, detector, models), done, choice.frames
            )  # what "auto" chose first, it keeps
        parts.append(_enlarged(part, whole.width, whole.height))
        worn += list(tracking.looks(frames, part))
    people = [frame for part in parts for frame in part.joints]
    most = max(len(each) for each in worn)
    worn = np.stack([np.pad(each, ((0, most - len(each)), (0, 0), (0, 0)), constant_values=np.nan) for each in worn])
    everybody = tracking.track(keypoints.stack(people, whole.width, whole.height, choice.fps), worn)
    poses = tracking.lasting(everybody)
    if not poses.seen.any():
        raise Refusal(
            said(
                "Nobody was found in any of the {frames} frames. {advice}",
                frames=choice.frames,
                advice=models.detector(task.detector).advice,  # and not that of the one which "auto" chose
            )
        )
    origin = said("skeletons in OpenPose's colours")
    if not kind:
        origin = said("{who} found by {detector}", who=FOUND[detector], detector=said(models.detector(detector).title))
    facts = {
        "origin": origin,
        "frames": choice.frames,
        "fps": round(choice.fps, 3),
        "people": poses.joints.shape[1],
        "confidence_of_frames": [round(value, 3) for value in poses.confidence.tolist()],
        "frames_without_anybody": keypoints.absent(poses),
    }
    if note := rainbow.tell_unread(unread, choice.frames):
        facts["note"] = note
    return Found(openpose_json.text(poses), facts)


def _told(
    events: Generator[Progress, None, tuple[Poses, str]], done: int, total: int
) -> Generator[Progress, None, tuple[Poses, str]]:
    """`events` of a part, of whose search that many frames were done before."""
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as finished:
                return finished.value
            if event.stage == detection.FINDING:
                event = replace(event, step=done + event.step, total=total, seconds_left=None)
            yield event


def _enlarged(poses: Poses, width: int, height: int) -> Poses:
    """The same people in a picture of that size."""
    scale = np.array([width / poses.width, height / poses.height])
    joints = poses.joints.copy()
    joints[..., :2] = np.where(poses.seen[..., None], (joints[..., :2] + 0.5) * scale - 0.5, 0)
    return Poses(joints, width, height, poses.fps)
