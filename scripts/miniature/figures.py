"""The four paper dolls, cut from a few large shapes around a skeleton."""

from dataclasses import dataclass

import cv2
import numpy as np

from .motion import L_EAR, L_EYE, L_HIP, L_SHOULDER, NECK, R_ANKLE, R_EAR, R_EYE, R_HIP, R_KNEE, R_SHOULDER, Build

RGB = tuple[int, int, int]
OVERSAMPLE = 4  # drawn this much larger, then averaged down: smooth edges
_CIRCLE = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False))],
    axis=1,
)  # (20, 2)

BUILDS = {
    "person": Build(0.035, 0.195, 0.195, 0.29, 0.092, 0.055, 0.155, 0.145, 0.145, 0.105),
    "robot": Build(0.04, 0.18, 0.18, 0.29, 0.125, 0.07, 0.16, 0.155, 0.15, 0.115),
    "bear": Build(0.05, 0.14, 0.13, 0.33, 0.115, 0.08, 0.165, 0.14, 0.16, 0.135),
    "astronaut": Build(0.05, 0.165, 0.165, 0.3, 0.115, 0.075, 0.165, 0.145, 0.16, 0.13),
}
_SKIN_AND_HAIR = (
    ((246, 208, 176), (112, 66, 42)),
    ((246, 208, 176), (52, 40, 44)),
    ((226, 172, 132), (70, 44, 38)),
    ((190, 130, 92), (44, 36, 40)),
    ((146, 98, 72), (38, 32, 36)),
)


@dataclass(frozen=True)
class Look:
    """What varies between two clips of the same words."""

    character: str
    cloth: RGB
    skin: RGB
    hair: RGB
    long_hair: bool

    @classmethod
    def sample(cls, character: str, cloth: RGB, rng: np.random.Generator) -> "Look":
        skin, hair = _SKIN_AND_HAIR[rng.integers(len(_SKIN_AND_HAIR))]
        return cls(character, cloth, skin, hair, bool(rng.random() < 0.5))


def shade(colour: RGB, factor: float) -> RGB:
    return tuple(int(min(255, c * factor)) for c in colour)


def draw_figure(look: Look, joints: np.ndarray, height: float, turn: float, floor: float, size: int) -> np.ndarray:
    """Joints [18,2] in pixels -> the doll as premultiplied RGBA, uint8 [size,size,4]."""
    sheet = _Sheet(joints, height, turn, floor, size)
    _DOLLS[look.character](sheet, look)
    return cv2.resize(sheet.canvas, (size, size), interpolation=cv2.INTER_AREA)


