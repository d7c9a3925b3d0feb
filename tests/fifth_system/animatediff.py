"""AnimateDiff (Guo et al., 2023, "AnimateDiff: Animate Your Personalized Text-to-Image Diffusion Models without
Specific Tuning"): Stable Diffusion with motion modules between its layers; a prompt becomes a video.

Read top to bottom: encode the prompt, draw noise, denoise, decode.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import UNetMotionModel
from torch import Tensor

from pipelines.events import DENOISING, Preview, Progress
from pipelines.models.classes import Network
from pipelines.models.memory import peak_bytes, remembered
from pipelines.models.tokens import MAX_TOKENS
from pipelines.systems.checkpoints import Checkpoint, Checkpoints
from pipelines.systems.diffusion import Predict, Step, denoise, draw_noise, estimate_from_noise, guided, image_solver
from pipelines.systems.engine import Engine
from pipelines.systems.modelscope import decode
from pipelines.systems.stable_diffusion import (
    checkpoint_of,
    decode_frames,
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

    Raises ValueError, in words for the person who asked, where the result holds no numbers or no picture.
    """
    denoising_bytes, slices = working_memory(task, models, denoising_memory)
    texts = [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]
    text_states, previewer, factor, channels, schedule = prepare(task, texts, models)

    began = time.perf_counter()
    with models.lease(f"{task.model}/unet", working_bytes=denoising_bytes) as unet:
        shape = (1, channels, task.frames, task.height // factor, task.width // factor)
        noise = draw_noise(shape, task.seed).to(unet.device)
        checkpoint = checkpoint_of(checkpoints, "denoising", unet, models.key(f"{task.model}/unet"), slices)
        steps = sample(unet, text_states, noise, schedule, task.scheduler, task.steps, task.guidance, checkpoint)
        step = yield from report_progress(steps, DENOISING, previewer)
        facts = run_facts(step, unet, slices, models)
    facts |= step_facts(step, time.perf_counter() - began, checkpoint)

    frames = yield from decode_frames(task, step.latents, decode, models)
    return frames, facts


def sample(
    unet: UNetMotionModel,
    text_states: Tensor,
    noise: Tensor,
    schedule: Mapping[str, Any],
    scheduler: str,
    steps: int,
    guidance: float,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Step]:
    """Denoises `noise` (1, c, f, h, w), fp32.

    `text_states` are those of the negative and the positive prompt (2, tokens, c), or with guidance of 1 or less those
    of the prompt alone (1, tokens, c). `schedule` is the checkpoint's scheduler config.
    """
    predict = network(unet, text_states)
    if guidance > 1:
        predict = guided(predict, guidance)
    solver = image_solver(scheduler, schedule, steps)
    return denoise(predict, noise, solver, estimate_from_noise(schedule), checkpoint)


def network(unet: UNetMotionModel, text_states: Tensor) -> Predict:
    """`unet` under `text_states` (branches, tokens, c): all branches in one batch."""

    def predict(latents: Tensor, timestep: float) -> Tensor:
        each_frame = text_states.to(unet.dtype).repeat_interleave(latents.shape[2], dim=0)  # (branches * f, tokens, c)
        latents = latents.to(unet.dtype).expand(len(text_states), -1, -1, -1, -1)
        return unet(latents, timestep, encoder_hidden_states=each_frame).sample.float()

    return predict


@remembered
def denoising_memory(unet: UNetMotionModel, branches: int, frames: int, height: int, width: int, slices: int) -> int:
    """Bytes that one step takes beside the weights; `unet` without weights, height and width of the latents."""
    latents = torch.empty(branches, unet.config.in_channels, frames, height, width, device="meta", dtype=unet.dtype)
    texts = torch.empty(branches * frames, MAX_TOKENS, unet.config.cross_attention_dim, device="meta", dtype=unet.dtype)
    timestep = torch.empty(1, device="meta")
    return peak_bytes(lambda: unet(latents, timestep, encoder_hidden_states=texts).sample.float())


ENGINE = Engine(
    generate={TextToVideo: generate},
    parts=("tokenizer", "scheduler", "text_encoder", "vae", "unet"),
    encode=encode,
    network=network,
    denoising_memory=denoising_memory,
    solver=image_solver,
    decode=decode,
    classes={"UNetMotionModel": Network(UNetMotionModel.from_config)},
)
