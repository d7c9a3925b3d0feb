"""FollowYourPose: steps of sampling, with all savings and without each of them, and how fast poses are found.

On a CPU the full-size network is counted only, in the half precision of a GPU.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from pipelines.cards import Source
from pipelines.catalog import CATALOG
from pipelines.detectors import DETECTORS
from pipelines.events import DENOISING, Progress
from pipelines.models import loading
from pipelines.models.convert import openpose
from pipelines.models.manager import ModelManager
from pipelines.models.memory import peak_bytes
from pipelines.models.networks.inflated_unet import EditingUNet
from pipelines.poses import detection
from pipelines.settings import Settings
from pipelines.systems import followyourpose
from pipelines.tasks import PoseToVideo
from scripts.benchmark.measure import best_product, device_name, flops, median_gap, now, random_component
from scripts.benchmark.tuneavideo import REPEATS, SAVINGS, describe, inputs
from scripts.miniature.world import draw_clip, sample_words

CARDS = {"miniature": "miniature-followyourpose", "full": "followyourpose-v1"}
STEPS = 20
ENLARGED = 4  # times: the drawn clip in which people are looked for


class FeaturesInEveryStep(EditingUNet):
    """Computes the skeletons' features in every step and for both branches, as the published program does."""

    def __call__(self, latents, timestep):
        _, _, frames, height, width = latents.shape
        skeletons = torch.zeros(1, frames, 3, 8 * height, 8 * width, device=latents.device, dtype=latents.dtype)
        for _ in range(2):
            features = self.unet.skeleton_adapter(skeletons)
        self.pose = [feature.transpose(1, 2).flatten(0, 1) for feature in features]
        return super().__call__(latents, timestep)


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Runs everything and returns the table: what, and how much."""
    card = CATALOG[CARDS[options.size]]
    component = random_component if options.weights == "random" or options.size == "full" else loading.component
    models = ModelManager({card.name: card}, Settings(device=options.device), component=component)
    size = {name: getattr(options, name) or getattr(card.defaults, name) for name in ("frames", "width", "height")}
    steps = options.steps or STEPS
    task = PoseToVideo.for_model(card, "a robot in blue on the beach", 7, motion="wave", steps=steps, **size)
    rows = [
        ("model", f"{card.name}, {'real' if component is loading.component else 'random'} weights"),
        ("task", f"{task.frames} frames of {task.width}x{task.height}"),
    ]
    timed, peak = options.size == "miniature" or models.device.type == "cuda", None
    if timed:
        moments = []
        for event in models.attempt(partial(followyourpose.generate, task, models)):
            if isinstance(event, Progress) and event.stage == DENOISING:
                moments.append(now(models.device))
        peak = best_product(models.device, models.dtype)
        rows += [
            ("device", f"{device_name(models.device)}, {models.dtype}"),
            ("best matrix product here", f"{peak / 1e12:.3f} TFLOP/s"),
            ("a step in the app", f"{median_gap(moments):.4f} s (median)"),
            ("peak memory", f"{models.peak_bytes() / 1e9:.2f} GB"),
        ]
    networks = {"a sampling step": EditingUNet}
    networks |= {f"… without {name}": network for name, network in SAVINGS.items()}
    networks["… without the skeletons' features once a job"] = FeaturesInEveryStep
    rows += [(name, describe(*one_step(network, task, models, timed), peak)) for name, network in networks.items()]
    return rows + (finding(options.device) if timed else [])


@torch.no_grad()
def one_step(
    network: type[EditingUNet], task: PoseToVideo, models: ModelManager, timed: bool
) -> tuple[int, int, float | None]:
    """FLOP of a guided step, bytes beside the weights and, where it is `timed`, seconds."""
    part = f"{task.model}/inflated_unet"

    def ready(unet):
        latents, texts = inputs(unet, task, models, branches=2)
        skeletons = torch.zeros(1, task.frames, 3, task.height, task.width)
        predict = network(unet, texts, pose_features=followyourpose.pose_features(unet, skeletons.to(unet.device)))
        return lambda: predict(latents, torch.ones(1, device=unet.device))

    empty = models.empty(part)
    step = ready(empty if timed else empty.half())
    operations, memory = flops(step), peak_bytes(step)
    if not timed:
        return operations, memory, None
    with models.lease(part) as unet:
        step, moments = ready(unet), []
        for _ in range(REPEATS + 2):
            step()
            moments.append(now(models.device))
    return operations, memory, median_gap(moments)


def finding(device: str) -> list[tuple[str, str]]:
    """How many frames a second poses are found in, by every detector; OpenPose's weights are random."""
    from controlnet_aux.open_pose.model import bodypose_model

    rng = np.random.default_rng(7)
    frames = draw_clip(sample_words(rng), rng).frames.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    rows = []
    with TemporaryDirectory(prefix="marionette-") as folder:
        weights = {name.partition(".")[2]: tensor for name, tensor in bodypose_model().state_dict().items()}
        torch.save(weights, Path(folder) / openpose.FILE)
        settings = Settings(device=device, hub=False, cache=Path(folder) / "cache")
        detectors = {**DETECTORS, "openpose": replace(DETECTORS["openpose"], source=Source(folder))}
        models = ModelManager(CATALOG, settings, detectors=detectors)
        for name, detector in detectors.items():
            moments = []
            for event in detection.find(frames, 8, name, models):
                if event.stage == detection.FINDING:
                    moments.append(now(models.device))
            speed = (len(moments) - 1) / (moments[-1] - moments[0])
            rows.append(
                (
                    f"poses by {detector.title}",
                    f"{speed:.2f} drawn frames of {frames.shape[2]}x{frames.shape[1]} a second",
                )
            )
    return rows
