"""Two hundred clients at once, on the smallest model of the real classes: all get their videos, in a fair order."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from pipelines.cards import Range
from pipelines.events import Failed, Progress, Result
from pipelines.media import video
from pipelines.models.folders import card_of_folder
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo

OWNERS, EACH = 40, 5
FIRST = "f" * 32  # who keeps the worker busy until all others are there


def owner(number):
    return f"{number:032x}"


def handles():
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


def follow(backend, job, who, heard):
    try:
        heard[job] = [event for event in backend.jobs.events(job, who) if event is not None]
    except BaseException as error:  # else a thread would keep it to itself
        heard[job] = [error]


@pytest.fixture
def crowded(tmp_path, monkeypatch):
    """A backend for tiny videos, and a function that makes a task for it."""

    def write(frames, path, fps, comment="", sound=None):
        time.sleep(0.05)  # all two hundred have time to hear their places before the next job is taken
        with video.whole(path) as file:
            file.write_bytes(f"{comment} {frames.shape}".encode())

    monkeypatch.setattr(video, "write", write)  # 600 runs of ffmpeg would take a minute and more
    card = card_of_folder(tiny.write_model(tmp_path / "model"))
    card = replace(card, limits=replace(card.limits, side=Range(16, 256, 8)))
    settings = Settings(
        tmp_path / "data", tmp_path / "cache", device="cpu", hub=False, queue=2 * OWNERS * EACH, queue_each=EACH
    )
    backend = local_backend(settings, {card.name: card})

    def task(seed, **changes):
        small = {"frames": 1, "width": 16, "height": 16, "steps": 1, "guidance": 1.0, "scheduler": "ddim"}
        return TextToVideo.for_model(card, "a bear", seed, **{**small, **changes})

    yield backend, task
    backend.close()


def test_two_hundred_clients(crowded):
    backend, task = crowded
    first = backend.jobs.submit(task(1), FIRST)
    assert isinstance(list(backend.jobs.events(first, FIRST))[-1], Result)  # torch and all is there
    threads, files = threading.active_count(), handles()

    busy = backend.jobs.submit(task(2, frames=24, width=128, height=128, steps=100), FIRST)
    while not any(
        isinstance(event, Progress) and event.stage == "Denoising" for event in backend.jobs.get(busy, FIRST).events
    ):
        time.sleep(0.01)
    jobs = {}  # job -> (owner, seed)
    for turn in range(EACH):  # all ask for one, then all for the next
        for number in range(OWNERS):
            seed = number * EACH + turn
            jobs[backend.jobs.submit(task(seed), owner(number))] = (owner(number), seed)
    with pytest.raises(ValueError, match="are waiting already"):
        backend.jobs.submit(task(0), owner(0))
    heard = {}
    followers = [threading.Thread(target=follow, args=(backend, job, who, heard)) for job, (who, _) in jobs.items()]
    for follower in followers:
        follower.start()
    assert backend.jobs.get(busy, FIRST).state == "running"
    backend.jobs.cancel(busy, FIRST)
    for follower in followers:
        follower.join(600)

    assert heard.keys() == jobs.keys() and all(isinstance(events[-1], Result) for events in heard.values())
    for job, (who, seed) in jobs.items():
        places = [event.step for event in heard[job] if isinstance(event, Progress) and event.stage == "Waiting"]
        assert places[-1] == 1 and max(places) <= OWNERS * EACH
        result = heard[job][-1]
        assert result.video.parent.name == job and f'"seed": {seed},' in result.video.read_text()
        assert result.facts["task"]["seed"] == seed and backend.jobs.get(job, who).owner == who
    order = sorted(jobs, key=lambda job: backend.jobs.get(job, jobs[job][0]).started)
    # Everybody once before anybody is served again, in the order in which they came; then by the seconds each has used.
    assert [jobs[job][1] for job in order[:OWNERS]] == [number * EACH for number in range(OWNERS)]
    for number in range(OWNERS):
        assert [jobs[job][1] % EACH for job in order if jobs[job][0] == owner(number)] == list(range(EACH))
    assert isinstance(backend.jobs.get(busy, FIRST).end, Failed)
    assert all(len(backend.jobs.finished(owner(number))) == EACH for number in range(OWNERS))
    assert backend.jobs.unfinished(FIRST) == [] and not any(follower.is_alive() for follower in followers)
    assert threading.active_count() <= threads and handles() <= files
    assert not any(one.leases for one in backend.executor.manager.stats())
