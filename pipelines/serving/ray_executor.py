"""The executor of a Ray cluster: a worker on every GPU of every machine in it. Nothing else imports ray.

The app takes what workers write into its own data folder as it comes, so that a job whose machine is gone goes on from
there on another. Ray retries nothing: what dies raises WorkerDied, and the job table decides. Facts are of Ray 2.60.
"""

import hashlib
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG
from pipelines.events import Progress
from pipelines.messages import said
from pipelines.serving import estimate
from pipelines.serving.backend import Backend
from pipelines.serving.executor import Slot, Work, WorkerDied
from pipelines.serving.local import OwnMachine
from pipelines.serving.processes import ROOT, SILENT_SECONDS, Followed, looked
from pipelines.serving.ray_actor import WAITING, Store, Worker
from pipelines.serving.remote_worker import RemoteWorker
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.poses.pose_preview import Found, PosePreview

CORES = 2  # for each worker of a cluster without GPUs
LOOK_SECONDS = 1.0  # from one look at the cluster, and one heartbeat, to the next
STARTING_SECONDS = 10.0  # that the executor waits for a first worker at its start
NONE_FREE = said("No machine of the cluster has a worker ready at this moment. Try again in a minute.")
# Of the app's folder the machines need the code and what comes with it.
LEFT_OUT = ("/.git", "/.venv", "/data", "/docs", "/tests", "/scripts", "/training", "/artefacts")

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
        silent_seconds: float = SILENT_SECONDS,
    ):
        """`worker` is the actors' class.

        Raises ValueError where ray is not installed, or has no cluster where the settings say.
        """
        super().__init__(settings, catalog)
        self._ray = _connected(settings)
        self._silent_seconds = silent_seconds
        sent = replace(settings, device="auto", password="", admitted="")
        self._key = version(sent)
        self._app = hashlib.sha256(f"{platform.node()}:{settings.data.absolute()}".encode()).hexdigest()[:12]
        self._worker, self._sent = worker, (sent, dict(catalog))
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
        def begin() -> Followed:
            there = [worker for worker in list(self.workers.values()) if worker.alive]
            if not there:
                raise ValueError(NONE_FREE)
            return min(there, key=lambda worker: len(worker.going)).begin("look", work)

        return (yield from looked(begin))

    def sample(self, job: str) -> None:
        for worker in list(self.workers.values()):
            if any(run.work.job == job for run in list(worker.going.values())):
                worker.ask("sample", job)

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
                    make = self._actor(number)
                    self.workers[number] = Worker(
                        str(number), make, self._key, self._settings.data, self._store, self._ray, self._silent_seconds
                    )
            while len(self.workers) > room and self.workers[max(self.workers)].is_idle:
                self.workers.pop(max(self.workers)).end()
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
                **size,
            )
            device = "cuda" if self._gpus else "cpu"
            return actor.remote(name, self._key, replace(settings, device=device), catalog, self._ray.get)

        return make


def _connected(settings: Settings) -> Any:
    """ray, connected. Raises ValueError where it can't be."""
    address = settings.ray
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
            options = {"namespace": "marionette", "log_to_driver": False, "configure_logging": False}
            ray.init(address=address, runtime_env=_environment(settings), **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"MARIONETTE_RAY={address}: there is no Ray cluster that this machine is part of ({error}). Start it with "
            "ray start --head, and on every other machine ray start --address=..."
        ) from error
    return ray


def _environment(settings: Settings) -> dict[str, Any]:
    """What the machines are sent: every one runs the app's own code, with the libraries that are installed there."""
    own = [folder.absolute() for folder in (settings.data, settings.cache)]
    inside = [f"/{folder.relative_to(ROOT).as_posix()}" for folder in own if folder.is_relative_to(ROOT)]
    return {"working_dir": str(ROOT), "excludes": [*LEFT_OUT, *inside]}


def version(settings: Settings) -> str:
    """A hash of the app's own code and of `settings`: a worker of others is not taken over."""
    files = sorted((ROOT / "pipelines").rglob("*.py"))
    return hashlib.sha256(b"".join([repr(settings).encode(), *(file.read_bytes() for file in files)])).hexdigest()
