"""The loop that every stage runs in: it warms up, decays, averages, and goes on where it was killed."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from PIL import Image
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

SEED = 2026


def train(
    accelerator: Accelerator,
    name: str,
    modules: torch.nn.Module,
    loss_of: Callable[[torch.nn.Module, int, np.random.Generator], torch.Tensor],
    steps: int,
    rates: dict[str, float],
    work: Path,
    grid: Callable[[], np.ndarray] | None = None,
    begin: int = 0,
    seconds: float = math.inf,
) -> int:
    """Trains `modules` for `steps` steps, linear warm-up and decay, and leaves their moving averages in them.

    Where the time runs out first, after `seconds`, it decays by the clock and ends there. Returns the steps in all.

    `rates` are learning rates by a part of the parameters' names: the first that a name contains is its own.

    `loss_of(modules, step, rng)` draws its own batch; every process has its own rng. The state is kept in
    `work/name.pt`, so that a run that was killed goes on from its last checkpoint; where there is none, `modules` have
    learned for `begin` steps already. `grid()` draws what the averaged modules can do, an image uint8 [H,W,3]; it is
    kept as `work/grids/name-step.png` every ten minutes.
    """
    groups = [{"params": [], "lr": rate} for rate in rates.values()]
    for parameter_name, parameter in modules.named_parameters():
        groups[next(i for i, part in enumerate(rates) if part in parameter_name)]["params"].append(parameter)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=1e-3)
    warm_up = min(200, 1 + steps // 10)
    started = time.monotonic()

    def left(step: int) -> float:
        return steps * min(1 - step / steps, 1 - (time.monotonic() - started) / seconds)

    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, max(left(step) / (steps - warm_up), 0.02))
    )
    average = EMAModel(modules.parameters(), decay=0.999, use_ema_warmup=True, power=0.75, foreach=True)
    checkpoint, start = work / f"{name}.pt", begin
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
    quiet = not accelerator.is_main_process
    bar = tqdm(range(start, steps), name, initial=start, total=steps, mininterval=10, disable=quiet)
    saved = drawn = time.monotonic()
    reached, losses = start, []
    attention = PreciseAttention() if accelerator.device.type == "cpu" else nullcontext()
    for step in bar:
        with accelerator.autocast(), attention:
            loss = loss_of(wrapped, step, rng)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(wrapped.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.step(modules.parameters())
        losses = [*losses[-199:], loss.detach()]
        if step % 20 == 0:
            bar.set_postfix(loss=f"{torch.stack(losses).mean().item():.4f}")
        reached = step + 1
        last = left(reached) <= 0
        if accelerator.is_main_process and (time.monotonic() - saved > 180 or last):
            state = {
                "modules": modules.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
                "step": reached,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
            saved = time.monotonic()
        if grid and accelerator.is_main_process and time.monotonic() - drawn > 600:
            average.store(modules.parameters())
            average.copy_to(modules.parameters())
            save_grid(work / "grids" / f"{name}-{reached}.png", grid())
            average.restore(modules.parameters())
            drawn = time.monotonic()
        if last:
            break
    accelerator.wait_for_everyone()
    average.copy_to(modules.parameters())
    if grid and accelerator.is_main_process:
        save_grid(work / "grids" / f"{name}-{reached}.png", grid())
    return reached


def go_on_from(start: Path | None, part: str, module: torch.nn.Module) -> None:
    """Gives `module` the weights published as `part` of the folder `start`, if there is one."""
    if start:
        module.load_state_dict(type(module).from_pretrained(start / part, torch_dtype=torch.float32).state_dict())


def save_grid(file: Path, grid: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid).save(file)


def as_grid(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [rows,columns,H,W,3] side by side: [rows*H, columns*W, 3]."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in frames])


class PreciseAttention(TorchFunctionMode):
    """On a CPU attention is computed in float32: in bfloat16 PyTorch's backward is many times slower there, and eats
    up what bfloat16 saves everywhere else (1.6 times in all)."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        query = args[0] if args else None
        if function is F.scaled_dot_product_attention and query.device.type == "cpu" and query.dtype == torch.bfloat16:
            with torch.autocast("cpu", enabled=False):
                return function(*(each.float() for each in args[:3]), *args[3:], **(kwargs or {})).to(query.dtype)
        return function(*args, **(kwargs or {}))
