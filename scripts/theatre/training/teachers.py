"""The image model and the video model: many steps, guided by a second branch. The fast ones learn from them."""

import argparse
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import CLIPTextModel, CLIPTokenizerFast

from pipelines.systems import diffusion, modelscope
from pipelines.systems.stable_diffusion import encode
from scripts.miniature import networks
from scripts.miniature.training.denoising import EXAMPLES, Diffusion, DiffusionTrainer
from scripts.miniature.training.loop import SEED, as_grid
from scripts.miniature.training.text import tokenize
from scripts.theatre import data
from scripts.theatre import networks as theatre

from .checkpoints import learn, restore
from .latents import Latents

MINIATURE = (
    Path(__file__).resolve().parents[3] / "assets" / "miniature"
)  # the models at 128x128: their text encoder stays


class Shared:
    """What all stages that denoise use and none of them trains."""

    def __init__(self, work: Path, device: torch.device):
        self.work, self.device = work, device
        self.tokenizer = CLIPTokenizerFast.from_pretrained(MINIATURE / "sd" / "tokenizer")
        self.text_encoder = CLIPTextModel.from_pretrained(MINIATURE / "sd" / "text_encoder").to(device)
        self.vae = theatre.autoencoder()
        self.restore("vae", self.vae)
        self.vae.to(device)

    def restore(self, stage: str, network: torch.nn.Module) -> None:
        """Gives `network` what an earlier stage has learned."""
        restore(self.work / "weights", stage, network)

    def latents(self, kind: str) -> Latents:
        """Of "stills" or "clips"."""
        return Latents(self.work / kind, self.tokenizer, self.device)

    def states(self, texts: list[str]) -> torch.Tensor:
        return encode(texts, self.tokenizer, self.text_encoder)

    def tokens(self, texts: list[str]) -> torch.Tensor:
        """Ids [B,77]."""
        return tokenize(self.tokenizer, texts).to(self.device)

    def noise(self, count: int, *frames: int) -> torch.Tensor:
        shape = (count, data.CHANNELS, *frames, data.CELLS, data.CELLS)
        return diffusion.draw_noise(shape, SEED).to(self.device)

    def pictures(self, latents: torch.Tensor) -> np.ndarray:
        """Scaled latents [1,12,F,16,16] decoded, uint8 [F,256,256,3]."""
        return np.stack(list(modelscope.decode(self.vae, latents)))


def warm_start(unet: torch.nn.Module, folder: Path) -> None:
    """Gives `unet` the weights of the model at 128x128, but for the layers that read and write latents."""
    known = type(unet).from_pretrained(folder, torch_dtype=torch.float32).state_dict()
    own = unet.state_dict()
    unet.load_state_dict(own | {name: known[name] for name in own if own[name].shape == known[name].shape})


def train_sd(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    shared = Shared(arguments.work, accelerator.device)
    latents, unet = shared.latents("stills"), networks.image_unet(data.CHANNELS)
    warm_start(unet, MINIATURE / "sd" / "unet")

    def loss_of(trainer, step, rng):
        stills = rng.integers(0, latents.count, 3 * arguments.batch)
        return trainer(latents.sample(stills, 0), latents.figures(stills, 0), latents.tokens(stills, rng))

    @torch.no_grad()
    def grid() -> np.ndarray:
        empty, states = shared.states(["", *EXAMPLES]).split([1, len(EXAMPLES)])
        context = torch.cat([empty.expand_as(states), states])

        def predict(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
            return unet(noisy.repeat(2, 1, 1, 1), timestep, encoder_hidden_states=context).sample

        solver = diffusion.solver("dpm++", networks.SCHEDULER, 20)
        foresee = diffusion.estimate_from_noise(networks.SCHEDULER)
        *_, last = diffusion.denoise(diffusion.guided(predict, 3), shared.noise(len(EXAMPLES)), solver, foresee)
        pictures = shared.pictures(last.latents.transpose(0, 1)[None])
        return as_grid(pictures.reshape(2, -1, data.SIZE, data.SIZE, 3))

    trainer = DiffusionTrainer(unet, shared.text_encoder, Diffusion(accelerator.device))
    learn(accelerator, arguments, "sd", unet, trainer, loss_of, steps, {"": 1.5e-3}, grid)


def train_modelscope(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    shared = Shared(arguments.work, accelerator.device)
    latents, unet = shared.latents("clips"), networks.video_unet(data.CHANNELS)
    image = networks.image_unet(data.CHANNELS)
    shared.restore("sd", image)
    networks.start_as_images(unet, image)
    warm_start(unet, MINIATURE / "modelscope" / "unet")  # knows how things move; reads and writes latents as `image`

    def loss_of(trainer, step, rng):
        # Half clips first: twice the clips in the same time, while the network learns what a motion is.
        frames = data.FRAMES if step > 0.6 * steps else data.FRAMES // 2
        clips = rng.integers(0, latents.count, arguments.batch // 2 * data.FRAMES // frames)
        first = rng.integers(0, data.FRAMES - frames + 1)
        part = slice(first, first + frames)
        return trainer(*latents.videos(clips, rng, part))

    @torch.no_grad()
    def grid() -> np.ndarray:
        rows = []
        for text in EXAMPLES[:4]:
            noise = shared.noise(1, data.FRAMES)
            *_, last = modelscope.sample(unet, shared.states(["", text]), noise, networks.SCHEDULER, "dpm++", 15, 3)
            rows.append(shared.pictures(last.latents[:, :, ::2]))
        return as_grid(np.stack(rows))

    trainer = DiffusionTrainer(unet, shared.text_encoder, Diffusion(accelerator.device))
    rates = {"temp_": 1e-3, "transformer_in": 1e-3, "": 7e-4}  # slower where the image model has learned already
    learn(accelerator, arguments, "modelscope", unet, trainer, loss_of, steps, rates, grid)
