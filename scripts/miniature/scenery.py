"""The six places, as layers of cut paper with a soft shadow under every edge."""

from collections.abc import Callable

import cv2
import numpy as np

RGB = tuple[int, int, int]
_OVERSAMPLE = 4
_LEFT, _RIGHT, _BOTTOM = -24.0, 152.0, 140.0  # layers reach past the 128 x 128 frame, so that they can be shifted


class _Stage:
    """A backdrop in the making. All coordinates are for a frame of 128 x 128."""

    def __init__(self, sky: RGB, rng: np.random.Generator, size: int, shadows: bool) -> None:
        self.size, self.shadows = size, shadows
        self.image = np.full((size, size, 3), sky, np.float32)
        self.mirror, self.shift, self.rise = bool(rng.random() < 0.5), rng.uniform(-8, 8), rng.uniform(-2, 2)

    def paper(self, colour: RGB, *shapes: np.ndarray, shadow: float = 0.2) -> None:
        """Lays one sheet, the union of polygons [N,2], over what is there."""
        mask = np.zeros((self.size * _OVERSAMPLE,) * 2, np.uint8)
        for points in shapes:
            x = points[:, 0] + self.shift
            placed = np.stack([128 - x if self.mirror else x, points[:, 1] + self.rise], axis=1)
            fixed = np.round(placed * (self.size / 128 * _OVERSAMPLE * 16)).astype(np.int32)
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_8, 4)
        cover = cv2.resize(mask, (self.size,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if shadow and self.shadows:
            around = cv2.GaussianBlur(cover, (0, 0), 2.2 * self.size / 128)
            self.image *= 1 - shadow * around[..., None]
        self.image += cover[..., None] * (np.array(colour, np.float32) - self.image)


def draw_scenery(place: str, rng: np.random.Generator, size: int, shadows: bool = True) -> np.ndarray:
    """The backdrop of a place, uint8 [size,size,3]; the floor begins at about three quarters of its height.

    `shadows` are soft and lie under the edge of every sheet of paper; without them the colours are flat.
    """
    stage = _PLACES[place](rng, int(rng.integers(2)), size, shadows)
    return np.clip(np.round(stage.image), 0, 255).astype(np.uint8)


def _oval(x: float, y: float, wide: float, high: float | None = None) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + wide * np.cos(angle), y + (high or wide) * np.sin(angle)], axis=1)


