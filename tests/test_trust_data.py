"""No advice, accident or clock costs a video: the data under damage, kills, a full disk and a wrong clock."""

import hashlib
import json
import logging
import os
import re
import resource
import shutil
import signal
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from running_app import running_app
from test_health import health, wait_until

from pipelines.catalog import find
from pipelines.events import Failed, Progress, Result
from pipelines.media import video
from pipelines.models import files, loading
from pipelines.serving import logs, recovery, tidy
from pipelines.serving.ages import OFF_SECONDS, Ages
from pipelines.serving.executor import Made
from pipelines.serving.local import local_backend
from pipelines.serving.storage import Storage
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo, Tune
from scripts import checksums

ME = "1" * 32
CARD = find("miniature-modelscope")
DAY = 86_400.0


def task(prompt="a bear bows"):
    return TextToVideo.for_model(CARD, prompt, 7, frames=8, steps=1)


def tuning():
    return Tune.for_model(find("miniature-sd"), "a clip", 7, clip="c" * 32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = np.linspace(50, 150, 8 * 32 * 32 * 3).reshape(8, 32, 32, 3).astype(np.uint8)
    file = tmp_path_factory.mktemp("clip") / "clip.mp4"
    video.write(frames, file, 8)
    return file


def settings(folder, **more):
    return Settings(**{"data": folder, "cache": folder / "cache", "device": "cpu", "hub": False, **more})


def filled(folder, clip, videos=5):
    """Data with finished videos, a tuned model, a job that waits and one that failed; returns the jobs by state."""
    table, _ = recovery.opened(settings(folder))
    storage = Storage(settings(folder), table)
    done = []
    for one in [*(task(f"video {number}") for number in range(videos)), tuning()]:
        job = table.add(one, ME)
        table.take(0)
        place = storage.place(job)
        shutil.copy(clip, place)
        if isinstance(one, Tune):
            storage.tuned(job.id).mkdir()
            (storage.tuned(job.id) / "tuned.json").write_text("{}")
        table.tell(job.id, storage.keep(job, Made({"video": place.name}, {"seconds": 1.0})))
        table.rename(job.id, f"called {one.prompt}")
        done.append(job.id)
    failed = table.add(task("fails"), ME)
    table.take(0)
    table.tell(failed.id, Failed("It was too large."))
    waiting = table.add(task("waits"), ME)
    table.close()
    return done, waiting.id, failed.id


def content(folder):
    """The hashes of all videos and tuned models, wherever they are now."""
    files = [path for path in folder.rglob("*") if path.suffix == ".mp4" or path.name == "tuned.json"]
    return sorted(hashlib.sha256(path.read_bytes() + path.name.encode()).hexdigest() for path in files)


def damage_text(file):
    file.write_bytes(b"not a database, " * 99)


def damage_page(file):
    whole = bytearray(file.read_bytes())
    whole[4096 : 4096 * 2] = bytes(4096)
    file.write_bytes(whole)


def damage_half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_foreign(file):
    file.unlink()
    with sqlite3.connect(file) as rows:
        rows.execute("CREATE TABLE jobs (something TEXT)")
    rows.close()


def damage_row(file):
    with sqlite3.connect(file) as rows:
        rows.execute("UPDATE jobs SET task = '{\"task\": \"fly\"}' WHERE state = 'done'")
    rows.close()


def damage_folder(file):
    file.unlink()
    file.mkdir()


def damage_gone(file):
    file.unlink()


DAMAGES = [damage_text, damage_page, damage_half, damage_foreign, damage_row, damage_folder, damage_gone]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_whatever_happens_to_the_table_every_video_stays(tmp_path, clip, damage):
    done, waiting, _ = filled(tmp_path, clip)
    before = content(tmp_path)
    assert len(before) == 5 + 2
    damage(tmp_path / "jobs.db")
    table, notes = recovery.opened(settings(tmp_path))
    try:
        assert content(tmp_path) == before
        assert {job.id for job in [*table.finished(ME), *table.tunings(ME)]} == set(done)
        assert {job.title for job in table.finished(ME)} == {f"called video {number}" for number in range(5)}
        assert all(job.end.video.is_file() and job.end.facts["seconds"] for job in table.finished(ME))
        assert [job.id for job in table.unfinished(ME)] == [waiting]
        assert notes and not (tmp_path / "found" / done[0]).exists()
        if damage not in (damage_folder, damage_gone):
            assert len([path for path in tmp_path.iterdir() if path.name.startswith("jobs.db.damaged-")]) >= 1
    finally:
        table.close()
    again, notes = recovery.opened(settings(tmp_path))
    assert notes == [] and len(again.finished(ME)) == 5 and content(tmp_path) == before
    again.close()


def test_the_app_itself_puts_a_damaged_table_aside_and_says_so(tmp_path, clip):
    done, waiting, _ = filled(tmp_path / "videos", clip)
    before = content(tmp_path / "videos" / "videos")
    damage_page(tmp_path / "videos" / "jobs.db")
    (tmp_path / "videos" / "clips").rmdir()
    (tmp_path / "videos" / "clips").write_text("a file where a folder should be")
    (tmp_path / "videos" / "marionette.log").mkdir()
    with running_app(tmp_path) as app:
        told = health(app)
        assert told["ok"] and "table of jobs was damaged" in told["notes"][0] and told["found"] == 1
        assert str(tmp_path) not in json.dumps(told)
        assert set(before) <= set(content(app.data / "videos"))
    said = (tmp_path / "app.log").read_text()
    assert "Traceback" not in said and "jobs.db.damaged-" in said and "No log file" in said
    assert (tmp_path / "videos" / "found" / "clips").read_text().startswith("a file")
    table, notes = recovery.opened(settings(tmp_path / "videos"))
    assert notes == [] and {job.id for job in [*table.finished(ME), *table.tunings(ME)]} >= set(done)
    assert table.get(waiting, ME).state in ("queued", "interrupted", "done")
    table.close()


def test_what_nobody_knows_is_moved_and_replaces_nothing(tmp_path, clip):
    filled(tmp_path, clip, videos=1)
    for round_ in range(2):
        (tmp_path / "videos" / "holiday").mkdir()
        (tmp_path / "videos" / "holiday" / "film.mp4").write_text(f"film {round_}")
        (tmp_path / "videos" / "notes.txt").write_text(f"notes {round_}")
        broken = tmp_path / "videos" / ("e" * 32)
        broken.mkdir()
        (broken / "job.json").write_text("[" * 10**5)
        table, notes = recovery.opened(settings(tmp_path))
        table.close()
        assert "3 things" in notes[0]
    found = tmp_path / "found"
    assert [(found / name / "film.mp4").read_text() for name in ("holiday", "holiday-1")] == ["film 0", "film 1"]
    assert [(found / name).read_text() for name in ("notes.txt", "notes.txt-1")] == ["notes 0", "notes 1"]


def test_an_interrupted_deletion_is_completed_and_not_undone(tmp_path, clip):
    done, _, _ = filled(tmp_path, clip, videos=2)
    table, _ = recovery.opened(settings(tmp_path))
    table.delete(done[0])  # and the app dies before the files are gone
    table.close()
    damage_text(tmp_path / "jobs.db")
    table, _ = recovery.opened(settings(tmp_path))
    assert [job.id for job in table.finished(ME)] == [done[1]] and not (tmp_path / "videos" / done[0]).exists()
    assert not (tmp_path / "found" / done[0]).exists()
    table.close()


def test_a_video_that_was_made_when_the_app_died_is_not_made_again(tmp_path, clip):
    filled(tmp_path, clip, videos=0)
    table, _ = recovery.opened(settings(tmp_path))
    (job,) = table.unfinished(ME)
    table.take(0)
    place = Storage(settings(tmp_path), table).place(job)
    shutil.copy(clip, place)
    rows = table._rows
    table._rows = None  # the app dies between the sidecar and the row
    with pytest.raises(AttributeError):
        table.tell(job.id, Result(place, {"seconds": 2.0}))
    rows.close()
    table, _ = recovery.opened(settings(tmp_path))
    assert table.get(job.id).end == Result(place, {"seconds": 2.0}) and table.unfinished() == []
    table.close()


# The clock


class Clock:
    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def test_time_that_the_app_did_not_see_counts_for_a_day_at_most(tmp_path):
    wall, monotonic = Clock(1e9), Clock(50.0)
    ages = Ages(tmp_path / "ages.json", wall, monotonic)
    assert ages.see(["a"]) == {"a": 0.0}
    wall.now += 400 * DAY  # somebody sets the clock while the app runs
    monotonic.now += 60
    assert ages.see(["a", "b"]) == {"a": 60.0, "b": 0.0}
    wall.now += 31 * DAY  # or while it does not
    assert Ages(tmp_path / "ages.json", wall, Clock()).see(["a"]) == {"a": 60.0 + OFF_SECONDS}
    wall.now -= 900 * DAY
    again = Ages(tmp_path / "ages.json", wall, Clock())
    assert again.see(["a"]) == {"a": 60.0 + OFF_SECONDS}
    for broken in ("{", "[]", '{"now": NaN, "wall": 0, "since": {}}', '{"now": 1, "wall": 1, "since": {"a": "x"}}'):
        (tmp_path / "ages.json").write_text(broken)
        assert Ages(tmp_path / "ages.json").see(["a"]) == {"a": 0.0}


def things(folder, count, kind="videos", size=1000, held=(), days=30.0):
    for number in range(count):
        (folder / f"{kind}{number}").exists() or (folder / f"{kind}{number}").write_bytes(bytes(size))

    def every():
        paths = [folder / f"{kind}{number}" for number in range(count)]
        return [
            tidy.Thing(kind, path.name, path, number, days, number in held, path.unlink)
            for number, path in enumerate(paths)
            if path.exists()
        ]

    return every


def test_never_more_than_a_share_goes_at_once(tmp_path):
    monotonic = Clock()
    every = things(tmp_path, 30, held=(1,))
    keeper = tidy.Tidy(settings(tmp_path), Ages(tmp_path / "ages.json", monotonic=monotonic), every)
    assert keeper.round() is False
    monotonic.now += 29 * DAY
    assert keeper.round() is False and len(every()) == 30
    monotonic.now += 2 * DAY
    assert keeper.round() is True and len(every()) == 27
    assert {thing.name for thing in every()}.isdisjoint({"videos0", "videos2", "videos3"})  # the oldest that are free
    while keeper.round():
        pass
    assert [thing.name for thing in every()] == ["videos1"]


def test_what_can_not_be_deleted_keeps_nothing_else_from_it(tmp_path, caplog):
    every = things(tmp_path, 20, days=-1.0)

    def stubborn():
        return [replace(thing, delete=Path("/nowhere").unlink) if thing.made == 0 else thing for thing in every()]

    keeper = tidy.Tidy(settings(tmp_path), Ages(tmp_path / "ages.json"), stubborn)
    keeper.round()
    assert [thing.name for thing in every()][:2] == ["videos0", "videos2"]


def test_everything_counts_and_the_oldest_of_all_goes_first(tmp_path):
    """A backend's own things: videos, a tuned model, clips, images, temporary files. What was found is left alone."""
    backend = local_backend(settings(tmp_path))
    try:
        assert backend.dispatcher.pause(20)
        made = {"clips": 10.0, "images": 20.0}  # seconds since 1970
        for kind, whose in (("clips", "clip.json"), ("images", "image.json")):
            for number in range(2):
                folder = tmp_path / kind / f"{number:032x}"
                folder.mkdir(parents=True)
                (folder / whose).write_text(json.dumps({"owner": ME}))
                (folder / "upload").write_bytes(bytes(10**6))
                os.utime(folder, (made[kind] + number,) * 2)
        left = tmp_path / "public" / "uploads" / "abc"
        left.mkdir(parents=True)
        (left / "clip.mp4").write_bytes(bytes(10**6))
        (tmp_path / "found").mkdir()
        (tmp_path / "found" / "large").write_bytes(bytes(5 * 10**6))
        kinds = {thing.kind for thing in backend.assets.things()}
        assert kinds == {"clips", "images", "temp"}

        def left_over():
            return [int(path.name) for kind in made for path in sorted((tmp_path / kind).iterdir())]

        keeper = tidy.Tidy(settings(tmp_path, keep_gb=0.0035), Ages(tmp_path / "ages.json"), backend.assets.things)
        assert keeper.round() is True and left_over() == [1, 0, 1]
        assert keeper.round() is False and left_over() == [0, 1] and left.exists()  # two images
        os.utime(left, (15.0, 15.0))  # after the clips, before the images
        keeper = tidy.Tidy(settings(tmp_path, keep_gb=0.0025), Ages(tmp_path / "new.json"), backend.assets.things)
        assert keeper.round() is False and left_over() == [0, 1] and not left.exists()
        assert (tmp_path / "found" / "large").exists()  # it counts for nothing
    finally:
        backend.table.close()


AHEAD = """
import runpy, time
real = time.time
time.time = lambda: real() + 31 * 86_400
from pipelines.serving import tidy
tidy.FIRST_SECONDS = tidy.ROUND_SECONDS = 0.2
runpy.run_path("app.py", run_name="__main__")
"""


def test_a_clock_that_is_a_month_ahead_deletes_nothing(tmp_path, clip):
    _, waiting, _ = filled(tmp_path / "videos", clip)
    table, _ = recovery.opened(settings(tmp_path / "videos"))
    table.stop(waiting, "Stopped.")  # so that nothing keeps the worker from tidying
    table.close()
    before = content(tmp_path / "videos")
    for _ in range(2):
        with running_app(tmp_path, program=("-c", AHEAD)) as app:
            written = set()

            def rounds(app=app, written=written):
                file = app.data / "ages.json"
                written.add(file.stat().st_mtime_ns if file.exists() else 0)
                return len(written) > 4

            wait_until(rounds, 60)
            assert health(app)["worker"]["failed_rounds"] == 0
            assert set(before) <= set(content(app.data))


# A disk that is full for a moment


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit another process")
def test_a_disk_that_is_full_for_a_moment_ends_nothing_but_the_moment(tmp_path):
    with running_app(tmp_path) as app:
        client = Client(app.url, verbose=False, download_files=tmp_path)

        def full(is_full):
            _, hard = resource.prlimit(app.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(app.process.pid, resource.RLIMIT_FSIZE, (1 if is_full else hard, hard))

        running = client.submit("a bear bows", steps=25, frames=8, visitor_id=ME, api_name="/text_to_video")
        wait_until(lambda: "Denoising" in str(running.outputs()[-1:]) or len(running.outputs()) > 3, 300)
        full(True)
        time.sleep(3)  # progress is noted about once a second
        assert health(app)["worker"]["alive"]
        with pytest.raises(AppError) as refused:
            client.predict("a robot waves", steps=1, frames=8, visitor_id="2" * 32, api_name="/text_to_video")
        assert "list of jobs could not be" in str(refused.value) and "sqlite" not in str(refused.value).lower()
        assert health(app)["table"] != "ok" and not health(app)["ok"]
        full(False)
        wait_until(lambda: health(app)["ok"], 120)
        assert running.result(timeout=300)  # the job went on, and its end is told
        client.predict("a robot waves", steps=1, frames=8, visitor_id="2" * 32, api_name="/text_to_video")
        assert health(app)["worker"]["restarts"] == 0
    table, notes = recovery.opened(settings(tmp_path / "videos"))
    assert notes == [] and len(table.finished()) == 2
    table.close()


def test_the_end_of_a_job_that_the_file_can_not_take_is_written_later(tmp_path, clip):
    table, _ = recovery.opened(settings(tmp_path))
    job = table.add(task(), ME)
    table.take(0)
    place = Storage(settings(tmp_path), table).place(job)
    shutil.copy(clip, place)
    rows = table._rows.connection
    rows.execute("PRAGMA query_only = 1")  # what SQLite says then is what it says of a full disk: not now
    table.tell(job.id, Progress("Denoising", 1, 2))
    table.tell(job.id, Progress("Denoising", 2, 2))
    table.tell(job.id, Result(place, {}))
    assert table.get(job.id, ME).end == Result(place, {}) and table.trouble and table.unfinished() == []
    with pytest.raises(sqlite3.Error):
        table.settle()
    rows.execute("PRAGMA query_only = 0")
    table.settle()
    assert [one.id for one in table.finished(ME)] == [job.id] and table.trouble == ""
    table.close()


def test_a_question_that_sqlite_refuses_is_no_damage(tmp_path, clip):
    filled(tmp_path, clip, videos=1)
    table, _ = recovery.opened(settings(tmp_path))
    with pytest.raises(sqlite3.Error):
        table.finished(ME, search="a" * 60_000)
    assert table.trouble == ""
    table.close()


# The end


STUCK = """
import runpy, sys
from pipelines.serving import processes
worker = "import time; from pipelines.serving import worker, worker_process; "
worker += "worker.make = lambda *arguments, **more: time.sleep(600); worker_process.main()"
executor = processes.ProcessExecutor
processes.ProcessExecutor = lambda settings, catalog: executor(settings, catalog, (sys.executable, "-c", worker))
runpy.run_path("app.py", run_name="__main__")
"""


def test_the_app_ends_within_ten_seconds_whatever_its_job_is_at(tmp_path):
    with running_app(tmp_path, program=("-c", STUCK)) as app:
        client = Client(app.url, verbose=False, download_files=tmp_path)
        client.submit("a bear bows", steps=1, frames=8, visitor_id=ME, api_name="/text_to_video")
        wait_until(lambda: list((app.data / "videos").glob("*/job.json")), 60)
        time.sleep(1)
        started = time.monotonic()
        app.process.send_signal(signal.SIGTERM)
        assert app.process.wait(20) == 0 and time.monotonic() - started < 10
    table, _ = recovery.opened(settings(tmp_path / "videos"))
    (job,) = table.unfinished()
    assert (job.state, job.attempts) == ("interrupted", 0)  # an orderly end is no failed attempt
    table.close()


# Weights


def test_the_list_of_hashes_is_that_of_the_files():
    assert files.CHECKSUMS.read_text("utf-8").splitlines() == checksums.lines(), "run python -m scripts.checksums"


def test_a_bit_that_has_flipped_in_the_weights_is_noticed(tmp_path, monkeypatch):
    shutil.copytree(files.MINIATURES / "sd", tmp_path / "miniature" / "sd")
    shutil.copy(files.CHECKSUMS, tmp_path)
    monkeypatch.setattr(files, "MINIATURES", tmp_path / "miniature")
    monkeypatch.setattr(files, "CHECKSUMS", tmp_path / "checksums.txt")
    files._shipped.cache_clear()
    source = replace(find("miniature-sd").source, location=str(tmp_path / "miniature" / "sd"))
    here = settings(tmp_path)
    try:
        assert loading.part_of(source, "text_encoder", here).load(lambda *_: None)
        file = tmp_path / "miniature" / "sd" / "text_encoder" / "model.safetensors"
        flipped = bytearray(file.read_bytes())
        flipped[-1001] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match="damaged.*Install the app once more"):
            loading.part_of(source, "text_encoder", here).load(lambda *_: None)
    finally:
        files._shipped.cache_clear()


# The log


def entries(tmp_path, *messages):
    """What the log file says after these messages, in a process's own logging."""
    record = [logging.LogRecord("x", logging.ERROR, "f", 1, message, None, None) for message in messages]
    return "\n".join(logs.Formatter().format(one) for one in record)


def test_nobody_forges_a_line_of_the_log_or_sends_the_terminal_commands(tmp_path):
    said = entries(tmp_path, "bad name\n2026-01-01 00:00:00 ERROR root: forged\r\x1b[2J\x07\u202e\u2028\ud800x\x85")
    assert len(re.findall(r"^\d{4}-", said, re.M)) == 1
    assert said.isascii() and not re.search("[\x00-\x09\x0b-\x1f\x7f]", said) and "\\x1b[2J" in said


def test_an_entry_has_an_end(tmp_path):
    said = entries(tmp_path, "a" * 10**7 + "the end")
    assert len(said) < 2 * logs.LONGEST and said.endswith("the end") and "characters left out" in said


def test_what_is_refused_beside_the_tidying_harms_neither(tmp_path):
    """Folders that come and go while the worker tidies: half an upload is deleted by whoever refused it."""
    backend = local_backend(settings(tmp_path, keep_gb=0.01))
    going = True

    def come_and_go(number):
        while going:
            number += 3
            folder = tmp_path / "clips" / f"{number:032x}"
            folder.mkdir()
            with suppress(FileNotFoundError):  # the tidying was faster
                (folder / "upload").write_bytes(bytes(1000))
            shutil.rmtree(folder, ignore_errors=True)

    threads = [threading.Thread(target=come_and_go, args=[number]) for number in range(3)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(40):
            backend.tidy.round()
        health = backend.machine.health()
        assert health["worker"]["alive"] and health["worker"]["failed_rounds"] == 0
    finally:
        going = False
        for thread in threads:
            thread.join()
        backend.close()
