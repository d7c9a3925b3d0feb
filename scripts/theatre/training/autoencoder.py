"""The autoencoder that all models share: first as a whole, later its decoder alone, against a small critic."""

import argparse
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch.nn import functional

from pipelines.systems.preview import to_uint8
from scripts.miniature.training.loop import SEED, as_grid
from scripts.theatre import data, networks

from .checkpoints import keep, learn

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
    """With noise of a random strength for each picture, in proportion to what each channel carries."""
    spread = latents.detach().std(dim=(0, 2, 3), keepdim=True)
    strength = NOISE * torch.rand(len(latents), 1, 1, 1, device=latents.device) * spread
    return latents + strength * torch.randn_like(latents)


def restoration_error(restored: torch.Tensor, images: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
    """Differences of colours and of edges, of what people look at more than of the rest."""
    weight, error = interest(images, figures), restored - images
    edges = sum(
        (weight[..., 1:, 1:] * error.diff(dim=dim)[..., : error.shape[2] - 1, : error.shape[3] - 1].abs()).mean()
        for dim in (2, 3)
    )
    return (weight * (error.abs() + error.square())).mean() + 1.5 * edges


def interest(images: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
    """How much each pixel counts, [B,1,h,w]: 1 for the backdrop, 3 for the dancer, and there more where much is drawn
    in little room. Eyes and mouths are few pixels, and the first to be lost."""
    lines = images.diff(dim=2, append=images[:, :, -1:]).abs() + images.diff(dim=3, append=images[..., -1:]).abs()
    detail = functional.avg_pool2d(lines.mean(dim=1, keepdim=True), 9, 1, 4, count_include_pad=False)
    return 1 + figures * (2 + 10 * detail)


@torch.no_grad()
def start_as_thumbnail(vae: AutoencoderKL) -> None:
    """Initial weights with which the first three channels carry the average colours all the way, in and out.

    Every residual branch starts at zero. All other channels start as random mixtures that keep the signal's variance.
    The posterior starts sure of itself: at unit variance its noise drowns what the decoder should learn to read.
    """
    for name, module in vae.named_modules():
        if not isinstance(module, torch.nn.Conv2d):
            continue
        weight = module.weight
        torch.nn.init.normal_(weight, std=(1 / weight[0].numel()) ** 0.5)
        torch.nn.init.zeros_(module.bias)
        if name.endswith("conv2"):
            torch.nn.init.zeros_(weight)
        elif not name.endswith("conv1"):
            window = torch.zeros(weight.shape[2:])
            if "downsamplers" in name:
                window[:2, :2] = 1 / 4  # the mean of the four pixels that become one
            elif "upsamplers" in name:
                window[:] = torch.tensor((1.0, 2.0, 1.0)).outer(torch.tensor((1.0, 2.0, 1.0))) / 16
            else:
                window[weight.shape[2] // 2, weight.shape[3] // 2] = 1
            weight[:3] = torch.eye(3, weight.shape[1])[:, :, None, None] * window
    vae.quant_conv.weight[data.CHANNELS :] *= 0.1
    torch.nn.init.constant_(vae.quant_conv.bias[data.CHANNELS :], -6)


def train_vae(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    vae = networks.autoencoder().to(memory_format=torch.channels_last)
    start_as_thumbnail(vae)
    device, folder = accelerator.device, arguments.work / "stills"
    data.draw_stills(folder, arguments.stills, SEED)

    def loss_of(trainer, step, rng):
        # Small cut-outs first: more steps in the same time. Whole pictures set the norms' statistics right.
        done = step / steps
        whole = step % 8 == 0 or done > 0.9
        count, size = (1, data.SIZE) if whole else (4, 64) if done < 0.2 else (2, 128)
        count = max(1, count * arguments.batch // 8)
        images, figures = data.crops(folder, count, size, rng)
        return trainer(torch.from_numpy(images).to(device), torch.from_numpy(figures).to(device))

    def grid() -> np.ndarray:
        return grid_of(vae, folder)

    learn(accelerator, arguments, "vae", vae, VaeTrainer(vae), loss_of, steps, {"": 2e-3}, grid)
    if accelerator.is_main_process:
        standardise(vae, folder)
        keep(arguments.work / "weights", "vae", vae.state_dict(), steps, torch.float32)
    accelerator.wait_for_everyone()


@torch.no_grad()
def grid_of(vae: AutoencoderKL, folder: Path) -> np.ndarray:
    """Six stills above what `vae` restores of them."""
    frames = np.load(folder / "stills.npy", mmap_mode="r")[:6]
    images = torch.tensor(frames, device=vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    restored = vae.decode(vae.encode(images).latent_dist.mode()).sample
    return as_grid(np.stack([frames, to_uint8(restored.permute(0, 2, 3, 1)).cpu().numpy()]))


@torch.no_grad()
def standardise(vae: AutoencoderKL, folder: Path) -> None:
    """Gives every channel of the latents mean 0 and deviation 1, and leaves what is decoded as it is.

    Diffusers' VAEs have one scaling factor for all channels; unequal ones would be drowned in noise one after another.
    """
    frames = np.load(folder / "stills.npy", mmap_mode="r")[:128]
    images = torch.tensor(frames, device=vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    means = torch.cat([vae.encode(few).latent_dist.mean for few in images.split(8)])
    middle, spread = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
    out, back = vae.quant_conv, vae.post_quant_conv  # convolutions of 1 x 1: one moves and scales, the other undoes it
    out.weight[: data.CHANNELS] /= spread[:, None, None, None]
    out.bias[: data.CHANNELS] = (out.bias[: data.CHANNELS] - middle) / spread
    out.bias[data.CHANNELS :] -= 2 * spread.log()
    back.bias += back.weight[:, :, 0, 0] @ middle
    back.weight *= spread[None, :, None, None]
