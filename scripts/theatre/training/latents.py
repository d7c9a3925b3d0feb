"""The cached latents of stills and clips, and their captions: what every stage that denoises reads."""

import argparse
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

        def drawn_clip(index: int) -> np.ndarray:
            scene = data.training_scene(SEED, index)
            return np.stack([scene.draw(frame)[0] for frame in range(data.FRAMES)])

        data.draw_stills(stills, arguments.stills, SEED)
        drawn = np.load(stills / "stills.npy", mmap_mode="r")
        data.encode(stills, len(drawn), lambda index: drawn[index][None], posterior)
        data.draw_clips(clips, arguments.clips, SEED)
        data.encode(clips, min(count, arguments.clips), drawn_clip, posterior)
    accelerator.wait_for_everyone()


class Latents:
    """The cached posteriors of stills or clips, sampled anew at each use, and captions for them."""

    def __init__(self, folder: Path, tokenizer: CLIPTokenizerFast, device: torch.device):
        self.folder = folder
        self.stored = np.load(folder / "latents.npy", mmap_mode="r")
        self.masks = np.load(folder / "figures.npy", mmap_mode="r")
        self.words = data.load_words(folder)
        self.tokenizer, self.device = tokenizer, device

    def count(self) -> int:
        """How many clips are encoded; the stage that does it may still be running in another process."""
        return data.encoded(self.folder)

    def sample(self, clips: np.ndarray, frames: np.ndarray | slice) -> torch.Tensor:
        """Latents [B,...,12,16,16] of `frames` of `clips`."""
        mean, deviation = np.moveaxis(self.stored[clips, frames].astype(np.float32), -4, 0)
        mean, deviation = (torch.from_numpy(x).to(self.device) for x in (mean, deviation))
        return mean + deviation * torch.randn_like(mean)

    def figures(self, clips: np.ndarray, frames: np.ndarray | slice) -> torch.Tensor:
        """How much of each latent pixel the dancer covers, 0 to 1: [B,...,1,16,16]."""
        quarters = self.masks[clips, frames]  # (B, ..., 32, 32)
        cells = quarters.reshape(*quarters.shape[:-2], 1, 16, 2, 16, 2).mean((-3, -1), dtype=np.float32) / 255
        return torch.from_numpy(cells).to(self.device)

    def skeletons(self, clips: np.ndarray, frames: np.ndarray) -> torch.Tensor:
        """What the dancer does in one frame of each clip, drawn as FollowYourPose knows it: [B,1,3,128,128], 0 to 1."""
        joints = np.load(self.folder / "keypoints.npy", mmap_mode="r")[clips, frames]  # (B, 18, 3)
        pictures = skeleton.draw(keypoints.Poses(joints[:, None], data.SIZE, data.SIZE, 8.0))
        side = data.CELLS * VAE_SCALE_FACTOR
        return prepare_skeletons(pictures, side, side)[0][:, None].to(self.device)

    def tokens(self, clips: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Token ids [B,77] of a new caption for each clip; one in ten is empty, for classifier-free guidance."""
        texts = ["" if rng.random() < 0.1 else caption(self.words[clip], rng) for clip in clips]
        return tokenize(self.tokenizer, texts).to(self.device)
