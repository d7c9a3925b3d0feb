"""The file of the job table: its schema, what brings an older file up to date, and what is wrong with a file.

Standard library only.
"""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines import messages
from pipelines.events import Failed, Progress, Result
from pipelines.messages import said
from pipelines.serving.job import STATES, Job
from pipelines.tasks import NAMED, NOBODY, recall, to_json

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
    title TEXT,
    favourite INTEGER NOT NULL DEFAULT 0,
    message TEXT
) STRICT;
CREATE INDEX jobs_of_owner ON jobs (owner, submitted);
CREATE INDEX jobs_in_state ON jobs (state, ended);
"""
_VERSION = 6  # of the schema, in the file's user_version; since 3 no row holds the id of a visitor
# What SQLite says where the disk, the folder's rights or another process is at fault, and not the file.
_ELSEWHERE = ("locked", "unable to open", "readonly", "disk is full", "disk I/O", "out of memory")
BUSY = said("not to be read or written for now")
DAMAGED = said("damaged, and is replaced when the app is started again")

log = logging.getLogger(__name__)


class Damaged(ValueError):
    """The file of the table is damaged, or is none of this app."""


class Rows:
    """The rows of one file, and every statement that reads or changes them. The caller keeps threads apart.

    `trouble` says what is wrong with the file: BUSY, DAMAGED or "". Every method raises sqlite3.Error where the file
    does not answer, and notes that as the trouble.
    """

    def __init__(self, file: Path, renew: Callable[[Iterable[str]], Mapping[str, str]]):
        """Opens or makes `file`. Raises Damaged for a file that is no table, ValueError where another process has it
        open, or a newer version of the app wrote it."""
        self.trouble = ""
        self.connection = _open(file, renew)

    def insert(self, job: Job) -> None:
        """Adds a job that waits."""
        self._write(
            "INSERT INTO jobs (id, owner, task, state, submitted) VALUES (?, ?, ?, ?, ?)",
            (job.id, job.owner, to_json(job.task), job.state, job.submitted),
        )

    def put(self, job: Job) -> None:
        """Adds a job in whatever state, in place of one with its id."""
        times = (job.submitted, job.started, job.ended)
        self._write(
            "INSERT OR REPLACE INTO jobs (id, owner, task, state, attempts, submitted, started, ended, error, "
            "message, video, facts, title, favourite) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*(job.id, job.owner, to_json(job.task), job.state, job.attempts), *times, *_ending(job))
            + (job.title, job.favourite),
        )

    def requeue(self, job: Job) -> None:
        """Has a job that had ended wait again."""
        self._write(
            "UPDATE jobs SET state = ?, attempts = 0, submitted = ?, started = NULL, ended = NULL, error = NULL, "
            "message = NULL WHERE id = ?",
            (job.state, job.submitted, job.id),
        )

    def note(self, job: Job) -> None:
        """Writes the state and the progress of a job that has not ended; of one that is to be paused that it is, for
        when the app is killed before its next step."""
        state = "paused" if job.pausing else job.state
        told = (job.progress.stage, job.progress.step, job.progress.total) if job.progress else (None, None, None)
        self._write(
            "UPDATE jobs SET state = ?, attempts = ?, started = ?, stage = ?, step = ?, total = ? WHERE id = ?",
            (state, job.attempts, job.started, *told, job.id),
        )

    def end(self, job: Job) -> None:
        """Writes how a job has ended."""
        self._write(
            "UPDATE jobs SET state = ?, ended = ?, error = ?, message = ?, video = ?, facts = ? WHERE id = ?",
            (job.state, job.ended, *_ending(job), job.id),
        )

    def move(self, job: Job) -> None:
        """Writes when a job was asked for, by which its turn comes."""
        self._write("UPDATE jobs SET submitted = ? WHERE id = ?", (job.submitted, job.id))

    def rename(self, identifier: str, title: str) -> None:
        self._write("UPDATE jobs SET title = ? WHERE id = ?", (title, identifier))

    def favour(self, identifier: str, favourite: bool) -> None:
        self._write("UPDATE jobs SET favourite = ? WHERE id = ?", (favourite, identifier))

    def delete(self, identifier: str) -> None:
        self._write("DELETE FROM jobs WHERE id = ?", (identifier,))

    def probe(self) -> None:
        """Writes what is there already: it tells whether the file can be written again."""
        self._write(f"PRAGMA user_version = {_VERSION}", ())

    def everything(self) -> list[Job]:
        return self._read("ORDER BY submitted, rowid")

    def get(self, identifier: str) -> Job | None:
        return next(iter(self._read("WHERE id = ?", identifier)), None)

    def unfinished(self) -> list[Job]:
        """The jobs that wait, are paused, or ran when the app died, oldest first."""
        return self._read("WHERE state IN ('queued', 'running', 'interrupted', 'paused') ORDER BY submitted, rowid")

    def finished(
        self, owner: str | None, search: str, limit: int, offset: int, kind: str, favourites: bool
    ) -> list[Job]:
        """The videos, newest first: of `owner`, or of everybody for None; of a `kind` of task, or of any for ""; those
        whose prompts hold every word of `search`; all or only the `favourites`."""
        where, values = "WHERE state = 'done' AND json_extract(task, '$.task') != 'tune'", []
        if kind:
            where, values = f"{where} AND json_extract(task, '$.task') = ?", [kind]
        if owner is not None:
            where, values = f"{where} AND owner = ?", [*values, owner]
        if favourites:
            where += " AND favourite"
        for word in search.split():
            where += rf" AND {_said('prompt')} LIKE ? ESCAPE '\'"
            values.append("%" + "".join(f"\\{letter}" if letter in r"\%_" else letter for letter in word) + "%")
        return self._read(f"{where} ORDER BY ended DESC, rowid DESC LIMIT ? OFFSET ?", *values, limit, offset)

    def tunings(self, owner: str | None) -> list[Job]:
        """The tunings that have ended in whatever way, newest first: of `owner`, or of everybody for None."""
        where, values = "WHERE ended IS NOT NULL AND json_extract(task, '$.task') = 'tune'", []
        if owner is not None:
            where, values = f"{where} AND owner = ?", [owner]
        return self._read(f"{where} ORDER BY ended DESC, rowid DESC", *values)

    def served(self) -> set[str]:
        """The owners for whom a job has been done."""
        return {owner for (owner,) in self.connection.execute("SELECT DISTINCT owner FROM jobs WHERE state = 'done'")}

    def used(self, since: float) -> list[tuple[str, float, float]]:
        """Owner, end and seconds of every job that has run and ended after `since`."""
        ran = "SELECT owner, ended, ended - started FROM jobs WHERE started IS NOT NULL AND ended > ?"
        return self.connection.execute(ran, (since,)).fetchall()

    def usual_seconds(self, kind: str, model: str) -> float | None:
        """How long the latest jobs of a `kind` took `model` on average; None if there are none."""
        taken = (
            "SELECT ended - started AS seconds FROM jobs WHERE state = 'done' AND json_extract(task, '$.task') = ? "
            f"AND {_said('model')} = ? ORDER BY ended DESC LIMIT 10"
        )
        return self._fetch(f"SELECT avg(seconds) FROM ({taken})", (kind, model))[0][0]

    def close(self) -> None:
        self.connection.close()

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        self._fetch(statement, values)
        if self.trouble == BUSY:
            self.trouble = ""

    def _fetch(self, statement: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        try:
            return self.connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._mark(error)
            raise

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

    def _read(self, where: str, *values: object) -> list[Job]:
        return [_job(row) for row in self._fetch(f"SELECT * FROM jobs {where}", values)]


def unusable(file: Path, error: Exception) -> ValueError:
    """Why the table in `file` can't be used: Damaged, where the file itself is at fault."""
    if not isinstance(error, sqlite3.Error) or not _is_elsewhere(error):
        return Damaged(f"{file} is damaged ({error}).")
    return ValueError(
        f"The jobs in {file} can't be opened ({error}). If the app runs already with this data folder, "
        "end it first or set MARIONETTE_DATA to another folder."
    )


