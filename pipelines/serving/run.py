"""Work done in one thread and followed in another. Standard library only."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

PAUSE = 0.25  # seconds without news after which whoever follows may look up


class Run(Iterator[Any]):
    """What `do(tell)` tells in the thread that calls `work`, for another thread to go through; then what it raises.

    None stands for a pause without news. Once the run is stopped, `tell` raises in the working thread: not an
    Exception, so that no library on the way takes it for a failure of its own.
    """

    def __init__(self, do: Callable[[Callable[[Any], None]], None]):
        self._do = do
        self._news: deque[Any] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._ended = False
        self._error: BaseException | None = None

    def work(self) -> None:
        """Does the work, unless it has been stopped already. Raises nothing."""
        try:
            if not self._stopped:
                self._do(self._tell)
        except _Stopped:
            pass
        except BaseException as raised:  # whatever it is, whoever follows must hear of it
            self._error = raised
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __next__(self) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._ended or self._stopped, PAUSE)
            if self._stopped:
                raise StopIteration
            if self._news:
                return self._news.popleft()
            if not self._ended:
                return None
            error, self._error = self._error, None
        try:
            raise StopIteration if error is None else error
        finally:
            del error  # else it would hold this frame, and this frame it, with all tensors on its way

    def stop(self) -> None:
        """Has the work end as soon as it tells something, and does not wait for that."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stops the work and waits until it has ended."""
        self.stop()
        with self._changed:
            self._changed.wait_for(lambda: self._ended)

    def _tell(self, news: Any) -> None:
        with self._changed:
            if self._stopped:
                raise _Stopped
            self._news.append(news)
            self._changed.notify_all()


class _Stopped(BaseException):
    """Nobody wants the work any more."""
