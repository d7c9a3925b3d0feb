"""The four paper dolls: flat shapes with a bold outline around a skeleton, with mittens, shoes and faces.

Every shape is the convex hull of circles, so an outline is the same hull with larger circles.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from scripts.miniature.figures import RGB, shade
from scripts.miniature.motion import (
    L_EAR,
    L_EYE,
    L_HIP,
    L_SHOULDER,
    NECK,
    R_ANKLE,
    R_EAR,
    R_EYE,
    R_HIP,
    R_SHOULDER,
    Build,
)

OVERSAMPLE = 3  # drawn this much larger, then averaged down: smooth edges
INK: RGB = (38, 32, 48)
_OUTLINE = 0.0125  # body heights
_CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], axis=1)  # (24, 2)

# ankle, thigh, shin, torso, shoulder, hip, upper arm, forearm, head, ear: a doll, and nearly a human.
_DOLLS = {
    "person": Build(0.045, 0.175, 0.175, 0.27, 0.095, 0.058, 0.145, 0.135, 0.155, 0.125),
    "robot": Build(0.05, 0.165, 0.165, 0.275, 0.125, 0.07, 0.155, 0.145, 0.16, 0.125),
    "bear": Build(0.055, 0.135, 0.125, 0.31, 0.115, 0.08, 0.155, 0.135, 0.165, 0.14),
    "astronaut": Build(0.055, 0.16, 0.16, 0.285, 0.115, 0.075, 0.155, 0.14, 0.165, 0.135),
}
_HUMAN = Build(0.042, 0.235, 0.23, 0.285, 0.1, 0.055, 0.17, 0.15, 0.115, 0.082)
_MOST_HUMAN = {"person": 1.0, "robot": 0.8, "bear": 0.45, "astronaut": 0.6}  # of the way from doll to human
_SKIN_AND_HAIR: tuple[tuple[RGB, RGB], ...] = (
    ((250, 214, 182), (150, 88, 48)),
    ((250, 214, 182), (62, 46, 52)),
    ((230, 176, 136), (84, 52, 44)),
    ((194, 134, 96), (50, 40, 46)),
    ((148, 98, 72), (44, 36, 42)),
)


@dataclass(frozen=True)
class Look:
    """What varies between two clips of the same words."""

    character: str
    cloth: RGB
    skin: RGB
    hair: RGB
    long_hair: bool
    girth: float  # of limbs, 1 for a doll

    @classmethod
    def sample(cls, character: str, cloth: RGB, human: float, rng: np.random.Generator) -> "Look":
        """`human` is where the build lies between a doll's (0) and a human's (1)."""
        skin, hair = _SKIN_AND_HAIR[rng.integers(len(_SKIN_AND_HAIR))]
        return cls(character, cloth, skin, hair, bool(rng.random() < 0.5), 1 - 0.16 * human)


def sample_build(character: str, rng: np.random.Generator) -> tuple[Build, float]:
    """Proportions between a doll's and a human's, and where they lie between the two (0 to 1)."""
    human = float(rng.uniform(0, _MOST_HUMAN[character]))
    doll = _DOLLS[character]
    mixed = {name: (1 - human) * value + human * getattr(_HUMAN, name) for name, value in vars(doll).items()}
    return replace(doll, **mixed), human


def draw_figure(
    look: Look, joints: np.ndarray, height: float, turn: float, floor: float, size: tuple[int, int]
) -> np.ndarray:
    """Joints [18,2] in pixels -> the doll as premultiplied RGBA, uint8 [rows,columns,4] for size (rows, columns)."""
    low = np.floor(joints.min(axis=0) - 0.3 * height).astype(int).clip(0, (size[1], size[0]))
    high = np.ceil(joints.max(axis=0) + 0.2 * height).astype(int).clip(0, (size[1], size[0]))
    doll = np.zeros((*size, 4), np.uint8)
    if (high > low).all():
        wide, tall = high - low
        sheet = _Sheet(look, joints - low, height, turn, floor - low[1], (int(tall), int(wide)))
        _DRAWN[look.character](sheet)
        doll[low[1] : high[1], low[0] : high[0]] = cv2.resize(
            sheet.canvas, (int(wide), int(tall)), interpolation=cv2.INTER_AREA
        )
    return doll


Circle = tuple[np.ndarray, float]  # middle in pixels, radius in body heights
Part = tuple[RGB, tuple[Circle, ...]]


class _Sheet:
    """A canvas that knows the doll's joints. Lengths are in body heights; on the head, in half its width."""

    def __init__(
        self, look: Look, joints: np.ndarray, height: float, turn: float, floor: float, size: tuple[int, int]
    ) -> None:
        self.look, self.joints, self.height, self.turn, self.floor = look, joints, height, turn, floor
        self.canvas = np.zeros((size[0] * OVERSAMPLE, size[1] * OVERSAMPLE, 4), np.uint8)
        across = joints[L_EAR] - joints[R_EAR]
        self.head, self.half = (joints[L_EAR] + joints[R_EAR]) / 2, float(np.hypot(*across)) / 2
        self.across = across / (2 * self.half)
        self.up = np.array([self.across[1], -self.across[0]])
        spine = joints[NECK] - (joints[R_HIP] + joints[L_HIP]) / 2
        self.spine = spine / np.hypot(*spine)
        self.far, self.near = (0, 3) if turn < 0 else (3, 0)  # what to add to right-hand joints: 0 right, 3 left
        self.turned = abs(turn) > 0.3

    def parts(self, *parts: Part, outline: float = _OUTLINE) -> None:
        """Draws hulls of circles over what is there, with one outline around all of them."""
        for _, circles in parts if outline else ():
            self._hull(INK, circles, outline)
        for colour, circles in parts:
            self._hull(colour, circles, 0.0)

    def _hull(self, colour: RGB, circles: tuple[Circle, ...], grow: float) -> None:
        points = np.concatenate([middle + (radius + grow) * self.height * _CIRCLE for middle, radius in circles])
        hull = cv2.convexHull(points.astype(np.float32))[:, 0]
        fixed = np.round(hull * (16 * OVERSAMPLE)).astype(np.int32)
        cv2.fillConvexPoly(self.canvas, fixed, (*colour, 255), cv2.LINE_8, 4)

    def on_head(self, right: float, up: float, radius: float, look: float = 0.0) -> Circle:
        """A circle on the head; `look` is how far it moves with the gaze."""
        middle = self.head + self.half * ((right + look * self.turn) * self.across + up * self.up)
        return middle, radius * self.half / self.height

    def eyes(self, colour: RGB, radius: float, gleam: RGB | None = None) -> None:
        """At the joints of the eyes; the gleam is a small spot in each."""
        radius *= self.half / self.height
        for eye in (R_EYE, L_EYE):
            self.parts((colour, ((self.joints[eye], radius),)), outline=0)
            if gleam:
                spot = self.joints[eye] + 0.4 * radius * self.height * (self.up + self.across)
                self.parts((gleam, ((spot, 0.36 * radius),)), outline=0)

    def smile(self, colour: RGB, up: float, wide: float, look: float, thick: float = 0.075) -> None:
        """An arc that hangs between two corners of the mouth."""
        corners = np.linspace(-1, 1, 7)
        dots = [self.on_head(wide * x, up - 0.5 * wide * (1 - x * x), thick, look) for x in corners]
        self.parts(*((colour, pair) for pair in zip(dots, dots[1:], strict=False)), outline=0)

    def limb(self, first: int, upper: RGB, lower: RGB, radii: tuple[float, float, float]) -> list[Part]:
        """Upper and lower half of an arm or a leg."""
        a, b, c = (self.joints[first + i] for i in range(3))
        one, two, three = (radius * self.look.girth for radius in radii)
        return [(lower, ((b, two), (c, three))), (upper, ((a, one), (b, two * 1.06)))]

    def mitten(self, side: int, colour: RGB, radius: float) -> list[Part]:
        """A round hand past the wrist, with a thumb on the body's side of a raised arm."""
        elbow, wrist = self.joints[R_SHOULDER + side + 1], self.joints[R_SHOULDER + side + 2]
        along = (wrist - elbow) / np.hypot(*(wrist - elbow))
        inside = np.array([along[1], -along[0]]) * (-1 if side == 0 else 1)
        hand = wrist + 0.3 * radius * self.height * along
        thumb = wrist + self.height * radius * (0.35 * along + 1.05 * inside)
        return [(colour, ((hand, radius),)), (colour, ((wrist, 0.4 * radius), (thumb, 0.42 * radius)))]

    def shoe(self, side: int, colour: RGB, length: float, radius: float) -> list[Part]:
        """A shoe from heel to toe: flat on the floor, square to the shin in the air."""
        ankle = R_ANKLE + side
        joint, shin = self.joints[ankle], self.joints[ankle] - self.joints[ankle - 1]
        shin = shin / np.hypot(*shin)
        forward = np.sign(self.turn) if self.turned else (-1 if side == 0 else 1)
        lifted = min(max((self.floor - joint[1]) / self.height - 0.06, 0.0) / 0.12, 1.0)
        toe = lifted * forward * np.array([shin[1], -shin[0]]) + (1 - lifted) * np.array([forward, 0.0])
        toe = toe / np.hypot(*toe)
        sole = joint + 0.012 * self.height * (lifted * shin + (1 - lifted) * np.array([0.0, 1.0]))
        return [(colour, ((sole, radius), (sole + toe * length * self.height, radius * 0.82)))]

    def trunk(self, colour: RGB, shoulder: float, hip: float) -> Part:
        """Shoulders to hips as one shape."""
        shoulder, hip = shoulder * self.look.girth, hip * self.look.girth
        low = self.spine * 0.01 * self.height
        return colour, (
            (self.joints[R_HIP] + low, hip),
            (self.joints[L_HIP] + low, hip),
            (self.joints[R_SHOULDER] - self.spine * 0.5 * shoulder * self.height, shoulder),
            (self.joints[L_SHOULDER] - self.spine * 0.5 * shoulder * self.height, shoulder),
        )

    def sleeve(self, side: int) -> RGB:
        return shade(self.look.cloth, 0.78 if side == self.far else 0.9)

    def in_order(self, arm: Callable[[int], None], body: Callable[[], None]) -> None:
        """The far arm goes behind the body where the doll is turned, else before it; the near one comes last."""
        if self.turned:
            arm(self.far)
        body()
        if not self.turned:
            arm(self.far)
        arm(self.near)


