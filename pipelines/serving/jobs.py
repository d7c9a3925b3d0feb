"""The job table in SQLite: what survives a closed page, a crash and a restart. Standard library only.

Queued, running and interrupted jobs are also kept in memory, with what only matters while they last: the latest
progress and preview. Every change is written to the file first.
"""

import hmac
import json
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pipelines.events import Event, Failed, Losses, Preview, Progress, Result
from pipelines.serving import fairness
from pipelines.serving.fairness import Limits, Place, Use
from pipelines.tasks import NAMED, NOBODY, Grid, Task, kind_of, recall, to_json

STATES = ("queued", "running", "done", "failed", "cancelled", "interrupted")
ATTEMPTS = 2  # a job under which the app died twice is not tried a third time
UNKNOWN = "There is no such job here. It may have been deleted."
EVERYBODY = object()  # in place of an owner, and nothing that a browser could send: None and "" own nothing
DIED = "The app was ended from outside twice while it made this video. It may need more memory: try fewer frames."

_SCHEMA = f"""
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    task TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN {STATES}),
    attempts INTEGER NOT NULL DEFAULT 0,
    submitted REAL NOT NULL,
    started REAL,
    ended REAL,
    stage TEXT,
    step INTEGER,
    total INTEGER,
    error TEXT,
    video TEXT,
    facts TEXT,
    title TEXT
) STRICT;
CREATE INDEX jobs_of_owner ON jobs (owner, submitted);
CREATE INDEX jobs_in_state ON jobs (state, ended);
"""
_VERSION = 3  # of the schema, in the file's user_version; since 3 no row holds the id of a visitor
_NEWER = {2: "ALTER TABLE jobs ADD COLUMN title TEXT"}  # version -> what makes it of the one before
# What SQLite says where the disk, the folder's rights or another process is at fault, and not the file.
_ELSEWHERE = ("locked", "unable to open", "readonly", "disk is full", "disk I/O", "out of memory")
BUSY = "not to be read or written for now"
DAMAGED = "damaged, and is replaced when the app is started again"

log = logging.getLogger(__name__)


class Damaged(ValueError):
    """The file of the table is damaged, or is none of this app."""


@dataclass(frozen=True)
class Job:
    """One row: a picture of the job at one moment, never changed."""

    id: str
    owner: str  # whose it is: nobody else hears of it
    task: Task
    state: str = "queued"  # or "running", "done", "failed", "cancelled", "interrupted": queued again after a crash
    attempts: int = 0  # how often it was begun
    submitted: float = 0.0  # seconds since 1970, like the others
    started: float | None = None
    ended: float | None = None
    stopping: bool = False  # somebody pressed Stop while it ran
    progress: Progress | None = None
    preview: Preview | None = None
    end: Result | Failed | None = None
    title: str = ""  # what its owner calls it
    losses: Losses | None = None  # of a tuning

    @property
    def waits(self) -> bool:
        return self.state in ("queued", "interrupted")

    @property
    def events(self) -> tuple[Event, ...]:
        """The latest of each kind, in the order in which they are told."""
        return tuple(event for event in (self.progress, self.preview, self.losses, self.end) if event is not None)


class Notes(Protocol):
    """What is kept of jobs outside the table, for when that is lost."""

    def note(self, job: Job) -> None:
        """Notes a job that was added, has ended, waits again or was renamed. Raises nothing."""

    def bury(self, job: str) -> None:
        """Notes that a job is being deleted."""


