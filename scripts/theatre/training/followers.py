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
from .latents import Latents
from .teachers import Shared


def train_poses(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """The pose encoder, on single pictures, the rest being frozen (Ma et al. 2023, section 3.2)."""
    shared = Shared(arguments.work, accelerator.device)
    latents, unet = shared.latents("clips"), networks.followyourpose_unet(image_unet(shared))

    def loss_of(trainer, step, rng):
        clips = rng.integers(0, latents.count, 3 * arguments.batch)
        frames = rng.integers(0, data.FRAMES, len(clips))
        picture, figures = (get(clips, frames)[:, :, None] for get in (latents.sample, latents.figures))
        return trainer(picture, figures, latents.tokens(clips, rng), latents.skeletons(clips, frames))

    trainer = FollowingTrainer(unet, shared.text_encoder, Diffusion(accelerator.device), POSE)
    learn(accelerator, arguments, "pose", unet, trainer, loss_of, steps, {"": 1e-3})


def train_motion(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """What relates frames, on clips without poses (the same section). Goes on from the stage `pose`."""
    shared = Shared(arguments.work, accelerator.device)
    latents, unet = shared.latents("clips"), networks.followyourpose_unet(image_unet(shared))
    shared.restore("pose", unet)

    def loss_of(trainer, step, rng):
        clips = rng.integers(0, latents.count, max(1, arguments.batch // 2))
        return trainer(*latents.videos(clips, rng))

    trainer = FollowingTrainer(unet, shared.text_encoder, Diffusion(accelerator.device), MOTION)
    learn(accelerator, arguments, "motion", unet, trainer, loss_of, steps, {"": 1e-3})


def image_unet(shared: Shared) -> UNet2DConditionModel:
    unet = networks.image_unet(data.CHANNELS)
    shared.restore("sd", unet)
    return unet


class Conditions:
    """What TempoFunk's network sees beside the noisy latents: a mask, and what that leaves of the first frame."""

    def __init__(self, shared: Shared, clips: Latents):
        dancing = [index for index, words in enumerate(clips.words[: clips.count]) if words.action == "dancing"]
        self.dancing, self.device = np.array(dancing), shared.device
        with torch.no_grad():
            pictures = torch.zeros(1, 3, data.SIZE, data.SIZE, device=shared.device)
            self.grey = tempofunk.hint_latents(shared.vae, pictures)

    def dances(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers of clips that show dancers."""
        return rng.choice(self.dancing, count)

    def of(self, video: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Of latents [B,12,F,16,16], with a new mask for each: [B,13,16,16]."""
        mask = torch.from_numpy(np.stack([draw_mask(rng) for _ in video])).to(self.device)  # (B, 1, 16, 16)
        return torch.cat([mask, torch.where(mask > 0.5, self.grey, video[:, :, 0])], dim=1)


def train_tempofunk(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """As TempoFunk's program trains, but for masks, which it never shows and a visitor draws."""
    shared = Shared(arguments.work, accelerator.device)
    latents, unet = shared.latents("clips"), networks.tempofunk_unet(image_unet(shared))
    conditions = Conditions(shared, latents)

    def loss_of(trainer, step, rng):
        clips = conditions.dances(max(1, arguments.batch // 2), rng)
        video, *rest = latents.videos(clips, rng)
        return trainer(video, *rest, conditions.of(video, rng))

    @torch.no_grad()
    def grid() -> np.ndarray:
        rows = []
        for clip, text in zip(conditions.dancing[:4], EXAMPLES, strict=False):
            hint = latents.sample(np.array([clip]), np.array([0]))
            condition = torch.cat([torch.zeros_like(hint[:, :1]), hint], dim=1)
            noise, states = shared.noise(1, data.FRAMES), shared.states(["", text])
            *_, last = tempofunk.sample(unet, states, noise, condition, networks.SCHEDULER, "dpm++", 15, 3)
            rows.append(shared.pictures(last.latents[:, :, ::2]))
        return as_grid(np.stack(rows))

    trainer = HintTrainer(unet, shared.text_encoder, Diffusion(accelerator.device))
    learn(accelerator, arguments, "tempofunk", unet, trainer, loss_of, steps, {"": 1e-3}, grid)
