"""Where jobs run. The page knows only this protocol; `LocalBackend` runs one job at a time per device in a thread."""

import json
import logging
import secrets
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines import tokens, video
from pipelines.catalog import CATALOG, ModelCard, find
from pipelines.events import Event, Failed, Preview, Progress, Result
from pipelines.jobs import Job, JobTable
from pipelines.settings import Settings
from pipelines.sources import availability, locate, part_folder
from pipelines.tasks import Task, to_json

if TYPE_CHECKING:  # torch comes with it, and waits for the first job
    from pipelines.manager import ModelManager

LOADING = "Loading the model"
WRITING = "Writing the file"
STOPPED = "Stopped."

log = logging.getLogger(__name__)


class Backend(Protocol):
    """Takes tasks, runs them, and tells how they go."""

    def submit(self, task: Task) -> str:
        """Queues `task` and returns the job's id. Raises ValueError for a bad task or a full queue."""

    def events(self, job: str) -> Iterator[Event | None]:
        """What happened to `job` and what happens next, up to and including its Result or Failed.

        None stands for a quarter of a second in which nothing happened, so that a listener can look up and leave.
        A listener that comes late or reads slowly gets the latest of each kind of event, not all of them.
        Raises ValueError for an unknown job.
        """

    def cancel(self, job: str) -> None:
        """Takes a waiting job off the queue; a running one ends within one denoising step. Its end is
        Failed(stopped=True). Does nothing to a job that has ended."""

    def availability(self, model: str) -> str | None:
        """None if the weights of `model` are at hand, else one sentence: what is missing and what to do."""

    def tokens(self, model: str, prompt: str) -> tuple[int, str] | None:
        """How many tokens `prompt` is for `model`, and the end of it that is not read ("" for none); None where the
        weights are not at hand. Quick enough to be asked at every key."""

    def gif(self, job: str) -> Path:
        """The video of a finished job as a GIF, made when it is first asked for. Raises ValueError where the job is
        unknown or has no video."""

    def close(self) -> None:
        """Stops everything and waits for the running job to leave the device."""


class LocalBackend:
    """The backend of one machine: a thread that runs job after job on the device of `settings`."""

    def __init__(self, settings: Settings, catalog: Mapping[str, ModelCard] = CATALOG):
        self._settings = settings
        self._catalog = catalog
        self._jobs = JobTable(settings.queue)
        self._tokenizers: dict[str, tokens.Tokenizer] = {}  # by model
        self._past: dict[tuple, dict[str, float]] = {}  # seconds a stage took, by kind of job: see Pace
        self._models: ModelManager | None = None
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)
        self._worker.start()

    def submit(self, task: Task) -> str:
        if self._closing:
            raise ValueError("The app is shutting down. Try again when it is back.")
        return self._jobs.add(task.checked(self._catalog)).id

    def events(self, job: str) -> Iterator[Event | None]:
        return self._follow(self._jobs.get(job))

    def cancel(self, job: str) -> None:
        self._jobs.stop(job, STOPPED)

    def availability(self, model: str) -> str | None:
        return availability(find(model, self._catalog), self._settings)

    def tokens(self, model: str, prompt: str) -> tuple[int, str] | None:
        if model not in self._tokenizers:
            if self.availability(model) is not None:
                return None
            source = find(model, self._catalog).source
            folder = part_folder(locate(source, self._settings), "tokenizer")
            self._tokenizers[model] = tokens.tokenizer_of(folder)
        return tokens.report(prompt, self._tokenizers[model])

    def gif(self, job: str) -> Path:
        end = self._jobs.get(job).end
        if not isinstance(end, Result):
            raise ValueError("This job has no video to make a GIF of.")
        path = end.video.with_suffix(".gif")
        if not path.exists():
            video.gif(end.video, path)
        return path

    def close(self) -> None:
        self._closing = True
        for job in self._jobs.all():
            self._jobs.stop(job.id, "Stopped, because the app was shut down.")
        self._worker.join()

    def _follow(self, job: Job) -> Iterator[Event | None]:
        told: tuple[Event, ...] = ()
        while True:
            news = [event for event in job.events if not any(event is old for old in told)]
            yield from news
            told = job.events
            if job.end is not None:
                return
            job = self._jobs.wait(seen := job, seconds=0.25)
            if job is seen:
                yield None

    def _work(self) -> None:
        while not self._closing:
            job = self._jobs.take(seconds=0.25)
            if job is not None:
                self._jobs.tell(job.id, self._run(job))
            elif self._models is not None:
                self._models.unload_idle()

    def _run(self, job: Job) -> Result | Failed:
        """Runs the job to its end, whatever that is; nothing that goes wrong in it reaches the worker."""
        try:
            kind = (
                job.task.model,
                job.task.frames,
                job.task.width,
                job.task.height,
                job.task.steps,
                job.task.guidance > 1,
            )
            pace = Pace(self._past.get(kind, {}))

            def tell(event: Progress | Preview) -> None:
                if isinstance(event, Progress):
                    event = pace.estimate(event)
                if self._jobs.tell(job.id, event).stopping:
                    raise _Stopped

            tell(Progress(LOADING, 0, 1))
            if self._models is None:
                from pipelines.manager import ModelManager

                self._models = ModelManager(self._catalog, self._settings)
            self._models.on_progress = lambda done, total: tell(Progress(LOADING, done, total))
            with closing(make(job.task, self._models, new_name(self._settings))) as events:
                for event in events:
                    if isinstance(event, Result):
                        self._past[kind] = pace.taken
                        return event
                    tell(event)
        except _Stopped:
            return Failed(STOPPED, stopped=True)
        except (ValueError, MemoryError) as error:
            log.warning("Job %s: %s", job.id, error)
            return Failed(str(error))
        except BaseException:  # a library may even call exit()
            number = secrets.token_hex(4)
            log.exception("Job %s failed, log number %s", job.id, number)
            return Failed(
                f"Something went wrong inside the app, and the video was not made. Try again; if it happens again, "
                f"report it with the log number {number}."
            )