def _person(sheet: _Sheet) -> None:
    look, trousers, shoes = sheet.look, (72, 80, 118), (128, 70, 62)

    def arm(side: int) -> None:
        limb = sheet.limb(R_SHOULDER + side, sheet.sleeve(side), sheet.sleeve(side), (0.046, 0.041, 0.036))
        sheet.parts(*limb, *sheet.mitten(side, look.skin, 0.044))

    def body() -> None:
        for side in (sheet.far, sheet.near):
            tone = shade(trousers, 0.8 if side == sheet.far else 1.0)
            sheet.parts(*sheet.shoe(side, shoes, 0.06, 0.04))
            sheet.parts(*sheet.limb(R_HIP + side, tone, tone, (0.056, 0.047, 0.038)))
        if look.long_hair:
            locks = [
                sheet.on_head(x, y, r, -0.2) for x, y, r in ((0, 0.12, 1.06), (-0.62, -1.0, 0.4), (0.62, -1.0, 0.4))
            ]
            sheet.parts((look.hair, tuple(locks)))
        sheet.parts((shade(look.skin, 0.86), ((sheet.joints[NECK], 0.034), (sheet.head, 0.034))))
        sheet.parts(sheet.trunk(look.cloth, 0.05, 0.062))
        back, face = sheet.on_head(0, 0.2, 1.06, -0.16), sheet.on_head(0, -0.1, 0.92, 0.14)
        fringe = (sheet.on_head(-0.42, 0.68, 0.34, 0.1), sheet.on_head(0.42, 0.68, 0.34, 0.1))
        sheet.parts((look.hair, (back,)), (look.skin, (face,)), (look.hair, fringe))
        for x in (-0.56, 0.56):
            sheet.parts(
                (shade_towards(look.skin, (240, 110, 110), 0.4), (sheet.on_head(x, -0.36, 0.16, 0.5),)), outline=0
            )
        sheet.eyes(INK, 0.2, (255, 255, 255))
        sheet.smile(INK, -0.36, 0.32, 0.45, 0.085)

    sheet.in_order(arm, body)


