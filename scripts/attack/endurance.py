"""Attacks on what lasts: kills, a damaged table, a wrong clock, a full disk, broken places, bent weights."""

import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from scripts.attack import honest_files, target
from scripts.attack.arena import Arena
from scripts.attack.files import data, offered
from scripts.attack.report import Case, Skip, slowness
from scripts.attack.target import ROOT, OwnApp

OWNER = "0123456789abcdef" * 2
END_SECONDS = 10.0  # after SIGTERM
MONTH = 31 * 86_400
SHIFTED = """
import runpy, sys, time
real = time.time
time.time = lambda: real() + {seconds}
sys.path.insert(0, "")
runpy.run_path("app.py", run_name="__main__")
"""


def kills(arena: Arena) -> Iterator[Case]:
    """Whenever the app is killed, every job is there afterwards, and once."""
    count, times = 8, 6
    draw = random.Random(5)
    folder = arena.folder / "kills"
    jobs: set[str] = set()

    def kill(number: int) -> str | None:
        with target.running(folder) as app:
            while len(jobs) < count and number == 0:
                jobs.add(app.began(OWNER, seed=len(jobs), steps=4)["job"])
            done = len(app.library(OWNER))
            time.sleep(draw.uniform(0.0, 6.0))
            waited = time.monotonic()
            # Until one more is done: no job is killed more often than it is tried.
            while number and len(app.library(OWNER)) == done < count and time.monotonic() - waited < 120:
                time.sleep(0.1)
            time.sleep(draw.uniform(0.0, 1.0))
            app.end(signal.SIGKILL)
        return None

    def count_up() -> str | None:
        with target.running(folder) as app:
            began = time.monotonic()
            while len(app.library(OWNER)) < count and time.monotonic() - began < 120:
                time.sleep(0.5)
            found = app.library(OWNER)
            rows = app.table()
        if found != jobs:
            return f"{len(jobs - found)} of {count} jobs were lost and {len(found - jobs)} doubled"
        return "the table holds more jobs than were asked for" if len(rows) != count else None

    for number in range(times):
        yield Case(f"kill {number}", lambda number=number: kill(number), patience=300)
    yield Case("all jobs afterwards", count_up, patience=400)


@contextmanager
def _household(arena: Arena, name: str) -> Iterator[Path]:
    """The folder of an app that has ended and that holds three videos and a tuned model of OWNER."""
    template = arena.folder / "household"
    if not template.exists():
        with arena.start("household") as app:
            for seed in range(3):
                app.video(OWNER, seed=seed)
            clip = honest_files.video(".mp4", *honest_files.H264, size="128x128")
            tuning = {"clip": {"path": app.upload(clip, "c.mp4")}, "prompt": "a robot dances", "steps": 2, "frames": 8}
            app.call("tune", **tuning, visitor_id=OWNER)
            app.end()
    folder = arena.folder / name
    shutil.copytree(template, folder)
    (folder / "app.log").unlink()
    _moved(folder, template)
    yield folder
    shutil.rmtree(folder)


def _moved(folder: Path, template: Path) -> None:
    """Tells the table where its files are now: it names them by where they were."""
    import sqlite3

    with sqlite3.connect(folder / "data" / "jobs.db") as rows:
        rows.execute("UPDATE jobs SET video = replace(video, ?, ?)", (str(template), str(folder)))
    rows.close()


def _treasure(folder: Path) -> set[str]:
    """What must never be deleted, by its content: videos and tuned models."""
    files = [one for one in (folder / "data").rglob("*") if one.suffix in (".mp4", ".safetensors")]
    return {hashlib.sha256(one.read_bytes()).hexdigest() for one in files if "preview" not in one.name}