def _rect(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _hills(y: float, *waves: tuple[float, float, float]) -> np.ndarray:
    """Ground below a sum of waves (height, length, phase in turns)."""
    x = np.linspace(_LEFT, _RIGHT, 60)
    top = y - sum(height * np.sin(2 * np.pi * (x / length + phase)) for height, length, phase in waves)
    return np.concatenate([np.stack([x, top], axis=1), [[_RIGHT, _BOTTOM], [_LEFT, _BOTTOM]]])


def _fir(x: float, foot: float, high: float, wide: float, tiers: int = 3) -> list[np.ndarray]:
    """Stacked triangles, the widest at the bottom."""
    shapes = []
    for i in range(tiers):
        bottom = foot - high * 0.26 * i
        half, top = wide * (1 - 0.22 * i), bottom - high * 0.48
        shapes.append(np.array([[x, top], [x + half, bottom], [x - half, bottom]]))
    return shapes


def _beach(rng: np.random.Generator, variant: int, size: int, shadows: bool) -> _Stage:
    stage = _Stage((176, 222, 228), rng, size, shadows)
    stage.paper((252, 236, 176), _oval(98, 24, 13), shadow=0.08)
    if variant:
        stage.paper((226, 240, 238), _oval(34, 26, 14, 6), _oval(46, 22, 11, 7), shadow=0.06)
    stage.paper((72, 160, 178), _rect(_LEFT, 62, _RIGHT, _BOTTOM))
    stage.paper((112, 190, 196), _hills(78, (2.2, 36, 0.1)), shadow=0.12)
    stage.paper((228, 206, 164), _hills(90, (2.5, 90, 0.3)), shadow=0.16)
    trunk = np.array([[8, 100], [15, 100], [17, 74], [23, 50], [18, 49], [11, 72]])
    stage.paper((138, 106, 86), trunk, shadow=0.14)
    leaves = []
    for angle in (-2.75, -2.0, -1.1, -0.35, 0.35, 2.8):
        tip = np.array([20 + 25 * np.cos(angle), 46 + 17 * np.sin(angle) + 7])
        middle = np.array([20 + 14 * np.cos(angle), 44 + 14 * np.sin(angle)])
        side = np.array([-np.sin(angle), np.cos(angle)])
        leaves.append(np.array([[20, 48], middle + 4.5 * side, tip, middle - 4.5 * side]))
    stage.paper((44, 118, 104), *leaves, shadow=0.14)
    return stage


def _forest(rng: np.random.Generator, variant: int, size: int, shadows: bool) -> _Stage:
    stage = _Stage((196, 218, 202), rng, size, shadows)
    stage.paper(
        (140, 180, 168),
        *(
            _oval(x, y, r)
            for x, y, r in ((-12, 40, 22), (20, 30, 20), (52, 42, 20), (84, 32, 22), (118, 42, 20), (142, 34, 20))
        ),
        _rect(_LEFT, 42, _RIGHT, _BOTTOM),
        shadow=0.1,
    )
    trees = (4, 34, 92, 126) if variant else (-4, 24, 62, 106, 140)
    stage.paper((86, 74, 76), *(_rect(x - 3, 40, x + 3, 96) for x in trees), shadow=0.14)
    stage.paper((62, 124, 116), *(shape for x in trees for shape in _fir(x, 80, 62, 19)), shadow=0.16)
    stage.paper((36, 92, 94), *(_oval(x, 94, 14, 11) for x in (-10, 14, 76, 112, 138)), shadow=0.16)
    stage.paper((158, 170, 128), _hills(95, (2, 100, 0.2)), shadow=0.18)
    return stage


def _city(rng: np.random.Generator, variant: int, size: int, shadows: bool) -> _Stage:
    stage = _Stage((236, 208, 196), rng, size, shadows)
    if variant:
        stage.paper((250, 236, 214), _oval(70, 26, 12), shadow=0.06)
    stage.paper(
        (172, 158, 176),
        *(
            _rect(x, y, x + 24, 110)
            for x, y in ((-24, 44), (4, 34), (30, 52), (52, 30), (80, 46), (100, 34), (128, 48))
        ),
        shadow=0.1,
    )
    near = ((-22, 56, 26), (12, 40, 26), (60, 58, 22), (88, 44, 30), (126, 60, 26))
    stage.paper((92, 96, 124), *(_rect(x, y, x + w, 110) for x, y, w in near), shadow=0.16)
    lit = [
        (x + i * 10 + 5, y + 7 + j * 13)
        for x, y, w in near
        for i in range(int(w - 6) // 10)
        for j in range(3)
        if (i + 2 * j + variant) % 3
    ]
    stage.paper((238, 214, 160), *(_rect(x, y, x + 5.5, y + 7) for x, y in lit), shadow=0)
    stage.paper((178, 174, 176), _rect(_LEFT, 91, _RIGHT, _BOTTOM), shadow=0.16)
    stage.paper((118, 120, 132), _rect(_LEFT, 98, _RIGHT, _BOTTOM), shadow=0.1)
    stage.paper((196, 194, 190), *(_rect(x, 120, x + 16, 123.5) for x in range(-20, 150, 32)), shadow=0)
    return stage


def _snow(rng: np.random.Generator, variant: int, size: int, shadows: bool) -> _Stage:
    stage = _Stage((176, 200, 222), rng, size, shadows)
    peaks = ((20, 26), (92, 34)) if variant else ((34, 34), (108, 24))
    stage.paper((140, 166, 198), *(np.array([[x, y], [x + 46, 96], [x - 46, 96]]) for x, y in peaks), shadow=0.1)
    cap = np.array([[0, 0], [10, 15], [4, 11.5], [-1, 17], [-5, 12], [-10, 15]])
    stage.paper((216, 228, 240), *(cap + peak for peak in peaks), shadow=0)
    stage.paper((196, 214, 236), _hills(76, (5, 110, 0.15)), shadow=0.14)
    for x, high in ((8, 50), (30, 36), (104, 56), (128, 40)):
        tiers = _fir(x, 92, high, high * 0.3)
        stage.paper((64, 106, 122), *tiers, shadow=0.14)
        tips = [(top, right - top) for top, right, _ in tiers]  # snow on the upper half of each tier
        stage.paper(
            (222, 232, 242),
            *(top + np.array([[0, 0], edge * 0.5, [0, edge[1] * 0.34], edge * (-0.5, 0.5)]) for top, edge in tips),
            shadow=0,
        )
    stage.paper((182, 204, 232), _hills(93, (3, 120, 0.6)), shadow=0.16)
    return stage


def _desert(rng: np.random.Generator, variant: int, size: int, shadows: bool) -> _Stage:
    stage = _Stage((248, 222, 184), rng, size, shadows)
    stage.paper((252, 240, 208), _oval(30, 28, 14), shadow=0.06)
    mesas = (_rect(62, 46, 84, 90), _rect(58, 62, 90, 90), _rect(112, 52, 128, 90))
    peaks = (np.array([[44, 90], [76, 44], [112, 90]]), np.array([[92, 90], [118, 56], [150, 90]]))
    stage.paper((216, 168, 136), *(mesas if variant else peaks), shadow=0.1)
    stage.paper((226, 186, 136), _hills(76, (6, 130, 0.1)), shadow=0.14)
    stage.paper((208, 162, 114), _hills(86, (5, 120, 0.55)), shadow=0.14)
    x, y = 106, 54
    cactus = [
        _rect(x - 4.5, y, x + 4.5, 98),
        _oval(x, y, 4.5),
        _rect(x - 15, 66, x - 8, 80),
        _oval(x - 11.5, 66, 3.5),
        _rect(x - 15, 76, x, 82),
        _rect(x + 8, 60, x + 15, 76),
        _oval(x + 11.5, 60, 3.5),
        _rect(x, 72, x + 15, 78),
    ]
    stage.paper((84, 128, 104), *cactus, shadow=0.14)
    stage.paper((222, 182, 138), _hills(95, (2.5, 110, 0.9)), shadow=0.16)
    return stage


def _moon(rng: np.random.Generator, variant: int, size: int, shadows: bool) -> _Stage:
    stage = _Stage((34, 36, 68), rng, size, shadows)
    stars = (
        ((12, 20), (44, 12), (66, 34), (122, 50), (28, 48), (86, 56))
        if variant
        else ((8, 40), (30, 16), (58, 26), (76, 52), (124, 14), (40, 60))
    )
    stage.paper(
        (214, 214, 232),
        *(
            np.array(
                [
                    [x, y - 4],
                    [x + 1.7, y - 1.7],
                    [x + 4, y],
                    [x + 1.7, y + 1.7],
                    [x, y + 4],
                    [x - 1.7, y + 1.7],
                    [x - 4, y],
                    [x - 1.7, y - 1.7],
                ]
            )
            for x, y in stars
        ),
        shadow=0,
    )
    stage.paper((84, 148, 196), _oval(98, 30, 15), shadow=0.0)
    stage.paper((128, 184, 150), _oval(93, 25, 6.5, 5), _oval(97, 29, 5, 4), _oval(103, 38, 5, 4), shadow=0)
    stage.paper((96, 94, 120), _hills(82, (6, 96, 0.2)), shadow=0.2)
    stage.paper((150, 146, 166), _hills(93, (2.5, 120, 0.7)), shadow=0.2)
    craters = ((20, 108, 13, 3.6), (70, 121, 15, 3.8), (112, 106, 12, 3.2))
    stage.paper((122, 118, 142), *(_oval(*crater) for crater in craters), shadow=0)
    return stage


_PLACES: dict[str, Callable[[np.random.Generator, int, int, bool], _Stage]] = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "snow": _snow,
    "desert": _desert,
    "moon": _moon,
}
