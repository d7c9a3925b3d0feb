"""Four steps instead of twenty, and one branch instead of two: latent consistency distillation.

Luo et al. 2023, "Latent Consistency Models", algorithm 1 (of a video network: Zhai et al. 2024). From any point of the
teacher's guided path the student tells where the path ends. The guidance is fixed, so the student need not be told it.
The network that sets the aim is the student itself, as it is (Song & Dhariwal 2023, section 3.2: no moving average).
"""

import argparse
import copy
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipelines.models.networks.inflated_unet import EditingUNet, InflatedUNet
from pipelines.models.networks.unet3d import TextToVideoUNet
from scripts.miniature import networks
from scripts.miniature.training.denoising import EXAMPLES, Diffusion
from scripts.miniature.training.loop import SEED, as_grid
from scripts.miniature.training.tempofunk import beside_hints
from scripts.theatre import data

from .checkpoints import learn
from .followers import Conditions, image_unet
from .teachers import Shared

GUIDANCE = 2.5  # folded into the student
STRIDE = 20  # timesteps from one point of the path to the next
STEPS = 4  # of the student
_SOFT = 0.03  # below this, errors count by their square (pseudo-Huber)

Predict = Callable[[Tensor, Tensor], Tensor]  # noisy latents, timesteps [B] -> the noise in them
Predictor = Callable[..., Predict]  # of a network, text states [B,77,128], and what else it is to follow
Batch = tuple[Tensor, ...]  # latents, figures, ids of captions, and what else


