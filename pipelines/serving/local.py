"""The executor of this process: one watched loop that carries out work after work on the device of the settings."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG, find
from pipelines.events import DENOISING, Progress
from pipelines.imports import imported
from pipelines.models.sources import availability
from pipelines.serving import estimate, status, worker
from pipelines.serving.backend import Backend
from pipelines.serving.executor import Slot, Work
from pipelines.serving.run import Run
from pipelines.serving.runner import LOADING
from pipelines.serving.watch import Loop
from pipelines.settings import Settings
from pipelines.tasks import Task, TextToVideo

if TYPE_CHECKING:  # torch comes with the manager, and waits for the first job
    from pipelines.models.manager import ModelManager
    from pipelines.poses.pose_preview import Found, PosePreview
    from pipelines.systems.engine import Engine

SLOT = "0"
_OVER = object()
AHEAD_SECONDS = 2.0  # from the first wish to load ahead until it begins: the page that wishes it is drawn first
IDLE_SECONDS = 0.5  # from one look for models that nobody has used for long to the next


def local_backend(settings: Settings, catalog: Mapping[str, ModelCard] = CATALOG) -> Backend:
    """A backend that does all its work in this very process, on one device, for scripts and tests. Raises as Backend
    does."""
    return Backend(settings, LocalExecutor(settings, catalog), catalog)


class OwnMachine:
    """What an executor says of devices that are its owner's: nothing is lent, and nobody is asked."""

    def __init__(self, settings: Settings, catalog: Mapping[str, ModelCard]):
        self._settings = settings
        self._catalog = catalog

    @property
    def has_gpu(self) -> bool:
        return estimate.has_gpu(self._settings)

    def availability(self, model: str) -> str | None:
        return availability(find(model, self._catalog), self._settings)

    def check(self, task: Task) -> None:
        """What is not here yet is loaded once the work's turn has come."""

    def lent(self, task: Task, seconds: float | None) -> int | None:
        return None

    def asking(self, jobs: Sequence[str]) -> AbstractContextManager[None]:
        return nullcontext()


class LocalExecutor(OwnMachine):
    """One slot. It starts its loop with the first work or look, and imports torch with the first that wants a model."""

    def __init__(self, settings: Settings, catalog: Mapping[str, ModelCard] = CATALOG):
        super().__init__(settings, catalog)
        self.manager: ModelManager | None = None
        self._waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self._wished: set[str] = set()  # the tunings of which somebody wants a sample
        self._loop: Loop | None = None
        self._ahead: Iterator[None] | None = None  # loads a part of a model at each step, while there is one to load
        self._ahead_from: float | None = None  # time.monotonic(); None before anybody wished it
        self._speed: float | None = None  # FLOPs a second, once measured
        self._fresh = True  # whether no model was ever seen to be loaded
        self._starting = threading.Lock()  # of the loop
        self._making = threading.Lock()  # of the manager

    @property
    def speed(self) -> float:
        return self._speed or estimate.usual_speed(self._settings)

    def slots(self) -> Sequence[Slot]:
        held = self.manager.stats() if self.manager is not None else []
        self._fresh = self._fresh and not held
        since = 0.0 if self._ahead_from is None else max(0.0, time.monotonic() - self._ahead_from)
        return (Slot(SLOT, status.device(self._settings), status.loaded(held), fresh=self._fresh, since=since),)

    def forget(self, job: str) -> None:
        self._wished.discard(job)

    def run(self, work: Work, slot: str) -> Run:
        run = Run(partial(self._carry_out, work))
        self._start()
        self._waiting.put(run)
        return run

    def look(self, work: Work) -> "Generator[Progress, None, PosePreview | Found]":
        return worker.look(work, self._settings, self._models)

    def sample(self, job: str) -> None:
        self._wished.add(job)

    def load_ahead(self) -> None:
        with self._starting:
            if self._ahead_from is not None:
                return
            self._ahead_from = time.monotonic() + AHEAD_SECONDS
            self._ahead = self._loading()
        self._start()

    def unload(self) -> None:
        if self.manager is not None:
            self.manager.unload_all()

    def rest(self, slot: str) -> None:
        self.unload()

    def close(self) -> None:
        if self._loop is not None:
            self._loop.end()

    def _start(self) -> None:
        with self._starting:
            if self._loop is None:
                self._loop = Loop(self._turn)
                self._loop.start()

    def _turn(self) -> None:
        """One turn of the loop: a work if one waits, else a part of what is loaded ahead, else a look for models that
        nobody has used for long."""
        ahead = self._ahead if time.monotonic() > (self._ahead_from or 0.0) else None
        try:
            run = self._waiting.get(timeout=0 if ahead is not None else IDLE_SECONDS)
        except queue.Empty:
            if ahead is not None and next(ahead, _OVER) is _OVER:  # also once it has raised
                self._ahead = None
            elif ahead is None and self.manager is not None:
                self.manager.unload_idle()
        else:
            run.work()

    def _loading(self) -> Iterator[None]:
        """Loads the built-in models, that of the settings first, and measures the speed; after each step something else
        may be done."""
        manager = self._models()
        yield
        import_module("pipelines.systems.metrics")
        built_in = [card for card in self._catalog.values() if card.source.is_folder]
        for card in sorted(built_in, key=lambda card: card.name != self._settings.model):
            engine = import_module("pipelines.systems.engine").find_engine(card.system)
            yield
            for part in engine.parts:
                with manager.lease(f"{card.name}/{part}"):
                    pass
                yield
            if self._speed is None and TextToVideo in engine.generate and card.flops:
                yield from self._timing(card, engine, manager)

    def _timing(self, card: ModelCard, engine: "Engine", manager: "ModelManager") -> Iterator[None]:
        """Begins a video of `card`, and takes the speed of this machine from its second step, then warm."""
        task = TextToVideo.for_model(card, "a bear", 0)
        with closing(engine.generate[TextToVideo](task, manager)) as events:
            began = time.perf_counter()
            for event in events:
                if isinstance(event, Progress) and (event.stage, event.step) == (DENOISING, 2):
                    self._speed = estimate.step(task, card) / (time.perf_counter() - began)
                    return
                yield
                began = time.perf_counter()

    def _carry_out(self, work: Work, tell: Callable[[Any], None]) -> None:
        self._wished.discard(work.job)

        def models() -> "ModelManager":
            manager = self._models()
            manager.on_progress = lambda done, total: tell(Progress(LOADING, done, total))
            return manager

        try:
            with closing(worker.carry_out(work, self._settings, models, partial(self._is_wished, work.job))) as events:
                for event in events:
                    tell(event)
        finally:
            if self.manager is not None:
                self.manager.on_progress = None

    def _is_wished(self, job: str) -> bool:
        wished = job in self._wished
        self._wished.discard(job)
        return wished

    def _models(self) -> "ModelManager":
        with self._making:
            if self.manager is None:
                made: ModelManager = imported("pipelines.models.manager").ModelManager(self._catalog, self._settings)
                self.manager = made
                self._start()  # looks at poses load models too, which are to be unloaded where nobody uses them
            return self.manager
