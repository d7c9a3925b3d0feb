"""The worker's loop: one turn after another, whatever goes wrong in one, under watch. Standard library only."""

import logging
import threading
import time
from collections.abc import Callable

from pipelines.errors import log_error

PAUSE_SECONDS = 1.0  # after a turn that failed; longer after each further one
LONGEST_PAUSE = 30.0

log = logging.getLogger(__name__)


class Loop:
    """Calls `turn` again and again in a thread of its own until it is closed.

    What a turn raises ends that turn only. Should the thread itself die, another takes its place.
    """

    def __init__(self, turn: Callable[[], None]):
        self._turn = turn
        self._ended = threading.Event()
        self._beat = time.monotonic()
        self.restarts = 0  # how often the thread has died
        self.failures = 0  # turns that failed since the last that went well
        self._worker: threading.Thread | None = None
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        self._worker = self._new_worker()
        self._watcher.start()

    @property
    def alive(self) -> bool:
        return self._worker is not None and self._worker.is_alive()

    @property
    def quiet_seconds(self) -> float:
        """How long ago the loop gave its last sign of life."""
        return time.monotonic() - self._beat

    def beat(self) -> None:
        """A sign of life from within a turn that takes long."""
        self._beat = time.monotonic()

    def end(self) -> None:
        """Begins no further turn."""
        self._ended.set()

    def join(self, seconds: float | None = None) -> bool:
        """Waits for the turn that runs, up to `seconds`. Returns whether it has ended."""
        self._ended.set()
        self._watcher.join(seconds)
        return not self._watcher.is_alive()

    def _new_worker(self) -> threading.Thread:
        worker = threading.Thread(target=self._work, name="worker", daemon=True)
        worker.start()
        return worker

    def _watch(self) -> None:
        while self._worker is not None:
            self._worker.join()
            if self._ended.is_set():
                return
            self.restarts += 1
            self._ended.wait(PAUSE_SECONDS)
            self._worker = self._new_worker()

    def _work(self) -> None:
        while not self._ended.is_set():
            self.beat()
            try:
                self._turn()
                self.failures = 0
            except BaseException as error:  # a library may even call exit()
                self.failures += 1
                log_error(error, "The worker's loop", [], undone="this round was given up")
                self._ended.wait(min(LONGEST_PAUSE, PAUSE_SECONDS * 2 ** min(self.failures - 1, 5)))
