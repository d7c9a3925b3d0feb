"""The job table: what survives a closed page, a crash and a restart. Standard library only.

Jobs that have not ended are also kept in memory, with what only matters while they last: the latest progress and
preview. Every change is written to the file first. The file is long because all its methods share one lock and one copy
in memory.
"""

import hmac
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pipelines.events import Event, Failed, Losses, Preview, Progress, Result
from pipelines.messages import said
from pipelines.serving import fairness
from pipelines.serving.fairness import Limits, Place, Use
from pipelines.serving.job import Job, new_id
from pipelines.serving.rows import BUSY, Rows, unusable
from pipelines.tasks import Grid, Task, kind_of

LATEST = 20  # videos from which estimates follow
ATTEMPTS = 2  # a job under which the app died twice is not tried a third time
UNKNOWN = said("There is no such job here. It may have been deleted.")
EVERYBODY = object()  # in place of an owner, and nothing that a browser could send: None and "" own nothing
DIED = said("The app was ended from outside twice while it made this video. It may need more memory: try fewer frames.")


def first(ready: Sequence[Job]) -> Job | None:
    """The job whose turn it is."""
    return ready[0] if ready else None


class Notes(Protocol):
    """What is kept of jobs outside the table, for when that is lost."""

    def note(self, job: Job) -> None:
        """Notes a job that was added, has ended, waits again, was moved or renamed. Raises nothing."""

    def bury(self, job: str) -> None:
        """Notes that a job is being deleted."""


