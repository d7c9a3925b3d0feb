"""The executor of a machine of one's own: a worker, a process of its own, for each device. No torch in this one.

A worker that dies, or gives no sign of life, is replaced with the next work; what it was at raises WorkerDied. A
worker ends with the app, whose pipe it reads; one that is stopped meanwhile is ended by the next app.
"""

import itertools
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG
from pipelines.events import Progress
from pipelines.messages import said
from pipelines.serving import estimate, status
from pipelines.serving.backend import Backend
from pipelines.serving.executor import Slot, Work, WorkerDied
from pipelines.serving.local import AHEAD_SECONDS, OwnMachine
from pipelines.serving.orphans import Orphans
from pipelines.serving.run import PAUSE
from pipelines.serving.status import Loaded
from pipelines.serving.worker_process import Pipe
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.poses.pose_preview import Found, PosePreview

COMMAND = (sys.executable, "-m", "pipelines.serving.worker_process")
SILENT_SECONDS = 60.0  # without a sign of life, after which a worker counts as dead
STARTING_SECONDS = 300.0  # likewise before the first one
KILLED = 9  # the signal by which a system ends what takes too much memory
LOOKS = 2  # that a search for people is begun, where its worker dies
DIED_LOOKING = said("The process that looked for people ended twice. Try a shorter part of the clip.")
CLOSING_SECONDS = 3.0  # that a worker has to end in
ROOT = Path(__file__).parents[2]

log = logging.getLogger(__name__)


def worker_backend(settings: Settings, catalog: Mapping[str, ModelCard] = CATALOG) -> Backend:
    """The app's backend: it outlives its workers. Raises as Backend does."""
    return Backend(settings, ProcessExecutor(settings, catalog), catalog)


