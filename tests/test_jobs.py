"""The job table: turns, limits, and what is left after a kill at any moment."""

import random
import signal
import sqlite3
import threading
import time
import tracemalloc
from pathlib import Path

import programs
import pytest

from pipelines.catalog import find
from pipelines.events import Failed, Losses, Preview, Progress, Result
from pipelines.messages import said
from pipelines.serving import recovery
from pipelines.serving import table as table_rules
from pipelines.serving.fairness import Limits
from pipelines.serving.sidecar import Sidecars
from pipelines.serving.table import JobTable
from pipelines.settings import Settings
from pipelines.tasks import Edit, TextToVideo, Tune


def task(prompt, seed=7):
    return TextToVideo.for_model(find("miniature-modelscope"), prompt, seed)


class Clock:
    now = 1000.0

    def __call__(self):
        self.now += 0.001  # no two moments are the same
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table(tmp_path, clock):
    table = JobTable(tmp_path / "jobs.db", Limits(queue=50, each=10), clock)
    yield table
    table.close()


def reopened(table, tmp_path, clock=time.time):
    table.close()
    return JobTable(tmp_path / "jobs.db", Limits(queue=50, each=10), clock)


def finish(table, job):
    return table.tell(job.id, Result(Path(f"/videos/{job.id}.mp4"), {"seed": 7}))


def turns(table, until=99):
    """The prompts in the order in which they run, each finished before the next is taken."""
    order = []
    while len(order) < until and (job := table.take(0)) is not None:
        order.append(job.task.prompt)
        finish(table, job)
    return order


def test_everything_of_a_job_is_there_after_a_restart(table, tmp_path):
    done, failed, stopped, waiting = (table.add(task(word, 3), "me") for word in ("done", "failed", "stopped", "waits"))
    assert table.take(0).id == done.id
    table.tell(done.id, Progress("Denoising", 1, 2, 9.0))
    table.tell(done.id, Preview(b"picture"))
    ends = [table.tell(done.id, Result(Path("/v/a.mp4"), {"seconds": {"Denoising": 1.5}}))]
    assert table.take(0).id == failed.id
    ends.append(table.tell(failed.id, Failed("It broke.")))
    table.stop(stopped.id, "Stopped.")
    ends.append(table.get(stopped.id))
    again = reopened(table, tmp_path)
    for before in ends:
        after = again.get(before.id, "me")
        assert after == before and after.ended is not None and after.progress is None
    assert [again.get(job.id).state for job in (done, failed, stopped, waiting)] == [
        "done",
        "failed",
        "cancelled",
        "queued",
    ]
    assert again.get(done.id).end == Result(Path("/v/a.mp4"), {"seconds": {"Denoising": 1.5}})
    assert again.get(waiting.id).task == task("waits", 3) and again.take(0).id == waiting.id
    again.close()


@pytest.mark.parametrize("nobody", [None, "", "you", 0, False])
def test_who_is_nobody_sees_nothing(table, nobody):
    waiting, done = table.add(task("waits"), "me"), table.add(task("done"), "me")
    table.take(0)
    table.tell(waiting.id, Result(Path("/v/a.mp4"), {}))
    tune = Tune.for_model(find("miniature-sd"), "a robot", 1, clip="0" * 32)
    stopped = table.add(tune, "me")
    table.stop(stopped.id, "Stopped.")
    assert len(table.unfinished()) == len(table.finished()) == len(table.tunings()) == 1
    assert table.unfinished(nobody) == table.finished(nobody) == table.tunings(nobody) == []
    for job in (waiting, done, stopped):
        with pytest.raises(ValueError, match="no such job"):
            table.get(job.id, nobody)


def test_owners_take_turns(table):
    for number in range(4):
        table.add(task(f"a{number}"), "a")
    for word in ("b0", "b1"):
        table.add(task(word), "b")
    table.add(task("c0"), "c")
    waiting = sorted(table.unfinished(), key=lambda job: job.progress.step)
    told = [job.task.prompt for job in waiting]
    assert told == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
    assert turns(table) == told


def run(table, clock, seconds):
    job = table.take(0)
    clock.now += seconds
    finish(table, job)
    return job.task.prompt


def test_who_used_fewer_seconds_in_the_last_hour_goes_first(table, clock):
    table.add(task("long"), "a"), run(table, clock, 40)
    table.add(task("short"), "b"), run(table, clock, 5)
    table.add(task("a"), "a"), table.add(task("b"), "b"), table.add(task("new"), "c")
    assert turns(table) == ["new", "b", "a"]
    clock.now += 3600
    table.add(task("a"), "a"), table.add(task("b"), "b")
    assert turns(table) == ["a", "b"]


