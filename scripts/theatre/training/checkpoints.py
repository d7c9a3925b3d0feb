"""Weights that outlive a stage and a session, and the frame that every stage runs in.

A folder of weights holds the moving averages of each stage's network as STAGE-1.safetensors, STAGE-2.safetensors, …,
none of 10 MB or more, and steps.json: for how many steps each has learned. There is no optimizer state.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from scripts.miniature.training.loop import train

SHARD = 9_900_000  # bytes
Loss = Callable[[nn.Module, int, np.random.Generator], Tensor]


def learn(
    accelerator: Accelerator,
    arguments: argparse.Namespace,
    stage: str,
    network: nn.Module,
    trainer: nn.Module,
    loss_of: Loss,
    steps: int,
    rates: dict[str, float],
    grid: Callable[[], np.ndarray] | None = None,
) -> None:
    """Trains `network`, the first part of `trainer`, up to `steps` in all and keeps it for the stages that follow.

    It goes on from the work folder's checkpoint, or else from what `arguments.start` holds of this stage. Where
    `arguments.seconds` names the stage, it ends after that time at the latest.
    """
    begin = 0
    if arguments.start and stage in (learned := read_steps(arguments.start)):
        restore(arguments.start, stage, network)
        begin = learned[stage]
    grid = grid if steps >= 100 else None  # a test's network has nothing to show
    seconds = arguments.seconds.get(stage, math.inf)
    reached = train(accelerator, stage, trainer, loss_of, steps, rates, arguments.work, grid, begin, seconds)
    if accelerator.is_main_process:
        keep(arguments.work / "weights", stage, network.state_dict(), reached, torch.float32)
    accelerator.wait_for_everyone()


def restore(folder: Path, stage: str, network: nn.Module) -> None:
    """Gives `network` the weights of a stage. Raises ValueError where there are none."""
    weights = kept(folder, stage)
    if not weights:
        raise ValueError(f"{folder} holds no weights of the stage {stage}. Run that stage first.")
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})


def kept(folder: Path, stage: str) -> dict[str, Tensor]:
    """The weights of a stage in `folder`, as they are there; empty where there are none."""
    shards = sorted(folder.glob(f"{stage}-*.safetensors"))
    return {name: tensor for shard in shards for name, tensor in load_file(shard).items()}


def keep(folder: Path, stage: str, weights: dict[str, Tensor], steps: int, dtype: torch.dtype) -> None:
    """Writes the weights of a stage that has learned for `steps` steps, in files below 10 MB, for `restore`."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{stage}-*.safetensors"):
        old.unlink()
    for number, shard in enumerate(_shards(weights, dtype), 1):
        save_file(shard, folder / f"{stage}-{number}.safetensors")
    told = folder / f"steps.{stage}.tmp"  # other processes, with stages of their own, may write it too
    told.write_text(json.dumps(read_steps(folder) | {stage: steps}, indent=2) + "\n")
    told.rename(folder / "steps.json")


def _shards(weights: dict[str, Tensor], dtype: torch.dtype) -> Iterable[dict[str, Tensor]]:
    shard, size = {}, 0
    for name, tensor in weights.items():
        tensor = tensor.detach().to(dtype).contiguous()
        if shard and size + tensor.nbytes > SHARD - 100 * len(weights):  # names and shapes take room too
            yield shard
            shard, size = {}, 0
        shard[name], size = tensor, size + tensor.nbytes
    yield shard


def read_steps(folder: Path) -> dict[str, int]:
    """For how many steps each stage in `folder` has learned."""
    file = folder / "steps.json"
    return json.loads(file.read_text()) if file.exists() else {}


def save_all(work: Path, stages: Iterable[str], folder: Path) -> None:
    """Writes to `folder`, in half precision, the newest weights of every stage: finished ones or the checkpoint's."""
    finished = read_steps(work / "weights")
    for stage in stages:
        checkpoint = work / f"{stage}.pt"
        weights, steps = averages(checkpoint) if checkpoint.exists() else ({}, 0)
        if finished.get(stage, 0) >= steps:  # a finished stage may have changed its averages; or it learns once more
            weights, steps = kept(work / "weights", stage), finished.get(stage, 0)
        if steps:
            keep(folder, stage, weights, steps, torch.float16)


def averages(checkpoint: Path) -> tuple[dict[str, Tensor], int]:
    """The moving averages of the trained network, the trainer's first part, in a checkpoint, and its steps."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    names, shadows = list(state["modules"]), state["average"]["shadow_params"]
    if len(names) != len(shadows):
        raise ValueError(f"{checkpoint} holds more than parameters: its averages can't be told apart.")
    part = names[0].split(".")[0] + "."
    weights = dict(zip(names, shadows, strict=True))
    return {name.removeprefix(part): weight for name, weight in weights.items() if name.startswith(part)}, state["step"]
