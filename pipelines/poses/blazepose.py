"""People in the frames of a clip by BlazePose (Bazarevsky et al. 2020): found once, then followed from frame to frame.

A detector looks at the whole picture, and now and then at parts of it, for small people. Around each person found, a
square is cut out and turned upright, and a second network finds the joints in it, and where to cut in the next frame.
Frames come from memory, so that whoever is found late is followed backwards too.

Coordinates inside are of pixels' edges, as the networks have them: 0 is the left edge of the picture. Joints that
leave are of pixels' middles, as everywhere in the app.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pipelines.models.networks.blazepose import ANCHORS
from pipelines.poses.rainbow import LIMBS

DETECTOR_SIDE, LANDMARK_SIDE = 224, 256  # pixels, what the networks look at
FOUND = 0.5  # the confidence from which on somebody is there: the detector's, and that of the joints
OVERLAP = 0.3  # intersection over union of the boxes of one and the same person
SEEN = 0.3  # the confidence of a joint that is to be seen
ROOM = 1.25  # a square's side in diameters of the circle around the body
# Of a square's side: who has most joints as near to the limbs of another is seen in that other's body.
ON_ANOTHER = 0.06
WIDER = 1.1  # times the side of a square in which nobody is any more, for a second look: small ones hang on a pixel
MOST = 8  # people in a frame: in a crowd the largest, so that no frame takes long
LOOK_SECONDS, CLOSE_LOOK_SECONDS = 0.25, 2.0  # from one look at the whole picture, or at its parts, to the next
TILE = 0.6  # of the shorter side: who is a third as high as the picture is found in a part so large
STEP = 0.6  # of a part's side, from one to the next
WORKING_BYTES = 400 * 2**20  # the widest layers of a batch of parts

HIPS, CIRCLE = 33, 34  # landmarks that say where the person is, and how large and at what angle
# OpenPose's 18 joints among BlazePose's 33; the neck, None, is between the shoulders.
JOINTS = (0, None, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
SHOULDERS = (11, 12)
NECK = 1  # of OpenPose's joints


@dataclass(frozen=True)
class Region:
    """A square around a person, turned so that the person stands upright in it."""

    x: float  # of its middle, pixels
    y: float
    side: float
    angle: float  # radians, clockwise

    @classmethod
    def around(cls, hips: np.ndarray, circle: np.ndarray) -> "Region":
        """The region of who has the middle of the hips and the top of the circle around the body there: (x, y)."""
        x, y = circle - hips
        side, angle = 2 * ROOM * float(np.hypot(x, y)), float(np.pi / 2 - np.arctan2(-y, x))
        return cls(float(hips[0]), float(hips[1]), side, angle)

    def to_picture(self, points: np.ndarray, side: float) -> np.ndarray:
        """Points (x, y) [N, 2] of the region, seen as `side` pixels wide, as points of the picture."""
        turn = np.array([[np.cos(self.angle), -np.sin(self.angle)], [np.sin(self.angle), np.cos(self.angle)]])
        return (points - side / 2) @ turn.T * (self.side / side) + (self.x, self.y)

    def cut(self, frame: np.ndarray, side: int) -> np.ndarray:
        """What of the frame is in the region: uint8 [side, side, 3], black outside."""
        corners = np.array([[0, 0], [side, 0], [0, side]], np.float32)
        there = self.to_picture(corners + 0.5, side) - 0.5
        move = cv2.getAffineTransform(corners, there.astype(np.float32))
        return cv2.warpAffine(frame, move, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    def is_near(self, other: "Region") -> bool:
        """Whether both are regions of the same person, as far as that can be told without the joints."""
        smaller, larger = sorted((self.side, other.side))
        return larger < 1.6 * smaller and np.hypot(self.x - other.x, self.y - other.y) < 0.15 * smaller


@dataclass(frozen=True)
class Person:
    joints: np.ndarray  # float32 [18, 3]: x, y, confidence
    confidence: float
    next: Region  # where to look in the next frame

    def is_same(self, other: "Person") -> bool:
        """Whether two findings in one frame are of one person: the joints, or the necks, lie as good as together."""
        both = (self.joints[:, 2] > 0) & (other.joints[:, 2] > 0)
        if both.sum() < 4:
            return self.next.is_near(other.next)
        apart = np.hypot(*(self.joints[both, :2] - other.joints[both, :2]).T) / max(self.next.side, other.next.side)
        # Of somebody half hidden a small figure may be seen beside the true one, in the same jacket.
        return bool(np.median(apart) < 0.06 or (both[NECK] and apart[both[:NECK].sum()] < 0.08))

    def is_on(self, other: "Person") -> bool:
        """Whether this is seen in the body of `other`: most joints lie on limbs of theirs, as a chest with its arms may
        pass for a whole figure. Of two who dance close together, few do."""
        points = self.joints[self.joints[:, 2] > 0, :2]
        apart = np.full(len(points), np.inf)
        for one, end in LIMBS:
            if other.joints[one, 2] > 0 and other.joints[end, 2] > 0:
                start, along = other.joints[one, :2], other.joints[end, :2] - other.joints[one, :2]
                share = np.clip((points - start) @ along / max(along @ along, 1e-6), 0, 1)
                apart = np.minimum(apart, np.hypot(*(points - start - share[:, None] * along).T))
        return bool(np.median(apart) < ON_ANOTHER * max(self.next.side, other.next.side))


class BlazePose:
    """Both networks, and what they find in a picture."""

    def __init__(self, detector: nn.Module, landmarks: nn.Module) -> None:
        self._detector = detector
        self._landmarks = landmarks
        self._anchors = _anchors()

    def regions(self, frame: np.ndarray, closely: bool = False) -> list[Region]:
        """Where people are in the frame uint8 [H, W, 3], the surest first; `closely`: small ones too."""
        windows = [_whole(frame), *(_tiles(frame) if closely else ())]
        pictures = torch.from_numpy(np.stack([_window(frame, *window) for window in windows]))
        guesses, scores = self._ask(self._detector, pictures, lambda images: images / 127.5 - 1)
        scores = scores.sigmoid().cpu().numpy()  # (windows, guesses)
        points = guesses.cpu().numpy().reshape(*scores.shape, -1, 2) / DETECTOR_SIDE  # (windows, guesses, 6, 2)
        found = []
        for (left, top, side), score, point in zip(windows, scores, points, strict=True):
            for index in np.flatnonzero(score > FOUND):
                middle = self._anchors[index]
                half = point[index, 1] / 2
                box = np.concatenate([point[index, 0] + middle - half, point[index, 0] + middle + half])
                hips, circle = (point[index, 2:4] + middle) * side + (left, top)
                box = box * side + np.tile((left, top), 2)
                found.append((score[index], box, Region.around(hips, circle)))
        kept: list[tuple[np.ndarray, Region]] = []
        for _, box, region in sorted(found, key=lambda each: -each[0]):
            if not any(_overlap(box, other) > OVERLAP or region.is_near(near) for other, near in kept):
                kept.append((box, region))
        return [region for _, region in kept]

    def people(self, frame: np.ndarray, regions: Sequence[Region]) -> list[Person]:
        """Who is in these regions of the frame, the surest first: nobody in some, and everybody once."""
        if not regions:
            return []
        pictures = torch.from_numpy(np.stack([region.cut(frame, LANDMARK_SIDE) for region in regions]))
        landmarks, confidence = self._ask(self._landmarks, pictures, lambda images: images / 255)
        people: list[Person] = []
        found = zip(regions, landmarks.cpu().numpy(), confidence.tolist(), strict=True)
        for region, points, sure in sorted(found, key=lambda each: -each[2]):
            if sure < FOUND:
                break
            places = region.to_picture(points[:, :2], LANDMARK_SIDE)  # (39, 2)
            person = Person(
                _joints(places, _sigmoid(points[:, 3]), frame), sure, Region.around(*places[[HIPS, CIRCLE]])
            )
            if person.joints[:, 2].any() and not any(person.is_same(other) for other in people):
                people.append(person)
        return people

    def _ask(self, network: nn.Module, pictures: Tensor, scale: Callable) -> tuple[Tensor, Tensor]:
        weight = next(network.parameters())
        with torch.inference_mode():
            images = scale(pictures.to(weight.device, weight.dtype).permute(0, 3, 1, 2))  # (B, 3, side, side)
            return tuple(output.float() for output in network(images.contiguous(memory_format=torch.channels_last)))


def find(frames: np.ndarray, fps: float, networks: BlazePose) -> Generator[int, None, list[np.ndarray]]:
    """Yields how many frames are done; returns the joints [P, 18, 3] of the people in each of `frames`.

    Takes at most MOST people a frame, so that a crowd takes no longer than MOST dancers do. Closing the generator
    stops the work within a frame.
    """
    look = max(1, round(LOOK_SECONDS * fps))  # frames
    close_look = max(1, round(CLOSE_LOOK_SECONDS * fps / look)) * look
    found: list[list[Person]] = []
    looking, following = _one_core(), _one_core()
    try:
        looks = {  # asked for at once: a close look takes longer than it takes to follow to the next one
            number: looking.submit(networks.regions, frames[number], number % close_look == 0)
            for number in range(0, len(frames), look)
        }
        for number, frame in enumerate(frames):
            known = [person.next for person in found[-1]] if found else []
            people = following.submit(_followed, frame, known, networks).result()
            if number in looks:
                regions = looks[number].result()
                people += following.submit(_newcomers, frames, found, people, regions, networks).result()
            found.append(people)
            yield number + 1
    finally:
        following.shutdown()
        looking.shutdown(cancel_futures=True)
    return [np.stack([person.joints for person in people] or [np.zeros((18, 3), np.float32)]) for people in found]


def _one_core() -> ThreadPoolExecutor:
    """A thread of one core: the layers are too small for more, and several cores would wait for each other."""
    usual = torch.get_num_threads()
    thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,))
    thread.submit(torch.get_num_threads).result()  # begins it, and takes the number over for good
    torch.set_num_threads(usual)  # what one thread sets, all that begin later take over
    return thread


def _followed(frame: np.ndarray, known: Sequence[Region], networks: BlazePose) -> list[Person]:
    """Who is in these regions of the frame, or in a little more of it."""
    people = networks.people(frame, known)
    lost = [place for place in known if not any(place.is_near(person.next) for person in people)]
    again = networks.people(frame, [replace(place, side=WIDER * place.side) for place in lost])
    return people + [person for person in again if not any(person.is_same(other) for other in people)]


def _newcomers(
    frames: np.ndarray,
    found: list[list[Person]],
    people: Sequence[Person],
    regions: Sequence[Region],
    networks: BlazePose,
) -> list[Person]:
    """Who of those that the detector found in the frame after `found` is none of `people`. They are followed back."""
    frame = frames[len(found)]
    regions = [region for region in regions if not any(region.is_near(person.next) for person in people)]
    regions = sorted(regions, key=lambda region: -region.side)[: max(0, MOST - len(people))]
    # Looked at twice: the detector's squares are rough, and those of the joints are not.
    seen = networks.people(frame, [person.next for person in networks.people(frame, regions)])
    new: list[Person] = []
    for person in seen:
        if not any(person.is_same(other) or person.is_on(other) or other.is_on(person) for other in (*people, *new)):
            new.append(person)
    _follow_back(frames, found, new, networks)
    return new


def _follow_back(frames: np.ndarray, found: list[list[Person]], people: Sequence[Person], networks: BlazePose) -> None:
    """Adds to `found`, which ends one frame before `people`, who of them was there before."""
    for number in reversed(range(len(found))):
        people = networks.people(frames[number], [person.next for person in people])
        people = [one for one in people if not any(one.is_same(other) for other in found[number])]
        people = people[: MOST - len(found[number])]
        if not people:
            return
        found[number] += people


def _joints(places: np.ndarray, sure: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """OpenPose's joints [18, 3] of the landmarks' places [39, 2]; what is hidden or outside the frame is missing."""
    height, width = frame.shape[:2]
    joints = np.zeros((18, 3), np.float32)
    for joint, landmark in zip(joints, JOINTS, strict=True):
        which = list(SHOULDERS) if landmark is None else [landmark]
        x, y = places[which].mean(axis=0)
        if sure[which].min() > SEEN and 0 <= x <= width and 0 <= y <= height:
            joint[:] = x - 0.5, y - 0.5, sure[which].min()
    return joints


def _whole(frame: np.ndarray) -> tuple[int, int, int]:
    """Left, top and side of the square around the whole picture."""
    height, width = frame.shape[:2]
    side = max(height, width)
    return (width - side) // 2, (height - side) // 2, side


def _tiles(frame: np.ndarray) -> list[tuple[int, int, int]]:
    """Left, top and side of squares that overlap, and cover the picture together."""
    height, width = frame.shape[:2]
    side = max(1, round(TILE * min(height, width)))

    def starts(length: int) -> list[int]:
        count = 1 + int(np.ceil((length - side) / (STEP * side)))
        return np.linspace(0, length - side, count).round().astype(int).tolist()

    return [(left, top, side) for top in starts(height) for left in starts(width)]


def _window(frame: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """The square of the frame, black outside: uint8 [DETECTOR_SIDE, DETECTOR_SIDE, 3]."""
    height, width = frame.shape[:2]
    inside = frame[max(top, 0) : top + side, max(left, 0) : left + side]
    above, before = max(-top, 0), max(-left, 0)
    below, behind = side - above - inside.shape[0], side - before - inside.shape[1]
    square = cv2.copyMakeBorder(inside, above, below, before, behind, cv2.BORDER_CONSTANT)
    way = cv2.INTER_AREA if side > DETECTOR_SIDE else cv2.INTER_LINEAR
    return cv2.resize(square, (DETECTOR_SIDE, DETECTOR_SIDE), interpolation=way)


def _anchors() -> np.ndarray:
    """The middles of the cells that the guesses belong to, [2254, 2], as shares of the picture."""
    anchors = []
    for cells, count in zip((28, 14, 7), ANCHORS, strict=True):
        middles = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(middles, middles), axis=-1)  # (row, column, (x, y))
        anchors.append(grid.reshape(-1, 2).repeat(count, axis=0))
    return np.concatenate(anchors)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    if (sides <= 0).any():
        return 0.0
    both = sides.prod()
    return float(both / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - both))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