def damage(arena: Arena) -> Iterator[Case]:
    """Whatever happens to the table, and whatever the app then advises, no video and no tuned model is deleted."""
    ways: dict[str, Callable[[Path], object]] = {
        "removed": lambda table: [one.unlink() for one in table.parent.glob("jobs.db*")],
        "empty": lambda table: table.write_bytes(b""),
        "cut to a half": lambda table: table.write_bytes(table.read_bytes()[: table.stat().st_size // 2]),
        "no header": lambda table: table.write_bytes(b"\xff" * 100 + table.read_bytes()[100:]),
        "noise inside": lambda table: table.write_bytes(_noise(table.read_bytes())),
        "text": lambda table: table.write_text("hello"),
        "a folder": lambda table: (table.unlink(), table.mkdir()),
        "rows gone": lambda table: _rows(table, "DELETE FROM jobs"),
        "one row left": lambda table: _rows(table, "DELETE FROM jobs WHERE rowid > 1"),
        "odd tasks": lambda table: _rows(table, "UPDATE jobs SET task = '{}'"),
        "no JSON": lambda table: _rows(table, "UPDATE jobs SET task = 'x', facts = 'y'"),
        "odd owners": lambda table: _rows(table, "UPDATE jobs SET owner = ''"),
        "no videos": lambda table: _rows(table, "UPDATE jobs SET video = NULL"),
        "another schema": lambda table: _rows(table, "DROP TABLE jobs"),
        "newer": lambda table: _rows(table, "PRAGMA user_version = 99"),
    }
    for name, way in ways.items():
        yield Case(f"table: {name}", lambda name=name, way=way: _survives(arena, name, way), patience=240)


UNTOLD = ("odd owners",)  # the table says whose they are, and nobody is to contradict it


def _noise(content: bytes) -> bytes:
    noisy, draw = bytearray(content), random.Random(3)
    for _ in range(400):
        noisy[draw.randrange(100, len(noisy))] = draw.randrange(256)
    return bytes(noisy)


def _rows(table: Path, statement: str) -> None:
    import sqlite3

    with sqlite3.connect(table) as rows:
        rows.execute(statement)
    rows.close()


def _survives(arena: Arena, name: str, way: Callable[[Path], object]) -> str | None:
    with _household(arena, f"damage-{name.replace(' ', '-')}") as folder:
        before = _treasure(folder)
        way(folder / "data" / "jobs.db")
        for attempt in range(2):
            app, said = started_or_said(folder)
            if app is not None:
                time.sleep(3)  # for a round of tidying
                found = len(app.library(OWNER))
                fell = _works(app)
                if found < 3 and name not in UNTOLD and "found" not in app.log:
                    fell = fell or f"shows {found} of 3 videos, and says nothing of it"
                break
            if "Traceback" in said:
                return f"ends with a traceback: {said[-300:]!r}"
            if attempt or "ove it" not in said:
                fell = None if attempt == 0 and said.strip() else f"does not start: {said[-200:]!r}"
                break
            for one in (folder / "data").glob("jobs.db*"):  # as it advises
                one.rename(one.with_name(f"away-{one.name}"))
        lost = before - _treasure(folder)
        if lost:
            return f"{len(lost)} of {len(before)} videos and tuned models are deleted; it had said {said[-200:]!r}"
        return fell


def started_or_said(folder: Path, **rest) -> tuple[OwnApp | None, str]:
    """An app that answers, or None and what it said when it ended."""
    try:
        app = target.started(folder, **rest)
        return app, app.log
    except OSError:
        return None, (folder / "app.log").read_text(errors="replace")


def _works(app: OwnApp) -> str | None:
    """Whether a video can be made. Ends the app."""
    try:
        app.video("f" * 32)
        return None
    except ValueError as error:
        return f"makes no video any more: {error}"
    finally:
        app.close()
        app.end()


def clock(arena: Arena) -> Iterator[Case]:
    """A clock that is wrong for a day deletes nothing."""
    for name, seconds in (("a month ahead", MONTH), ("ten years ahead", 120 * MONTH), ("a year behind", -12 * MONTH)):
        yield Case(name, lambda name=name, seconds=seconds: _shifted(arena, name, seconds), patience=240)


def _shifted(arena: Arena, name: str, seconds: int) -> str | None:
    with _household(arena, f"clock-{name.replace(' ', '-')}") as folder:
        before = _treasure(folder)
        for script in (SHIFTED.format(seconds=seconds), SHIFTED.format(seconds=0)):
            app, said = started_or_said(folder, command=[sys.executable, "-c", script])
            if app is None:
                return f"does not start: {said[-200:]!r}"
            time.sleep(4)  # for a round of tidying
            fell = _works(app)
            lost = before - _treasure(folder)
            if lost or fell:
                return f"{len(lost)} of {len(before)} videos and tuned models are deleted" if lost else fell
    return None


def disk(arena: Arena) -> Iterator[Case]:
    """A disk that is full for a moment costs jobs at most, and strangers can't fill it."""
    mounted = arena.folder / "disk"
    mounted.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=120m", "none", str(mounted)], capture_output=True
    ).returncode:
        yield Skip("a small disk can't be mounted here")
    else:
        try:
            variables = {"MARIONETTE_DISK_MARGIN_MB": "20", "MARIONETTE_UPLOAD_MB": "30"}
            with target.running(mounted, variables=variables) as app:
                yield Case("uploads", lambda: _uploads(app, mounted), patience=120)
                yield Case("full while a job runs", lambda: _full(app, mounted), patience=120)
                yield Case("full while uploads come", lambda: _full_uploads(app, mounted), patience=120)
        finally:
            subprocess.run(["umount", "-l", str(mounted)], capture_output=True)
    limit = 3 * 2**20

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with arena.start("small-files", prepare=small) as app:
        yield Case("files of 3 MB at most", lambda: _small(app), patience=120)


def _free(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 2**20


def _uploads(app: OwnApp, mounted: Path) -> str | None:
    """Nine uploads of a quarter of the disk each, which nobody uses."""
    content = os.urandom(28 * 10**6)
    for number in range(9):
        try:
            app.http.post("/gradio_api/upload", files={"files": (f"{number}.mp4", content[number:])})
        except httpx.HTTPError:
            continue
    free = _free(mounted)
    try:
        app.video("f" * 32)
    except ValueError as error:
        return f"after nine uploads {free:.0f} MB are free, and nobody gets a video: {error}"
    for file in mounted.rglob("*"):  # so that the next case has a disk
        if file.is_file() and file.stat().st_size > 25 * 10**6:
            file.unlink()
    return f"after nine uploads {free:.0f} MB are free" if free < 20 else None


def _full(app: OwnApp, mounted: Path) -> str | None:
    told = app.began("a" * 32, steps=60)
    time.sleep(2)
    _fill(mounted)
    time.sleep(8)
    (mounted / "filler").unlink()
    app.run("stop", [told["job"], told["visitor_id"]])
    return _alive(app)


def _full_uploads(app: OwnApp, mounted: Path) -> str | None:
    _fill(mounted)
    plain = honest_files.video(".mp4", *honest_files.H264)
    for number in range(5):
        try:
            path = app.upload(plain + bytes(number), f"{number}.mp4")
            offered(app, "clip", data(path), seconds=30)
        except httpx.HTTPError:
            continue
    (mounted / "filler").unlink()
    return _alive(app)


def _fill(folder: Path) -> None:
    with open(folder / "filler", "wb") as file:
        try:
            while True:
                file.write(b"x" * 2**16)
                file.flush()
        except OSError:
            pass


def _alive(app: OwnApp) -> str | None:
    """Whether the app makes videos again."""
    answer = app.call("text_to_video", seconds=45, **target.QUICK, visitor_id="f" * 32)
    if answer.status != 200 or answer.failed:
        return f"makes no video any more: {answer.said or answer.text[:200]}"
    return None


def _small(app: OwnApp) -> str | None:
    """Nothing larger can be written: a job may fail, and the next one must be told so too."""
    for _ in range(2):
        answer = app.call("text_to_video", seconds=60, **target.QUICK, visitor_id="f" * 32)
        if answer.status == 0:
            return f"a job has no end: {answer.text}"
    try:
        app.upload(os.urandom(5 * 10**6), "x.mp4")
    except httpx.HTTPStatusError as error:
        if "raceback" in error.response.text:
            return "an upload ends with a traceback"
    return _alive(app)


def ending(arena: Arena) -> Iterator[Case]:
    """SIGTERM ends the app within ten seconds, whatever it is at, and what it was at goes on at the next start."""

    def idle(app: OwnApp) -> None:
        app.http.get("/config")

    def job(app: OwnApp) -> None:
        app.began(OWNER, steps=90)
        time.sleep(3)

    def first_job(app: OwnApp) -> None:
        app.began(OWNER, steps=90)

    def listening(app: OwnApp) -> None:
        app.began(OWNER, steps=90)
        for number in range(10):
            stack.enter_context(app.http.stream("GET", f"/gradio_api/heartbeat/s{number}"))

    def reading(app: OwnApp) -> None:
        from scripts.attack.hostile_files import gif

        path = app.upload(gif(4096, 3000), "x.gif")
        body = {"data": ["a" * 32, data(path)], "fn_index": app.event_of("clip", "upload", 2), "session_hash": "q"}
        app.post("/gradio_api/queue/join", body)
        time.sleep(1)

    for name, act in {"idle": idle, "a job runs": job, "torch is imported": first_job, "people listen": listening,
                      "a clip is read": reading}.items():  # fmt: skip

        def end(act=act, name=name) -> str | None:
            nonlocal stack
            with ExitStack() as stack, arena.start(f"ending-{name.replace(' ', '-')}") as app:
                act(app)
                began = time.monotonic()
                app.process.send_signal(signal.SIGTERM)
                try:
                    app.process.wait(40)
                except subprocess.TimeoutExpired:
                    app.process.kill()
                took = time.monotonic() - began
                if "Traceback" in app.log:
                    return f"ends with a traceback: {app.log[-300:]!r}"
                return f"took {took:.0f} s" if took > END_SECONDS * slowness() else None

        stack = ExitStack()
        yield Case(name, end, patience=240)


def weights(arena: Arena) -> Iterator[Case]:
    """A bit that is flipped in the shipped weights is noticed before a video is made with them."""
    copy = arena.folder / "copy"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", "tests", "__pycache__", "data", "artefacts", ".venv")
    )
    files = sorted((copy / "assets").rglob("*.safetensors"), key=lambda file: -file.stat().st_size)
    wanted = [file for file in files if "modelscope" in str(file)][:2]
    for file in wanted:
        name = str(file.relative_to(copy))
        yield Case(name, lambda file=file: _noticed(arena, copy, file), patience=240)


def _noticed(arena: Arena, copy: Path, file: Path) -> str | None:
    content = file.read_bytes()
    bent = bytearray(content)
    bent[len(bent) // 2] ^= 0x40
    file.write_bytes(bent)
    try:
        app, said = started_or_said(arena.folder / f"weights-{file.stem}-{len(content)}", root=copy)
        if app is None:
            return None if "Traceback" not in said else f"a traceback at the start: {said[-200:]!r}"
        try:
            answer = app.call("text_to_video", seconds=90, **target.QUICK, visitor_id="f" * 32)
        finally:
            app.close()
            app.end()
        return None if answer.failed else "a video was made as if nothing had happened"
    finally:
        file.write_bytes(content)