class JobTable:
    """Jobs by id. Every method is one indivisible step and may be called from any thread.

    What the file can't take for now (a full disk) stays in memory: progress is given up, the end of a job is written
    by `settle`. `trouble` says what is wrong with the file: BUSY, DAMAGED or "".
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
        self._noted = 0.0  # when progress was last written to the file
        self._live: dict[str, Job] = {}  # jobs that have not ended, oldest first
        self._owed: dict[str, Job] = {}  # jobs whose end is not in the file yet
        self.trouble = ""
        self._key = secrets.token_bytes(16)  # of the hashes that stand for addresses, which are written nowhere
        self._addresses: dict[str, str] = {}  # hashes, by job that has not ended
        self._usual: dict[tuple[str, str], float | None] = {}  # see _usual_seconds
        file.parent.mkdir(parents=True, exist_ok=True)
        self._rows = _open(file, renew)
        try:
            done = "SELECT DISTINCT owner FROM jobs WHERE state = 'done'"
            self._served = {owner for (owner,) in self._rows.execute(done)}  # they are not new
            ran = "SELECT owner, '', ended, ended - started FROM jobs WHERE started IS NOT NULL AND ended > ?"
            self._used = [Use(*row) for row in self._rows.execute(ran, (clock() - fairness.WINDOW,))]
            with self._changed:
                self.everything()  # so that a row that can't be read is found now
                self._recover()
        except (sqlite3.DatabaseError, KeyError, TypeError, ValueError) as error:  # a row that makes no job, too
            self._rows.close()
            raise _unusable(file, error) from error
        self._notes = notes  # only now: what is noted may be newer than what the table has just been made of

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
                self._write(
                    "INSERT INTO jobs (id, owner, task, state, submitted) VALUES (?, ?, ?, ?, ?)",
                    (job.id, owner, to_json(task), job.state, job.submitted),
                )
                self._live[job.id] = job
                self._note(job)
                self._addresses[job.id] = address
            self._tell_positions()
            return [self._live[identifier] for identifier in tasks]

    def adopt(self, job: Job) -> None:
        """Takes `job` in as it is, in place of what the table has of it; one that has not ended waits."""
        with self._changed:
            video, facts = (
                (str(job.end.video), json.dumps(job.end.facts)) if isinstance(job.end, Result) else (None,) * 2
            )
            error = job.end.message if isinstance(job.end, Failed) else None
            times = (job.submitted, job.started, job.ended)
            self._write(
                "INSERT OR REPLACE INTO jobs (id, owner, task, state, attempts, submitted, started, ended, error, "
                "video, facts, title) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (job.id, job.owner, to_json(job.task), job.state, job.attempts, *times, error, video, facts, job.title),
            )
            self._live.pop(job.id, None)
            if job.end is None:
                self._live[job.id] = job
            self._tell_positions()

    def everything(self) -> list[Job]:
        """All jobs, in whatever state."""
        with self._changed:
            return list(self._read("ORDER BY submitted, rowid"))

    def get(self, identifier: str, owner: object = EVERYBODY) -> Job:
        """The job as it is now. Raises ValueError for an unknown one, or one of somebody else than `owner`."""
        if not isinstance(identifier, str):  # from a client: it may be a list
            raise ValueError(UNKNOWN)
        with self._changed:
            kept = self._live.get(identifier) or self._owed.get(identifier)
            job = kept or next(self._read("WHERE id = ?", identifier), None)
        if job is None or owner not in (EVERYBODY, job.owner):
            raise ValueError(UNKNOWN)
        return job

    def unfinished(self, owner: object = EVERYBODY) -> list[Job]:
        """The jobs (of `owner`) that wait or run, oldest first."""
        with self._changed:
            return [job for job in self._live.values() if owner in (EVERYBODY, job.owner)]

    def finished(
        self, owner: object = EVERYBODY, search: str = "", limit: int = -1, offset: int = 0, kind: str = ""
    ) -> list[Job]:
        """The videos (of `owner`, of a `kind` of task) whose prompts hold every word of `search`, newest first."""
        where, values = "WHERE state = 'done' AND json_extract(task, '$.task') != 'tune'", []
        if kind:
            where, values = f"{where} AND json_extract(task, '$.task') = ?", [kind]
        if owner is not EVERYBODY:
            where, values = f"{where} AND owner = ?", [*values, owner]
        for word in search.split():
            where += rf" AND {_said('prompt')} LIKE ? ESCAPE '\'"
            values.append("%" + "".join(f"\\{letter}" if letter in r"\%_" else letter for letter in word) + "%")
        with self._changed:
            order = f"{where} ORDER BY ended DESC, rowid DESC LIMIT ? OFFSET ?"
            return list(self._read(order, *values, limit, offset))

    def tunings(self, owner: object = EVERYBODY) -> list[Job]:
        """The tunings (of `owner`) that have ended in whatever way, newest first."""
        where, values = "WHERE ended IS NOT NULL AND json_extract(task, '$.task') = 'tune'", []
        if owner is not EVERYBODY:
            where, values = f"{where} AND owner = ?", [owner]
        with self._changed:
            return list(self._read(f"{where} ORDER BY ended DESC, rowid DESC", *values))

    def again(self, identifier: str, address: str = "") -> None:
        """Queues a job that was stopped or has failed once more. Raises ValueError as `add` does."""
        with self._changed:
            job = self.get(identifier)
            if not isinstance(job.end, Failed):
                raise ValueError("Only what was stopped or has failed can be resumed.")
            address = self._hashed(address)
            self._check_room(job.owner, address, 1)
            job = Job(job.id, job.owner, job.task, submitted=self._clock(), title=job.title)
            self._write(
                "UPDATE jobs SET state = ?, attempts = 0, submitted = ?, started = NULL, ended = NULL, error = NULL "
                "WHERE id = ?",
                (job.state, job.submitted, job.id),
            )
            self._owed.pop(job.id, None)
            self._live[job.id] = job
            self._note(job)
            self._addresses[job.id] = address
            self._tell_positions()

    def rename(self, identifier: str, title: str) -> None:
        """Notes what the owner calls a job."""
        with self._changed:
            self._write("UPDATE jobs SET title = ? WHERE id = ?", (title, identifier))
            if identifier in self._live:
                self._live[identifier] = replace(self._live[identifier], title=title)
            self._note(self.get(identifier))

    def take(self, seconds: float) -> Job | None:
        """The job whose turn it is, running from now on; None if there was none for `seconds`.

        Of one owner only one job runs at a time.
        """
        with self._changed:
            if not self._changed.wait_for(self._ready, seconds):
                return None
            job = self._ready()[0]
            self._set(job.id, state="running", attempts=job.attempts + 1, started=self._clock(), progress=None)
            self._tell_positions()
            return self._live[job.id]

    def tell(self, identifier: str, event: Event) -> Job:
        """Notes `event`; a Result or Failed ends the job. Returns the job, for a look at `stopping`."""
        with self._changed:
            match event:
                case Progress():
                    self._set(identifier, progress=event)
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

    def stop(self, identifier: str, message: str) -> None:
        """Ends a waiting job with `message` and marks a running one to be stopped."""
        with self._changed:
            job = self._live.get(identifier)
            if job is not None and job.waits:
                self._end(identifier, "cancelled", Failed(message, stopped=True))
                self._tell_positions()
            elif job is not None:
                self._set(identifier, stopping=True)

    def interrupt(self, identifier: str) -> None:
        """Puts a running job back into the queue, as if it had not begun: the app is being shut down."""
        with self._changed:
            job = self._live.get(identifier)
            if job is not None and job.state == "running":
                self._set(identifier, state="interrupted", attempts=job.attempts - 1, progress=None, preview=None)

    def settle(self) -> None:
        """Writes the ends of jobs that the file could not take. Raises sqlite3.Error where it still can't."""
        with self._changed:
            for job in list(self._owed.values()):
                self._write_end(job)
                del self._owed[job.id]
                self._note(job)
            if self.trouble == BUSY:
                self._write(f"PRAGMA user_version = {_VERSION}", ())  # tries the file

    def delete(self, identifier: str) -> None:
        """Forgets a job that has ended."""
        with self._changed:
            if identifier in self._live:
                raise ValueError("This video is still being made. Stop it first.")
            if self._notes is not None:
                self._notes.bury(identifier)
            self._write("DELETE FROM jobs WHERE id = ?", (identifier,))
            self._owed.pop(identifier, None)

    def wait(self, job: Job, seconds: float) -> Job:
        """The job as it is now, as soon as that is not the given `job` any more, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._live.get(job.id) is not job, seconds)
        return self.get(job.id)

    def close(self) -> None:
        with self._changed:
            self._rows.close()

    def _check_room(self, owner: str, address: str, new: int) -> None:
        waiting = [self._place(job) for job in self._live.values() if job.waits and _counts(job.task)]
        fairness.check_room(waiting, self._limits, owner, address, new, self._served)

    def _place(self, job: Job, seconds: float | None = None) -> Place:
        return Place(job.id, job.owner, self._addresses.get(job.id, ""), job.submitted, seconds)

    def _hashed(self, address: str) -> str:
        return hmac.digest(self._key, address.encode(), "sha256").hex() if address else ""

    def _ready(self) -> list[Job]:
        busy = {job.owner for job in self._live.values() if job.state == "running"}
        return [job for job in self._turns() if job.owner not in busy]

    def _turns(self) -> list[Job]:
        """The waiting jobs in the order in which they will run if nobody else comes."""
        now = self._clock()
        self._used = fairness.recent(self._used, now)
        jobs = self._live.values()
        running = [
            self._use(job, now, max(now - job.started, self._usual_seconds(job) or fairness.UNKNOWN))
            for job in jobs
            if job.state == "running"
        ]
        waiting = [self._place(job, self._usual_seconds(job)) for job in jobs if job.waits]
        return [self._live[job] for job in fairness.turns(waiting, self._used + running, now)]

    def _use(self, job: Job, ended: float, seconds: float) -> Use:
        return Use(job.owner, self._addresses.get(job.id, ""), ended, seconds)

    def _tell_positions(self) -> None:
        order = self._turns()
        ahead: float | None = 0.0
        for job in self._live.values():
            if job.state == "running":
                left = job.progress.seconds_left if job.progress else None
                ahead = _sum(ahead, self._usual_seconds(job) if left is None else left)
        for position, job in enumerate(order, 1):
            progress = Progress("Waiting", position, len(order), ahead)
            if job.progress != progress:
                self._live[job.id] = replace(job, progress=progress)
            ahead = _sum(ahead, self._usual_seconds(job))
        self._changed.notify_all()

    def _usual_seconds(self, job: Job) -> float | None:
        """How long the latest jobs of its kind took its model on average; None if there are none."""
        kind = _kind(job)
        if kind not in self._usual:
            taken = (
                "SELECT ended - started AS seconds FROM jobs WHERE state = 'done' AND json_extract(task, '$.task') = ? "
                f"AND {_said('model')} = ? ORDER BY ended DESC LIMIT 10"
            )
            try:
                self._usual[kind] = self._rows.execute(f"SELECT avg(seconds) FROM ({taken})", kind).fetchone()[0]
            except sqlite3.Error as error:  # no job is held up for want of an estimate
                self._mark(error)
                return None
        return self._usual[kind]

    def _set(self, identifier: str, **changes) -> None:
        """Changes a job that has not ended. Previews are not written, progress about once a second."""
        before = self._live[identifier]
        job = replace(before, **changes)
        now = self._clock()
        if job.state != before.state or job.progress is not before.progress and now - self._noted > 1:
            self._noted = now
            progress = job.progress or Progress(None, None, None)
            try:
                self._write(
                    "UPDATE jobs SET state = ?, attempts = ?, started = ?, stage = ?, step = ?, total = ? WHERE id = ?",
                    (job.state, job.attempts, job.started, progress.stage, progress.step, progress.total, identifier),
                )
            except sqlite3.Error:
                if job.state == "running" and before.state != "running":  # not begun before the attempt counts
                    raise
        self._live[identifier] = job
        self._changed.notify_all()

    def _end(self, identifier: str, state: str, end: Result | Failed) -> Job:
        job = replace(self._live[identifier], state=state, ended=self._clock(), end=end)
        job = replace(job, progress=None, preview=None, losses=None)
        if isinstance(end, Result):
            self._note(job)  # before the row: if the app dies between the two, the video need not be made again
        try:
            self._write_end(job)
            if isinstance(end, Failed):
                self._note(job)
        except sqlite3.Error:
            self._owed[identifier] = job
        if job.started is not None:
            self._used.append(self._use(job, job.ended, job.ended - job.started))
        if state == "done":
            self._served.add(job.owner)
            self._usual.pop(_kind(job), None)
        del self._live[identifier]
        self._addresses.pop(identifier, None)
        self._changed.notify_all()
        return job

    def _write_end(self, job: Job) -> None:
        done = isinstance(job.end, Result)
        video, facts = (str(job.end.video), json.dumps(job.end.facts)) if done else (None, None)
        self._write(
            "UPDATE jobs SET state = ?, ended = ?, error = ?, video = ?, facts = ? WHERE id = ?",
            (job.state, job.ended, None if done else job.end.message, video, facts, job.id),
        )

    def _note(self, job: Job) -> None:
        if self._notes is not None:
            self._notes.note(job)

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            self._rows.execute(statement, values)
        except sqlite3.Error as error:
            self._mark(error)
            raise
        if self.trouble == BUSY:
            self.trouble = ""

    def _mark(self, error: sqlite3.Error) -> None:
        """Notes the `trouble`, in the log once for as long as it lasts."""
        if _is_elsewhere(error):
            trouble = BUSY
        elif any(words in str(error) for words in ("malformed", "not a database", "corrupt")):
            trouble = DAMAGED
        else:  # the question was at fault, such as a search too long for SQLite
            return
        if trouble != self.trouble:
            log.error("The table of jobs: %s (%s)", trouble, error)
        if self.trouble != DAMAGED:
            self.trouble = trouble

    def _recover(self) -> None:
        for job in list(self._read("WHERE state IN ('queued', 'running', 'interrupted') ORDER BY submitted, rowid")):
            self._live[job.id] = job
            if job.state == "running" and job.attempts >= ATTEMPTS:
                self._end(job.id, "failed", Failed(DIED))
            elif job.state == "running":
                self._set(job.id, state="interrupted", progress=None)
        self._tell_positions()

    def _read(self, where: str, *values: object) -> Iterator[Job]:
        try:
            rows = self._rows.execute(f"SELECT * FROM jobs {where}", values).fetchall()
        except sqlite3.Error as error:
            self._mark(error)
            raise
        for row in rows:
            end = None
            if row["state"] == "done":
                end = Result(Path(row["video"]), json.loads(row["facts"]))
            elif row["error"] is not None:
                end = Failed(row["error"], stopped=row["state"] == "cancelled")
            progress = None
            if end is None and row["stage"] is not None:
                progress = Progress(row["stage"], row["step"], row["total"])
            times = {name: row[name] for name in ("attempts", "submitted", "started", "ended")}
            rest = {"progress": progress, "end": end, "title": row["title"] or ""}
            yield Job(row["id"], row["owner"], recall(row["task"]), row["state"], **times, **rest)


def new_id() -> str:
    """What a job is called: nobody can guess it."""
    return secrets.token_hex(16)


def _counts(task: Task) -> bool:
    """Whether a waiting `task` is one of those of which there may be so many. A grid only waits for its videos."""
    return not isinstance(task, Grid)


def _said(name: str) -> str:
    """SQL for what a task says, or what that says which it finishes."""
    return f"coalesce(json_extract(task, '$.{name}'), json_extract(task, '$.of.{name}'))"


def _kind(job: Job) -> tuple[str, str]:
    return kind_of(job.task), job.task.model


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _open(file: Path, renew: Callable[[Iterable[str]], Mapping[str, str]]) -> sqlite3.Connection:
    """The only connection to `file`, which it keeps to itself for as long as it lives: there is one writer."""
    rows = None
    try:
        rows = sqlite3.connect(file, timeout=2, isolation_level=None, check_same_thread=False)
        rows.row_factory = sqlite3.Row
        rows.execute("PRAGMA locking_mode = EXCLUSIVE")
        rows.execute("PRAGMA journal_mode = WAL")
        rows.execute("PRAGMA synchronous = NORMAL")  # survives every crash of the app; the last second of a power cut
        rows.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        rows.execute("BEGIN IMMEDIATE")
        (version,) = rows.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise ValueError(f"{file} was written by a newer version of this app. Use that, or another data folder.")
        if version == 0:
            for statement in _SCHEMA.split(";\n"):
                rows.execute(statement)
            renew(())  # files may be older than a table that was lost
        for newer in range(version + 1, _VERSION + 1) if version else ():
            if newer == 3:
                try:
                    _renew(rows, renew)
                except (AttributeError, KeyError, TypeError, ValueError) as error:  # a row that makes no job
                    raise sqlite3.DatabaseError("a row can't be read") from error
            else:
                rows.execute(_NEWER[newer])
        if version < _VERSION:
            rows.execute(f"PRAGMA user_version = {_VERSION}")
        rows.execute("COMMIT")
        faults = [row[0] for row in rows.execute("PRAGMA quick_check(1)")]
        if faults != ["ok"]:
            raise sqlite3.DatabaseError(" ".join(faults[0].split()))
        if 0 < version < 3:  # nor do the parts of the file that are not in use hold an id
            rows.execute("VACUUM")
            rows.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except OSError as error:  # nothing is changed but the names of some owners, which are found again
        if rows is not None:
            rows.close()
        raise ValueError(f"The data beside {file} can't be brought up to date ({error}). Mend that first.") from error
    except (sqlite3.DatabaseError, ValueError) as error:
        if rows is not None:
            rows.close()
        if isinstance(error, sqlite3.DatabaseError):
            raise _unusable(file, error) from error
        raise
    return rows


def _unusable(file: Path, error: Exception) -> ValueError:
    """Why the table in `file` can't be used: Damaged, where the file itself is at fault."""
    if not isinstance(error, sqlite3.Error) or not _is_elsewhere(error):
        return Damaged(f"{file} is damaged ({error}).")
    return ValueError(
        f"The jobs in {file} can't be opened ({error}). If the app runs already with this data folder, "
        "end it first or set MARIONETTE_DATA to another folder."
    )


def _is_elsewhere(error: sqlite3.Error) -> bool:
    """Whether the disk, the folder's rights or another process is at fault, and not the file."""
    return any(words in str(error) for words in _ELSEWHERE)


def _renew(rows: sqlite3.Connection, renew: Callable[[Iterable[str]], Mapping[str, str]]) -> None:
    """Makes a table of version 3 of one of version 2: owners get new names, and facts lose the ids in them."""
    owners = [owner for (owner,) in rows.execute("SELECT DISTINCT owner FROM jobs")]
    rows.executemany("UPDATE jobs SET owner = ? WHERE owner = ?", [(new, old) for old, new in renew(owners).items()])
    for identifier, text in rows.execute("SELECT id, facts FROM jobs WHERE facts IS NOT NULL").fetchall():
        facts = json.loads(text)
        for task in (facts.get("task"), (facts.get("task") or {}).get("of")):
            for name in NAMED if task else ():
                if value := task.get(name):
                    task[name] = [NOBODY] * len(value) if isinstance(value, list) else NOBODY
        rows.execute("UPDATE jobs SET facts = ? WHERE id = ?", (json.dumps(facts), identifier))
