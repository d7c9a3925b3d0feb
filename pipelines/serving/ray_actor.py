"""One worker of a Ray cluster, as the app's process sees it: an actor, its heartbeat, its runs and their files.

Facts are of Ray 2.60: a killed actor shows after about 1.6 s, a stopped one never, and is killed in about 6 s.
"""

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.messages import said
from pipelines.serving import file_transfer
from pipelines.serving.executor import Slot, Work, WorkerDied
from pipelines.serving.processes import CLOSING_SECONDS, STARTING_SECONDS, Followed
from pipelines.serving.remote_worker import State

STORED_BYTES = 2**30  # of inputs that the object store keeps for further works
QUIET_SECONDS = 60.0  # between two words on a worker that is not there
WAITING = said("Waiting for a worker")

log = logging.getLogger(__name__)


class Store:
    """The contents of files in the cluster's object store, each once."""

    def __init__(self, ray: Any):
        self._ray = ray
        self._hashes: dict[tuple, str] = {}  # by a file's name, time and size
        self._stored: dict[str, tuple[Any, int]] = {}  # what stands for a content, and its size; that used last at last
        self._lock = threading.Lock()

    def put(self, files: Mapping[str, Path]) -> dict[str, tuple[str, list[Any]]]:
        """The `files` as Inputs.lay_out takes them: a reference in a list is fetched only where it is wanted."""
        with self._lock:
            found = {name: self._put(path) for name, path in files.items()}
            total = sum(size for _, size in self._stored.values())
            used = {sha for sha, _ in found.values()}
            for sha in [sha for sha in self._stored if sha not in used]:
                if total <= STORED_BYTES:
                    break
                total -= self._stored.pop(sha)[1]
            return found

    def _put(self, path: Path) -> tuple[str, list[Any]]:
        stat = path.stat()
        state = str(path), stat.st_mtime_ns, stat.st_size
        content = None
        if state not in self._hashes:
            content = path.read_bytes()
            self._hashes[state] = hashlib.sha256(content).hexdigest()
        sha = self._hashes[state]
        if sha in self._stored:
            self._stored[sha] = self._stored.pop(sha)
        else:
            self._stored[sha] = self._ray.put(path.read_bytes() if content is None else content), stat.st_size
        return sha, [self._stored[sha][0]]


