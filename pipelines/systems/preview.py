"""The video as it forms: the linear map from latents to colours that fits a VAE best, and small animated pictures."""

import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from pipelines.events import Preview
from pipelines.media import video

SECONDS_BETWEEN = 0.5  # at least
SHARE = 0.015  # of a run that previews may take, at most
SIDE = 128  # pixels of a preview's longer side, about


class Previewer:
    """Turns latents into Previews, at most two a second and fewer where each takes long; fitted to one VAE."""

    def __init__(self, matrix: Tensor, bias: Tensor, fps: float):
        """`matrix` (channels, 3) and `bias` (3,) map scaled latents to RGB in [-1, 1]."""
        self.matrix, self.bias = matrix.cpu().float(), bias.cpu().float()
        self.fps = fps
        self.due = -float("inf")

    @classmethod
    def of(cls, vae: AutoencoderKL, fps: float) -> "Previewer":
        """With the map stored beside the VAE's config (latent_rgb.json) or else with one fitted now."""
        stored = vae.config.get("latent_rgb")
        if stored is not None:
            return cls(torch.tensor(stored["matrix"]), torch.tensor(stored["bias"]), fps)
        return cls(*fit_latent_rgb(vae), fps)

    def is_due(self) -> bool:
        return time.monotonic() >= self.due

    def preview(self, latents: Tensor) -> Preview:
        """Of scaled latents (1, c, f, h, w)."""
        began = time.monotonic()
        pictures = latents[0].permute(1, 2, 3, 0).cpu().float() @ self.matrix + self.bias  # (f, h, w, 3)
        enlarge = max(1, SIDE // max(pictures.shape[1:3]))
        pictures = F.interpolate(pictures.permute(0, 3, 1, 2), scale_factor=enlarge, mode="bicubic")
        pictures = pictures.permute(0, 2, 3, 1)
        image = video.animation(to_uint8(pictures).numpy(), self.fps)
        done = time.monotonic()
        self.due = done + max(SECONDS_BETWEEN, (done - began) / SHARE)
        return Preview(image)


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] -> 0 … 255, truncated and not rounded, as ModelScope does."""
    return ((images * 0.5 + 0.5).clamp(0, 1) * 255).to(torch.uint8)


@torch.no_grad()
def fit_latent_rgb(vae: AutoencoderKL, latents: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The `matrix` (c, 3) and `bias` (3,) by which scaled latents come closest to what `vae` decodes them to.

    Least squares over the pixels of the decoded pictures, averaged to latent size. `latents` (n, c, h, w) are scaled
    ones to fit on; by default smooth random ones, as those of pictures are smooth.
    """
    if latents is None:
        coarse = torch.randn((4, vae.config.latent_channels, 4, 4), generator=torch.Generator().manual_seed(0))
        latents = F.interpolate(coarse, size=(16, 16), mode="bicubic")
    latents = latents.to(vae.device, vae.dtype)
    pictures = vae.decode(latents / vae.config.scaling_factor).sample  # (n, 3, H, W)
    pictures = pictures.nan_to_num().clamp(-1, 1)  # where half precision is too narrow, the video can still be made
    return colour_map(latents, pictures)


def colour_map(latents: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The `matrix` (c, 3) and `bias` (3,) by which `latents` (n, c, h, w) come closest to `pictures` (n, 3, H, W)."""
    height, width = latents.shape[2:]
    colours = F.adaptive_avg_pool2d(pictures, (height, width)).movedim(1, -1).flatten(0, 2).float()  # (n h w, 3)
    values = latents.movedim(1, -1).flatten(0, 2).float()  # (n h w, c)
    values = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)  # (n h w, c + 1)
    solution = torch.linalg.lstsq(values.cpu(), colours.cpu()).solution  # (c + 1, 3)
    return solution[:-1], solution[-1]
