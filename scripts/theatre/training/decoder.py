"""The decoder's second lesson: sharp edges from latents that are not exact, before a critic of small patches.

The encoder stays as it is, so this can run at any time after the stage `vae`, whatever has learned its latents.
"""

import argparse

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch.func import functional_call
from torch.nn import functional

from scripts.miniature.training.loop import SEED
from scripts.theatre import data, networks

from .autoencoder import grid_of, restoration_error, soiled
from .checkpoints import learn, restore

WEIGHT = 0.05  # of the critic's verdict beside the differences of colours and edges


def critic() -> torch.nn.Sequential:
    """Images [B,3,h,w] to verdicts [B,1,h/8,w/8] on patches of 22 pixels: high for drawn ones."""

    def halve(inputs: int, outputs: int) -> list[torch.nn.Module]:
        return [torch.nn.Conv2d(inputs, outputs, 4, 2, 1), torch.nn.LeakyReLU(0.2)]

    return torch.nn.Sequential(*halve(3, 24), *halve(24, 48), *halve(48, 64), torch.nn.Conv2d(64, 1, 1))


class DecoderTrainer(torch.nn.Module):
    """The decoder and its critic: one forward is the sum of both losses, of which each sees only its own."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae, self.critic = vae.requires_grad_(False), critic()
        vae.decoder.requires_grad_(True)
        vae.post_quant_conv.requires_grad_(True)

    def forward(self, images: torch.Tensor, figures: torch.Tensor, share: float) -> torch.Tensor:
        """images [B,3,h,w] in [-1,1]; figures [B,1,h,w]; `share` is how much of its weight the critic has, 0 to 1."""
        with torch.no_grad():
            latents = soiled(self.vae.encode(images.contiguous(memory_format=torch.channels_last)).latent_dist.sample())
        restored = self.vae.decode(latents).sample
        fixed = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        pleased = functional_call(self.critic, fixed, restored).mean()
        drawn, made = self.critic(images), self.critic(restored.detach())
        judging = (functional.relu(1 - drawn) + functional.relu(1 + made)).mean()  # hinge (Lim & Ye 2017)
        return restoration_error(restored, images, figures) - share * WEIGHT * pleased + judging


def train_decoder(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    vae, device, folder = networks.autoencoder(), accelerator.device, arguments.work / "stills"
    restore(arguments.work / "weights", "vae", vae)
    vae = vae.to(memory_format=torch.channels_last)
    data.draw_stills(folder, arguments.stills, SEED)

    def loss_of(trainer, step, rng):
        count, size = (1, data.SIZE) if step % 3 == 0 else (2, 128)
        images, figures = data.crops(folder, max(1, count * arguments.batch // 8), size, rng)
        share = min(step / (0.2 * steps), 1.0)
        return trainer(torch.from_numpy(images).to(device), torch.from_numpy(figures).to(device), share)

    def grid() -> np.ndarray:
        return grid_of(vae, folder)

    learn(accelerator, arguments, "decoder", vae, DecoderTrainer(vae), loss_of, steps, {"": 5e-4}, grid)
