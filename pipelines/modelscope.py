"""ModelScope text-to-video (Wang et al., 2023, "ModelScope Text-to-Video Technical Report"): a prompt becomes a video.

Read top to bottom: encode the prompt, draw noise, denoise, decode. `sample` and `decode` are the parts that need
neither a task nor a manager; scripts/parity.py holds them against the original.
"""

import copy
import time
from collections.abc import Generator, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from pipelines.diffusion import Step, alphas_cumprod, denoise, draw_noise, guided, solver
from pipelines.events import Preview, Progress
from pipelines.memory import largest, peak_bytes
from pipelines.networks.unet3d import TextToVideoUNet
from pipelines.preview import Previewer, to_uint8
from pipelines.tasks import TextToVideo
from pipelines.tokens import MAX_TOKENS

if TYPE_CHECKING:
    from pipelines.manager import ModelManager

READING, DENOISING, DECODING = "Reading the prompt", "Denoising", "Decoding"


@torch.no_grad()
def generate(
    task: TextToVideo, models: "ModelManager"
) -> Generator[Progress | Preview, None, tuple[np.ndarray, dict[str, Any]]]:
    """Makes the video of `task`; returns its frames, uint8 [F, H, W, 3], and the facts of its making.

    Raises ValueError, in words for the person who asked, where the result holds no numbers or no picture.
    """
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    yield Progress(READING, 0, 1)
    denoising_bytes, slices = working_memory(task, models)
    texts = [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]
    with models.lease(f"{task.model}/tokenizer") as tokenizer, models.lease(f"{task.model}/text_encoder") as encoder:
        text_states = encode(texts, tokenizer, encoder)  # (1 or 2, tokens, c)
    with models.lease(f"{task.model}/vae", working_bytes=2**28) as vae:
        previewer = Previewer.of(vae, task.fps)
        factor = pixels_a_latent(vae)
    with models.lease(f"{task.model}/scheduler") as schedule:
        pass
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    height, width = task.height // factor, task.width // factor
    with models.lease(f"{task.model}/unet", working_bytes=denoising_bytes) as unet:
        noise = draw_noise((1, unet.config.in_channels, task.frames, height, width), task.seed).to(unet.device)
        began = time.perf_counter()
        for step in sample(unet, text_states, noise, schedule, task.scheduler, task.steps, task.guidance, slices):
            if not torch.isfinite(step.latents).all():  # it also waits for the device, so that Stop comes in time
                raise ValueError(
                    f"The video fell apart in step {step.number} of {step.total}: it holds values that are no numbers. "
                    "Try another seed or a lower guidance; if that does not help, the weights are at fault."
                )
            yield Progress(DENOISING, step.number, step.total)
            if previewer.is_due():
                yield previewer.preview(step.denoised)
        seconds[DENOISING] = time.perf_counter() - began
        facts = {"device": str(unet.device), "dtype": str(unet.dtype), "network_calls": step.total}
        facts["memory_saving"] = "attention in 8 parts: the same result, more slowly" if slices > 1 else "none needed"

    began = time.perf_counter()
    frames = []
    decoding_bytes = decoding_memory(models.empty(f"{task.model}/vae"), height, width)
    with models.lease(f"{task.model}/vae", working_bytes=decoding_bytes) as vae:
        for frame in decode(vae, step.latents):
            frames.append(frame)
            yield Progress(DECODING, len(frames), task.frames)
    seconds[DECODING] = time.perf_counter() - began
    facts |= {"seconds_by_stage": seconds, "seconds_per_step": seconds[DENOISING] / step.total}
    return np.stack(frames), facts


