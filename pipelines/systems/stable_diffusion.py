"""What every system here shares: all that is done before and after its own network denoises."""

import copy
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from pipelines.events import Preview, Progress
from pipelines.messages import said
from pipelines.models.memory import allotted, peak_bytes, remembered
from pipelines.models.tokens import MAX_TOKENS
from pipelines.systems.checkpoints import Checkpoint, Checkpoints
from pipelines.systems.diffusion import Step, spread
from pipelines.systems.prediction import EXACT, Shortcuts
from pipelines.systems.preview import Previewer

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager
    from pipelines.tasks import Edit, PoseToVideo, TextToVideo

READING, DECODING = said("Reading the prompt"), said("Decoding")


class Prepared(NamedTuple):
    """What a job needs beside its network."""

    text_states: Tensor  # (texts, 77, c)
    previewer: Previewer
    factor: int  # pixels a latent pixel, across and down
    channels: int  # of a latent pixel
    schedule: Mapping[str, Any]  # the checkpoint's scheduler config


def prepare(task: "TextToVideo | PoseToVideo | Edit", texts: list[str], models: "ModelManager") -> Prepared:
    """Reads `texts` as the model of `task` does, and looks up what its latents and its schedule are."""
    with models.lease(f"{task.model}/tokenizer") as tokenizer, models.lease(f"{task.model}/text_encoder") as encoder:
        text_states = encode(texts, tokenizer, encoder)
    with models.lease(f"{task.model}/vae", working_bytes=2**28) as vae:
        previewer = Previewer.of(vae, task.fps)
    with models.lease(f"{task.model}/scheduler") as schedule:
        return Prepared(text_states, previewer, vae_scale_factor(vae), vae.config.latent_channels, schedule)