def test_nobody_starves_while_others_keep_coming(table, clock):
    table.add(task("first"), "patient"), run(table, clock, 60)
    table.add(task("second"), "patient")
    for number in range(8):  # every 10 s a guest who has used nothing
        clock.now += 10
        table.add(task(f"guest {number}"), f"guest {number}")
    order = turns(table)
    assert order.index("guest 4") < order.index("second") < order.index("guest 6")


def test_many_ids_at_one_address_count_as_a_few_owners(table, clock):
    for number in range(8):
        table.add(task("once"), f"crowd {number}", "192.0.2.1"), run(table, clock, 8)
    for number in range(8):
        table.add(task(f"crowd {number}"), f"crowd {number}", "192.0.2.1")
    clock.now += 12
    table.add(task("guest"), "guest", "192.0.2.2")
    order = turns(table)  # all eight count a quarter of 64 seconds, and not 8 seconds each
    assert order[0] == "guest"


def test_new_ids_of_an_address_share_what_one_owner_has_until_a_job_has_run(table):
    jobs = [table.add(task(f"{number}"), f"new {number}", "192.0.2.1") for number in range(10)]
    with pytest.raises(ValueError, match="new at your address"):
        table.add(task("one more"), "new 10", "192.0.2.1")
    table.add(task("elsewhere"), "new 10", "192.0.2.2")
    table.take(0)
    finish(table, jobs[0])
    table.add(task("known"), "new 0", "192.0.2.1")
    table.add(task("one more"), "new 10", "192.0.2.1")


def test_places_are_kept_for_who_has_none_waiting(table):
    for number in range(37):
        table.add(task("a"), f"owner {number}")
    table.add(task("second"), "owner 0")  # 38 of 50
    with pytest.raises(ValueError, match="for visitors who have none waiting"):
        table.add(task("third"), "owner 0")
    for number in range(37, 49):
        table.add(task("a"), f"owner {number}")
    with pytest.raises(ValueError, match="50 videos are waiting"):
        table.add(task("a"), "owner 49")


def test_an_address_is_kept_nowhere(table, tmp_path):
    table.add(task("a"), "me", "192.0.2.77")
    assert not any(b"192.0.2.77" in file.read_bytes() for file in tmp_path.iterdir())
    assert "192.0.2.77" not in repr(vars(table))


def test_an_owners_second_job_runs_beside_the_first_once_nobody_else_waits(table):
    table.add(task("a0"), "a"), table.add(task("a1"), "a"), table.add(task("b0"), "b")
    assert [table.take(0).task.prompt for _ in range(3)] == ["a0", "b0", "a1"]
    assert table.take(0) is None


def test_the_wait_is_estimated_from_what_is_left_and_from_videos_before(table, clock):
    assert table.add(task("one"), "a").progress == Progress("Waiting", 1, 1, 0.0)
    job = table.take(0)
    assert table.add(task("two"), "b").progress.seconds_left is None  # there is nothing to go by yet
    clock.now += 30
    finish(table, job)
    running = table.take(0)
    table.tell(running.id, Progress("Denoising", 1, 9, 12.0))
    first, second = table.add(task("three"), "c"), table.add(task("four"), "d")
    assert first.progress.seconds_left == 12.0
    assert second.progress.seconds_left == pytest.approx(42, abs=0.1)


def test_search_finds_every_word_and_takes_signs_for_what_they_are(table):
    for prompt in ("a robot on the beach", "a bear on the beach", "100% wool_sweater"):
        table.add(task(prompt), "me")
    turns(table)

    def found(search):
        return [job.task.prompt for job in table.finished("me", search)]

    assert found("") == ["100% wool_sweater", "a bear on the beach", "a robot on the beach"]
    assert found("BEACH robot") == ["a robot on the beach"] and found("beach moon") == []
    assert found("%") == found("wool_") == ["100% wool_sweater"] and found("wool%") == found("a_r") == []
    assert found("' OR 1=1 --") == [] and found("\\") == []
    assert [job.task.prompt for job in table.finished("me", limit=1, offset=1)] == ["a bear on the beach"]


def test_a_job_that_ran_when_the_app_died_is_tried_once_more(table, tmp_path):
    job = table.add(task("heavy"), "me")
    table.take(0)
    table.add(task("other"), "you")
    again = reopened(table, tmp_path)
    assert again.get(job.id).state == "interrupted" and again.get(job.id).attempts == 1
    assert again.take(0).id == job.id and again.get(job.id).attempts == 2
    third = reopened(again, tmp_path)
    end = third.get(job.id)
    assert end.state == "failed" and "fewer frames" in end.end.message
    assert [job.task.prompt for job in third.unfinished()] == ["other"]
    third.close()


def test_one_process_has_the_table_at_a_time(table, tmp_path):
    with pytest.raises(ValueError, match="runs already"):
        JobTable(tmp_path / "jobs.db", Limits(5, 5))
    table.add(task("the first one goes on"), "me")


