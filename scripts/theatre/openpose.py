"""The lessons of the detector of joints for the world at 256x256: stills of its dancers, clean and cluttered.

Measure it with `python -m scripts.theatre.openpose`.
"""

import argparse
import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from pipelines.cards import Source
from pipelines.catalog import CATALOG
from pipelines.detectors import DETECTORS
from pipelines.models.manager import ModelManager
from pipelines.models.networks.openpose import BodyPoseNetwork
from pipelines.settings import Settings
from scripts.miniature.figures import RGB, shade
from scripts.miniature.motion import L_EAR, MIRROR, R_EAR, perform, skeleton
from scripts.miniature.openpose import CONFIG, HEIGHT, clutter, random_colour, report, save
from scripts.miniature.world import ACTIONS, CHARACTERS, COLOURS, FPS, PLACES

from .figures import Look, draw_figure, sample_build
from .training.checkpoints import restore
from .world import compose, draw_backdrop, draw_clip, drop_shadow

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "theatre"


def draw_still(width: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [184,width,3] with nobody to four dancers, and their keypoints [P,18,3]: x, y, visible."""
    image = _backdrop(max(HEIGHT, width), rng)[:HEIGHT, :width]
    people = np.zeros((int(rng.choice(5, p=(0.04, 0.7, 0.18, 0.05, 0.03))), 18, 3))
    for number in range(len(people)):
        image, people[number], figure = _add_dancer(image, len(people), rng)
        covered = people[:number]  # by this one, as far as it stands before them
        column, row = np.round(covered[..., :2]).astype(int).clip(0, (width - 1, HEIGHT - 1)).transpose(2, 0, 1)
        covered[..., 2] *= figure[row, column] == 0
    inside = (people[..., :2] >= 0).all(axis=-1) & (people[..., 0] < width) & (people[..., 1] < HEIGHT)
    people[..., 2] *= inside
    return image, people


def _add_dancer(image: np.ndarray, people: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image with one more dancer anywhere, mostly within it; keypoints [18,3]; mask uint8 [184,width]."""
    character, width = str(rng.choice(CHARACTERS)), image.shape[1]
    build, human = sample_build(character, rng)
    poses, mirrored = perform(str(rng.choice(ACTIONS)), build, rng, np.arange(16) / FPS)
    pose = poses[rng.integers(16)]
    joints, turn = skeleton(pose, build), pose.turn
    if mirrored:
        joints, turn = joints[MIRROR] * (-1, 1), -turn
    height = HEIGHT * float(rng.uniform(0.3, 0.95 if people == 1 else 0.7))
    joints = joints * height
    low, high = joints.min(axis=0) - 0.14 * height, joints.max(axis=0) + 0.08 * height
    room = np.array([width, HEIGHT]) - (high - low)
    spill = height * (0.3 if rng.random() < 0.2 else 0)  # some stand partly outside
    move = rng.uniform(np.minimum(room, 0) - spill, np.maximum(room, 0) + spill) - low
    joints = joints + move
    cloth: RGB = COLOURS[str(rng.choice(list(COLOURS)))] if rng.random() < 0.8 else random_colour(rng)
    look = Look.sample(character, shade(cloth, rng.uniform(0.85, 1.0)), human, rng)
    floor = float(move[1])
    if rng.random() < 0.8:
        image = drop_shadow(image, joints, height, floor)
    image, figure = compose(image, draw_figure(look, joints, height, turn, floor, image.shape[:2]))
    keypoints = np.ones((18, 3))
    keypoints[:, :2] = joints
    keypoints[L_EAR if turn > 0 else R_EAR, 2] = abs(turn) <= 0.5  # the ear on the far side is hidden
    return image, keypoints, figure


@functools.lru_cache(maxsize=400)
def _scenery(place: str, seed: int, size: int) -> np.ndarray:
    return draw_backdrop(place, np.random.default_rng(seed), size)


def _backdrop(size: int, rng: np.random.Generator) -> np.ndarray:
    """One of the places or plain paper, whole or blown up, with clutter or without: uint8 [size,size,3]."""
    if rng.random() < 0.12:
        image = np.full((size, size, 3), random_colour(rng), np.uint8)
    else:
        image = _scenery(str(rng.choice(PLACES)), int(rng.integers(20)), size)
    if rng.random() < 0.4:
        part = int(size * rng.uniform(0.4, 1))
        x, y = rng.integers(0, size - part + 1, 2)
        image = cv2.resize(image[y : y + part, x : x + part], (size, size), interpolation=cv2.INTER_LINEAR)
    image = (image[..., rng.permutation(3)] if rng.random() < 0.3 else image).astype(np.float32, order="C")
    for _ in range(rng.integers(0, 6)):
        clutter(image, rng)
    return image.astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--clips", type=int, default=60)
    arguments = parser.parse_args()
    network = BodyPoseNetwork(**CONFIG)
    restore(arguments.folder, "openpose", network)
    with tempfile.TemporaryDirectory() as folder:
        save(network, Path(folder))
        card = replace(DETECTORS["miniature-openpose"], source=Source(folder))
        models = ModelManager(CATALOG, Settings(hub=False), detectors={card.name: card})
        report(models, arguments.clips, draw_clip)


if __name__ == "__main__":
    main()
