"""Watches the app's event loop from a process of its own: how long the lightest request waits, 20 times a second.

Where the app is ours, the time is taken off in which its threads were ready and the machine's cores were busy with
others: what is left is time in which the app itself blocked its loop.
"""

import http.client
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from scripts.attack.report import GAP, LOOP, Tally
from scripts.attack.target import ROOT, OwnApp, Target

EVERY = 0.05  # seconds
LIGHT = "/gradio_api/startup-events"  # handled on the loop itself, and nothing else


class Watch:
    """Runs until `stop`, which returns the longest gaps."""

    def __init__(self, app: Target):
        pid = str(app.process.pid) if isinstance(app, OwnApp) else "0"
        command = [sys.executable, "-m", "scripts.attack.watch", app.url, pid]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop(self) -> list[tuple[float, float]]:
        """(when it began by the monotonic clock, seconds) of every look."""
        said, _ = self._process.communicate("\n")
        return [tuple(one) for one in json.loads(said or "[]")]


def tally(gaps: list[tuple[float, float]], tallies: list[Tally]) -> Tally:
    """The line of the event loop: every look is a try; each case that blocked it is named once, with its worst."""
    spans = [span for one in tallies for span in one.spans]
    row = Tally(LOOP, tries=len(gaps), worst=max((gap for _, gap in gaps), default=0.0))
    blamed: dict[str, float] = {}
    for when, gap in gaps:
        if gap > GAP:
            near = [name for began, ended, name in spans if began - 0.1 <= when + gap and when <= ended]
            name = near[0] if near else "between the attacks"
            blamed[name] = max(gap, blamed.get(name, 0.0))
    row.fallen = [
        (name, f"blocked the event loop for {gap:.2f} s, and {GAP} are allowed")
        for name, gap in sorted(blamed.items(), key=lambda item: -item[1])
    ]
    return row


def _look(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", LIGHT)
    connection.getresponse().read()


def _schedule(pid: int) -> dict[str, tuple[int, int]]:
    """By thread: nanoseconds that it waited for a core, and how often it ran."""
    found = {}
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            _, waited, turns = map(int, file.read_text().split())
        except (OSError, ValueError):
            continue
        found[file.parent.name] = (waited, turns)
    return found


def _loop_thread(connection: http.client.HTTPConnection, pid: int) -> str | None:
    """The thread of the event loop: the one that runs most often while light requests are answered."""
    before = _schedule(pid)
    for _ in range(50):
        _look(connection)
    after = _schedule(pid)
    ran = {thread: after[thread][1] - before[thread][1] for thread in before.keys() & after.keys()}
    return max(ran, key=ran.get) if ran else None


def _starved(loop: str | None, before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float:
    """Seconds between two looks at the schedule in which the loop's thread waited for a core, or for another thread
    that holds Python's lock and waited for a core itself."""
    waited = {thread: (after[thread][0] - before[thread][0]) / 1e9 for thread in before.keys() & after.keys()}
    return waited.pop(loop, 0.0) + max(waited.values(), default=0.0)


def main(url: str, pid: int) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=300)
    loop = _loop_thread(connection, pid)
    looks = []
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        schedules, began = (_schedule(pid), _schedule(os.getpid())), time.monotonic()
        try:
            _look(connection)
        except (OSError, http.client.HTTPException):
            connection.close()
            if not select.select([sys.stdin], [], [], 0.5)[0]:
                continue
            break
        took = time.monotonic() - began
        if took > GAP:
            took -= _starved(loop, schedules[0], _schedule(pid)) + _starved(None, schedules[1], _schedule(os.getpid()))
        looks.append((round(began, 3), round(max(0.0, took), 4)))
    print(json.dumps(looks))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
