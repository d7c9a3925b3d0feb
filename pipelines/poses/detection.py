"""Who is where in the frames of a clip, by a detector whose networks the manager leases.

Two kinds are known: OpenPose's, which looks at every frame by itself (openpose.py), and BlazePose, which follows people
from frame to frame (blazepose.py). "auto" looks with both kinds, and takes the one that is surer.
"""

import os
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from pipelines.detectors import AUTO
from pipelines.errors import Refusal
from pipelines.events import Progress
from pipelines.media.video import BLACK
from pipelines.messages import said
from pipelines.models.manager import ModelManager
from pipelines.poses.keypoints import Poses, stack

FINDING, CHOOSING = said("Finding people"), said("Looking for drawn figures")
LOADING = said("Loading the detector")
THREADS = min(4, os.cpu_count() or 1)  # reading OpenPose's maps is much of its work, and lets other threads run
WORKING_BYTES = 150 * 2**20  # a thread: OpenPose's widest layer at 184 x 552 pixels, and what it is made from
PEOPLE, DRAWN = "blazepose", "miniature-openpose"  # what "auto" chooses between
# Drawn figures are found by a network that knows nothing else. BlazePose is fairly sure of some of them, and that one
# seldom as sure of people: in frames alone, 0.05 to 1.1 times as sure as BlazePose, and 0.86 or more of 77 of 80
# drawings. Where it was surer of a person, the picture was full of what drawings lack: folds, shades and grain.
DRAWN_SHARE = 0.86
LEAST = 0.4  # as sure of people as one is at least taken to be: what neither is sure of is no drawn figure
PLAIN, PLAIN_SIDE, PLAIN_LEVELS = 0.3, 128, 1  # the share of plain pixels in a drawing; in a picture so wide; of 255
NOT_PLAIN = 0.6  # what the sureness of drawn figures counts at least: drawings may be grainy
GLANCES = 6  # frames in which drawn figures are looked for before a choice


def extract(
    frames: np.ndarray, fps: float, detector: str, models: ModelManager
) -> Generator[Progress, None, tuple[Poses, str]]:
    """Finds the people in `frames` uint8 [F, H, W, 3] with the detector of that name; tells of every frame.

    Returns (as a generator does) everybody in every frame, in pixels of the frames, and the name of the detector, which
    "auto" chooses. The order of people means nothing yet (tracking.track). Closing the generator stops the work within
    a frame. Raises ValueError, with what to do, where the frames are black, where nobody is found in any, and where the
    detector's weights are missing or damaged.
    """
    card = models.detector(detector)
    if frames.max() <= BLACK:
        raise Refusal(said("This part of the clip is black. Choose another part of it, or another clip."))
    poses, by = yield from find(frames, fps, detector, models)
    if not poses.seen.any():
        which = said("the frame") if len(frames) == 1 else said("any of the {count} frames", count=len(frames))
        raise Refusal(said("Nobody was found in {which}. {advice}", which=which, advice=card.advice))
    return poses, by


def find(
    frames: np.ndarray, fps: float, detector: str, models: ModelManager, stage: str = FINDING
) -> Generator[Progress, None, tuple[Poses, str]]:
    """As `extract`, in a `stage` that is called so; where nobody is found, nobody is in what it returns."""
    if detector == PEOPLE:
        return (yield from _follow(frames, fps, models, stage)), PEOPLE
    if detector != AUTO:
        return (yield from _look(frames, fps, detector, models, stage)), detector
    people = yield from _follow(frames, fps, models, stage)
    glances = np.linspace(0, len(frames) - 1, min(len(frames), GLANCES)).round().astype(int)
    drawn = yield from _look(frames[glances], fps, DRAWN, models, CHOOSING)
    counts = np.clip(plainness(frames[glances]) / PLAIN, NOT_PLAIN, 1)
    if counts * sureness(drawn) < DRAWN_SHARE * max(sureness(people), LEAST):
        return people, PEOPLE
    return (yield from _look(frames, fps, DRAWN, models, stage)), DRAWN


def used(detector: str) -> tuple[str, ...]:
    """The detectors with networks that the one of that name asks."""
    return (PEOPLE, DRAWN) if detector == AUTO else (detector,)


def sureness(poses: Poses) -> float:
    """How sure a detector is of what it found, from 0 to 1: its confidence in the joints of whoever is best to be seen
    in each frame, less where it sees many people whom it is little sure of, as in what it does not know.
    """
    confidence = poses.joints[..., 2].mean(axis=2)  # [F, P]
    best = confidence.max(axis=1, initial=0)
    doubtful = ((confidence > 0) & (confidence < 0.7 * best[:, None])).sum(axis=1)
    return float((best / (1 + 0.5 * doubtful)).mean())


def plainness(frames: np.ndarray) -> float:
    """The share of `frames` uint8 [F, H, W, 3], seen small, that is of one brightness with all around it: of drawings
    0.25 or more, and of photos less, but for those with a plain wall behind.
    """
    scale = PLAIN_SIDE / max(frames.shape[1:3])
    size = max(1, round(frames.shape[2] * scale)), max(1, round(frames.shape[1] * scale))
    plain, around = [], np.ones((3, 3), np.uint8)
    for frame in frames:
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        plain.append(cv2.dilate(grey, around) - cv2.erode(grey, around) <= PLAIN_LEVELS)
    return float(np.mean(plain))


def _look(
    frames: np.ndarray, fps: float, detector: str, models: ModelManager, stage: str
) -> Generator[Progress, None, Poses]:
    """People by a network of OpenPose's kind, in every frame by itself."""
    from pipelines.poses import openpose

    count, height, width, _ = frames.shape
    yield Progress(LOADING, 0, 1)
    with models.lease(f"{detector}/body", THREADS * WORKING_BYTES) as network:
        find = openpose.finder(network)
        started, found = time.monotonic(), []
        pool = ThreadPoolExecutor(THREADS)
        try:
            waiting = deque()
            for frame in (*frames, *[None] * THREADS):  # a few frames ahead, so that stopping has little to wait for
                if frame is not None:
                    waiting.append(pool.submit(find, frame))
                if waiting and (len(waiting) > THREADS or frame is None):
                    found.append(waiting.popleft().result())
                    yield _progress(stage, len(found), count, started)
        finally:
            pool.shutdown(cancel_futures=True)
    return stack(found, width, height, fps)


def _follow(frames: np.ndarray, fps: float, models: ModelManager, stage: str) -> Generator[Progress, None, Poses]:
    """People by BlazePose, followed through the clip."""
    from pipelines.poses import blazepose

    count, height, width, _ = frames.shape
    yield Progress(LOADING, 0, 1)
    with (
        models.lease(f"{PEOPLE}/detector", blazepose.WORKING_BYTES) as detector,
        models.lease(f"{PEOPLE}/landmarks", blazepose.WORKING_BYTES) as landmarks,
    ):
        started = time.monotonic()
        following = blazepose.find(frames, fps, blazepose.BlazePose(detector, landmarks))
        try:
            while True:
                yield _progress(stage, next(following), count, started)
        except StopIteration as finished:
            return stack(finished.value, width, height, fps)
        finally:
            following.close()


def _progress(stage: str, done: int, count: int, started: float) -> Progress:
    return Progress(stage, done, count, (time.monotonic() - started) / done * (count - done))
