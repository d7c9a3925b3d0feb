"""ZeroGPU: a Space whose GPU is lent to a visitor for a number of seconds, in a fork of this process.

What differs from a machine of one's own is all here. The models are put on the device before the page opens, as
`spaces` wants it: it keeps them for its forks, and what a fork loads or learns is lost with it. A job asks for its GPU
by name of the visitor who wanted it, for as long as it will take; a tuning is done in pieces that anybody's quota
covers, its state being kept on disk between them. Facts: hub-docs, spaces-zerogpu.md, and the source of spaces 0.51.
"""

import html
import logging
import math
import os
import re
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG, find
from pipelines.detectors import DETECTORS
from pipelines.errors import VideoError
from pipelines.events import Losses, Progress
from pipelines.messages import said
from pipelines.serving import status, worker
from pipelines.serving.backend import Backend
from pipelines.serving.executor import Asset, Made, Slot, Told, Work
from pipelines.serving.local import LocalExecutor
from pipelines.serving.runner import Generated, generated
from pipelines.settings import Settings
from pipelines.systems.engine import find_engine
from pipelines.tasks import Finish, Grid, MadeByModel, Task, Tune

if TYPE_CHECKING:  # they come with OpenCV
    from pipelines.poses.pose_preview import Found, PosePreview

SPEED = 30e12  # FLOPs a second that really come out of half an RTX Pro 6000; only until a first job was timed
LEAST = 10  # seconds: what is asked for at least
# Seconds of GPU for one piece of a tuning. 1.5 times as many are set against the visitor's quota, and a day of somebody
# who is not signed in has 120. It ends itself after the second number, for what is left to be written.
PIECE, WORKED = 60, 42
WORDS = {one.__name__: one for one in (ValueError, MemoryError, VideoError)}  # what is told to a person as it is

log = logging.getLogger(__name__)


