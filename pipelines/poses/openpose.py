"""OpenPose's way to people (Cao et al. 2017): a network draws maps of joints and of limbs, and the maps are read here.

The network looks at the whole picture once, so that many people take no longer than one; reading the maps is bounded
too, as no more than MOST peaks of a joint are tried.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import nn

SEEN_HEIGHT = 184  # pixels of the picture that the network looks at: controlnet-aux's "half of 368"
CELL = 8  # pixels of that picture in a cell of the maps
FINE = 16  # how many times as fine as the maps the peaks are looked for
LONGEST = 3  # times the shorter side: longer pictures get a black border, as the network takes all the width there is
MOST = 64  # peaks of a joint: what sees joints everywhere, in pictures that it does not know, takes no longer for it
PEAK = 0.1  # the least height of a peak
ALONG, FIELD, SHARE = 10, 0.05, 0.8  # places along a limb, the least field there, and the share of places that have it
LEAST_JOINTS, LEAST_SCORE = 4, 0.4  # of a person: joints, and the mean of what speaks for each of them
LIMBS = (  # the joints that a limb leads from and to, and which of the pairs of fields is its own; in order of trust
    *((1, 2, 6), (1, 5, 10), (2, 3, 7), (3, 4, 8), (5, 6, 11), (6, 7, 12), (1, 8, 0), (8, 9, 1), (9, 10, 2)),
    *((1, 11, 3), (11, 12, 4), (12, 13, 5), (1, 0, 14), (0, 14, 15), (14, 16, 17), (0, 15, 16), (15, 17, 18)),
    *((2, 16, 9), (5, 17, 13)),
)
FIRST_AIDS = 17  # the limbs from here on only add to people: they lead from shoulders to ears, and are in no drawing


def finder(network: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a frame uint8 [H, W, 3] to the joints float32 [P, 18, 3] of the people in it.

    `network` takes images [1,3,184,W] in BGR from -0.5 to 0.5 and returns part affinity fields [1,38,23,W/8] and
    heatmaps [1,19,23,W/8], as controlnet-aux's `bodypose_model` does.
    """

    def find(frame: np.ndarray) -> np.ndarray:
        picture, scale = as_seen(frame)
        weight = next(network.parameters())
        images = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            fields, heatmaps = network((images.to(weight.device).float() / 256 - 0.5).to(weight.dtype))
        people = decode(fields[0].float().cpu().numpy(), heatmaps[0].float().cpu().numpy())
        people[..., :2] = np.where(people[..., 2:] > 0, (people[..., :2] + 0.5) / scale - 0.5, 0)
        return people

    return find


