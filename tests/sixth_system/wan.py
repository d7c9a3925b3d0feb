"""Wan 2.2 (Wan Team, 2025, "Wan: Open and Advanced Large-Scale Video Generative Models"): a prompt becomes a video.

Read top to bottom: read the prompt (T5), draw noise, denoise by flow matching with one transformer for high noise and
one for low noise, decode with a VAE that compresses time (4k + 1 frames are k + 1 of latents).
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor
from transformers import PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from pipelines.events import DENOISING, Progress
from pipelines.models.classes import Network
from pipelines.models.memory import allotted, peak_bytes, remembered
from pipelines.systems.checkpoints import Checkpoints
from pipelines.systems.diffusion import DiffusersSolver, Estimate, Predict, denoise, draw_noise, guided
from pipelines.systems.engine import Engine, Generated
from pipelines.systems.preview import Previewer, colour_map, to_uint8
from pipelines.systems.stable_diffusion import (
    DECODING,
    READING,
    decode_frames,
    report_progress,
    run_facts,
    step_facts,
)
from pipelines.tasks import TextToVideo

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager

MAX_TOKENS = 512  # of T5
BOUNDARY = 0.875  # the share of the noise from which on the low-noise transformer takes over


@torch.no_grad()
def generate(task: TextToVideo, models: "ModelManager", checkpoints: Checkpoints | None = None) -> Generated:
    """Generates the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of the run.

    Raises ValueError, in words for the person who asked, where the result holds no numbers or no picture.
    """
    started, seconds = time.perf_counter(), {}
    yield Progress(READING, 0, 1)
    transformer, vae = models.empty(f"{task.model}/transformer"), models.empty(f"{task.model}/vae")
    branches, scale = 2 if task.guidance > 1 else 1, vae.config.scale_factor_spatial

    def needs(frames: int, width: int, height: int, slices: int) -> int:
        return denoising_memory(transformer, branches, latent_frames(frames), height // scale, width // scale, slices)

    working_bytes, slices = allotted(task, models, needs, "transformer")
    texts = [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]
    with models.lease(f"{task.model}/tokenizer") as tokenizer, models.lease(f"{task.model}/text_encoder") as encoder:
        text_states = encode(texts, tokenizer, encoder)
    with models.lease(f"{task.model}/vae", working_bytes=2**28) as vae:
        previewer = Previewer(*latent_colours(vae), task.fps / 4)
    with models.lease(f"{task.model}/scheduler") as schedule:
        pass
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    began = time.perf_counter()
    shape = (1, vae.config.z_dim, latent_frames(task.frames), task.height // scale, task.width // scale)
    with ExitStack() as stack:
        experts = Experts(task, models, text_states, working_bytes, schedule, stack)
        noise = draw_noise(shape, task.seed).to(models.device)
        predict = guided(experts, task.guidance) if task.guidance > 1 else experts
        keys = ", ".join(models.key(f"{task.model}/{part}") for part in ("transformer", "transformer_2"))
        checkpoint = checkpoints.of("denoising", f"{keys}, {models.device}, {slices}") if checkpoints else None
        steps = denoise(predict, noise, solver(task.scheduler, schedule, task.steps), estimate(schedule), checkpoint)
        step = yield from report_progress(steps, DENOISING, previewer)
        facts = run_facts(step, experts.module, slices, models)
    seconds[DENOISING] = time.perf_counter() - began

    began = time.perf_counter()
    decoding_bytes = decoding_memory(models.empty(f"{task.model}/vae"), *shape[2:])
    frames = yield from decode_frames(task, step.latents, decode, models, decoding_bytes)
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
        return network(self.module, self.text_states)(latents, timestep)


def encode(texts: list[str], tokenizer: PreTrainedTokenizerBase, encoder: UMT5EncoderModel) -> Tensor:
    """T5's last hidden states of each text, zeros after its end: (texts, 512, c)."""
    padding = {"padding": "max_length", "max_length": MAX_TOKENS, "truncation": True}
    tokens = tokenizer(texts, return_tensors="pt", **padding).to(encoder.device)
    states = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return states * tokens.attention_mask[..., None]