def encode(texts: list[str], tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> Tensor:
    """CLIP's last hidden states, after its final norm, of each text cut and padded to 77 tokens: (texts, 77, c).

    What follows the end of a text is not masked: ModelScope was trained so.
    """
    length = min(MAX_TOKENS, encoder.config.max_position_embeddings)
    tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return encoder(tokens.to(encoder.device)).last_hidden_state


def sample(
    unet: UNet3DConditionModel,
    text_states: Tensor,
    noise: Tensor,
    schedule: Mapping[str, Any],
    scheduler: str,
    steps: int,
    guidance: float,
    slices: int = 1,
) -> Iterator[Step]:
    """Denoises `noise` (1, c, f, h, w), fp32.

    `text_states` are those of the negative and the positive prompt (2, tokens, c), or with guidance of 1 or less those
    of the prompt alone (1, tokens, c). `schedule` is the checkpoint's scheduler config.
    """
    network = TextToVideoUNet(unet, text_states.to(unet.dtype), slices)

    def predict(latents: Tensor, timestep: int) -> Tensor:
        return network(latents.to(unet.dtype), timestep).float()

    if guidance > 1:
        predict = guided(predict, guidance)
    return denoise(predict, noise, solver(scheduler, schedule, steps), alphas_cumprod(schedule))


def decode(vae: AutoencoderKL, latents: Tensor) -> Iterator[np.ndarray]:
    """The frames of scaled latents (1, c, f, h, w), one by one: uint8 (H, W, 3), truncated and not rounded.

    Half precision is too narrow for some frames of some VAEs: from the first such frame on, it goes on in fp32.
    """
    for frame in latents[0].transpose(0, 1) / vae.config.scaling_factor:  # (c, h, w)
        picture = vae.decode(frame[None].to(vae.dtype)).sample[0]  # (3, H, W) in [-1, 1]
        if vae.dtype != torch.float32 and not torch.isfinite(picture).all():
            vae = copy.deepcopy(vae).float()  # the VAE is shared: it stays as it is
            picture = vae.decode(frame[None].float()).sample[0]
        if not torch.isfinite(picture).all():
            raise ValueError("A frame could not be decoded: it holds values that are no numbers. Try another seed.")
        yield to_uint8(picture.permute(1, 2, 0)).cpu().numpy()


def working_memory(task: TextToVideo, models: "ModelManager") -> tuple[int, int]:
    """What denoising takes beside the weights, in bytes, and in how many slices; counted, not guessed.

    Raises MemoryError, naming the largest setting that fits, where the device hasn't so much.
    """
    unet, vae = models.empty(f"{task.model}/unet"), models.empty(f"{task.model}/vae")
    factor, room = pixels_a_latent(vae), models.room(f"{task.model}/unet")

    def needs(frames: int, width: int, height: int, slices: int) -> int:
        branches = 2 if task.guidance > 1 else 1
        return denoising_memory(unet, branches, frames, height // factor, width // factor, slices)

    for slices in (8,) if models.frugal else (1, 8):
        if (needed := needs(task.frames, task.width, task.height, slices)) <= room:
            return needed, slices
    frames, side = models.card(task.model).limits.frames, models.card(task.model).limits.side
    most = largest(lambda number: needs(number, task.width, task.height, 8), room, int(frames.low), task.frames)
    if most is not None:
        advice = f"At {task.width}x{task.height}, {most} frames fit."
    else:
        steps = range(int(side.low), min(task.width, task.height) + 1, int(side.step))
        fits = largest(lambda step: needs(task.frames, steps[step], steps[step], 8), room, 0, len(steps) - 1)
        advice = "Choose a smaller model."
        if fits is not None:
            advice = f"{task.frames} frames fit at {steps[fits]}x{steps[fits]}."
    raise MemoryError(
        f"{task.frames} frames of {task.width}x{task.height} need {needed / 1e9:.2f} GB of memory on {models.device} "
        f"beside the weights, and {max(room, 0) / 1e9:.2f} GB can be had. {advice}"
    )


@lru_cache(maxsize=256)
def denoising_memory(
    unet: UNet3DConditionModel, branches: int, frames: int, height: int, width: int, slices: int
) -> int:
    """Bytes that one step takes beside the weights; `unet` without weights, height and width of the latents."""
    latents = torch.empty(1, unet.config.in_channels, frames, height, width, device="meta")
    texts = torch.empty(branches, MAX_TOKENS, unet.config.cross_attention_dim, device="meta", dtype=unet.dtype)
    network = TextToVideoUNet(unet, texts, slices)
    timestep = torch.empty(1, device="meta")
    return peak_bytes(lambda: network(latents.to(unet.dtype), timestep).float())


@lru_cache(maxsize=256)
def decoding_memory(vae: AutoencoderKL, height: int, width: int) -> int:
    """Bytes that decoding one frame takes beside the weights, in fp32 at worst; `vae` without weights."""
    latents = torch.empty(1, vae.config.latent_channels, height, width, device="meta", dtype=vae.dtype)
    return peak_bytes(lambda: vae.decode(latents).sample) * (4 // vae.dtype.itemsize)


def pixels_a_latent(vae: AutoencoderKL) -> int:
    """How many pixels a side of a latent pixel stands for."""
    return 2 ** (len(vae.config.block_out_channels) - 1)
