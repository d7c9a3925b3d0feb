"""Jobs on several slots: at once where they are different owners', stopped one by one, all put back at the end."""

import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import tiny

from pipelines.catalog import find
from pipelines.events import Failed, Progress, Result
from pipelines.serving import fairness
from pipelines.serving.backend import Backend
from pipelines.serving.drained import Drained
from pipelines.serving.fairness import Limits
from pipelines.serving.local import LocalExecutor
from pipelines.serving.status import Loaded
from pipelines.serving.table import JobTable
from pipelines.settings import Settings
from pipelines.systems import modelscope
from pipelines.tasks import TextToVideo
from ui.status import drawn

CARD = replace(find("miniature-modelscope"), name="scripted", system="scripted")
CATALOG = {name: replace(CARD, name=name) for name in ("scripted", "second")}
ANNA, BERT, CARLA = (letter * 64 for letter in "abc")
FRAMES = np.linspace(50, 150, 2 * 16 * 16 * 3).reshape(2, 16, 16, 3).astype(np.uint8)


def generate(task, models, checkpoints=None):
    """A prompt "stay" stays."""
    yield Progress("Denoising", 0, 2)
    while task.prompt == "stay":
        yield Progress("Denoising", 1, 2)
        time.sleep(0.01)
    return FRAMES, {}


class TwoSlots(LocalExecutor):
    """Two devices of one machine: a second executor stands behind the second slot."""

    def __init__(self, settings):
        super().__init__(settings, CATALOG)
        self.other = LocalExecutor(settings, CATALOG)
        self.loaded = {"0": (), "1": ()}  # models
        self.slot_of = {}  # by prompt

    def slots(self):
        models = {slot: tuple(Loaded((name,), "cpu", 1, False) for name in self.loaded[slot]) for slot in "01"}
        (first,), (second,) = super().slots(), self.other.slots()
        return replace(first, models=models["0"]), replace(second, name="1", device="another", models=models["1"])

    def run(self, work, slot):
        self.slot_of[work.task.prompt] = slot
        return self.other.run(work, slot) if slot == "1" else super().run(work, slot)

    def close(self):
        super().close()
        self.other.close()


@pytest.fixture
def backend(tmp_path, monkeypatch):
    tiny.add_engine(monkeypatch, "scripted", replace(modelscope.ENGINE, generate={TextToVideo: generate}, parts=()))
    settings = Settings(data=tmp_path / "data", device="cpu", hub=False)
    backend = Backend(settings, TwoSlots(settings), CATALOG)
    yield backend
    backend.close()


def submit(backend, prompt, owner, model="scripted"):
    return backend.jobs.submit(TextToVideo.for_model(CATALOG[model], prompt, 7, frames=8, steps=2), owner)


def wait_until(what):
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def runs(backend, job, owner):
    return backend.jobs.get(job, owner).state == "running"


def test_two_owners_run_at_once_and_a_third_waits_for_whoever_ends_first(backend):
    first, second = submit(backend, "stay", ANNA), submit(backend, "stay", BERT)
    wait_until(lambda: runs(backend, first, ANNA) and runs(backend, second, BERT))
    third = submit(backend, "quick", CARLA)
    again = submit(backend, "stay", ANNA)
    status = backend.machine.status()
    assert (status.running, status.waiting) == (2, 2) and "another" in status.device
    backend.jobs.cancel(second, BERT)
    assert isinstance(list(backend.jobs.events(third, CARLA))[-1], Result)
    assert backend.jobs.get(second, BERT).end == Failed("Stopped.", stopped=True)
    wait_until(lambda: runs(backend, again, ANNA))  # beside her first one, once nobody else waits
    assert runs(backend, first, ANNA)
    told = backend.machine.metrics()
    assert 'jobs{state="running"} 2' in told and 'jobs_ended_total{state="done"} 1' in told
    assert 'jobs_ended_total{state="stopped"} 1' in told and 'worker_busy{worker="1"} 1' in told
    for job in (first, again):
        backend.jobs.cancel(job, ANNA)


def test_one_owners_jobs_run_side_by_side_and_a_grid_waits_for_its_videos(backend):
    videos = [TextToVideo.for_model(CARD, "stay", seed, frames=8, steps=2) for seed in (1, 2)]
    *cells, grid = backend.jobs.submit_grid(videos, ANNA)
    wait_until(lambda: all(runs(backend, cell, ANNA) for cell in cells))
    backend.jobs.cancel(cells[0], ANNA)
    wait_until(lambda: not runs(backend, cells[0], ANNA))
    time.sleep(0.6)  # the free slot has looked twice
    assert backend.jobs.get(grid, ANNA).waits
    backend.jobs.cancel(cells[1], ANNA)
    list(backend.jobs.events(grid, ANNA))
    assert backend.jobs.get(grid, ANNA).end is not None


def test_a_job_is_left_to_the_idle_slot_that_has_its_model(backend):
    backend.executor.loaded = {"0": ("scripted",), "1": ("second",)}
    for number in range(6):
        for model, slot in (("second", "1"), ("scripted", "0")):
            prompt = f"{model} {number}"
            list(backend.jobs.events(submit(backend, prompt, ANNA, model), ANNA))
            assert backend.executor.slot_of[prompt] == slot
    stays = submit(backend, "stay", ANNA, "second")
    wait_until(lambda: runs(backend, stays, ANNA))
    list(backend.jobs.events(submit(backend, "beside", BERT, "second"), BERT))  # it waits for no slot that is busy
    assert backend.executor.slot_of["beside"] == "0"
    backend.jobs.cancel(stays, ANNA)


