"""Trains the paper theatre's models: `python -m scripts.train_miniature --stages vae sd modelscope`.

Each stage writes a checkpoint every few minutes to the work folder and goes on from it when started again; a finished
stage is skipped. One process, or several: `accelerate launch -m scripts.train_miniature …`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from torch.nn import functional
from tqdm import tqdm

from scripts.miniature import data, networks

SEED = 20_26


def train(
    accelerator: Accelerator,
    name: str,
    modules: torch.nn.Module,
    loss_of: Callable[[torch.nn.Module, int, np.random.Generator], torch.Tensor],
    steps: int,
    rate: float,
    work: Path,
    ema_decay: float = 0.999,
) -> None:
    """Trains `modules` for `steps` steps, linear warm-up and decay, and leaves their moving averages in them.

    `loss_of(modules, step, rng)` draws its own batch; every process has its own rng. The state is kept in
    `work/name.pt`, so that a run that was killed goes on from its last checkpoint.
    """
    optimizer = torch.optim.AdamW(modules.parameters(), rate, betas=(0.9, 0.99), weight_decay=1e-3)
    warm_up = min(200, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, max((steps - step) / (steps - warm_up), 0.02))
    )
    average = EMAModel(modules.parameters(), decay=ema_decay, use_ema_warmup=True, power=0.75)
    checkpoint, start = work / f"{name}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        start = state["step"]
        schedule.last_epoch = start
    average.to(accelerator.device)
    wrapped = accelerator.prepare(modules)
    optimizer = accelerator.prepare(optimizer)
    rng = np.random.default_rng((SEED, start, accelerator.process_index))
    torch.manual_seed(SEED + start + accelerator.process_index)
    bar = tqdm(range(start, steps), name, initial=start, total=steps, mininterval=10, disable=not accelerator.is_main_process)
    saved, losses = time.monotonic(), []
    for step in bar:
        with accelerator.autocast():
            loss = loss_of(wrapped, step, rng)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.step(modules.parameters())
        losses = [*losses[-199:], loss.item()]
        if step % 20 == 0:
            bar.set_postfix(loss=f"{np.mean(losses):.4f}")
        if accelerator.is_main_process and (time.monotonic() - saved > 180 or step + 1 == steps):
            state = {
                "modules": modules.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
            saved = time.monotonic()
    accelerator.wait_for_everyone()
    average.copy_to(modules.parameters())


class VaeTrainer(torch.nn.Module):
    """Wraps the autoencoder so that one forward is one loss (what DistributedDataParallel asks for)."""

    def __init__(self, vae: torch.nn.Module):
        super().__init__()
        self.vae = vae

    def forward(self, images: torch.Tensor, figures: torch.Tensor) -> torch.Tensor:
        posterior = self.vae.encode(images).latent_dist
        restored = self.vae.decode(posterior.sample()).sample.float()
        weight = 1 + 2 * figures  # the dancer is small, and what everybody looks at
        error = restored - images
        plain = (weight * (error.abs() + error.square())).mean()
        edges = sum(
            (weight[..., 1:, 1:] * error.diff(dim=dim)[..., : error.shape[2] - 1, : error.shape[3] - 1].abs()).mean()
            for dim in (2, 3)
        )
        return plain + edges + 3e-4 * posterior.kl().mean() / posterior.mean[0].numel()


def train_vae(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    vae = networks.autoencoder()
    device = accelerator.device

    def loss_of(trainer, step, rng):
        images, figures = data.crops(arguments.work / "clips", arguments.batch, 64, rng)
        return trainer(torch.from_numpy(images).to(device), torch.from_numpy(figures).to(device))

    train(accelerator, "vae", VaeTrainer(vae), loss_of, arguments.vae_steps, 2e-3, arguments.work)
    if accelerator.is_main_process:
        vae.save_pretrained(arguments.work / "vae")


STAGES = {"vae": train_vae}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--work", type=Path, default=Path("training"), help="checkpoints and caches (several GB)")
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8, help="crops or clips a process")
    parser.add_argument("--vae-steps", type=int, default=7000)
    arguments = parser.parse_args()
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // accelerator.num_processes))
    set_seed(SEED)
    with accelerator.main_process_first():
        data.draw_clips(arguments.work / "clips", arguments.clips, SEED)
    for stage in arguments.stages:
        STAGES[stage](accelerator, arguments)


if __name__ == "__main__":
    main()
