"""What runs jobs: the protocol between the dispatcher and the devices, whoever owns them. No torch, no files.

A `Work` and all that comes of it are plain data: they can be pickled and sent to another process or machine.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipelines.catalog import tuned_models
from pipelines.events import Losses, Preview, Progress
from pipelines.media.measuring import Measured
from pipelines.pose_tasks import FindPoses
from pipelines.serving.status import Loaded
from pipelines.tasks import Task

CHECKPOINTS = "checkpoints"  # the folder, within a job's own, of what it goes on from
BUILT_IN = "built in"  # the kind of a tuned model that comes with the app


@dataclass(frozen=True)
class Asset:
    """Something that a task works on, named as the data folder has it, wherever that is."""

    kind: str  # "clips", "images" or "videos"; or BUILT_IN: not among the data
    name: str  # its id, or one of catalog.tuned_models
    file: str = ""  # what is wanted of it: a file, or for a tuned model a folder
    measured: Measured | None = None  # of a clip: what was measured when it was uploaded

    def path(self, data: Path) -> Path:
        """Where it is on a machine that has the data in the folder `data`."""
        if self.kind == BUILT_IN:
            return tuned_models()[self.name]  # and nothing else of the app's own
        return data.absolute() / self.kind / self.name / self.file


@dataclass(frozen=True)
class Work:
    """One task to be carried out."""

    task: Task | FindPoses  # names what it works on by content: what is made of it may leave the app
    assets: Mapping[str, Asset | tuple[Asset | str, ...]]  # by setting of the task; for one that is gone, a word why
    job: str = ""  # the id of the job; "" for a look at poses, which is none
    file: str = ""  # what its video is to be called
    seconds: float | None = None  # that it will take the device, roughly; None where that is not known

    def folder(self, data: Path) -> Path:
        """Where its results go on a machine that has the data in the folder `data`."""
        return data.absolute() / "videos" / self.job


@dataclass(frozen=True)
class Made:
    """What has come of a work: files in the job's folder among the data, and facts."""

    files: Mapping[str, str]  # their names: of the "video", and of what is kept beside it, such as the "tuned" model
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """A place for one work at a time: a device, and the models that are there already."""

    name: str
    device: str  # for a person
    models: tuple[Loaded, ...] = ()  # the largest first
    ready: bool = True  # whether it takes work at this moment
    fresh: bool = False  # whether no model was ever loaded there: what loads them is to be imported first
    since: float = 0.0  # seconds for which it has done that ahead of any work

    def holds(self, model: str) -> bool:
        """Whether anything of `model` is loaded there."""
        return any(model in one.models for one in self.models)


class WorkerDied(Exception):
    """What carried out a work is gone. It can be carried out again, and goes on from its checkpoint."""

    def __init__(self, for_memory: bool = False):
        """`for_memory`: whether the system ended it for want of memory, as far as that can be told."""
        super().__init__(for_memory)
        self.for_memory = for_memory


Told = Progress | Preview | Losses


class Events(Iterator[Told | Made | None], Protocol):
    """A run, as whoever follows it sees it: what it tells, and last what was Made."""

    def close(self) -> None:
        """Stops the work."""


class Executor(Protocol):
    """Carries out work on the slots that it has. Every method may be called from any thread."""

    @property
    def has_gpu(self) -> bool:
        """Whether work runs on a GPU."""
        ...

    @property
    def speed(self) -> float:
        """The FLOPs a second that usually come out of a slot, until the first jobs were timed."""
        ...

    def slots(self) -> Sequence[Slot]:
        """The slots, at least one; their number may change, their names are 0, 1, 2, …. Loads nothing and waits for
        nothing."""
        ...

    def availability(self, model: str) -> str | None:
        """None if `model` can be used here, else one sentence: what is missing and what to do."""
        ...

    def check(self, task: Task) -> None:
        """Raises ValueError, in words for a person, where work for `task` can't be taken on at all."""
        ...

    def lent(self, task: Task, seconds: float | None) -> int | None:
        """The seconds of GPU that `task`, estimated to take `seconds`, asks for at once; None where none is lent."""
        ...

    def asking(self, jobs: Sequence[str]) -> AbstractContextManager[None]:
        """Entered in the thread of whoever asks for the jobs of these ids, while they are being queued. An exception
        means that they were not."""
        ...

    def forget(self, job: str) -> None:
        """The job of this id ended before its turn came."""
        ...

    def run(self, work: Work, slot: str) -> Events:
        """Carries out `work` on a free slot.

        None stands for a moment in which nothing happened, so that whoever follows can look up. Closing it stops the
        work: within a step the slot is free, and nothing further is written. What it has so far is kept in the job's
        folder, of a tuning as "tuned", and the next run of the same work goes on from there. Raises what went wrong,
        and WorkerDied where that is the process which carried it out.
        """
        ...

    def look(self, work: Work) -> Generator[Progress, None, Any]:
        """Looks for the poses in the clip of `work`, beside whatever runs; returns a PosePreview, for FindPoses Found.

        Closing it ends the search within a frame. Raises ValueError, in words for the person who asked.
        """
        ...

    def sample(self, job: str) -> None:
        """Has the tuning that runs as this job draw a sample after its next step."""
        ...

    def load_ahead(self) -> None:
        """Has the built-in models loaded while there is no work, so that the first has not to wait for it. Returns at
        once; no work waits longer than for one part of a model, or for what it needs itself."""
        ...

    def unload(self) -> None:
        """Frees the memory of every model that no work uses right now."""
        ...

    def rest(self, slot: str) -> None:
        """Frees what a free slot holds of its device, until work is meant for it again. May be called again and
        again."""
        ...

    def close(self) -> None:
        """Takes no more work. Called when none runs any more, or none that can be stopped."""
        ...
