"""How the dancers move: six actions as joint angles over time, and the skeleton they give.

Lengths are in body heights, x to the image's right, y down, the origin on the floor below the dancer.
Angles are in radians from hanging straight down, positive towards the image's right. R is the dancer's own right:
image left when the dancer faces the viewer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]
(
    NOSE,
    NECK,
    R_SHOULDER,
    R_ELBOW,
    R_WRIST,
    L_SHOULDER,
    L_ELBOW,
    L_WRIST,
    R_HIP,
    R_KNEE,
    R_ANKLE,
    L_HIP,
    L_KNEE,
    L_ANKLE,
    R_EYE,
    L_EYE,
    R_EAR,
    L_EAR,
) = range(18)
MIRROR = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]


@dataclass(frozen=True)
class Build:
    """Bone lengths of a character, in body heights (soles to crown)."""

    ankle: float  # height of the ankle above the floor
    thigh: float
    shin: float
    torso: float  # hips to neck
    shoulder: float  # half the width between the shoulders
    hip: float
    upper_arm: float
    forearm: float
    head: float  # neck to the middle of the head
    ear: float  # half the width between the ears

    @property
    def leg(self) -> float:
        return self.thigh + self.shin


@dataclass(frozen=True)
class Pose:
    """One moment of a motion."""

    hip: Point  # x of the pelvis, and how far it sinks below standing straight
    right_ankle: Point  # x, and height above where it stands
    left_ankle: Point
    right_arm: Point  # angle of the upper arm, angle of the forearm
    left_arm: Point
    lean: float = 0.0  # of the torso
    nod: float = 0.0  # of the head against the torso
    turn: float = 0.0  # -1 facing the image's left, 0 the viewer, 1 the image's right


def skeleton(pose: Pose, build: Build) -> np.ndarray:
    """Returns the 18 joints [18,2] in body heights. Knees bend outwards, or forwards where the dancer is turned."""
    joints = np.zeros((18, 2))
    narrow = 1 - 0.5 * abs(pose.turn)
    pelvis = np.array([pose.hip[0], -(build.ankle + build.leg - pose.hip[1])])
    up, across = _axes(pose.lean)
    neck = pelvis + build.torso * up
    joints[NECK] = neck
    for side, shoulder, hip, arm, ankle in (
        (-1, R_SHOULDER, R_HIP, pose.right_arm, pose.right_ankle),
        (1, L_SHOULDER, L_HIP, pose.left_arm, pose.left_ankle),
    ):
        joints[shoulder] = neck + side * build.shoulder * narrow * across - 0.03 * up
        joints[shoulder + 1] = joints[shoulder] + build.upper_arm * _down(arm[0])
        joints[shoulder + 2] = joints[shoulder + 1] + build.forearm * _down(arm[1])
        joints[hip] = pelvis + side * build.hip * narrow * _axes(pose.lean * 0.3)[1]
        target = np.array([ankle[0], -(build.ankle + ankle[1])])
        forward = side if abs(pose.turn) < 0.3 else np.sign(pose.turn)
        # Seen from the front a knee bends mostly towards the viewer: less of it shows.
        shown = 0.55 if abs(pose.turn) < 0.3 else 0.9
        joints[hip + 1], joints[hip + 2] = _leg(joints[hip], target, build, forward * shown)
    up, across = _axes(pose.lean + pose.nod)
    middle = neck + build.head * up
    look = pose.turn * 0.45 * build.ear * across
    joints[NOSE] = middle + 1.1 * look - 0.015 * up
    for side, eye, ear in ((-1, R_EYE, R_EAR), (1, L_EYE, L_EAR)):
        joints[eye] = middle + look + side * 0.42 * build.ear * (1 - 0.25 * abs(pose.turn)) * across + 0.02 * up
        joints[ear] = middle + side * build.ear * across
    return joints


def perform(action: str, build: Build, rng: np.random.Generator, seconds: np.ndarray) -> tuple[list[Pose], bool]:
    """The poses of an action at these times, and whether the whole clip is mirrored afterwards."""
    return _ACTIONS[action](build, rng, seconds), bool(rng.random() < 0.5)


def _axes(angle: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([np.sin(angle), -np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])


def _down(angle: float) -> np.ndarray:
    return np.array([np.sin(angle), np.cos(angle)])


def _leg(hip: np.ndarray, ankle: np.ndarray, build: Build, forward: float) -> tuple[np.ndarray, np.ndarray]:
    """Knee and ankle by two-bone inverse kinematics; an ankle out of reach is pulled in along the leg."""
    reach = ankle - hip
    distance = float(np.hypot(*reach))
    along = reach / distance
    distance = min(distance, 0.999 * build.leg)
    first = (distance**2 + build.thigh**2 - build.shin**2) / (2 * distance)
    bend = np.sqrt(max(build.thigh**2 - first**2, 0.0))
    return hip + first * along + forward * bend * np.array([along[1], -along[0]]), hip + distance * along


def _ease(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def _pulse(x: float, rise: float, top: float, fall: float, end: float) -> float:
    """0 before rise, eased to 1 at top, held until fall, eased back to 0 at end."""
    return _ease((x - rise) / (top - rise)) - _ease((x - fall) / (end - fall))


def _dancing(build: Build, rng: np.random.Generator, seconds: np.ndarray) -> list[Pose]:
    """Sways from foot to foot on the beat, both arms in play."""
    style, beat, phase = rng.integers(3), rng.uniform(0.85, 1.1), rng.uniform(0, 1)
    sway, sink, arms = rng.uniform(0.14, 0.2) * build.leg, rng.uniform(0.08, 0.13) * build.leg, rng.uniform(0.85, 1.1)
    stance, step = 0.27 * build.leg, rng.uniform(0.16, 0.24) * build.leg
    poses = []
    for t in seconds:
        angle = 2 * np.pi * (beat * t + phase)
        s, late = np.sin(angle), np.sin(angle - 0.6)
        if style == 0:  # one arm up, the other down, in turn
            right, left = -1.6 + 0.85 * arms * s, 1.6 + 0.85 * arms * s
            right_arm, left_arm = (right, right - 0.35 + 0.5 * late), (left, left + 0.35 + 0.5 * late)
        elif style == 1:  # both overhead, swaying like grass
            right_arm, left_arm = (-2.3 + 0.3 * s, -2.6 + 0.55 * late), (2.3 + 0.3 * s, 2.6 + 0.55 * late)
        else:  # both thrown to one side, then to the other
            right, left = -0.75 + 1.0 * arms * s, 0.75 + 1.0 * arms * s
            right_arm, left_arm = (right, right + 0.9 * late), (left, left + 0.9 * late)
        poses.append(
            Pose(
                hip=(sway * s, (0.06 * build.leg) + sink * (0.5 + 0.5 * np.cos(2 * angle))),
                right_ankle=(-stance + 0.5 * step * max(s, 0) ** 2, step * max(s, 0) ** 2),
                left_ankle=(stance - 0.5 * step * max(-s, 0) ** 2, step * max(-s, 0) ** 2),
                right_arm=right_arm,
                left_arm=left_arm,
                lean=-0.16 * s,
                nod=0.22 * late,
            )
        )
    return poses


def _waving(build: Build, rng: np.random.Generator, seconds: np.ndarray) -> list[Pose]:
    """Stands and waves one arm above the head; the hand follows the forearm."""
    beat, phase, swing = rng.uniform(1.2, 1.6), rng.uniform(0, 1), rng.uniform(0.5, 0.6)
    start, stance, raised = rng.uniform(-0.5, 0.0), 0.2 * build.leg, rng.uniform(2.3, 2.5)
    poses = []
    for t in seconds:
        up, s = _ease((t - start) / 0.45), np.sin(2 * np.pi * (beat * t + phase))
        arm = 0.2 + (raised - 0.2) * up + 0.12 * s * up
        poses.append(
            Pose(
                hip=(-0.03 * build.leg + 0.02 * s * build.leg, 0.04 * build.leg),
                right_ankle=(-stance, 0),
                left_ankle=(stance, 0),
                right_arm=(-0.22 - 0.04 * s, -0.12 - 0.06 * s),
                left_arm=(arm, arm + (0.3 + swing * s) * up),
                lean=-0.06 - 0.02 * s,
                nod=0.1 + 0.03 * s,
            )
        )
    return poses


def _walking(build: Build, rng: np.random.Generator, seconds: np.ndarray) -> list[Pose]:
    """Crosses part of the stage; each foot stands still on the floor for 60% of its cycle."""
    cycle, speed, phase = rng.uniform(0.85, 1.05), rng.uniform(1.1, 1.35) * build.leg, rng.uniform(0, 1)
    stand, turn, arms = 0.6, rng.uniform(0.7, 0.85), rng.uniform(0.5, 0.65)
    half = speed * cycle * stand / 2
    poses = []

    def foot(p: float, pelvis: float) -> Point:
        p %= 1
        if p < stand:
            return pelvis + half * (1 - 2 * p / stand), 0.0
        swing = (p - stand) / (1 - stand)
        return pelvis + half * (2 * _ease(swing) - 1), 0.24 * build.leg * np.sin(np.pi * swing)

    for t in seconds:
        p, pelvis = t / cycle + phase, speed * (t - seconds[-1] / 2)
        s, late = np.cos(2 * np.pi * p - 0.6), np.cos(2 * np.pi * p - 1.1)  # the right foot is ahead at s = 1
        poses.append(
            Pose(
                hip=(pelvis, (0.075 - 0.025 * np.cos(4 * np.pi * p - 2.4)) * build.leg),
                right_ankle=foot(p, pelvis),
                left_ankle=foot(p + 0.5, pelvis),
                right_arm=(-arms * s, -arms * late + 0.35),
                left_arm=(arms * s, arms * late + 0.35),
                lean=0.07,
                nod=0.03 * late,
                turn=turn,
            )
        )
    return poses


def _jumping(build: Build, rng: np.random.Generator, seconds: np.ndarray) -> list[Pose]:
    """Crouches, flies on a parabola with the arms thrown up, lands soft, again."""
    cycle, phase, height = rng.uniform(0.92, 1.08), rng.uniform(0, 1), rng.uniform(0.5, 0.65) * build.leg
    depth, stance = rng.uniform(0.3, 0.4), 0.24 * build.leg
    tuck, spread = rng.uniform(0.06, 0.16), rng.uniform(0, 0.25)
    poses = []
    for t in seconds:
        p = (t / cycle + phase) % 1
        flight = max(1 - ((p - 0.65) / 0.25) ** 2, 0.0)  # in the air from 0.4 to 0.9 of the cycle
        crouch = _pulse(p, 0.08, 0.27, 0.3, 0.42) + 0.75 * (_ease((p - 0.86) / 0.1) if p > 0.5 else 1 - _ease(p / 0.09))
        arms = _pulse(p, 0.28, 0.5, 0.72, 1.0)
        arm = 0.35 - 0.1 * crouch + 2.15 * arms
        out = stance + spread * stance * flight
        legs = (height + tuck * build.leg) * flight
        poses.append(
            Pose(
                hip=(0.0, (0.03 + depth * crouch) * build.leg - height * flight),
                right_ankle=(-out, legs),
                left_ankle=(out, legs),
                right_arm=(-arm, -arm + 0.5 * crouch - 0.3 * arms),
                left_arm=(arm, arm - 0.5 * crouch + 0.3 * arms),
            )
        )
    return poses


def _bowing(build: Build, rng: np.random.Generator, seconds: np.ndarray) -> list[Pose]:
    """Turned to the side, bends the torso low, holds, and rises."""
    start, depth, style = rng.uniform(-0.1, 0.15), rng.uniform(1.05, 1.3), rng.integers(2)
    speed, turn, stance = rng.uniform(0.9, 1.1), rng.uniform(0.6, 0.8), 0.14 * build.leg
    poses = []
    for t in seconds:
        clock = (t - start) * speed
        fold, late = _pulse(clock, 0.1, 0.7, 1.1, 1.75), _pulse(clock, 0.18, 0.8, 1.15, 1.85)
        if style == 0:  # one hand to the heart, the other sweeps back
            right_arm, left_arm = (0.15 + 0.35 * late, 0.3 + 1.75 * late), (-0.1 - 1.1 * late, -0.1 - 1.35 * late)
        else:  # both arms hang and swing along
            right_arm, left_arm = (-0.1 + 0.3 * late, 0.05 + 0.35 * late), (0.1 + 0.3 * late, 0.2 + 0.4 * late)
        poses.append(
            Pose(
                hip=(-0.28 * fold * build.leg, (0.03 + 0.05 * fold) * build.leg),
                right_ankle=(-stance, 0),
                left_ankle=(stance, 0),
                right_arm=right_arm,
                left_arm=left_arm,
                lean=depth * fold,
                nod=0.12 * late,
                turn=turn,
            )
        )
    return poses


def _kicking(build: Build, rng: np.random.Generator, seconds: np.ndarray) -> list[Pose]:
    """Swings one leg up to the side, leaning against it; the other foot stays."""
    cycle, start, high = rng.uniform(1.0, 1.2), rng.uniform(-0.12, 0.15), rng.uniform(1.3, 1.6)
    stance, lean = 0.16 * build.leg, rng.uniform(0.3, 0.42)
    poses = []
    for t in seconds:
        p = (t - start) / cycle % 1
        wind, kick = _pulse(p, 0.02, 0.2, 0.22, 0.38), _pulse(p, 0.22, 0.44, 0.54, 0.86)
        late = _pulse(p, 0.26, 0.48, 0.6, 0.95)
        angle, length = 0.12 - 0.25 * wind + (high - 0.12) * kick, (0.97 - 0.2 * wind) * build.leg
        pelvis = (-0.05 - 0.12 * max(kick, 0.5 * wind)) * build.leg
        sink = (0.035 + 0.06 * wind + 0.03 * kick) * build.leg
        hip = build.leg - sink
        free = (pelvis + build.hip + length * np.sin(angle), max(hip - length * np.cos(angle), 0.0))
        planted = 1 - max(wind, kick)
        left = (planted * stance + (1 - planted) * free[0], (1 - planted) * free[1])
        poses.append(
            Pose(
                hip=(pelvis, sink),
                right_ankle=(-stance, 0),
                left_ankle=left,
                right_arm=(-0.35 - 1.15 * late, -0.25 - 1.3 * late + 0.5 * wind),
                left_arm=(0.35 + 0.95 * kick, 0.5 + 1.1 * late),
                lean=-lean * kick + 0.08 * wind,
                nod=0.6 * lean * late,
            )
        )
    return poses


_ACTIONS: dict[str, Callable[[Build, np.random.Generator, np.ndarray], list[Pose]]] = {
    "dancing": _dancing,
    "waving": _waving,
    "walking": _walking,
    "jumping": _jumping,
    "bowing": _bowing,
    "kicking": _kicking,
}