class _Sheet:
    """A canvas that knows the doll's joints. Radii and lengths are in body heights."""

    def __init__(self, joints: np.ndarray, height: float, turn: float, floor: float, size: int) -> None:
        self.canvas = np.zeros((size * OVERSAMPLE, size * OVERSAMPLE, 4), np.uint8)
        self.joints, self.height, self.turn, self.floor = joints, height, turn, floor
        across = joints[L_EAR] - joints[R_EAR]
        self.across = across / np.hypot(*across)
        self.up = np.array([self.across[1], -self.across[0]])
        self.head = (joints[L_EAR] + joints[R_EAR]) / 2
        spine = joints[NECK] - (joints[R_HIP] + joints[L_HIP]) / 2
        self.spine = spine / np.hypot(*spine)
        self.right_is_far = turn < 0

    def at(self, right: float, up: float, look: float = 0.0) -> np.ndarray:
        """A point of the head, in body heights from its middle; `look` is how far it moves with the gaze."""
        return self.head + self.height * ((right + look * self.turn) * self.across + up * self.up)

    def polygon(self, points: np.ndarray, colour: RGB) -> None:
        """Fills the convex polygon [N,2] in pixels."""
        fixed = np.round(points * (16 * OVERSAMPLE)).astype(np.int32)
        cv2.fillConvexPoly(self.canvas, fixed, (*colour, 255), cv2.LINE_8, 4)

    def hull(self, colour: RGB, *circles: tuple[np.ndarray, float]) -> None:
        """Fills the convex hull of circles (middle in pixels, radius in body heights)."""
        points = np.concatenate([middle + radius * self.height * _CIRCLE for middle, radius in circles])
        self.polygon(cv2.convexHull(points.astype(np.float32))[:, 0], colour)

    def ellipse(self, colour: RGB, middle: np.ndarray, wide: float, high: float) -> None:
        """Fills an ellipse aligned with the head."""
        offsets = wide * _CIRCLE[:, :1] * self.across + high * _CIRCLE[:, 1:] * self.up  # (20, 2)
        self.polygon(middle + self.height * offsets, colour)

    def box(self, colour: RGB, middle: np.ndarray, up: np.ndarray, wide: float, high: float) -> None:
        """Fills a rectangle with half sides wide and high, whose height runs along the unit vector up."""
        side, top = np.array([-up[1], up[0]]) * wide * self.height, up * high * self.height
        self.polygon(middle + np.stack([-side - top, side - top, side + top, top - side]), colour)

    def eyes(self, colour: RGB, radius: float) -> None:
        for eye in (R_EYE, L_EYE):
            self.hull(colour, (self.joints[eye], radius))

    def foot(self, ankle: int, colour: RGB, length: float, radius: float) -> None:
        """A shoe from heel to toe: flat on the floor, square to the shin in the air."""
        joint, shin = self.joints[ankle], self.joints[ankle] - self.joints[ankle - 1]
        shin = shin / np.hypot(*shin)
        side = np.sign(self.turn) if abs(self.turn) > 0.3 else (-1 if ankle == R_ANKLE else 1)
        lifted = min(max((self.floor - joint[1]) / self.height - 0.05, 0.0) / 0.12, 1.0)
        toe = lifted * side * np.array([shin[1], -shin[0]]) + (1 - lifted) * np.array([side, 0.0])
        toe = toe / np.hypot(*toe)
        sole = joint + 0.012 * self.height * (lifted * shin + (1 - lifted) * np.array([0.0, 1.0]))
        self.hull(colour, (sole, radius), (sole + toe * length * self.height, radius * 0.85))

    def sides(self) -> tuple[int, int]:
        """Offsets to add to right-hand joints, far side first: 0 is the right, 3 the left."""
        return (0, 3) if self.right_is_far else (3, 0)


def _limb(sheet: _Sheet, first: int, upper: RGB, lower: RGB, radii: tuple[float, float, float]) -> None:
    a, b, c = (sheet.joints[first + i] for i in range(3))
    sheet.hull(lower, (b, radii[1]), (c, radii[2]))
    sheet.hull(upper, (a, radii[0]), (b, radii[1] * 1.08))


def _trunk(sheet: _Sheet, colour: RGB, shoulder: float, hip: float, hem: float) -> None:
    """Shoulders to hips as one shape, with a darker hem."""
    drop = sheet.spine * hem * sheet.height
    joints = sheet.joints
    ends = [(joints[R_HIP] - drop, hip), (joints[L_HIP] - drop, hip)]
    sheet.hull(shade(colour, 0.84), *ends, (joints[R_HIP] + drop, hip), (joints[L_HIP] + drop, hip))
    lift = sheet.spine * 0.03 * sheet.height - drop
    sheet.hull(
        colour,
        *((middle + lift, radius) for middle, radius in ends),
        *((joints[j] - sheet.spine * shoulder * 0.6 * sheet.height, shoulder) for j in (R_SHOULDER, L_SHOULDER)),
    )


