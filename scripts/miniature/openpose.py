"""The lessons of `miniature-openpose`: stills of paper dancers, with the maps that OpenPose would draw of them.

Measure it with `python -m scripts.miniature.openpose`.
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from safetensors.torch import save_file
from torch import nn

from pipelines.catalog import CATALOG
from pipelines.models.manager import ModelManager
from pipelines.poses import keypoints
from pipelines.settings import Settings

from .figures import BUILDS, RGB, Look, draw_figure, shade
from .motion import L_EAR, MIRROR, R_EAR, perform, skeleton
from .scenery import draw_scenery
from .scoring import hits, joints
from .world import ACTIONS, CHARACTERS, COLOURS, FPS, PLACES, Clip, Words, compose, draw_clip, sample_words

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "miniature" / "openpose"
CONFIG = {"width": 64, "dilations": [1, 2, 4, 1, 2, 4, 1]}
HEIGHT = 184  # controlnet-aux shows its network every picture at this height
STRIDE = 8  # pixels a cell of the maps
WIDTHS = (184, 184, 184, 184, 104, 144, 248, 328)
STILLS = 700  # of each width: drawing takes longer than learning, so each is seen several times, never soiled alike
LIMBS = np.array(  # the joints that each field leads from and to, in the order of OpenPose's channels
    [
        *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 2), (2, 3), (3, 4), (2, 16)),
        *((1, 5), (5, 6), (6, 7), (5, 17), (1, 0), (0, 14), (0, 15), (14, 16), (15, 17)),
    ]
)
_SPREAD = 7 / STRIDE  # cells: the standard deviation of a joint's blob
_REACH = 1.0  # cells: half the width of a limb's field


Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]  # of a width: as `draw_still`


def lesson(count: int, rng: np.random.Generator, draw: Draw | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stills of one random width that `draw` draws (by default draw_still), and their maps.

    Returns images float32 [count,3,184,W] in [-0.5,0.5], BGR; fields [count,38,23,W/8]; heatmaps [count,19,23,W/8].
    """
    width = int(rng.choice(WIDTHS))
    images, fields, heatmaps = [], [], []
    for _ in range(count):
        image, people = _still(draw or draw_still, width, int(rng.integers(STILLS)))
        if rng.random() < 0.5:
            image, people = image[:, ::-1], people[:, MIRROR] * (-1, 1, 1) + (width - 1, 0, 0)
        images.append(soil(image, rng)[..., ::-1].transpose(2, 0, 1))
        field, heatmap = draw_maps(people, width)
        fields.append(field)
        heatmaps.append(heatmap)
    return np.stack(images).astype(np.float32) / 256 - 0.5, np.stack(fields), np.stack(heatmaps)


