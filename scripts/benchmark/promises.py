"""How long things were said to take against how long they took: each task of the page on the built-in models, made as
the app makes it, in worker processes and with its defaults.

Two promises are held against the clock: the line beside the button, told before it is pressed, and the first countdown
of the page, by when it would end. A promise is good within a third.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

OWNER = "b" * 32
PROMPT = "a robot in blue waving on the beach"


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Every row: what was promised, what it took, and by how much that was wrong."""
    from pipelines.catalog import find, tuned_models
    from pipelines.serving.processes import worker_backend
    from pipelines.settings import Settings
    from pipelines.tasks import Edit, PoseToVideo, TextToVideo, Tune

    text, pose, image = (find(f"miniature-{name}") for name in ("modelscope", "followyourpose", "sd"))

    def texts(count: int, **settings) -> list[TextToVideo]:
        return [TextToVideo.for_model(text, PROMPT, seed, **settings) for seed in range(count)]

    rows = []
    with TemporaryDirectory(prefix="marionette-") as folder:
        settings = Settings(data=Path(folder), device=options.device, hub=False)
        backend = worker_backend(settings)
        try:

            def one_by_one(tasks):
                return [backend.jobs.submit(task, OWNER) for task in tasks]

            def grid(tasks):
                return backend.jobs.submit_grid(tasks, OWNER)

            def row(what: str, tasks: Sequence, submit: Callable = one_by_one) -> None:
                rows.append((what, _held(backend, tasks, submit)))

            def edit(prompt: str) -> Edit:
                model, frames, width, height = tuned.shape
                shape = {"frames": frames, "width": width, "height": height, "fps": tuned.facts["fps"]}
                return Edit.for_model(find(model), prompt, 7, tuned=tuned.job.id, **shape)

            tuned = backend.tunings.built_in()[0]
            clip = backend.assets.keep_clip(tuned_models()[tuned.job.id] / "clip.mp4", OWNER).name
            row("a first video, models not loaded", texts(1))
            row("another", texts(1))
            row("24 frames", texts(1, frames=24))
            row("three, one after another", texts(3))
            row("a grid of four", texts(4), grid)
            row("a dance", [PoseToVideo.for_model(pose, PROMPT, 7, motion="wave")])
            row("another dance", [PoseToVideo.for_model(pose, PROMPT, 8, motion="kick")])
            row("a tuning", [Tune.for_model(image, "a bear in green dances in the snow", 7, clip=clip)])
            row("an edit", [edit("a robot in yellow kicks in the snow")])
            row("another edit", [edit("a person in red kicks in the desert")])
        finally:
            backend.close()
    return [("machine", f"{os.cpu_count()} cores, device {options.device}"), *rows]


def _held(backend, tasks: Sequence, submit: Callable) -> str:
    """`tasks` submitted and waited for: both promises against the seconds that passed."""
    from pipelines.events import Result
    from ui.follower import WAITING, moment_of

    one = backend.machine.estimate(tasks[0])
    before = None if one is None else one * len(tasks) + backend.machine.seconds_to_load(tasks[0])
    began = time.perf_counter()
    jobs = submit(tasks)
    counted = None
    while going := {job.id: job for job in backend.jobs.unfinished(OWNER)}:
        progress = moment_of(jobs, going, [backend.jobs.get(job, OWNER) for job in jobs if job not in going]).progress
        if counted is None and progress and progress.seconds_left and progress.stage != WAITING:
            counted = time.perf_counter() - began + progress.seconds_left
        time.sleep(0.05)
    took = time.perf_counter() - began
    failed = [end.message for one in jobs if not isinstance(end := backend.jobs.get(one, OWNER).end, Result)]
    if failed:
        raise ValueError(failed[0])
    told = (("the line", before), ("the countdown", counted))
    return f"{took:.1f} s; " + ", ".join(f"{name} {_against(promised, took)}" for name, promised in told)


def _against(promised: float | None, took: float) -> str:
    return "told nothing" if promised is None else f"{promised:.1f} s ({promised / took - 1:+.0%})"
