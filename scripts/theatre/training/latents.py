"""The cached latents of stills and clips, and their captions: what every stage that denoises reads."""

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import CLIPTokenizerFast

from pipelines.models.networks.pose_adapter import VAE_SCALE_FACTOR
from pipelines.poses import keypoints, skeleton
from pipelines.systems.followyourpose import prepare_skeletons
from scripts.miniature.captions import caption
from scripts.miniature.training.loop import SEED
from scripts.miniature.training.text import tokenize
from scripts.theatre import data, networks

from .checkpoints import restore


def cache_latents(accelerator: Accelerator, arguments: argparse.Namespace, count: int) -> None:
    """Encodes all stills, then the first `count` clips."""
    if accelerator.is_main_process:
        vae = networks.autoencoder()
        restore(arguments.work / "weights", "vae", vae)
        vae = vae.to(accelerator.device, memory_format=torch.channels_last)
        stills, clips = arguments.work / "stills", arguments.work / "clips"

        @torch.no_grad()
        def posterior(frames: np.ndarray) -> np.ndarray:
            images = torch.tensor(frames, device=accelerator.device).permute(0, 3, 1, 2).float() / 127.5 - 1
            latent = vae.encode(images).latent_dist
            return torch.stack([latent.mean, latent.std], 1).float().cpu().numpy()  # (F, 2, 12, 16, 16)

        with _on_cores(arguments.cores) as each:
            data.draw_stills(stills, arguments.stills, SEED, each)
            drawn = np.load(stills / "stills.npy", mmap_mode="r")
            rest = range(data.encoded(stills), len(drawn), 16)
            data.encode(stills, len(drawn), (drawn[first : first + 16][:, None] for first in rest), posterior)
            data.draw_clips(clips, arguments.clips, SEED, each)
            count = min(count, arguments.clips)
            rest = range(data.encoded(clips), count)
            data.encode(clips, count, each(partial(data.whole_clip, SEED), rest), posterior)
    accelerator.wait_for_everyone()


@contextmanager
def _on_cores(count: int) -> Iterator[data.Each]:
    """`map`, or one that runs in as many processes: drawing needs no GPU."""
    if count < 2:
        yield map
    else:
        with ProcessPoolExecutor(count, get_context("spawn")) as pool:
            yield pool.map


class Latents:
    """The cached posteriors of stills or clips, sampled anew at each use, and captions for them.

    A GPU holds all of them; a CPU reads them from the disk.
    """

    def __init__(self, folder: Path, tokenizer: CLIPTokenizerFast, device: torch.device):
        def stored(name: str) -> torch.Tensor:
            return torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")).to(device)

        self.folder = folder
        self.stored, self.masks = stored("latents"), stored("figures")
        self.words = data.load_words(folder)
        self.count = data.encoded(folder)
        self.tokenizer, self.device = tokenizer, device

    def sample(self, clips: np.ndarray, frames: np.ndarray | slice | int) -> torch.Tensor:
        """Latents [B,...,12,16,16] of `frames` of `clips`."""
        mean, deviation = self._of(self.stored, clips, frames).float().unbind(-4)
        return mean + deviation * torch.randn_like(mean)

    def figures(self, clips: np.ndarray, frames: np.ndarray | slice | int) -> torch.Tensor:
        """How much of each latent pixel the dancer covers, 0 to 1: [B,...,1,16,16]."""
        quarters = self._of(self.masks, clips, frames)  # (B, ..., 32, 32)
        return (
            quarters.unflatten(-1, (16, 2)).unflatten(-3, (16, 2))[..., None, :, :, :, :].float().mean((-3, -1)) / 255
        )

    def _of(self, stored: torch.Tensor, clips: np.ndarray, frames: np.ndarray | slice | int) -> torch.Tensor:
        if isinstance(frames, np.ndarray):
            frames = torch.from_numpy(frames).to(self.device)
        return stored[torch.from_numpy(clips).to(self.device), frames]

    def videos(
        self, clips: np.ndarray, rng: np.random.Generator, frames: slice = slice(None)
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`frames` of `clips` as a network sees them: latents [B,12,F,16,16], figures [B,1,F,16,16], tokens [B,77]."""
        video, figures = (get(clips, frames).transpose(1, 2) for get in (self.sample, self.figures))
        return video, figures, self.tokens(clips, rng)

    def skeletons(self, clips: np.ndarray, frames: np.ndarray | slice) -> torch.Tensor:
        """What the dancers do in `frames` of `clips`, drawn as FollowYourPose knows it: [B,F,3,128,128], 0 to 1."""
        joints = np.load(self.folder / "keypoints.npy", mmap_mode="r")[clips, frames]  # (B, (F,) 18, 3)
        pictures = skeleton.draw(keypoints.Poses(joints.reshape(-1, 1, 18, 3), data.SIZE, data.SIZE, 8.0))
        side = data.CELLS * VAE_SCALE_FACTOR
        return prepare_skeletons(pictures, side, side)[0].unflatten(0, (len(clips), -1)).to(self.device)

    def tokens(self, clips: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Token ids [B,77] of a new caption for each clip; one in ten is empty, for classifier-free guidance."""
        texts = ["" if rng.random() < 0.1 else caption(self.words[clip], rng) for clip in clips]
        return tokenize(self.tokenizer, texts).to(self.device)
