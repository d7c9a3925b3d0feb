"""The small TempoFunk: the image model inflated, of which only what is new is trained, on clips of dancers."""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizerFast

from pipelines.models.networks.pseudo3d_unet import Pseudo3DUNet, UNetPseudo3DConditionModel
from pipelines.systems import diffusion, tempofunk
from pipelines.systems.stable_diffusion import encode
from scripts.miniature import data, networks

from .denoising import EXAMPLES, Diffusion, Latents
from .loop import SEED, as_grid, train

TRAINED = ("temporal", "conv_in.spatial_conv")  # as published, and the layer that reads mask and hint


class HintTrainer(torch.nn.Module):
    """The inflated UNet beside the first frame of each clip, or beside what a mask leaves of it."""

    def __init__(self, unet: UNetPseudo3DConditionModel, text_encoder: torch.nn.Module, diffusion: Diffusion):
        super().__init__()
        self.unet, self.diffusion = unet, diffusion
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(any(part in name for part in TRAINED))
        self.states = torch.no_grad()(lambda ids: text_encoder(ids).last_hidden_state)  # not a part: not trained

    def forward(
        self, latents: torch.Tensor, figures: torch.Tensor, ids: torch.Tensor, condition: torch.Tensor
    ) -> torch.Tensor:
        """latents [B,4,F,16,16]; figures [B,1,F,16,16]; ids [B,77]; condition [B,5,16,16], mask and hint."""
        return self.diffusion.loss(beside_hints(self.unet, self.states(ids), condition), latents, figures)


def beside_hints(
    unet: UNetPseudo3DConditionModel, states: torch.Tensor, condition: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What `unet` predicts of noisy latents [B,c,F,h,w] at times [B], beside the same `condition` [B,c+1,h,w], mask and
    hint, in all frames."""
    network = Pseudo3DUNet(unet, states)

    def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return network(torch.cat([noisy, condition.unsqueeze(2).expand(-1, -1, noisy.shape[2], -1, -1)], dim=1), times)

    return predict


def train_tempofunk(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    """As TempoFunk's program trains, but for masks, which it never shows and a visitor draws. Goes on from the stages
    `sd` and `latents`."""
    work, device = arguments.work, accelerator.device
    tokenizer = CLIPTokenizerFast.from_pretrained(work / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(work / "text_encoder").to(device)
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device)
    latents = Latents(work, tokenizer, vae.config.scaling_factor, device)
    unet = networks.tempofunk_unet(UNet2DConditionModel.from_pretrained(work / "unet"))
    dances = np.array([index for index, words in enumerate(latents.words) if words.action == "dancing"])
    with torch.no_grad():
        grey = tempofunk.hint_latents(vae, torch.zeros(1, 3, data.SIZE, data.SIZE, device=device))

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
            noise = diffusion.draw_noise((1, 4, data.FRAMES, 16, 16), SEED).to(device)
            states = encode(["", text], tokenizer, text_encoder)
            *_, last = tempofunk.sample(unet, states, noise, condition, networks.SCHEDULER, "dpm++", 20, 3)
            rows.append(np.stack(list(tempofunk.decode(vae, last.latents)))[::2])
        return as_grid(np.stack(rows))

    trainer = HintTrainer(unet, text_encoder, Diffusion(device))
    train(accelerator, "tempofunk", trainer, loss_of, arguments.tempofunk_steps, {"": 1e-3}, work, grid)
    if accelerator.is_main_process:
        unet.save_pretrained(work / "tempofunk", max_shard_size="9950KB")
    accelerator.wait_for_everyone()


def draw_mask(rng: np.random.Generator) -> np.ndarray:
    """[1,16,16], 1 where the hint is not to be followed: mostly nowhere, else in a rectangle, and now and then
    everywhere."""
    mask = np.zeros((1, 16, 16), np.float32)
    kind = rng.random()
    if kind > 0.9:
        mask[:] = 1
    elif kind > 0.6:
        (top, left), (rows, columns) = rng.integers(0, 12, 2), rng.integers(4, 13, 2)
        mask[:, top : top + rows, left : left + columns] = 1
    return mask
