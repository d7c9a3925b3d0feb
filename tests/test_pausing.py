"""Pause and resume: a paused job keeps what it has, holds nothing of others, and goes on as if nothing had been."""

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import tiny
from test_backend import SCRIPTED, Scripted, follow, task, wait_for
from test_jobs import Clock, reopened
from test_jobs import task as of_table

from pipelines.events import DENOISING, Failed, Progress, Result
from pipelines.media import video
from pipelines.serving import recovery, storage
from pipelines.serving.fairness import Limits
from pipelines.serving.local import local_backend
from pipelines.serving.rows import _SCHEMA
from pipelines.serving.sidecar import Sidecars
from pipelines.serving.table import JobTable
from pipelines.settings import Settings
from pipelines.systems import modelscope
from pipelines.tasks import TextToVideo, to_json

ME, OTHER = "1" * 32, "2" * 32
# As version 5 made it: no state of a paused job.
OLD = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, task TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'interrupted')),
    attempts INTEGER NOT NULL DEFAULT 0, submitted REAL NOT NULL, started REAL, ended REAL, stage TEXT, step INTEGER,
    total INTEGER, error TEXT, video TEXT, facts TEXT, title TEXT, favourite INTEGER NOT NULL DEFAULT 0, message TEXT
) STRICT;
CREATE INDEX jobs_of_owner ON jobs (owner, submitted);
CREATE INDEX jobs_in_state ON jobs (state, ended);
PRAGMA user_version = 5;
"""


@pytest.fixture
def table(tmp_path):
    table = JobTable(tmp_path / "jobs.db", Limits(queue=6, each=3), Clock())
    yield table
    table.close()


def prompts(jobs):
    return [job.task.prompt for job in jobs]


# The table


def test_a_table_from_before_there_was_a_pause_is_brought_up_to_date(tmp_path):
    file = tmp_path / "jobs.db"
    with closing(sqlite3.connect(file)) as rows:
        rows.executescript(OLD)
        for number, (state, ended) in enumerate([("queued", None), ("done", 5.0), ("failed", 6.0), ("running", None)]):
            made = ("/v/a.mp4", '{"seed": 7}') if state == "done" else (None, None)
            error = "It broke." if state == "failed" else None
            rows.execute(
                "INSERT INTO jobs (id, owner, task, state, submitted, ended, error, video, facts, title, favourite) "
                "VALUES (?, 'me', ?, ?, 1.0, ?, ?, ?, ?, 'a name', 1)",
                (str(number), to_json(of_table(f"{number}")), state, ended, error, *made),
            )
        rows.commit()
        assert rows.execute("SELECT 1 FROM jobs WHERE state = 'done'").fetchall()
        with pytest.raises(sqlite3.IntegrityError):
            rows.execute("UPDATE jobs SET state = 'paused'")
    table = JobTable(file, Limits(queue=6, each=3))
    assert prompts(table.everything()) == ["0", "1", "2", "3"]
    assert [job.state for job in table.everything()] == ["queued", "done", "failed", "interrupted"]
    assert table.get("2").end == Failed("It broke.") and table.get("1").result.facts == {"seed": 7}
    assert all(job.title == "a name" and job.favourite for job in table.everything())
    assert table.pause("0")
    table.close()
    with closing(sqlite3.connect(file)) as rows, closing(sqlite3.connect(":memory:")) as new:
        assert rows.execute("SELECT state FROM jobs WHERE id = '0'").fetchone() == ("paused",)
        new.executescript(_SCHEMA)
        of_schema = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
        assert rows.execute(of_schema).fetchall() == new.execute(of_schema).fetchall()


def test_a_paused_job_is_not_taken_and_stays_paused_over_a_restart(table, tmp_path):
    first, second = table.add(of_table("first"), "me"), table.add(of_table("second"), "me")
    assert table.pause(first.id) and not table.pause(first.id)
    running = table.take(0)
    assert running.id == second.id and table.take(0) is None
    table.tell(second.id, Progress("Denoising", 12, 25))
    assert not table.pause(second.id) and table.get(second.id).runs
    table.set_aside(second.id, kept=True)
    table = reopened(table, tmp_path)
    assert table.take(0) is None and [job.state for job in table.unfinished()] == ["paused", "paused"]
    assert table.get(second.id).progress == Progress("Denoising", 12, 25) and table.get(second.id).attempts == 0
    assert table.get(first.id).progress is None
    table.resume(second.id)
    assert table.take(0).id == second.id and table.get(second.id).attempts == 1
    table.close()


def test_whoever_resumes_stands_behind_those_who_wait(table):
    mine = table.add(of_table("mine"), "me")
    table.pause(mine.id)
    table.add(of_table("theirs"), "them")
    table.resume(mine.id), table.resume(mine.id)
    assert prompts(table.unfinished()) == ["theirs", "mine"]
    assert [table.take(0).task.prompt for _ in range(2)] == ["theirs", "mine"]


def test_paused_jobs_count_for_their_owner_and_address_and_take_no_place_from_others(table):
    mine = [table.add(of_table(f"{number}"), "me", "192.0.2.1") for number in range(3)]
    for job in mine:
        table.pause(job.id)
    with pytest.raises(ValueError, match="3 videos of yours are waiting"):
        table.add(of_table("one more"), "me", "192.0.2.1")
    with pytest.raises(ValueError, match="new at your address"):
        table.add(of_table("one more"), "another of mine", "192.0.2.1")
    for number in range(6):
        table.add(of_table("theirs"), f"owner {number}")
    with pytest.raises(ValueError, match="6 videos are waiting"):
        table.resume(mine[0].id)
    for job in table.unfinished()[3:5]:
        table.stop(job.id, "Stopped.")
    table.resume(mine[0].id, "192.0.2.1")
    assert table.get(mine[0].id).waits


def test_time_that_a_paused_job_has_used_counts_and_that_of_the_pause_does_not(table):
    mine = table.add(of_table("mine"), "me")
    table.take(0)
    table._clock.now += 40
    table.pause(mine.id)
    table.set_aside(mine.id, kept=True)
    table._clock.now += 600
    table.stop(mine.id, "Stopped.")
    assert sum(use.seconds for use in table._used) == pytest.approx(40, abs=0.1)


def test_a_worker_that_dies_in_the_moment_of_the_pause_leaves_a_paused_job(table):
    job = table.add(of_table("mine"), "me")
    table.take(0)
    table.pause(job.id)
    assert table.try_again(job.id, "It died.") and table.get(job.id).paused and table.take(0) is None
    table.resume(job.id)
    table.take(0)
    table.pause(job.id)
    table.interrupt(job.id)  # the app is being shut down
    assert table.get(job.id).paused


def test_who_thinks_better_of_it_before_the_job_has_stopped_has_it_go_on(table):
    job = table.add(of_table("mine"), "me")
    table.take(0)
    table.pause(job.id)
    table.resume(job.id)
    assert table.get(job.id).runs and not table.get(job.id).pausing
    table.set_aside(job.id, kept=True)  # the dispatcher had seen it already
    assert table.take(0).id == job.id


def test_a_kill_before_the_step_that_a_pause_waits_for_leaves_a_paused_job(table, tmp_path):
    jobs = [table.add(of_table(name), name) for name in ("paused", "thought better of")]
    for job in jobs:
        table.take(0)
        table.pause(job.id)
    table.resume(jobs[1].id)
    table._clock.now += 2
    for job in jobs:
        table.tell(job.id, Progress("Denoising", 3, 25))
    assert all(table.get(job.id).runs for job in jobs)
    table = reopened(table, tmp_path)
    assert [table.get(job.id).state for job in jobs] == ["paused", "interrupted"]
    assert table.get(jobs[0].id).progress == Progress("Denoising", 3, 25)
    table.close()


def test_stop_counts_whenever_it_is_pressed(table):
    job = table.add(of_table("mine"), "me")
    table.take(0)
    table.pause(job.id), table.stop(job.id, "Stopped.")
    assert not table.set_aside(job.id, kept=True) and table.get(job.id).stopping
    assert table.try_again(job.id, "It died.") and table.get(job.id).waits  # to be stopped as soon as it runs
    assert not table.pause(job.id)
    assert table.take(0).stopping


def test_what_is_paused_changes_no_places(table):
    first, second = table.add(of_table("first"), "me"), table.add(of_table("second"), "me")
    table.pause(first.id)
    with pytest.raises(ValueError, match="Resume it first"):
        table.move(first.id, 1)
    table.move(second.id, -1)
    assert prompts(table.unfinished()) == ["first", "second"]


def test_a_lost_table_forgets_no_pause(tmp_path):
    settings = Settings(data=tmp_path)
    table, _ = recovery.opened(settings)
    paused, waits = table.add(of_table("paused"), "me"), table.add(of_table("waits"), "me")
    table.pause(paused.id)
    assert Sidecars(tmp_path / "videos").matches(table.get(paused.id))
    table.close()
    for file in tmp_path.glob("jobs.db*"):
        file.unlink()
    table, told = recovery.opened(settings)
    assert told and table.get(paused.id).paused and table.get(waits.id).waits
    table.resume(paused.id)
    assert Sidecars(tmp_path / "videos").matches(table.get(paused.id))
    table.close()


# The backend


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """A backend that runs `scripted.system`, which has a checkpoint as soon as it begins."""
    system = Scripted()

    def generate(task, models, checkpoints=None):
        checkpoints._folder.mkdir(exist_ok=True, parents=True)
        (checkpoints._folder / "loop.safetensors").touch()
        return (yield from system.generate(task, models))

    tiny.add_engine(monkeypatch, "scripted", replace(modelscope.ENGINE, generate={TextToVideo: generate}))
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu")
    backend = local_backend(settings, {"scripted": SCRIPTED})
    backend.system = system
    yield backend
    system.go.set()
    backend.close()


def paused(backend, prompt="stay"):
    """A job that was paused while it ran."""
    job = backend.jobs.submit(task(prompt, SCRIPTED), ME)
    wait_for(backend, job, DENOISING)
    pause(backend, job)
    return job


def pause(backend, job):
    backend.jobs.pause(job, ME)
    now = backend.jobs.get(job, ME)
    while not now.paused:
        assert now.end is None
        now = backend.table.wait(now, 1)
    return now


def test_a_paused_job_frees_the_device_for_others_and_keeps_its_checkpoint(scripted):
    job = paused(scripted)
    kept = scripted.settings.data / "videos" / job / "checkpoints"
    assert list(kept.iterdir()) and scripted.jobs.get(job, ME).progress.stage == DENOISING
    other = scripted.jobs.submit(task("video", SCRIPTED), ME)
    assert isinstance(follow(scripted, other)[-1], Result) and scripted.system.began == ["stay", "video"]
    status = scripted.machine.status()
    assert (status.running, status.waiting) == (0, 0) and 'jobs{state="paused"} 1' in scripted.machine.metrics()
    scripted.system.go.set()
    scripted.jobs.resume(job, ME)
    assert isinstance(follow(scripted, job)[-1], Result) and not kept.exists()


def test_a_waiting_job_can_be_paused_and_what_has_ended_can_not(scripted):
    running = scripted.jobs.submit(task("stay", SCRIPTED), ME)
    waiting = scripted.jobs.submit(task("video", SCRIPTED), ME)
    wait_for(scripted, running, DENOISING)
    assert pause(scripted, waiting).progress is None
    scripted.system.go.set()
    assert isinstance(follow(scripted, running)[-1], Result)
    scripted.jobs.pause(running, ME), scripted.jobs.resume(running, ME)
    assert scripted.jobs.get(running, ME).state == "done" and scripted.jobs.get(waiting, ME).paused
    scripted.jobs.resume(waiting, ME)
    assert isinstance(follow(scripted, waiting)[-1], Result)


def test_stop_ends_a_paused_job_and_leaves_no_file(scripted):
    job = paused(scripted)
    scripted.jobs.cancel(job, ME)
    assert follow(scripted, job)[-1] == Failed("Stopped.", stopped=True)
    assert not list((scripted.settings.data / "videos").iterdir())
    scripted.jobs.resume(job, ME)
    assert scripted.jobs.unfinished(ME) == []


def test_only_its_owner_pauses_and_resumes_a_job(scripted):
    job = scripted.jobs.submit(task("stay", SCRIPTED), ME)
    wait_for(scripted, job, DENOISING)
    with pytest.raises(ValueError, match="no such job"):
        scripted.jobs.pause(job, OTHER)
    assert not scripted.jobs.get(job, ME).pausing
    pause(scripted, job)
    with pytest.raises(ValueError, match="no such job"):
        scripted.jobs.resume(job, OTHER)
    assert scripted.jobs.get(job, ME).paused
    with pytest.raises(ValueError, match="Stop it first"):
        scripted.jobs.delete(job, ME)


def test_what_is_paused_for_too_long_is_deleted_as_other_things_are(scripted, monkeypatch):
    job = paused(scripted)
    monkeypatch.setattr(scripted.tidy._ages, "see", lambda names: dict.fromkeys(names, 31 * 86_400.0))
    ended = []
    listening = threading.Thread(target=lambda: ended.append(follow(scripted, job)[-1]))
    listening.start()
    scripted.tidy.round()
    listening.join(20)
    assert ended == [Failed(storage.EXPIRED, stopped=True)]
    assert scripted.jobs.unfinished(ME) == [] and not (scripted.settings.data / "videos" / job).exists()


def test_what_was_resumed_meanwhile_is_not_deleted(scripted):
    job = paused(scripted)
    (thing,) = [one for one in scripted.storage.things(set()) if one.name == job]
    scripted.jobs.resume(job, ME)
    wait_for(scripted, job, DENOISING)
    with pytest.raises(ValueError):
        thing.delete()
    assert scripted.jobs.get(job, ME).end is None and thing.path.exists()


def test_a_full_disk_is_told_when_a_job_is_resumed(scripted, monkeypatch):
    job = paused(scripted)
    monkeypatch.setattr(scripted.storage, "_settings", replace(scripted.settings, disk_margin_mb=10**9))
    with pytest.raises(ValueError, match="disk is nearly full"):
        scripted.jobs.resume(job, ME)
    assert scripted.jobs.get(job, ME).paused


def test_a_video_that_was_paused_over_a_restart_is_the_one_that_it_would_have_been(tmp_path):
    settings = Settings(data=tmp_path / "data", device="cpu", hub=False)
    asked = task("a robot in blue", steps=12)
    backend = local_backend(settings)
    try:
        whole = follow(backend, backend.jobs.submit(asked, ME))[-1]
        job = backend.jobs.submit(asked, ME)
        for event in backend.jobs.events(job, ME):
            if isinstance(event, Progress) and event.stage == DENOISING and event.step >= 3:
                break
        at = pause(backend, job).progress
        assert at.stage == DENOISING and 3 <= at.step < 12
    finally:
        backend.close()
    backend = local_backend(settings)
    try:
        assert backend.jobs.get(job, ME).paused and replace(at, seconds_left=None, done=None) == Progress(
            *(getattr(backend.jobs.get(job, ME).progress, name) for name in ("stage", "step", "total"))
        )
        backend.jobs.resume(job, ME)
        end = follow(backend, job)[-1]
    finally:
        backend.close()
    assert end.facts["resumed_at_step"] >= at.step and "resumed_at_step" not in whole.facts
    assert np.array_equal(video.read(end.video), video.read(whole.video))