def encode(texts: list[str], tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> Tensor:
    """CLIP's last hidden states, after its final norm, of each text cut and padded to 77 tokens: (texts, 77, c).

    What follows the end of a text is not masked: the networks were trained so.
    """
    length = min(MAX_TOKENS, encoder.config.max_position_embeddings)
    tokens = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return encoder(tokens.to(encoder.device)).last_hidden_state


def decode_pictures(vae: AutoencoderKL, latents: Tensor) -> Iterator[Tensor]:
    """The pictures of scaled latents (1, c, f, h, w), one by one: (3, H, W), in [-1, 1] or a little beyond.

    Half precision is too narrow for some frames of some VAEs: from the first such frame on, it goes on in fp32. Raises
    ValueError for a frame that holds no numbers or no picture even then.
    """
    for frame in latents[0].transpose(0, 1) / vae.config.scaling_factor:  # (c, h, w)
        picture = vae.decode(frame[None].to(vae.dtype)).sample[0]
        if vae.dtype != torch.float32 and not 0 < spread(picture) < math.inf:
            vae = copy.deepcopy(vae).float()  # the VAE is shared: it stays as it is
            picture = vae.decode(frame[None].float()).sample[0]
        check_picture(picture)
        yield picture


def check_picture(picture: Tensor) -> None:
    """Raises ValueError for a decoded `picture`, or several, that holds no numbers or no picture."""
    if not 0 < spread(picture) < math.inf:
        raise ValueError(
            said(
                "A frame could not be decoded: it holds values that are no numbers, or a single one everywhere. "
                "Try another seed; if that does not help, the weights are at fault."
            )
        )


def report_progress(
    steps: Iterator[Step], stage: str, previewer: Previewer
) -> Generator[Progress | Preview, None, Step]:
    """Takes all `steps`, reports each, and returns the last. Raises ValueError where one fell apart."""
    for step in steps:
        if not 0 < spread(step.latents) < math.inf:  # it also waits for the device, so that Stop comes in time
            raise ValueError(
                said(
                    "The video fell apart in step {number} of {total}: it holds values that are no numbers, or a "
                    "single one everywhere. Try another seed or a lower guidance; if that does not help, the weights "
                    "are at fault.",
                    number=step.number,
                    total=step.total,
                )
            )
        yield Progress(stage, step.number, step.total)
        if previewer.is_due():
            yield previewer.preview(step.denoised if step.denoised.ndim == 5 else step.denoised.unsqueeze(2))
    return step


def checkpoint_of(
    checkpoints: Checkpoints | None, loop: str, network: nn.Module, key: str, slices: int, shortcuts: Shortcuts = EXACT
) -> Checkpoint | None:
    """The checkpoint of a loop around `network`, whose weights have the `key`. None where the job keeps none, or where
    its network remembers features, which are no part of a checkpoint."""
    if checkpoints is None or shortcuts.caching > 1:
        return None
    return checkpoints.of(loop, f"{key}, {network.device}, {network.dtype}, {slices} slices")


def run_facts(
    step: Step,
    unet: nn.Module,
    slices: int,
    models: "ModelManager",
    sliced: str = "attention in 8 parts: the same result, more slowly",
) -> dict[str, Any]:
    """The facts of a denoising that ended with `step`: where, how often, and what it took to fit into memory; `sliced`
    says what several slices are."""
    saving = sliced if slices > 1 else "none needed"
    return {
        **{"device": str(unet.device), "dtype": str(unet.dtype), "network_calls": step.total},
        "memory_saving": f"memory ran out once; then {saving}" if models.frugal else saving,
    }


def step_facts(step: Step, seconds: float, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """How long a step took of a denoising that ended with `step` after `seconds`, and where it was taken up again."""
    first = checkpoint.restored if checkpoint else 0
    resumed = {"resumed_at_step": first} if first else {}
    return {"seconds_per_step": seconds / max(1, step.total - first)} | resumed


def decode_frames(
    task: "TextToVideo | PoseToVideo | Edit",
    latents: Tensor,
    decode: Callable[[AutoencoderKL, Tensor], Iterator[np.ndarray]],
    models: "ModelManager",
    working_bytes: int | None = None,
) -> Generator[Progress, None, np.ndarray]:
    """The frames, uint8 [F, H, W, 3], that the system's own `decode` finds in scaled `latents` (1, c, f, h, w).

    `working_bytes` is what it takes beside the weights; by default that of one frame.
    """
    frames = []
    if working_bytes is None:
        working_bytes = decoding_memory(models.empty(f"{task.model}/vae"), *latents.shape[-2:])
    with models.lease(f"{task.model}/vae", working_bytes=working_bytes) as vae:
        for frame in decode(vae, latents):
            frames.append(frame)
            yield Progress(DECODING, len(frames), task.frames)
    return np.stack(frames)


def working_memory(
    task: "TextToVideo | PoseToVideo | Edit",
    models: "ModelManager",
    denoising_memory: Callable[[Any, int, int, int, int, int], int],
    part: str = "unet",
    more: int = 0,
) -> tuple[int, int]:
    """What denoising takes beside the weights, in bytes, and in how many slices; counted, not guessed.

    `more` is what it takes beside one step. `denoising_memory` counts that for the network `part` without weights, and
    branches, frames, height and width of the latents, and slices; of a video in windows, for the frames of one. Raises
    MemoryError, naming the largest setting that fits, where the device hasn't so much.
    """
    unet, factor = models.empty(f"{task.model}/{part}"), vae_scale_factor(models.empty(f"{task.model}/vae"))
    branches, limits = 2 if task.guidance > 1 else 1, models.card(task.model).limits

    def needs(frames: int, width: int, height: int, slices: int) -> int:
        seen = limits.window_of(frames, width, height) or frames
        return more + denoising_memory(unet, branches, seen, height // factor, width // factor, slices)

    return allotted(task, models, needs, part)


@remembered
def decoding_memory(vae: AutoencoderKL, height: int, width: int) -> int:
    """Bytes that decoding one frame takes beside the weights, in fp32 at worst; `vae` without weights."""
    latents = torch.empty(1, vae.config.latent_channels, height, width, device="meta", dtype=vae.dtype)
    return peak_bytes(lambda: vae.decode(latents).sample) * (4 // vae.dtype.itemsize)


def vae_scale_factor(vae: AutoencoderKL) -> int:
    """How many pixels a side of a latent pixel stands for."""
    return 2 ** (len(vae.config.block_out_channels) - 1)
