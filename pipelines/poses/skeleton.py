"""Skeletons as networks saw them in training, and videos of skeletons told from others.

FollowYourPose was trained on mmpose's drawing of COCO's 17 joints on black: orange trunk and head, the person's right
limbs blue, the left ones green, no dots, lines of about 1.5% of the picture's height. In OpenPose's rainbow of colours
it sees nothing that it knows. VACE was trained on DWPose's drawing in that rainbow.
"""

import cv2
import numpy as np

from pipelines.errors import Refusal
from pipelines.messages import said
from pipelines.poses import rainbow
from pipelines.poses.keypoints import Poses, placement, to_coco

RGB = tuple[int, int, int]
ORANGE, BLUE, GREEN = (255, 153, 51), (0, 128, 255), (0, 255, 0)
LIMBS: tuple[tuple[int, int, RGB], ...] = (  # of COCO's joints, in the order in which they are drawn
    *((15, 13, GREEN), (13, 11, GREEN), (16, 14, BLUE), (14, 12, BLUE), (11, 12, ORANGE)),
    *((5, 11, ORANGE), (6, 12, ORANGE), (5, 6, ORANGE), (5, 7, GREEN), (6, 8, BLUE), (7, 9, GREEN), (8, 10, BLUE)),
    *((1, 2, ORANGE), (0, 1, ORANGE), (0, 2, ORANGE), (1, 3, ORANGE), (2, 4, ORANGE), (3, 5, ORANGE), (4, 6, ORANGE)),
)
LINE = 0.015  # of the picture's height
STICK, STICK_BRIGHTNESS = 4, 0.6  # DWPose's: half a limb's width and a joint's radius, in pixels; and of a limb
_FINE = 4  # bits after the point in the coordinates that are drawn

KINDS = ("coco", "openpose")  # drawings that are known
_DARK = 48  # a pixel whose brightest channel is below this is black, also after a codec has been at it
_BRIGHT = 110


def draw(poses: Poses, drawing: str = "coco") -> np.ndarray:
    """The skeletons of all people on black: frames uint8 [F, H, W, 3]. Joints outside are drawn as far as they show.

    `drawing` is one of KINDS: mmpose's of COCO's joints, or DWPose's of OpenPose's.
    """
    frames = np.zeros((len(poses.joints), poses.height, poses.width, 3), np.uint8)
    for image, people in zip(frames, poses.joints, strict=True):
        if drawing == "openpose":
            _draw_openpose(image, people)
        else:
            _draw_coco(image, people)
    return frames


def _draw_coco(image: np.ndarray, people: np.ndarray) -> None:
    """Draws people [P, 18, 3] into an image uint8 [H, W, 3]."""
    thickness = max(2, round(LINE * len(image)))
    for person in to_coco(people):
        points = np.clip(np.round(person[:, :2] * 2**_FINE), -(2**20), 2**20).astype(int).tolist()
        for first, second, colour in LIMBS:
            if person[first, 2] > 0 and person[second, 2] > 0:
                cv2.line(image, points[first], points[second], colour, thickness, cv2.LINE_AA, _FINE)


def _draw_openpose(image: np.ndarray, people: np.ndarray) -> None:
    """Draws people [P, 18, 3] into an image uint8 [H, W, 3]: all limbs, darker, and all joints over them."""
    points = np.clip(people[..., :2], -(2**14), 2**14)
    for (first, second), colour in zip(rainbow.LIMBS, rainbow.COLOURS.tolist(), strict=False):
        for person, place in zip(people, points, strict=True):
            if person[first, 2] > 0 and person[second, 2] > 0:
                middle = place[[first, second]].mean(axis=0).astype(int).tolist()
                along = place[first] - place[second]
                length, angle = int(np.hypot(*along) / 2), int(np.degrees(np.arctan2(along[1], along[0])))
                stick = np.array(cv2.ellipse2Poly(middle, (length, STICK), angle, 0, 360, 1))
                cv2.fillConvexPoly(image, stick, colour)
    image[:] = image * STICK_BRIGHTNESS
    for joint, colour in enumerate(rainbow.COLOURS.tolist()):
        for person, place in zip(people, points, strict=True):
            if person[joint, 2] > 0:
                cv2.circle(image, place[joint].astype(int).tolist(), STICK, colour, thickness=-1)


# Videos of skeletons


def recognise(frames: np.ndarray) -> str | None:
    """Whether frames uint8 [F, H, W, 3] show skeletons on black: "coco" in FollowYourPose's colours, "openpose" in
    those of OpenPose and DWPose, None for anything else, all black included.

    Codecs smear thin lines: what counts is that most is black, and that nearly all that is bright is pure in colour,
    of the right few hues, or white where OpenPose draws faces.
    """
    sample = frames[np.linspace(0, len(frames) - 1, min(len(frames), 12)).round().astype(int)]
    strongest = np.maximum.reduce([sample[..., channel] for channel in range(3)])  # much faster than along an axis
    if (strongest < _DARK).mean() < 0.7:
        return None
    bright = sample[strongest > _BRIGHT]  # (N, 3)
    if len(bright) < 20 * len(sample) ** 0.5:
        return None
    hue, saturation, _ = cv2.cvtColor(bright[None], cv2.COLOR_RGB2HSV)[0].T.astype(int)  # hue from 0 to 179
    pure, white = saturation > 110, saturation < 60
    if white.mean() > 0.5 or pure[~white].mean() < 0.75:
        return None
    hues = np.bincount(hue[pure], minlength=180) / pure.sum()
    near = [sum(hues[(_hue(colour) + step) % 180] for step in range(-7, 8)) for colour in (ORANGE, BLUE, GREEN)]
    if pure.mean() >= 0.75 and sum(near) > 0.85 and sum(share > 0.03 for share in near) >= 2:
        return "coco"
    shades = [sum(hues[(_hue(colour) + step) % 180] for step in range(-2, 3)) for colour in rainbow.COLOURS]
    return "openpose" if sum(shades) > 0.5 and sum(share > 0.004 for share in shades) >= 10 else None


def _hue(colour: np.ndarray | RGB) -> int:
    return int(cv2.cvtColor(np.array([[colour]], np.uint8), cv2.COLOR_RGB2HSV)[0, 0, 0])


def place_frames(frames: np.ndarray, width: int, height: int, how: str = "fit") -> np.ndarray:
    """Frames of a skeleton video on a canvas of `width` x `height`, laid there as `keypoints.placement` says.

    Raises ValueError for another way, and for "fill" where all is black.
    """
    _, high, wide, _ = frames.shape
    seen = (frames.max(axis=-1) > _BRIGHT).any(axis=0)
    if how == "fill" and not seen.any():
        raise Refusal(said("The skeleton video is black. Choose another part of it, or another clip."))
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    around = (columns[0], rows[0], columns[-1], rows[-1]) if seen.any() else (0, 0, wide, high)
    laid = placement(around, (wide, high), (width, height), how)
    x = y = 1.0
    if laid.scale < 1:  # averaged first: warping alone would skip pixels of thin lines
        size = max(1, round(wide * laid.scale)), max(1, round(high * laid.scale))
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
        x, y = size[0] / wide, size[1] / high
    rest = [laid.scale / x, laid.scale / y]  # 1 but for the rounding of that size
    move = np.array(
        [
            [rest[0], 0, 0.5 * (rest[0] - laid.scale) + laid.right],  # pixels are resized by their edges
            [0, rest[1], 0.5 * (rest[1] - laid.scale) + laid.down],
        ]
    )
    return np.stack([cv2.warpAffine(frame, move, (width, height), flags=cv2.INTER_LINEAR) for frame in frames])
