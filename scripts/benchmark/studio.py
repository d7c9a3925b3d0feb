"""What the app adds around a system: the queue, the job table, progress and previews."""

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

PROMPT = "a robot in blue waving on the beach"
SMALL_JOBS = 200  # of one step each


def studio(settings) -> list[tuple[str, str]]:
    """What the queue, the job table, progress and previews cost, measured on the miniature in the app's own backend."""
    from pipelines.catalog import find
    from pipelines.events import Progress, Result
    from pipelines.serving.local import local_backend
    from pipelines.systems.preview import Previewer
    from pipelines.tasks import TextToVideo

    with TemporaryDirectory(prefix="marionette-") as folder, ExitStack() as at_the_end:
        backend = local_backend(replace(settings, data=Path(folder), queue=SMALL_JOBS, queue_each=SMALL_JOBS))
        at_the_end.callback(backend.close)
        card, owner = find("miniature-modelscope"), "benchmark"
        small = TextToVideo.for_model(card, PROMPT, 7, frames=8, steps=1, guidance=1.0)

        def finish(job: str):
            *_, end = backend.jobs.events(job, owner)
            if not isinstance(end, Result):
                raise ValueError(end.message)
            return backend.jobs.get(job, owner)

        def wait_for_work() -> float:
            began, job = time.perf_counter(), backend.jobs.submit(small, owner)
            for event in backend.jobs.events(job, owner):
                if isinstance(event, Progress) and event.stage != "Waiting":
                    break
            seconds = time.perf_counter() - began
            finish(job)
            return seconds

        finish(backend.jobs.submit(small, owner))  # with imports and loading
        latency = statistics.median(wait_for_work() for _ in range(20))

        began = resident_bytes()
        queued = [backend.jobs.submit(small, owner) for _ in range(SMALL_JOBS)]
        jobs = [finish(job) for job in queued]
        growth = resident_bytes() - began
        making = sum(job.end.facts["seconds"] for job in jobs)
        overhead = (jobs[-1].ended - jobs[0].started - making) / len(jobs)

        spent = Stopwatch()
        backend.table.tell = spent.around(backend.table.tell)
        plain = Previewer.preview
        Previewer.preview = spent.around(plain)
        at_the_end.callback(setattr, Previewer, "preview", plain)
        run = finish(backend.jobs.submit(TextToVideo.for_model(card, PROMPT, 7), owner))
        share = spent.seconds / run.end.facts["seconds"]
    return [
        ("from submitting to the first progress", f"{1000 * latency:.1f} ms (median of 20, nothing queued)"),
        ("overhead of a queued job", f"{1000 * overhead:.1f} ms (of {making / len(jobs):.2f} s, mean of {len(jobs)})"),
        (f"memory growth over {len(jobs)} small jobs", f"{growth / 1e6:.1f} MB"),
        ("progress and previews", f"{share:.2%} of a run of {run.end.facts['seconds']:.2f} s"),
    ]


class Stopwatch:
    """Adds up the seconds that calls take."""

    def __init__(self):
        self.seconds = 0.0

    def around(self, function: Callable) -> Callable:
        def timed(*values):
            began = time.perf_counter()
            try:
                return function(*values)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


def resident_bytes() -> float:
    """The main memory that this process holds now; nan where the system doesn't tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
