"""ModelScope text-to-video (Wang et al., 2023, "ModelScope Text-to-Video Technical Report"): a prompt becomes a video.

Read top to bottom: encode the prompt, draw noise, denoise, decode. `sample` and `decode` are the parts that need
neither a task nor a manager; scripts/parity.py holds them against the original.
"""

import copy
import time
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from pipelines.diffusion import Step, alphas_cumprod, denoise, draw_noise, guided, solver
from pipelines.events import Preview, Progress
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
    texts = [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]
    with models.lease(f"{task.model}/tokenizer") as tokenizer, models.lease(f"{task.model}/text_encoder") as encoder:
        text_states = encode(texts, tokenizer, encoder)  # (1 or 2, tokens, c)
    with models.lease(f"{task.model}/vae", working_bytes=2**28) as vae:
        previewer = Previewer.of(vae, task.fps)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a latent pixel
    with models.lease(f"{task.model}/scheduler") as schedule:
        pass
    seconds[READING] = time.perf_counter() - started
    yield Progress(READING, 1, 1)

    height, width = task.height // factor, task.width // factor
    with models.lease(f"{task.model}/unet", working_bytes=unet_bytes(task, height * width, models.dtype)) as unet:
        noise = draw_noise((1, unet.config.in_channels, task.frames, height, width), task.seed).to(unet.device)
        began = time.perf_counter()
        slices = 8 if models.frugal else 1
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
        facts["memory_saving"] = (
            "attention in 8 parts: the same result, more slowly" if models.frugal else "none needed"
        )

    began = time.perf_counter()
    frames = []
    with models.lease(f"{task.model}/vae", working_bytes=vae_bytes(task)) as vae:
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


def unet_bytes(task: TextToVideo, pixels: int, dtype: torch.dtype) -> int:
    """About what the full-size network works with beside its weights, for frames of so many latent `pixels`."""
    branches = 2 if task.guidance > 1 else 1
    return branches * task.frames * pixels * 30 * 320 * dtype.itemsize  # 30 tensors of the first level's 320 channels


def vae_bytes(task: TextToVideo) -> int:
    """About what decoding one frame takes beside the VAE's weights: a few tensors of 256 channels, in fp32 at worst."""
    return task.width * task.height * 256 * 4 * 4