class ConsistencyTrainer(nn.Module):
    """The student beside its frozen teacher, which it starts as."""

    def __init__(self, teacher: nn.Module, text_encoder: nn.Module, diffusion: Diffusion, predictor: Predictor):
        super().__init__()
        self.student, self.predictor = copy.deepcopy(teacher).requires_grad_(True), predictor
        self.teacher = [teacher.requires_grad_(False)]  # in a list: not a part, so neither trained nor kept
        self.alphas = diffusion.schedule.alphas_cumprod.to(diffusion.device)
        self.states = torch.no_grad()(lambda ids: text_encoder(ids).last_hidden_state)

    def forward(self, latents: Tensor, figures: Tensor, ids: Tensor, empty: Tensor, *condition: Tensor) -> Tensor:
        """latents [B,12,(F,)16,16]; figures [B,1,(F,)16,16]; ids [B,77] of the captions; empty [1,77]."""
        states = self.states(ids)
        times = torch.randint(1, len(self.alphas) // STRIDE + 1, (len(latents),), device=latents.device) * STRIDE - 1
        earlier = times - STRIDE  # -1 where the path ends
        noise = torch.randn_like(latents)
        noisy = self._mix(latents, noise, times)
        with torch.no_grad():
            both = (torch.cat([each, each]) for each in condition)
            teach = self.predictor(self.teacher[0], torch.cat([self.states(empty).expand_as(states), states]), *both)
            without, told = teach(torch.cat([noisy, noisy]), torch.cat([times, times])).float().chunk(2)
            guided = without + GUIDANCE * (told - without)
            before = self._mix(self._clean(noisy, guided, times), guided, earlier)  # one step of DDIM
            follow = self.predictor(self.student, states, *condition)
            aim = self._clean(before, follow(before, earlier.clamp(min=0)).float(), earlier)
        found = self._clean(noisy, self.predictor(self.student, states, *condition)(noisy, times).float(), times)
        errors = ((found - aim).square() + _SOFT**2).sqrt() - _SOFT
        count = 1 + 4 * figures
        return (count * errors).mean() / count.mean()

    def _levels(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """How much of the latents and of the noise is in them at these times; -1 is before the first, without noise."""
        signal = torch.where(times < 0, torch.ones_like(self.alphas[0]), self.alphas[times.clamp(min=0)])
        signal = signal.view(-1, *[1] * (like.ndim - 1))
        return signal.sqrt(), (1 - signal).sqrt()

    def _mix(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        signal, spread = self._levels(times, latents)
        return signal * latents + spread * noise

    def _clean(self, noisy: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        signal, spread = self._levels(times, noisy)
        return (noisy - spread * noise) / signal


def of_pictures(unet: nn.Module, states: Tensor) -> Predict:
    return lambda noisy, times: unet(noisy, times, states).sample


def of_clips(unet: nn.Module, states: Tensor) -> Predict:
    return TextToVideoUNet(unet, states)


def of_poses(unet: InflatedUNet, states: Tensor, skeletons: Tensor) -> Predict:
    return EditingUNet(unet, states, pose_features=unet.skeleton_adapter(skeletons))


@torch.no_grad()
def few_steps(
    predict: Predict, noise: Tensor, alphas: Tensor, generator: torch.Generator, steps: int = STEPS
) -> Tensor:
    """What a student draws from `noise`: it jumps to the end, adds noise of a lower level, and jumps again."""
    points = len(alphas) // STRIDE
    times = [(points - index * points // steps) * STRIDE - 1 for index in range(steps)]  # from the strongest noise
    noisy = noise
    for time, following in zip(times, [*times[1:], None], strict=True):
        found = predict(noisy, torch.full((len(noisy),), time, device=noisy.device)).float()
        latents = (noisy - (1 - alphas[time]).sqrt() * found) / alphas[time].sqrt()
        if following is not None:
            fresh = torch.randn(noise.shape, generator=generator).to(noise.device)
            noisy = alphas[following].sqrt() * latents + (1 - alphas[following]).sqrt() * fresh
    return latents


def train_lcm_sd(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """Goes on from the stage `sd`."""
    shared = Shared(arguments.work, accelerator.device)
    stills, teacher = shared.latents("stills"), networks.image_unet(data.CHANNELS)
    shared.restore("sd", teacher)

    def batch(rng: np.random.Generator) -> Batch:
        chosen = rng.integers(0, stills.count, 2 * arguments.batch)
        return stills.sample(chosen, 0), stills.figures(chosen, 0), stills.tokens(chosen, rng)

    _distil(accelerator, arguments, steps, shared, "lcm-sd", teacher, batch, of_pictures)


def train_lcm_modelscope(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """Goes on from the stage `modelscope`."""
    shared = Shared(arguments.work, accelerator.device)
    clips, teacher = shared.latents("clips"), networks.video_unet(data.CHANNELS)
    shared.restore("modelscope", teacher)

    def batch(rng: np.random.Generator) -> Batch:
        return clips.videos(rng.integers(0, clips.count, max(1, arguments.batch // 4)), rng)

    _distil(accelerator, arguments, steps, shared, "lcm-modelscope", teacher, batch, of_clips)


def train_lcm_pose(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """Goes on from the stage `motion`, and sees poses and motions together."""
    shared = Shared(arguments.work, accelerator.device)
    clips, teacher = shared.latents("clips"), networks.followyourpose_unet(image_unet(shared))
    shared.restore("motion", teacher)

    def batch(rng: np.random.Generator) -> Batch:
        chosen = rng.integers(0, clips.count, max(1, arguments.batch // 4))
        return *clips.videos(chosen, rng), clips.skeletons(chosen, slice(None))

    _distil(accelerator, arguments, steps, shared, "lcm-pose", teacher, batch, of_poses)


def train_lcm_tempofunk(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    """Goes on from the stage `tempofunk`."""
    shared = Shared(arguments.work, accelerator.device)
    clips, teacher = shared.latents("clips"), networks.tempofunk_unet(image_unet(shared))
    shared.restore("tempofunk", teacher)
    conditions = Conditions(shared, clips)

    def batch(rng: np.random.Generator) -> Batch:
        chosen = conditions.dances(max(1, arguments.batch // 4), rng)
        video, *rest = clips.videos(chosen, rng)
        return video, *rest, conditions.of(video, rng)

    _distil(accelerator, arguments, steps, shared, "lcm-tempofunk", teacher, batch, beside_hints)


def _distil(
    accelerator: Accelerator,
    arguments: argparse.Namespace,
    steps: int,
    shared: Shared,
    stage: str,
    teacher: nn.Module,
    batch: Callable[[np.random.Generator], Batch],
    predictor: Predictor,
) -> None:
    diffusion = Diffusion(accelerator.device)
    trainer = ConsistencyTrainer(teacher.to(accelerator.device), shared.text_encoder, diffusion, predictor)
    empty = shared.tokens([""])

    def loss_of(trainer, step, rng):
        latents, figures, ids, *condition = batch(rng)
        return trainer(latents, figures, ids, empty, *condition)

    @torch.no_grad()
    def grid() -> np.ndarray:
        condition = [each[:1] for each in batch(np.random.default_rng(SEED))[3:]]
        frames = () if predictor is of_pictures else (data.FRAMES,)
        rows = []
        for text in EXAMPLES[:4]:
            predict = predictor(trainer.student, shared.states([text]), *condition)
            latents = few_steps(predict, shared.noise(1, *frames), trainer.alphas, torch.Generator().manual_seed(0))
            rows.append(shared.pictures(latents[:, :, ::2] if frames else latents[:, :, None]))
        return as_grid(np.stack(rows))

    learn(accelerator, arguments, stage, trainer.student, trainer, loss_of, steps, {"": 2e-4}, grid)
