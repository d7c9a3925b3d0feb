"""What a job tells while it runs: plain data, one class an event. Standard library only."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.messages import said

DENOISING, TUNING, FINISHING = said("Denoising"), said("Tuning"), said("Finishing")
LAYING = said("Laying the videos side by side")
# A job spends nearly all of its time in one of these stages: what came before tells nothing of it.
LONGEST = frozenset({DENOISING, TUNING, FINISHING, LAYING})


@dataclass(frozen=True)
class Progress:
    """Step `step` of `total` of a stage is done.

    Where it can be told, `seconds_left` are those of the whole job, and `done` is the share of the whole job that is
    done, 0 to 1. Neither ever goes backwards.
    """

    stage: str  # words for a person: "Loading the model", "Denoising", "Waiting", …
    step: int
    total: int
    seconds_left: float | None = None
    done: float | None = None


@dataclass(frozen=True)
class Preview:
    """The video as it forms: a small animated WebP."""

    image: bytes


@dataclass(frozen=True)
class Losses:
    """The loss of every tuning step so far."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """The finished video file and the facts of its making (settings, seconds a stage, …), ready for JSON."""

    video: Path
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The job ended without a video. `message` says to a person what was wrong and what to do."""

    message: str
    stopped: bool = False  # True where somebody pressed Stop: an end, but no fault


Event = Progress | Preview | Losses | Result | Failed