def _robot(sheet: _Sheet) -> None:
    steel, dark, screen, glow = (176, 196, 212), (104, 124, 148), (46, 56, 88), (156, 246, 232)

    def arm(side: int) -> None:
        tone = shade(steel, 0.86 if side == sheet.far else 1.0)
        limb = sheet.limb(R_SHOULDER + side, sheet.sleeve(side), tone, (0.048, 0.042, 0.036))
        sheet.parts(*limb, *sheet.mitten(side, dark, 0.046))

    def body() -> None:
        joints, height, spine = sheet.joints, sheet.height, sheet.spine
        for side in (sheet.far, sheet.near):
            tone = shade(steel, 0.84 if side == sheet.far else 1.0)
            sheet.parts(*sheet.shoe(side, dark, 0.05, 0.05))
            sheet.parts(*sheet.limb(R_HIP + side, tone, tone, (0.046, 0.042, 0.042)))
        sheet.parts((dark, ((joints[NECK], 0.034), (sheet.head, 0.034))))
        hips = (joints[R_HIP] + joints[L_HIP]) / 2
        wide = (0.128 - 0.03 * abs(sheet.turn)) * sheet.look.girth * height
        side = np.array([-spine[1], spine[0]]) * (wide - 0.035 * height)
        top, bottom = joints[NECK] - spine * 0.04 * height, hips
        corners = tuple((corner, 0.04) for corner in (bottom - side, bottom + side, top + side, top - side))
        chest = (top + bottom) / 2 + spine * 0.05 * height + side * 0.45 * sheet.turn
        sheet.parts((sheet.look.cloth, corners))
        sheet.parts(((250, 240, 196), ((chest, 0.034),)), outline=0.009)
        sheet.parts((dark, (sheet.on_head(0, 0.8, 0.07), sheet.on_head(0, 1.22, 0.07))))
        sheet.parts((sheet.look.cloth, (sheet.on_head(0, 1.3, 0.17),)))
        for ear in (-1, 1):
            sheet.parts((dark, (sheet.on_head(ear * 1.0, -0.05, 0.26, -0.15),)))
        box = tuple(sheet.on_head(x, y, 0.38) for x in (-0.62, 0.62) for y in (-0.44, 0.46))
        glass = tuple(sheet.on_head(x, y, 0.26, 0.24) for x in (-0.46, 0.46) for y in (-0.26, 0.26))
        sheet.parts((steel, box))
        sheet.parts((screen, glass), outline=0)
        sheet.eyes(glow, 0.2)
        sheet.smile(glow, -0.22, 0.28, 0.45)

    sheet.in_order(arm, body)