def here(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is a Space on ZeroGPU."""
    return environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


@dataclass(frozen=True)
class _Done:
    """What `generated` returns, as it comes out of the fork."""

    made: tuple[Any, dict[str, Any], Any]


@dataclass(frozen=True)
class _Fault:
    """What went wrong in the fork: exceptions themselves do not come out of it."""

    kind: str  # the exception's class
    words: str
    trace: str


class OnLentGPU(Exception):
    """Something that went wrong in the fork, with its traceback there for the log."""


@dataclass(frozen=True)
class _Wish:
    """A wish for a sample that a fork can see: a file that is there."""

    file: Path

    def __call__(self) -> bool:
        wanted = self.file.exists()
        self.file.unlink(missing_ok=True)
        return wanted


def zero_backend(settings: Settings, catalog: Mapping[str, ModelCard] = CATALOG, spaces: Any = None) -> Backend:
    """The backend of a Space on ZeroGPU. To be made in the main thread, before anything else imports torch.

    Raises as Backend and ZeroExecutor do.
    """
    return Backend(settings, ZeroExecutor(settings, catalog, spaces), catalog)


class ZeroExecutor:
    """One slot, whose work runs in GPU calls of its own, for the visitor who asked for it."""

    def __init__(self, settings: Settings, catalog: Mapping[str, ModelCard] = CATALOG, spaces: Any = None):
        """Loads the built-in models and those of `settings.zerogpu`; `spaces` is the package, or what stands in for it.

        Raises ValueError where the settings name a model that there is not.
        """
        spaces = spaces or import_module("spaces")
        from pipelines.models.manager import ModelManager

        self._settings, self._catalog = settings, catalog
        self._models = ModelManager(catalog, settings)  # used in the forks, never here
        self._loaded = {name for name in _wanted(settings, catalog) if _load(self._models, catalog[name])}
        for detector in DETECTORS.values():
            _try(self._models, [f"{detector.name}/{part}" for part in detector.parts])
        self.lend = spaces.GPU(duration=_duration)(_lendable(self._models))
        self._visitors: dict[str, Context] = {}  # job -> the request of whoever wanted it
        # Poses that are looked for before a job are found here, where there is no GPU.
        self._looking = LocalExecutor(replace(settings, device="cpu"), catalog)

    @property
    def has_gpu(self) -> bool:
        return True

    @property
    def speed(self) -> float:
        return SPEED

    @property
    def visitors(self) -> frozenset[str]:
        """The jobs of which it is known who wanted them."""
        return frozenset(self._visitors)

    def slots(self) -> Sequence[Slot]:
        (slot,) = self._looking.slots()
        return (replace(slot, device=status.device(self._settings)),)

    def availability(self, model: str) -> str | None:
        if model in self._loaded or model not in self._catalog:
            return self._looking.availability(model)
        return said(
            "This Space borrows its GPU, and can use only what it loaded when it started. Its owner can add this model "
            "to MARIONETTE_ZEROGPU: {model}.",
            model=model,
        )

    def check(self, task: Task) -> None:
        missing = None if isinstance(task, Finish | Grid) else self.availability(task.model)
        if missing is not None:
            raise ValueError(missing)

    def lent(self, task: Task, seconds: float | None) -> int | None:
        """As of any executor; a tuning asks several times."""
        if isinstance(task, Finish | Grid):
            return None
        if isinstance(task, Tune) or seconds is None:
            return PIECE
        return max(LEAST, math.ceil(1.25 * seconds))

    @contextmanager
    def asking(self, jobs: Sequence[str]) -> Iterator[None]:
        """Keeps the context of whoever asks: it is their request, in whose name a GPU is borrowed."""
        before = {job: self._visitors[job] for job in jobs if job in self._visitors}
        self._visitors.update((job, copy_context()) for job in jobs)
        try:
            yield
        except BaseException:
            for job in jobs:
                self.forget(job)
            self._visitors.update(before)
            raise

    def forget(self, job: str) -> None:
        self._visitors.pop(job, None)

    def run(self, work: Work, slot: str) -> Generator[Told | Made, None, None]:
        # None where the app was restarted since: then it is the Space's own quota that counts.
        return self._carry_out(work, self._visitors.pop(work.job, None) or Context())

    def look(self, work: Work) -> "Generator[Progress, None, PosePreview | Found]":
        return self._looking.look(work)

    def sample(self, job: str) -> None:
        folder = Asset("videos", job, "tuned").path(self._settings.data)
        if folder.is_dir():
            _wish(folder).file.touch()

    def load_ahead(self) -> None:
        """All that is used here was loaded at the start."""

    def unload(self) -> None:
        self._looking.unload()

    def rest(self, slot: str) -> None:
        """Nothing is held: the GPU of a job goes back with it."""

    def close(self) -> None:
        self._looking.close()

    def _carry_out(self, work: Work, visitor: Context) -> Generator[Told | Made, None, None]:
        pieces = partial(self._pieces, seconds=work.seconds)
        events = worker.carry_out(work, self._settings, lambda: self._models, _never, run=pieces)
        try:
            while (event := visitor.run(next, events, None)) is not None:
                yield event
        finally:
            visitor.run(events.close)

    def _pieces(self, task: MadeByModel, models: Any, seconds: float | None, **inputs: Any) -> Generated:
        """As `generated`, on a GPU that is lent for it; for a tuning piece after piece, each a step or more."""
        if isinstance(task, Tune):
            inputs["asked"] = _wish(inputs["folder"])
            inputs["asked"]()  # forgets a wish of before
        while True:
            with closing(self._gpu_call(task, inputs, self.lent(task, seconds))) as items:
                for item in items:
                    if isinstance(item, _Done):
                        return item.made
                    yield item

    def _gpu_call(self, task: Task, inputs: dict[str, Any], seconds: int | None) -> Generator[Told | _Done, None, None]:
        """What comes out of one GPU call. Raises what went wrong there, or why there was none, in words."""
        fault = None
        try:
            with closing(self.lend(task, inputs, seconds)) as items:
                for item in items:
                    if isinstance(item, _Fault):
                        fault = item
                    else:
                        yield item
        except Exception as error:
            if fault is None:
                reason = _reason(error)
                if reason is None:
                    raise
                raise ValueError(reason) from error
        if fault is not None:
            raise WORDS[fault.kind](fault.words) if fault.kind in WORDS else OnLentGPU(fault.trace)


def _lendable(models: Any) -> Callable[[MadeByModel, dict[str, Any], int], Generator[Any, None, None]]:
    """What runs in the fork, on `models`: one GPU call of so many seconds."""

    def on_gpu(task: MadeByModel, inputs: dict[str, Any], seconds: int) -> Generator[Any, None, None]:
        end = time.monotonic() + seconds * WORKED / PIECE
        half = time.monotonic() + seconds / 2
        try:
            with closing(_whole(generated(task, models, **inputs))) as events:
                for event in events:
                    yield event
                    # Closing keeps what is tuned. What comes after the last step can't be cut, and needs its time.
                    if isinstance(event, Losses) and time.monotonic() > (
                        end if isinstance(task, Tune) and len(event.values) < task.steps else min(half, end)
                    ):
                        return
            return
        except Exception as error:
            fault = _Fault(type(error).__name__, str(error), "".join(traceback.format_exception(error)))
        yield fault
        if fault.kind not in WORDS:  # then spaces ends this process, and with it whatever is wrong with the device
            raise RuntimeError("A job failed on the GPU.")

    return on_gpu


def _whole(events: Generated) -> Generator[Any, None, None]:
    yield _Done((yield from events))


def _duration(task: Task, inputs: dict[str, Any], seconds: int) -> int:
    """What spaces asks, with the arguments of the call, before it lends a GPU."""
    return seconds


def _never() -> bool:
    return False


def _wish(folder: Path) -> _Wish:
    return _Wish(folder / "sample-wanted")


def _wanted(settings: Settings, catalog: Mapping[str, ModelCard]) -> list[str]:
    """The models to load. Raises ValueError where the settings name one that there is not."""
    named = [name.strip() for name in settings.zerogpu.split(",") if name.strip()]
    built_in = [name for name, card in catalog.items() if card.source.is_folder]
    return list(dict.fromkeys([*built_in, *(find(name, catalog).name for name in named)]))


def _load(models: Any, card: ModelCard) -> bool:
    """Whether all of the model could be brought to the device. What runs it is imported, too, for the forks to have."""
    engine = find_engine(card.system)
    import_module("pipelines.systems.metrics")
    return _try(models, [f"{card.name}/{part}" for part in engine.parts])


def _try(models: Any, names: list[str]) -> bool:
    try:
        models.load(names)
    except (ValueError, OSError) as error:
        log.warning("Not loaded, and not offered here: %s (%s)", names[0].partition("/")[0], error)
        return False
    return True


def _reason(error: Exception) -> str | None:
    """The words of spaces on why it lends no GPU, or took it back; None where `error` is something else."""
    if str(error).startswith("Connection closed by visitor"):
        return said("The page was closed while this waited for a GPU, and so it lost its turn. Try again.")
    title, message = (getattr(error, name, None) for name in ("title", "message"))
    if not isinstance(title, str) or not title.startswith("ZeroGPU"):
        return None
    words = html.unescape(re.sub("<[^>]*>", "", str(message))).strip()
    if title == "ZeroGPU worker error":
        return said(
            "The GPU was taken back before this was done ({reason}). Choose fewer frames or steps, or try again.",
            reason=words,
        )
    if "Space app" in words:  # whoever asked is not known any more
        return said(
            "The app was restarted after you asked for this, and can't borrow a GPU in your name. Ask once more."
        )
    return said("No GPU can be borrowed for this now. {reason}", reason=words)
