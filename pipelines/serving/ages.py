"""How old things are by the app's own clock, which a wrong system clock can't set forward. Standard library only."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

OFF_SECONDS = 86_400.0  # of the time that the app was not running, so much counts at most

log = logging.getLogger(__name__)


class Ages:
    """Ages by name, kept in a small JSON file.

    While the app runs, the clock follows the monotonic one. Time off counts by the system's clock, up to OFF_SECONDS.
    A thing is as old as the time since `see` first saw it; where the file is lost, everything is new again.
    """

    def __init__(
        self,
        file: Path,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._file, self._wall, self._monotonic = file, wall, monotonic
        self._since: dict[str, float] = {}  # name -> what the clock showed when it was first seen
        self._now = 0.0  # seconds that the app has lived
        try:
            kept = json.loads(file.read_text("utf-8"))
            self._since = {str(name): float(since) for name, since in kept["since"].items()}
            self._now = float(kept["now"]) + min(max(0.0, wall() - float(kept["wall"])), OFF_SECONDS)
            if not math.isfinite(self._now + sum(self._since.values())):
                raise ValueError("not a number")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._since, self._now = {}, 0.0
            log.warning("%s can't be read (%s): everything is taken for new", file, error)
        self._last = monotonic()

    def see(self, names: Iterable[str]) -> dict[str, float]:
        """The ages of the things called `names` in seconds, those never seen being 0; forgets all others."""
        last, self._last = self._last, self._monotonic()
        self._now += max(0.0, self._last - last)
        self._since = {name: min(self._since.get(name, self._now), self._now) for name in names}
        self._write()
        return {name: self._now - since for name, since in self._since.items()}

    def _write(self) -> None:
        temporary = self._file.with_name(f".{self._file.name}.part")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump({"now": self._now, "wall": self._wall(), "since": self._since}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._file)
        except OSError as error:  # what is not written now is written the next time
            log.warning("The ages of the files were not written: %s", error.strerror)
