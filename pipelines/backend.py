"""Where jobs run. The page knows only this protocol; `LocalBackend` runs one job at a time per device in a thread."""

import json
import logging
import math
import secrets
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines import tokens, video
from pipelines.catalog import CATALOG, CLIP, ModelCard, find
from pipelines.events import Event, Failed, Preview, Progress, Result
from pipelines.jobs import Job, JobTable, Limits
from pipelines.settings import Settings
from pipelines.shelf import Shelf
from pipelines.sources import availability, locate, part_folder
from pipelines.tasks import Task, to_json

if TYPE_CHECKING:  # torch comes with the manager, and waits for the first job
    import numpy as np

    from pipelines.manager import ModelManager

LOADING = "Loading the model"
WRITING = "Writing the file"
STOPPED = "Stopped."
TIDY_SECONDS = 600.0  # how often the shelf is looked through for videos that are too old or too many

log = logging.getLogger(__name__)


class Backend(Protocol):
    """Takes tasks, runs them, and tells how they go.

    Every job belongs to an owner. To anybody else a job does not exist: every method that takes a job's id raises the
    same ValueError for a job of somebody else as for an unknown one.
    """

    def submit(self, task: Task, owner: str) -> str:
        """Queues `task` and returns the job's id. Raises ValueError for a bad task or a full queue or disk."""

    def events(self, job: str, owner: str) -> Iterator[Event | None]:
        """What happened to `job` and what happens next, up to and including its Result or Failed.

        None stands for a quarter of a second in which nothing happened, so that a listener can look up and leave.
        A listener that comes late or reads slowly gets the latest of each kind of event, not all of them.
        """

    def unfinished(self, owner: str) -> list[Job]:
        """The owner's jobs that wait or run, oldest first: what a page that is opened again goes on following."""

    def finished(self, owner: str, search: str = "", limit: int = -1, offset: int = 0) -> list[Job]:
        """The owner's videos whose prompts hold every word of `search`, newest first."""

    def get(self, job: str, owner: str) -> Job:
        """The job as it is now."""

    def cancel(self, job: str, owner: str) -> None:
        """Takes a waiting job off the queue; a running one ends within one denoising step. Its end is
        Failed(stopped=True). Does nothing to a job that has ended."""

    def delete(self, job: str, owner: str) -> None:
        """Deletes a finished job and all its files. Raises ValueError where it has not ended."""

    def export(self, job: str, owner: str, kind: str) -> Path:
        """The video of a finished job as "mp4", "gif" or "webm", made when it is first asked for. Raises ValueError
        where there is no video."""

    def poster(self, job: str, owner: str) -> Path:
        """A small picture of a finished job's video."""

    def availability(self, model: str) -> str | None:
        """None if the weights of `model` are at hand, else one sentence: what is missing and what to do."""

    def tokens(self, model: str, prompt: str) -> tuple[int, str] | None:
        """How many tokens `prompt` is for `model`, and the end of it that is not read ("" for none); None where the
        weights are not at hand. Quick enough to be asked at every key."""

    def close(self) -> None:
        """Ends the running job, to be made anew when the app is started again, and leaves the device."""


