"""The executor of a Ray cluster: a worker on every GPU of every machine in it. Nothing else imports ray.

The app takes what workers write into its own data folder as it comes, so that a job whose machine is gone goes on from
there on another. Ray retries nothing: what dies raises WorkerDied, and the job table decides. Facts are of Ray 2.60.
"""

import hashlib
import logging
import os
import pickle
import platform
import secrets
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG
from pipelines.events import Progress
from pipelines.messages import said
from pipelines.serving import estimate, file_transfer
from pipelines.serving.backend import Backend
from pipelines.serving.executor import Slot, Work, WorkerDied
from pipelines.serving.local import OwnMachine
from pipelines.serving.processes import DIED_LOOKING, LOOKS, ROOT, SILENT_SECONDS, Followed
from pipelines.serving.remote_worker import RemoteWorker, State
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.poses.pose_preview import Found, PosePreview

CORES = 2  # for each worker of a cluster without GPUs
LOOK_SECONDS = 1.0  # from one look at the cluster, and one heartbeat, to the next
STARTING_SECONDS = 10.0  # that the executor waits for a first worker at its start
STORED_BYTES = 2**30  # of inputs that the object store keeps for further works
WAITING = said("Waiting for a worker")
NONE_FREE = said("No machine of the cluster has a worker ready at this moment. Try again in a minute.")
# Every machine runs the app's own code; of the libraries each has its own installation.
ENVIRONMENT = {"working_dir": str(ROOT), "excludes": [".git", "data", ".venv", "docs", "tests", "scripts", "training"]}

log = logging.getLogger(__name__)


def ray_backend(settings: Settings, catalog: Mapping[str, ModelCard] = CATALOG) -> Backend:
    """The backend on the cluster of `settings.ray`. Raises as Backend and RayExecutor do."""
    return Backend(settings, RayExecutor(settings, catalog), catalog)