@functools.cache
def _still(draw: Draw, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return draw(width, np.random.default_rng((width, seed)))


def draw_still(width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [184,width,3] with nobody to four dancers, and their keypoints [P,18,3]: x, y, visible."""
    size = max(HEIGHT, width)
    image = _backdrop(size, rng)
    people = np.zeros((int(rng.choice(5, p=(0.04, 0.66, 0.2, 0.07, 0.03))), 18, 3))
    for number in range(len(people)):
        if rng.random() < 0.3:
            clutter(image, rng)
        joints, turn, look, height, floor = _dancer(width, len(people), rng)
        image, figure = compose(image, draw_figure(look, joints, height, turn, floor, size))
        covered = people[:number]  # by this one, as far as it stands before them
        column, row = np.clip(np.round(covered[..., :2]).astype(int), 0, size - 1).transpose(2, 0, 1)
        covered[..., 2] *= figure[row, column] == 0
        people[number, :, :2], people[number, :, 2] = joints, 1
        people[number, L_EAR if turn > 0 else R_EAR, 2] = abs(turn) <= 0.5  # the ear on the far side is hidden
    inside = (people[..., 0] >= 0) & (people[..., 0] < width) & (people[..., 1] >= 0) & (people[..., 1] < HEIGHT)
    people[..., 2] *= inside
    return image[:HEIGHT, :width], people


def _dancer(width: int, people: int, rng: np.random.Generator) -> tuple[np.ndarray, float, Look, float, float]:
    """Joints [18,2] in pixels, turn, look, height and floor in pixels: anywhere, mostly within the picture."""
    character = str(rng.choice(CHARACTERS))
    poses, mirrored = perform(str(rng.choice(ACTIONS)), BUILDS[character], rng, np.arange(16) / FPS)
    pose = poses[rng.integers(16)]
    joints, turn = skeleton(pose, BUILDS[character]), pose.turn
    if mirrored:
        joints, turn = joints[MIRROR] * (-1, 1), -turn
    height = HEIGHT * float(rng.uniform(0.3, 0.95 if people == 1 else 0.7))
    joints = joints * height
    low, high = joints.min(axis=0) - 0.1 * height, joints.max(axis=0) + 0.08 * height
    room = np.array([width, HEIGHT]) - (high - low)
    spill = height * (0.3 if rng.random() < 0.2 else 0)  # some stand partly outside
    move = rng.uniform(np.minimum(room, 0) - spill, np.maximum(room, 0) + spill) - low
    cloth: RGB = COLOURS[str(rng.choice(list(COLOURS)))] if rng.random() < 0.8 else random_colour(rng)
    look = Look.sample(character, shade(cloth, rng.uniform(0.85, 1.0)), rng)
    return joints + move, turn, look, height, float(move[1])


@functools.lru_cache(maxsize=400)
def _scenery(place: str, seed: int, size: int) -> np.ndarray:
    return draw_scenery(place, np.random.default_rng(seed), size)


def _backdrop(size: int, rng: np.random.Generator) -> np.ndarray:
    """One of the places, or plain paper; whole or blown up; with clutter or without. Float [size,size,3]."""
    if rng.random() < 0.12:
        image = np.full((size, size, 3), random_colour(rng), np.uint8)
    else:
        image = _scenery(str(rng.choice(PLACES)), int(rng.integers(20)), size)
    if rng.random() < 0.4:
        part = int(size * rng.uniform(0.4, 1))
        x, y = rng.integers(0, size - part + 1, 2)
        image = cv2.resize(image[y : y + part, x : x + part], (size, size), interpolation=cv2.INTER_LINEAR)
    image = image.astype(np.float32)
    if rng.random() < 0.3:
        image = image[..., rng.permutation(3)].copy()
    for _ in range(rng.integers(0, 6)):
        clutter(image, rng)
    return image


def clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draws a stick, a disc or a box of any colour into `image`, as limbs and heads might look and are not."""
    size = len(image)
    (x, y), reach = rng.uniform(0, size, 2), rng.uniform(0.03, 0.25) * size
    angle, colour = rng.uniform(0, np.pi), tuple(map(float, random_colour(rng)))
    end = (round(x + reach * np.cos(angle)), round(y + reach * np.sin(angle)))
    kind = rng.integers(3)
    if kind == 0:
        cv2.line(image, (round(x), round(y)), end, colour, int(rng.integers(2, 14)), cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(image, (round(x), round(y)), round(reach / 3), colour, -1, cv2.LINE_AA)
    else:
        cv2.rectangle(image, (round(x), round(y)), end, colour, -1)


def random_colour(rng: np.random.Generator) -> RGB:
    return tuple(int(value) for value in rng.integers(0, 256, 3))


def soil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Does to an image uint8 [H,W,3] what cameras, codecs and generators might: tints, blurs, blotches, noise."""
    height, width = image.shape[:2]
    if rng.random() < 0.6:  # as small as the clip may have been
        share = rng.uniform(0.4, 1)
        image = cv2.resize(image, (round(width * share), round(height * share)), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.0))
    image = image.astype(np.float32) * rng.uniform(0.75, 1.15) * rng.uniform(0.9, 1.1, 3) + rng.uniform(-25, 25, 3)
    if rng.random() < 0.3:
        blotches = rng.normal(0, rng.uniform(0, 15), (6, 6, 3)).astype(np.float32)
        image = image + cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4:
        image = image + rng.normal(0, rng.uniform(0, 10), image.shape)
    return np.clip(image, 0, 255)


def draw_maps(people: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints [P,18,3] in an image of 184 x `width` -> fields float32 [38,23,W/8], heatmaps float32 [19,23,W/8].

    Blobs and bands as OpenPose was trained with (Cao et al. 2017, sections 2.2 and 2.3).
    """
    row, column = np.mgrid[: HEIGHT // STRIDE, : width // STRIDE].astype(np.float64)
    heatmaps, fields = np.zeros((19, *row.shape)), np.zeros((38, *row.shape))
    counts = np.zeros((19, *row.shape))
    for person in people:
        cells, seen = (person[:, :2] - (STRIDE - 1) / 2) / STRIDE, person[:, 2] > 0
        x, y = (cells[seen, axis, None, None] for axis in (0, 1))
        blobs = np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * _SPREAD**2))
        heatmaps[:18][seen] = np.maximum(heatmaps[:18][seen], blobs)
        first, last = cells[LIMBS].transpose(1, 0, 2)  # (19, 2) each
        length = np.maximum(np.hypot(*(last - first).T), 1e-6)
        along_x, along_y = ((last - first) / length[:, None]).T[..., None, None]  # (19, 1, 1) each
        from_x, from_y = column - first[:, 0, None, None], row - first[:, 1, None, None]
        along, across = from_x * along_x + from_y * along_y, np.abs(from_x * along_y - from_y * along_x)
        band = (along >= -0.5) & (along <= length[:, None, None] + 0.5) & (across <= _REACH)
        band &= seen[LIMBS].all(axis=1)[:, None, None]
        fields[0::2] += band * along_x
        fields[1::2] += band * along_y
        counts += band
    heatmaps[18] = 1 - heatmaps[:18].max(axis=0)
    fields /= np.repeat(np.maximum(counts, 1), 2, axis=0)
    return fields.astype(np.float32), heatmaps.astype(np.float32)


def save(network: nn.Module, folder: Path = FOLDER) -> None:
    """Writes the trained network to `folder` in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.half().contiguous() for name, weight in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": "BodyPoseNetwork", **CONFIG}, indent=2) + "\n")


# How right it is.


def examine(
    models: ModelManager,
    clips: int,
    seed: int = 1,
    soiled: bool = False,
    draw: Callable[[Words, np.random.Generator], Clip] = draw_clip,
) -> np.ndarray:
    """`hits` [N,18] of the built-in detector, as the app uses it, in freshly drawn clips of all words."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(clips):
        clip = draw(sample_words(rng, None), rng)
        chosen = slice(int(rng.integers(4)), None, 4)
        frames, drawn = clip.frames[chosen], clip.keypoints[chosen]
        if soiled:
            frames = np.stack([np.round(soil(frame, rng)) for frame in frames]).astype(np.uint8)
        rows.append(hits(joints(frames, models), drawn, clip.figure[chosen]))
    return np.concatenate(rows)


def report(models: ModelManager, clips: int, draw: Callable[[Words, np.random.Generator], Clip] = draw_clip) -> None:
    """Prints the shares of joints that are found, in clean clips and in soiled ones."""
    for name, soiled in (("clean", False), ("soiled", True)):
        right = examine(models, clips, soiled=soiled, draw=draw)
        print(f"{name}: {np.nanmean(right):.1%} of {np.isfinite(right).sum()} joints")
        for joint, share in zip(keypoints.JOINTS, np.nanmean(right, axis=0), strict=True):
            print(f"  {joint}: {share:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures miniature-openpose on fresh drawn clips.")
    parser.add_argument("--clips", type=int, default=100)
    arguments = parser.parse_args()
    report(ModelManager(CATALOG, Settings(hub=False)), arguments.clips)


if __name__ == "__main__":
    main()
