"""What the autoencoder loses: `python -m scripts.theatre.measure`. The referee's verdicts need its weights too."""

import argparse
import time
from dataclasses import astuple
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np
import torch
from diffusers import AutoencoderKL

from scripts.miniature.referee import flicker, still_parts
from scripts.miniature.world import sample_words

from .networks import autoencoder
from .referee import FOLDER, Referee, sharpness
from .training.checkpoints import read_steps, restore
from .world import draw_clip


@torch.no_grad()
def restored(vae: AutoencoderKL, frames: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Frames uint8 [F,256,256,3] encoded and decoded; `noise` of the latents' deviation is added in between."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = torch.cat([vae.encode(image[None]).latent_dist.mean for image in images])
    latents = latents + noise * latents.std(dim=(0, 2, 3), keepdim=True) * torch.randn_like(latents)
    images = torch.cat([vae.decode(latent[None]).sample for latent in latents])
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def seconds_to_decode(vae: AutoencoderKL, frames: int = 16) -> float:
    latents = torch.randn(frames, vae.config.latent_channels, 16, 16)
    vae.decode(latents[:1])
    began = time.perf_counter()
    for latent in latents:
        vae.decode(latent[None])
    return time.perf_counter() - began


def measure(vae: AutoencoderKL, referee: Referee | None, clips: int, noise: float) -> str:
    """One line: the means over freshly drawn clips of all words."""
    rng, rows, right = np.random.default_rng(1), [], []
    for _ in range(clips):
        clip = draw_clip(sample_words(rng, None), rng)
        made = restored(vae, clip.frames, noise)
        error = np.square(made.astype(np.float32) - clip.frames).mean()
        still = still_parts(clip.figure > 0)
        rows.append((10 * np.log10(255**2 / error), sharpness(made) / sharpness(clip.frames), flicker(made, still)))
        if referee:
            right.append(np.array(astuple(referee.judge(made).words)) == astuple(clip.words))
    decibels, sharp, unsteady = np.mean(rows, axis=0)
    line = f"noise {noise:.2f}: {decibels:.2f} dB, sharpness {sharp:.2f}, flicker {unsteady:.2f}"
    if referee:
        shares = zip(("character", "colour", "place", "action"), np.mean(right, axis=0), strict=True)
        line += ", " + ", ".join(f"{kind} {share:.1%}" for kind, share in shares)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    learned = read_steps(arguments.folder)
    stage = "decoder" if "decoder" in learned else "vae"
    vae = autoencoder().eval()
    restore(arguments.folder, stage, vae)
    referee = Referee.load(arguments.folder) if "referee" in learned else None
    print(f"{stage} after {learned[stage]} steps; 16 frames decoded in {seconds_to_decode(vae):.2f} s")
    for noise in (0.0, 0.1):
        print(measure(vae, referee, arguments.clips, noise), flush=True)


if __name__ == "__main__":
    main()
