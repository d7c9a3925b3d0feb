"""Tune-A-Video (Wu et al., 2023): a prompt edits a clip, by a network that was tuned on the clip (tuning.py).

Read top to bottom: read the prompt, find the noise that leads back to the clip, denoise from there under the new
prompt, decode. `encode_clip`, `invert` and `sample` need neither a task nor a manager; scripts/parity holds them
against the original. `decode` is ModelScope's: both programs truncate.
"""

import time
from collections.abc import Generator, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from pipelines.events import DENOISING, Preview, Progress
from pipelines.messages import said
from pipelines.models.convert import tuned as files
from pipelines.models.convert.tuned import Tuned
from pipelines.models.memory import peak_bytes, remembered
from pipelines.models.networks.inflated_unet import EditingUNet, InflatedUNet
from pipelines.models.tokens import MAX_TOKENS
from pipelines.systems.checkpoints import Checkpoint, Checkpoints
from pipelines.systems.diffusion import (
    Predict,
    Step,
    denoise,
    draw_noise,
    estimate_from_noise,
    image_solver,
    inversion,
    noise_from,
)
from pipelines.systems.modelscope import decode
from pipelines.systems.prediction import EXACT, Shortcuts, prediction, windowed
from pipelines.systems.shortcuts import plan
from pipelines.systems.stable_diffusion import (
    DECODING,
    READING,
    checkpoint_of,
    decode_frames,
    prepare,
    report_progress,
    run_facts,
    step_facts,
    working_memory,
)
from pipelines.tasks import Edit

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager

INVERTING = said("Inverting the clip")


@torch.no_grad()
def generate(
    task: Edit, models: "ModelManager", tuned: Path | None = None, checkpoints: Checkpoints | None = None
) -> Generator[Progress | Preview, None, tuple[np.ndarray, dict[str, Any]]]:
    """Generates the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of the run.

    `tuned` is the folder of what was tuned on a clip; a model that is published as tuned has none, and starts from
    noise. It goes on from the `checkpoints` of its job, and keeps them. Raises ValueError, in words for the person who
    asked, where the tuned model is damaged or was made from another base, and where the result holds no numbers or no
    picture.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    yield Progress(READING, 0, 1)
    model = load(tuned, models.key(f"{task.model}/inflated_unet")) if tuned else None
    way = plan(task, models, "inflated_unet")
    denoising_bytes, slices = working_memory(task, models, denoising_memory, way.part, way.bytes)
    texts = ["", task.negative_prompt, task.prompt]
    all_states, previewer, factor, channels, schedule = prepare(task, texts, models)
    empty, text_states = all_states[:1], all_states[1:] if task.guidance > 1 else all_states[2:]  # (1 or 2, tokens, c)
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    height, width = task.height // factor, task.width // factor
    with models.lease(f"{task.model}/{way.part}", working_bytes=denoising_bytes) as unet, ExitStack() as stack:
        latents = draw_noise((1, channels, task.frames, height, width), task.seed).to(unet.device)
        key = f"{models.key(f'{task.model}/{way.part}')}, {model.steps if model else 0} steps of tuning"
        if model and tuned:
            stack.enter_context(applied(unet, model.delta))
            began = time.perf_counter()
            if task.strength < 1:
                # A LoRA's few steps would not lead back: it gets the noise that the usual ones find.
                steps = models.card(task.model).defaults.steps if way.lora else task.steps
                inverting = checkpoint_of(checkpoints, "inverting", unet, key, 1)
                window = way.sampling.window
                trajectory = yield from inverted(unet, empty, model, schedule, steps, tuned, inverting, window)
                latents = blend(trajectory[-1].to(unet.device), latents, task.strength)
            seconds[INVERTING] = time.perf_counter() - began
        began = time.perf_counter()
        settings = (way.schedule(schedule), task.scheduler, task.steps, task.guidance, slices)
        checkpoint = checkpoint_of(checkpoints, "denoising", unet, key, slices, way.sampling)
        steps = sample(way.network(unet), text_states, latents, *settings, None, way.sampling, task.seed, checkpoint)
        step = yield from report_progress(steps, DENOISING, previewer)
        seconds[DENOISING] = time.perf_counter() - began
        facts = run_facts(step, unet, slices, models) | {"approximations": way.approximations}

    began = time.perf_counter()
    frames = yield from decode_frames(task, step.latents, decode, models)
    seconds[DECODING] = time.perf_counter() - began
    facts |= {"seconds_by_stage": seconds} | step_facts(step, seconds[DENOISING], checkpoint)
    return frames, facts


def load(folder: Path, base: str) -> Tuned:
    """What was tuned in `folder`. Raises ValueError where it is damaged, or was not made from the UNet of this key."""
    tuned = files.load(folder)
    if tuned.facts.get("base") != base:
        raise ValueError(
            said("This was tuned from another model, or that model has changed since. Tune on the clip again.")
        )
    return tuned


def inverted(
    unet: InflatedUNet,
    empty: Tensor,
    tuned: Tuned,
    schedule: Mapping[str, Any],
    steps: int,
    folder: Path,
    checkpoint: Checkpoint | None = None,
    window: int = 0,
) -> Generator[Progress, None, Tensor]:
    """The latents, (steps + 1, 1, c, f, h, w), on the way from the clip to noise: read from `folder`, or computed and
    saved there. It goes on from the `checkpoint`, if there is one.

    `unet` holds the tuned parameters, `empty` are the states of the empty prompt. `window` is that of `invert`.
    """
    trajectory = files.load_inversion(steps, folder, unet.dtype)
    if trajectory is not None:
        return trajectory
    computed, begin = [], tuned.latents
    if checkpoint and (kept := checkpoint.restore(begin)):
        *computed, begin = (latents.clone() for latents in kept.latents.cpu())
    try:
        settings = schedule, steps, 1, len(computed), window
        for latents in invert(unet, empty, begin.to(unet.device), *settings):
            computed.append(latents.cpu())
            if checkpoint and checkpoint.is_due():
                checkpoint.write(_inversion_step(computed, steps))
            yield Progress(INVERTING, len(computed) - 1, steps)
    except GeneratorExit:
        if checkpoint and computed:
            checkpoint.write(_inversion_step(computed, steps))
        raise
    trajectory = torch.stack(computed)
    files.save_inversion(trajectory, folder, unet.dtype)
    return trajectory


def _inversion_step(computed: list[Tensor], steps: int) -> Step:
    return Step(len(computed) - 1, steps, torch.stack(computed), computed[-1])


@contextmanager
def applied(unet: InflatedUNet, delta: MutableMapping[str, Tensor], trainable: bool = False) -> Iterator[None]:
    """The shared `unet` with the parameters in `delta` instead of its own, as long as the context lasts.

    To be trained they are fp32, and training changes the tensors of `delta` themselves.
    """
    own: dict[str, nn.Parameter] = {}
    try:
        for name, tensor in delta.items():
            module, _, leaf = name.rpartition(".")
            own[name] = unet.get_parameter(name)
            dtype = torch.float32 if trainable else own[name].dtype
            new = nn.Parameter(tensor.to(own[name].device, dtype), requires_grad=trainable)
            setattr(unet.get_submodule(module), leaf, new)
            if trainable:
                delta[name] = new.data
        yield
    finally:
        for name, parameter in own.items():
            module, _, leaf = name.rpartition(".")
            setattr(unet.get_submodule(module), leaf, parameter)


def blend(inverted: Tensor, noise: Tensor, strength: float) -> Tensor:
    """Between an inverted clip (0) and plain noise (1), with the variance of noise all the way."""
    return (1 - strength**2) ** 0.5 * inverted + strength * noise


def encode_clip(vae: AutoencoderKL, frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the scaled latents of `frames`, uint8 (f, H, W, 3): two of (1, c, f, h, w), fp32.

    H and W must be multiples of the VAE's factor. Frame by frame, to save memory.
    """
    means, deviations = [], []
    for frame in frames:
        picture = torch.from_numpy(np.ascontiguousarray(frame)).to(vae.device, torch.float32) / 127.5 - 1  # (H, W, 3)
        posterior = vae.encode(picture.permute(2, 0, 1)[None].to(vae.dtype)).latent_dist
        means.append(posterior.mean[0].float())
        deviations.append(posterior.std[0].float())
    factor = vae.config.scaling_factor
    return torch.stack(means, dim=1)[None] * factor, torch.stack(deviations, dim=1)[None] * factor


