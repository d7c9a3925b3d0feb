"""The image model: a small Stable Diffusion of paper dancers."""

import argparse

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from transformers import CLIPTextModel, CLIPTokenizerFast

from pipelines.systems import diffusion, modelscope
from pipelines.systems.stable_diffusion import encode
from scripts.miniature import data, networks

from .denoising import EXAMPLES, Diffusion, DiffusionTrainer, Latents
from .loop import SEED, as_grid, go_on_from, train


def train_sd(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    work, device = arguments.work, accelerator.device
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device)
    if arguments.start:  # what the networks have learned goes with its scale
        scale = AutoencoderKL.from_pretrained(arguments.start / "sd" / "vae").config.scaling_factor
    else:
        stored = np.load(work / "clips" / "latents.npy", mmap_mode="r")[:500, ::4, 0]
        scale = float(1 / stored.astype(np.float32).std())
    vae.register_to_config(scaling_factor=scale)
    tokenizer = CLIPTokenizerFast.from_pretrained(work / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(work / "text_encoder").to(device)
    latents = Latents(work, tokenizer, vae.config.scaling_factor, device)
    unet = networks.image_unet()
    go_on_from(arguments.start, "sd/unet", unet)
    trainer = DiffusionTrainer(unet, text_encoder, Diffusion(device))

    def loss_of(trainer, step, rng):
        clips = rng.integers(0, latents.count(), 3 * arguments.batch)
        frames = rng.integers(0, data.FRAMES, len(clips))
        return trainer(latents.sample(clips, frames), latents.figures(clips, frames), latents.tokens(clips, rng))

    @torch.no_grad()
    def grid() -> np.ndarray:
        empty, states = encode(["", *EXAMPLES], tokenizer, text_encoder).split([1, len(EXAMPLES)])
        context = torch.cat([empty.expand_as(states), states])

        def predict(latents: torch.Tensor, timestep: int) -> torch.Tensor:
            return unet(latents.repeat(2, 1, 1, 1), timestep, encoder_hidden_states=context).sample

        noise = diffusion.draw_noise((len(EXAMPLES), 4, 16, 16), SEED).to(device)
        solver = diffusion.solver("dpm++", networks.SCHEDULER, 20)
        foresee = diffusion.estimate_from_noise(networks.SCHEDULER)
        *_, last = diffusion.denoise(diffusion.guided(predict, 4), noise, solver, foresee)
        pictures = np.stack(list(modelscope.decode(vae, last.latents.transpose(0, 1)[None])))
        return as_grid(pictures.reshape(2, -1, data.SIZE, data.SIZE, 3))

    train(accelerator, "sd", trainer, loss_of, arguments.sd_steps, {"": 2e-3}, work, grid)
    if accelerator.is_main_process:
        vae.save_pretrained(work / "vae")
        unet.save_pretrained(work / "unet")
