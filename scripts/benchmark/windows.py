"""Whether long videos hold together: the colours and the motion of videos in windows, beside those made at once."""

import argparse
import os
import time
from itertools import pairwise

import numpy as np

PROMPTS = ("a robot in blue walking in the city", "a bear in green dances in the snow", "a person in red on the moon")


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Of each system's small model: 24 frames at once, and 96 (or --frames) in windows."""
    from pipelines.catalog import CATALOG, find
    from pipelines.models.manager import ModelManager
    from pipelines.settings import Settings
    from pipelines.systems.engine import find_engine
    from pipelines.tasks import PoseToVideo, TextToVideo

    models = ModelManager(CATALOG, Settings(hub=False), device=options.device)
    rows = [("machine", f"{os.cpu_count()} cores, device {options.device}")]
    for name in ("miniature-modelscope", "miniature-tempofunk", "miniature-followyourpose"):
        card = find(name)
        kind, more = (PoseToVideo, {"motion": "wave"}) if card.kind == "pose-to-video" else (TextToVideo, {})
        for frames in (24, options.frames or 96):
            began, told = time.perf_counter(), []
            for seed, prompt in enumerate(PROMPTS):
                task = kind.for_model(card, prompt, seed, frames=frames, **more)
                told.append(_measured(_made(find_engine(card.system).generate[kind](task, models))))
            seconds = (time.perf_counter() - began) / len(PROMPTS)
            drift, steps, later = np.mean(told, axis=0)
            words = f"drift {drift:.1f} of 255; a pixel changes by {steps:.1f} a frame, {later:.1f} in half a second"
            rows.append((f"{name}, {frames} frames", f"{words}; {seconds:.0f} s"))
    return rows


def _made(events) -> np.ndarray:
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value[0].astype(np.float32)


def _measured(frames: np.ndarray) -> tuple[float, float, float]:
    """Of frames (F, H, W, 3): how far the mean colour of the last second is from that of the first, how much a pixel
    changes from frame to frame, and in four frames."""
    colours = frames.mean(axis=(1, 2))
    drift = np.abs(colours[-8:].mean(0) - colours[:8].mean(0)).mean()
    steps = np.mean([np.abs(one - other).mean() for one, other in pairwise(frames)])
    return drift, steps, np.abs(frames[4:] - frames[:-4]).mean()
