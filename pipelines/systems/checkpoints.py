"""Checkpoints: the state of a denoising loop, kept while it runs, so that a job that was cut off goes on from there.

What goes on from a checkpoint ends with the same latents, byte for byte, as what nobody cut off, on the same machine.
"""

import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from pipelines.models.convert import states
from pipelines.systems.diffusion import Solver, Step

SECONDS = 5.0  # from one checkpoint of a loop to the next

log = logging.getLogger(__name__)


class Checkpoint:
    """Of one loop: a file, whole or not at all. Where that can't be written or read, the loop does without it."""

    def __init__(self, file: Path, circumstances: str, seconds: float | None = None):
        """`circumstances` is all that the latents depend on beside the job's own settings; a checkpoint that was kept
        under others is not gone on from."""
        self._file, self._circumstances = file, f"{circumstances}, torch {torch.__version__}"
        self._seconds = SECONDS if seconds is None else seconds
        self._kept = time.monotonic()
        self.restored = 0  # the number of the step that the loop went on from

    def restore(self, latents: Tensor, solver: Solver | None = None) -> Step | None:
        """The last step that was kept, and `solver` as it was after it; None where the loop is to begin.

        `latents` are those that it would begin with, for their shape and device. A loop without a solver remembers
        nothing but latents.
        """
        try:
            state = states.load(self._file, latents.device)
            if state is None or state["circumstances"] != self._circumstances:
                return None
            step = Step(state["number"], state["total"], state["latents"], state["denoised"])
            if step.latents.shape[-4:] != latents.shape[-4:]:
                return None
            if solver is not None:
                solver.restore(state["solver"])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("The job begins anew: %s", error)
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
        state = {"circumstances": self._circumstances, **vars(step)}
        try:
            states.save(state | {"solver": solver.state() if solver is not None else {}}, self._file)
        except OSError as error:  # the disk is full: the job needs no checkpoint to end well
            log.warning("A checkpoint could not be written: %s", error)
        self._kept = time.monotonic()


class Checkpoints:
    """Those of one job: one for each of its loops, in a folder of their own."""

    def __init__(self, folder: Path, seconds: float | None = None):
        """`seconds` from one checkpoint of a loop to the next; SECONDS where it is None."""
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
