"""The autoencoder that all models share: first as a whole, later its decoder alone, against a small critic."""

import argparse

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL

from pipelines.preview import to_uint8
from scripts.miniature.training.autoencoder import start_as_pooling
from scripts.miniature.training.loop import SEED, as_grid, train
from scripts.theatre import data, networks

from .checkpoints import go_on_from

NOISE = 0.15  # of the latents' deviation: the most that the decoder sees, as generated latents are never exact


class VaeTrainer(torch.nn.Module):
    """Wraps the autoencoder so that one forward is one loss."""

    def __init__(self, vae: torch.nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
        """images [B,3,h,w] in [-1,1]; figures [B,1,h,w], 1 where the dancer is."""
        posterior = self.vae.encode(images.contiguous(memory_format=torch.channels_last)).latent_dist
        restored = self.vae.decode(soiled(posterior.sample())).sample
        return restoration_error(restored, images, figures) + 3e-4 * posterior.kl().mean() / posterior.mean[0].numel()


def soiled(latents: torch.Tensor) -> torch.Tensor:
    """With noise of a random strength for each picture."""
    strength = NOISE * torch.rand(len(latents), 1, 1, 1, device=latents.device) * latents.detach().std()
    return latents + strength * torch.randn_like(latents)


def restoration_error(restored: torch.Tensor, images: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
    """Differences of colours and of edges. The dancer is small, and what everybody looks at: it counts three times."""
    weight, error = 1 + 2 * figures, restored - images
    edges = sum(
        (weight[..., 1:, 1:] * error.diff(dim=dim)[..., : error.shape[2] - 1, : error.shape[3] - 1].abs()).mean()
        for dim in (2, 3)
    )
    return (weight * (error.abs() + error.square())).mean() + 1.5 * edges


def train_vae(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    vae = networks.autoencoder().to(memory_format=torch.channels_last)
    start_as_pooling(vae)
    go_on_from(arguments.start, "vae", vae)
    device, folder = accelerator.device, arguments.work / "stills"
    data.draw_stills(folder, arguments.stills, SEED)

    def loss_of(trainer, step, rng):
        # Cut-outs see more dancers in the same time; whole pictures set the norms' statistics right.
        whole = step % 4 == 0 or step > 0.85 * steps
        count, size = (max(1, arguments.batch // 4), data.SIZE) if whole else (arguments.batch, data.SIZE // 2)
        images, figures = data.crops(folder, count, size, rng)
        return trainer(torch.from_numpy(images).to(device), torch.from_numpy(figures).to(device))

    @torch.no_grad()
    def grid() -> np.ndarray:
        frames = np.load(folder / "stills.npy", mmap_mode="r")[:6]
        images = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        restored = vae.decode(vae.encode(images).latent_dist.mode()).sample
        return as_grid(np.stack([frames, to_uint8(restored.permute(0, 2, 3, 1)).cpu().numpy()]))

    train(accelerator, "vae", VaeTrainer(vae), loss_of, steps, {"": 2e-3}, arguments.work, grid)
    if accelerator.is_main_process:
        vae.save_pretrained(arguments.work / "vae")


def cache_latents(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    vae = AutoencoderKL.from_pretrained(arguments.work / "vae").to(
        accelerator.device, memory_format=torch.channels_last
    )

    @torch.no_grad()
    def posterior(frames: np.ndarray) -> np.ndarray:
        images = torch.tensor(frames, device=accelerator.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        latent = vae.encode(images).latent_dist
        return torch.stack([latent.mean, latent.std], 1).float().cpu().numpy()  # (F, 2, 12, 16, 16)

    if accelerator.is_main_process:
        data.encode_clips(arguments.work / "clips", SEED, posterior)
    accelerator.wait_for_everyone()
