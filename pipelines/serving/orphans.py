"""Workers that have outlived their app: one that is stopped, or hangs, does not see that the app is gone.

Each worker has a file among the data, named by who it is and whose. The next app ends those whose app is gone, before
it starts workers of its own: they would hold the device's memory, and may wake up. Standard library only; where the
system has no /proc it does nothing.
"""

import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

ENDING_SECONDS = 10.0  # that the system has for giving back what a killed worker held

log = logging.getLogger(__name__)


class Orphans:
    """The files of workers in `folder`."""

    def __init__(self, folder: Path):
        self._folder = folder

    def note(self, worker: int) -> None:
        """Notes that the process `worker` is a worker of this one."""
        if name := _name(worker):
            with suppress(OSError):  # it works as well without
                self._folder.mkdir(parents=True, exist_ok=True)
                (self._folder / name).touch()

    def forget(self, worker: int) -> None:
        """The process `worker` has ended."""
        for file in self._folder.glob(f"{worker}-*"):
            file.unlink(missing_ok=True)

    def end(self) -> None:
        """Kills every worker whose app is gone, and waits until it is gone, too."""
        for file in self._folder.glob("*-*-*-*"):
            try:
                worker, born, app, began = map(int, file.name.split("-"))
            except ValueError:  # not one of ours
                continue
            if _born(app) == began:
                continue
            if _born(worker) == born:
                log.warning("A worker of an app that is gone is ended: process %d", worker)
                with suppress(OSError):
                    os.kill(worker, signal.SIGKILL)
                end = time.monotonic() + ENDING_SECONDS
                while _born(worker) == born and time.monotonic() < end:
                    time.sleep(0.05)
            file.unlink(missing_ok=True)


def _name(worker: int) -> str | None:
    born, began = _born(worker), _born(os.getpid())
    return None if born is None or began is None else f"{worker}-{born}-{os.getpid()}-{began}"


def _born(process: int) -> int | None:
    """When `process` began, which tells it from a later one of the same number; None where it does not live."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])  # proc(5): state, and starttime