class Worker:
    """One actor, as the app's process sees it."""

    def __init__(
        self, name: str, make: Callable[[], Any], key: str, data: Path, store: Store, ray: Any, silent_seconds: float
    ):
        self._name, self._make, self._key, self._data, self._store, self._ray = name, make, key, data, store, ray
        self._silent_seconds = silent_seconds
        self.state: State | None = None  # None while it is not there
        self._place = WAITING  # for a person: where it is, or was when it was put to rest
        self.resting = False
        self.going: dict[str, Run] = {}
        self._actor: Any = None
        self._beat: Any = None  # that it was asked for, and has yet to give
        self._asked, self._asked_in = 0.0, ""  # time.monotonic() of that, and the era
        self.era = secrets.token_hex(8)  # ends when the actor counts as lost: it drops what it began in an earlier one
        self._warm = ""  # the last era in which it told of a model
        self._ended = False
        self._quiet_until = 0.0  # time.monotonic(): one that can't be started dies again and again
        self._lock = threading.RLock()

    @property
    def alive(self) -> bool:
        return self.state is not None

    @property
    def ready(self) -> bool:
        """Whether it can be given work: one at rest is started for it."""
        return self.alive or self.resting

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost with it."""
        return not (self.alive or self.going)

    @property
    def slot(self) -> Slot:
        state = self.state
        if state is None:
            return Slot(self._name, self._place if self.resting else WAITING, ready=self.resting, fresh=True)
        self._warm = self.era if state.models else self._warm
        return Slot(self._name, self._place, state.models, fresh=self._warm != self.era)

    def begin(self, kind: str, work: Work) -> "Run":
        """Has `work` carried out, or looked at, once the actor is there."""
        run = Run(self, kind, work)
        self.going[run.number] = run
        threading.Thread(target=self._follow, args=(run,), daemon=True).start()
        return run

    def ask(self, request: str, *values: Any) -> None:
        """Asks for something that is not answered, if there is an actor."""
        with self._lock:
            if self._actor is not None and self.alive:
                getattr(self._actor, request).options(concurrency_group="control").remote(*values)

    def check(self) -> None:
        """Takes the sign of life that was asked for, and asks for the next; kills what gives none for too long."""
        with self._lock:
            if self.resting or self._ended:
                return
            if self._actor is None:
                self._actor, self._beat = self._make(), None
            if self._beat is not None and not self._ray.wait([self._beat], timeout=0)[0]:
                if self.alive and time.monotonic() - self._asked > self._silent_seconds:
                    self.lose(f"silent for {self._silent_seconds:g} seconds")
                    self._ray.kill(self._actor, no_restart=False)
                return
            beat, self._beat = self._beat, None
            if beat is not None:
                self._take(beat)
            if self._actor is not None:
                self._asked, self._asked_in = time.monotonic(), self.era
                self._beat = self._actor.beat.options(concurrency_group="control").remote(self.era)

    def _take(self, beat: Any) -> None:
        try:
            state: State = self._ray.get(beat)
        except self._ray.exceptions.RayError as error:
            if self._asked_in == self.era:
                self.lose(str(error), _is_for_memory(error))
            if isinstance(error, self._ray.exceptions.ActorDiedError):  # and Ray starts no other
                self._actor = None
            return
        for record in state.records:
            logging.getLogger(record.name).handle(record)
        if state.key != self._key:  # of another version or other settings
            self._ray.kill(self._actor)
            self._actor = None
            return
        if self._asked_in == self.era:
            self._place = said("{device} on {node}", device=state.device, node=state.node)
            self.state = state

    def lose(self, why: str, for_memory: bool = False) -> None:
        """What it was at counts as dead."""
        with self._lock:
            if self.alive or time.monotonic() > self._quiet_until:
                log.error("Worker %s is gone: %s", self._name, why)
                self._quiet_until = time.monotonic() + QUIET_SECONDS
            self.state, self.era = None, secrets.token_hex(8)
            for run in list(self.going.values()):
                if run.era:
                    run.end(WorkerDied(for_memory))

    def rest(self) -> None:
        """Ends the actor, unless it is at something."""
        with self._lock:
            self.resting = True
            if not self.going:
                self._kill()

    def end(self) -> None:
        """Ends the actor for good, and what it is at."""
        with self._lock:
            self._ended = True
            self._kill()
        for run in list(self.going.values()):
            run.end(WorkerDied())

    def _kill(self) -> None:
        actor, was, self._actor, self._beat, self.state = self._actor, self.alive, None, None, None
        if actor is None:
            return
        if was:
            try:
                self._ray.get(actor.close.options(concurrency_group="control").remote(), timeout=CLOSING_SECONDS)
            except self._ray.exceptions.RayError:
                pass  # it hangs, or has just died
        self._ray.kill(actor)

    def _follow(self, run: "Run") -> None:
        """Has the actor carry out the run, takes the files that come of it, and tells what else comes of it."""
        try:
            run.end(*self._followed(run))
        except self._ray.exceptions.RayTaskError as error:
            run.end(RuntimeError(str(error)))
        except self._ray.exceptions.RayError as error:
            if run.era == self.era:
                self.lose(str(error), _is_for_memory(error))  # before anybody hears of it and comes with the next work
            run.end(WorkerDied(_is_for_memory(error)))
        except BaseException as error:
            self.ask("stop", run.number)
            run.end(error)
        finally:
            self.going.pop(run.number, None)

    def _followed(self, run: "Run") -> tuple[BaseException | None, Any]:
        end = time.monotonic() + STARTING_SECONDS
        while not self.alive:
            if run.stopped.wait(0.1) or run.over.is_set():
                return None, None
            if time.monotonic() > end:
                return WorkerDied(), None
        files = self._store.put(file_transfer.needed(run.work, self._data))
        with self._lock:
            if not self.alive or run.stopped.is_set():
                return (None, None) if run.stopped.is_set() else (WorkerDied(), None)
            run.era = self.era
            group = {"concurrency_group": "look"} if run.kind == "look" else {}
            method = getattr(self._actor, run.kind).options(num_returns="streaming", **group)
            items = method.remote(run.number, run.work, files)
        for item in items:
            kind, value = self._ray.get(item)
            del item
            if kind == "ended":
                return value
            with run.taking:
                if run.over.is_set():  # it counts as dead: nothing of it is taken any more
                    break
                if kind == "files":
                    file_transfer.unpack(value, run.work, self._data)
                else:
                    run.news.put((kind, value))
        return WorkerDied(), None


def _is_for_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "low on memory" in str(error)


class Run(Followed):
    """A work on an actor."""

    def __init__(self, worker: Worker, kind: str, work: Work):
        self.number, self.kind, self.work = secrets.token_hex(8), kind, work
        self.stopped, self.over = threading.Event(), threading.Event()
        self.taking = threading.Lock()  # what comes of it
        self.era = ""  # of the worker, when it was begun
        self._worker = worker
        super().__init__(self._stop)

    def end(self, error: BaseException | None, value: Any = None) -> None:
        """Tells how it ended, once. After that nothing of it is taken or written."""
        with self.taking:
            if not self.over.is_set():
                self.over.set()
                self.news.put(("ended", (error, value)))

    def _stop(self) -> None:
        self.stopped.set()
        self._worker.ask("stop", self.number)
