"""What the app adds to a job, and how many videos several workers make, on simulated devices whose steps sleep."""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.catalog import find
from pipelines.events import Failed, Result
from pipelines.serving.backend import Backend
from pipelines.serving.executor import Executor
from pipelines.serving.processes import ProcessExecutor
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo

CARD = replace(find("miniature-modelscope"), name="simulated", system="simulated")
CATALOG = {CARD.name: CARD}
COMMAND = (sys.executable, "-m", "scripts.benchmark.simulated")
STEP_SECONDS = 0.2
WORKERS = (1, 2, 4)
JOBS = 8  # that wait at once
FIRSTS = 10  # jobs whose first event is waited for
Executors = Callable[[Settings, int], AbstractContextManager[Executor]]  # with so many workers


@dataclass(frozen=True)
class Measured:
    """Seconds, with so many workers."""

    job: float  # from one job's end to the next
    making: float  # of that, what the worker says that it took to make the video
    first: list[float]  # from asking an idle app until the job tells something


@contextmanager
def processes(settings: Settings, count: int) -> Iterator[ProcessExecutor]:
    """Of this machine."""
    yield ProcessExecutor(replace(settings, device=",".join(["cpu"] * count)), CATALOG, COMMAND)


def benchmark(options: argparse.Namespace, executors: Executors = processes) -> list[tuple[str, str]]:
    """Jobs of `options.steps` steps through the whole app, on one worker and on several."""
    task = TextToVideo.for_model(CARD, "a bear", 7, frames=8, steps=options.steps or 25)
    rows = [
        ("machine", f"{os.cpu_count()} cores"),
        ("a job", f"{task.steps} steps of {STEP_SECONDS} s that sleep: {task.steps * STEP_SECONDS:.1f} s"),
    ]
    with tempfile.TemporaryDirectory(prefix="marionette-") as folder:
        measured = {count: _measure(task, Path(folder) / str(count), count, executors) for count in WORKERS}
    for count, seconds in measured.items():
        times = measured[1].job / seconds.job
        rows.append((f"workers: {count}", f"{60 / seconds.job:.1f} jobs a minute, {times:.2f} times one worker"))
    one = measured[1]
    first = sorted(one for seconds in measured.values() for one in seconds.first)
    added = one.job - one.making
    return [
        *rows,
        ("added by the app", f"{1000 * added:.0f} ms a job, {100 * added / one.job:.2f} %"),
        (
            "from asking to the first event",
            f"{1000 * statistics.median(first):.0f} ms, at most {1000 * first[-1]:.0f} ms of {len(first)}",
        ),
    ]


def _measure(task: TextToVideo, data: Path, count: int, executors: Executors) -> Measured:
    settings = Settings(data=data, hub=False)
    with executors(settings, count) as executor, closing(Backend(settings, executor, CATALOG)) as backend:
        short = replace(task, steps=1)
        _run(backend, short, 4 * count)  # now all workers have started
        first = [_first(backend, short) for _ in range(FIRSTS)]
        began = time.perf_counter()
        making = _run(backend, task, JOBS)
        return Measured((time.perf_counter() - began) / JOBS, statistics.mean(making), first)


def _run(backend: Backend, task: TextToVideo, times: int) -> list[float]:
    """Seconds that each of so many jobs, of an owner each, took its worker."""
    jobs = {str(number): backend.jobs.submit(task, str(number)) for number in range(times)}
    ends = [[*backend.jobs.events(job, owner)][-1] for owner, job in jobs.items()]
    return [end.facts["seconds"] for end in ends if isinstance(end, Result)]


def _first(backend: Backend, task: TextToVideo) -> float:
    """Seconds from asking for a job until it tells something of its own; waits for its end."""
    began, told = time.perf_counter(), None
    for event in backend.jobs.events(backend.jobs.submit(task, "first"), "first"):
        if told is None and event is not None and getattr(event, "stage", "") != "Waiting":
            told = time.perf_counter() - began
        assert not isinstance(event, Failed), event
    assert told is not None, "a job ends with something"
    return told