def _job(row: sqlite3.Row) -> Job:
    end = None
    if row["state"] == "done":
        end = Result(Path(row["video"]), json.loads(row["facts"]))
    elif row["error"] is not None:
        message = messages.from_json(row["error"], json.loads(row["message"] or "null"))
        end = Failed(message, stopped=row["state"] == "cancelled")
    progress = None
    if end is None and row["stage"] is not None:
        progress = Progress(row["stage"], row["step"], row["total"])
    times = {name: row[name] for name in ("attempts", "submitted", "started", "ended")}
    job = Job(row["id"], row["owner"], recall(row["task"]), row["state"], **times, progress=progress, end=end)
    return replace(job, title=row["title"] or "", favourite=bool(row["favourite"]))


def _ending(job: Job) -> tuple[str | None, str | None, str | None, str | None]:
    """Error, what its message is made of, video and facts, as a row holds them."""
    match job.end:
        case Result(video, facts):
            return None, None, str(video), json.dumps(facts)
        case Failed(message):
            return message, json.dumps(messages.to_json(message)), None, None
    return None, None, None, None


def _said(name: str) -> str:
    """SQL for what a task says, or what that says which it finishes."""
    return f"coalesce(json_extract(task, '$.{name}'), json_extract(task, '$.of.{name}'))"


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
        elif version < _VERSION:
            _rebuild(rows)
        if 0 < version < 3:
            try:
                _renew(rows, renew)
            except (AttributeError, KeyError, TypeError, ValueError) as error:  # a row that makes no job
                raise sqlite3.DatabaseError("a row can't be read") from error
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
            raise unusable(file, error) from error
        raise
    return rows