def test_a_file_that_is_no_table_or_too_new_is_left_alone(tmp_path):
    file = tmp_path / "jobs.db"
    file.write_bytes(b"not a database, " * 99)
    with pytest.raises(ValueError, match="damaged"):
        JobTable(file, Limits(5, 5))
    assert file.read_bytes() == b"not a database, " * 99
    file.unlink()
    with sqlite3.connect(file) as rows:
        rows.execute("PRAGMA user_version = 99")
    rows.close()
    with pytest.raises(ValueError, match="newer version"):
        JobTable(file, Limits(5, 5))


def test_a_listener_hears_the_end_of_a_job_of_another_thread(table):
    job = table.add(task("a"), "me")
    running = table.take(0)
    threading.Timer(0.1, lambda: finish(table, job)).start()
    while running.end is None:
        running = table.wait(running, 5)
    assert running == table.get(job.id)


def test_memory_does_not_grow_with_ended_jobs(table):
    def many():
        for number in range(200):
            job = table.add(task(f"number {number}"), f"owner {number % 20}")
            table.take(0)
            table.tell(job.id, Preview(bytes(100_000)))
            finish(table, job)

    many()
    tracemalloc.start()
    many()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 500_000  # of 20 MB of previews


# Killed at any moment

WORKER = """
import random, sys, time
from pathlib import Path
from pipelines.events import Progress
from pipelines.serving import recovery
from pipelines.serving.executor import Made
from pipelines.settings import Settings
from pipelines.serving.storage import Storage
from pipelines.media import video
from pipelines.catalog import find
from pipelines.tasks import TextToVideo

data, seed, card = Path(sys.argv[1]), int(sys.argv[2]), find("miniature-modelscope")
dice = random.Random(seed)
settings = Settings(data=data, queue=1000, queue_each=1000)
table, _ = recovery.opened(settings)
storage = Storage(settings, table)
known = open(data / "known.txt", "a", buffering=1)
known.write("up\\n")
while True:
    if dice.random() < 0.5:
        known.write(table.add(
            TextToVideo.for_model(card, f"video {dice.random()}", 7), f"owner {dice.randrange(3)}"
        ).id + "\\n")
    job = table.take(0)
    if job is not None:
        path = storage.place(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        table.tell(job.id, Progress("Denoising", 1, 2))
        with video.whole(path) as part:
            with part.open("wb") as file:
                for piece in range(20):
                    file.write(job.id.encode() * 1000)
                    file.flush()
                    time.sleep(dice.random() * 0.0005)
        table.tell(job.id, storage.keep(job, Made({"video": path.name}, {"id": job.id})))
"""


def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path):
    dice = random.Random(2026)
    known = tmp_path / "known.txt"
    known.touch()
    states = []
    for kill in range(25):
        ups = known.read_text().count("up")
        errors = tmp_path / "errors.txt"
        process = programs.Program(
            ["-c", WORKER, str(tmp_path), str(kill)], {"PATH": ""}, tmp_path / "told.txt", errors
        )
        while known.read_text().count("up") == ups:
            assert process.poll() is None, errors.read_text()
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.4))  # each job is written to the disk several times
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        with sqlite3.connect(tmp_path / "jobs.db") as rows:
            states.append(dict(rows.execute("SELECT id, state FROM jobs")))
        rows.close()
    assert any("running" in one.values() for one in states)  # some kills met a job

    told = [line for line in known.read_text().splitlines() if line not in ("up", "")]
    table, told_of_data = recovery.opened(Settings(data=tmp_path, queue=1000, queue_each=1000))
    assert told_of_data == []
    every = {job.id: job for job in [*table.unfinished(), *table.finished()]}
    died = {identifier for identifier in states[-1] if identifier not in every}
    for identifier in died:
        job = table.get(identifier)
        assert job.state == "failed" and job.attempts == table_rules.ATTEMPTS and job.end.message == table_rules.DIED
    whole = [line for line in told if len(line) == 32]
    assert len(told) - len(whole) <= 25 and set(whole) <= set(every) | died and len(set(whole)) == len(whole)
    for before, after in zip(states, states[1:], strict=False):
        assert all(after[one] == "done" for one, state in before.items() if state == "done")

    finished = table.finished()
    assert len(finished) > 25
    waiting = {job.id for job in table.unfinished()}
    assert {folder.name for folder in (tmp_path / "videos").iterdir()} == {job.id for job in finished} | waiting
    for identifier in waiting:
        files = {file.suffix for file in (tmp_path / "videos" / identifier).iterdir()}
        assert files <= {".json", ".mp4"}  # what its last attempt wrote whole is written over by the next
    for job in finished:
        assert job.end.video.read_bytes() == job.id.encode() * 20_000
        names = {"job.json", job.end.video.name, job.end.video.with_suffix(".json").name}
        assert {file.name for file in job.end.video.parent.iterdir()} == names
    assert all(job.state in ("queued", "interrupted") for job in table.unfinished())
    order = sorted(table.unfinished(), key=lambda job: job.progress.step)
    assert sorted(turns(table, until=10**6)) == sorted(job.task.prompt for job in order)
    table.close()


