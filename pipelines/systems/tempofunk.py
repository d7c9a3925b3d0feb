"""TempoFunk's Make-A-Video on Stable Diffusion (makeavid-sd, 2023): a prompt, and if wanted an image, become a video.

Read top to bottom: read the prompt, find the hint (the given image, or one that Stable Diffusion draws), draw noise,
denoise beside hint and mask, decode. `prepare_hint`, `hint_latents`, `latent_mask`, `sample` and `decode` need neither
a task nor a manager; scripts/parity holds them against the original. What FLAX does otherwise than PyTorch is done as
FLAX does it, in the image model too.
"""

import copy
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from pipelines.events import DENOISING, Preview, Progress
from pipelines.media import images
from pipelines.messages import said
from pipelines.models.memory import peak_bytes, remembered
from pipelines.models.networks.pseudo3d_unet import Pseudo3DUNet, UNetPseudo3DConditionModel
from pipelines.models.tokens import MAX_TOKENS
from pipelines.systems.checkpoints import Checkpoint, Checkpoints
from pipelines.systems.diffusion import DiffusersSolver, Predict, Step, denoise, draw_noise, estimate_from_noise
from pipelines.systems.engine import Engine
from pipelines.systems.prediction import EXACT, Shortcuts, prediction
from pipelines.systems.shortcuts import plan
from pipelines.systems.stable_diffusion import (
    DECODING,
    READING,
    checkpoint_of,
    decode_frames,
    decode_pictures,
    decoding_memory,
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

DRAWING = "Drawing the first image"


@torch.no_grad()
def generate(
    task: TextToVideo,
    models: "ModelManager",
    image: Path | None = None,
    mask: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> Generator[Progress | Preview, None, tuple[np.ndarray, dict[str, Any]]]:
    """Generates the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of the run.

    `image` and `mask` are the files that the task names, if it does. It goes on from the `checkpoints` of its job, and
    keeps them. Raises ValueError, in words for the person who asked, where the result holds no numbers or no
    picture, and where a file is no picture.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    yield Progress(READING, 0, 1)
    way = plan(task, models)
    denoising_bytes, slices = working_memory(task, models, denoising_memory, way.part, way.bytes)
    texts = [task.negative_prompt, task.prompt]
    text_states, previewer, factor, channels, schedule = prepare(task, texts, models)
    height, width = task.height // factor, task.width // factor
    unfollowed = torch.zeros(1, 1, height, width)  # follow the hint everywhere
    if image is not None:
        given = images.read(image, models.settings)
        unwanted = images.read(mask, models.settings, "L") if mask is not None else None
        pixels, pixel_mask = prepare_hint(given, unwanted, task.width, task.height)
        unfollowed = latent_mask(pixel_mask, (height, width))
        decoding_bytes = decoding_memory(models.empty(f"{task.model}/vae"), height, width)  # encoding takes less
        with models.lease(f"{task.model}/vae", working_bytes=decoding_bytes) as vae:
            hint = hint_latents(vae, pixels)
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    if image is None:
        began = time.perf_counter()
        drawing_bytes = image_memory(models.empty(f"{task.model}/image_unet"), height, width)
        with models.lease(f"{task.model}/image_unet", working_bytes=drawing_bytes) as unet:
            noise = draw_noise((1, channels, height, width), task.seed).to(unet.device)
            guidance = task.guidance if task.image_guidance is None else task.image_guidance
            states = text_states if guidance > 1 else text_states[1:]
            key = models.key(f"{task.model}/image_unet")
            checkpoint = checkpoint_of(checkpoints, "drawing", unet, key, 1)
            settings = (schedule, task.scheduler, task.steps, guidance)
            steps = sample(unet, states, noise, None, *settings, checkpoint=checkpoint)
            drawn = yield from report_progress(steps, DRAWING, previewer)
            hint = drawn.latents  # as they are: never decoded and encoded again
        seconds[DRAWING] = time.perf_counter() - began

    with models.lease(f"{task.model}/{way.part}", working_bytes=denoising_bytes) as unet:
        noise = draw_noise((1, channels, task.frames, height, width), task.seed).to(unet.device)
        condition = torch.cat([unfollowed.to(unet.device), hint.to(unet.device)], dim=1)  # (1, 1 + c, h, w)
        states = text_states if task.guidance > 1 else text_states[1:]
        began = time.perf_counter()
        settings = (schedule, task.scheduler, task.steps, task.guidance, slices, way.sampling)
        key = models.key(f"{task.model}/{way.part}")
        checkpoint = checkpoint_of(checkpoints, "denoising", unet, key, slices, way.sampling)
        steps = sample(unet, states, noise, condition, *settings, checkpoint)
        step = yield from report_progress(steps, DENOISING, previewer)
        seconds[DENOISING] = time.perf_counter() - began
        facts = run_facts(step, unet, slices, models)
        facts |= {"first_image": "drawn" if image is None else "given", "approximations": way.approximations}

    began = time.perf_counter()
    frames = yield from decode_frames(task, step.latents, decode, models)
    seconds[DECODING] = time.perf_counter() - began
    facts |= {"seconds_by_stage": seconds} | step_facts(step, seconds[DENOISING], checkpoint)
    return frames, facts


def prepare_hint(image: Image.Image, mask: Image.Image | None, width: int, height: int) -> tuple[Tensor, Tensor]:
    """The pixels of the hint (1, 3, H, W) in [-1, 1], and of its mask (1, 1, H, W): 0 follow the hint, 1 don't.

    Grey values of 192 and more of `mask` don't follow; without a mask everything does. Both are resized to `width` and
    `height` before their colours are converted. Pixels that are not followed become 0, the middle grey.
    """

    def values(picture: Image.Image, mode: str) -> Tensor:
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        levels = torch.from_numpy(np.array(picture.convert(mode), dtype=np.float32))  # (H, W) or (H, W, 3)
        return (levels.view(height, width, -1).permute(2, 0, 1)[None] / 255) * 2 - 1

    pixels = values(image, "RGB")
    masked = torch.zeros(1, 1, height, width) if mask is None else (values(mask, "L") >= 0.5).float()
    return pixels * (masked < 0.5), masked


def hint_latents(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """The scaled latents (1, c, h, w), fp32, of `pixels` (1, 3, H, W): the mean of what the VAE finds, not a sample."""
    mean = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mean
    if vae.dtype != torch.float32 and not torch.isfinite(mean).all():  # half precision is too narrow for some pictures
        mean = copy.deepcopy(vae).float().encode(pixels.to(vae.device)).latent_dist.mean
    return mean.float() * vae.config.scaling_factor


def latent_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """`mask` (1, 1, H, W) in the `size` of latents: of each latent pixel, the pixel in its middle."""
    return F.interpolate(mask, size=size, mode="nearest-exact")


def sample(
    unet: UNetPseudo3DConditionModel | UNet2DConditionModel,
    text_states: Tensor,
    noise: Tensor,
    condition: Tensor | None,
    schedule: Mapping[str, Any],
    scheduler: str,
    steps: int,
    guidance: float,
    slices: int = 1,
    shortcuts: Shortcuts = EXACT,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Step]:
    """Denoises `noise`, fp32: a clip (1, c, f, h, w) beside its `condition`, or an image (1, c, h, w) with None.

    `condition` is the mask and the hint (1, 1 + c, h, w), the same for all frames and in both branches. `text_states`
    are those of the negative and the positive prompt (2, tokens, c), or with guidance of 1 or less those of the prompt
    alone. `schedule` is the checkpoint's scheduler config. Raises ValueError where the texts don't fit the network.
    """
    if unet.config.cross_attention_dim != text_states.shape[-1]:
        raise ValueError(
            said(
                "{network} reads texts of {wanted} channels, and this model's have {given}: they don't belong "
                "together. Give a first image, or choose another model.",
                network=type(unet).__name__,
                wanted=unet.config.cross_attention_dim,
                given=text_states.shape[-1],
            )
        )

    def network(states: Tensor, frames: slice) -> Predict:
        network = Pseudo3DUNet(unet, states.to(unet.dtype), slices, shortcuts.caching)

        def predict(latents: Tensor, timestep: float) -> Tensor:
            if condition is not None:
                repeated = condition.unsqueeze(2).expand(-1, -1, latents.shape[2], -1, -1)  # (1, 1 + c, f, h, w)
                latents = torch.cat([latents, repeated], dim=1)
            return network(latents.to(unet.dtype), timestep).float()

        return predict

    predict = prediction(network, text_states, guidance, schedule, shortcuts)
    way = solver(scheduler, schedule, steps)
    return denoise(predict, noise, way, estimate_from_noise(schedule), checkpoint)


def solver(name: str, schedule: Mapping[str, Any], steps: int) -> DiffusersSolver:
    """FLAX's "ddim" or "dpm++" (there "dpm") for a checkpoint's scheduler config, whatever scheduler that names.

    DDIM never clips, and walks on evenly spaced steps plus `steps_offset`. DPM-Solver++ 2M walks on evenly spaced
    steps from 999, without an offset, and its last step ends at the schedule's own smallest noise and not at none.
    Raises ValueError for a checkpoint that predicts something other than the noise, and for another name.
    """
    if schedule.get("prediction_type", "epsilon") != "epsilon":
        raise ValueError(
            said(
                "This checkpoint predicts {kind}; only 'epsilon' can be sampled here.",
                kind=repr(schedule["prediction_type"]),
            )
        )
    keys = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    shared = {key: schedule[key] for key in keys}
    if name == "ddim":
        ends = {key: schedule[key] for key in ("set_alpha_to_one", "steps_offset") if key in schedule}
        return DiffusersSolver(DDIMScheduler(**shared, **ends, clip_sample=False), steps)
    if name == "dpm++":
        return DiffusersSolver(DPMSolverMultistepScheduler(**shared, final_sigmas_type="sigma_min"), steps)
    raise ValueError(said("There is no solver called {name} for this model.", name=repr(name)))


def decode(vae: AutoencoderKL, latents: Tensor) -> Iterator[np.ndarray]:
    """The frames of scaled latents (1, c, f, h, w), one by one: uint8 (H, W, 3), rounded."""
    for picture in decode_pictures(vae, latents):
        levels = ((picture.float() / 2 + 0.5) * 255).round().clamp(0, 255)
        yield levels.to(torch.uint8).permute(1, 2, 0).cpu().numpy()


@remembered
def denoising_memory(
    unet: UNetPseudo3DConditionModel, branches: int, frames: int, height: int, width: int, slices: int
) -> int:
    """Bytes that one step takes beside the weights; `unet` without weights, height and width of the latents."""
    latents = torch.empty(1, unet.config.in_channels, frames, height, width, device="meta")
    return _peak(unet, branches, latents, slices)


@remembered
def image_memory(unet: UNet2DConditionModel, height: int, width: int) -> int:
    """The same of the image model, for both branches."""
    return _peak(unet, 2, torch.empty(1, unet.config.in_channels, height, width, device="meta"), slices=1)


def _peak(unet: UNetPseudo3DConditionModel | UNet2DConditionModel, branches: int, latents: Tensor, slices: int) -> int:
    texts = torch.empty(branches, MAX_TOKENS, unet.config.cross_attention_dim, device="meta", dtype=unet.dtype)
    network = Pseudo3DUNet(unet, texts, slices)
    timestep = torch.empty(1, device="meta")
    return peak_bytes(lambda: network(latents.to(unet.dtype), timestep).float())


ENGINE = Engine(
    generate={TextToVideo: generate},
    parts=("tokenizer", "scheduler", "text_encoder", "vae", "unet", "image_unet"),
    encode=encode,
    network=Pseudo3DUNet,
    denoising_memory=denoising_memory,
    solver=solver,
    decode=decode,
)
