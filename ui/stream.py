"""Following a job: the backend's events, gathered into what the page shows at one moment."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipelines.events import DENOISING, TUNING, Failed, Losses, Preview, Progress, Result
from pipelines.messages import said
from pipelines.serving.backend import Backend
from ui.languages import tell

LOOPS = (DENOISING, TUNING, "Inverting the clip")  # stages of which what is done is kept
UNITS = {  # stage -> how its steps are counted
    **dict.fromkeys(LOOPS, said("step {number} of {total}")),
    **dict.fromkeys(("Decoding", "Finding people", "Looking at the poses"), said("frame {number} of {total}")),
}
WAITING = "Waiting"  # the stage of a job in the queue: its step is its place there


@dataclass(frozen=True)
class Moment:
    """A job as it stands: the latest of each kind of event. It is over once it has an `end`."""

    progress: Progress | None = None
    preview: Preview | None = None
    losses: Losses | None = None
    end: Result | Failed | None = None
    of: tuple[int, int] = (1, 1)  # which of several jobs it is
    paused: bool = False


def follow(backend: Backend, job: str, owner: str) -> Iterator[Moment | None]:
    """The moments of `job` up to its end; None after a quarter of a second in which nothing happened.

    Whoever stops listening only stops listening: the job goes on. Raises ValueError for an unknown job.
    """
    moment = Moment()
    for event in backend.jobs.events(job, owner):
        match event:
            case None:
                yield None
                continue
            case Progress():
                moment = replace(moment, progress=event)
            case Preview():
                moment = replace(moment, preview=event)
            case Losses():
                moment = replace(moment, losses=event)
            case Result() | Failed():
                moment = replace(moment, end=event)
        yield moment


def describe(progress: Progress) -> str:
    """One line for a person: the stage, how far it is, and the time left where it can be told."""
    left = progress.seconds_left
    if progress.stage == WAITING:
        first = progress.step == 1
        place = tell("Your video is next") if first else tell("Place {number} in the queue", number=progress.step)
        return f"{place} · {tell('its turn comes in {time}', time=about(left))}" if left else place
    parts = [tell(progress.stage)]
    if progress.total > 999:  # bytes
        parts.append(f"{100 * progress.step / progress.total:.0f}%")
    elif progress.total > 1:
        counted = UNITS.get(progress.stage, "{number} of {total}")
        parts.append(tell(counted, number=progress.step, total=progress.total))
    if left is not None:
        parts.append(tell("{time} left", time=about(left)))
    return " · ".join(parts)


def where_paused(progress: Progress | None) -> str:
    """One line for a person on a paused job: what Resume will do."""
    if progress is None or progress.stage not in LOOPS:
        return tell("Paused. Resume puts it back in the queue.")
    at = {"number": progress.step, "total": progress.total}
    return tell("Paused at step {number} of {total}. Resume goes on from there.", **at)


def about(seconds: float) -> str:
    """A time in words, as precise as an estimate is."""
    if seconds < 1.5:
        return tell("about a second")
    if seconds < 90:
        return tell("about {count:.0f} s", count=seconds)
    if seconds < 90 * 60:
        return tell("about {count:.0f} min", count=seconds / 60)
    if seconds < 48 * 3600:
        return tell("about {count:.1f} h", count=seconds / 3600)
    return tell("about {count:.0f} days", count=seconds / 86400)
