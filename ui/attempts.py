"""Wrong passwords: each makes the next attempt wait longer, from its own address and from everywhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass

FREE = 2  # wrong ones of an address that cost nothing: everybody mistypes
LONGEST = 300.0  # seconds that an address waits at most
FREE_IN_ALL, LONGEST_IN_ALL = 30, 5.0  # many addresses may belong to one stranger, but the owner must get in
FORGOTTEN = 3600.0  # seconds after which what an address did counts no more
ADDRESSES = 10_000  # that are remembered


@dataclass(frozen=True)
class _Wrong:
    count: int
    last: float  # seconds of the clock


class Attempts:
    """What was tried lately. All times are in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._wrong: dict[str, _Wrong] = {}  # by address, the latest last
        self._all = _Wrong(0, clock())

    def wait(self, address: str) -> float:
        """How long it is until `address` may try again; 0 where it may now."""
        mine = self._lately(self._wrong.get(address, _Wrong(0, 0.0)))
        return max(
            mine.last + _delay(mine.count - FREE, LONGEST) - self._clock(),
            self._all.last + _delay(self._lately(self._all).count - FREE_IN_ALL, LONGEST_IN_ALL) - self._clock(),
            0.0,
        )

    def wrong(self, address: str) -> None:
        now = self._clock()
        mine = self._lately(self._wrong.pop(address, _Wrong(0, now)))
        self._wrong[address] = _Wrong(mine.count + 1, now)
        if len(self._wrong) > ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
        self._all = _Wrong(self._lately(self._all).count + 1, now)

    def right(self, address: str) -> None:
        self._wrong.pop(address, None)

    def _lately(self, wrong: _Wrong) -> _Wrong:
        return wrong if self._clock() - wrong.last < FORGOTTEN else _Wrong(0, 0.0)


def _delay(count: int, longest: float) -> float:
    """1, 2, 4, … seconds from the first of `count` on, and never more than the `longest`."""
    return min(longest, 2.0 ** (min(count, 30) - 1)) if count > 0 else 0.0
