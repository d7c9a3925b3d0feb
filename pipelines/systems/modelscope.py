"""ModelScope text-to-video (Wang et al., 2023, "ModelScope Text-to-Video Technical Report"): a prompt becomes a video.

Read top to bottom: encode the prompt, draw noise, denoise, decode. `sample` and `decode` are the parts that need
neither a task nor a manager; scripts/parity holds them against the original.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from torch import Tensor

from pipelines.events import DENOISING, Preview, Progress
from pipelines.models.memory import peak_bytes, remembered
from pipelines.models.networks.unet3d import TextToVideoUNet
from pipelines.models.tokens import MAX_TOKENS
from pipelines.systems.checkpoints import Checkpoint, Checkpoints
from pipelines.systems.diffusion import Predict, Step, denoise, draw_noise, estimate_from_noise, solver
from pipelines.systems.engine import Engine
from pipelines.systems.prediction import EXACT, Shortcuts, prediction
from pipelines.systems.preview import to_uint8
from pipelines.systems.shortcuts import plan
from pipelines.systems.stable_diffusion import (
    DECODING,
    READING,
    checkpoint_of,
    decode_frames,
    decode_pictures,
    encode,
    prepare,
    report_progress,
    run_facts,
    step_facts,
    working_memory,
)
from pipelines.tasks import TextToVideo

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager


@torch.no_grad()
def generate(
    task: TextToVideo, models: "ModelManager", checkpoints: Checkpoints | None = None
) -> Generator[Progress | Preview, None, tuple[np.ndarray, dict[str, Any]]]:
    """Generates the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of the run.

    It goes on from the `checkpoints` of its job, and keeps them. Raises ValueError, in words for the person who asked,
    where the result holds no numbers or no picture.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    yield Progress(READING, 0, 1)
    way = plan(task, models)
    denoising_bytes, slices = working_memory(task, models, denoising_memory, way.part, way.bytes)
    texts = [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]
    text_states, previewer, factor, channels, schedule = prepare(task, texts, models)
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    height, width = task.height // factor, task.width // factor
    with models.lease(f"{task.model}/{way.part}", working_bytes=denoising_bytes) as leased:
        unet, schedule = way.network(leased), way.schedule(schedule)
        noise = draw_noise((1, channels, task.frames, height, width), task.seed).to(unet.device)
        began = time.perf_counter()
        settings = (schedule, task.scheduler, task.steps, task.guidance, slices, way.sampling, task.seed)
        key = models.key(f"{task.model}/{way.part}")
        checkpoint = checkpoint_of(checkpoints, "denoising", unet, key, slices, way.sampling)
        steps = sample(unet, text_states, noise, *settings, checkpoint)
        step = yield from report_progress(steps, DENOISING, previewer)
        seconds[DENOISING] = time.perf_counter() - began
        facts = run_facts(step, unet, slices, models) | {"approximations": way.approximations}

    began = time.perf_counter()
    frames = yield from decode_frames(task, step.latents, decode, models)
    seconds[DECODING] = time.perf_counter() - began
    facts |= {"seconds_by_stage": seconds} | step_facts(step, seconds[DENOISING], checkpoint)
    return frames, facts


def sample(
    unet: UNet3DConditionModel,
    text_states: Tensor,
    noise: Tensor,
    schedule: Mapping[str, Any],
    scheduler: str,
    steps: int,
    guidance: float,
    slices: int = 1,
    shortcuts: Shortcuts = EXACT,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Step]:
    """Denoises `noise` (1, c, f, h, w), fp32.

    `text_states` are those of the negative and the positive prompt (2, tokens, c), or with guidance of 1 or less those
    of the prompt alone (1, tokens, c). `schedule` is the checkpoint's scheduler config; `seed` is that of `noise`. With
    a `checkpoint` it goes on as `denoise` does.
    """

    def network(states: Tensor, frames: slice) -> Predict:
        network = TextToVideoUNet(unet, states.to(unet.dtype), slices, shortcuts.caching)
        return lambda latents, timestep: network(latents.to(unet.dtype), timestep).float()

    predict = prediction(network, text_states, guidance, schedule, shortcuts)
    way = solver(scheduler, schedule, steps, seed)
    return denoise(predict, noise, way, estimate_from_noise(schedule), checkpoint)


def decode(vae: AutoencoderKL, latents: Tensor) -> Iterator[np.ndarray]:
    """The frames of scaled latents (1, c, f, h, w), one by one: uint8 (H, W, 3), truncated and not rounded."""
    for picture in decode_pictures(vae, latents):
        yield to_uint8(picture.permute(1, 2, 0)).cpu().numpy()


@remembered
def denoising_memory(
    unet: UNet3DConditionModel, branches: int, frames: int, height: int, width: int, slices: int
) -> int:
    """Bytes that one step takes beside the weights; `unet` without weights, height and width of the latents."""
    latents = torch.empty(1, unet.config.in_channels, frames, height, width, device="meta")
    texts = torch.empty(branches, MAX_TOKENS, unet.config.cross_attention_dim, device="meta", dtype=unet.dtype)
    network = TextToVideoUNet(unet, texts, slices)
    timestep = torch.empty(1, device="meta")
    return peak_bytes(lambda: network(latents.to(unet.dtype), timestep).float())


ENGINE = Engine(
    generate={TextToVideo: generate},
    parts=("tokenizer", "scheduler", "text_encoder", "vae", "unet"),
    encode=encode,
    network=TextToVideoUNet,
    denoising_memory=denoising_memory,
    solver=solver,
    decode=decode,
)
