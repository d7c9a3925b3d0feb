"""A sidecar beside every job's files, `job.json`: what the job table knows of the job, for when that table is lost.

Standard library only. A sidecar is written whole (fsync, then rename) when its job is added, paused, resumed, renamed
or ends.
"""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from pipelines import messages
from pipelines.events import Failed, Result
from pipelines.serving.job import STATES, Job
from pipelines.tasks import Tune, recall, to_json

NAME = "job.json"
DELETED = "deleted"  # in place of a state: the job's files are being deleted

log = logging.getLogger(__name__)


class Sidecars:
    """The sidecars in `folder`, which has a folder for each job, named by its id."""

    def __init__(self, folder: Path):
        self._folder = folder

    def note(self, job: Job) -> None:
        """Writes what is known of `job`, or removes the sidecar of a job that ended and left nothing to keep.

        A failure is logged and harms no job: `recovery` writes what is missing at the next start.
        """
        folder = self._folder / job.id
        try:
            if isinstance(job.end, Failed) and not isinstance(job.task, Tune):
                (folder / NAME).unlink(missing_ok=True)
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            else:
                self._write(job.id, _described(job))
        except OSError as error:
            log.warning("The sidecar of job %s was not written: %s", job.id, error.strerror)

    def bury(self, job: str) -> None:
        """Notes that the files of `job` are being deleted, so that an interrupted deletion is completed later."""
        if (self._folder / job).is_dir():
            try:
                self._write(job, {"id": job, "state": DELETED})
            except OSError:  # a full disk: then nothing is left by which the job could be taken in again
                (self._folder / job / NAME).unlink(missing_ok=True)

    def is_buried(self, job: str) -> bool:
        """Whether the files of `job` were being deleted when the app ended."""
        return (self._content(job) or {}).get("state") == DELETED

    def matches(self, job: Job) -> bool:
        """Whether the sidecar of `job` says what the table does."""
        return self._content(job.id) == json.loads(json.dumps(_described(job)))

    def read(self, job: str) -> Job | None:
        """The job as its sidecar has it; None where that is missing or damaged, or where its video is gone."""
        content = self._content(job)
        if content is None or content.get("id") != job or content.get("state") not in STATES:
            return None
        try:
            return self._job(content)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            return None

    def _job(self, content: dict[str, Any]) -> Job:
        task = recall(json.dumps(content["task"]))
        end: Result | Failed | None = None
        if content["state"] == "done":
            video = self._folder / content["id"] / Path(content["video"]).name
            if not video.is_file() and not isinstance(task, Tune):
                raise ValueError("the video is gone")
            end = Result(video, dict(content["facts"]))
        elif content["state"] in ("failed", "cancelled"):
            message = messages.from_json(str(content["error"]), content.get("message"))  # older ones lack it
            end = Failed(message, stopped=content["state"] == "cancelled")
        times = {name: content[name] and float(content[name]) for name in ("submitted", "started", "ended")}
        if end is not None and times["ended"] is None:
            raise ValueError("a job that has ended has a time for that")
        rest = {"title": str(content["title"]), "favourite": content.get("favourite") is True}  # older ones lack it
        state, attempts = content["state"], int(content["attempts"])
        return Job(content["id"], str(content["owner"]), task, state, attempts, **times, end=end, **rest)

    def _content(self, job: str) -> dict[str, Any] | None:
        try:
            content = json.loads((self._folder / job / NAME).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def _write(self, job: str, content: dict[str, Any]) -> None:
        folder = self._folder / job
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{NAME}.part"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(content, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(folder / NAME)
        finally:
            temporary.unlink(missing_ok=True)


def _described(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "owner": job.owner,
        "task": json.loads(to_json(job.task)),
        # What only lasts while the app runs is not kept: a job that runs is, once the app is gone, one that waits.
        "state": job.state if job.end or job.paused else "queued",
        "attempts": job.attempts if job.end else 0,
        "submitted": job.submitted,
        "started": job.started if job.end else None,
        "ended": job.ended,
        "title": job.title,
        "favourite": job.favourite,
        "video": job.end.video.name if isinstance(job.end, Result) else None,
        "facts": job.end.facts if isinstance(job.end, Result) else None,
        "error": job.end.message if isinstance(job.end, Failed) else None,
        "message": messages.to_json(job.end.message) if isinstance(job.end, Failed) else None,
    }


def clear(folder: Path) -> None:
    """Deletes a job's folder, its sidecar last: interrupted, it is known for what it was."""
    for path in [*folder.iterdir()] if folder.is_dir() and not folder.is_symlink() else []:
        if path.name != NAME:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else _unlink(path)
    shutil.rmtree(folder, ignore_errors=True)


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        log.warning("A file of job %s was not deleted: %s", path.parent.name, error.strerror)
