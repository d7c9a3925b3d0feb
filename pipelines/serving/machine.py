"""What the machine can do and how it is: models at hand, estimates, memory, health."""

from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pipelines.cards import ModelCard
from pipelines.catalog import find
from pipelines.events import Result
from pipelines.messages import said
from pipelines.models import tokens
from pipelines.models.files import part_folder
from pipelines.models.sources import locate
from pipelines.serving import estimate, health, load_time, metrics
from pipelines.serving.dispatcher import Dispatcher
from pipelines.serving.executor import Executor
from pipelines.serving.status import Status, Worker
from pipelines.serving.table import JobTable
from pipelines.settings import Settings
from pipelines.tasks import Finish, Grid, Task, kind_of


class Machine:
    """Answers without waiting, and loads nothing."""

    def __init__(
        self,
        settings: Settings,
        catalog: Mapping[str, ModelCard],
        table: JobTable,
        executor: Executor,
        dispatcher: Dispatcher,
        drained: Container[str],
        notes: Sequence[str],
    ):
        """`notes` are what has happened to the data, in sentences."""
        self._settings, self._catalog, self._table, self._notes = settings, catalog, table, notes
        self._executor, self._dispatcher, self._drained = executor, dispatcher, drained
        self._tokenizers: dict[str, tokens.Tokenizer] = {}  # by model

    def availability(self, model: str) -> str | None:
        """None if the weights of `model` are at hand, else one sentence: what is missing and what to do."""
        return self._executor.availability(model)

    def estimate(self, task: Task) -> float | None:
        """The seconds that `task` will take here, roughly, once its turn has come; None where that can't be told."""
        return estimated(task, self._catalog, self._table, self._executor)

    def seconds_to_load(self, task: Task) -> float:
        """The seconds that `task` will first wait for its model to be loaded, roughly; 0 where what is made before it
        loads that."""
        models = {job.task.model for job in self._table.unfinished() if not isinstance(job.task, Finish | Grid)}
        if isinstance(task, Finish | Grid) or task.model in models:
            return 0.0
        slots = [replace(one, fresh=one.fresh and not models) for one in self._executor.slots()]
        return min(
            load_time.loading(task, one, self._settings, self._catalog, self._table, self._executor) for one in slots
        )

    def seconds_ahead(self) -> float | None:
        """The seconds until what waits and runs now is done, roughly; None where that can't be told."""
        return self._table.seconds_ahead()

    def estimate_on_gpu(self, task: Task) -> float | None:
        """What `estimate` would be on a GPU such as Spaces have; None where jobs run on a GPU already, and for a task
        without a model, which uses none."""
        if self.has_gpu() or isinstance(task, Finish | Grid):
            return None
        return estimate.seconds(task, find(task.model, self._catalog), (), estimate.GPU)

    def lent(self, task: Task) -> int | None:
        """The seconds of GPU that `task` asks for at once where GPUs are lent; None where they are not, and for a task
        without a model."""
        return self._executor.lent(task, self.estimate(task))

    def has_gpu(self) -> bool:
        """Whether jobs run on a GPU."""
        return self._executor.has_gpu

    def status(self) -> Status:
        """What the machine is at. Loads nothing."""
        jobs = self._table.unfinished()
        waiting, running = sum(job.waits for job in jobs), sum(job.runs for job in jobs)
        trouble = (said("The table of jobs is {state}.", state=self._table.trouble),) if self._table.trouble else ()
        slots = self._executor.slots()
        found = list(dict.fromkeys(slot.device for slot in slots))
        devices = found[0] if len(found) == 1 else " · ".join(found)  # one alone may be a message
        busy = set(self._dispatcher.running)
        workers = tuple(Worker(one.device, one.name in busy, one.name in self._drained, one.ready) for one in slots)
        held = sorted((one for slot in slots for one in slot.models), key=lambda one: -one.bytes)
        return Status(devices, running, waiting, tuple(held), (*self._notes, *trouble), workers)

    def health(self) -> dict[str, Any]:
        """Whether videos can be made ("ok"), and what is known of the worker, the disk and the table. No secrets."""
        loops = list(self._dispatcher.loops.values())
        return health.report(loops, self._table, self._settings, self._settings.data, self._notes)

    def metrics(self) -> str:
        """For Prometheus: see metrics.text."""
        jobs = self._table.unfinished()
        waiting, paused = sum(job.waits for job in jobs), sum(job.paused for job in jobs)
        running, slots = list(self._dispatcher.running), self._executor.slots()
        drained = [slot.name for slot in slots if slot.name in self._drained]
        return metrics.text(waiting, paused, running, slots, drained, self._dispatcher.counts, self.health()["ok"])

    def load_ahead(self) -> None:
        """Somebody has come: has the built-in models loaded while nothing else is to be done. Returns at once."""
        self._executor.load_ahead()

    def unload(self) -> None:
        """Frees the memory of every model that no job uses right now; the next job loads what it needs again."""
        self._executor.unload()

    def tokens(self, model: str, prompt: str) -> tuple[int, str] | None:
        """How many tokens `prompt` is for `model`, and the end of it that is not read ("" for none); None where the
        weights are not at hand. Quick enough to be asked at every key."""
        card = find(model, self._catalog)
        if model not in self._tokenizers:
            if self.availability(model) is not None:
                return None
            folder = part_folder(locate(card.source, self._settings), "tokenizer")
            self._tokenizers[model] = tokens.tokenizer_of(folder)
        return tokens.report(prompt, self._tokenizers[model], card.max_tokens)


def estimated(task: Task, catalog: Mapping[str, ModelCard], table: JobTable, executor: Executor) -> float | None:
    """As Machine.estimate: by the jobs in `table` that were like it, else by the executor's usual speed."""
    if isinstance(task, Finish):  # the video may have fewer frames than were asked for
        with suppress(ValueError):
            source = table.get(task.source)
            task = replace(task, of=source.made) if isinstance(source.end, Result) else task
    card = None if isinstance(task, Finish | Grid) else find(task.model, catalog)
    return estimate.seconds(task, card, table.latest(kind_of(task)), executor.speed)
