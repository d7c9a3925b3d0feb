"""A clip's motion with a character's own proportions: the directions of the clip's bones, the character's lengths.

Networks that know one kind of figure draw no other: given the long legs of a person, a bear's come out smeared. So each
bone points where it points in the clip, as much shorter than its full length as it is there (foreshortening); the feet
stay on the ground that they have in the clip, and the way across is as long in heights of the character as it was in
heights of the person.
"""

import numpy as np

from pipelines.cards import Body
from pipelines.errors import Refusal
from pipelines.messages import said
from pipelines.poses.keypoints import Poses

STATURE, FLOOR = 0.6, 0.9  # of the canvas' height: how tall the character is, and where the ground lies
MARGIN = 0.06  # of the canvas' width, left free at the sides
PARENTS = {  # joint -> the one that its bone leads from; those nearer to the neck first
    **{0: 1, 2: 1, 5: 1, 8: 1, 11: 1, 3: 2, 4: 3, 6: 5, 7: 6, 9: 8, 10: 9, 12: 11, 13: 12},
    **{14: 0, 15: 0, 16: 14, 17: 15},
}
BONES = {  # joint -> its bone in Body
    **{0: "head", 2: "shoulder", 5: "shoulder", 8: "torso", 11: "torso", 3: "upper_arm", 6: "upper_arm"},
    **{4: "forearm", 7: "forearm", 9: "thigh", 12: "thigh", 10: "shin", 13: "shin"},
    **{14: "eye", 15: "eye", 16: "ear", 17: "ear"},
}
HUMAN = Body(  # a grown person's, to tell a bone that is short in the clip from one that always points at the camera
    shoulder=0.11, upper_arm=0.16, forearm=0.145, torso=0.3, thigh=0.24, shin=0.24, head=0.12, eye=0.04, ear=0.06,
    ankle=0.04,
)  # fmt: skip
LONG = 90  # the percentile of a bone's lengths in a clip that counts as its full length
PLAUSIBLE = 0.75  # of a grown person's bone: one that never gets so long is seen foreshortened all the time
STRETCH = 1.05  # of its full length: no bone gets longer
CLOSER = 1.25  # times as large, or as small, as in the middle a character gets where the person comes closer, at most
STEADY_SECONDS = 1.0  # in which the person's size changes
LEAP_SECONDS = 0.8  # no leap takes longer; a foot that is up for longer stands on something higher
ANKLES = (10, 13)
LONG_BONES = (8, 11, 9, 12, 10, 13, 3, 6, 4, 7)  # by the joints that they lead to


def retarget(poses: Poses, body: Body, width: int, height: int) -> Poses:
    """The people of `poses` with the proportions of `body`, on a canvas of `width` x `height` pixels.

    Needs the people in order (tracking.track), gaps filled and jitter smoothed. What hangs on a joint that is missing
    is missing too. Raises ValueError where nobody has a neck, to which all else is tied.
    """
    sizes = [_sizes(person, poses.fps) for person in poses.joints.transpose(1, 0, 2, 3)]
    usual = [0.0 if size is None else float(np.median(size)) for size in sizes]
    if not any(usual):
        raise Refusal(
            said(
                "No body is to be seen in these poses that could be carried over to the character's proportions. Do "
                "without its own proportions, or choose another part of the clip."
            )
        )
    joints = np.zeros_like(poses.joints)
    for number, size in enumerate(sizes):
        if size is not None:  # two people of a clip keep their difference in size, as far as the character can
            share = max(usual[number] / max(usual), 1 / CLOSER)
            closer = np.clip(size / usual[number], 1 / CLOSER, CLOSER)
            joints[:, number] = _carried(poses.joints[:, number], size, body, share * STATURE * height * closer, poses)
    return Poses(_inside(joints, width, height), width, height, poses.fps)


def _sizes(person: np.ndarray, fps: float) -> np.ndarray | None:
    """How tall the person [F, 18, 3] would stand in each frame, in pixels [F]; None where that can't be told."""
    shares = np.stack([_lengths(person, joint) / getattr(HUMAN, BONES[joint]) for joint in LONG_BONES])  # (bones, F)
    known = (np.isfinite(shares).sum(axis=0) >= 2) & (person[:, 1, 2] > 0)
    if not known.any():
        return None
    # Foreshortening makes bones shorter, never longer: of a frame's bones the longest tell the size.
    told = np.nanpercentile(shares[:, known], 80, axis=0)
    frames = np.arange(len(person))
    kernel = np.exp(-0.5 * ((frames[:, None] - frames[known]) / (STEADY_SECONDS * fps)) ** 2) + 1e-12
    return kernel @ told / kernel.sum(axis=1)


def _lengths(person: np.ndarray, joint: int) -> np.ndarray:
    """Of the bone that leads to `joint`, in each frame: pixels, NaN where an end is missing. [F]"""
    parent = PARENTS[joint]
    both = (person[:, joint, 2] > 0) & (person[:, parent, 2] > 0)
    return np.where(both, np.hypot(*(person[:, joint, :2] - person[:, parent, :2]).T), np.nan)


