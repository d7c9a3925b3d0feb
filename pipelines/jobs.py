"""The job table: every job, what state it is in and the latest news of it. In memory; standard library only."""

import secrets
import threading
from dataclasses import dataclass, replace

from pipelines.events import Event, Failed, Preview, Progress, Result
from pipelines.tasks import Task


@dataclass(frozen=True)
class Job:
    """One row: a picture of the job at one moment, never changed."""

    id: str
    task: Task
    state: str = "waiting"  # "waiting", "running" or "ended"
    stopping: bool = False  # somebody pressed Stop while it ran
    progress: Progress | None = None
    preview: Preview | None = None
    end: Result | Failed | None = None

    @property
    def events(self) -> tuple[Event, ...]:
        """The latest of each kind, in the order in which they are told."""
        return tuple(event for event in (self.progress, self.preview, self.end) if event is not None)


class JobTable:
    """Jobs by id. Every method is one indivisible step and may be called from any thread."""

    def __init__(self, limit: int):
        self._limit = limit  # jobs that may wait
        self._jobs: dict[str, Job] = {}  # oldest first
        self._changed = threading.Condition()

    def add(self, task: Task) -> Job:
        """A new waiting job. Raises ValueError where too many wait already."""
        with self._changed:
            if len(self._waiting()) >= self._limit:
                raise ValueError(f"{self._limit} videos are waiting already. Try again in a few minutes.")
            identifier = secrets.token_hex(16)
            self._jobs[identifier] = Job(identifier, task)
            self._tell_positions()
            return self._jobs[identifier]

    def get(self, identifier: str) -> Job:
        """The job as it is now. Raises ValueError for an unknown one."""
        job = self._jobs.get(identifier)
        if job is None:
            raise ValueError("There is no such job here. It may be from before the app was started anew.")
        return job

    def all(self) -> list[Job]:
        """All jobs, oldest first."""
        with self._changed:
            return list(self._jobs.values())

    def take(self, seconds: float) -> Job | None:
        """The job that has waited longest, running from now on; None if there was none for `seconds`."""
        with self._changed:
            if not self._changed.wait_for(self._waiting, seconds):
                return None
            job = self._waiting()[0]
            self._set(job.id, state="running", progress=None)
            self._tell_positions()
            return self._jobs[job.id]

    def tell(self, identifier: str, event: Event) -> Job:
        """Notes `event`; a Result or Failed ends the job. Returns the job, for a look at `stopping`."""
        with self._changed:
            match event:
                case Progress():
                    self._set(identifier, progress=event)
                case Preview():
                    self._set(identifier, preview=event)
                case Result() | Failed():
                    self._set(identifier, state="ended", preview=None, end=event)
            return self._jobs[identifier]

    def stop(self, identifier: str, message: str) -> None:
        """Ends a waiting job with `message` and marks a running one to be stopped."""
        with self._changed:
            state = self.get(identifier).state
            if state == "waiting":
                self._set(identifier, state="ended", end=Failed(message, stopped=True))
                self._tell_positions()
            elif state == "running":
                self._set(identifier, stopping=True)

    def wait(self, job: Job, seconds: float) -> Job:
        """The job as it is now, as soon as that is not the given `job` any more, or after `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs[job.id] is not job, seconds)
            return self._jobs[job.id]

    def _waiting(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.state == "waiting"]

    def _tell_positions(self) -> None:
        waiting = self._waiting()
        for position, job in enumerate(waiting, 1):
            self._set(job.id, progress=Progress("Waiting", position, len(waiting)))

    def _set(self, identifier: str, **changes) -> None:
        self._jobs[identifier] = replace(self._jobs[identifier], **changes)
        self._changed.notify_all()
