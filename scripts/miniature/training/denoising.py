"""What every stage that denoises shares: the noise and the loss, the latents of the clips, and a trainer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from transformers import CLIPTokenizerFast

from pipelines.models.networks.unet3d import TextToVideoUNet
from pipelines.poses import keypoints, skeleton
from scripts.miniature import data, networks
from scripts.miniature.captions import caption

from .text import tokenize

EXAMPLES = (  # the first, the fourth and the seventh are combinations that training holds back
    "a robot in blue waving on the beach",
    "a bear wearing green jumps in the snow",
    "an astronaut dressed in red is dancing on the moon",
    "a person in yellow dancing in the city",
    "a robot in white walking in the forest",
    "a bear in purple kicks in the desert",
    "an astronaut in orange bows on the beach",
    "a person in yellow waves in the snow",
)


class Diffusion:
    """What both diffusion stages share: noise, its schedule, and the loss."""

    def __init__(self, device: torch.device):
        self.schedule = DDPMScheduler(**{k: v for k, v in networks.SCHEDULER.items() if k.startswith("beta")})
        signal = self.schedule.alphas_cumprod.to(device)
        snr = signal / (1 - signal)
        # The weights of a v prediction (Salimans & Ho 2022, appendix D), cut as min-SNR-5 does (Hang et al. 2023,
        # section 3.4) and at strong noise. Plain errors of the noise say next to nothing there, and there it is
        # decided what moves how. Half of each weight is how often a timestep is drawn, half how much it counts.
        weight = ((snr + 1).clamp(max=5) / snr).clamp(max=10).sqrt()
        self.cumulative = weight.cumsum(0) / weight.sum()
        self.weight = weight / (weight.square().sum() / weight.sum())
        self.device = device

    def loss(self, predict: Callable[..., torch.Tensor], latents: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
        """Weighted error of the noise that `predict(noisy, times)` finds.

        latents [B,4,(F,)h,w], scaled; figures [B,1,(F,)h,w], 0 to 1.

        The dancer counts five times: it is a small part of the picture, and harder than the rest. No weight of this
        kind changes what a network learns in the end, only how soon it learns what.
        """
        noise = torch.randn_like(latents)
        # One draw for the batch, evenly spread: every batch sees little noise and much.
        spread = (torch.rand(1) + torch.arange(len(latents)) / len(latents)) % 1
        times = torch.searchsorted(self.cumulative, spread.to(self.device)).clamp(max=999)
        predicted = predict(self.schedule.add_noise(latents, noise, times), times)
        count = 1 + 4 * figures
        errors = (count * (predicted.float() - noise).square()).flatten(1).mean(1) / count.mean()  # (B,)
        return (self.weight[times] * errors).mean()


class Latents:
    """The cached posteriors of the drawn clips, sampled anew at each use, and captions for them."""

    def __init__(self, work: Path, tokenizer: CLIPTokenizerFast, scale: float, device: torch.device):
        self.folder = work / "clips"
        self.stored = np.load(self.folder / "latents.npy", mmap_mode="r")
        self.masks = np.load(self.folder / "figures.npy", mmap_mode="r")
        self.words = data.load_words(self.folder)
        self.tokenizer, self.scale, self.device = tokenizer, scale, device

    def count(self) -> int:
        """How many clips are encoded; the stage that does it may still be running in another process."""
        return data.encoded(self.folder)

    def sample(self, clips: np.ndarray, frames: np.ndarray | slice) -> torch.Tensor:
        """Scaled latents [B,...,4,16,16] of `frames` of `clips`."""
        mean, deviation = np.moveaxis(self.stored[clips, frames].astype(np.float32), -4, 0)
        mean, deviation = (torch.from_numpy(x).to(self.device) for x in (mean, deviation))
        return (mean + deviation * torch.randn_like(mean)) * self.scale

    def figures(self, clips: np.ndarray, frames: np.ndarray | slice) -> torch.Tensor:
        """How much of each latent pixel the dancer covers, 0 to 1: [B,...,1,16,16]."""
        pixels = np.unpackbits(self.masks[clips, frames], axis=-1)  # (B, ..., 128, 128)
        cells = pixels.reshape(*pixels.shape[:-2], 1, 16, 8, 16, 8).mean((-3, -1), dtype=np.float32)
        return torch.from_numpy(cells).to(self.device)

    def skeletons(self, clips: np.ndarray, frames: np.ndarray) -> torch.Tensor:
        """What the dancer does in one frame of each clip, drawn as FollowYourPose knows it: [B,1,3,128,128], 0 to 1."""
        joints = np.load(self.folder / "keypoints.npy", mmap_mode="r")[clips, frames]  # (B, 18, 3)
        pictures = skeleton.draw(keypoints.Poses(joints[:, None], data.SIZE, data.SIZE, 8.0))
        return torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2)[:, None] / 255

    def tokens(self, clips: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Token ids [B,77] of a new caption for each clip; one in ten is empty, for classifier-free guidance."""
        texts = ["" if rng.random() < 0.1 else caption(self.words[clip], rng) for clip in clips]
        return tokenize(self.tokenizer, texts).to(self.device)


class DiffusionTrainer(torch.nn.Module):
    """An image or video UNet under the states of the frozen text encoder."""

    def __init__(self, unet: torch.nn.Module, text_encoder: torch.nn.Module, diffusion: Diffusion):
        super().__init__()
        self.unet, self.diffusion = unet, diffusion
        self.states = torch.no_grad()(lambda ids: text_encoder(ids).last_hidden_state)  # not a part: not trained

    def forward(self, latents: torch.Tensor, figures: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        context = self.states(ids)
        if latents.ndim == 5:
            predict = TextToVideoUNet(self.unet, context)
        else:

            def predict(*noisy):
                return self.unet(*noisy, context).sample

        return self.diffusion.loss(predict, latents, figures)