class RayExecutor(OwnMachine):
    """A slot for each worker that the cluster has room for: their number follows the cluster."""

    def __init__(
        self,
        settings: Settings,
        catalog: Mapping[str, ModelCard] = CATALOG,
        worker: type = RemoteWorker,
        environment: Mapping[str, Any] = ENVIRONMENT,
        silent_seconds: float = SILENT_SECONDS,
    ):
        """`worker` and `environment` are the actors' class and runtime environment.

        Raises ValueError where ray is not installed, or has no cluster where the settings say.
        """
        super().__init__(settings, catalog)
        self._ray = _connected(settings.ray)
        self._silent_seconds = silent_seconds
        sent = replace(settings, device="auto", password="", admitted="")
        self._key = hashlib.sha256(pickle.dumps((_code(), sent, dict(catalog)))).hexdigest()
        self._app = hashlib.sha256(f"{platform.node()}:{settings.data.absolute()}".encode()).hexdigest()[:12]
        self._worker, self._environment = worker, dict(environment)
        self._sent = sent, dict(catalog)
        self._store = Store(self._ray)
        self._gpus = False
        self.workers: dict[int, Worker] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._follow_cluster()
        self._watcher = threading.Thread(target=self._watch, name="cluster", daemon=True)
        self._watcher.start()
        end = time.monotonic() + STARTING_SECONDS
        while self.workers and not any(one.ready for one in self.workers.values()) and time.monotonic() < end:
            time.sleep(0.1)

    @property
    def has_gpu(self) -> bool:
        return self._gpus

    @property
    def speed(self) -> float:
        measured = [one.state.speed for one in list(self.workers.values()) if one.state is not None]
        return max(measured, default=estimate.GPU if self._gpus else estimate.usual_speed(self._settings))

    def slots(self) -> Sequence[Slot]:
        workers = dict(self.workers)
        return tuple(
            workers[number].slot if number in workers else Slot(str(number), WAITING, ready=False)
            for number in range(max(1, max(workers, default=0) + 1))
        )

    def forget(self, job: str) -> None:
        """No worker has heard of it."""

    def run(self, work: Work, slot: str) -> Followed:
        with self._lock:
            worker = self.workers.get(int(slot))
        if worker is None:
            raise WorkerDied
        worker.resting = False
        return worker.begin("run", work)

    def look(self, work: Work) -> "Generator[Progress, None, PosePreview | Found]":
        for _ in range(LOOKS):
            try:
                return (yield from self._looked(work))
            except WorkerDied:
                continue
        raise ValueError(DIED_LOOKING)

    def _looked(self, work: Work) -> "Generator[Progress, None, PosePreview | Found]":
        there = [worker for worker in list(self.workers.values()) if worker.alive]
        if not there:
            raise ValueError(NONE_FREE)
        with closing(min(there, key=lambda worker: len(worker.going)).begin("look", work)) as events:
            for event in events:
                if event is not None:
                    yield event
            return events.value

    def sample(self, job: str) -> None:
        self._ask_all("sample", job)

    def load_ahead(self) -> None:
        self._ask_all("load_ahead")

    def unload(self) -> None:
        self._ask_all("unload")

    def rest(self, slot: str) -> None:
        """Ends its worker, and with it the cluster has the GPU back."""
        if worker := self.workers.get(int(slot)):
            worker.rest()

    def close(self) -> None:
        """Ends the workers. Those of an app that was killed are found again by the next one."""
        self._closed.set()
        self._watcher.join()
        for worker in self.workers.values():
            worker.end()
        self._ray.shutdown()

    def _ask_all(self, *request: Any) -> None:
        for worker in list(self.workers.values()):
            worker.ask(*request)

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_SECONDS if all(one.ready for one in self.workers.values()) else 0.2):
            try:
                self._follow_cluster()
            except Exception:  # the cluster's first machine may be gone for a while
                log.exception("The cluster could not be asked")

    def _follow_cluster(self) -> None:
        """Has as many workers as there is room for, and each give a sign of life."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        self._gpus = gpus > 0
        room = gpus or sum(int(node.get("CPU", 0)) // CORES for node in nodes)
        with self._lock:
            for number in range(room):
                if number not in self.workers:
                    self.workers[number] = Worker(str(number), self._actor(number), self._key, self._settings.data, self._store, self._ray, self._silent_seconds)
            while len(self.workers) > room and not (last := self.workers[max(self.workers)]).ready and not last.going:
                del self.workers[max(self.workers)]
                last.end()
        for worker in list(self.workers.values()):
            worker.check()

    def _actor(self, number: int) -> Callable[[], Any]:
        """What makes, or finds, the actor of that number."""
        name = f"{self._app}-{number}"

        def make() -> Any:
            settings, catalog = self._sent
            size = {"num_gpus": 1, "num_cpus": 0} if self._gpus else {"num_cpus": CORES}
            actor = self._ray.remote(concurrency_groups={"control": 1, "look": 1})(self._worker).options(
                name=name,
                get_if_exists=True,  # of an app that was killed
                lifetime="detached",
                max_restarts=-1,
                max_task_retries=0,
                runtime_env=self._environment,
                **size,
            )
            device = "cuda" if self._gpus else "cpu"
            return actor.remote(name, self._key, replace(settings, device=device), catalog, self._ray.get)

        return make


class Worker:
    """One actor, as the app's process sees it."""

    def __init__(
        self, name: str, make: Callable[[], Any], key: str, data: Path, store: "Store", ray: Any, silent_seconds: float
    ):
        self._name, self._make, self._key, self._data, self._store, self._ray = name, make, key, data, store, ray
        self._silent_seconds = silent_seconds
        self.state: State | None = None  # None while it is not there
        self.resting = False
        self.going: dict[str, Run] = {}
        self._actor: Any = None
        self._beat: Any = None  # that it was asked for, and has yet to give
        self._asked = 0.0  # time.monotonic() of that
        self._ended = False
        self._lock = threading.RLock()

    @property
    def alive(self) -> bool:
        return self.state is not None

    @property
    def ready(self) -> bool:
        """Whether it can be given work: one at rest is started for it."""
        return self.alive or self.resting

    @property
    def slot(self) -> Slot:
        state = self.state
        if state is None:
            return Slot(self._name, WAITING, ready=self.resting)
        return Slot(self._name, said("{device} on {node}", device=state.device, node=state.node), state.models)

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
                    log.error("Worker %s was silent for %g seconds", self._name, self._silent_seconds)
                    self._lose()
                    self._ray.kill(self._actor, no_restart=False)
                return
            beat, self._beat = self._beat, None
            if beat is not None:
                self._take(beat)
            if self._actor is not None:
                self._asked = time.monotonic()
                self._beat = self._actor.beat.options(concurrency_group="control").remote()

    def _take(self, beat: Any) -> None:
        try:
            state: State = self._ray.get(beat)
        except self._ray.exceptions.RayError as error:
            if self.alive:
                log.error("Worker %s is gone: %s", self._name, error)
            self._lose()
            if isinstance(error, self._ray.exceptions.ActorDiedError):  # and Ray starts no other
                self._actor = None
            return
        for record in state.records:
            logging.getLogger(record.name).handle(record)
        if state.key != self._key:  # of another version or other settings
            self._ray.kill(self._actor)
            self._actor = None
            return
        if not self.alive:
            self._actor.stop_all.options(concurrency_group="control").remote()
        self.state = state

    def _lose(self) -> None:
        """What it was at has died with it."""
        self.state = None
        for run in list(self.going.values()):
            if run.begun:
                run.end(WorkerDied())

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
        actor, self._actor, self._beat, self.state = self._actor, None, None, None
        if actor is not None:
            self._ray.kill(actor)

    def _follow(self, run: "Run") -> None:
        """Has the actor carry out the run, takes the files that come of it, and tells what else comes of it."""
        try:
            run.end(*self._followed(run))
        except self._ray.exceptions.RayTaskError as error:
            run.end(RuntimeError(str(error)))
        except self._ray.exceptions.RayError as error:
            self.state = None
            run.end(WorkerDied(isinstance(error, self._ray.exceptions.OutOfMemoryError)))
        except BaseException as error:
            self.ask("stop", run.number)
            run.end(error)
        finally:
            self.going.pop(run.number, None)

    def _followed(self, run: "Run") -> tuple[BaseException | None, Any]:
        while not self.alive:
            if run.stopped.wait(0.1) or run.over.is_set():
                return None, None
        files = self._store.put(file_transfer.needed(run.work, self._data))
        with self._lock:
            if self._actor is None or run.stopped.is_set():
                return (None, None) if run.stopped.is_set() else (WorkerDied(), None)
            run.begun = True
            group = {"concurrency_group": "look"} if run.kind == "look" else {}
            method = getattr(self._actor, run.kind).options(num_returns="streaming", **group)
            items = method.remote(run.number, run.work, files)
        for item in items:
            kind, value = self._ray.get(item)
            del item
            if kind == "ended":
                return value
            if run.over.is_set():  # it counts as dead: nothing of it is taken any more
                break
            if kind == "files":
                file_transfer.unpack(value, run.work, self._data)
            else:
                run.news.put((kind, value))
        return WorkerDied(), None


