"""Wan 2.2 (Wan Team, 2025, "Wan: Open and Advanced Large-Scale Video Generative Models"): a prompt becomes a video.

As Wan 2.1 (pipelines/systems/wan.py), with two transformers: one for high noise, one for low.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipelines.events import DENOISING, Progress
from pipelines.systems import umt5, wan
from pipelines.systems.checkpoints import Checkpoints
from pipelines.systems.diffusion import denoise, draw_noise, guided
from pipelines.systems.engine import Engine, Generated
from pipelines.systems.preview import Previewer
from pipelines.systems.stable_diffusion import DECODING, READING, decode_frames, report_progress, run_facts, step_facts
from pipelines.tasks import TextToVideo

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager

BOUNDARY = 0.875  # the share of the noise from which on the low-noise transformer takes over


@torch.no_grad()
def generate(task: TextToVideo, models: "ModelManager", checkpoints: Checkpoints | None = None) -> Generated:
    """Generates the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of the run.

    Raises ValueError, in words for the person who asked, where the result holds no numbers or no picture.
    """
    started, seconds = time.perf_counter(), {}
    yield Progress(READING, 0, 1)
    working_bytes, slices = wan.working_memory(task, models, wan.denoising_memory, "transformer")
    texts = [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]
    text_states = umt5.read(texts, task, models)
    with models.lease(f"{task.model}/vae", working_bytes=2**28) as vae:
        previewer = Previewer(*wan.latent_colours(vae), task.fps / 4)
    with models.lease(f"{task.model}/scheduler") as schedule:
        pass
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    began = time.perf_counter()
    shape = wan.latent_shape(vae, task.frames, task.height, task.width)
    with ExitStack() as stack:
        experts = Experts(task, models, text_states, working_bytes, schedule, stack)
        noise = draw_noise(shape, task.seed).to(models.device)
        predict = guided(experts, task.guidance) if task.guidance > 1 else experts
        keys = ", ".join(models.key(f"{task.model}/{part}") for part in ("transformer", "transformer_2"))
        checkpoint = checkpoints.of("denoising", f"{keys}, {models.device}, {slices}") if checkpoints else None
        solver = wan.solver(task.scheduler, schedule, task.steps)
        steps = denoise(predict, noise, solver, wan.estimate(schedule), checkpoint)
        step = yield from report_progress(steps, DENOISING, previewer)
        facts = run_facts(step, experts.module, slices, models, wan.SAVING)
    seconds[DENOISING] = time.perf_counter() - began

    began = time.perf_counter()
    decoding_bytes = wan.decoding_memory(models.empty(f"{task.model}/vae"), *shape[3:])
    frames = yield from decode_frames(task, step.latents, wan.decode, models, decoding_bytes)
    seconds[DECODING] = time.perf_counter() - began
    facts |= {"seconds_by_stage": seconds} | step_facts(step, seconds[DENOISING], checkpoint)
    return frames, facts


class Experts:
    """The transformer in charge of a timestep: two take turns, so that one at a time is on the device."""

    def __init__(
        self,
        task: TextToVideo,
        models: "ModelManager",
        text_states: Tensor,
        working_bytes: int,
        schedule: Mapping[str, Any],
        stack: ExitStack,
    ):
        self.lease = lambda part: models.lease(f"{task.model}/{part}", working_bytes=working_bytes)
        self.text_states, self.stack = text_states, stack
        self.boundary = BOUNDARY * schedule["num_train_timesteps"]
        self.part = ""

    def __call__(self, latents: Tensor, timestep: float) -> Tensor:
        part = "transformer" if timestep >= self.boundary else "transformer_2"
        if part != self.part:
            self.stack.close()  # gives the other one back
            self.part, self.module = part, self.stack.enter_context(self.lease(part))
        return wan.network(self.module, self.text_states)(latents, timestep)


ENGINE = Engine(
    generate={TextToVideo: generate},
    parts=("tokenizer", "scheduler", "text_encoder", "vae", "transformer", "transformer_2"),
    encode=umt5.encode,
    network=wan.network,
    denoising_memory=wan.denoising_memory,
    solver=wan.solver,
    decode=wan.decode,
    classes=wan.ENGINE.classes,
)