class LocalBackend:
    """The backend of one machine: a thread that runs job after job on the device of `settings`."""

    def __init__(self, settings: Settings, catalog: Mapping[str, ModelCard] = CATALOG):
        """Goes on with the jobs in the data folder. Raises ValueError where another process uses that folder."""
        self._settings = settings
        self._catalog = catalog
        self._jobs = JobTable(settings.data / "jobs.db", Limits(settings.queue, settings.queue_each))
        self._shelf = Shelf(settings, self._jobs)
        self._tokenizers: dict[str, tokens.Tokenizer] = {}  # by model
        self._past: dict[tuple, dict[str, float]] = {}  # seconds a stage took, by kind of job: see Pace
        self._models: ModelManager | None = None
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)
        self._worker.start()

    def submit(self, task: Task, owner: str) -> str:
        if self._closing:
            raise ValueError("The app is shutting down. Try again when it is back.")
        task = task.checked(self._catalog)
        self._shelf.check_space()
        return self._jobs.add(task, owner).id

    def events(self, job: str, owner: str) -> Iterator[Event | None]:
        return self._follow(self._jobs.get(job, owner))

    def unfinished(self, owner: str) -> list[Job]:
        return self._jobs.unfinished(owner)

    def finished(self, owner: str, search: str = "", limit: int = -1, offset: int = 0) -> list[Job]:
        return self._jobs.finished(owner, search, limit, offset)

    def get(self, job: str, owner: str) -> Job:
        return self._jobs.get(job, owner)

    def cancel(self, job: str, owner: str) -> None:
        self._jobs.stop(self._jobs.get(job, owner).id, STOPPED)

    def delete(self, job: str, owner: str) -> None:
        self._shelf.delete(self._jobs.get(job, owner))

    def export(self, job: str, owner: str, kind: str) -> Path:
        return self._shelf.export(self._jobs.get(job, owner), kind)

    def poster(self, job: str, owner: str) -> Path:
        return self._shelf.poster(self._jobs.get(job, owner))

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

    def close(self) -> None:
        self._closing = True
        self._worker.join()
        self._jobs.close()

    def _follow(self, job: Job) -> Iterator[Event | None]:
        told: tuple[Event, ...] = ()
        while True:
            news = [event for event in job.events if not any(event is old for old in told)]
            yield from news
            told = job.events
            if job.end is not None:
                self._shelf.show(job.id)
                return
            job = self._jobs.wait(seen := job, seconds=0.25)
            if job is seen:
                yield None

    def _work(self) -> None:
        tidied = -math.inf
        while not self._closing:
            if time.monotonic() - tidied > TIDY_SECONDS:
                self._shelf.tidy()
                tidied = time.monotonic()
            job = self._jobs.take(seconds=0.25)
            if job is not None:
                self._run(job)
            elif self._models is not None:
                self._models.unload_idle()

    def _run(self, job: Job) -> None:
        """Runs the job to its end, whatever that is; nothing that goes wrong in it reaches the worker."""
        try:
            self._jobs.tell(job.id, self._make(job))
            return
        except _Closing:
            self._jobs.interrupt(job.id)
        except _Stopped:
            self._jobs.tell(job.id, Failed(STOPPED, stopped=True))
        except BaseException as error:  # a library may even call exit()
            self._jobs.tell(job.id, Failed(log_error(error, job)))
        self._shelf.clear(job.id)

    def _make(self, job: Job) -> Result:
        task = job.task.checked(self._catalog)  # it may be from before the app was updated
        self._shelf.check_space()
        kind = (task.model, task.frames, task.width, task.height, task.steps, task.guidance > 1)
        pace = Pace(self._past.get(kind, {}))

        def tell(event: Progress | Preview) -> None:
            if isinstance(event, Progress):
                event = pace.estimate(event)
            if self._jobs.tell(job.id, event).stopping:
                raise _Stopped
            if self._closing:
                raise _Closing

        tell(Progress(LOADING, 0, 1))
        if self._models is None:
            from pipelines.manager import ModelManager

            self._models = ModelManager(self._catalog, self._settings)
        self._models.on_progress = lambda done, total: tell(Progress(LOADING, done, total))
        with closing(make(task, self._models, self._shelf.place(job))) as events:
            for event in events:
                if isinstance(event, Result):
                    self._past[kind] = pace.taken
                    self._shelf.describe(event)
                    return event
                tell(event)
        raise AssertionError("make() ends with a Result")


def log_error(error: BaseException, job: Job) -> str:
    """Logs `error` without what the visitor wrote. Returns what to tell them, with a number that finds it there."""
    number = secrets.token_hex(4)
    trace = "".join(traceback.format_exception(error))
    for words in sorted({job.task.prompt, job.task.negative_prompt} - {""}, key=len, reverse=True):
        trace = trace.replace(words, "[what the visitor wrote]")
    log.error("Job %s, log number %s\n%s", job.id, number, trace)
    if isinstance(error, ValueError | MemoryError | OSError):  # in words for the person who asked
        return f"{error} (Log number {number}.)"
    return (
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
    facts |= {"task": json.loads(description), "seconds": time.perf_counter() - started}
    facts |= {"peak_memory_mb": models.peak_bytes() // 2**20, "approximations": "none"}
    yield Result(path, facts | _measures(frames, task, models))


def _measures(frames: "np.ndarray", task: Task, models: "ModelManager") -> dict[str, float]:
    """Flicker and motion of the video, and CLIP's figures where CLIP is on this machine."""
    from pipelines import metrics  # and with it OpenCV, which waits for the first job too

    figures = metrics.measure(frames)
    if metrics.clip_available(models.settings):
        with (
            models.lease(f"{CLIP.location}/model", working_bytes=2**28) as model,
            models.lease(f"{CLIP.location}/tokenizer") as tokenizer,
            models.lease(f"{CLIP.location}/image_processor") as processor,
        ):
            figures |= metrics.measure_with_clip(frames, task.prompt, model, tokenizer, processor)
    return figures


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


class _Closing(BaseException):
    """The app is being shut down."""
