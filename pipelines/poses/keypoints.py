"""The people of a clip as joints: gaps, jitter, and their place on a canvas.

A joint is x, y (pixels; whole numbers are the middles of pixels) and a confidence from 0 to 1. A joint that is missing
is 0, 0, 0, as in OpenPose's own files. The 18 joints are OpenPose's COCO body (Cao et al. 2017), R being the person's
own right; FollowYourPose was trained on the 17 of COCO itself, which have no neck.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.errors import Refusal
from pipelines.media.measuring import Clip
from pipelines.messages import said
from pipelines.pose_tasks import PLACEMENTS, SMOOTHING

JOINTS = (
    *("nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist"),
    *("right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle"),
    *("right eye", "left eye", "right ear", "left ear"),
)
NECK, RIGHT_SHOULDER, LEFT_SHOULDER = 1, 2, 5
COCO = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)  # COCO's 17 joints among OpenPose's 18
MARGIN = 0.08  # of the canvas, left free around the joints by "fill": for the crown, the hands and the feet
CROWDED = 0.2  # of the room that one of two people needs, taken by the other: both can't be drawn
GAP_SECONDS = 0.5  # a joint that stays away longer is not guessed


@dataclass(frozen=True)
class Poses:
    """The people of a clip, frame by frame, and the picture that their joints are measured in."""

    joints: np.ndarray  # float32 [F, P, 18, 3]: x, y, confidence
    width: int  # pixels
    height: int
    fps: float

    def __post_init__(self) -> None:
        if self.joints.ndim != 4 or self.joints.shape[2:] != (18, 3):
            raise ValueError(f"Poses are made of joints [F, P, 18, 3], not {list(self.joints.shape)}.")

    @property
    def seen(self) -> np.ndarray:
        """Which joints there are: bool [F, P, 18]."""
        return self.joints[..., 2] > 0

    @property
    def confidence(self) -> np.ndarray:
        """Of each frame: the mean over the joints of all people who are in it, 0 where there is nobody. [F]"""
        present = self.seen.any(axis=2, keepdims=True)
        count = np.maximum(present.sum(axis=(1, 2)) * 18, 1)
        return self.joints[..., 2].sum(axis=(1, 2)) / count

    def frames(self, indices: Sequence[int] | range) -> "Poses":
        """The frames with these numbers only."""
        return replace(self, joints=self.joints[list(indices)])


def stack(people: Sequence[np.ndarray], width: int, height: int, fps: float) -> Poses:
    """Poses of frames with any number of people each: arrays [P, 18, 3]."""
    joints = np.zeros((len(people), max((len(each) for each in people), default=0), 18, 3), np.float32)
    for frame, each in zip(joints, people, strict=True):
        frame[: len(each)] = each
    return Poses(joints, width, height, fps)


def to_coco(joints: np.ndarray) -> np.ndarray:
    """[..., 18, 3] -> [..., 17, 3]."""
    return joints[..., COCO, :]


def from_coco(joints: np.ndarray) -> np.ndarray:
    """[..., 17, 3] -> [..., 18, 3]: the neck is between the shoulders, where both are known."""
    found = np.zeros((*joints.shape[:-2], 18, 3), np.float32)
    found[..., COCO, :] = joints
    shoulders = found[..., (RIGHT_SHOULDER, LEFT_SHOULDER), :]
    neck = shoulders.mean(axis=-2)
    neck[..., 2] = shoulders[..., 2].min(axis=-1)
    found[..., NECK, :] = np.where(neck[..., 2:] > 0, neck, 0)
    return found


# Who is shown


def choose(poses: Poses, person: int | None) -> Poses:
    """Only the person with this number (0: whom `tracking.track` put first), or everybody for None.

    Raises ValueError where there is no such person.
    """
    if person is None:
        return poses
    count = poses.joints.shape[1]
    if isinstance(person, bool) or not isinstance(person, int) or not 0 <= person < count:
        people = "one person" if count == 1 else f"{count} people"
        raise ValueError(
            said(
                "There is no person {person}: {people} were found. Choose one of them, or all.",
                person=repr(person),
                people=people,
            )
        )
    return replace(poses, joints=poses.joints[:, person : person + 1])


def foremost(poses: Poses, count: int) -> Poses:
    """As many people as `count`: those who come first, and whoever comes before or after one of them.

    Somebody who is away for a while keeps their place. Needs the people in order (`tracking.track`).
    """
    present = poses.joints[..., 2].max(axis=2) > 0  # [F, P]
    joints = np.zeros((len(present), count, 18, 3), np.float32)
    taken = np.zeros((len(present), count), bool)
    for person in range(present.shape[1]):
        frames = np.flatnonzero(present[:, person])
        if len(frames):
            stay = slice(frames[0], frames[-1] + 1)
            free = np.flatnonzero(~taken[stay].any(axis=0))[:1]
            joints[stay, free] = poses.joints[stay, person, None]
            taken[stay, free] = True
    return replace(poses, joints=joints[:, taken.any(axis=0)])


def apart(poses: Poses) -> Poses:
    """Without those who are in the way of somebody who comes before them."""
    kept: list[np.ndarray] = []
    for person in np.moveaxis(poses.joints, 1, 0):
        if all(_overlap(person, other) <= CROWDED for other in kept):
            kept.append(person)
    return replace(poses, joints=np.stack(kept, axis=1)) if kept else poses


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """How much of the room that the smaller of two people [F, 18, 3] needs the other needs as well: the mean of the
    frames in which both are, from 0 to 1."""
    shares = []
    for mine, yours in zip(one, other, strict=True):
        if mine[:, 2].any() and yours[:, 2].any():
            (a, b), (c, d) = _room(mine), _room(yours)
            common = np.prod(np.maximum(np.minimum(b, d) - np.maximum(a, c), 0))
            shares.append(common / max(min(np.prod(b - a), np.prod(d - c)), 1))
    return float(np.mean(shares)) if shares else 0.0


def _room(person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners (x, y) of the box that a person [18, 3] needs: at least half as wide as high."""
    points = person[person[:, 2] > 0, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    wider = max(0, (high[1] - low[1]) / 2 - (high[0] - low[0])) / 2
    return low - (wider, 0), high + (wider, 0)


def absent(poses: Poses) -> list[int]:
    """The numbers of the frames in which nobody is."""
    return np.flatnonzero(~poses.seen.any(axis=(1, 2))).tolist()


def tell_absent(poses: Poses) -> str | None:
    """A sentence on the frames without anybody, counted from 1, and what to do; None where there are none."""
    frames = absent(poses)
    if not frames:
        return None
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    named = [f"{first + 1}" if first == last else f"{first + 1}–{last + 1}" for first, last in runs[:6]]
    return said(
        "Nobody is seen in these of the {count} frames: {frames}. Short gaps are filled; in the others the video is "
        "free. Choose another part of the clip to avoid that.",
        count=len(poses.joints),
        frames=", ".join([*named, *(["…"] if len(runs) > 6 else [])]),
    )


# Gaps and jitter


def fill_gaps(poses: Poses, seconds: float = GAP_SECONDS) -> Poses:
    """Joints that are away for at most so long move in a straight line from where they left to where they come back.

    Their confidence is half of what it is at the ends. Needs the people in order (`tracking.track`).
    """
    joints = poses.joints.copy()
    longest = max(1, round(seconds * poses.fps))
    for person in range(joints.shape[1]):
        for joint in range(18):
            path = joints[:, person, joint]  # a view [F, 3]
            times = np.flatnonzero(path[:, 2] > 0)
            for before, after in zip(times, times[1:], strict=False):
                if 1 < after - before <= longest + 1:
                    share = (np.arange(before + 1, after) - before)[:, None] / (after - before)
                    path[before + 1 : after] = (1 - share) * path[before] + share * path[after]
                    path[before + 1 : after, 2] *= 0.5
    return replace(poses, joints=joints)


def smooth(poses: Poses, strength: str) -> Poses:
    """Takes the jitter out of the paths of all joints: a Gaussian in time, in which sure joints count more.

    `strength` is a key of SMOOTHING. Missing joints stay missing. Needs the people in order (`tracking.track`). Raises
    ValueError for another strength.
    """
    if strength not in SMOOTHING:
        raise ValueError(f"The smoothing must be one of {', '.join(SMOOTHING)}, not {str(strength)[:40]!r}.")
    deviation = SMOOTHING[strength] * poses.fps  # frames
    if not deviation or len(poses.joints) < 2:
        return poses
    frames = np.arange(len(poses.joints))
    kernel = np.exp(-0.5 * ((frames[:, None] - frames) / deviation) ** 2)  # [F, F]
    positions, confidence = poses.joints[..., :2], poses.joints[..., 2:]
    weights = np.tensordot(kernel, confidence, 1)
    smoothed = np.tensordot(kernel, positions * confidence, 1) / np.maximum(weights, 1e-9)
    joints = np.concatenate([np.where(confidence > 0, smoothed, 0), confidence], axis=-1)
    return replace(poses, joints=joints.astype(np.float32))


# Place on a canvas


@dataclass(frozen=True)
class Placement:
    """Where a picture lies on a canvas: a point (x, y) of it comes to (scale * x + right, scale * y + down)."""

    scale: float
    right: float  # pixels of the canvas
    down: float


def placement(
    box: tuple[float, float, float, float], size: tuple[int, int], canvas: tuple[int, int], how: str
) -> Placement:
    """How a picture of `size` (width, height) is laid on a canvas of that size.

    `box` (left, top, right, bottom) is what is to be seen in it. "fit": the whole picture, and what of the box reaches
    beyond it, with black beside. "fill": the box as large as it can be with a margin, in the middle. "crop": the middle
    of the picture, its shorter side filling the canvas, as FollowYourPose itself does it; what lies outside is lost.
    Raises ValueError for another way.
    """
    if how not in PLACEMENTS:
        raise ValueError(f"The skeletons can be placed by {', '.join(PLACEMENTS)}, not by {str(how)[:40]!r}.")
    (width, height), (wide, high) = size, canvas
    left, top, right, bottom = -0.5, -0.5, width - 0.5, height - 0.5  # pixels have middles and edges
    if how == "fit":
        left, top = min(left, box[0] - 0.5), min(top, box[1] - 0.5)
        right, bottom = max(right, box[2] + 0.5), max(bottom, box[3] + 0.5)
    elif how == "fill":
        left, top, right, bottom = box
    across, down = wide / max(right - left, 1.0), high / max(bottom - top, 1.0)
    scale = {"fit": min(across, down), "fill": (1 - 2 * MARGIN) * min(across, down), "crop": max(across, down)}[how]
    return Placement(scale, (wide - 1) / 2 - scale * (left + right) / 2, (high - 1) / 2 - scale * (top + bottom) / 2)


def box(poses: Poses) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of all joints of the clip. Raises ValueError where there are none."""
    points = poses.joints[poses.seen][:, :2]
    if not len(points):
        raise Refusal(said("Nobody was found in the clip. Choose another part of it, or another clip."))
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def place(poses: Poses, width: int, height: int, how: str = "fit") -> Poses:
    """The people on a canvas of `width` x `height`, laid there as `placement` says. Joints may come to lie outside."""
    laid = placement(box(poses), (poses.width, poses.height), (width, height), how)
    joints = poses.joints.copy()
    joints[..., :2] = np.where(poses.seen[..., None], laid.scale * joints[..., :2] + (laid.right, laid.down), 0)
    return Poses(joints, width, height, poses.fps)


def outside(poses: Poses) -> int:
    """How many joints of the clip lie outside the picture, and would not be drawn."""
    x, y = poses.joints[..., 0], poses.joints[..., 1]
    inside = (x >= -0.5) & (x <= poses.width - 0.5) & (y >= -0.5) & (y <= poses.height - 0.5)
    return int((poses.seen & ~inside).sum())


def crop(poses: Poses, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0) -> Poses:
    """The picture without so many pixels at each side; joints there are gone. Raises ValueError if nothing is left."""
    width, height = poses.width - left - right, poses.height - top - bottom
    if min(left, right, top, bottom) < 0 or width < 1 or height < 1:
        raise ValueError(
            said(
                "Of a picture of {width}x{height} pixels, {left}, {right}, {top} and {bottom} can't be "
                "cut off at the left, right, top and bottom. Cut off less.",
                width=poses.width,
                height=poses.height,
                left=left,
                right=right,
                top=top,
                bottom=bottom,
            )
        )
    joints = poses.joints.copy()
    joints[..., :2] -= (left, top)
    x, y = joints[..., 0], joints[..., 1]
    joints[(x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5) | ~poses.seen] = 0
    return Poses(joints, width, height, poses.fps)


def as_clip(poses: Poses) -> Clip:
    """What `measuring.inspect` would say of a clip with these poses."""
    count = len(poses.joints)
    kind = {"codec": "keypoints", "kind": "OpenPose JSON", "sound": False, "cut": False}
    return Clip(poses.width, poses.height, poses.fps, count / poses.fps, count, **kind)
