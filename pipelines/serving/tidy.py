"""What is too old, or too much, among the data is deleted: round by round, a share at a time."""

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.errors import log_error
from pipelines.serving.ages import Ages
from pipelines.serving.job import Job
from pipelines.settings import Settings
from pipelines.tasks import NAMED

FIRST_SECONDS = 300.0  # so long after the start of the app nothing is deleted
ROUND_SECONDS = 600.0  # from one round to the next
SOON_SECONDS = 60.0  # the same, where a round has left something to be deleted
SHARE = 10  # a round deletes one in so many things of a kind, and at least one
NEW_SECONDS = 600.0  # an upload or a temporary file younger than this is in use
TEMPORARY_DAYS = 1.0  # a temporary file older than this is deleted

Deleting = Callable[[str], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Thing:
    """Something among the data that may be deleted on its own."""

    kind: str  # "videos", "clips", "images", "texts", "temp"
    name: str
    path: Path
    made: float  # by the system's clock; orders what was first seen at the same time
    keep_days: float
    held: bool  # in use, shown, or needed by a job that waits
    delete: Callable[[], None]


class Tidy:
    """Deletes the oldest of `things` as the settings for old videos say."""

    def __init__(self, settings: Settings, ages: Ages, things: Callable[[], Iterable[Thing]]):
        self._settings, self._ages, self._things = settings, ages, things

    def round(self) -> bool:
        """Deletes some things; returns whether there are more to be deleted soon.

        A thing goes when the app has seen it age, or when all together are larger than they may be, the oldest of all
        first. What can't be deleted is left for the next round.
        """
        things = {f"{thing.kind}/{thing.name}": thing for thing in self._things()}
        ages = self._ages.see(things)
        sizes = {name: size(thing.path) for name, thing in things.items()}
        excess = sum(sizes.values()) - self._settings.keep_gb * 1e9
        going = []
        for name, thing in sorted(things.items(), key=lambda item: (-ages[item[0]], item[1].made)):
            if not thing.held and (excess > 0 or ages[name] > thing.keep_days * 86_400):
                excess -= sizes[name]
                going.append(thing)
        left = Counter(thing.kind for thing in things.values())
        left = Counter({kind: max(1, count // SHARE) for kind, count in left.items()})
        more = False
        for thing in going:
            if left[thing.kind] == 0:
                more = True
                continue
            left[thing.kind] -= 1
            try:
                thing.delete()
                log.info("%s %s is deleted, as the settings for old videos say", thing.kind, thing.name)
            except Exception as error:  # the others can be deleted all the same
                log_error(error, f"Deleting {thing.kind} {thing.name}", [], undone="it is still there")
        return more


def size(path: Path) -> int:
    """Bytes of the file `path`, or of all files in a folder; what disappears meanwhile counts for nothing."""
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
        with os.scandir(path) as entries:
            return sum(size(Path(entry.path)) for entry in entries)
    except OSError:
        return 0


def made(path: Path) -> float:
    """When `path` was last changed, in seconds since 1970; 0 where it has disappeared."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def temporary(settings: Settings) -> list[Thing]:
    """The temporary files among the data, and what browsers uploaded."""
    paths = [*_listed(settings.data / "temp"), *_listed(settings.uploads)]
    return [
        Thing(
            "temp",
            str(path.relative_to(settings.data)),
            path,
            made(path),
            TEMPORARY_DAYS,
            is_new(path),
            partial(_remove, path),
        )
        for path in paths
    ]


def texts(settings: Settings) -> list[Thing]:
    """What text encoders have read of prompts (models/text_states.py)."""
    return [
        Thing("texts", path.name, path, made(path), settings.keep_days, is_new(path), partial(_remove, path))
        for path in _listed(settings.texts)
    ]


def uploads(
    kind: str, folder: Path, owners: Mapping[str, str], needed: set[str], days: float, delete: Deleting
) -> list[Thing]:
    """The clips or images in `folder`, by name and owner; what is not whole, owned by "", counts as temporary."""
    return [
        Thing(
            kind,
            name,
            path := folder / name,
            made(path),
            days if owner else TEMPORARY_DAYS,
            name in needed or is_new(path),
            partial(delete, name),
        )
        for name, owner in owners.items()
    ]


def is_new(path: Path) -> bool:
    """Whether somebody may just be using what was uploaded or written: it is not the first to go."""
    return abs(time.time() - made(path)) < NEW_SECONDS


def needed(unfinished: Iterable[Job]) -> set[str]:
    """The names of all clips, images and jobs that the `unfinished` jobs work on; a paused one holds nothing."""
    tasks = [job.task for job in unfinished if not job.paused]
    names = {getattr(task, field, "") for task in tasks for field in NAMED if field != "jobs"}
    return names | {name for task in tasks for name in getattr(task, "jobs", ())}


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
