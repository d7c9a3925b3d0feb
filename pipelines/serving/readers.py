"""Turns at reading uploads: several are read at once, and no visitor's uploads hold up those of the others."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.messages import said

READING = 4  # uploads that are read at once, one of each visitor
WAITING = 12  # that may wait: each holds a thread, of which all actions of all visitors have 40
EACH = 4  # of one visitor, read and waiting


class Readers:
    """Who may read now. First come, first served, but for those of whom an upload is being read already."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reading: list[str] = []  # owners
        self._waiting: list[tuple[str, object]] = []  # owners, and what tells one upload from another

    @contextmanager
    def turn(self, owner: str) -> Iterator[None]:
        """Waits until an upload of `owner` may be read, which it is inside the context.

        Raises ValueError where too many wait.
        """
        ticket = (owner, object())
        with self._changed:
            if sum(one == owner for one in (*self._reading, *(one for one, _ in self._waiting))) >= EACH:
                raise ValueError(
                    said("Your last uploads are still being read. Wait for them, and upload this one again.")
                )
            if len(self._waiting) >= WAITING:
                raise ValueError(said("Many uploads are being read at this moment. Try again in a minute."))
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._next() is ticket)
            finally:
                self._waiting.remove(ticket)
            self._reading.append(owner)
            self._changed.notify_all()  # there may be room for one more
        try:
            yield
        finally:
            with self._changed:
                self._reading.remove(owner)
                self._changed.notify_all()

    def _next(self) -> tuple[str, object] | None:
        if len(self._reading) >= READING:
            return None
        return next((ticket for ticket in self._waiting if ticket[0] not in self._reading), None)
