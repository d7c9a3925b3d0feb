"""The autoencoder that all miniatures share, and the latents of the drawn clips."""

import argparse

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL

from pipelines.systems.preview import to_uint8
from scripts.miniature import data, networks

from .loop import as_grid, go_on_from, train


class VaeTrainer(torch.nn.Module):
    """Wraps the autoencoder so that one forward is one loss (what DistributedDataParallel asks for)."""

    def __init__(self, vae: torch.nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
        posterior = self.vae.encode(images).latent_dist
        restored = self.vae.decode(posterior.sample()).sample.float()
        weight = 1 + 2 * figures  # the dancer is small, and what everybody looks at
        error = restored - images
        plain = (weight * (error.abs() + error.square())).mean()
        edges = sum(
            (weight[..., 1:, 1:] * error.diff(dim=dim)[..., : error.shape[2] - 1, : error.shape[3] - 1].abs()).mean()
            for dim in (2, 3)
        )
        return plain + edges + 3e-4 * posterior.kl().mean() / posterior.mean[0].numel()


@torch.no_grad()
def start_as_pooling(vae: AutoencoderKL) -> None:
    """Initial weights from which little training goes a long way.

    PyTorch's own shrink the signal at every convolution, until the normalised branches drown the plain colours that
    the rest carries. These keep its variance, and every residual branch starts at zero. The posterior starts sure of
    itself: at unit variance its noise drowns what the decoder should learn to read.
    """
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=(1 / module.weight[0].numel()) ** 0.5)
            torch.nn.init.zeros_(module.bias)
            if name.endswith("conv2"):
                torch.nn.init.zeros_(module.weight)
    vae.quant_conv.weight[4:] *= 0.1
    torch.nn.init.constant_(vae.quant_conv.bias[4:], -6)


def train_vae(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    vae = networks.autoencoder()
    start_as_pooling(vae)
    go_on_from(arguments.start, "sd/vae", vae)
    device = accelerator.device

    def loss_of(trainer, step, rng):
        # Cut-outs see four times as many dancers; whole pictures at the end set the norms' statistics right.
        whole = step > 0.85 * arguments.vae_steps
        count, size = (max(1, arguments.batch // 4), data.SIZE) if whole else (arguments.batch, data.SIZE // 2)
        images, figures = data.crops(arguments.work / "clips", count, size, rng)
        return trainer(torch.from_numpy(images).to(device), torch.from_numpy(figures).to(device))

    @torch.no_grad()
    def grid() -> np.ndarray:
        stored = np.load(arguments.work / "clips" / "frames.npy", mmap_mode="r")
        frames = stored[:: len(stored) // 8][:8, 0]
        images = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
        restored = vae.decode(vae.encode(images).latent_dist.mode()).sample
        return as_grid(np.stack([frames, to_uint8(restored.permute(0, 2, 3, 1)).cpu().numpy()]))

    train(accelerator, "vae", VaeTrainer(vae), loss_of, arguments.vae_steps, {"": 2e-3}, arguments.work, grid)
    if accelerator.is_main_process:
        vae.save_pretrained(arguments.work / "vae")


def cache_latents(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    vae = AutoencoderKL.from_pretrained(arguments.work / "vae").to(accelerator.device)

    @torch.no_grad()
    def posterior(frames: np.ndarray) -> np.ndarray:
        images = torch.tensor(frames, device=accelerator.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        latent = vae.encode(images).latent_dist
        return torch.stack([latent.mean, latent.std], 1).float().cpu().numpy()  # (F, 2, 4, 16, 16)

    if accelerator.is_main_process:
        data.encode_clips(arguments.work / "clips", posterior)
    accelerator.wait_for_everyone()