def _carried(person: np.ndarray, size: np.ndarray, body: Body, stature: np.ndarray, poses: Poses) -> np.ndarray:
    """The person [F, 18, 3], `size` pixels tall [F], as the character, `stature` pixels tall [F]: x from where the
    clip's middle is, y from the ground.
    """
    figure = np.zeros_like(person)
    figure[:, 1, 2] = person[:, 1, 2]  # the neck, from which all bones lead
    for joint, parent in PARENTS.items():
        bone = BONES[joint]
        length = _lengths(person, joint)
        alike = np.concatenate([_lengths(person, one) / size for one, name in BONES.items() if name == bone])
        there = np.isfinite(length) & (figure[:, parent, 2] > 0)
        if there.any():
            full = max(np.nanpercentile(alike, LONG), PLAUSIBLE * getattr(HUMAN, bone))
            shown = np.minimum(length / size / full, STRETCH) * getattr(body, bone) * stature  # [F]
            way = (person[:, joint, :2] - person[:, parent, :2]) / np.maximum(length, 1e-6)[:, None]
            figure[there, joint, :2] = (figure[:, parent, :2] + way * shown[:, None])[there]
            figure[there, joint, 2] = person[there, joint, 2]
    neck = np.where(person[:, 1, 2:] > 0, person[:, 1, :2], np.nan)  # [F, 2]
    usual = np.median(size)
    across = (neck[:, 0] - poses.width / 2) / usual * np.median(stature)
    move = np.stack([across, _down(figure, person, size, body, stature, poses.fps)], axis=1)  # [F, 2]
    seen = (figure[..., 2:] > 0) & np.isfinite(move[:, None]).all(axis=2, keepdims=True)
    figure = np.where(seen, figure + np.append(move, np.zeros((len(move), 1)), axis=1)[:, None], 0)
    return figure.astype(np.float32)


def _down(
    figure: np.ndarray, person: np.ndarray, size: np.ndarray, body: Body, stature: np.ndarray, fps: float
) -> np.ndarray:
    """Where the neck of `figure` belongs, in pixels below the ground [F]: its lower foot is as high above the ground,
    in its own height, as the person's is."""
    frames = np.arange(len(person))
    low, lowest = _lowest(person), _lowest(figure)  # [F] each
    known = np.isfinite(low) & np.isfinite(lowest)
    if known.any():
        air = np.clip(_ground(low, known, fps) - low, 0, None) / size  # of whoever jumps: heights above the ground
        return np.interp(frames, frames[known], (-body.ankle * stature - lowest - air * stature)[known])
    # Without feet it stands as a whole figure would, and goes up and down with the person's neck.
    neck = np.where(person[:, 1, 2] > 0, person[:, 1, 1], np.nan)
    legs = body.torso + body.thigh + body.shin + body.ankle
    return (neck - np.nanmedian(neck)) / size * stature - legs * stature


def _lowest(person: np.ndarray) -> np.ndarray:
    """y of the lower ankle in each frame, NaN where none is to be seen. [F]"""
    ankles = person[:, list(ANKLES)]
    low = np.where(ankles[..., 2] > 0, ankles[..., 1], -np.inf).max(axis=1)
    return np.where(np.isfinite(low), low, np.nan)


def _ground(low: np.ndarray, known: np.ndarray, fps: float) -> np.ndarray:
    """Where the ground lies in each frame [F], by the lower foot: where it is, but for leaps, which end soon. (The
    greatest of the moments around, then the least of these: a morphological closing fills what is short, and leaves
    what rises or falls for long.)
    """
    frames = np.arange(len(low))
    filled = np.interp(frames, frames[known], low[known])
    near = np.abs(frames[:, None] - frames) <= max(1, round(LEAP_SECONDS / 2 * fps))  # [F, F]
    highest = np.where(near, filled, -np.inf).max(axis=1)
    return np.where(near, highest, np.inf).min(axis=1)


def _inside(joints: np.ndarray, width: int, height: int) -> np.ndarray:
    """People as `_carried` leaves them [F, P, 18, 3] on a canvas: their ways made shorter, all alike, where they would
    lead out of it."""
    seen = joints[..., 2] > 0
    placed = joints.copy()
    necks = np.where(seen[..., 1], joints[..., 1, 0], np.nan)  # [F, P]
    beside = np.where(seen, joints[..., 0] - necks[..., None], np.nan)
    least, most = MARGIN * width - np.nanmin(beside), (1 - MARGIN) * width - np.nanmax(beside)  # for a neck
    ways = necks + width / 2
    first, last = np.nanmin(ways), np.nanmax(ways)
    if least >= most:  # with its arms out it is wider than the canvas: it stays in the middle
        moved = np.full_like(ways, (least + most) / 2)
    else:
        shorter = min(1.0, (most - least) / max(last - first, 1e-6))
        moved = (ways - first) * shorter + np.clip(first, least, most - shorter * (last - first))
    placed[..., 0] = np.where(seen, joints[..., 0] + (moved - necks)[..., None], 0)
    placed[..., 1] = np.where(seen, joints[..., 1] + FLOOR * height, 0)
    return placed
