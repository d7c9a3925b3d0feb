"""How long a job will take, roughly, before it starts. Standard library only.

What a network computes is known exactly (ModelCard.flops); how fast a device does it is known from the jobs that it
has done, and until there is one from the kind of device.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from pipelines.catalog import ModelCard
from pipelines.events import Result
from pipelines.serving.jobs import Job
from pipelines.settings import Settings
from pipelines.tasks import Task, Tune

# In calls of the network:
DECODING = 2.5  # the VAE's work on all frames
TRAINING = 2.45  # a tuning step with its gradients, where it saves memory
# FLOPs a second that really come out, in a network of this kind: of a GPU such as Spaces have, and of a CPU's core.
GPU, CORE = 25e12, 35e9


def work(task: Task, card: ModelCard) -> float:
    """The FLOPs of `task` with the model `card`; where the card does not know, a number that grows in proportion."""
    if isinstance(task, Tune):
        calls = TRAINING * task.steps + card.defaults.steps  # and the inversion
    else:
        calls = task.steps * (2 if task.guidance > 1 else 1) + DECODING
    return calls * (card.flops or 1.0) * task.frames * task.width * task.height


def seconds(task: Task, card: ModelCard, made: Iterable[Job], speed: float) -> float | None:
    """What `task` will take with the model `card`: as the best of the jobs `made` here, by the work in each.

    Where none of these was with that model, by `speed`, FLOPs a second; None where that can't be told either.
    """
    paces = [
        job.end.facts["device_seconds"] / work(job.task, card)
        for job in made
        if job.task.model == task.model and _timed(job)
    ]
    if paces:
        return min(paces) * work(task, card)
    return work(task, card) / speed if card.flops else None


def _timed(job: Job) -> bool:
    """Whether the job tells how long a whole one takes."""
    if not isinstance(job.end, Result):
        return False
    return "device_seconds" in job.end.facts and not job.end.facts.get("resumed_at_step")


def has_gpu(settings: Settings) -> bool:
    """Whether jobs run on a GPU, as far as can be told without importing torch."""
    if settings.device == "auto":
        return Path("/dev/nvidia0").exists()
    return settings.device.startswith("cuda")


def usual_speed(settings: Settings) -> float:
    """FLOPs a second of the device that jobs run on."""
    return GPU if has_gpu(settings) else CORE * min(os.cpu_count() or 1, 16)