class JobTable:
    """Jobs by id. Every method is one indivisible step and may be called from any thread.

    What the file can't take for now (a full disk) stays in memory: progress is given up, the end of a job is written
    by `settle`.
    """

    def __init__(
        self,
        file: Path,
        limits: Limits,
        clock: Callable[[], float] = time.time,
        notes: Notes | None = None,
        renew: Callable[[Iterable[str]], Mapping[str, str]] = lambda owners: {},
    ):
        """Opens or makes the table in `file`; jobs that ran when the app died wait again, or have failed for good.

        `renew` tells what the owners in a table from before version 3 are called now: see Owners.renew.

        Raises Damaged for a file that is no table, ValueError where another process has it open, or a newer version of
        the app wrote it.
        """
        self._limits = limits
        self._clock = clock
        self._notes: Notes | None = None
        self._changed = threading.Condition()
        self._noted: dict[str, float] = {}  # when the progress of a job was last written to the file
        self._live: dict[str, Job] = {}  # jobs that have not ended, oldest first
        self._owed: dict[str, Job] = {}  # jobs whose end is not in the file yet
        self._key = secrets.token_bytes(16)  # of the hashes that stand for addresses, which are written nowhere
        self._addresses: dict[str, str] = {}  # hashes, by job that has not ended
        self._usual: dict[tuple, float | None] = {}  # see _usual_seconds
        self._latest: dict[str, list[Job]] = {}  # see latest; emptied whenever one of them may be another
        self.estimate: Callable[[Task], float | None] = lambda task: None  # the seconds that a task will take
        self._ahead: float | None = 0.0  # seconds until all that waits and runs is done
        self._told = 0.0  # when the positions were last told
        file.parent.mkdir(parents=True, exist_ok=True)
        self._rows = Rows(file, renew)
        try:
            self._served = self._rows.served()  # they are not new
            ran = self._rows.used(since=clock() - fairness.WINDOW)
            self._used = [Use(owner, "", ended, seconds) for owner, ended, seconds in ran]
            with self._changed:
                self.everything()  # so that a row that can't be read is found now
                self._recover()
        except (sqlite3.DatabaseError, KeyError, TypeError, ValueError) as error:  # a row that makes no job, too
            self._rows.close()
            raise unusable(file, error) from error
        self._notes = notes  # only now: what is noted may be newer than what the table has just been made of

    @property
    def trouble(self) -> str:
        """What is wrong with the file: BUSY, DAMAGED or ""."""
        return self._rows.trouble

    def add(self, task: Task, owner: str, address: str = "") -> Job:
        """A new waiting job. Raises ValueError where too many wait already."""
        (job,) = self.add_all({new_id(): task}, owner, address)
        return job

    def add_all(self, tasks: Mapping[str, Task], owner: str, address: str = "") -> list[Job]:
        """New waiting jobs, by the ids that they are to have: all of them or, with a ValueError, none.

        `address` is the network address that asks, "" where it is not known.
        """
        with self._changed:
            address = self._hashed(address)
            self._check_room(owner, address, sum(_counts(task) for task in tasks.values()))
            for identifier, task in tasks.items():
                job = Job(identifier, owner, task, submitted=self._clock())
                self._rows.insert(job)
                self._live[job.id] = job
                self._note(job)
                self._addresses[job.id] = address
            self._tell_positions()
            return [self._live[identifier] for identifier in tasks]

    def adopt(self, job: Job) -> None:
        """Takes `job` in as it is, in place of what the table has of it; one that has not ended waits."""
        with self._changed:
            self._latest.clear()
            self._rows.put(job)
            self._live.pop(job.id, None)
            if job.end is None:
                self._live[job.id] = job
            self._tell_positions()

    def everything(self) -> list[Job]:
        """All jobs, in whatever state."""
        with self._changed:
            return self._rows.everything()

    def get(self, identifier: str, owner: object = EVERYBODY) -> Job:
        """The job as it is now. Raises ValueError for an unknown one, or one of somebody else than `owner`."""
        if not isinstance(identifier, str):  # from a client: it may be a list
            raise ValueError(UNKNOWN)
        with self._changed:
            kept = self._live.get(identifier) or self._owed.get(identifier)
            job = kept or self._rows.get(identifier)
        if job is None or owner not in (EVERYBODY, job.owner):
            raise ValueError(UNKNOWN)
        return job

    def unfinished(self, owner: object = EVERYBODY) -> list[Job]:
        """The jobs (of `owner`) that have not ended, oldest first."""
        with self._changed:
            return [job for job in self._live.values() if owner in (EVERYBODY, job.owner)]

    def seconds_ahead(self) -> float | None:
        """The seconds until all that waits and runs is done, roughly; None where that can't be told."""
        with self._changed:
            return self._ahead if self._live else 0.0

    def finished(
        self,
        owner: object = EVERYBODY,
        search: str = "",
        limit: int = -1,
        offset: int = 0,
        kind: str = "",
        favourites: bool = False,
    ) -> list[Job]:
        """The videos (of `owner`, of a `kind` of task, or only the `favourites`) whose prompts hold every word of
        `search`, newest first."""
        with self._changed:
            return self._rows.finished(_named(owner), search, limit, offset, kind, favourites)

    def tunings(self, owner: object = EVERYBODY) -> list[Job]:
        """The tunings (of `owner`) that have ended in whatever way, newest first."""
        with self._changed:
            return self._rows.tunings(_named(owner))

    def latest(self, kind: str) -> Sequence[Job]:
        """The LATEST videos, or all tunings, of a `kind` of task, newest first. They are read anew only once another
        has ended or is gone: every page that is open asks for them again and again."""
        with self._changed:
            try:
                if kind not in self._latest:
                    self._latest[kind] = self.tunings() if kind == "tune" else self.finished(kind=kind, limit=LATEST)
                return self._latest[kind]
            except sqlite3.Error:  # nobody is to wait for want of an estimate
                return ()

    def again(self, identifier: str, address: str = "") -> None:
        """Queues a job that was stopped or has failed once more. Raises ValueError as `add` does."""
        with self._changed:
            self._latest.clear()
            job = self.get(identifier)
            if not isinstance(job.end, Failed):
                raise ValueError(said("Only what was stopped or has failed can be resumed."))
            address = self._hashed(address)
            self._check_room(job.owner, address, 1)
            job = Job(job.id, job.owner, job.task, submitted=self._clock(), title=job.title)
            self._rows.requeue(job)
            self._owed.pop(job.id, None)
            self._live[job.id] = job
            self._note(job)
            self._addresses[job.id] = address
            self._tell_positions()

    def rename(self, identifier: str, title: str) -> None:
        """Notes what the owner calls a job."""
        with self._changed:
            self._rows.rename(identifier, title)
            if identifier in self._live:
                self._live[identifier] = replace(self._live[identifier], title=title)
            self._note(self.get(identifier))

    def favour(self, identifier: str, favourite: bool) -> None:
        """Notes whether a job that has ended is a favourite of its owner."""
        with self._changed:
            self._rows.favour(identifier, favourite)
            if identifier in self._owed:
                self._owed[identifier] = replace(self._owed[identifier], favourite=favourite)
            self._note(self.get(identifier))

    def take(self, seconds: float, choose: Callable[[Sequence[Job]], Job | None] = first) -> Job | None:
        """A job, running from now on; None if there was none for `seconds`.

        `choose` is given the jobs that can begin, those whose turn comes first in front, and takes one or none. An
        owner's second job runs beside the first only where nobody else's can begin.
        """
        with self._changed:
            job = self._changed.wait_for(lambda: choose(self._ready()), seconds)
            if job is None:
                return None
            begun = {"attempts": job.attempts + 1, "started": self._clock(), "progress": None, "expected": None}
            self._set(job.id, state="running", **begun)
            self._tell_positions()
            return self._live[job.id]

    def tell(self, identifier: str, event: Event) -> Job:
        """Notes `event`; a Result or Failed ends the job. Returns the job, for a look at `stopping`."""
        with self._changed:
            match event:
                case Progress():
                    self._set(identifier, progress=event)
                    if self._clock() - self._told > 1:  # whoever waits is told how long still
                        self._tell_positions()
                case Preview():
                    self._set(identifier, preview=event)
                case Losses():
                    self._set(identifier, losses=event)
                case Result():
                    return self._end(identifier, "done", event)
                case Failed(stopped=True):
                    return self._end(identifier, "cancelled", event)
                case Failed():
                    return self._end(identifier, "failed", event)
            return self._live[identifier]

    def stop(self, identifier: str, message: str) -> bool:
        """Ends a job that does not run with `message`, and marks one that runs to be stopped. Returns whether it has
        ended now."""
        with self._changed:
            job = self._live.get(identifier)
            if job is None:
                return False
            if job.runs:
                self._set(identifier, stopping=True)
                return False
            self._end(identifier, "cancelled", Failed(message, stopped=True))
            self._tell_positions()
            return True

    def pause(self, identifier: str) -> bool:
        """Sets a waiting job aside until it is resumed, and marks a running one to be. Returns whether it is paused
        now."""
        with self._changed:
            job = self._live.get(identifier)
            if job is None or job.paused or job.stopping:
                return False
            if job.runs:
                self._set(identifier, pausing=True)
                return False
            self._set(identifier, state="paused", progress=None, expected=None)
            self._note(self._live[identifier])
            self._tell_positions()
            return True

    def set_aside(self, identifier: str, kept: bool) -> bool:
        """Pauses a running job that was marked to be; it waits again where its owner has thought better of it.

        `kept` says whether it will go on from where it is: then how far it came stays told. Returns False, and does
        nothing, where it is to be stopped meanwhile.
        """
        with self._changed:
            job, now = self._live[identifier], self._clock()
            if job.stopping:
                return False
            self._used.append(self._use(job, now, now - (job.started or now)))
            told = {"progress": job.progress, "preview": job.preview} if kept and job.pausing else {}
            self._put_back(identifier, {"progress": None, "preview": None, "attempts": job.attempts - 1} | told)
            return True

    def resume(self, identifier: str, address: str = "") -> None:
        """Queues a paused job, behind those that wait already. Raises ValueError as `add` does."""
        with self._changed:
            job = self._live.get(identifier)
            if job is None or not job.paused:
                if job is not None and job.pausing:
                    self._set(identifier, pausing=False)
                return
            address = self._hashed(address)
            self._check_room(job.owner, address, int(_counts(job.task)), without=identifier)
            job = replace(job, submitted=self._clock())
            self._rows.move(job)
            del self._live[identifier]  # it becomes the last
            self._live[identifier] = job
            self._addresses[identifier] = address
            self._set(identifier, state="interrupted", preview=None)
            self._note(self._live[identifier])
            self._tell_positions()

    def expire(self, identifier: str, message: str) -> None:
        """Ends a paused job with `message`. Raises ValueError where it is not paused any more."""
        with self._changed:
            job = self._live.get(identifier)
            if job is None or not job.paused:
                raise ValueError(UNKNOWN)
            self._end(identifier, "cancelled", Failed(message, stopped=True))

    def move(self, identifier: str, by: int) -> None:
        """Has a waiting job change places with that of its owner which waits `by` places behind it.

        Raises ValueError where it does not wait, or one of the two is a grid that waits for the other.
        """
        with self._changed:
            job = self._live.get(identifier)
            if job is None or job.runs:
                raise ValueError(said("This is being made already."))
            if job.paused:
                raise ValueError(said("This is paused. Resume it first."))
            mine = [one for one in self._live.values() if one.waits and one.owner == job.owner]
            place = mine.index(job) + by
            if not 0 <= place < len(mine):
                return
            other = mine[place]
            for grid, part in ((job, other), (other, job)):
                if isinstance(grid.task, Grid) and part.id in grid.task.jobs:
                    raise ValueError(said("A grid is made after its videos."))
            for one, submitted in ((job, other.submitted), (other, job.submitted)):
                moved = replace(one, submitted=submitted)
                self._rows.move(moved)
                self._live[one.id] = moved
                self._note(moved)
            self._live = dict(sorted(self._live.items(), key=lambda item: item[1].submitted))
            self._tell_positions()

    def interrupt(self, identifier: str) -> None:
        """Puts a running job back into the queue, as if it had not begun: the app is being shut down."""
        with self._changed:
            job = self._live.get(identifier)
            if job is not None and job.runs:
                self._put_back(identifier, {"attempts": job.attempts - 1, "progress": None, "preview": None})

    def try_again(self, identifier: str, trouble: str) -> bool:
        """Puts a running job back into the queue whose worker died, unless that is one too many: then it has failed, by
        `trouble`. Returns whether it waits again."""
        with self._changed:
            job = self._live[identifier]
            if job.attempts >= ATTEMPTS:
                self._end(identifier, "failed", Failed(trouble))
                return False
            self._put_back(identifier, {"progress": None, "preview": None})
            return True

    def settle(self) -> None:
        """Writes the ends of jobs that the file could not take. Raises sqlite3.Error where it still can't."""
        with self._changed:
            for job in list(self._owed.values()):
                self._rows.end(job)
                del self._owed[job.id]
                self._latest.clear()
                self._note(job)
            if self.trouble == BUSY:
                self._rows.probe()

    def delete(self, identifier: str) -> None:
        """Forgets a job that has ended."""
        with self._changed:
            if identifier in self._live:
                raise ValueError(said("This video is still being made. Stop it first."))
            if self._notes is not None:
                self._notes.bury(identifier)
            self._rows.delete(identifier)
            self._latest.clear()
            self._owed.pop(identifier, None)

    def wait(self, job: Job, seconds: float) -> Job:
        """The job as it is now, as soon as that is not the given `job` any more, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._live.get(job.id) is not job, seconds)
        return self.get(job.id)

    def close(self) -> None:
        with self._changed:
            self._rows.close()

    def _check_room(self, owner: str, address: str, new: int, without: str = "") -> None:
        """Raises ValueError where `new` more jobs may not wait, beside all but the one called `without`."""
        jobs = [job for job in self._live.values() if _counts(job.task) and job.id != without]
        waiting = [self._place(job) for job in jobs if job.waits]
        paused = [self._place(job) for job in jobs if job.paused]
        fairness.check_room(waiting, paused, self._limits, owner, address, new, self._served)

    def _place(self, job: Job, seconds: float | None = None) -> Place:
        return Place(job.id, job.owner, self._addresses.get(job.id, ""), job.submitted, seconds)

    def _hashed(self, address: str) -> str:
        return hmac.digest(self._key, address.encode(), "sha256").hex() if address else ""

    def _ready(self) -> list[Job]:
        busy = {job.owner for job in self._live.values() if job.runs}
        ready = [
            job for job in self._turns() if not isinstance(job.task, Grid) or not self._live.keys() & job.task.jobs
        ]
        return sorted(ready, key=lambda job: job.owner in busy)

    def _turns(self) -> list[Job]:
        """The waiting jobs in the order in which they will run if nobody else comes."""
        now = self._clock()
        self._used = fairness.recent(self._used, now)
        jobs = self._live.values()
        running = [
            self._use(job, now, max(now - job.started, self._usual_seconds(job) or fairness.UNKNOWN))
            for job in jobs
            if job.runs and job.started is not None
        ]
        waiting = [self._place(job, self._usual_seconds(job)) for job in jobs if job.waits]
        return [self._live[job] for job in fairness.turns(waiting, self._used + running, now)]

    def _use(self, job: Job, ended: float, seconds: float) -> Use:
        return Use(job.owner, self._addresses.get(job.id, ""), ended, seconds)

    def _tell_positions(self) -> None:
        order = self._turns()
        ahead: float | None = 0.0
        for job in self._live.values():
            if job.runs:
                left = job.progress.seconds_left if job.progress else None
                ahead = _sum(ahead, self._usual_seconds(job) if left is None else left)
        for position, job in enumerate(order, 1):
            progress, expected = Progress("Waiting", position, len(order), ahead), self._usual_seconds(job)
            if job.progress != progress or job.expected != expected:
                self._live[job.id] = replace(job, progress=progress, expected=expected)
            ahead = _sum(ahead, expected)
        self._ahead, self._told = ahead, self._clock()
        self._changed.notify_all()

    def _usual_seconds(self, job: Job) -> float | None:
        """How long it will take: by `estimate`, or else what the latest jobs of its kind took its model on average;
        None if there are none."""
        effort = job.task.effort
        if effort not in self._usual:
            try:
                usual = self.estimate(job.task)
                self._usual[effort] = self._rows.usual_seconds(*_kind(job)) if usual is None else usual
            except (sqlite3.Error, ValueError):  # no job is held up for want of an estimate
                return None
        return self._usual[effort]

    def _set(self, identifier: str, **changes) -> None:
        """Changes a job that has not ended. Previews are not written, progress about once a second."""
        before = self._live[identifier]
        job = replace(before, **changes)
        now = self._clock()
        changed = (job.state, job.pausing) != (before.state, before.pausing)
        if changed or job.progress is not before.progress and now - self._noted.get(job.id, 0) > 1:
            self._noted[job.id] = now
            try:
                self._rows.note(job)
            except sqlite3.Error:
                if job.runs and not before.runs:  # not begun before the attempt counts
                    raise
        self._live[identifier] = job
        self._changed.notify_all()

    def _put_back(self, identifier: str, changes: Mapping[str, Any]) -> None:
        """Has a running job wait again, or pauses it where that is wanted."""
        job = self._live[identifier]
        state = "paused" if job.pausing and not job.stopping else "interrupted"
        self._set(identifier, state=state, pausing=False, started=None, **changes)
        if state == "paused":
            self._note(self._live[identifier])
        self._tell_positions()

    def _end(self, identifier: str, state: str, end: Result | Failed) -> Job:
        ended = self._clock()
        job = replace(self._live[identifier], state=state, ended=ended, end=end)
        job = replace(job, progress=None, preview=None, losses=None, expected=None)
        if isinstance(end, Result):
            self._note(job)  # before the row: if the app dies between the two, the video need not be made again
        try:
            self._rows.end(job)
            if isinstance(end, Failed):
                self._note(job)
        except sqlite3.Error:
            self._owed[identifier] = job
        if job.started is not None:
            self._used.append(self._use(job, ended, ended - job.started))
        self._latest.clear()
        if state == "done":
            self._served.add(job.owner)
            self._usual.clear()
        del self._live[identifier]
        self._addresses.pop(identifier, None)
        self._noted.pop(identifier, None)
        self._changed.notify_all()
        return job

    def _note(self, job: Job) -> None:
        if self._notes is not None:
            self._notes.note(job)

    def _recover(self) -> None:
        for job in self._rows.unfinished():
            self._live[job.id] = job
            if job.runs and job.attempts >= ATTEMPTS:
                self._end(job.id, "failed", Failed(DIED))
            elif job.runs:
                self._set(job.id, state="interrupted", progress=None)
            elif job.paused:  # killed before its last step ended, it was noted as begun
                self._live[job.id] = replace(job, started=None)
        self._tell_positions()


def _counts(task: Task) -> bool:
    """Whether a waiting `task` is one of those of which there may be so many. A grid only waits for its videos."""
    return not isinstance(task, Grid)


def _named(owner: object) -> str | None:
    """The owner as `Rows` takes one: None for everybody."""
    return None if owner is EVERYBODY else str(owner)


def _kind(job: Job) -> tuple[str, str]:
    return kind_of(job.task), job.task.model


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