class Run(Followed):
    """A work on an actor."""

    def __init__(self, worker: Worker, kind: str, work: Work):
        self.number, self.kind, self.work = secrets.token_hex(8), kind, work
        self.stopped, self.over = threading.Event(), threading.Event()
        self.begun = False  # whether the actor has heard of it
        self._worker = worker
        super().__init__(self._stop)

    def end(self, error: BaseException | None, value: Any = None) -> None:
        """Tells how it ended; what is told later does not count."""
        self.over.set()
        self.news.put(("ended", (error, value)))

    def _stop(self) -> None:
        self.stopped.set()
        self._worker.ask("stop", self.number)


class Store:
    """The contents of files in the cluster's object store, each once."""

    def __init__(self, ray: Any):
        self._ray = ray
        self._hashes: dict[tuple, str] = {}  # by a file's name, time and size
        self._stored: dict[str, tuple[Any, int]] = {}  # what stands for a content, and its size; that used last at last
        self._lock = threading.Lock()

    def put(self, files: Mapping[str, Path]) -> dict[str, tuple[str, list[Any]]]:
        """The `files` as Inputs.lay_out takes them: what is in a list crosses as a reference, and is fetched where it is
        wanted."""
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


def _connected(address: str) -> Any:
    """ray, connected. Raises ValueError where it can't be."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise ValueError(
            f"MARIONETTE_RAY={address} needs Ray, which is not installed. Install it on every machine: "
            "pip install -r requirements-cluster.txt"
        ) from error
    try:
        if not ray.is_initialized():
            ray.init(address=address, namespace="marionette", log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"MARIONETTE_RAY={address}: there is no Ray cluster that this machine is part of ({error}). Start it with "
            "ray start --head, and on every other machine ray start --address=..."
        ) from error
    return ray


def _code() -> str:
    """A hash of the app's own code: a worker of an older version is not taken over."""
    files = sorted((ROOT / "pipelines").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
