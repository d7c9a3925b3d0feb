"""Skeletons as OpenPose and DWPose draw them, hands and faces too: by controlnet-aux's own functions."""

import colorsys
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np

from pipelines.poses.keypoints import Poses

# Hands are drawn with one function of matplotlib, which nothing else here needs.
MATPLOTLIB = SimpleNamespace(colors=SimpleNamespace(hsv_to_rgb=lambda hsv: np.array(colorsys.hsv_to_rgb(*hsv))))
FINGERS = ((1, 4, -0.9), (5, 8, -0.35), (9, 12, 0.0), (13, 16, 0.3), (17, 20, 0.6))  # first and last knuckle, radians
NOSE, RIGHT_EYE, LEFT_EYE = 0, 14, 15


def height_of(poses: Poses) -> float:
    """The height of the people, from the eyes to the ankles, in pixels: the median over people and frames."""
    tall = [
        np.ptp(person[person[:, 2] > 0, 1])
        for frame in poses.joints
        for person in frame
        if (person[:, 2] > 0).sum() > 8
    ]
    return float(np.median(tall))


def hand(person: np.ndarray, wrist: int, elbow: int, size: float, spread: float = 1.0) -> np.ndarray | None:
    """The 21 points [21, 2] of a hand that goes on from the forearm; None without one."""
    if min(person[wrist, 2], person[elbow, 2]) <= 0:
        return None
    x, y = person[wrist, :2] - person[elbow, :2]
    angle = np.arctan2(y, x)
    points = np.tile(person[wrist, :2], (21, 1)).astype(float)
    for first, last, turn in FINGERS:
        way = angle + spread * turn
        for step, point in enumerate(range(first, last + 1)):
            points[point] += size * (0.4 + 0.2 * step) * np.array([np.cos(way), np.sin(way)])
    return points


def face(person: np.ndarray, size: float) -> np.ndarray | None:
    """The 68 points [68, 2] of a face `size` high around the nose; None without one."""
    if person[NOSE, 2] <= 0 or not person[[RIGHT_EYE, LEFT_EYE], 2].any():
        return None

    def arc(
        count: int, across: float, down: float, middle: tuple[float, float], start: float, end: float
    ) -> np.ndarray:
        turn = np.linspace(start, end, count)
        return np.stack([middle[0] + across * np.cos(turn), middle[1] + down * np.sin(turn)], axis=1)

    pi = np.pi
    points = np.concatenate(
        [
            arc(17, -0.45, 0.62, (0, -0.12), 0, pi),  # the jaw, from the person's right ear
            *(arc(5, 0.14, 0.06, (side * 0.22, -0.33), pi, 2 * pi) for side in (-1, 1)),  # brows
            np.stack([np.zeros(4), np.linspace(-0.22, 0.02, 4)], axis=1),
            arc(5, 0.1, 0.04, (0, 0.07), pi, 0),
            *(arc(6, 0.08, 0.04, (side * 0.2, -0.22), pi, 3 * pi) for side in (-1, 1)),  # eyes
            arc(12, 0.18, 0.09, (0, 0.28), pi, 3 * pi),
            arc(8, 0.11, 0.05, (0, 0.28), pi, 3 * pi),
        ]
    )
    return person[NOSE, :2] + size * points


def _dwpose() -> ModuleType:
    """controlnet-aux's drawing for DWPose, without all the networks that come with the package."""
    (folder,) = find_spec("controlnet_aux").submodule_search_locations
    spec = spec_from_file_location("dwpose_util", f"{folder}/dwpose/util.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw(poses: Poses, by: str = "dwpose", hands: bool = True, faces: bool = True, spread: float = 1.0) -> np.ndarray:
    """Frames uint8 [F, H, W, 3] `by` "openpose" or "dwpose"."""
    if by == "openpose":
        from controlnet_aux.open_pose import util as openpose
        from controlnet_aux.open_pose.body import Keypoint
    else:
        dwpose = _dwpose()
    width, height, tall = poses.width, poses.height, height_of(poses)
    frames = np.zeros((len(poses.joints), height, width, 3), np.uint8)
    for number, people in enumerate(poses.joints):
        people = people[(people[:, :, 2] > 0).any(axis=1)]
        palms = [hand(one, *ends, 0.11 * tall, spread) for one in people for ends in ((4, 3), (7, 6))] if hands else []
        palms = [each / (width, height) for each in palms if each is not None]
        looks = [face(one, 0.14 * tall) for one in people] if faces else []
        looks = [each / (width, height) for each in looks if each is not None]
        image = frames[number]
        if by == "dwpose":
            candidate = (people[..., :2] / (width, height)).reshape(-1, 2)
            subset = np.where(people[..., 2] > 0, np.arange(people[..., 0].size).reshape(-1, 18), -1)
            image = dwpose.draw_bodypose(image, candidate, subset)
            with patch.dict(sys.modules, matplotlib=MATPLOTLIB):
                image = dwpose.draw_handpose(image, palms)
            image = dwpose.draw_facepose(image, looks)
        else:
            for person in people:
                told = [Keypoint(x / width, y / height) if sure else None for x, y, sure in person]
                openpose.draw_bodypose(image, told)
            with patch.dict(sys.modules, matplotlib=MATPLOTLIB):
                for palm in palms:
                    openpose.draw_handpose(image, [Keypoint(*point) for point in palm])
            for look in looks:
                openpose.draw_facepose(image, [Keypoint(*point) for point in look])
        frames[number] = image
    return frames


def found(read: Poses, drawn: Poses, reach: float = 0.05) -> np.ndarray:
    """Of the joints that were drawn inside the picture, which were read within `reach` of the body's height of where
    they are: bool [N]; each drawn person is compared with whoever is nearest."""
    near = reach * height_of(drawn)
    right = []
    for mine, theirs in zip(drawn.joints, read.joints, strict=True):
        for person in mine:
            inside = (person[:, :2] >= 0).all(axis=1) & (person[:, :2] < (drawn.width, drawn.height)).all(axis=1)
            there = (person[:, 2] > 0) & inside
            hits = [(other[:, 2] > 0) & (np.hypot(*(other - person)[:, :2].T) < near) for other in theirs] or [
                np.zeros(18, bool)
            ]
            right += max(hits, key=lambda hit: (hit & there).sum())[there].tolist()
    return np.array(right, bool)