def network(module: WanTransformer3DModel, text_states: Tensor) -> Predict:
    """`module` under `text_states` (branches, tokens, c): the velocity for every one of them, in one batch."""

    def predict(latents: Tensor, timestep: float) -> Tensor:
        branches = len(text_states)
        latents = latents.to(module.dtype).expand(branches, -1, -1, -1, -1)
        timesteps = torch.as_tensor(timestep, device=latents.device).expand(branches)
        return module(latents, timesteps, text_states.to(module.dtype), return_dict=False)[0].float()

    return predict


def solver(name: str, schedule: Mapping[str, Any], steps: int) -> DiffusersSolver:
    """Flow matching (Lipman et al., 2023): Euler's steps, or UniPC on the same noise levels. Raises ValueError for
    another name."""
    if name == "euler":
        return DiffusersSolver(FlowMatchEulerDiscreteScheduler.from_config(dict(schedule)), steps)
    if name == "unipc":
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": schedule["shift"]}
        trained = schedule["num_train_timesteps"]
        return DiffusersSolver(UniPCMultistepScheduler(num_train_timesteps=trained, **flow), steps)
    raise ValueError(f"There is no solver called {name!r} for this model.")


def estimate(schedule: Mapping[str, Any]) -> Estimate:
    """The sample, by a velocity: latents are (1 - sigma) sample + sigma noise, and the velocity is noise - sample."""
    return lambda velocity, latents, timestep: latents - timestep / schedule["num_train_timesteps"] * velocity


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[np.ndarray]:
    """The frames of scaled latents (1, c, k + 1, h, w), 4k + 1 in all: uint8 (H, W, 3)."""
    for picture in to_uint8(decode_clip(vae, latents))[0].permute(1, 2, 3, 0):
        yield picture.cpu().numpy()


def decode_clip(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """The clip (1, 3, F, H, W) in [-1, 1] of scaled latents."""
    mean, deviation = (
        torch.tensor(values, device=latents.device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return vae.decode((latents * deviation + mean).to(vae.dtype), return_dict=False)[0].float()


def latent_frames(frames: int) -> int:
    return (frames - 1) // 4 + 1


def latent_colours(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    """The linear map from latents to colours that previews are made with, fitted on random still pictures."""
    shape = (vae.config.z_dim, 1, 16, 16)
    latents = torch.randn((4, *shape), generator=torch.Generator().manual_seed(0)).to(vae.device)
    pictures = torch.cat([decode_clip(vae, one[None]) for one in latents])
    return colour_map(latents[:, :, 0], pictures[:, :, 0])


@remembered
def denoising_memory(
    module: WanTransformer3DModel, branches: int, frames: int, height: int, width: int, slices: int
) -> int:
    """Bytes that one step takes beside the weights; frames, height and width of the latents. It has no slices."""
    kind = {"device": "meta", "dtype": module.dtype}
    latents = torch.empty(1, module.config.in_channels, frames, height, width, **kind)
    predict = network(module, torch.empty(branches, MAX_TOKENS, module.config.text_dim, **kind))
    return peak_bytes(lambda: predict(latents, torch.empty((), device="meta")))


@remembered
def decoding_memory(vae: AutoencoderKLWan, frames: int, height: int, width: int) -> int:
    latents = torch.empty(1, vae.config.z_dim, frames, height, width, device="meta", dtype=vae.dtype)
    return peak_bytes(lambda: vae.decode(latents).sample)


def with_positions(module: WanTransformer3DModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The table of positions is in no file: it is made anew."""
    sizes = module.config.attention_head_dim, module.config.patch_size, module.config.rope_max_seq_len
    module.rope = WanRotaryPosEmbed(*sizes)
    return weights


def with_embeddings(module: UMT5EncoderModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Files hold the table of words once, the module under two names."""
    return weights | {"encoder.embed_tokens.weight": weights["shared.weight"]}


ENGINE = Engine(
    generate={TextToVideo: generate},
    parts=("tokenizer", "scheduler", "text_encoder", "vae", "transformer", "transformer_2"),
    encode=encode,
    network=network,
    denoising_memory=denoising_memory,
    solver=solver,
    decode=decode,
    classes={
        "WanTransformer3DModel": Network(WanTransformer3DModel.from_config, complete=with_positions, bfloat16=True),
        "AutoencoderKLWan": Network(AutoencoderKLWan.from_config),
        "UMT5EncoderModel": Network(
            lambda config: UMT5EncoderModel(UMT5Config.from_dict(config)), complete=with_embeddings, bfloat16=True
        ),
    },
)
