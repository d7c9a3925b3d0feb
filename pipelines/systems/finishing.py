"""Larger and smoother videos without any weights: pure functions on frames [F, H, W, 3] uint8, one at a time."""

from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np

SHARPENING = 0.35  # how much of the fine detail is added once more
UNKNOWN = 0.02  # how much two plainly mixed pictures count beside what motion explains
STRANGE = 2.0  # pixels by which two motions may differ and still be called the same
FLOW_SIDE = 256  # pixels: motion is measured on pictures whose shorter side has at least as many


def upscale(frame: np.ndarray, factor: int) -> np.ndarray:
    """`frame` [H, W, 3] uint8 `factor` times as large: Lanczos, and then a gentle unsharp mask.

    The mask can't leave the range of the colours around a pixel, so that edges get no bright or dark seams.
    """
    if factor == 1:
        return frame
    height, width = frame.shape[:2]
    size = (width * factor, height * factor)
    large = cv2.resize(frame, size, interpolation=cv2.INTER_LANCZOS4)
    soft = cv2.GaussianBlur(large, (0, 0), 0.5 * factor)
    sharp = cv2.addWeighted(large, 1 + SHARPENING, soft, -SHARPENING, 0)
    around = np.ones((3, 3), np.uint8)
    low, high = (
        cv2.resize(bound(frame, around), size, interpolation=cv2.INTER_NEAREST) for bound in (cv2.erode, cv2.dilate)
    )
    return np.clip(sharp, low, high)


def interpolate(frames: Iterable[np.ndarray], factor: int) -> Iterator[np.ndarray]:
    """The `frames`, and between any two of them `factor` - 1 new ones: (F - 1) * factor + 1 frames in all.

    Frames whose number is a multiple of `factor` are those that were given, unchanged. Never more than two of the
    given frames are held.
    """
    before = None
    for frame in frames:
        if before is not None and factor > 1:
            yield from between(before, frame, [step / factor for step in range(1, factor)])
        yield frame
        before = frame


def between(first: np.ndarray, last: np.ndarray, times: Iterable[float]) -> Iterator[np.ndarray]:
    """The pictures [H, W, 3] uint8 at `times`, each between 0 (`first`) and 1 (`last`), motion-compensated.

    Dense motion is measured both ways (DIS, Kroeger et al. 2016) and carried along itself to each time, where the
    motions that explain both pictures and agree with each other count most. Both pictures are drawn to that time along
    it. Where one of them shows another surface there (it moves otherwise: hidden, or not yet uncovered), the picture
    comes from the other one.
    """
    there, back = _motion(first, last), _motion(last, first)
    trust_there, trust_back = _trust(first, last, there, back), _trust(last, first, back, there)
    for time in times:
        motion = _carried((there, back), (trust_there, trust_back), time)
        early, late = -time * motion, (1 - time) * motion  # from a place at this time to the same thing in the pictures
        seen_early = (1 - time) * _same(_shifted(there, early), motion) * _shifted(trust_there, early)
        seen_late = time * _same(-_shifted(back, late), motion) * _shifted(trust_back, late)
        unknown = UNKNOWN / (UNKNOWN + seen_early + seen_late)  # shares that add up to 1
        early_share, late_share = (seen / (UNKNOWN + seen_early + seen_late) for seen in (seen_early, seen_late))
        mixed = (
            early_share[..., None] * _shifted(first, early)
            + late_share[..., None] * _shifted(last, late)
            + unknown[..., None] * ((1 - time) * first + time * last)
        )
        yield np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _motion(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """How far each pixel of `first` moves until `last`: [H, W, 2] float32, x and y in pixels."""
    height, width = first.shape[:2]
    enlarge = max(1, -(-FLOW_SIDE // min(height, width)))
    size = (width * enlarge, height * enlarge)
    before, after = (
        cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_CUBIC)
        for picture in (first, last)
    )
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    guess: Any = None  # OpenCV's types want one
    flow = search.calc(before, after, guess)
    return cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / enlarge


def _trust(first: np.ndarray, last: np.ndarray, there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """From 0 to 1 [H, W]: whether a pixel of `first` is seen in `last`, where `there` says, and comes back from it."""
    unlike = np.abs(_shifted(last, there).astype(np.float32) - first).mean(axis=2)
    return _same(-_shifted(back, there), there) * np.exp(-unlike / 16) + 1e-3


def _same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """From 0 to 1 [H, W]: whether two motions [H, W, 2] are the same; fast ones may differ by more."""
    tolerance = STRANGE**2 + 0.01 * (other**2).sum(axis=2)
    return np.exp(-((one - other) ** 2).sum(axis=2) / tolerance)


def _carried(flows: tuple[np.ndarray, np.ndarray], trusts: tuple[np.ndarray, np.ndarray], time: float) -> np.ndarray:
    """The motion from the first picture to the last of what is seen at `time` [H, W, 2]; holes are filled from around.

    `flows` are there and back. Each pixel's motion is laid onto the four pixels around where it is at `time`.
    """
    height, width = trusts[0].shape
    sums = np.zeros((3, height * width))  # x, y and weight
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    for flow, trust, part, sign in zip(flows, trusts, (time, 1 - time), (1, -1), strict=True):
        x, y = columns + part * flow[..., 0], rows + part * flow[..., 1]
        left, top = np.floor(x), np.floor(y)
        for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            weight = trust * (1 - np.abs(x - left - right)) * (1 - np.abs(y - top - down)) * (1 - part)
            to_x, to_y = left + right, top + down
            inside = (to_x >= 0) & (to_x < width) & (to_y >= 0) & (to_y < height)
            place, weight = (to_y * width + to_x)[inside].astype(np.int64), weight[inside]
            for channel, values in enumerate((sign * flow[..., 0][inside], sign * flow[..., 1][inside], 1)):
                sums[channel] += np.bincount(place, weight * values, height * width)
    sums = np.moveaxis(sums.reshape(3, height, width), 0, 2).astype(np.float32)  # (H, W, 3)
    sums += 1e-4 * cv2.GaussianBlur(sums, (0, 0), 2) + 1e-8 * cv2.GaussianBlur(sums, (0, 0), 16)
    return sums[..., :2] / np.maximum(sums[..., 2:], 1e-20)


def _shifted(picture: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """`picture` [H, W] or [H, W, C], every pixel taken from where `motion` [H, W, 2] leads from it."""
    rows, columns = np.mgrid[: motion.shape[0], : motion.shape[1]].astype(np.float32)
    return cv2.remap(
        picture, columns + motion[..., 0], rows + motion[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
