"""Kills of the workers that make videos, on this machine's own processes and on a Ray cluster of two nodes."""

import hashlib
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipelines.media import video
from pipelines.systems.checkpoints import SECONDS
from scripts.attack import target
from scripts.attack.arena import Arena
from scripts.attack.report import Case, Skip, slowness
from scripts.attack.target import OwnApp

OWNER = "0123456789abcdef" * 2
LENGTH_SECONDS = 2 * SECONDS  # of the steps of a video: long enough for a checkpoint
SEEN_SECONDS = 5.0  # after which the death of an idle worker is known: the next job is killed once too
SEEDS = 3  # the videos that are made, again and again
STAGE = "Denoising"


def own_workers(arena: Arena) -> Iterator[Case | Skip]:
    """On the processes of the app itself."""
    with target.running(arena.folder / "worker-kills") as app:
        yield from _kills(arena, app, app.children)


def ray_workers(arena: Arena) -> Iterator[Case | Skip]:
    """On a cluster of two nodes, with a worker each."""
    if find_spec("ray") is None:
        yield Skip("Ray is not installed: pip install -r requirements-cluster.txt")
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = import_module("ray.cluster_utils").Cluster()
    node = {"num_cpus": 2, "object_store_memory": 200 * 2**20, "include_dashboard": False}
    try:
        nodes = [cluster.add_node(**node) for _ in range(2)]
        variables = {"MARIONETTE_RAY": cluster.address}
        raylets = [raylet.process.pid for one in nodes for raylet in one.all_processes["raylet"]]

        def workers() -> list[int]:
            """The one that is at work."""
            found = [pid for raylet in raylets for pid in target.children(raylet)]
            return busiest([pid for pid in found if is_actor(pid)])

        with target.running(arena.folder / "ray-worker-kills", variables=variables) as app:
            yield from _kills(arena, app, workers)
    finally:
        cluster.shutdown()


def _kills(arena: Arena, app: OwnApp, workers: Callable[[], list[int]]) -> Iterator[Case]:
    """Whenever a worker is killed, the video is made once, and the same as if nothing had been."""
    draw = random.Random(6)
    steps, usual = 0, 0.0  # of a video, and the seconds that it takes
    whole: list[str] = []  # the frames of the videos that nobody disturbed
    count, again = 0, [0.0]  # kills; seconds of denoising that were done again

    def made(seed: int, steps: int) -> float:
        began = time.monotonic()
        whole.append(_frames(app, app.video(OWNER, seed=seed, steps=steps)[1]["job"]))
        return time.monotonic() - began

    def measure() -> None:
        nonlocal steps, usual
        made(0, 2)  # loads the model
        step = max(0.01, (made(0, 12) - made(0, 2)) / 10)
        steps = math.ceil(LENGTH_SECONDS / step)
        whole.clear()
        usual = max(made(seed, steps) for seed in range(SEEDS))

    def kill(number: int) -> str | None:
        before, seed = _done(app), number % SEEDS
        reached: list[tuple[float, Mapping[str, Any]]] = []
        killed: list[float] = []

        def act() -> None:
            for worker in workers():
                try:
                    os.kill(worker, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            killed.append(time.monotonic())

        def follow(told: Mapping[str, Any]) -> bool:
            reached.append((time.monotonic(), told))
            return False

        timer = threading.Timer(draw.uniform(0, usual), act)
        timer.start()
        values = target.QUICK | {"seed": seed, "steps": steps}
        answer = app.call("text_to_video", until=follow, visitor_id=OWNER, **values)
        ended = time.monotonic()
        timer.join()
        if killed[0] > ended - SEEN_SECONDS / 10:
            time.sleep(SEEN_SECONDS)
        if answer.failed or answer.status != 200:
            return f"the job was lost: {answer.said or answer.text}"
        job = answer.json()[1]["job"]
        if _done(app) != before | {job}:
            return "the job was doubled"
        if _frames(app, job) != whole[seed]:
            return "the video is another one"
        again.append(_denoised_again(reached, killed[0]))
        limit = (SECONDS + 1) * slowness()
        return f"{again[-1]:.1f} s of steps were done again" if again[-1] > limit else None

    yield Case("undisturbed", measure, patience=300)
    try:
        for number in range(arena.many(100, 10)):
            count += 1
            yield Case(f"kill {number}", lambda number=number: kill(number), patience=300)
    finally:
        resumed = sum(one > 0 for one in again)
        told = f"{count} kills, {resumed} while steps were done; steps done again: {max(again):.1f} s at most, "
        told += f"{sum(again) / max(1, resumed):.1f} s on average; a video takes {usual:.1f} s, {steps} steps"
        print(told, file=sys.stderr)


def _denoised_again(reached: list[tuple[float, Mapping[str, Any]]], killed: float) -> float:
    """The seconds from when the step was `reached` from which the job went on to when its worker was `killed`."""
    steps = [(moment, told["step"]) for moment, told in reached if told.get("stage") == STAGE]
    before = [(moment, step) for moment, step in steps if moment <= killed]
    after = [step for moment, step in steps if moment > killed]
    if not before or not after or min(after) > before[-1][1]:
        return 0.0
    first = next(moment for moment, step in before if step >= min(after) - 1)
    return killed - first


def _frames(app: OwnApp, job: str) -> str:
    (file,) = (app.data / "videos" / job).glob("*.mp4")
    return hashlib.sha256(video.read(file).tobytes()).hexdigest()


def _done(app: OwnApp) -> set[str]:
    return {row["id"] for row in app.table() if row["state"] == "done"}


def busiest(processes: Sequence[int]) -> list[int]:
    """The one of the `processes` that computes most, none where there are none."""
    before = {pid: _ticks(pid) for pid in processes}
    time.sleep(0.2)
    return sorted(processes, key=lambda pid: before[pid] - _ticks(pid))[:1]


def is_actor(pid: int) -> bool:
    """Whether it is a worker of a Ray cluster."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::RemoteWorker")
    except OSError:
        return False


def _ticks(pid: int) -> int:
    """Of CPU time."""
    try:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    except OSError:
        return 0
