"""What each shortcut saves, and how far its video is from the exact one: denoising alone, in processor time."""

import argparse
import time
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np

from scripts.benchmark.measure import STABLE_DIFFUSION, device_name, flops, now, on_meta, random_component
from scripts.benchmark.studio import PROMPT

MINIATURES = ("miniature-modelscope", "miniature-tempofunk", "miniature-followyourpose")
FULL = "modelscope-1.7b"
VARIANTS = {
    "caching, every 2 steps": {"caching": 2},
    "caching, every 3 steps": {"caching": 3},
    "guidance up to 0.8 of the way": {"guided_until": 0.8},
    "guidance from 0.2 of the way": {"guided_from": 0.2},
    "caching every 2, guidance up to 0.8": {"caching": 2, "guided_until": 0.8},
    "bfloat16": {"precision": "fast"},
}
FEW = "4 steps without guidance, as with a LoRA"


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Runs each variant of each model next to the exact one, and returns the table."""
    from pipelines.catalog import CATALOG
    from pipelines.models import loading
    from pipelines.models.manager import ModelManager
    from pipelines.settings import Settings

    cards = [CATALOG[name] for name in (MINIATURES if options.size == "miniature" else (FULL,))]
    component = random_component if options.weights == "random" else loading.component
    models = ModelManager({card.name: card for card in cards}, Settings(device=options.device), component=component)
    rows = [("device", f"{device_name(models.device)}, {models.dtype}, {options.weights} weights")]
    rows += chain.from_iterable(_rows(card, options, models) for card in cards)
    return rows + list(arithmetic())


def _rows(card, options, models):
    from pipelines.tasks import PoseToVideo, TextToVideo

    given = ("frames", "width", "height", "steps", "scheduler")
    settings = {name: value for name in given if (value := getattr(options, name)) is not None}
    if card.kind == "pose-to-video":
        exact = PoseToVideo.for_model(card, PROMPT, 7, motion="wave", **settings)
    else:
        exact = TextToVideo.for_model(card, PROMPT, 7, **settings)
    _denoised(replace(exact, steps=2), models)  # to warm up
    shape = f"{exact.frames} frames of {exact.width}x{exact.height}, {exact.steps} steps"
    yield card.name, f"{shape} of {exact.scheduler}, guidance {exact.guidance:g}"
    for name, change in VARIANTS.items():
        if "precision" in change and models.faster("unet") == "unet":
            yield f"  {name}", "not measured: this processor has no such arithmetic"
            continue
        wanted, plainly = _denoised(exact, models)
        found, seconds = _denoised(replace(exact, **change), models)
        error = np.square(found.astype(np.float64) - wanted).mean()
        yield f"  {name}", f"{plainly / seconds:.2f} times as fast, {10 * np.log10(255**2 / error):.1f} dB"
    _, seconds = _denoised(replace(exact, steps=4, guidance=1.0), models)
    yield f"  {FEW}", f"{plainly / seconds:.1f} times as fast"


def _denoised(task, models) -> tuple[np.ndarray, float]:
    """The frames of `task`, and the seconds of processor, or on a GPU of the clock, that its denoising took."""
    from pipelines.events import DENOISING
    from pipelines.systems.engine import find_engine
    from pipelines.systems.stable_diffusion import READING

    def clock() -> float:
        return now(models.device) if models.device.type == "cuda" else time.process_time()

    job = find_engine(models.card(task.model).system).generate[type(task)](task, models)
    began = ended = 0.0
    while True:
        try:
            event = next(job)
        except StopIteration as end:
            return end.value[0], ended - began
        if getattr(event, "stage", None) == READING:
            began = clock()
        elif getattr(event, "stage", None) == DENOISING:
            ended = clock()


def arithmetic():
    """How much less a step computes at full size where it reuses deep features: counted, not run."""
    import torch
    from diffusers import UNet3DConditionModel

    from pipelines.models.networks.inflated_unet import EditingUNet, InflatedUNet
    from pipelines.models.networks.pseudo3d_unet import Pseudo3DUNet, build_pseudo3d_unet
    from pipelines.models.networks.unet3d import TextToVideoUNet

    full = {
        "ModelScope": (UNet3DConditionModel, TextToVideoUNet, 1024, 4),
        "Stable Diffusion 1.x, inflated": (lambda: InflatedUNet(STABLE_DIFFUSION), EditingUNet, 768, 4),
        "TempoFunk": (lambda: build_pseudo3d_unet({}), Pseudo3DUNet, 768, 9),
    }
    for name, (build, kind, width, channels) in full.items():
        unet = on_meta(build)
        with torch.no_grad(), torch.device("meta"):
            network = kind(unet, torch.empty(2, 77, width), caching=2)
            latents = torch.empty(1, channels, 16, 32, 32)
            whole, shallow = (flops(partial(network, latents, 1)) for _ in range(2))
        yield f"a cached step of {name} at full size", f"{shallow / whole:.1%} of the arithmetic of a whole one"
