"""How long a model will take to load, roughly, before it does. Standard library only."""

import statistics
from collections.abc import Iterable, Mapping

from pipelines.cards import ModelCard
from pipelines.catalog import find
from pipelines.events import Result
from pipelines.models.sources import bytes_here
from pipelines.serving.estimate import LATEST
from pipelines.serving.executor import Executor, Slot
from pipelines.serving.job import Job
from pipelines.serving.table import JobTable
from pipelines.settings import Settings
from pipelines.tasks import Finish, Grid, Task, kind_of

START = 10.0  # seconds in which a new process imports what loads models
READ = 3e8  # bytes a second


def loading(
    task: Task, slot: Slot, settings: Settings, catalog: Mapping[str, ModelCard], table: JobTable, executor: Executor
) -> float:
    """The seconds in which `slot` first loads the model of `task`: by the jobs in `table`, else by the bytes of its
    weights. 0 where GPUs are lent: there all models are loaded when the app starts."""
    if isinstance(task, Finish | Grid) or slot.holds(task.model) or executor.lent(task, None) is not None:
        return 0.0
    weights = bytes_here(find(task.model, catalog).source, settings)
    return seconds(task.model, table.latest(kind_of(task)), slot, weights)


def seconds(model: str, made: Iterable[Job], slot: Slot, weights: int) -> float:
    """The seconds in which `slot` loads `model`, of so many bytes of `weights`: as for the latest of the jobs `made`
    here, which come newest first, whose slot held as little of it."""
    if slot.holds(model):
        return 0.0
    facts = [job.end.facts for job in made if isinstance(job.end, Result) and job.task.model == model]
    took = [one[fact(slot)] for one in facts if fact(slot) in one][:LATEST]
    if not slot.fresh:
        return statistics.median(took) if took else weights / READ
    if took:
        return max(0.0, statistics.median(took) - slot.since)
    return max(0.0, START + weights / READ - slot.since)


def fact(slot: Slot) -> str:
    """The fact of a video that tells how long its model took to load where the slot was like this one."""
    return "starting_seconds" if slot.fresh else "loading_seconds"