def as_seen(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frame at the network's height, grey to the right up to whole cells, and by how much it grew: (x, y)."""
    height, width = frame.shape[:2]
    below, beside = max(0, width // LONGEST - height), max(0, height // LONGEST - width)
    frame = cv2.copyMakeBorder(frame, 0, below, 0, beside, cv2.BORDER_CONSTANT)
    high, wide = frame.shape[:2]
    size = max(1, round(wide * SEEN_HEIGHT / high)), SEEN_HEIGHT
    twice = 2 * size[0], 2 * size[1]  # small pictures come out softer by this detour, as the networks know them
    way = cv2.INTER_AREA if high > twice[1] else cv2.INTER_CUBIC
    picture = cv2.resize(cv2.resize(frame, twice, interpolation=way), size, interpolation=cv2.INTER_AREA)
    picture = cv2.copyMakeBorder(picture, 0, 0, 0, -size[0] % CELL, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    return picture, np.array([size[0] / wide, SEEN_HEIGHT / high])


def decode(fields: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """The joints float32 [P, 18, 3] of the people in part affinity fields [38, h, w] and heatmaps [19, h, w].

    x and y are in pixels of the picture that the network saw (CELL a cell), the third is the height of the peak.
    """
    peaks = [_peaks(heatmap) for heatmap in heatmaps[:18]]
    people: list[_Person] = []
    for limb, (first, second, field) in enumerate(LIMBS):
        pairs = _connections(peaks[first], peaks[second], fields[2 * field : 2 * field + 2])
        for score, one, other in pairs:
            _add(people, first, one, second, other, score, peaks, new=limb < FIRST_AIDS)
    kept = [one for one in people if len(one.peaks) >= LEAST_JOINTS and one.score / len(one.peaks) >= LEAST_SCORE]
    joints = np.zeros((len(kept), 18, 3), np.float32)
    for person, found in zip(kept, joints, strict=True):
        for joint, index in person.peaks.items():
            x, y, height = peaks[joint][index]
            found[joint] = (x + 0.5) * CELL / FINE - 0.5, (y + 0.5) * CELL / FINE - 0.5, np.clip(height, 1e-3, 1)
    return joints


def _peaks(heatmap: np.ndarray) -> np.ndarray:
    """The highest of the local maxima, MOST of them at most: [N, 3], x, y (FINE to a cell) and height."""
    high, wide = heatmap.shape
    fine = cv2.resize(heatmap, (FINE * wide, FINE * high), interpolation=cv2.INTER_LANCZOS4)
    smooth = cv2.GaussianBlur(fine, (0, 0), 3, borderType=cv2.BORDER_REFLECT)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    rows, columns = np.nonzero((smooth >= cv2.dilate(smooth, cross)) & (smooth > PEAK))
    peaks = np.stack([columns, rows, fine[rows, columns]], axis=1)
    peaks = peaks[np.argsort(-peaks[:, 2], kind="stable")[: 2 * MOST]]
    apart = np.hypot(*(peaks[:, None, :2] - peaks[None, :, :2]).transpose(2, 0, 1))
    twice = np.tril(apart < FINE / 4, -1).any(axis=1)  # where the top is flat, it has more than one highest pixel
    return peaks[~twice][:MOST]


def _connections(firsts: np.ndarray, seconds: np.ndarray, field: np.ndarray) -> list[tuple[float, int, int]]:
    """Which of the peaks [N, 3] and [M, 3] belong together by the field [2, h, w], each at most once, the surest first:
    the score, and the numbers of both.

    A limb is as sure as its field points along it, on the mean; those longer than half the picture are doubted.
    """
    if not len(firsts) or not len(seconds):
        return []
    way = seconds[None, :, :2] - firsts[:, None, :2]  # (N, M, 2)
    length = np.maximum(np.hypot(way[..., 0], way[..., 1]), 1e-3)
    share = np.linspace(0, 1, ALONG)[None, None, :, None]
    places = firsts[:, None, None, :2] + share * way[:, :, None]  # (N, M, ALONG, 2)
    x, y = ((places.reshape(-1, ALONG, 2) + 0.5) / FINE - 0.5).astype(np.float32).transpose(2, 0, 1)  # in cells
    there = [cv2.remap(one, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for one in field]
    along = np.stack(there, -1).reshape(*length.shape, ALONG, 2) @ (way / length[..., None])[..., None]
    along = along[..., 0]  # (N, M, ALONG)
    scores = along.mean(axis=-1) + np.minimum(0.5 * FINE * field.shape[1] / length - 1, 0)
    enough = (along > FIELD).sum(axis=-1) > SHARE * ALONG
    found, ones, others = [], set(), set()
    candidates = np.argwhere(enough & (scores > 0))
    for one, other in candidates[np.argsort(-scores[tuple(candidates.T)], kind="stable")].tolist():
        if one not in ones and other not in others:
            ones.add(one)
            others.add(other)
            found.append((float(scores[one, other]), one, other))
    return found


class _Person:
    def __init__(self) -> None:
        self.peaks: dict[int, int] = {}  # joint -> the number of its peak
        self.score = 0.0


def _add(
    people: list[_Person],
    first: int,
    one: int,
    second: int,
    other: int,
    score: float,
    peaks: list[np.ndarray],
    new: bool,
) -> None:
    """Gives a limb to whoever has one of its joints; joins two who have one each; or, if `new`, begins a person."""
    heights = peaks[first][one, 2], peaks[second][other, 2]
    owners = [person for person in people if person.peaks.get(first) == one or person.peaks.get(second) == other]
    if not owners:
        if new:
            person = _Person()
            person.peaks = {first: one, second: other}
            person.score = sum(heights) + score
            people.append(person)
        return
    person, *rest = owners
    if rest and not person.peaks.keys() & rest[0].peaks.keys():
        person.peaks |= rest[0].peaks
        person.score += rest[0].score + score
        people.remove(rest[0])
    elif second not in person.peaks:
        person.peaks[second] = other
        person.score += heights[1] + score
    elif first not in person.peaks:
        person.peaks[first] = one
        person.score += heights[0] + score
