"""A worker on another machine: what an actor of the cluster does, without importing the cluster's library.

It has a data folder of its own, and gets and returns files as file_transfer has them.
"""

import logging
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG
from pipelines.serving.executor import Made, Work
from pipelines.serving.file_transfer import Inputs, Watch, watched
from pipelines.serving.local import SLOT, LocalExecutor
from pipelines.serving.run import Run
from pipelines.serving.status import Loaded
from pipelines.serving.worker_process import Log, portable
from pipelines.settings import Settings

LOOK_SECONDS = 0.3  # from one look for files that have changed to the next
ALONE_SECONDS = 60.0  # without a heartbeat of its app, after which it stops its work and frees its memory
Item = tuple[str, Any]  # ("told", event), ("files", Changes), or last ("ended", (error, value))


@dataclass(frozen=True)
class State:
    """A worker at one moment."""

    key: str  # of the app's settings and version that it was started with
    device: str  # for a person
    node: str
    models: tuple[Loaded, ...]
    speed: float  # FLOPs a second
    records: tuple[logging.LogRecord, ...]  # what it has logged since it was asked last


class RemoteWorker:
    """One executor, and the files that its works are at. `run`, `look` and the rest each have a thread of their own."""

    def __init__(
        self, name: str, key: str, settings: Settings, catalog: Mapping[str, ModelCard], fetch: Callable[[Any], bytes]
    ):
        """`name` is the worker's own in the cluster; `fetch` as Inputs has it. The machine's own environment says where
        its caches are."""
        prefix = f"marionette-{name}-"
        for old in Path(tempfile.gettempdir()).glob(f"{prefix}*"):  # of one that was killed here
            shutil.rmtree(old, ignore_errors=True)
        self._key = key
        self._folder = Path(tempfile.mkdtemp(prefix=prefix))
        self._inputs = Inputs(self._folder, fetch)
        self._settings = replace(settings, data=self._inputs.data, cache=Settings.from_environment().cache)
        here = {name: CATALOG.get(name, card) for name, card in catalog.items()}  # where the built-in ones lie
        self._executor = LocalExecutor(self._settings, here)
        self._records: deque[logging.LogRecord] = deque(maxlen=1000)
        logging.getLogger().addHandler(Log(lambda _, record: self._records.append(record)))
        logging.getLogger("pipelines").setLevel(logging.INFO)
        self._stopped: set[str] = set()  # numbers of what is to end
        self._going: dict[str, Run | None] = {}
        self._heard, self._era = time.monotonic(), ""  # of the app
        threading.Thread(target=self._watch, daemon=True).start()

    def run(self, number: str, work: Work, files: Mapping[str, tuple[str, list[Any]]]) -> Generator[Item, None, None]:
        """Carries out `work`, as Executor.run, from `files`. `number` is for `stop`."""

        def begin() -> Run:
            run = self._going[number] = self._executor.run(work, SLOT)
            return run

        yield from self._served(number, work, files, begin)

    def look(self, number: str, work: Work, files: Mapping[str, tuple[str, list[Any]]]) -> Generator[Item, None, None]:
        """Looks for poses, as Executor.look, in what `files` hold."""
        yield from self._served(number, work, files, lambda: self._executor.look(work))

    def stop(self, number: str) -> None:
        """Ends `number` at its next step, also where it has yet to begin."""
        self._stopped.add(number)
        if run := self._going.get(number):
            run.stop()

    def sample(self, job: str) -> None:
        self._executor.sample(job)

    def load_ahead(self) -> None:
        self._executor.load_ahead()

    def unload(self) -> None:
        self._executor.unload()

    def beat(self, era: str) -> State:
        """A sign of life, asked for every second. In a new era nobody waits any more for what goes on."""
        self._heard = time.monotonic()
        if era != self._era:
            self._era = era
            self._stop_all()
        (slot,) = self._executor.slots()
        records = tuple(self._records.popleft() for _ in range(len(self._records)))
        return State(self._key, slot.device, socket.gethostname(), slot.models, self._executor.speed, records)

    def close(self) -> None:
        """Leaves nothing of its app's on this machine; then it is ended."""
        self._stop_all()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _served(
        self, number: str, work: Work, files: Mapping[str, tuple[str, list[Any]]], begin: Callable[[], Any]
    ) -> Generator[Item, None, None]:
        end: tuple[BaseException | None, Any] = None, None
        watch: Watch | None = None
        self._going[number] = None
        folders = watched(work)
        try:
            self._inputs.lay_out(files, folders[0] if work.job else None)
            watch = Watch(self._settings.data, folders)
            looked = 0.0
            with closing(begin()) as events:
                while number not in self._stopped:
                    try:
                        event = next(events)
                    except StopIteration as finished:
                        end = None, finished.value
                        break
                    made = isinstance(event, Made)
                    if made or time.monotonic() - looked > LOOK_SECONDS:
                        looked = time.monotonic()
                        if changes := watch.changes(ended=made):
                            yield "files", changes
                    if event is not None:
                        yield "told", event
        except Exception as error:
            end = portable(error), None
        except GeneratorExit:
            raise
        except BaseException as error:  # a library may even call exit()
            end = portable(error), None
        finally:
            last = watch.changes(ended=True) if watch is not None else None
            self._inputs.clear()
            self._going.pop(number, None)
            self._stopped.discard(number)
        if last:
            yield "files", last
        yield "ended", end

    def _stop_all(self) -> None:
        for number in list(self._going):
            self.stop(number)

    def _watch(self) -> None:
        """Where the app is gone, nobody wants what is made."""
        alone = False
        while True:
            time.sleep(1)
            was, alone = alone, time.monotonic() - self._heard > ALONE_SECONDS
            if alone and not was:
                self._stop_all()
            if alone and not self._going:
                self._executor.unload()
                self._inputs.forget()
