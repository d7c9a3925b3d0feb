"""Skeletons that OpenPose or DWPose drew, read back: joints in a rainbow of colours, with hands and faces over them.

A joint is a dot in its own colour, a limb a stick in a darker shade of one. Hands and faces are drawn over both, in
colours that are much the same. Where a dot is covered, the joint is taken from the end of the stick that leads to it;
the nose and the eyes under a drawn face, from where the face is.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.messages import said
from pipelines.poses.keypoints import Poses, stack

# OpenPose's: joint k in its colour, and limb k in a darker shade of the same.
COLOURS = np.array(
    [
        *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
        *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
        *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
    ]
)
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
NOSE, NECK = 0, 1
FINGERS = 12  # whose colour hands have too: the left knee's
HUE = 10  # of 180, from one colour of the rainbow to the next
FAINT, DARK = 0.3, 0.8  # of the brightest: a stick is between, a dot above
DOT, END, ENDS = 1.0, 0.75, 0.9  # how sure a joint is as a dot, as the end of one stick, and where two sticks meet
COVERED = 0.5  # likewise, where only the face or the hand that covers it tells where it is
MOST = 64  # places that one joint may have in a frame
UNREAD = 0.12  # of the sticks' pixels: with more than that away from what was read, a frame was not read whole
ALONG, BEYOND = np.linspace(0.1, 0.9, 17), np.array([-0.4, -0.3, -0.2, 1.2, 1.3, 1.4])  # of the way between two joints


def read(frames: np.ndarray, fps: float) -> Poses:
    """The joints of skeletons drawn in OpenPose's colours: frames uint8 [F, H, W, 3].

    A joint's confidence is 1 where its dot is to be seen, and less where it is told by what is around it. Raises
    ValueError where no skeleton is found.
    """
    _, height, width, _ = frames.shape
    poses = stack([_read(frame) for frame in frames], width, height, fps)
    if not poses.seen.any():
        raise ValueError(
            said(
                "No skeletons in OpenPose's colours were found in this video. Upload the clip that they were made "
                "of, or the keypoints (JSON)."
            )
        )
    return poses


def _read(frame: np.ndarray) -> np.ndarray:
    """The joints [P, 18, 3] in one frame, of which only what is not black is looked at."""
    left, top, wide, high = cv2.boundingRect((frame.max(axis=-1) > 60).astype(np.uint8))
    if not wide:
        return np.zeros((0, 18, 3), np.float32)
    people = _people(_Drawing(np.ascontiguousarray(frame[top : top + high, left : left + wide])))
    people[..., :2] = np.where(people[..., 2:] > 0, people[..., :2] + (left, top), 0)
    return people


def unread(frames: np.ndarray, poses: Poses) -> list[int]:
    """The numbers of the frames uint8 [F, H, W, 3] that show limbs which are not in `poses`, read from them."""
    return [
        number
        for number, (frame, people) in enumerate(zip(frames, poses.joints, strict=True))
        if _Drawing(frame).share_beside(people) > UNREAD
    ]


def tell_unread(frames: list[int], count: int) -> str | None:
    """A sentence on frames that were not read whole; None where there are none."""
    if not frames:
        return None
    return said(
        "Not all limbs could be read from the drawing in {unread} of {count} frames: too much is covered, or the "
        "picture is too small or too compressed. Upload a larger drawing, or the keypoints (JSON).",
        unread=len(frames),
        count=count,
    )


class _Drawing:
    """What a frame shows in which colour."""

    def __init__(self, image: np.ndarray):
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        coloured = saturation > 110
        seen = value[coloured & (value > 60)]
        peak = float(np.percentile(seen, 99)) if len(seen) else 255.0
        self.hue = hue.astype(np.int16)
        self.shown = value > FAINT * peak
        self.white = ~coloured & (saturation < 80) & (value > 0.6 * peak)
        self.bright = coloured & (value > DARK * peak)
        self.stick = coloured & self.shown & ~self.bright
        self.sticks = [self.in_hue(limb, self.stick, 5) for limb in range(len(LIMBS))]
        self.radius, self.dots, self.fingers = self._dots()
        self.reach = max(2 * self.radius, 4.0)  # pixels: what is nearer to a joint is the joint

    def in_hue(self, colour: int, mask: np.ndarray, reach: int) -> np.ndarray:
        """Which pixels of the mask have that colour's hue, give or take `reach` of 180: uint8 [H, W]."""
        away = np.abs(self.hue - HUE * colour)
        return (mask & (np.minimum(away, 180 - away) <= reach)).astype(np.uint8)

    def _dots(self) -> tuple[float, list[np.ndarray], np.ndarray]:
        """The dots' radius in pixels, for each joint the middles [N, 2] of dots in its colour, and the pixels [N, 2]
        of hands."""
        depths = [cv2.distanceTransform(self.in_hue(k, self.bright, 4), cv2.DIST_L2, 3) for k in range(18)]
        deepest = [depth.max() for k, depth in enumerate(depths) if k != FINGERS and depth.any()]
        radius = float(np.clip(np.median(deepest), 1, 16)) if deepest else 1.0
        dots = []
        for joint, depth in enumerate(
            depths
        ):  # hands are drawn in thin lines: only the middle of what is thick is a dot
            core = (depth > 0.55 * radius).astype(np.uint8)
            _, labels, stats, middles = cv2.connectedComponentsWithStats(core, connectivity=8)
            area = stats[1:, cv2.CC_STAT_AREA]
            small = area < max(9.0, 5 * radius**2)
            dots.append(middles[1:][small][: 16 * MOST])
            if joint == FINGERS:
                large = np.isin(labels, np.flatnonzero(~small) + 1)
                fingers = np.argwhere(large)[:, ::-1].astype(float)
        return radius, dots, fingers

    def is_white(self, spot: np.ndarray) -> bool:
        x, y = np.round(spot).astype(int)
        height, width = self.white.shape
        return 0 <= x < width and 0 <= y < height and bool(self.white[y, x])

    def ends(self, limb: int) -> np.ndarray:
        """Where sticks in this limb's colour begin and end: [N, 2, 2], (x, y) of both ends of each piece."""
        count, labels, stats, _ = cv2.connectedComponentsWithStats(self.sticks[limb], connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        ends = []
        for index in np.argsort(-areas, kind="stable")[: MOST // 4] + 1 if count > 1 else ():
            if stats[index, cv2.CC_STAT_AREA] < max(5.0, 0.12 * areas.max()):
                break
            left, top, wide, high = stats[index, :4]
            y, x = np.nonzero(labels[top : top + high, left : left + wide] == index)
            points = np.stack([x + left, y + top], axis=1).astype(float)
            middle = points.mean(axis=0)
            axis = np.linalg.eigh(np.cov((points - middle).T) + 1e-6 * np.eye(2))[1][:, 1]
            along = (points - middle) @ axis
            reach = 0.8 * self.radius  # under the dot, or what covers it, the stick goes on
            ends.append([middle + (along.min() - reach) * axis, middle + (along.max() + reach) * axis])
        return np.array(ends).reshape(-1, 2, 2)

    def links(self, limb: int, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        """How well a stick in this limb's colour leads from each of `ones` [N, 2] to each of `others` [M, 2]: from 0
        to 1, [N, M]."""
        near = cv2.dilate(self.in_hue(limb, self.stick, 7), np.ones((3, 3), np.uint8)) > 0
        way = others[None] - ones[:, None]  # (N, M, 2)
        length = np.hypot(way[..., 0], way[..., 1])
        hit, covered = self._sample(near, ones, way, ALONG)
        beyond, _ = self._sample(near, ones, way, BEYOND)
        short = length < 4 * self.radius  # so short a stick lies under its dots
        share = hit + 0.6 * covered
        possible = (length > 0.5 * self.radius) & (short | (hit >= 0.25)) & (share >= 0.5)
        return np.where(possible, share * (1 - 0.5 * beyond), 0)

    def _sample(
        self, mask: np.ndarray, ones: np.ndarray, way: np.ndarray, along: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the points `along` the ways, the share that is in the mask, and that where something else is drawn."""
        height, width = mask.shape
        points = np.round(ones[:, None, None] + way[:, :, None] * along[:, None]).astype(int)  # (N, M, T, 2)
        x, y = points[..., 0], points[..., 1]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        at = y.clip(0, height - 1), x.clip(0, width - 1)
        hit = mask[at] & inside
        return hit.mean(axis=-1), (self.shown[at] & inside & ~hit).mean(axis=-1)

    def faces(self) -> np.ndarray:
        """Left, top, right and bottom of drawn faces, whose points are white: [N, 4]."""
        reach = 2 * round(2 * self.radius) + 1
        joined = cv2.dilate(self.white.astype(np.uint8), np.ones((reach, reach), np.uint8))
        count, labels, _, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
        boxes = []
        for index in range(1, min(count, MOST)):
            y, x = np.nonzero((labels == index) & self.white)
            if len(x) >= max(12.0, 8 * self.radius**2):
                boxes.append((x.min(), y.min(), x.max(), y.max()))
        return np.array(boxes, float).reshape(-1, 4)

    def share_beside(self, people: np.ndarray) -> float:
        """Of what is drawn as limbs are, the share that is beside the joints [P, 18, 3] and what connects them."""
        size = 3 if self.radius >= 2 else 1
        sticks = cv2.morphologyEx(self.stick.astype(np.uint8), cv2.MORPH_OPEN, np.ones((size, size), np.uint8))
        known = np.zeros(sticks.shape, np.uint8)
        for person in people:
            for one, other in LIMBS:
                if person[one, 2] > 0 and person[other, 2] > 0:
                    begin, end = np.round(person[[one, other], :2]).astype(int).tolist()
                    cv2.line(known, begin, end, 1, max(3, round(5 * self.radius)))
        for person in people:  # hands and faces are beside the body, and no part of it
            for joint in np.flatnonzero(person[:, 2] > 0):
                cv2.circle(
                    known, np.round(person[joint, :2]).astype(int).tolist(), max(2, round(4 * self.radius)), 1, -1
                )
        return float(sticks[known == 0].sum() / max(sticks.sum(), 1))


@dataclass
class _Places:
    """Where a joint may be: the middles [N, 2], and how sure it is [N]."""

    middles: np.ndarray
    sure: np.ndarray


def _places(drawing: _Drawing) -> list[_Places]:
    """Where each of the 18 joints may be in the drawing: at dots, and at ends of sticks where there are none."""
    ends = [drawing.ends(limb).reshape(-1, 2) for limb in range(len(LIMBS))]
    places = []
    for joint, dots in enumerate(drawing.dots):
        told = [(end, limb) for limb, pair in enumerate(LIMBS) if joint in pair for end in ends[limb]]
        if len(dots) > MOST and told:  # each knuckle of a hand looks like a knee, but for the limbs that end there
            far = np.hypot(*(dots[:, None] - [end for end, _ in told]).transpose(2, 0, 1)).min(axis=1)
            dots = dots[np.argsort(far, kind="stable")]
        dots = dots[:MOST]
        middles, sure = list(dots), [DOT] * len(dots)
        alone = [(end, limb) for end, limb in told if not len(dots) or np.hypot(*(dots - end).T).min() > drawing.reach]
        for number, (end, limb) in enumerate(alone):
            meets = [
                other
                for other, which in alone[number + 1 :]
                if which != limb and np.hypot(*(other - end)) < 1.5 * drawing.reach
            ]
            middles.append((end + meets[0]) / 2 if meets else end)
            sure.append(ENDS if meets else END)
        places.append(_Places(np.array(middles[:MOST]).reshape(-1, 2), np.array(sure[:MOST])))
    return places


def _people(drawing: _Drawing) -> np.ndarray:
    """The joints [P, 18, 3] in one drawing: places that sticks connect are one person's, the best connected first."""
    places = _places(drawing)
    links = []
    for limb, (one, other) in enumerate(LIMBS):
        first, second = places[one], places[other]
        if len(first.sure) and len(second.sure):
            scores = drawing.links(limb, first.middles, second.middles) * first.sure[:, None] * second.sure
            links += [(scores[at], (one, at[0]), (other, at[1])) for at in zip(*np.nonzero(scores > 0.25), strict=True)]
    owners: dict[tuple[int, int], dict[int, int]] = {}  # place -> its person: joint -> which of its places
    for _, *both in sorted(links, key=lambda link: -link[0]):
        one, other = (owners.setdefault(place, {place[0]: place[1]}) for place in both)
        if one is other:
            continue
        twice = [
            places[joint].middles[one[joint]] - places[joint].middles[other[joint]] for joint in one.keys() & other
        ]
        if all(np.hypot(*apart) < 1.5 * drawing.reach for apart in twice):  # nobody has two left knees
            surer = {
                joint: index
                for joint, index in other.items()
                if joint not in one or places[joint].sure[index] > places[joint].sure[one[joint]]
            }
            one |= surer
            owners |= {place: one for place, who in owners.items() if who is other}
    people = []
    for mine in {id(person): person for person in owners.values()}.values():
        if len(mine) >= 4:  # as OpenPose itself asks for
            person = np.zeros((18, 3), np.float32)
            for joint, index in mine.items():
                person[joint] = *places[joint].middles[index], places[joint].sure[index]
            people.append(person)
    known: list[np.ndarray] = []
    for person in sorted(people, key=lambda person: -person[:, 2].sum()):
        if not any(_is_ghost(person, other, drawing.reach) for other in known):
            known.append(person)
    _look_under_faces(known, drawing)
    _look_under_hands(known, drawing)
    return np.stack(known) if known else np.zeros((0, 18, 3), np.float32)


def _is_ghost(person: np.ndarray, known: np.ndarray, reach: float) -> bool:
    """Whether the person is no other than somebody known: the same sticks, read the wrong way round, or scraps of a
    face and of hands."""
    mine, theirs = np.flatnonzero(person[:, 2] > 0), np.flatnonzero(known[:, 2] > 0)
    points, others = person[mine, :2], known[theirs, :2]
    apart = np.hypot(*(points[:, None] - others).transpose(2, 0, 1))  # (mine, theirs)
    if ((apart < reach) & (mine[:, None] != theirs)).any(axis=1).sum() >= 0.5 * len(mine):
        return True
    return len(mine) < 8 and (person[:, 2] == DOT).sum() < 4


def _look_under_faces(people: list[np.ndarray], drawing: _Drawing) -> None:
    """Adds the nose, the eyes and the ears that a face covers, each face being of whoever is nearest by the neck."""
    people = [person for person in people if person[NECK, 2] > 0]
    for left, top, right, bottom in drawing.faces() if people else ():
        middle, wide, high = np.array([(left + right) / 2, (top + bottom) / 2]), right - left, bottom - top
        person = min(people, key=lambda one: np.hypot(*(one[NECK, :2] - middle)))
        up = middle - person[NECK, :2]
        far = float(np.hypot(*up))
        if not 0 < far < 2.5 * max(wide, high):
            continue
        up /= far
        aside = np.array([up[1], -up[0]])  # to the person's right, who looks at us
        spots = {NOSE: middle}
        spots |= {eye: middle + 0.22 * (high * up + side * wide * aside) for eye, side in ((14, 1), (15, -1))}
        ears = {ear: middle + 0.2 * high * up + 0.5 * side * wide * aside for ear, side in ((16, 1), (17, -1))}
        for joint, spot in (spots | ears).items():
            if person[joint, 2] >= ENDS:
                continue
            dots = drawing.dots[joint]
            near = np.hypot(*(dots - spot).T) if joint in ears and len(dots) else np.array([np.inf])
            if near.min() < 0.6 * max(wide, high):
                person[joint] = *dots[near.argmin()], DOT
            elif joint in spots or drawing.is_white(spot):
                person[joint] = *spot, COVERED


def _look_under_hands(people: list[np.ndarray], drawing: _Drawing) -> None:
    """Adds the wrists that a hand covers together with the forearm: where the hand is nearest to the elbow."""
    for person in people:
        for shoulder, elbow, wrist in ((2, 3, 4), (5, 6, 7)):
            if person[wrist, 2] > 0 or min(person[shoulder, 2], person[elbow, 2]) <= 0:
                continue
            way = drawing.fingers - person[elbow, :2]  # (N, 2)
            far = np.hypot(*way.T)
            if len(far) and far.min() < 1.3 * np.hypot(*(person[shoulder] - person[elbow])[:2]):
                x, y = way[far.argmin()] / max(far.min(), 1e-6)
                person[wrist] = *(drawing.fingers[far.argmin()] + drawing.radius * np.array([x, y])), COVERED
