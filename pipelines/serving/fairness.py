"""The rules of the queue: how many jobs may wait, and whose turn it is. Pure functions over what waits and was used.

An owner chooses their own id and an address is shared by many, so both count. An address counts as a few owners at
most, whatever ids come from it; where it is not known ("") only the owner counts.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.messages import said

WINDOW = 3600.0  # seconds: what was used longer ago is forgotten
OWNERS = 4  # as so many owners one address counts at most
KEPT = 0.25  # share of the queue for those who have nothing waiting
LEAST = 1.0  # seconds that the shortest job counts as: it is loaded, written and told too
AHEAD = 32  # jobs among which one is looked for whose model is loaded
PASSED = 3  # times that a job is passed over for such a one
UNKNOWN = 30.0  # seconds that a job counts as while none of its kind has been made


@dataclass(frozen=True)
class Limits:
    """How many jobs may wait."""

    queue: int  # of all owners together
    each: int  # of one owner


@dataclass(frozen=True)
class Place:
    """A job in the queue, as far as turns depend on it."""

    job: str
    owner: str
    address: str  # or what stands for it
    submitted: float  # seconds since 1970
    seconds: float | None  # what jobs of its kind usually take


@dataclass(frozen=True)
class Use:
    """A job that has run, or runs."""

    owner: str
    address: str
    ended: float  # seconds since 1970; of a running job, now
    seconds: float


def check_room(
    waiting: Sequence[Place],
    paused: Sequence[Place],
    limits: Limits,
    owner: str,
    address: str,
    new: int,
    served: Iterable[str],
) -> None:
    """Raises ValueError, in words for the owner, where `new` more jobs of theirs may not wait.

    Those `paused` count for their own owner and address, and take no place from others.
    An owner who is none of the `served` is new: all new ones of an address together have what one owner has, until
    a job of theirs has run.
    """
    asked = (*waiting, *paused)
    mine = sum(place.owner == owner for place in asked)
    if new > limits.each:
        raise ValueError(
            said("That makes {new} videos, and {each} of yours may wait. Ask for fewer.", new=new, each=limits.each)
        )
    if mine + new > limits.each:
        raise ValueError(said("{mine} videos of yours are waiting already. Wait for one, or stop one.", mine=mine))
    near = [place for place in asked if address and place.address == address]
    served = frozenset(served)
    if owner not in served and sum(place.owner not in served for place in near) + new > limits.each and near:
        raise ValueError(
            said("Visitors who are new at your address have enough videos waiting. Try again once one is made.")
        )
    if near and len(near) + new > OWNERS * limits.each:
        raise ValueError(
            said("{count} videos from your address are waiting already. Wait for one of them.", count=len(near))
        )
    if len(waiting) + new > limits.queue:
        raise ValueError(said("{count} videos are waiting already. Try again in a few minutes.", count=len(waiting)))
    if (mine or near) and len(waiting) + new > math.ceil((1 - KEPT) * limits.queue):
        raise ValueError(
            said(
                "{count} videos are waiting already, and the places left are for visitors who have "
                "none waiting. Try again once one of yours is made.",
                count=len(waiting),
            )
        )


def turns(waiting: Iterable[Place], used: Iterable[Use], now: float) -> list[str]:
    """The jobs in the order in which they will run if nobody else comes.

    Jobs run in the order in which they were asked for, each moved back by the seconds that its owner has used within
    the last hour and by those of the owner's own jobs before it. Who used less goes first, and nobody starves: who
    comes later by more than somebody's use stays behind them.
    """
    by_owner: dict[str, float] = {}
    by_address: dict[str, float] = {}

    def count(owner: str, address: str, seconds: float) -> None:
        seconds = max(LEAST, seconds)
        by_owner[owner] = by_owner.get(owner, 0.0) + seconds
        if address:
            by_address[address] = by_address.get(address, 0.0) + seconds

    for use in used:
        if use.ended > now - WINDOW:
            count(use.owner, use.address, use.seconds)
    keys: dict[str, float] = {}
    for place in sorted(waiting, key=lambda place: place.submitted):
        of_address = by_address.get(place.address, 0.0) / OWNERS
        keys[place.job] = place.submitted + max(by_owner.get(place.owner, 0.0), of_address)
        count(place.owner, place.address, UNKNOWN if place.seconds is None else place.seconds)
    return sorted(keys, key=keys.__getitem__)


def choice(held: Sequence[bool], passed: int) -> int:
    """Which of the jobs that are ready a place begins, 0 being the one whose turn it is.

    A later one goes first where the place has the later one's model loaded (`held`) and not the first one's, unless the
    first was `passed` over a few times already.
    """
    if passed >= PASSED:
        return 0
    return next((place for place, one in enumerate(held[:AHEAD]) if one), 0)


def recent(used: Sequence[Use], now: float) -> list[Use]:
    """Those that still count."""
    return [use for use in used if use.ended > now - WINDOW]