def _person(sheet: _Sheet, look: Look) -> None:
    trousers, shoes, far = (58, 62, 84), (44, 38, 44), sheet.sides()[0]
    sleeve = {side: shade(look.cloth, 0.8 if side == far else 0.9) for side in (0, 3)}

    def arm(side: int) -> None:
        first = R_SHOULDER + side
        _limb(sheet, first, sleeve[side], look.skin, (0.046, 0.038, 0.033))
        sheet.hull(look.skin, (sheet.joints[first + 2], 0.04))

    turned = abs(sheet.turn) > 0.3
    if turned:
        arm(far)
    for side in sheet.sides():
        sheet.foot(R_ANKLE + side, shoes, 0.055, 0.034)
        tone = shade(trousers, 0.82 if side == far else 1.0)
        _limb(sheet, R_HIP + side, tone, tone, (0.056, 0.047, 0.036))
    if look.long_hair:
        sheet.hull(
            look.hair,
            (sheet.at(0, 0.025, -0.015), 0.118),
            (sheet.at(-0.06, -0.1, -0.03), 0.05),
            (sheet.at(0.06, -0.1, -0.03), 0.05),
        )
    sheet.hull(shade(look.skin, 0.88), (sheet.joints[NECK], 0.036), (sheet.head, 0.036))
    _trunk(sheet, look.cloth, 0.05, 0.062, 0.012)
    sheet.hull(look.hair, (sheet.at(0, 0.022, -0.022), 0.112))
    sheet.ellipse(look.skin, sheet.at(0, -0.018, 0.026), 0.092, 0.092)
    sheet.hull(look.hair, (sheet.at(-0.05, 0.07, 0.012), 0.034), (sheet.at(0.05, 0.07, 0.012), 0.034))
    sheet.eyes((40, 34, 40), 0.016)
    if not turned:
        arm(far)
    arm(0 if far == 3 else 3)


def _robot(sheet: _Sheet, look: Look) -> None:
    metal, dark, light = (122, 142, 164), (72, 86, 106), (214, 250, 240)
    far = sheet.sides()[0]

    def arm(side: int) -> None:
        first = R_SHOULDER + side
        a, b, c = (sheet.joints[first + i] for i in range(3))
        along = (c - b) / np.hypot(*(c - b))
        sheet.hull(metal if side != far else shade(metal, 0.86), (b, 0.034), (c, 0.034))
        sheet.hull(shade(look.cloth, 0.8 if side == far else 0.9), (a, 0.05), (b, 0.044))
        sheet.box(dark, c + along * 0.02 * sheet.height, along, 0.046, 0.034)

    turned = abs(sheet.turn) > 0.3
    if turned:
        arm(far)
    for side in sheet.sides():
        tone = shade(metal, 0.84 if side == far else 1.0)
        _limb(sheet, R_HIP + side, tone, tone, (0.045, 0.04, 0.04))
        sheet.hull(dark, (sheet.joints[R_KNEE + side], 0.036))
        sheet.foot(R_ANKLE + side, dark, 0.05, 0.044)
    joints, spine = sheet.joints, sheet.spine
    hips = (joints[R_HIP] + joints[L_HIP]) / 2
    length = float(np.hypot(*(joints[NECK] - hips))) / sheet.height
    wide = 0.148 - 0.03 * abs(sheet.turn)
    sheet.box(dark, joints[NECK], sheet.up, 0.04, 0.05)
    sheet.box(shade(look.cloth, 0.82), hips + spine * 0.02 * sheet.height, spine, wide * 0.8, 0.06)
    sheet.box(look.cloth, hips + spine * (0.03 + length / 2) * sheet.height, spine, wide, length / 2 - 0.025)
    sheet.hull(dark, (sheet.at(0, 0.1), 0.014), (sheet.at(0, 0.16), 0.014))
    sheet.hull(light, (sheet.at(0, 0.165), 0.03))
    for ear in (-1, 1):
        sheet.box(dark, sheet.at(ear * 0.125, 0, -0.02), sheet.up, 0.024, 0.04)
    sheet.box(metal, sheet.head, sheet.up, 0.125, 0.105)
    sheet.box(dark, sheet.at(0, 0.008, 0.03), sheet.up, 0.09, 0.052)
    sheet.eyes(light, 0.026)
    if not turned:
        arm(far)
    arm(0 if far == 3 else 3)