def _is_elsewhere(error: sqlite3.Error) -> bool:
    """Whether the disk, the folder's rights or another process is at fault, and not the file."""
    return any(words in str(error) for words in _ELSEWHERE)


def _rebuild(rows: sqlite3.Connection) -> None:
    """Makes a table as the schema says of an older one, with all its rows: SQLite can't change a CHECK in place."""
    table, *indexes = _SCHEMA.split(";\n")
    rows.execute("ALTER TABLE jobs RENAME TO older")
    rows.execute(table)
    older, newer = ([one["name"] for one in rows.execute(f"PRAGMA table_info({name})")] for name in ("older", "jobs"))
    kept = ", ".join(["rowid", *(name for name in older if name in newer)])
    rows.execute(f"INSERT INTO jobs ({kept}) SELECT {kept} FROM older")
    rows.execute("DROP TABLE older")
    for statement in indexes:
        rows.execute(statement)


def _renew(rows: sqlite3.Connection, renew: Callable[[Iterable[str]], Mapping[str, str]]) -> None:
    """Makes a table of version 3 of one of version 2: owners get new names, and facts lose the ids in them."""
    owners = [owner for (owner,) in rows.execute("SELECT DISTINCT owner FROM jobs")]
    rows.executemany("UPDATE jobs SET owner = ? WHERE owner = ?", [(new, old) for old, new in renew(owners).items()])
    for identifier, text in rows.execute("SELECT id, facts FROM jobs WHERE facts IS NOT NULL").fetchall():
        facts = json.loads(text)
        for task in (facts.get("task") or {}, (facts.get("task") or {}).get("of") or {}):
            for name in NAMED:
                if value := task.get(name):
                    task[name] = [NOBODY] * len(value) if isinstance(value, list) else NOBODY
        rows.execute("UPDATE jobs SET facts = ? WHERE id = ?", (json.dumps(facts), identifier))
