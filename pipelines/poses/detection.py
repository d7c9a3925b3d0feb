"""OpenPose: who is where in the frames of a clip, by a network that the manager leases and controlnet-aux's decoding.

controlnet-aux finds the peaks of the heatmaps and joins them along the part affinity fields (Cao et al. 2017, section
2.4). Its pictures of skeletons are not used: they change the aspect ratio (skeleton.py draws).
"""

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pipelines.events import Progress
from pipelines.models.manager import ModelManager
from pipelines.poses.keypoints import Poses, stack

FINDING = "Finding people"

# controlnet-aux shows its network half of OpenPose's 368 pixels, whatever the height of the picture, and then looks for
# peaks in the picture's own size. 368 is fine enough for that, and half the work of the 512 that it suggests.
HEIGHT = 368
LONGEST = 3  # times the shorter side: longer pictures get a black border, as the network takes all the width there is
THREADS = min(4, os.cpu_count() or 1)  # decoding is most of the work, and lets other threads run
WORKING_BYTES = 150 * 2**20  # a thread: OpenPose's widest layer at 184 x 552 pixels, and what it is made from
BLACK = 16  # as video.BLACK


def extract(frames: np.ndarray, fps: float, detector: str, models: ModelManager) -> Generator[Progress, None, Poses]:
    """Finds the people in `frames` uint8 [F, H, W, 3] with the detector of that name; tells of every frame.

    Returns (as a generator does) everybody in every frame, in pixels of the frames; the order of people means nothing
    yet (keypoints.track). Closing the generator stops the work within a frame. Raises ValueError, with what to do,
    where the frames are black, where nobody is found in any, and where the detector's weights are missing or damaged.
    """
    card = models.detector(detector)
    if frames.max() <= BLACK:
        raise ValueError("This part of the clip is black. Choose another part of it, or another clip.")
    poses = yield from find(frames, fps, detector, models)
    if not poses.seen.any():
        which = "the frame" if len(frames) == 1 else f"any of the {len(frames)} frames"
        raise ValueError(f"Nobody was found in {which}. {card.advice}")
    return poses


def find(
    frames: np.ndarray, fps: float, detector: str, models: ModelManager, stage: str = FINDING
) -> Generator[Progress, None, Poses]:
    """As `extract`, in a `stage` that is called so; where nobody is found, nobody is in what it returns."""
    count, height, width, _ = frames.shape
    yield Progress("Loading the detector", 0, 1)
    with models.lease(f"{detector}/body", THREADS * WORKING_BYTES) as network:
        find = _finder(network)
        started, found = time.monotonic(), []
        pool = ThreadPoolExecutor(THREADS)
        try:
            waiting = deque()
            for frame in (*frames, *[None] * THREADS):  # a few frames ahead, so that stopping has little to wait for
                if frame is not None:
                    waiting.append(pool.submit(find, frame))
                if waiting and (len(waiting) > THREADS or frame is None):
                    found.append(waiting.popleft().result())
                    left = (time.monotonic() - started) / len(found) * (count - len(found))
                    yield Progress(stage, len(found), count, left)
        finally:
            pool.shutdown(cancel_futures=True)
    return stack(found, width, height, fps)


class _AsFloat(nn.Module):
    """`network` for a caller that knows float32 only, in whatever precision it is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fields, heatmaps = self.network(images.to(next(self.network.parameters()).dtype))
        return fields.float(), heatmaps.float()


def _finder(network: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a frame uint8 [H, W, 3] to the joints float32 [P, 18, 3] of the people in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of detectors that want more libraries, none of which is used
        from controlnet_aux.open_pose.body import Body

    body = Body.__new__(Body)  # its constructor would read a pickle: the network is here already
    body.model = _AsFloat(network)

    def find(frame: np.ndarray) -> np.ndarray:
        picture, scale = _as_seen(frame)
        with torch.inference_mode():
            candidates, subset = body(np.ascontiguousarray(picture[..., ::-1]))
        people = np.zeros((len(subset), 18, 3), np.float32)
        for person, result in zip(people, Body.format_body_result(candidates, subset), strict=True):
            for joint, keypoint in zip(person, result.keypoints, strict=True):
                if keypoint is not None:
                    joint[:2] = (np.array([keypoint.x, keypoint.y]) + 0.5) / scale - 0.5
                    joint[2] = np.clip(keypoint.score, 1e-3, 1)
        return people

    return find


def _as_seen(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frame at the detector's height, and by how much it grew: (x, y)."""
    height, width = frame.shape[:2]
    below, beside = max(0, width // LONGEST - height), max(0, height // LONGEST - width)
    frame = cv2.copyMakeBorder(frame, 0, below, 0, beside, cv2.BORDER_CONSTANT)
    high, wide = frame.shape[:2]
    size = max(1, round(wide * HEIGHT / high)), HEIGHT
    way = cv2.INTER_AREA if high > HEIGHT else cv2.INTER_CUBIC
    return cv2.resize(frame, size, interpolation=way), np.array([size[0] / wide, HEIGHT / high])
