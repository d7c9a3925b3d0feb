"""A job whose app dies or is ended goes on from its checkpoint, and ends with the video that it would have had."""

import os
import signal

import numpy as np
import programs
import pytest

from pipelines.catalog import CATALOG
from pipelines.events import DENOISING, Progress, Result
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo, to_json

ME = "1" * 32
TASK = TextToVideo.for_model(CATALOG["miniature-modelscope"], "a robot in blue", 7, frames=8, steps=10)
# An app that is ended in one of two ways in the middle of its job.
APP = """
import os, signal, sys
from pathlib import Path
from pipelines.events import DENOISING, Progress
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.systems import checkpoints
from pipelines.tasks import recall

checkpoints.SECONDS = 0.0  # after every step
backend = local_backend(Settings(data=Path(sys.argv[1]), device="cpu", hub=False))
job = backend.jobs.submit(recall(sys.argv[2]), sys.argv[3])
for event in backend.jobs.events(job, sys.argv[3]):
    if isinstance(event, Progress) and event.stage == DENOISING and event.step >= 4:
        break
print(job, flush=True)
if sys.argv[4] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
backend.close()
"""


def follow(backend, job):
    return [event for event in backend.jobs.events(job, ME) if event is not None]


def backend_over(data):
    return local_backend(Settings(data=data, device="cpu", hub=False))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    backend = backend_over(tmp_path_factory.mktemp("undisturbed"))
    try:
        end = follow(backend, backend.jobs.submit(TASK, ME))[-1]
        assert isinstance(end, Result) and "resumed_at_step" not in end.facts
        return video.read(end.video)
    finally:
        backend.close()


@pytest.mark.parametrize("way", ["killed", "closed"])
def test_a_job_goes_on_where_its_app_was_ended(way, tmp_path, undisturbed):
    done = programs.run(["-c", APP, str(tmp_path), to_json(TASK), ME, way], os.environ, timeout=300)
    assert done.returncode == (-signal.SIGKILL if way == "killed" else 0), done.stderr
    job = done.stdout.strip()
    kept = tmp_path / "videos" / job / "checkpoints"
    assert list(kept.iterdir())
    backend = backend_over(tmp_path)
    try:
        events = follow(backend, job)
        assert len(backend.jobs.finished(ME)) == 1
    finally:
        backend.close()
    steps = [event.step for event in events if isinstance(event, Progress) and event.stage == DENOISING]
    end = events[-1]
    assert isinstance(end, Result) and min(steps) >= 4 and end.facts["resumed_at_step"] >= 4
    assert np.array_equal(video.read(end.video), undisturbed)
    assert not kept.exists()
