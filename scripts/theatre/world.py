"""Clips of the drawn world at 256x256, for any four words. Words, motions and held-out combinations are as before."""

from dataclasses import dataclass

import numpy as np

from scripts.miniature.figures import shade
from scripts.miniature.motion import L_ANKLE, L_EAR, L_HIP, MIRROR, R_ANKLE, R_EAR, R_HIP, perform, skeleton
from scripts.miniature.scenery import draw_scenery
from scripts.miniature.world import COLOURS, FPS, Clip, Words

from .figures import Look, draw_figure, sample_build

SIZE = 256


@dataclass(frozen=True)
class Scene:
    """A clip before it is drawn: any frame of it can be drawn alone."""

    words: Words
    backdrop: np.ndarray  # uint8 [S,S,3]
    look: Look
    joints: np.ndarray  # float [F,18,2], pixels
    turns: np.ndarray  # float [F], -1 (facing left) to 1 (right)
    height: float  # of the body, in pixels
    floor: float  # y of the soles on the ground, in pixels

    def draw(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame uint8 [S,S,3], and the dancer's mask uint8 [S,S], 0 or 255."""
        joints, size = self.joints[frame], self.backdrop.shape[:2]
        doll = draw_figure(self.look, joints, self.height, float(self.turns[frame]), self.floor, size)
        return compose(drop_shadow(self.backdrop, joints, self.height, self.floor), doll)

    def keypoints(self) -> np.ndarray:
        """float32 [F,18,3]: x and y in pixels, visible 0 or 1."""
        points = np.ones((len(self.joints), 18, 3), np.float32)
        points[..., :2] = self.joints
        points[self.turns > 0.5, L_EAR, 2] = 0  # the ear on the far side is hidden
        points[self.turns < -0.5, R_EAR, 2] = 0
        return points


def stage(words: Words, rng: np.random.Generator, frames: int = 16, size: int = SIZE) -> Scene:
    """Puts a clip at 8 frames a second together. The same words and generator state give the same scene."""
    backdrop = draw_backdrop(words.place, rng, size)
    build, human = sample_build(words.character, rng)
    poses, mirrored = perform(words.action, build, rng, np.arange(frames) / FPS)
    joints = np.stack([skeleton(pose, build) for pose in poses])  # (F, 18, 2), body heights
    turns = np.array([pose.turn for pose in poses])
    if mirrored:
        joints, turns = joints[:, MIRROR] * (-1, 1), -turns
    height, middle, floor = _place(joints, build.ear, rng, size)
    look = Look.sample(words.character, shade(COLOURS[words.colour], rng.uniform(0.97, 1.0)), human, rng)
    return Scene(words, backdrop, look, joints * height + (middle, floor), turns, height, floor)


def draw_clip(words: Words, rng: np.random.Generator, frames: int = 16, size: int = SIZE) -> Clip:
    """Draws a clip at 8 frames a second. The same words and generator state give the same clip."""
    scene = stage(words, rng, frames, size)
    images, masks = zip(*(scene.draw(frame) for frame in range(frames)), strict=True)
    return Clip(np.stack(images), scene.keypoints(), np.stack(masks), words)


def draw_backdrop(place: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """A place in flat colours, uint8 [size,size,3]: the whole scenery, or the camera up to a quarter nearer."""
    whole = round(size * rng.uniform(1.0, 1.25))
    scenery = draw_scenery(place, rng, whole, shadows=False)
    left = int(rng.integers(whole - size + 1))
    return scenery[whole - size :, left : left + size]


def _place(joints: np.ndarray, ear: float, rng: np.random.Generator, size: int) -> tuple[float, float, float]:
    """Body height, x of the origin and y of the floor in pixels, such that the whole clip stays inside the frame."""
    floor = rng.uniform(0.885, 0.94) * size
    left, right = joints[..., 0].min() - 0.14, joints[..., 0].max() + 0.14  # room for hands, feet and the head
    top = 1.35 * ear + 0.03 - joints[..., 1].min()
    height = min(rng.uniform(0.58, 0.86) * size, (floor - 0.02 * size) / top, 0.96 * size / (right - left))
    lowest, highest = 0.02 * size - left * height, 0.98 * size - right * height
    near = np.clip(size / 2 + np.array([-0.2, 0.2]) * size, lowest, highest)
    return float(height), float(rng.uniform(*near)), float(floor)


def drop_shadow(backdrop: np.ndarray, joints: np.ndarray, height: float, floor: float) -> np.ndarray:
    """Backdrop uint8 [H,W,3] -> a copy with a flat shadow on the floor below the dancer."""
    hips, ankles, wide = joints[[R_HIP, L_HIP], 0].mean(), joints[[R_ANKLE, L_ANKLE]], 0.17 * height
    bears = np.exp(ankles[:, 1] / (0.05 * height) - ankles[:, 1].max() / (0.05 * height))  # the lower foot most
    x = (hips + np.average(ankles[:, 0], weights=bears)) / 2
    top, left = max(int(floor - 0.06 * height), 0), max(int(x - wide - 2), 0)
    bottom, right = int(floor + 0.07 * height) + 2, int(x + wide) + 3
    image = backdrop.copy()
    part = image[top:bottom, left:right]
    if part.size:
        rows, columns = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]]
        away = np.hypot((columns - x) / wide, (rows - floor - 0.015 * height) / (0.22 * wide))
        cover = np.clip((1 - away) * 0.22 * wide + 0.5, 0, 1)[..., None]
        part[:] = np.round(part * (1 - 0.28 * cover))
    return image


def compose(backdrop: np.ndarray, doll: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lays the doll, premultiplied RGBA, on the backdrop -> frame uint8 [H,W,3], mask uint8 [H,W]."""
    rows, columns = (np.flatnonzero(doll[..., 3].any(axis=axis)) for axis in (1, 0))
    image = backdrop.copy()
    if rows.size:
        inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        cover = doll[inside][..., 3:].astype(np.float32) / 255
        image[inside] = np.round(image[inside] * (1 - cover) + doll[inside][..., :3]).clip(0, 255)
    return image, np.where(doll[..., 3] >= 128, 255, 0).astype(np.uint8)
