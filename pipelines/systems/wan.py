"""Wan 2.1 (Wan Team, 2025, "Wan: Open and Advanced Large-Scale Video Generative Models"): a prompt becomes a video.

Read top to bottom: read the prompt (umt5.py), draw noise, lay it over a clip that is to be changed, denoise by flow
matching, decode with a causal VAE, by which 4k + 1 frames are k + 1 of latents. `sample` and `decode` need neither a
task nor a manager.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor

from pipelines import windows
from pipelines.events import DENOISING, Progress
from pipelines.media import clips
from pipelines.media.measuring import Measured
from pipelines.messages import said
from pipelines.models.classes import Network
from pipelines.models.memory import allotted, peak_bytes, remembered
from pipelines.systems import umt5
from pipelines.systems.checkpoints import Checkpoint, Checkpoints
from pipelines.systems.diffusion import DiffusersSolver, Estimate, Predict, Step, denoise, draw_noise
from pipelines.systems.engine import Engine, Generated
from pipelines.systems.prediction import EXACT, Shortcuts, prediction
from pipelines.systems.preview import Previewer, colour_map, to_uint8
from pipelines.systems.shortcuts import plan
from pipelines.systems.stable_diffusion import (
    DECODING,
    READING,
    check_picture,
    checkpoint_of,
    decode_frames,
    report_progress,
    run_facts,
    step_facts,
)
from pipelines.tasks import PoseToVideo, TextToVideo

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager


@torch.no_grad()
def generate(
    task: TextToVideo,
    models: "ModelManager",
    clip: Path | None = None,
    measured: Measured | None = None,
    checkpoints: Checkpoints | None = None,
) -> Generated:
    """Generates the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of the run.

    `clip` is the file that the task names, if it does, and `measured` what was measured of it, if that is known; of one
    with too few frames the first 4k + 1 are changed. It goes on from the `checkpoints` of its job, and keeps them.
    Raises ValueError, in words for the person who asked, where the result holds no numbers or no picture, and where the
    clip can't be read.
    """
    started, seconds = time.perf_counter(), {}
    yield Progress(READING, 0, 1)
    pictures = None
    if clip is not None:
        pictures = whole(clips.read_changed(task, clip, models.settings, measured))
        task = replace(task, frames=len(pictures))
    way = plan(task, models, "transformer")
    working_bytes, slices = working_memory(task, models, denoising_memory, way.part)
    texts = [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]
    text_states = umt5.read(texts, task, models)
    empty = models.empty(f"{task.model}/vae")
    shape = latent_shape(empty, task.frames, task.height, task.width)
    encoding_bytes = 2**28 if pictures is None else encoding_memory(empty, *shape[-2:])
    with models.lease(f"{task.model}/vae", working_bytes=encoding_bytes) as vae:
        previewer = Previewer(*latent_colours(vae), task.fps / 4)
        start = None if pictures is None else encode_clip(vae, as_clip(pictures))
    with models.lease(f"{task.model}/scheduler") as config:
        schedule = shifted(config, models.card(task.model).flow_shift)
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    began = time.perf_counter()
    with models.lease(f"{task.model}/{way.part}", working_bytes=working_bytes) as transformer:
        noise = draw_noise(shape, task.seed).to(transformer.device)
        key = models.key(f"{task.model}/{way.part}")
        checkpoint = checkpoint_of(checkpoints, "denoising", transformer, key, slices, way.sampling)
        settings = schedule, task.scheduler, task.steps, task.guidance, way.sampling, checkpoint
        skipped = task.steps - task.steps_made
        steps = sample(
            lambda states, _: network(transformer, states, slices), text_states, noise, *settings, start, skipped
        )
        step = yield from report_progress(steps, DENOISING, previewer)
        facts = run_facts(step, transformer, slices, models, SAVING) | {"approximations": way.approximations}
    seconds[DENOISING] = time.perf_counter() - began

    began = time.perf_counter()
    frames = yield from decode_frames(task, step.latents, decode, models, decoding_memory(empty, *shape[-2:]))
    seconds[DECODING] = time.perf_counter() - began
    facts |= {"seconds_by_stage": seconds} | step_facts(step, seconds[DENOISING], checkpoint)
    return frames, facts | ({} if pictures is None else {"clip_frames": len(pictures)})


# Flow matching (Lipman et al., 2023): latents are (1 - sigma) sample + sigma noise, the velocity is noise - sample


def sample(
    of: Callable[[Tensor, slice], Predict],
    text_states: Tensor,
    noise: Tensor,
    schedule: Mapping[str, Any],
    scheduler: str,
    steps: int,
    guidance: float,
    shortcuts: Shortcuts = EXACT,
    checkpoint: Checkpoint | None = None,
    clip: Tensor | None = None,
    skipped: int = 0,
    before: int = 0,
) -> Iterator[Step]:
    """Denoises `noise` (1, c, f, h, w), fp32; `of` makes the network for text states and some of the frames.

    `text_states` are those of the negative and the positive prompt (2, 512, c), or with guidance of 1 or less those of
    the prompt alone (1, 512, c). `schedule` is the checkpoint's scheduler config, as `shifted` leaves it. With a
    `checkpoint` it goes on as `denoise` does. With the scaled latents of a `clip`, as `noise` in shape, the first steps
    are `skipped`: it begins with the clip in as much noise as is left after them (Meng et al., 2021, "SDEdit"). So many
    of the frames come `before` the video's: VACE's reference pictures.
    """
    shortcuts = replace(shortcuts, window=latent_frames(shortcuts.window))
    predict = prediction(of, text_states, guidance, schedule, shortcuts, before)
    way = solver(scheduler, schedule, steps, skipped)
    if clip is not None:
        sigma = float(way.scheduler.sigmas[skipped])
        noise = (1 - sigma) * clip.to(noise.device) + sigma * noise
    return denoise(predict, noise, way, estimate(schedule), checkpoint)


def network(
    transformer: WanTransformer3DModel,
    text_states: Tensor,
    slices: int = 1,
    inputs: Callable[[int], dict[str, Tensor]] = lambda branches: {},
) -> Predict:
    """`transformer` under `text_states` (branches, 512, c): the velocity for every one of them, (branches, c, f, h, w).

    All in one batch, or with several `slices` one after the other: the same, in less memory. `inputs` makes what else
    the transformer takes for a number of branches.
    """
    parts = text_states.to(transformer.dtype).split(1 if slices > 1 else len(text_states))

    def predict(latents: Tensor, timestep: float) -> Tensor:
        latents, timesteps = latents.to(transformer.dtype), torch.as_tensor(timestep, device=latents.device)

        def velocity(states: Tensor) -> Tensor:
            count = len(states)
            taken = latents.expand(count, -1, -1, -1, -1), timesteps.expand(count), states
            return transformer(*taken, **inputs(count), return_dict=False)[0].float()

        return torch.cat([velocity(states) for states in parts])

    return predict


SAVING = "with and without the prompt one after the other: the same result, in less memory"


def shifted(config: Mapping[str, Any], shift: float) -> dict[str, Any]:
    """A checkpoint's scheduler config with `shift`, where that is not 0: how far the noise levels are moved towards
    noise, larger for larger videos (Esser et al., 2024, section 5.3.2). UniPC's config calls it flow_shift."""
    shift = shift or config.get("flow_shift") or config.get("shift") or 1.0
    return {**config, "shift": shift, "flow_shift": shift}


