"""Tune-A-Video: steps of tuning, inversion and sampling, each with all savings and without each of them.

On a CPU the full-size network is counted only, in the half precision of a GPU.
"""

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from pipelines import events
from pipelines.catalog import CATALOG
from pipelines.events import Progress
from pipelines.media import video
from pipelines.models import loading
from pipelines.models.manager import ModelManager
from pipelines.models.memory import backward, peak_bytes
from pipelines.models.networks.attention import attend, keys_and_values
from pipelines.models.networks.inflated_unet import EditingUNet
from pipelines.models.tokens import MAX_TOKENS
from pipelines.settings import Settings
from pipelines.systems import tuneavideo, tuning
from pipelines.systems.stable_diffusion import vae_scale_factor
from pipelines.tasks import Edit, Tune
from scripts.benchmark.measure import FLOOR, best_product, device_name, flops, median_gap, now, random_component

CARDS = {"miniature": "miniature-sd", "full": "stable-diffusion-1.4"}
STEPS = 20  # of tuning, of inversion and of sampling, by default
SAMPLING, TUNING = "a sampling step", "a tuning step, forward and backward"
REPEATS = 5  # of a step that is timed alone, after one to warm up


class TextInEveryStep(EditingUNet):
    """Makes the keys and values of the text in every step and for every frame."""

    def __init__(self, unet, text_states, **options):
        super().__init__(unet, text_states, **options)
        self.text_states = text_states

    def __call__(self, latents, timestep):
        frames = latents.shape[2]
        every = self.text_states.repeat_interleave(frames, dim=0)  # (n f, tokens, c)
        for module in self.text:
            made = keys_and_values(module.transformer_blocks[0].attn2, every)
            self.text[module] = tuple(kept[::frames].clone() for kept in made)
        return super().__call__(latents, timestep)


class BranchesApart(EditingUNet):
    """Computes both branches of the guidance from the first layer on."""

    def __call__(self, latents, timestep):
        return super().__call__(latents.expand(self.branches, -1, -1, -1, -1), timestep)


class TwoSetsOfKeys(EditingUNet):
    """Lets frames 0 and 1, too, look at two copied sets of keys."""

    def sparse_causal_attention(self, attention, states, frames):
        before = [0, *range(frames - 1)]
        kept = (kept.unflatten(0, (-1, frames)) for kept in keys_and_values(attention, states))
        key, value = (torch.cat([one[:, :1].expand_as(one), one[:, before]], dim=3).flatten(0, 1) for one in kept)
        return attend(attention, states, key, value)


SAVINGS = {  # what is done without -> the network
    "text keys once": TextInEveryStep,
    "a common start of both branches": BranchesApart,
    "one set of keys for frames 0 and 1": TwoSetsOfKeys,
}


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Runs everything and returns the table: what, and how much."""
    card = CATALOG[CARDS[options.size]]
    component = random_component if options.weights == "random" or options.size == "full" else loading.component
    models = ModelManager({card.name: card}, Settings(device=options.device), component=component)
    size = {name: getattr(options, name) or getattr(card.defaults, name) for name in ("frames", "width", "height")}
    steps = {"steps": options.steps or STEPS}
    task = Tune.for_model(card, "a person in red is dancing on the beach", 7, clip="0" * 32, **size, **steps)
    rows = [
        ("model", f"{card.name}, {'real' if component is loading.component else 'random'} weights"),
        ("task", f"{task.frames} frames of {task.width}x{task.height}, trained: {task.trained}"),
    ]

    timed = options.size == "miniature" or models.device.type == "cuda"
    peak = None
    if timed:
        edit = Edit.for_model(card, "a robot in blue is dancing on the beach", 7, tuned="0" * 32, **size, **steps)
        a_step, inverting, sampling, memory = run(task, edit, models)
        peak = best_product(models.device, models.dtype)
        rows += [
            ("device", f"{device_name(models.device)}, {models.dtype}"),
            ("best matrix product here", f"{peak / 1e12:.3f} TFLOP/s"),
            ("a tuning step in the app", f"{a_step:.4f} s (median), the optimizer's part included"),
            ("a step of the inversion in the app", f"{inverting:.4f} s (median)"),
            ("a step of an edit in the app", f"{sampling:.4f} s (median)"),
            ("peak memory of tuning and edit", f"{memory / 1e9:.2f} GB"),
        ]
    figures = dict(steps_of(task, models, timed))
    rows += [(name, describe(*found, peak)) for name, found in figures.items()]
    if options.size == "full":
        rows += floor(task, models, figures[SAMPLING][0], figures[TUNING][0])
    return rows


def run(task: Tune, edit: Edit, models: ModelManager) -> tuple[float, float, float, int]:
    """Seconds of a step of tuning, of inversion and of an edit (medians), and bytes at most, in the app's own code."""
    moments: dict[str, list[float]] = {}

    def follow(events):
        for event in models.attempt(events):
            if isinstance(event, Progress):
                moments.setdefault(event.stage, []).append(now(models.device))

    with TemporaryDirectory(prefix="marionette-") as folder:
        clip, tuned = Path(folder) / "clip.mp4", Path(folder) / "tuned"
        noise = np.random.default_rng(7).integers(0, 256, (task.frames, task.height, task.width, 3))
        video.write(noise.astype(np.uint8), clip, 8)
        follow(partial(tuning.generate, task, models, clip, tuned, Path(folder) / "source.mp4"))
        memory = models.peak_bytes()
        follow(partial(tuneavideo.generate, edit, models, tuned))
    stages = (events.TUNING, tuneavideo.INVERTING, events.DENOISING)
    return *(median_gap(moments[stage]) for stage in stages), max(memory, models.peak_bytes())