class ProcessExecutor(OwnMachine):
    """One slot for each device of the settings. A worker starts with the first work, or look, that is meant for it."""

    def __init__(
        self,
        settings: Settings,
        catalog: Mapping[str, ModelCard] = CATALOG,
        command: Sequence[str] = COMMAND,
        silent_seconds: float = SILENT_SECONDS,
        popen: Callable[..., Any] = subprocess.Popen,
    ):
        """`popen` starts a worker by `command`."""
        super().__init__(settings, catalog)
        devices = status.devices(settings)
        # Threads that wait for each other are slow where there are more of them than cores.
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(devices)))} if len(devices) > 1 else {}
        environment = {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the driver's order, for their names
            # A thread that waits for another sleeps: where it spins, other work beside it makes videos twice as slow.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        environment |= threads | os.environ
        orphans = Orphans(settings.data.absolute() / "workers")
        self.workers = {
            str(number): Worker(
                replace(settings, device=device),
                catalog,
                partial(popen, command),
                environment,
                silent_seconds,
                orphans,
            )
            for number, device in enumerate(devices)
        }

    @property
    def speed(self) -> float:
        measured = [worker.speed for worker in self.workers.values() if worker.speed]
        return max(measured, default=estimate.usual_speed(self._settings))

    def slots(self) -> Sequence[Slot]:
        return tuple(
            Slot(name, worker.device, worker.models, fresh=worker.fresh, since=worker.since)
            for name, worker in self.workers.items()
        )

    def forget(self, job: str) -> None:
        """No worker has heard of it."""

    def run(self, work: Work, slot: str) -> "Followed":
        self.workers[slot].resting = False
        return self.workers[slot].begin("run", work)

    def look(self, work: Work) -> "Generator[Progress, None, PosePreview | Found]":
        def begin() -> Followed:
            chosen = min(self.workers.values(), key=lambda worker: (worker.resting, worker.busy))
            return chosen.begin("look", work)

        return (yield from looked(begin))

    def sample(self, job: str) -> None:
        for worker in self.workers.values():
            worker.ask("sample", job)

    def load_ahead(self) -> None:
        for worker in self.workers.values():
            if not worker.resting:
                worker.load_ahead()

    def unload(self) -> None:
        for worker in self.workers.values():
            worker.ask("unload")

    def rest(self, slot: str) -> None:
        """Ends its worker."""
        self.workers[slot].rest()

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


class Worker:
    """One worker, as the app's process sees it."""

    def __init__(
        self,
        settings: Settings,
        catalog: Mapping[str, ModelCard],
        popen: Callable[..., Any],
        environment: Mapping[str, str],
        silent_seconds: float,
        orphans: Orphans,
    ):
        self._settings, self._catalog, self._orphans = settings, catalog, orphans
        paths = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        self._popen, self._environment = popen, {**environment, "PYTHONPATH": paths}
        self._silent_seconds = silent_seconds
        self.device = status.device(settings)
        self.models: tuple[Loaded, ...] = ()
        self.speed: float | None = None  # FLOPs a second, once measured
        self.process: subprocess.Popen | None = None
        self._pipe: Pipe | None = None
        self._numbers = itertools.count()
        self._going: dict[int, Followed] = {}
        self._lock = threading.RLock()
        self._closed = False
        self.resting = False  # whether it is started for no work of its own
        self._heard = 0.0  # time.monotonic() of the last sign of life
        self._silent = False  # whether it was killed for giving none
        self._warm: subprocess.Popen | None = None  # the last process that told of a model
        self._eager: subprocess.Popen | None = None  # the last process that was told to load ahead,
        self._eager_from = 0.0  # and from which time.monotonic() on it does

    @property
    def busy(self) -> bool:
        """Whether anything is asked of it that has not ended."""
        return bool(self._going)

    @property
    def fresh(self) -> bool:
        """Whether the process, if there is one, has never told of a model."""
        return self.process is None or self._warm is not self.process

    @property
    def since(self) -> float:
        """The seconds for which the process has loaded ahead."""
        if self.process is None or self._eager is not self.process:
            return 0.0
        return max(0.0, time.monotonic() - self._eager_from)

    def load_ahead(self) -> None:
        """Has the built-in models loaded. Raises OSError where no process can be started."""
        with self._lock:
            self.start()
            if self._eager is not self.process:
                self._eager, self._eager_from = self.process, time.monotonic() + AHEAD_SECONDS
            self.ask("load_ahead")

    def start(self) -> None:
        """Starts the process, unless it runs. Raises OSError where none can be started."""
        with self._lock:
            if self._closed or (self.process is not None and self.process.poll() is None):
                return
            self._orphans.end()
            process = self._popen(
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,  # Ctrl+C at a terminal is for the app, which then ends its workers
            )
            self._orphans.note(process.pid)
            self.process, self._pipe = process, Pipe(process.stdout, process.stdin)
            self._pipe.send(self._settings, dict(self._catalog))
            self._heard, self._silent = time.monotonic() + STARTING_SECONDS, False
            self._going = {}  # those of one that has died are told by its reader
            read = process, self._pipe, self._going, _kills()
            threading.Thread(target=self._read, args=read, daemon=True).start()
            threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def begin(self, kind: str, work: Work) -> "Followed":
        """Has `work` carried out, or looked at; what comes of it is to be followed."""
        with self._lock:
            self.start()
            number = next(self._numbers)
            followed = self._going[number] = Followed(partial(self.ask, "stop", number))
            if self._pipe is None:  # closed meanwhile
                del self._going[number]
                followed.news.put(("ended", (WorkerDied(), None)))
            self.ask(kind, number, work)
            return followed

    def ask(self, *request: Any) -> None:
        """Sends a request, if there is a process. One that has just died reads nothing, and that is told elsewhere."""
        with self._lock:
            if self._pipe is not None:
                try:
                    self._pipe.send(*request)
                except OSError:
                    pass

    def rest(self) -> None:
        """Ends the process, unless it is at something."""
        with self._lock:
            self.resting, process = True, self.process
            if self.busy or process is None:
                return
            self.process = self._pipe = None
            self.models = ()
        self._end(process)

    def close(self) -> None:
        """Ends the process, and what it is at."""
        with self._lock:
            self._closed, process = True, self.process
        if process is not None:
            self._end(process)

    def _end(self, process: subprocess.Popen) -> None:
        try:
            if process.stdin is not None:
                process.stdin.close()  # that ends it
        except OSError:
            pass
        try:
            process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _read(self, process: subprocess.Popen, pipe: Pipe, going: "dict[int, Followed]", kills: int) -> None:
        """Takes what the process tells, to its end."""
        while True:
            try:
                kind, *values = pipe.receive()
            except (EOFError, OSError):
                break
            except Exception:  # half a message, or one that means nothing here
                log.exception("A worker on %s told what can't be read", self._settings.device)
                process.kill()
                break
            self._heard = time.monotonic()
            if kind in ("told", "ended"):
                number, value = values
                followed = going.get(number) if kind == "told" else going.pop(number, None)
                if followed is not None:
                    followed.news.put((kind, value))
            elif kind == "state":
                self.models, self.speed = values
                self._warm = process if self.models else self._warm
            elif kind == "log":
                logging.getLogger(values[0].name).handle(values[0])
        code = process.wait()
        self._orphans.forget(process.pid)
        with self._lock:
            if self.process is process:
                self.process = self._pipe = None
                self.models = ()
            dropped = list(going.values())
            going.clear()
        if not (self._closed or self.resting and code == 0):
            log.error("A worker on %s ended with code %s", self._settings.device, code)
        for_memory = code == -KILLED and not self._silent and _kills() > kills
        for followed in dropped:
            followed.news.put(("ended", (WorkerDied(for_memory), None)))

    def _watch(self, process: subprocess.Popen) -> None:
        """Kills the process if it gives no sign of life: it may hang, or be stopped."""
        while process.poll() is None:
            if time.monotonic() - self._heard > self._silent_seconds:
                log.error("A worker on %s was silent for %g seconds", self._settings.device, self._silent_seconds)
                self._silent = True
                process.kill()
            time.sleep(min(1.0, self._silent_seconds))


def looked(begin: "Callable[[], Followed]") -> "Generator[Progress, None, PosePreview | Found]":
    """What comes of the look that `begin` has a worker begin; it is begun anew where that dies."""
    for _ in range(LOOKS):
        try:
            with closing(begin()) as events:
                for event in events:
                    if event is not None:
                        yield event
                return events.value
        except WorkerDied:
            continue
    raise ValueError(DIED_LOOKING)


class Followed(Iterator[Any]):
    """What comes of a request to a worker, as Events; then `value` is what it returned."""

    def __init__(self, stop: Callable[[], None]):
        """`stop` asks the worker to end it."""
        self._ask_to_stop = stop
        self.news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.value: Any = None
        self._over = False

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        try:
            kind, value = self.news.get(timeout=PAUSE)
        except queue.Empty:
            return None
        if kind == "told":
            return value
        self._over = True
        error, self.value = value
        raise StopIteration if error is None else error

    def close(self) -> None:
        """Stops the work, and waits until the worker is free or gone."""
        if not self._over:
            self._ask_to_stop()
        while not self._over:
            kind, _ = self.news.get()
            self._over = kind == "ended"


def _kills() -> int:
    """How often this system has killed a process for want of memory; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