def test_a_drained_slot_ends_its_job_and_takes_no_other_until_it_is_given_back(backend):
    backend.executor.loaded = {"0": ("scripted",), "1": ()}
    stays = submit(backend, "stay", ANNA)
    wait_until(lambda: runs(backend, stays, ANNA))
    slot = backend.executor.slot_of["stay"]
    other, drained = {"0": "1", "1": "0"}[slot], Drained(backend.settings)
    drained.add(slot)
    status = backend.machine.status()
    (one,) = [worker for worker in status.workers if worker.drained]
    assert one.busy and "at work, and takes no further job" in drawn(status)
    assert isinstance(list(backend.jobs.events(submit(backend, "first", BERT), BERT))[-1], Result)
    assert backend.executor.slot_of["first"] == other and runs(backend, stays, ANNA)
    backend.jobs.cancel(stays, ANNA)
    wait_until(lambda: backend.jobs.get(stays, ANNA).end)
    drained.add(other)
    waits = submit(backend, "second", BERT)
    time.sleep(0.8)  # both have looked three times; the drained one has its model, and is not waited for later
    assert backend.jobs.get(waits, BERT).waits and "takes no job" in drawn(backend.machine.status())
    assert 'worker_drained{worker="0"} 1' in backend.machine.metrics() and backend.machine.health()["ok"]
    drained.discard(other)
    assert isinstance(list(backend.jobs.events(waits, BERT))[-1], Result)
    assert backend.executor.slot_of["second"] == other
    drained.discard(slot)


def test_a_place_begins_what_it_has_loaded_unless_others_were_passed_over_too_often():
    assert fairness.choice([False, False, True, True], 0) == 2
    assert fairness.choice([True, False, True], 0) == fairness.choice([False, False], 0) == 0
    assert fairness.choice([False, True], fairness.PASSED - 1) == 1
    assert fairness.choice([False, True], fairness.PASSED) == 0
    assert fairness.choice([False] * fairness.AHEAD + [True], 0) == 0


def test_the_end_puts_all_that_run_back(backend):
    jobs = {owner: submit(backend, "stay", owner) for owner in (ANNA, BERT)}
    wait_until(lambda: all(runs(backend, job, owner) for owner, job in jobs.items()))
    backend.dispatcher.close()
    for owner, job in jobs.items():
        put_back = backend.jobs.get(job, owner)
        assert put_back.state == "interrupted" and put_back.attempts == 0
    with pytest.raises(ValueError, match="shutting down"):
        submit(backend, "quick", CARLA)
    assert not backend.machine.health()["ok"]


def test_progress_of_each_job_is_written_whatever_the_others_do(tmp_path):
    """The clock of one job's writes holds up nobody else's."""
    table = JobTable(tmp_path / "jobs.db", Limits(queue=5, each=5), clock=lambda: 1000.0)
    task = TextToVideo.for_model(CARD, "stay", 7, frames=8, steps=2)
    jobs = [table.add(task, owner).id for owner in (ANNA, BERT)]
    for _ in jobs:
        table.take(0)
    table.tell(jobs[0], Progress("Denoising", 1, 2))  # within a second of its start: it is not written
    table._clock = lambda: 1002.0
    for job in jobs:
        table.tell(job, Progress("Denoising", 2, 2))
    table.close()
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as rows:
        assert rows.execute("SELECT stage, step FROM jobs").fetchall() == [("Denoising", 2)] * 2


def test_health_is_bad_as_soon_as_one_slot_is(backend):
    assert backend.machine.health()["ok"]
    assert backend.dispatcher.loops["1"].join(20)
    told = backend.machine.health()
    assert not told["ok"] and not told["worker"]["alive"] and backend.dispatcher.loops["0"].alive


class Changing(TwoSlots):
    """Slots that come and go."""

    ready = frozenset()

    def slots(self):
        first, second = super().slots()
        slots = first, replace(second, device=first.device)
        return tuple(replace(slot, ready=slot.name in self.ready) for slot in slots[: max(1, len(self.ready))])


def test_jobs_wait_for_a_slot_that_is_ready_and_slots_that_come_later_take_jobs_too(tmp_path, monkeypatch):
    tiny.add_engine(monkeypatch, "scripted", replace(modelscope.ENGINE, generate={TextToVideo: generate}, parts=()))
    settings = Settings(data=tmp_path / "data", device="cpu", hub=False)
    executor = Changing(settings)
    with closing(Backend(settings, executor, CATALOG)) as backend:
        first, second = submit(backend, "stay", ANNA), submit(backend, "stay", BERT)
        time.sleep(1)
        assert backend.machine.status().running == 0 and backend.machine.health()["ok"]
        executor.ready = frozenset("0")
        wait_until(lambda: runs(backend, first, ANNA))
        assert not runs(backend, second, BERT)
        executor.ready = frozenset("01")
        wait_until(lambda: runs(backend, second, BERT))
        executor.ready = frozenset("0")
        backend.jobs.cancel(second, BERT)
        third = submit(backend, "stay", CARLA)
        wait_until(lambda: backend.jobs.get(second, BERT).end is not None)
        time.sleep(1)
        assert not runs(backend, third, CARLA)
        for job, owner in ((third, CARLA), (first, ANNA)):
            backend.jobs.cancel(job, owner)
