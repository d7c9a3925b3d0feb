"""A job: what somebody asked for and how far it is. Standard library only."""

import secrets
from dataclasses import dataclass, replace

from pipelines.events import Event, Failed, Losses, Preview, Progress, Result
from pipelines.tasks import Finish, Grid, Task, Tune

STATES = ("queued", "running", "done", "failed", "cancelled", "interrupted", "paused")


@dataclass(frozen=True)
class Job:
    """One row: a picture of the job at one moment, never changed."""

    id: str
    owner: str  # whose it is: nobody else hears of it
    task: Task
    state: str = "queued"  # one of STATES; "interrupted" is queued again after a crash
    attempts: int = 0  # how often it was begun
    submitted: float = 0.0  # seconds since 1970, like the others
    started: float | None = None
    ended: float | None = None
    stopping: bool = False  # somebody pressed Stop while it ran
    pausing: bool = False  # likewise Pause
    progress: Progress | None = None
    preview: Preview | None = None
    end: Result | Failed | None = None
    title: str = ""  # what its owner calls it
    favourite: bool = False  # whether its owner likes it best
    losses: Losses | None = None  # of a tuning
    expected: float | None = None  # seconds that it will take once its turn has come, while it waits; roughly

    @property
    def waits(self) -> bool:
        """Whether its turn is to come."""
        return self.state in ("queued", "interrupted")

    @property
    def runs(self) -> bool:
        return self.state == "running"

    @property
    def paused(self) -> bool:
        """Whether it is set aside until its owner resumes it."""
        return self.state == "paused"

    @property
    def result(self) -> Result:
        """What a job made; only for one whose state is "done"."""
        assert isinstance(self.end, Result), f"a job that is {self.state} has made nothing"
        return self.end

    @property
    def made(self) -> Task:
        """The task as it came out: of a clip that was too short, with fewer frames than were asked for."""
        facts = self.result.facts
        match self.task:
            case Finish(of=of) if of is not None:
                frames = facts.get("from", {}).get("frames", of.frames)
                return replace(self.task, of=replace(of, frames=frames))
            case Finish() | Grid() | Tune():
                return self.task
            case task:  # the frames of videos from before those were told for themselves are told with the poses
                frames = facts.get("frames", facts.get("poses", {}).get("frames", task.frames))
                return replace(task, frames=frames)

    @property
    def events(self) -> tuple[Event, ...]:
        """The latest of each kind, in the order in which they are told."""
        return tuple(event for event in (self.progress, self.preview, self.losses, self.end) if event is not None)


def new_id() -> str:
    """What a job is called: nobody can guess it."""
    return secrets.token_hex(16)
