"""FollowYourPose and TempoFunk, which grow out of the image model."""

import argparse

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel

from pipelines.systems import tempofunk
from scripts.miniature import networks
from scripts.miniature.training.denoising import EXAMPLES, Diffusion
from scripts.miniature.training.followyourpose import MOTION, POSE, FollowingTrainer
from scripts.miniature.training.loop import as_grid
from scripts.miniature.training.tempofunk import HintTrainer, draw_mask
from scripts.theatre import data

from .checkpoints import learn
from .teachers import Shared


def train_poses(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """The pose encoder, on single pictures, the rest being frozen (Ma et al. 2023, section 3.2)."""
    shared = Shared(arguments.work, accelerator.device)
    latents, unet = shared.latents("clips"), networks.followyourpose_unet(_image_unet(shared))

    def loss_of(trainer, step, rng):
        clips = rng.integers(0, latents.count(), 3 * arguments.batch)
        frames = rng.integers(0, data.FRAMES, len(clips))
        picture, figures = (get(clips, frames)[:, :, None] for get in (latents.sample, latents.figures))
        return trainer(picture, figures, latents.tokens(clips, rng), latents.skeletons(clips, frames))

    trainer = FollowingTrainer(unet, shared.text_encoder, Diffusion(accelerator.device), POSE)
    learn(accelerator, arguments, "pose", unet, trainer, loss_of, steps, {"": 1e-3})


def train_motion(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """What relates frames, on clips without poses (the same section). Goes on from the stage `pose`."""
    shared = Shared(arguments.work, accelerator.device)
    latents, unet = shared.latents("clips"), networks.followyourpose_unet(_image_unet(shared))
    shared.restore("pose", unet)

    def loss_of(trainer, step, rng):
        clips = rng.integers(0, latents.count(), max(1, arguments.batch // 2))
        video, figures = (get(clips, slice(None)).transpose(1, 2) for get in (latents.sample, latents.figures))
        return trainer(video, figures, latents.tokens(clips, rng))  # (B, 12, F, 16, 16), (B, 1, F, 16, 16)

    trainer = FollowingTrainer(unet, shared.text_encoder, Diffusion(accelerator.device), MOTION)
    learn(accelerator, arguments, "motion", unet, trainer, loss_of, steps, {"": 1e-3})


def _image_unet(shared: Shared) -> UNet2DConditionModel:
    unet = networks.image_unet(data.CHANNELS)
    shared.restore("sd", unet)
    return unet


def train_tempofunk(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """As TempoFunk's program trains, but for masks, which it never shows and a visitor draws."""
    shared = Shared(arguments.work, accelerator.device)
    latents, device = shared.latents("clips"), accelerator.device
    unet = networks.tempofunk_unet(_image_unet(shared))
    dances = np.array([index for index, words in enumerate(latents.words) if words.action == "dancing"])
    with torch.no_grad():
        grey = tempofunk.hint_latents(shared.vae, torch.zeros(1, 3, data.SIZE, data.SIZE, device=device))

    def loss_of(trainer, step, rng):
        clips = rng.choice(dances[dances < latents.count()], max(1, arguments.batch // 2))
        video, figures = (get(clips, slice(None)).transpose(1, 2) for get in (latents.sample, latents.figures))
        mask = torch.from_numpy(np.stack([draw_mask(rng) for _ in clips])).to(device)  # (B, 1, 16, 16)
        condition = torch.cat([mask, torch.where(mask > 0.5, grey, video[:, :, 0])], dim=1)
        return trainer(video, figures, latents.tokens(clips, rng), condition)

    @torch.no_grad()
    def grid() -> np.ndarray:
        rows = []
        for clip, text in zip(dances[:4], EXAMPLES, strict=False):
            hint = latents.sample(np.array([clip]), np.array([0]))
            condition = torch.cat([torch.zeros_like(hint[:, :1]), hint], dim=1)
            noise, states = shared.noise(1, data.FRAMES), shared.states(["", text])
            *_, last = tempofunk.sample(unet, states, noise, condition, networks.SCHEDULER, "dpm++", 15, 3)
            rows.append(shared.pictures(last.latents[:, :, ::2]))
        return as_grid(np.stack(rows))

    trainer = HintTrainer(unet, shared.text_encoder, Diffusion(device))
    learn(accelerator, arguments, "tempofunk", unet, trainer, loss_of, steps, {"": 1e-3}, grid)