def invert(
    unet: InflatedUNet,
    empty_states: Tensor,
    latents: Tensor,
    schedule: Mapping[str, Any],
    steps: int,
    slices: int = 1,
    done: int = 0,
    window: int = 0,
) -> Iterator[Tensor]:
    """DDIM inversion of `latents` (1, c, f, h, w), fp32: steps + 1 latents, of which the last one is the noise.

    `empty_states` are those of the empty prompt (1, tokens, c); there is no guidance. `schedule` is the checkpoint's
    scheduler config. Of a network that predicts velocities the published code takes them for noise; here they are not.
    With some of the steps `done` already, `latents` are what they have led to. The network sees `window` frames at
    once, and with 0 all.
    """
    network = EditingUNet(unet, empty_states.to(unet.dtype), slices)

    def predict(latents: Tensor, timestep: float) -> Tensor:
        return network(latents.to(unet.dtype), timestep).float()

    return inversion(noise_from(windowed(lambda frames: predict, window), schedule), latents, schedule, steps, done)


def sample(
    unet: InflatedUNet,
    text_states: Tensor,
    latents: Tensor,
    schedule: Mapping[str, Any],
    scheduler: str,
    steps: int,
    guidance: float,
    slices: int = 1,
    pose_features: list[Tensor] | None = None,
    shortcuts: Shortcuts = EXACT,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Step]:
    """Denoises `latents` (1, c, f, h, w), fp32: an inverted clip, or noise.

    `text_states` are those of the negative and the positive prompt (2, tokens, c), or with guidance of 1 or less those
    of the prompt alone (1, tokens, c). `schedule` is the checkpoint's scheduler config, `scheduler` a key of
    diffusion.image_solver. `pose_features` are FollowYourPose's; `seed` is that of the noise. With a
    `checkpoint` it goes on as `denoise` does.
    """

    def network(states: Tensor, frames: slice) -> Predict:
        features = None if pose_features is None else [feature[:, :, frames] for feature in pose_features]
        network = EditingUNet(unet, states.to(unet.dtype), slices, features, caching=shortcuts.caching)
        return lambda latents, timestep: network(latents.to(unet.dtype), timestep).float()

    predict = prediction(network, text_states, guidance, schedule, shortcuts)
    solver = image_solver(scheduler, schedule, steps, seed)
    return denoise(noise_from(predict, schedule), latents, solver, estimate_from_noise(schedule), checkpoint)


@remembered
def denoising_memory(unet: InflatedUNet, branches: int, frames: int, height: int, width: int, slices: int) -> int:
    """Bytes that one step takes beside the weights; `unet` without weights, height and width of the latents."""
    latents = torch.empty(1, unet.config.in_channels, frames, height, width, device="meta")
    texts = torch.empty(branches, MAX_TOKENS, unet.config.cross_attention_dim, device="meta", dtype=unet.dtype)
    network = EditingUNet(unet, texts, slices)
    timestep = torch.empty(1, device="meta")
    return peak_bytes(lambda: network(latents.to(unet.dtype), timestep).float())
