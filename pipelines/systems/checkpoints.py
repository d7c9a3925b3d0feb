"""Checkpoints: the state of a denoising loop, kept while it runs, so that a job that was cut off goes on from there.

What goes on from a checkpoint ends with the same latents, byte for byte, as what nobody cut off, on the same machine.
"""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines.media import video
from pipelines.systems.diffusion import Solver, Step

SECONDS = 5.0  # from one checkpoint of a loop to the next


class Checkpoint:
    """Of one loop: a file, whole or not at all. Where that can't be written or read, the loop does without it."""

    def __init__(self, file: Path, circumstances: str, seconds: float = SECONDS):
        """`circumstances` is all that the latents depend on beside the job's own settings; a checkpoint that was kept
        under others is not gone on from."""
        self._file, self._circumstances, self._seconds = file, f"{circumstances}, torch {torch.__version__}", seconds
        self._kept = time.monotonic()
        self.restored = 0  # the number of the step that the loop went on from

    def restore(self, latents: Tensor, solver: Solver | None = None) -> Step | None:
        """The last step that was kept, and `solver` as it was after it; None where the loop is to begin.

        `latents` are those that it would begin with, for their shape and device. A loop without a solver remembers
        nothing but latents.
        """
        try:
            with safe_open(self._file, framework="pt", device="cpu") as content:
                told = json.loads(content.metadata()["state"])
                tensors = {name: content.get_tensor(name) for name in content.keys()}
            if told["circumstances"] != self._circumstances or tensors["latents"].shape[-4:] != latents.shape[-4:]:
                return None
            tensors = {name: tensor.to(latents.device) for name, tensor in tensors.items()}
            step = Step(told["number"], told["total"], tensors["latents"], tensors["denoised"])
            if solver is not None:
                solver.load_state_dict(_unpacked(told["solver"], tensors))
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            logging.getLogger(__name__).warning("A checkpoint can't be read; the job begins anew: %s", error)
            return None
        self.restored = step.number
        return step

    def keep(self, step: Step, solver: Solver) -> None:
        """Writes the state after `step` if that is due, or if the loop ends with it."""
        if step.number == step.total or self.is_due():
            self.write(step, solver)

    def is_due(self) -> bool:
        """Whether the last one was written a while ago."""
        return time.monotonic() - self._kept >= self._seconds

    def write(self, step: Step, solver: Solver | None = None) -> None:
        """Writes the state after `step`."""
        tensors = {"latents": step.latents, "denoised": step.denoised}
        told = {"circumstances": self._circumstances, "number": step.number, "total": step.total}
        told["solver"] = _packed(solver.state_dict() if solver is not None else {}, tensors)
        content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with video.whole(self._file) as temporary:
                save_file(content, temporary, {"state": json.dumps(told)})
        except (OSError, SafetensorError) as error:  # the disk is full: the job needs no checkpoint to end well
            logging.getLogger(__name__).warning("A checkpoint could not be written: %s", error)
        self._kept = time.monotonic()


class Checkpoints:
    """Those of one job: one for each of its loops, in a folder of their own."""

    def __init__(self, folder: Path, seconds: float = SECONDS):
        self._folder, self._seconds = folder, seconds

    def of(self, loop: str, circumstances: str) -> Checkpoint:
        """That of the loop called `loop`, as its file is; `circumstances` as Checkpoint has them."""
        return Checkpoint(self._folder / f"{loop}.safetensors", circumstances, self._seconds)

    def clear(self) -> None:
        """The job has ended: nothing will go on from them."""
        for file in self._folder.glob("*.safetensors"):
            file.unlink(missing_ok=True)
        if self._folder.is_dir():
            self._folder.rmdir()


def _packed(state: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """`state` for JSON: its tensors go to `tensors`, and their names there stand for them."""

    def pack(name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[f"solver.{name}"] = value
            return {"tensor": f"solver.{name}"}
        if isinstance(value, list):
            return [pack(f"{name}.{index}", each) for index, each in enumerate(value)]
        return value

    return {name: pack(name, value) for name, value in state.items()}


def _unpacked(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    def unpack(value: Any) -> Any:
        if isinstance(value, dict):
            return tensors[value["tensor"]]
        return [unpack(each) for each in value] if isinstance(value, list) else value

    return {name: unpack(value) for name, value in state.items()}
