"""How long a job will take, roughly, before it starts. Standard library only.

What a network computes is known exactly (ModelCard.flops); how fast a device does it is known from the jobs that it
has done, and until there is one from the kind of device.
"""

import math
import os
import statistics
from collections.abc import Iterable
from pathlib import Path

from pipelines.cards import ModelCard
from pipelines.events import Result
from pipelines.serving.job import Job
from pipelines.settings import Settings
from pipelines.tasks import Edit, Finish, Grid, PoseToVideo, Task, TextToVideo, Tune
from pipelines.windows import seen

# In calls of the network:
DECODING = 2.5  # the VAE's work on all frames
WHOLE = 5  # steps before the first that reuses deep features (networks/caching.py)
SHALLOW = 0.08  # a call that reuses deep features (python -m scripts.benchmark shortcuts)
LATEST = 3  # jobs whose pace counts: the middle one is taken, so that an odd one does not
LAID = 10e6  # pixels of a grid's videos that are laid side by side a second
REST = 1.5  # seconds that no network takes: the text is read, the video measured and written
TRAINING = 2.45  # a tuning step with its gradients, where it saves memory
# FLOPs a second that really come out, in a network of this kind: of a GPU such as Spaces have, and of a CPU's core.
GPU, CORE = 25e12, 35e9


def work(task: Task, card: ModelCard | None) -> float:
    """The FLOPs of `task` with the model `card`; where the card does not know, and for a task without a model, a number
    that grows in proportion: pixels. 0 where nothing is known of the video that it is made of."""
    if isinstance(task, Finish | Grid):
        if task.of is None:
            return 0.0
        shape = task.of.frames, task.of.width, task.of.height
        if isinstance(task, Grid):
            return len(task.jobs) * math.prod(shape)
        return math.prod(task.shape(*shape, task.of.fps)[:3])
    assert card is not None, "only what is made of videos has no model"
    if isinstance(task, Tune):
        calls = TRAINING * task.steps + card.defaults.steps  # and the inversion
    else:
        branches = 1 + (task.guided_until - task.guided_from if task.guidance > 1 else 0)
        cached = max(task.steps_made - WHOLE, 0) * (1 - 1 / task.caching)
        calls = (task.steps_made - (1 - SHALLOW) * cached) * branches + DECODING
    return calls * _call(task, card)


def step(task: TextToVideo, card: ModelCard) -> float:
    """As `work`, of one step that takes no shortcut."""
    return (1 + (task.guidance > 1)) * _call(task, card)


def _call(task: TextToVideo | PoseToVideo | Tune | Edit, card: ModelCard) -> float:
    limits = card.limits
    frames = seen(task.frames, limits.window_of(task.frames, task.width, task.height), int(limits.frames.step))
    return (card.flops or 1.0) * frames * task.width * task.height


def seconds(task: Task, card: ModelCard | None, made: Iterable[Job], speed: float) -> float | None:
    """What `task` will take with the model `card`, None for a task without one: as the latest of the jobs `made` here,
    which come newest first, by the work in each.

    Where none of these was like it, by `speed`, FLOPs a second; None where that can't be told either.
    """
    own = work(task, card)
    if isinstance(task, Grid):
        speed = LAID
    took = ((_seconds(job, task), job) for job in made)
    paces = [one / work(job.made, card) for one, job in took if one is not None and work(job.made, card)]
    if paces and own:
        return statistics.median(paces[:LATEST]) * own
    known = isinstance(task, Grid) or (card is not None and card.flops)
    return own / speed + REST if own and known else None


def _seconds(job: Job, task: Task) -> float | None:
    """What `job` took, if it tells how long a whole one like `task` takes."""
    if not isinstance(job.end, Result):
        return None
    facts = job.end.facts
    if isinstance(task, Finish | Grid):
        return facts.get("seconds") if type(job.task) is type(task) else None
    if job.task.model != task.model or facts.get("resumed_at_step"):
        return None
    return facts.get("working_seconds", facts.get("device_seconds"))


def has_gpu(settings: Settings) -> bool:
    """Whether jobs run on a GPU, as far as can be told without importing torch."""
    if settings.device == "auto":
        return Path("/dev/nvidia0").exists()
    return settings.device.startswith("cuda")


def usual_speed(settings: Settings) -> float:
    """FLOPs a second of the device that jobs run on."""
    return GPU if has_gpu(settings) else CORE * min(os.cpu_count() or 1, 16)
