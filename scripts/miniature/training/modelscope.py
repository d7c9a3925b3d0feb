"""The small ModelScope: starts as the image model, and learns what moves how."""

import argparse

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizerFast

from pipelines.systems import diffusion, modelscope
from pipelines.systems.stable_diffusion import encode
from scripts.miniature import data, networks

from .denoising import EXAMPLES, Diffusion, DiffusionTrainer, Latents
from .loop import SEED, as_grid, go_on_from, train


def train_modelscope(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    work, device = arguments.work, accelerator.device
    tokenizer = CLIPTokenizerFast.from_pretrained(work / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(work / "text_encoder").to(device)
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device)
    latents = Latents(work, tokenizer, vae.config.scaling_factor, device)
    unet = networks.video_unet()
    networks.start_as_images(unet, UNet2DConditionModel.from_pretrained(work / "unet"))
    go_on_from(arguments.start, "modelscope/unet", unet)
    steps = arguments.modelscope_steps

    def loss_of(trainer, step, rng):
        # Half clips first: twice the clips in the same time, while the network learns what a motion is.
        frames = data.FRAMES if step > 0.6 * steps else data.FRAMES // 2
        clips = rng.integers(0, latents.count(), arguments.batch // 2 * data.FRAMES // frames)
        start = rng.integers(0, data.FRAMES - frames + 1)
        part = slice(start, start + frames)
        video, figures = (get(clips, part).transpose(1, 2) for get in (latents.sample, latents.figures))
        return trainer(video, figures, latents.tokens(clips, rng))  # (B, 4, F, 16, 16), (B, 1, F, 16, 16)

    @torch.no_grad()
    def grid() -> np.ndarray:
        rows = []
        for text in EXAMPLES[:4]:
            states = encode(["", text], tokenizer, text_encoder)
            noise = diffusion.draw_noise((1, 4, data.FRAMES, 16, 16), SEED).to(device)
            *_, last = modelscope.sample(unet, states, noise, networks.SCHEDULER, "dpm++", 20, 6)
            rows.append(np.stack(list(modelscope.decode(vae, last.latents)))[::2])
        return as_grid(np.stack(rows))

    rates = {"temp_": 1e-3, "transformer_in": 1e-3, "": 7e-4}  # slower where the image model has learned already
    train(
        accelerator,
        "modelscope",
        DiffusionTrainer(unet, text_encoder, Diffusion(device)),
        loss_of,
        steps,
        rates,
        work,
        grid,
    )
    if accelerator.is_main_process:
        unet.save_pretrained(work / "unet3d")