def make(task: Task, models: "ModelManager", path: Path) -> Generator[Progress | Preview | Result, None, None]:
    """Runs `task` and writes the video to `path`; the Result comes last. Closing it early releases the models.

    Raises ValueError where the task or the weights are at fault and MemoryError where the device is too small.
    """
    started = time.perf_counter()
    system = import_module(f"pipelines.{models.card(task.model).system}")
    frames, facts = yield from models.attempt(lambda: system.generate(task, models))
    yield Progress(WRITING, 0, 1)
    description = to_json(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    video.write(frames, path, task.fps, description)
    yield Result(path, {**facts, "task": json.loads(description), "seconds": time.perf_counter() - started})


def new_name(settings: Settings) -> Path:
    """Where to write the next video: a name that nobody can guess."""
    return settings.data.absolute() / f"{time.strftime('%Y-%m-%d')}-{secrets.token_hex(12)}.mp4"


class Pace:
    """How long a job will still take: by this stage's own pace, and what the stages to come took in the job before."""

    def __init__(self, past: Mapping[str, float]):
        self.taken: dict[str, float] = {}  # seconds, by stage
        self._past = past  # `taken` of the last job of the same kind
        self._last = Progress("", 0, 0)
        self._began = (0.0, 0)  # the time and the step at which this stage began

    def estimate(self, event: Progress) -> Progress:
        """`event` with the seconds left of the whole job, as far as they can be told."""
        now = time.perf_counter()
        if event.stage != self._last.stage or event.step < self._last.step:
            self._began = now, event.step
        self._last = event
        began, first = self._began
        if event.stage not in (LOADING, WRITING):
            self.taken[event.stage] = now - began
        if event.step > first:
            here = (now - began) / (event.step - first) * (event.total - event.step)
        elif event.stage in self._past:
            here = self._past[event.stage]
        else:
            return event
        later = sum(self._past[stage] for stage in self._past.keys() - self.taken.keys())
        return replace(event, seconds_left=here + later or None)  # 0 would only say that what comes is not known


class _Stopped(BaseException):
    """Somebody pressed Stop. Not an Exception, so that no library on the way takes it for a failure of its own."""
