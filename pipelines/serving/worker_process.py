"""A worker: a process with a device of its own, that carries out what the app's process sends it.

`python -m pipelines.serving.worker_process` reads requests from its standard input and writes what comes of them to its
standard output, one pickle after another; the first one it reads is what it works by. It ends when its input ends: then
the app has ended, in whatever way.
"""

import logging
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from logging.handlers import QueueHandler
from typing import Any

from pipelines.serving.executor import Work
from pipelines.serving.local import SLOT, LocalExecutor
from pipelines.serving.run import Run

BEAT_SECONDS = 1.0


class Pipe:
    """Messages to and from the app's process. Any thread may send."""

    def __init__(self, incoming: Any, outgoing: Any):
        """Two binary files."""
        self._incoming, self._outgoing, self._sending = incoming, outgoing, threading.Lock()

    def send(self, *message: Any) -> None:
        """Raises OSError where nobody listens any more."""
        content = pickle.dumps(message)
        with self._sending:
            self._outgoing.write(content)
            self._outgoing.flush()

    def receive(self) -> Any:
        """The next message. Raises EOFError once there are no more."""
        return pickle.load(self._incoming)


class Log(logging.Handler):
    """Has the app's process log what is logged here: a file has one writer."""

    def __init__(self, send: Callable[..., None]):
        super().__init__()
        self._send, self._plain = send, QueueHandler(None)  # type: ignore[arg-type]

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send("log", self._plain.prepare(record))
        except OSError:
            pass  # nobody listens any more


class Served:
    """What one worker does, request by request."""

    def __init__(self, pipe: Pipe, executor: LocalExecutor):
        self._pipe, self._executor = pipe, executor
        self._runs: dict[int, Run] = {}
        self._stopped: set[int] = set()  # looks that are to end

    def serve(self) -> None:
        """Takes requests until there are no more."""
        for tell in (self._beat, self._tell_state):
            threading.Thread(target=tell, daemon=True).start()
        while True:
            kind, *values = self._pipe.receive()
            getattr(self, f"_{kind}")(*values)

    def _run(self, number: int, work: Work) -> None:
        run = self._runs[number] = self._executor.run(work, SLOT)
        threading.Thread(target=self._follow, args=(number, self._followed(number, run)), daemon=True).start()

    def _look(self, number: int, work: Work) -> None:
        looking = self._looked(number, self._executor.look(work))
        threading.Thread(target=self._follow, args=(number, looking), daemon=True).start()

    def _stop(self, number: int) -> None:
        if run := self._runs.get(number):
            run.stop()
        else:
            self._stopped.add(number)

    def _sample(self, job: str) -> None:
        self._executor.sample(job)

    def _load_ahead(self) -> None:
        self._executor.load_ahead()

    def _unload(self) -> None:
        self._executor.unload()

    def _followed(self, number: int, run: Run) -> Generator[Any, None, None]:
        try:
            yield from run
        finally:
            run.close()  # once it has ended the device is free
            del self._runs[number]

    def _looked(self, number: int, looking: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
        with closing(looking):
            while number not in self._stopped:
                try:
                    yield next(looking)
                except StopIteration as finished:
                    return finished.value
        self._stopped.discard(number)

    def _follow(self, number: int, events: Generator[Any, None, Any]) -> None:
        """Tells what comes of a request, and at last how it ended: (error, value)."""
        end: tuple[BaseException | None, Any] = None, None
        try:
            while True:
                try:
                    event = next(events)
                except StopIteration as finished:
                    end = None, finished.value
                    break
                if event is not None:
                    self._pipe.send("told", number, event)
        except BaseException as error:  # whatever it is, whoever asked must hear of it
            end = portable(error), None
        self._pipe.send("ended", number, end)

    def _beat(self) -> None:
        """Signs of life, whatever the rest is at."""
        while True:
            self._pipe.send("beat")
            time.sleep(BEAT_SECONDS)

    def _tell_state(self) -> None:
        told = None
        while True:
            state = self._executor.slots()[0].models, self._executor.speed
            if state != told:
                self._pipe.send("state", *state)
                told = state
            time.sleep(BEAT_SECONDS)


def portable(error: BaseException) -> BaseException:
    """`error` as another process can raise it, with the story of where it came from as a note."""
    story = "".join(traceback.format_exception(error))
    try:
        if type(error).__module__.partition(".")[0] not in ("builtins", "pipelines"):
            raise TypeError("the app's process imports no library for an error")
        made = pickle.loads(pickle.dumps(error))
    except Exception:  # or one whose class wants more than its message
        kind = next(
            one for one in (MemoryError, ValueError, OSError, RuntimeError, Exception) if isinstance(error, one)
        )
        made = kind(f"{type(error).__name__}: {error}" if kind is Exception else str(error))
    made.add_note(story)
    return made


def main() -> None:
    """Serves until the app ends."""
    pipe = Pipe(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what a library prints goes where the log goes
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = sys.stderr
    try:
        settings, catalog = pipe.receive()
        logging.basicConfig(handlers=[Log(pipe.send)])
        logging.getLogger("pipelines").setLevel(logging.INFO)
        Served(pipe, LocalExecutor(settings, catalog)).serve()
    except (EOFError, OSError):
        pass
    os._exit(0)  # whatever still runs: nothing is to be written any more


if __name__ == "__main__":
    main()