def solver(name: str, schedule: Mapping[str, Any], steps: int, skipped: int = 0) -> DiffusersSolver:
    """Euler's steps, or UniPC (Zhao et al., 2023) on the same noise levels, without those that are `skipped` at the
    beginning. Raises ValueError for another name."""
    trained, shift = schedule["num_train_timesteps"], shifted(schedule, 0)["shift"]
    if name == "euler":
        scheduler = FlowMatchEulerDiscreteScheduler(trained, shift=shift)
    elif name == "unipc":
        flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
        scheduler = UniPCMultistepScheduler(num_train_timesteps=trained, **flow)
    else:
        raise ValueError(said("There is no solver called {name} for this model.", name=repr(name)))
    way = DiffusersSolver(scheduler, steps)
    scheduler.set_begin_index(skipped)  # rounded timesteps do not tell the first noise levels apart
    way.timesteps = way.timesteps[skipped:]
    return way


def estimate(schedule: Mapping[str, Any]) -> Estimate:
    """The sample, by a velocity; sigma is the timestep's share of all, up to UniPC's rounding of timesteps."""
    return lambda velocity, latents, timestep: latents - timestep / schedule["num_train_timesteps"] * velocity


# Latents


def latent_frames(frames: int) -> int:
    """Of 4k + 1 frames: k + 1."""
    return windows.latent_frames(frames, 4)