def tuning(prompt="a clip"):
    return Tune.for_model(find("miniature-sd"), prompt, 1, clip="0" * 32)


def test_a_tuning_that_was_stopped_is_queued_again_as_new(table, tmp_path):
    job = table.add(tuning(), "me")
    table.take(0)
    table.tell(job.id, Losses((0.3, 0.2)))
    table.stop(job.id, "Stopped.")
    assert table.tell(job.id, Progress("Tuning", 2, 9)).stopping
    ended = table.tell(job.id, Failed("Stopped.", stopped=True))
    assert [one.id for one in table.tunings("me")] == [job.id] and ended.losses is None
    assert table.tunings("you") == [] and table.finished("me") == []
    table.rename(job.id, "my dancer")
    table.again(job.id)
    assert table.tunings("me") == []
    table = reopened(table, tmp_path)
    again = table.take(0)
    assert (again.id, again.attempts, again.title, again.end) == (job.id, 1, "my dancer", None)
    finish(table, again)
    assert [one.state for one in table.tunings()] == ["done"]
    assert table.finished("me") == []  # the library shows videos
    with pytest.raises(ValueError, match="resumed"):
        table.again(job.id)
    table.close()


def test_a_table_of_the_version_before_is_brought_up_to_date(table, tmp_path):
    job = table.add(task("a bear"), "me")
    table.close()
    rows = sqlite3.connect(tmp_path / "jobs.db")
    for column in ("title", "favourite", "message"):
        rows.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
    rows.execute("PRAGMA user_version = 1")
    rows.commit()
    rows.close()
    table = JobTable(tmp_path / "jobs.db", Limits(queue=50, each=10))
    table.rename(job.id, "a name")
    assert table.get(job.id).title == "a name" and table.get(job.id).task == job.task
    assert not table.get(job.id).favourite
    table.close()


def test_favourites_are_found_and_survive_a_restart_and_the_loss_of_the_table(table, tmp_path):
    mine, plain, theirs = (table.add(task("a bear"), owner) for owner in ("me", "me", "them"))
    for _ in range(3):
        job = table.take(0)
        table.tell(job.id, Result(tmp_path / "videos" / job.id / "a.mp4", {"seed": 7}))
    table.favour(mine.id, True)
    table.favour(theirs.id, True)
    assert [job.id for job in table.finished("me", favourites=True)] == [mine.id]
    table = reopened(table, tmp_path)
    assert [job.id for job in table.finished("me", favourites=True)] == [mine.id] and not table.get(plain.id).favourite
    job = table.get(mine.id)
    job.end.video.parent.mkdir(parents=True)
    job.end.video.write_bytes(b"video")
    sidecars = Sidecars(job.end.video.parent.parent)
    sidecars.note(job)
    noted = sidecars.read(job.id)
    assert noted is not None and noted.favourite
    table.adopt(noted)
    assert [job.id for job in table.finished("me", "bear", favourites=True)] == [mine.id]
    table.favour(mine.id, False)
    assert table.finished("me", favourites=True) == []
    table.close()


def test_what_an_error_is_made_of_survives_a_restart_and_the_loss_of_the_table(table, tmp_path):
    """So that it can be told in another language then."""
    told = said("{time} left", time=said("about {count:.0f} s", count=4))
    job = table.add(tuning(), "me")
    table.take(0)
    table.tell(job.id, Failed(told))
    table = reopened(table, tmp_path)
    kept = table.get(job.id)
    sidecars = Sidecars(tmp_path / "videos")
    sidecars.note(kept)
    for failed in (kept.end, sidecars.read(job.id).end):
        message = failed.message
        assert message == told == "about 4 s left" and message.template == "{time} left"
        assert message.values["time"].template == "about {count:.0f} s" and message.values["time"].values == {
            "count": 4
        }
    table.close()


def test_a_tuning_and_an_edit_of_one_model_are_not_taken_for_equally_long(table, clock):
    for kind, seconds in ((tuning(), 90), (edit(), 4)):
        job = table.add(kind, "me")
        table.take(0)
        clock.now += seconds
        finish(table, job)
    first, second = table.add(edit(), "me"), table.add(edit(), "me")
    assert table.get(second.id).progress.seconds_left == pytest.approx(4, abs=0.1)
    assert table.get(first.id).progress.seconds_left in (0, None)


def edit():
    return Edit.for_model(find("miniature-sd"), "a robot", 1, tuned="0" * 32)