def _bear(sheet: _Sheet) -> None:
    fur, cream = (156, 104, 68), (238, 208, 166)

    def arm(side: int) -> None:
        tone = shade(fur, 0.84 if side == sheet.far else 1.0)
        limb = sheet.limb(R_SHOULDER + side, sheet.sleeve(side), tone, (0.06, 0.052, 0.05))
        sheet.parts(*limb, *sheet.mitten(side, tone, 0.056))

    def body() -> None:
        for side in (sheet.far, sheet.near):
            tone = shade(fur, 0.84 if side == sheet.far else 1.0)
            sheet.parts(*sheet.shoe(side, tone, 0.05, 0.054))
            sheet.parts(*sheet.limb(R_HIP + side, tone, tone, (0.078, 0.064, 0.056)))
        sheet.parts(sheet.trunk(sheet.look.cloth, 0.074, 0.104))
        for ear in (-0.74, 0.74):
            sheet.parts((fur, (sheet.on_head(ear, 0.72, 0.38, -0.14),)))
            sheet.parts((cream, (sheet.on_head(ear, 0.72, 0.2, -0.14),)), outline=0)
        sheet.parts((fur, (sheet.on_head(-0.16, 0, 0.9), sheet.on_head(0.16, 0, 0.9))))
        sheet.parts((cream, (sheet.on_head(-0.2, -0.36, 0.36, 0.55), sheet.on_head(0.2, -0.36, 0.36, 0.55))), outline=0)
        sheet.parts((INK, (sheet.on_head(-0.1, -0.16, 0.14, 0.66), sheet.on_head(0.1, -0.16, 0.14, 0.66))), outline=0)
        sheet.eyes(INK, 0.165, (255, 255, 255))
        sheet.smile(INK, -0.42, 0.22, 0.6, 0.06)

    sheet.in_order(arm, body)


