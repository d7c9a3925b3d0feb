"""Who is who: the people of each frame, put in order so that everybody keeps one place through the clip.

Everybody is looked for where they should be by now, at the pace of the last half second, and all are told apart at once
(Kuhn 1955): who is nearest to one may be nearer still to another. Where people cross, what they look like counts too.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipelines.poses.keypoints import Poses

LOST = 0.5  # of a person's size: further than this from where somebody should be, somebody else is
LOST_LONGER = 0.5  # likewise, added for each second away, as a guess gets worse
LOST_MOST = 1.2  # likewise, at most
PACE_SECONDS = 0.5  # in which a person's pace is measured
AWAY = 0.15  # sizes by which who was away is further: of two who have met, the one in front is the one to be seen
GUESS_SECONDS = 1.0  # for so long who is away is thought to go on; then to wait there
BRIEF_SECONDS, BRIEF_SHARE = (
    0.25,
    0.25,
)  # in view for no longer, beside somebody who is there four times as long: nobody
LOOK_WEIGHT = 1.5  # sizes by which black and white are apart, where people wear them
LOOK_KEPT = 0.9  # of what is known of a look, when more is seen of it
TORSO = (1, 2, 5, 8, 11)  # joints that move with the whole body
LOOKED_AT = ((2, 8), (5, 11), (8, 9), (11, 12), (2, 3), (5, 6))  # the middles between these joints are clothes


def looks(frames: np.ndarray, poses: Poses) -> np.ndarray:
    """The colours that people wear: from frames uint8 [F, H, W, 3] float32 [F, P, 6, 3] from 0 to 1, NaN where a part
    is not to be seen. `poses` are in pixels of the frames.
    """
    count, people = poses.joints.shape[:2]
    colours = np.full((count, people, len(LOOKED_AT), 3), np.nan, np.float32)
    for frame, joints, mine in zip(frames, poses.joints, colours, strict=True):
        for person, parts in zip(joints, mine, strict=True):
            reach = max(1, round(0.02 * _size(person)))
            for index, (one, other) in enumerate(LOOKED_AT):
                if person[one, 2] > 0 and person[other, 2] > 0:
                    x, y = np.round((person[one, :2] + person[other, :2]) / 2).astype(int)
                    patch = frame[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
                    if patch.size:
                        parts[index] = patch.reshape(-1, 3).mean(axis=0) / 255
    return colours


def track(poses: Poses, worn: np.ndarray | None = None) -> Poses:
    """The same people, each keeping one place in the array through the whole clip; whoever is most to be seen first.

    `worn` is what `looks` saw. A person away for a while is still known where they should come back.
    """
    count = len(poses.joints)
    tracks: list[_Track] = []
    for number, frame in enumerate(poses.joints):
        there = [index for index, person in enumerate(frame) if (person[:, 2] > 0).any()]
        people = frame[there]
        seen = worn[number, there] if worn is not None else [None] * len(there)
        both = list(zip(people, seen, strict=True))
        costs = np.array([[one.cost(person, look, number, poses.fps) for person, look in both] for one in tracks])
        costs = costs.reshape(len(tracks), len(people))
        # Nobody is given to somebody whom they can't be: one more is as dear as all that may be.
        olds, news = linear_sum_assignment(np.where(np.isfinite(costs), costs, 1e3))
        pairs = {new: old for old, new in zip(olds, news, strict=True) if np.isfinite(costs[old, new])}
        for new, (person, look) in enumerate(both):
            if new in pairs:
                known = tracks[pairs[new]]
            else:
                known = _Track(np.zeros((count, 18, 3), np.float32))
                tracks.append(known)
            alone = all(_apart(person, other) > LOST for index, other in enumerate(people) if index != new)
            known.add(number, person, look if alone else None)
    order = sorted(tracks, key=lambda one: -_prominence(one.joints))
    joints = [one.joints for one in order]
    return replace(poses, joints=np.stack(joints, axis=1) if joints else np.zeros((count, 0, 18, 3), np.float32))


def lasting(poses: Poses) -> Poses:
    """Without those whom a detector saw for a moment only, while somebody else was there all along.

    Needs the people in order (`track`).
    """
    present = poses.joints[..., 2].max(axis=2) > 0  # [F, P]
    lengths = present.sum(axis=0)
    brief = lengths <= min(BRIEF_SECONDS * poses.fps, BRIEF_SHARE * lengths.max(initial=0))
    beside = present[:, ~brief].any(axis=1)
    return replace(poses, joints=poses.joints[:, ~brief | ~(beside[:, None] | ~present).all(axis=0)])


@dataclass
class _Track:
    """One person, as far as is known."""

    joints: np.ndarray  # [F, 18, 3]: what is known so far
    frames: list[int] = field(default_factory=list)  # in which the person is
    middles: list[np.ndarray] = field(default_factory=list)  # of the torso there: (x, y)
    look: np.ndarray | None = None  # [6, 3]

    def add(self, number: int, person: np.ndarray, look: np.ndarray | None) -> None:
        self.joints[number] = person
        self.frames.append(number)
        self.middles.append(_middle(person))
        if look is not None:
            known = look if self.look is None else LOOK_KEPT * self.look + (1 - LOOK_KEPT) * look
            self.look = np.where(np.isfinite(known), known, look if self.look is None else self.look)

    def cost(self, person: np.ndarray, look: np.ndarray | None, number: int, fps: float) -> float:
        """How far `person` in frame `number` is from being this one, in sizes; infinite where that can't be."""
        away = (number - self.frames[-1]) / fps  # seconds
        last = self.joints[self.frames[-1]]
        expected = last.copy()
        expected[:, :2] += self._pace(fps) * min(away, GUESS_SECONDS) * (expected[:, 2:] > 0)
        far = min(_distance(expected, person), _distance(last, person))  # who was away may have turned back
        if far >= min(LOST + LOST_LONGER * (away - 1 / fps), LOST_MOST):
            return np.inf
        if self.frames[-1] < number - 1:
            far += AWAY
        if look is None or self.look is None:
            return far
        apart = np.abs(self.look - look)
        return far + (LOOK_WEIGHT * float(np.nanmean(apart)) if np.isfinite(apart).any() else 0.0)

    def _pace(self, fps: float) -> np.ndarray:
        """Pixels a second, (x, y), by a straight line through the middles of late."""
        recent = [index for index, frame in enumerate(self.frames) if self.frames[-1] - frame <= PACE_SECONDS * fps]
        if len(recent) < 2:
            return np.zeros(2)
        times = np.array([self.frames[index] for index in recent]) / fps
        middles = np.stack([self.middles[index] for index in recent])
        times = times - times.mean()
        return times @ (middles - middles.mean(axis=0)) / (times @ times)


