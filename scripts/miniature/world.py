"""The drawn world's public face: which words there are, and a clip for any four of them."""

import hashlib
from dataclasses import astuple, dataclass

import cv2
import numpy as np

from .figures import BUILDS, RGB, Look, draw_figure, shade
from .motion import L_EAR, MIRROR, R_EAR, perform, skeleton
from .scenery import draw_scenery

CHARACTERS = ("person", "robot", "bear", "astronaut")
COLOURS: dict[str, RGB] = {
    "red": (212, 40, 48),
    "orange": (246, 128, 22),
    "yellow": (252, 212, 34),
    "green": (62, 172, 56),
    "blue": (34, 88, 214),
    "purple": (126, 54, 170),
    "pink": (248, 122, 180),
    "white": (252, 250, 244),
}
PLACES = ("beach", "forest", "city", "snow", "desert", "moon")
ACTIONS = ("dancing", "waving", "walking", "jumping", "bowing", "kicking")
FPS = 8
_HELD_OUT_SHARE = 0.12


@dataclass(frozen=True)
class Words:
    character: str
    colour: str
    place: str
    action: str


@dataclass(frozen=True)
class Clip:
    frames: np.ndarray  # uint8 [F,S,S,3], RGB
    keypoints: np.ndarray  # float32 [F,18,3]: x and y in pixels, visible 0 or 1; OpenPose's order
    figure: np.ndarray  # uint8 [F,S,S], 255 where the dancer is
    words: Words


def held_out(words: Words) -> bool:
    """Whether this combination is kept out of training: a fixed 12% of all, by a hash that never changes."""
    digest = hashlib.sha256("|".join(astuple(words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < _HELD_OUT_SHARE


def sample_words(rng: np.random.Generator, held_out: bool | None = False) -> Words:
    """Four words at random: from the training combinations, the held-out ones (True), or all (None)."""
    while True:
        words = Words(*(str(kind[rng.integers(len(kind))]) for kind in (CHARACTERS, tuple(COLOURS), PLACES, ACTIONS)))
        if held_out is None or _is_held_out(words) == held_out:
            return words


_is_held_out = held_out  # sample_words has a parameter of the same name


def draw_clip(words: Words, rng: np.random.Generator, frames: int = 16, size: int = 128) -> Clip:
    """Draws a clip at 8 frames a second. The same words and generator state give the same clip."""
    backdrop = draw_scenery(words.place, rng, size).astype(np.float32)
    build, seconds = BUILDS[words.character], np.arange(frames) / FPS
    poses, mirrored = perform(words.action, build, rng, seconds)
    joints = np.stack([skeleton(pose, build) for pose in poses])  # (F, 18, 2), body heights
    turns = np.array([pose.turn for pose in poses])
    if mirrored:
        joints, turns = joints[:, MIRROR] * (-1, 1), -turns
    height, middle, floor = _place(joints, rng, size)
    joints = joints * height + (middle, floor)
    look = Look.sample(words.character, shade(COLOURS[words.colour], rng.uniform(0.96, 1.0)), rng)
    images, masks = zip(
        *(
            compose(backdrop, draw_figure(look, joint, height, turn, floor, size))
            for joint, turn in zip(joints, turns, strict=True)
        ),
        strict=True,
    )
    keypoints = np.ones((frames, 18, 3), np.float32)
    keypoints[..., :2] = joints
    keypoints[turns > 0.5, L_EAR, 2] = 0  # the ear on the far side is hidden
    keypoints[turns < -0.5, R_EAR, 2] = 0
    return Clip(np.stack(images), keypoints, np.stack(masks), words)


def _place(joints: np.ndarray, rng: np.random.Generator, size: int) -> tuple[float, float, float]:
    """Body height, x of the origin and y of the floor in pixels, such that the whole clip stays inside the frame."""
    floor = rng.uniform(0.86, 0.93) * size
    left, right = joints[..., 0].min() - 0.12, joints[..., 0].max() + 0.12  # room for hands, feet and the head
    top = 0.15 - joints[..., 1].min()
    height = min(rng.uniform(66, 92) * size / 128, (floor - 0.02 * size) / top, 0.96 * size / (right - left))
    lowest, highest = 0.02 * size - left * height, 0.98 * size - right * height
    near = np.clip(size / 2 + np.array([-0.2, 0.2]) * size, lowest, highest)
    return float(height), float(rng.uniform(*near)), float(floor)


def compose(backdrop: np.ndarray, doll: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lays the doll and its soft shadow on the backdrop -> frame uint8 [S,S,3], mask uint8 [S,S]."""
    size = len(doll)
    cover = doll[..., 3].astype(np.float32) / 255
    away = 3 * size / 128
    shadow = cv2.warpAffine(cover, np.array([[1, 0, away], [0, 1, away * 0.8]]), (size, size))
    shadow = cv2.GaussianBlur(shadow, (0, 0), 1.6 * size / 128)
    image = backdrop * ((1 - 0.3 * shadow) * (1 - cover))[..., None] + doll[..., :3]
    return np.clip(np.round(image), 0, 255).astype(np.uint8), np.where(cover >= 0.5, 255, 0).astype(np.uint8)
