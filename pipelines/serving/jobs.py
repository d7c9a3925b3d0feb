"""The job table in SQLite: what survives a closed page, a crash and a restart. Standard library only.

Queued, running and interrupted jobs are also kept in memory, with what only matters while they last: the latest
progress and preview. Every change is written to the file first.
"""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.events import Event, Failed, Losses, Preview, Progress, Result
from pipelines.tasks import Grid, Task, kind_of, recall, to_json

ATTEMPTS = 2  # a job under which the app died twice is not tried a third time
UNKNOWN = "There is no such job here. It may have been deleted."
EVERYBODY = object()  # in place of an owner, and nothing that a browser could send: None and "" own nothing
DIED = "The app was ended from outside twice while it made this video. It may need more memory: try fewer frames."

_SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    task TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'interrupted')),
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
_VERSION = 2  # of the schema, in the file's user_version
_NEWER = {2: "ALTER TABLE jobs ADD COLUMN title TEXT"}  # version -> what makes it of the one before


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


@dataclass(frozen=True)
class Limits:
    """How many jobs may wait."""

    queue: int  # of all owners together
    each: int  # of one owner


class JobTable:
    """Jobs by id. Every method is one indivisible step and may be called from any thread."""

    def __init__(self, file: Path, limits: Limits, clock: Callable[[], float] = time.time):
        """Opens or makes the table in `file`; jobs that ran when the app died wait again, or have failed for good.

        Raises ValueError where another process has it open, or a newer version of the app wrote it.
        """
        self._limits = limits
        self._clock = clock
        self._changed = threading.Condition()
        self._noted = 0.0  # when progress was last written to the file
        file.parent.mkdir(parents=True, exist_ok=True)
        self._rows = _open(file)
        self._live: dict[str, Job] = {}  # jobs that have not ended, oldest first
        begun = "SELECT owner, max(started) FROM jobs WHERE started IS NOT NULL GROUP BY owner"
        self._served: dict[str, float] = dict(self._rows.execute(begun))  # when an owner's turn was last
        with self._changed:
            self._recover()

    def add(self, task: Task, owner: str) -> Job:
        """A new waiting job. Raises ValueError where too many wait already."""
        (job,) = self.add_all({new_id(): task}, owner)
        return job

    def add_all(self, tasks: Mapping[str, Task], owner: str) -> list[Job]:
        """New waiting jobs, by the ids that they are to have: all of them or, with a ValueError, none."""
        with self._changed:
            self._check_room(owner, sum(_counts(task) for task in tasks.values()))
            for identifier, task in tasks.items():
                job = Job(identifier, owner, task, submitted=self._clock())
                self._rows.execute(
                    "INSERT INTO jobs (id, owner, task, state, submitted) VALUES (?, ?, ?, ?, ?)",
                    (job.id, owner, to_json(task), job.state, job.submitted),
                )
                self._live[job.id] = job
            self._tell_positions()
            return [self._live[identifier] for identifier in tasks]

    def get(self, identifier: str, owner: object = EVERYBODY) -> Job:
        """The job as it is now. Raises ValueError for an unknown one, or one of somebody else than `owner`."""
        with self._changed:
            job = self._live.get(identifier) or next(self._read("WHERE id = ?", str(identifier)), None)
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

    def again(self, identifier: str) -> None:
        """Queues a job that was stopped or has failed once more. Raises ValueError as `add` does."""
        with self._changed:
            job = self.get(identifier)
            if not isinstance(job.end, Failed):
                raise ValueError("Only what was stopped or has failed can be resumed.")
            self._check_room(job.owner, 1)
            job = Job(job.id, job.owner, job.task, submitted=self._clock(), title=job.title)
            self._rows.execute(
                "UPDATE jobs SET state = ?, attempts = 0, submitted = ?, started = NULL, ended = NULL, error = NULL "
                "WHERE id = ?",
                (job.state, job.submitted, job.id),
            )
            self._live[job.id] = job
            self._tell_positions()

    def rename(self, identifier: str, title: str) -> None:
        """Notes what the owner calls a job."""
        with self._changed:
            self._rows.execute("UPDATE jobs SET title = ? WHERE id = ?", (title, identifier))
            if identifier in self._live:
                self._live[identifier] = replace(self._live[identifier], title=title)

    def take(self, seconds: float) -> Job | None:
        """The job whose turn it is, running from now on; None if there was none for `seconds`.

        Of one owner only one job runs at a time.
        """
        with self._changed:
            if not self._changed.wait_for(self._ready, seconds):
                return None
            job = self._ready()[0]
            now = self._clock()
            self._served[job.owner] = now
            self._set(job.id, state="running", attempts=job.attempts + 1, started=now, progress=None)
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
            attempts = self._live[identifier].attempts - 1
            self._set(identifier, state="interrupted", attempts=attempts, progress=None, preview=None)

    def delete(self, identifier: str) -> None:
        """Forgets a job that has ended."""
        with self._changed:
            if identifier in self._live:
                raise ValueError("This video is still being made. Stop it first.")
            self._rows.execute("DELETE FROM jobs WHERE id = ?", (identifier,))

    def wait(self, job: Job, seconds: float) -> Job:
        """The job as it is now, as soon as that is not the given `job` any more, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._live.get(job.id) is not job, seconds)
        return self.get(job.id)

    def close(self) -> None:
        with self._changed:
            self._rows.close()

    def _check_room(self, owner: str, new: int) -> None:
        waiting = [job for job in self._live.values() if job.waits and _counts(job.task)]
        mine = sum(job.owner == owner for job in waiting)
        if new > self._limits.each:
            raise ValueError(f"That makes {new} videos, and {self._limits.each} of yours may wait. Ask for fewer.")
        if mine + new > self._limits.each:
            raise ValueError(f"{mine} videos of yours are waiting already. Wait for one, or stop one.")
        if len(waiting) + new > self._limits.queue:
            raise ValueError(f"{len(waiting)} videos are waiting already. Try again in a few minutes.")

    def _ready(self) -> list[Job]:
        busy = {job.owner for job in self._live.values() if job.state == "running"}
        return [job for job in self._turns() if job.owner not in busy]

    def _turns(self) -> list[Job]:
        """The waiting jobs in the order in which they will run if nobody else comes: owner after owner.

        An owner's place counts from when they were last served or from when they asked, whichever is later: nobody
        who comes later can pass, so that nobody starves.
        """
        rounds: dict[str, int] = {}  # owner -> how many of their jobs come before
        keys = {}
        for job in self._live.values():
            if job.waits:
                keys[job.id] = (rounds.get(job.owner, 0), max(self._served.get(job.owner, 0.0), job.submitted))
                rounds[job.owner] = rounds.get(job.owner, 0) + 1
        return [self._live[identifier] for identifier in sorted(keys, key=keys.__getitem__)]

    def _tell_positions(self) -> None:
        order = self._turns()
        usual = {kind: self._usual_seconds(*kind) for kind in set(map(_kind, self._live.values()))}
        ahead: float | None = 0.0
        for job in self._live.values():
            if job.state == "running":
                left = job.progress.seconds_left if job.progress else None
                ahead = _sum(ahead, usual[_kind(job)] if left is None else left)
        for position, job in enumerate(order, 1):
            progress = Progress("Waiting", position, len(order), ahead)
            if job.progress != progress:
                self._live[job.id] = replace(job, progress=progress)
            ahead = _sum(ahead, usual[_kind(job)])
        self._changed.notify_all()

    def _usual_seconds(self, kind: str, model: str) -> float | None:
        """How long the latest jobs of a kind took `model` on average; None if there are none."""
        taken = (
            "SELECT ended - started AS seconds FROM jobs WHERE state = 'done' AND json_extract(task, '$.task') = ? "
            f"AND {_said('model')} = ? ORDER BY ended DESC LIMIT 10"
        )
        return self._rows.execute(f"SELECT avg(seconds) FROM ({taken})", (kind, model)).fetchone()[0]

    def _set(self, identifier: str, **changes) -> None:
        """Changes a job that has not ended. Previews are not written, progress about once a second."""
        before = self._live[identifier]
        job = replace(before, **changes)
        now = self._clock()
        if job.state != before.state or job.progress is not before.progress and now - self._noted > 1:
            self._noted = now
            progress = job.progress or Progress(None, None, None)
            self._rows.execute(
                "UPDATE jobs SET state = ?, attempts = ?, started = ?, stage = ?, step = ?, total = ? WHERE id = ?",
                (job.state, job.attempts, job.started, progress.stage, progress.step, progress.total, identifier),
            )
        self._live[identifier] = job
        self._changed.notify_all()

    def _end(self, identifier: str, state: str, end: Result | Failed) -> Job:
        job = replace(self._live[identifier], state=state, ended=self._clock(), end=end)
        job = replace(job, progress=None, preview=None, losses=None)
        video, facts = (str(end.video), json.dumps(end.facts)) if isinstance(end, Result) else (None, None)
        error = end.message if isinstance(end, Failed) else None
        self._rows.execute(
            "UPDATE jobs SET state = ?, ended = ?, error = ?, video = ?, facts = ? WHERE id = ?",
            (state, job.ended, error, video, facts, identifier),
        )
        del self._live[identifier]
        self._changed.notify_all()
        return job

    def _recover(self) -> None:
        for job in list(self._read("WHERE state IN ('queued', 'running', 'interrupted') ORDER BY submitted, rowid")):
            self._live[job.id] = job
            if job.state == "running" and job.attempts >= ATTEMPTS:
                self._end(job.id, "failed", Failed(DIED))
            elif job.state == "running":
                self._set(job.id, state="interrupted", progress=None)
        self._tell_positions()

    def _read(self, where: str, *values: object) -> Iterator[Job]:
        for row in self._rows.execute(f"SELECT * FROM jobs {where}", values):
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


def _open(file: Path) -> sqlite3.Connection:
    """The only connection to `file`, which it keeps to itself for as long as it lives: there is one writer."""
    rows = sqlite3.connect(file, timeout=2, isolation_level=None, check_same_thread=False)
    rows.row_factory = sqlite3.Row
    try:
        rows.execute("PRAGMA locking_mode = EXCLUSIVE")
        rows.execute("PRAGMA journal_mode = WAL")
        rows.execute("PRAGMA synchronous = NORMAL")  # survives every crash of the app; the last second of a power cut
        rows.execute("BEGIN IMMEDIATE")
        (version,) = rows.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA.split(";\n"):
                rows.execute(statement)
        for newer in range(version + 1, _VERSION + 1) if version else ():
            rows.execute(_NEWER[newer])
        if version < _VERSION:
            rows.execute(f"PRAGMA user_version = {_VERSION}")
        rows.execute("COMMIT")
    except sqlite3.OperationalError as error:
        rows.close()
        raise ValueError(
            f"The jobs in {file} can't be opened ({error}). If the app runs already with this data folder, "
            "end it first or set MARIONETTE_DATA to another folder."
        ) from error
    except sqlite3.DatabaseError as error:
        rows.close()
        raise ValueError(f"{file} is damaged ({error}). Move it away; the videos beside it stay.") from error
    if version > _VERSION:
        rows.close()
        raise ValueError(f"{file} was written by a newer version of this app. Use that, or another data folder.")
    return rows