def latent_shape(vae: AutoencoderKLWan, frames: int, height: int, width: int) -> tuple[int, ...]:
    """Of a clip of that many frames and pixels: (1, c, f, h, w)."""
    factor = vae.config.scale_factor_spatial
    return 1, vae.config.z_dim, latent_frames(frames), height // factor, width // factor


def whole(pictures: np.ndarray) -> np.ndarray:
    """The first 4k + 1 of pictures (F, H, W, 3), as many as there are."""
    return pictures[: 4 * (latent_frames(len(pictures)) - 1) + 1]


def as_clip(pictures: np.ndarray) -> Tensor:
    """Pictures uint8 (F, H, W, 3) as a clip (1, 3, F, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def encode_clip(vae: AutoencoderKLWan, clip: Tensor) -> Tensor:
    """The scaled latents (1, c, k + 1, h, w), fp32, of a clip (1, 3, 4k + 1, H, W) in [-1, 1]: the mean of what the VAE
    finds, not a sample.

    As `vae.encode`, which wants the whole clip on its device: a frame goes there, then k times four of them.
    """
    past: list[Any] = [None] * vae._cached_conv_counts["encoder"]  # of each convolution, which replaces its own
    found = [
        vae.encoder(clip[:, :, start:end].to(vae.device, vae.dtype), feat_cache=past, feat_idx=[0])
        for start, end in pairwise([0, *range(1, clip.shape[2] + 1, 4)])
    ]
    latents = vae.quant_conv(torch.cat(found, dim=2)).chunk(2, dim=1)[0].float()
    mean, deviation = statistics(vae, latents)
    return (latents - mean) / deviation


def decode(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[np.ndarray]:
    """The frames of scaled latents (1, c, k + 1, h, w), 4k + 1 in all, one by one: uint8 (H, W, 3), truncated."""
    for clip in decode_clips(vae, latents):
        for picture in to_uint8(clip[0].permute(1, 2, 3, 0)):
            yield picture.cpu().numpy()


def decode_clips(vae: AutoencoderKLWan, latents: Tensor) -> Iterator[Tensor]:
    """The clip of scaled latents (1, c, k + 1, h, w) in [-1, 1]: a frame (1, 3, 1, H, W), then k times four of them.

    As `vae.decode`, which keeps them all: a causal convolution needs of the past two frames of its input only. Raises
    ValueError for frames that hold no numbers or no picture.
    """
    mean, deviation = statistics(vae, latents)
    latents = vae.post_quant_conv((latents * deviation + mean).to(vae.dtype))
    past: list[Any] = [None] * vae._cached_conv_counts["decoder"]  # of each convolution, which replaces its own
    for number in range(latents.shape[2]):
        frame = latents[:, :, number : number + 1]
        clip = vae.decoder(frame, feat_cache=past, feat_idx=[0], first_chunk=number == 0).float()
        check_picture(clip)
        yield clip.clamp(-1, 1)


def statistics(vae: AutoencoderKLWan, latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the VAE's latents, for each channel: (1, c, 1, 1, 1), where `latents` are."""
    mean, deviation = (
        torch.tensor(values, device=latents.device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, deviation


def latent_colours(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    """The linear map from latents to colours that previews are made with, fitted on smooth random still pictures."""
    coarse = torch.randn((4, vae.config.z_dim, 4, 4), generator=torch.Generator().manual_seed(0))
    latents = F.interpolate(coarse, size=(16, 16), mode="bicubic").to(vae.device)
    mean, deviation = statistics(vae, latents)
    scaled = (latents[:, :, None] * deviation + mean).to(vae.dtype)  # (4, c, 1, 16, 16)
    pictures = torch.cat([vae.decode(one[None], return_dict=False)[0] for one in scaled])  # (4, 3, 1, H, W)
    return colour_map(latents, pictures[:, :, 0].float().nan_to_num())


# Memory


def working_memory(
    task: TextToVideo | PoseToVideo,
    models: "ModelManager",
    denoising_memory: Callable[..., int],
    part: str,
    before: int = 0,
) -> tuple[int, int]:
    """What denoising takes beside the weights, in bytes, and in how many slices, as stable_diffusion.working_memory
    does for a VAE that compresses space only. So many frames of latents come `before` those of the video."""
    transformer, vae = models.empty(f"{task.model}/{part}"), models.empty(f"{task.model}/vae")
    branches, limits = 2 if task.guidance > 1 else 1, models.card(task.model).limits

    def needs(frames: int, width: int, height: int, slices: int) -> int:
        seen = limits.window_of(frames, width, height) or frames
        latents, *size = latent_shape(vae, seen, height, width)[2:]
        return denoising_memory(transformer, branches, before + latents, *size, slices)

    return allotted(task, models, needs, part)


@remembered
def denoising_memory(
    transformer: WanTransformer3DModel, branches: int, frames: int, height: int, width: int, slices: int
) -> int:
    """Bytes that one step takes beside the weights; frames, height and width of the latents."""
    latents = torch.empty(1, transformer.config.in_channels, frames, height, width, device="meta")
    texts = torch.empty(branches, umt5.MAX_TOKENS, transformer.config.text_dim, device="meta")
    timestep: Any = torch.empty((), device="meta")
    return peak_bytes(lambda: network(transformer, texts, slices)(latents, timestep))


@remembered
def decoding_memory(vae: AutoencoderKLWan, height: int, width: int) -> int:
    """Bytes that decoding takes beside the weights: what three frames of latents take, as more keep no more."""
    latents = torch.empty(1, vae.config.z_dim, 3, height, width, device="meta", dtype=vae.dtype)

    def work() -> None:
        past: list[Any] = [None] * vae._cached_conv_counts["decoder"]
        for number in range(3):
            vae.decoder(latents[:, :, number : number + 1], feat_cache=past, feat_idx=[0], first_chunk=number == 0)

    return peak_bytes(work)


@remembered
def encoding_memory(vae: AutoencoderKLWan, height: int, width: int) -> int:
    """Bytes that encoding a clip takes beside the weights: what nine frames take, as more keep no more. Height and
    width of the latents."""
    factor = vae.config.scale_factor_spatial
    clip = torch.empty(1, 3, 9, factor * height, factor * width, device="meta", dtype=vae.dtype)
    return peak_bytes(lambda: encode_clip(vae, clip))


# Loading


def with_positions(transformer: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The table of positions is in no file: it is made anew."""
    config = transformer.config
    transformer.rope = WanRotaryPosEmbed(config.attention_head_dim, config.patch_size, config.rope_max_seq_len)
    return weights


# As diffusers keeps them.
EXACT_PARTS = "rope", "time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"


ENGINE = Engine(
    generate={TextToVideo: generate},
    parts=("tokenizer", "scheduler", "text_encoder", "vae", "transformer"),
    encode=umt5.encode,
    network=network,
    denoising_memory=denoising_memory,
    solver=solver,
    decode=decode,
    classes={
        "WanTransformer3DModel": Network(
            WanTransformer3DModel.from_config, complete=with_positions, bfloat16=True, exact=EXACT_PARTS
        ),
        "AutoencoderKLWan": Network(AutoencoderKLWan.from_config, bfloat16=True),
        "UMT5EncoderModel": Network(umt5.build, complete=umt5.with_words, bfloat16=True),
    },
)
