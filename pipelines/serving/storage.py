"""Where finished videos lie: a folder for each job, with all that is made of its video. Standard library and ffmpeg."""

import json
import re
import shutil
import time
import unicodedata
from functools import partial
from pathlib import Path

from pipelines.events import Result
from pipelines.media import video
from pipelines.messages import said
from pipelines.serving import sidecar, tidy
from pipelines.serving.executor import CHECKPOINTS, Made
from pipelines.serving.job import Job
from pipelines.serving.shown import Shown
from pipelines.serving.table import JobTable
from pipelines.settings import Settings
from pipelines.tasks import Tune

EXPIRED = said("This was paused for so long that it was deleted, as the settings for old videos say.")
SHOWN_SECONDS = 3600.0  # a video that somebody has just looked at is not deleted for this long


class Storage:
    """The folder `videos` among the data.

    A job's own folder is named by its id, which nobody can guess. Its files are named by the prompt: under that name
    a browser saves them.
    """

    def __init__(self, settings: Settings, jobs: JobTable):
        self._settings = settings
        self._jobs = jobs
        self._seen = Shown(settings)
        self._folder = settings.data.absolute() / "videos"
        self._shown: dict[str, float] = {}  # job -> when somebody last looked at it
        self._folder.mkdir(parents=True, exist_ok=True)

    def place(self, job: Job) -> Path:
        """Where to write the video of `job`: the same place at every attempt."""
        plain = unicodedata.normalize("NFKD", job.task.prompt).encode("ascii", "ignore").decode().lower()
        words = "-".join(re.findall(r"[a-z0-9]+", plain))[:60].strip("-")
        return self._folder / job.id / f"{words or 'video'}-{job.task.seed}.mp4"

    def tuned(self, job: str) -> Path:
        """The folder for the tuned model of the tuning `job`."""
        return self._folder / job / "tuned"

    def goes_on(self, job: Job) -> bool:
        """Whether something is kept of `job` from which it will go on."""
        folder = self._folder / job.id
        kept = folder / ("tuned/tuned.json" if isinstance(job.task, Tune) else CHECKPOINTS)
        return kept.is_file() or kept.is_dir() and any(kept.iterdir())

    def keep(self, job: Job, made: Made) -> Result:
        """Takes what was `made` of `job` for its result, and writes the facts beside the video, as JSON."""
        result = Result(self._folder / job.id / made.files["video"], made.facts)
        with video.whole(result.video.with_suffix(".json")) as file:
            file.write_text(json.dumps(result.facts, indent=2, ensure_ascii=False) + "\n", "utf-8")
        return result

    def export(self, job: Job, kind: str) -> Path:
        """The video of `job` as "mp4", "gif" or "webm"; made when it is first asked for."""
        if not isinstance(job.end, Result) or not job.end.video.exists():
            raise ValueError(
                said(
                    "This job has no video: it did not end well, or its file was deleted. Use its settings "
                    "to try again."
                )
            )
        if kind not in ("mp4", *video.EXPORTS):
            raise ValueError(
                said(
                    "A video can be had as mp4, {kinds}, not as {kind}.",
                    kinds=" or ".join(video.EXPORTS),
                    kind=repr(kind),
                )
            )
        self.show(job.id)
        path = job.end.video.with_suffix(f".{kind}")
        if not path.exists():
            video.export(job.end.video, path)
        return path

    def poster(self, job: Job) -> Path:
        """A small picture of the video of `job`; made when it is first asked for."""
        path = self.export(job, "mp4").with_suffix(".jpg")
        if not path.exists():
            video.poster(path.with_suffix(".mp4"), path)
        return path

    def show(self, job: str) -> None:
        """Notes that somebody looks at the video of `job`."""
        self._shown[job] = time.monotonic()

    def delete(self, job: Job) -> None:
        """Forgets `job` and deletes its files. Raises ValueError where it has not ended."""
        self._jobs.delete(job.id)
        self.clear(job.id)

    def clear(self, job: str) -> None:
        """Deletes the files of a job."""
        self._seen.forget("videos", job)
        sidecar.clear(self._folder / job)
        self._shown.pop(job, None)

    def check_space(self, wanted: int = 0) -> None:
        """Raises ValueError where the disk is nearly full, or would be with `wanted` bytes more."""
        free, needed = (shutil.disk_usage(self._folder).free - wanted) // 2**20, self._settings.disk_margin_mb
        if free < needed:
            full = said(
                "The disk is nearly full: {free} MB are free, and {needed} MB must be. Delete some videos first."
            )
            if wanted:
                full = said(
                    "The disk is nearly full: {free} MB would be free, and {needed} MB must be. "
                    "Delete some videos first."
                )
            raise ValueError(said(full, free=max(free, 0), needed=needed))

    def things(self, needed: set[str]) -> list[tidy.Thing]:
        """The videos, tuned models and paused jobs that may be deleted for their age; those `needed` and those shown
        are held."""
        now = time.monotonic()
        self._shown = {job: when for job, when in self._shown.items() if now - when < SHOWN_SECONDS}
        held, days = needed | self._shown.keys(), self._settings.keep_days
        ended = [(job, self.delete) for job in (*self._jobs.finished(), *self._jobs.tunings())]
        paused = [(job, self._expire) for job in self._jobs.unfinished() if job.paused]
        return [
            tidy.Thing(
                "videos",
                job.id,
                self._folder / job.id,
                job.ended or job.submitted,
                days,
                job.id in held,
                partial(delete, job),
            )
            for job, delete in (*ended, *paused)
        ]

    def _expire(self, job: Job) -> None:
        """Ends a paused job and deletes what is kept of it. Raises ValueError where it is not paused any more."""
        self._jobs.expire(job.id, EXPIRED)
        if isinstance(job.task, Tune):  # else it would stand among the tuned models
            self.delete(job)
        else:
            self.clear(job.id)