def _bear(sheet: _Sheet, look: Look) -> None:
    fur, cream, nose = (140, 92, 60), (224, 190, 148), (54, 38, 38)
    far = sheet.sides()[0]

    def arm(side: int) -> None:
        first, tone = R_SHOULDER + side, shade(fur, 0.86 if side == far else 1.0)
        _limb(sheet, first, shade(look.cloth, 0.8 if side == far else 0.9), tone, (0.066, 0.056, 0.054))
        sheet.hull(tone, (sheet.joints[first + 2], 0.058))

    turned = abs(sheet.turn) > 0.3
    if turned:
        arm(far)
    for side in sheet.sides():
        tone = shade(fur, 0.84 if side == far else 1.0)
        _limb(sheet, R_HIP + side, tone, tone, (0.08, 0.068, 0.056))
        sheet.foot(R_ANKLE + side, shade(tone, 0.9), 0.05, 0.052)
    _trunk(sheet, look.cloth, 0.075, 0.105, 0.01)
    for ear in (-1, 1):
        middle = sheet.at(ear * 0.105, 0.095, -0.02)
        sheet.hull(fur, (middle, 0.056))
        sheet.hull(cream, (middle, 0.028))
    sheet.ellipse(fur, sheet.head, 0.148, 0.13)
    sheet.ellipse(cream, sheet.at(0, -0.048, 0.075), 0.072, 0.056)
    sheet.ellipse(nose, sheet.at(0, -0.024, 0.09), 0.03, 0.021)
    sheet.eyes(nose, 0.018)
    if not turned:
        arm(far)
    arm(0 if far == 3 else 3)


def _astronaut(sheet: _Sheet, look: Look) -> None:
    suit, helmet, visor, gleam = (178, 184, 196), (216, 220, 228), (42, 54, 88), (132, 166, 206)
    far = sheet.sides()[0]

    def arm(side: int) -> None:
        first = R_SHOULDER + side
        _limb(
            sheet,
            first,
            shade(look.cloth, 0.8 if side == far else 0.9),
            shade(suit, 0.86 if side == far else 1.0),
            (0.066, 0.056, 0.05),
        )
        sheet.hull(shade(look.cloth, 0.8 if side == far else 0.9), (sheet.joints[first + 2], 0.052))

    turned = abs(sheet.turn) > 0.3
    joints, pack = sheet.joints, sheet.spine * 0.06 * sheet.height
    behind = -np.sign(sheet.turn) * 0.05 * sheet.height if turned else 0.0
    side_step = np.array([-sheet.spine[1], sheet.spine[0]]) * behind
    middle = (joints[R_HIP] + joints[L_HIP]) / 2
    sheet.hull(
        (112, 118, 136),
        *(
            (p + side_step, 0.06)
            for p in (joints[R_SHOULDER] - pack * 0.2, joints[L_SHOULDER] - pack * 0.2, middle + pack * 1.6)
        ),
    )
    if turned:
        arm(far)
    for side in sheet.sides():
        tone = shade(suit, 0.86 if side == far else 1.0)
        sheet.foot(R_ANKLE + side, shade(look.cloth, 0.8 if side == far else 0.92), 0.05, 0.05)
        _limb(sheet, R_HIP + side, tone, tone, (0.075, 0.064, 0.056))
    _trunk(sheet, look.cloth, 0.066, 0.085, 0.01)
    sheet.hull(helmet, (sheet.head, 0.15))
    sheet.ellipse(visor, sheet.at(0, -0.005, 0.04), 0.108, 0.09)
    sheet.ellipse(gleam, sheet.at(0.045, 0.03, 0.04), 0.034, 0.026)
    if not turned:
        arm(far)
    arm(0 if far == 3 else 3)


_DOLLS = {"person": _person, "robot": _robot, "bear": _bear, "astronaut": _astronaut}
