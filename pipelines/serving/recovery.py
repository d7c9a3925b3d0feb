"""What happens to the data when the app starts: a damaged table is put aside, and what it lost is taken in again.

Nothing is deleted here but what the table or a sidecar says is to be deleted.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path

from pipelines.events import Failed, Result
from pipelines.messages import said
from pipelines.serving import sidecar
from pipelines.serving.fairness import Limits
from pipelines.serving.found import FOLDER, Found
from pipelines.serving.job import Job
from pipelines.serving.owners import Owners
from pipelines.serving.rows import Damaged
from pipelines.serving.sidecar import Sidecars
from pipelines.serving.table import JobTable
from pipelines.settings import Settings
from pipelines.tasks import Tune

TABLE = "jobs.db"
BESIDE = ("", "-wal", "-shm", "-journal")  # SQLite's files of one table

log = logging.getLogger(__name__)


def opened(settings: Settings) -> tuple[JobTable, list[str]]:
    """The job table among the data, in agreement with the files there, and what had to be done, in sentences.

    Raises ValueError where another process uses the data or a newer app wrote them, and OSError where they can't be
    written.
    """
    data = settings.data.absolute()
    found, told = Found(data), []
    data.mkdir(parents=True, exist_ok=True)
    for name in ("videos", "clips", "images", "temp"):
        found.make_folder(data / name)
    file, videos = data / TABLE, data / "videos"
    for suffix in BESIDE:
        if (path := file.with_name(TABLE + suffix)).is_dir():
            found.take(path)
    sidecars = Sidecars(videos)
    limits, renew = Limits(settings.queue, settings.queue_each), Owners(settings).renew
    try:
        table = JobTable(file, limits, notes=sidecars, renew=renew)
    except Damaged as error:
        aside = _put_aside(file)
        told.append(
            said(
                "The table of jobs was damaged. It is kept as {name}, and a new one was made from the files.",
                name=aside,
            )
        )
        log.error("%s It is kept as %s, and a new table is made from the sidecars.", error, aside)
        table = JobTable(file, limits, notes=sidecars, renew=renew)
    try:
        told += _reconcile(table, videos, sidecars, found)
    except BaseException:
        table.close()
        raise
    return table, told


def _put_aside(file: Path) -> str:
    """Renames the table and what SQLite keeps beside it. Returns the table's new name, which nothing had before."""
    name = f"{TABLE}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
    taken = {path.name for path in file.parent.iterdir()}
    while any(name + suffix in taken for suffix in BESIDE):
        name += "x"
    for suffix in BESIDE:
        if (path := file.with_name(TABLE + suffix)).exists():
            path.rename(file.with_name(name + suffix))
    return name


def _reconcile(table: JobTable, videos: Path, sidecars: Sidecars, found: Found) -> list[str]:
    """Takes in what the table does not know, writes sidecars that are missing, and completes deletions."""
    known = {job.id: job for job in table.everything()}
    taken, moved, stay = 0, 0, 0
    for path in sorted(videos.iterdir()):
        job, noted = known.get(path.name), sidecars.read(path.name)
        if not path.is_dir() or path.is_symlink():
            moved, stay = (moved + 1, stay) if found.take(path) else (moved, stay + 1)
        elif sidecars.is_buried(path.name):
            if job is not None and job.end is not None:
                table.delete(job.id)
            sidecar.clear(path)
        elif job is None and noted is not None:
            table.adopt(_resumed(noted))
            taken += 1
        elif job is None:
            moved, stay = (moved + 1, stay) if found.take(path) else (moved, stay + 1)
        elif not isinstance(job.end, Result) and noted is not None and isinstance(noted.end, Result):
            table.adopt(noted)  # the app died between the video and the table
        elif isinstance(job.end, Failed) and not isinstance(job.task, Tune):
            sidecar.clear(path)  # what its attempt had begun
        else:
            _clear_parts(path)
    for job in table.everything():
        if (job.end is None or (videos / job.id).is_dir()) and not sidecars.matches(job):
            sidecars.note(job)
    told = []
    if taken:
        told.append(said("{count} jobs that the table did not know were taken in again.", count=taken))
    if moved:
        told.append(
            said(
                "{count} things that belong to no known job were moved to the folder {folder} among the data.",
                count=moved,
                folder=FOLDER,
            )
        )
    if stay:
        told.append(said("{count} things among the videos belong to no known job and could not be moved.", count=stay))
    for sentence in told:
        log.warning(sentence)
    return told


def _resumed(job: Job) -> Job:
    """`job` as it is taken in: one that waited or ran waits again, and is not tried for ever."""
    if job.end is not None or job.paused:
        return job
    return replace(job, state="interrupted", attempts=max(1, job.attempts))


def _clear_parts(folder: Path) -> None:
    for part in list(folder.rglob("*.part")):
        try:
            sidecar.clear(part) if part.is_dir() and not part.is_symlink() else part.unlink()
        except OSError as error:
            log.warning("%s was not deleted: %s", part.name, error.strerror)