def _astronaut(sheet: _Sheet) -> None:
    suit, helmet, visor, gleam = (198, 204, 216), (236, 238, 244), (44, 60, 104), (150, 190, 232)

    def arm(side: int) -> None:
        tone = shade(suit, 0.84 if side == sheet.far else 1.0)
        limb = sheet.limb(R_SHOULDER + side, sheet.sleeve(side), tone, (0.06, 0.052, 0.048))
        sheet.parts(*limb, *sheet.mitten(side, sheet.sleeve(side), 0.052))

    def body() -> None:
        joints, height, spine = sheet.joints, sheet.height, sheet.spine
        middle, shoulders = (joints[R_HIP] + joints[L_HIP]) / 2, (joints[R_SHOULDER] + joints[L_SHOULDER]) / 2
        side = np.array([-spine[1], spine[0]]) * height
        pack, wide = -0.075 * np.sign(sheet.turn) * side * sheet.turned, 0.085 * side * (not sheet.turned)
        corners = [(shoulders + pack + wide, 0.06), (shoulders + pack - wide, 0.06)]
        corners += [(middle + pack + 0.1 * spine * height + sign * wide, 0.06) for sign in (1, -1)]
        sheet.parts(((122, 128, 150), tuple(corners)))
        for leg in (sheet.far, sheet.near):
            tone = shade(suit, 0.84 if leg == sheet.far else 1.0)
            sheet.parts(*sheet.limb(R_HIP + leg, tone, tone, (0.072, 0.06, 0.054)))
            sheet.parts(*sheet.shoe(leg, sheet.sleeve(leg), 0.05, 0.05))
        sheet.parts(sheet.trunk(sheet.look.cloth, 0.066, 0.085))
        sheet.parts((helmet, (sheet.on_head(0, 0, 1.1),)))
        glass = (sheet.on_head(-0.3, -0.02, 0.6, 0.36), sheet.on_head(0.3, -0.02, 0.6, 0.36))
        sheet.parts((visor, glass), outline=0.008)
        shine = (sheet.on_head(0.28, 0.28, 0.13, 0.36), sheet.on_head(0.5, 0.14, 0.13, 0.36))
        sheet.parts((gleam, shine), outline=0)
        sheet.smile(gleam, -0.2, 0.26, 0.45)
        sheet.eyes(gleam, 0.13)

    sheet.in_order(arm, body)


def shade_towards(colour: RGB, other: RGB, share: float) -> RGB:
    """Mixes `share` of `other` into `colour`."""
    return tuple(round((1 - share) * a + share * b) for a, b in zip(colour, other, strict=True))


_DRAWN: dict[str, Callable[[_Sheet], None]] = {
    "person": _person,
    "robot": _robot,
    "bear": _bear,
    "astronaut": _astronaut,
}
