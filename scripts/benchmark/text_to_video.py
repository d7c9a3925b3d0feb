"""ModelScope and TempoFunk: two videos, and the arithmetic in them."""

import argparse
import time
from contextlib import ExitStack

from scripts.benchmark.measure import (
    FLOOR,
    STARTED,
    best_product,
    device_name,
    flops,
    median_gap,
    now,
    random_component,
)
from scripts.benchmark.studio import PROMPT, studio

CARDS = {
    ("modelscope", "miniature"): "miniature-modelscope",
    ("modelscope", "full"): "modelscope-1.7b",
    ("tempofunk", "full"): "makeavid-sd",
}


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Runs everything and returns the table: what, and how much."""
    from pipelines.catalog import CATALOG
    from pipelines.models import loading
    from pipelines.models.manager import ModelManager
    from pipelines.settings import Settings
    from pipelines.tasks import TextToVideo

    if (options.system, options.size) not in CARDS:
        raise ValueError(f"{options.system} has no {options.size} model here. Choose --size full.")
    card = CATALOG[CARDS[options.system, options.size]]
    settings = {"steps": 50, "scheduler": "ddim"} if card.name == "modelscope-1.7b" else {}
    for name in ("frames", "width", "height", "steps", "scheduler"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    task = TextToVideo.for_model(card, PROMPT, 7, **settings)
    component = random_component if options.weights == "random" else loading.component
    models = ModelManager({card.name: card}, Settings(device=options.device), component=component)

    _, step_with_warm_up = make(task, models)
    first = time.perf_counter() - STARTED
    second, step = make(task, models)
    memory = models.peak_bytes()
    ours, plain, decoding = count_flops(task, models)
    peak = best_product(models.device, models.dtype)
    floor = (task.steps * plain + task.frames * decoding) / FLOOR
    rows = [
        ("model", f"{card.name}, {options.weights} weights"),
        ("task", f"{task.frames} frames of {task.width}x{task.height}, {task.steps} steps, {task.scheduler}"),
        ("device", f"{device_name(models.device)}, {models.dtype}"),
        ("first video, with imports and loading", f"{first:.2f} s"),
        ("second video", f"{second:.2f} s"),
        ("a denoising step", f"{step:.4f} s (median; {step_with_warm_up:.4f} s in the first video)"),
        ("arithmetic of a step", f"{ours / 1e12:.4f} TFLOP ({ours / plain:.3f} of the plain network)"),
        ("arithmetic of decoding a frame", f"{decoding / 1e12:.4f} TFLOP"),
        ("best matrix product here", f"{peak / 1e12:.3f} TFLOP/s"),
        ("MFU of a step", f"{ours / step / peak:.1%}"),
        ("peak memory", f"{memory / 1e9:.2f} GB"),
    ]
    if options.size == "miniature" and options.weights == "real":
        rows += studio(Settings(device=options.device))
    if options.size == "full":
        rows.append(
            (f"floor at {FLOOR / 1e12:.0f} TFLOP/s", f"{floor:.2f} s (second video: {second / floor:.1f} times)")
        )
    asked = options.diffusers or (options.size == "full" and models.device.type == "cuda")
    if asked and options.system == "modelscope":  # diffusers has the others no longer, or never had
        theirs = step_of_diffusers(task, models)
        rows.append(("a denoising step of diffusers' pipeline", f"{theirs:.4f} s ({theirs / step:.2f} times ours)"))
    return rows


def make(task, models) -> tuple[float, float]:
    """Seconds for a video without its file, and for one denoising step (the median)."""
    from pipelines.events import DENOISING
    from pipelines.systems.engine import find_engine

    generate = find_engine(models.card(task.model).system).generate[type(task)]
    began, moments = time.perf_counter(), []
    for event in models.attempt(lambda: generate(task, models)):
        if getattr(event, "stage", None) == DENOISING:
            moments.append(now(models.device))
    return now(models.device) - began, median_gap(moments)


def step_of_diffusers(task, models) -> float:
    """Seconds of one denoising step (the median) of diffusers' own pipeline, with the same modules."""
    from diffusers import DDIMScheduler, TextToVideoSDPipeline

    moments: list[float] = []
    with ExitStack() as leases:
        names = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
        parts = {name: leases.enter_context(models.lease(f"{task.model}/{name}")) for name in names}
        pipeline = TextToVideoSDPipeline(**{**parts, "scheduler": DDIMScheduler.from_config(parts["scheduler"])})
        pipeline.set_progress_bar_config(disable=True)
        pipeline(
            task.prompt,
            num_frames=task.frames,
            width=task.width,
            height=task.height,
            num_inference_steps=task.steps,
            guidance_scale=task.guidance,
            output_type="latent",
            callback=lambda step, timestep, latents: moments.append(now(models.device)),
        )
    return median_gap(moments)


def count_flops(task, models) -> tuple[int, int, int]:
    """Floating-point operations of a guided step as it is made here, of one by the plain network, and of decoding a
    frame."""
    import torch

    from pipelines.systems.engine import find_engine

    make_network = find_engine(models.card(task.model).system).network
    with torch.no_grad(), torch.device("meta"):
        with models.lease(f"{task.model}/unet") as module:
            unet = type(module).from_config(module.config)
        with models.lease(f"{task.model}/vae") as module:
            vae = type(module).from_config(module.config)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        latents = torch.empty(1, unet.config.in_channels, task.frames, task.height // factor, task.width // factor)
        texts = torch.empty(2, 77, unet.config.cross_attention_dim)
        image = torch.empty(1, vae.config.latent_channels, *latents.shape[-2:])
        network = make_network(unet, texts)  # takes the texts in once a prompt, which is not counted
        if models.card(task.model).system == "tempofunk":
            plain = 2 * flops(lambda: make_network(unet, texts[:1])(latents, 1))  # two calls, as in the original
        else:
            plain = flops(lambda: unet(latents.expand(2, -1, -1, -1, -1), 1, texts))
        return flops(lambda: network(latents, 1)), plain, flops(lambda: vae.decode(image))