def _middle(person: np.ndarray) -> np.ndarray:
    """The middle of the torso, or else of all joints there are, of [18, 3]: (x, y)."""
    torso = person[list(TORSO)]
    points = torso if (torso[:, 2] > 0).sum() >= 3 else person
    return points[points[:, 2] > 0, :2].mean(axis=0)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """How far two poses [18, 3] are from each other, in sizes of the larger: over the joints that both have."""
    size = max(_size(one), _size(other), 1e-6)
    both = (one[:, 2] > 0) & (other[:, 2] > 0)
    if both.any():
        return float(np.hypot(*(one[both, :2] - other[both, :2]).T).mean() / size)
    return _apart(one, other)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """How far the middles of two poses are from each other, in sizes of the larger."""
    return float(np.hypot(*(_middle(one) - _middle(other))) / max(_size(one), _size(other), 1e-6))


def _size(person: np.ndarray) -> float:
    """The longer side of the box around the joints [..., 3], in pixels."""
    points = person[person[..., 2] > 0][:, :2]
    return float(np.ptp(points, axis=0).max()) if len(points) else 0.0


def _prominence(joints: np.ndarray) -> float:
    """How much there is to be seen of a person [F, 18, 3]: size, times how many joints in how many frames."""
    sizes = [_size(pose) for pose in joints if (pose[:, 2] > 0).any()]
    return float(np.median(sizes) * joints[..., 2].sum())