def steps_of(task: Tune, models: ModelManager, timed: bool):
    """One step at a time, by name: its FLOP, its bytes beside the weights, and where it is `timed`, its seconds."""
    part = f"{task.model}/inflated_unet"
    empty = models.empty(part).requires_grad_(False)
    if not timed:
        empty = empty.half()
    for name, (make, network, settings) in VARIANTS.items():
        step = make(empty, task, models, network, **settings)
        figures = [flops(step), peak_bytes(step)]
        if timed:
            with models.lease(part) as unet:
                step = make(unet, task, models, network, **settings)
                moments = [now(models.device)]
                for _ in range(REPEATS + 1):
                    step()
                    moments.append(now(models.device))
                figures.append(median_gap(moments[1:]))
        yield name, (*figures, *[None] * (3 - len(figures)))


def sampling_step(unet, task: Tune, models: ModelManager, network: type[EditingUNet]):
    """A guided step, ready to be made; texts are taken in before, as they are once a prompt."""
    latents, texts = inputs(unet, task, models, branches=2)
    with torch.no_grad():
        predict = network(unet, texts)

    @torch.no_grad()
    def step():
        predict(latents, torch.ones(1, device=unet.device))

    return step


def tuning_step(unet, task: Tune, models: ModelManager, network: type[EditingUNet], trained="all", checkpointing=False):
    """A forward and a backward pass, ready to be made."""
    latents, text = inputs(unet, task, models, branches=1)
    with torch.no_grad():
        predict = network(unet, text, checkpointing=checkpointing)

    @torch.enable_grad()
    def step():
        parameters = tuning.trained_parameters(unet, trained).values()
        for parameter in parameters:
            parameter.requires_grad_()
        try:
            backward(predict(latents, torch.ones(1, device=unet.device)).float().square().mean())
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False).grad = None

    return step


VARIANTS = {
    SAMPLING: (sampling_step, EditingUNet, {}),
    **{f"… without {name}": (sampling_step, network, {}) for name, network in SAVINGS.items()},
    TUNING: (tuning_step, EditingUNet, {}),
    **{
        f"… without {name} (tuning)": (tuning_step, network, {})
        for name, network in SAVINGS.items()
        if network is not BranchesApart  # tuning has one branch
    },
    "… with gradient checkpointing": (tuning_step, EditingUNet, {"checkpointing": True}),
    "… with the mid and up blocks trained alone": (tuning_step, EditingUNet, {"trained": "mid and up"}),
}


def inputs(unet, task: Tune, models: ModelManager, branches: int):
    """Latents (1, c, f, h, w) and texts (branches, tokens, c) of the task's size, where and as `unet` is."""
    factor = vae_scale_factor(models.empty(f"{task.model}/vae"))
    kind = {"device": unet.device, "dtype": unet.dtype}
    latents = torch.randn(1, unet.config.in_channels, task.frames, task.height // factor, task.width // factor, **kind)
    return latents, torch.randn(branches, MAX_TOKENS, unet.config.cross_attention_dim, **kind)


def floor(task: Tune, models: ModelManager, sampling: int, tuning_flop: int) -> list[tuple[str, str]]:
    """What a tuning and an edit with the published numbers of steps take at least.

    `sampling` and `tuning_flop` are the FLOP of a step of each.
    """
    card, vae = models.card(task.model), models.empty(f"{task.model}/vae")
    factor = vae_scale_factor(vae)
    picture = torch.empty(1, 3, task.height, task.width, device="meta", dtype=vae.dtype)
    latents = torch.empty(1, 4, task.height // factor, task.width // factor, device="meta", dtype=vae.dtype)
    with torch.no_grad():
        encoding = task.frames * flops(lambda: vae.encode(picture))
        decoding = task.frames * flops(lambda: vae.decode(latents))
    inversion = card.defaults.steps * sampling / 2  # of one branch
    whole = encoding + card.tuning.steps * tuning_flop + inversion, decoding + card.defaults.steps * sampling
    return [
        ("encoding the clip, in every step if it were not kept", f"{encoding / 1e12:.4f} TFLOP"),
        ("decoding the video", f"{decoding / 1e12:.4f} TFLOP"),
        (
            f"floor at {FLOOR / 1e12:.0f} TFLOP/s",
            f"{card.tuning.steps} steps of tuning {whole[0] / FLOOR:.1f} s, an edit {whole[1] / FLOOR:.1f} s",
        ),
    ]


def describe(operations: int, memory: int, seconds: float | None, peak: float | None) -> str:
    """Arithmetic and memory, and where it was timed, time and what share of `peak` FLOP/s it reached."""
    counted = f"{operations / 1e12:8.4f} TFLOP  {memory / 1e9:7.3f} GB beside the weights"
    if seconds is None:
        return counted
    return f"{counted}  {seconds:.4f} s  MFU {operations / seconds / peak:.1%}"
