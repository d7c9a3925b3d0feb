"""The models that visitors have tuned on their clips: what the page asks of them."""

import json
import math
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.cards import ModelCard
from pipelines.catalog import find, tuned_models
from pipelines.events import Progress
from pipelines.media import clips, video
from pipelines.messages import said
from pipelines.serving.executor import Executor
from pipelines.serving.job import Job
from pipelines.serving.runner import WRITING
from pipelines.serving.storage import Storage
from pipelines.serving.table import JobTable
from pipelines.settings import Settings
from pipelines.tasks import Tune, from_json

LONGEST_NAME = 80  # letters


@dataclass(frozen=True)
class Tuning:
    """A model tuned on a clip, or what there is of one that was stopped."""

    job: Job
    facts: dict[str, Any]  # "steps" done, "losses", "frames", "width", "height", "fps", "base"
    video: Path  # the frames of the clip that it was tuned on
    sound: bool  # whether there is sound to keep
    poster: Path | None = None  # a small picture of them, where tunings are listed
    built_in: bool = False  # everybody's: it comes with the app, and can't be changed
    ideas: tuple[str, ...] = ()  # prompts to begin with, of a built-in one

    @property
    def shape(self) -> tuple[str, int, int, int]:
        """Model, frames, width and height, which every edit has too."""
        return (self.job.task.model, *(self.facts[name] for name in ("frames", "width", "height")))


class Tunings:
    """Tuned models, known by the jobs that tuned them. Every method raises ValueError for a job of somebody else.

    The built-in ones are known by their names (catalog.tuned_models). They are nobody's: to what would change one, or
    take it away, it does not exist.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Mapping[str, ModelCard],
        table: JobTable,
        storage: Storage,
        executor: Executor,
    ):
        self._settings, self._catalog = settings, catalog
        self._table, self._storage, self._executor = table, storage, executor

    def of(self, owner: str) -> list[Tuning]:
        """The owner's tuned models that there are something of, newest first."""
        found = (self._find(job) for job in self._table.tunings(owner))
        return [replace(tuning, poster=_poster(tuning.video)) for tuning in found if tuning is not None]

    def built_in(self) -> list[Tuning]:
        """The tuned models that come with the app."""
        return list(_built_in().values())

    def offered(self, owner: str) -> list[Tuning]:
        """What the owner may edit with: their own, and then those that come with the app."""
        return [*self.of(owner), *self.built_in()]

    def get(self, job: str, owner: str) -> Tuning:
        """The model that `job` has tuned, or a built-in one. Raises ValueError where there is nothing of it."""
        return _built_in().get(job) or self._own(job, owner)

    def sample(self, job: str, owner: str) -> None:
        """Has a running tuning draw a sample after its next step, which comes as a Preview. Does nothing to a job that
        does not tune any more."""
        found = self._table.get(job, owner)
        if isinstance(found.task, Tune) and found.end is None:
            self._executor.sample(found.id)

    def resume(self, job: str, owner: str, address: str = "") -> None:
        """Queues a tuning that was stopped or has failed once more; it goes on from what is there."""
        self._storage.check_space()
        found = self._table.get(job, owner)
        with self._executor.asking([found.id]):
            self._table.again(found.id, address)

    def rename(self, job: str, owner: str, title: str) -> None:
        """Gives a tuned model a name. Raises ValueError where that is too long."""
        title = " ".join(str(title).split())
        if len(title) > LONGEST_NAME or not title.isprintable():
            raise ValueError(said("A name has {most} letters or fewer.", most=LONGEST_NAME))
        self._table.rename(self._table.get(job, owner).id, title)

    def export(self, job: str, owner: str) -> Path:
        """A tuned model as a ZIP file in the layout in which Tune-A-Video models are published."""
        tuned = self._own(job, owner)
        archive = self._storage.place(tuned.job).with_suffix(".zip")
        if not archive.exists() or archive.stat().st_mtime < (tuned.job.ended or math.inf):
            with self._exported(tuned) as folder, video.whole(archive) as temporary:
                made = shutil.make_archive(str(folder.parent / "archive"), "zip", folder)
                Path(made).replace(temporary)
        return archive

    def publish(self, job: str, owner: str, name: str, token: str) -> Generator[Progress, None, str]:
        """Uploads a tuned model to the private repository `name` of the Hub user whose `token` that is, and returns its
        address. Raises ValueError where the Hub refuses."""
        if not self._settings.hub:
            raise ValueError(
                said("This app is set not to use the Hugging Face Hub. Its owner can change MARIONETTE_HUB.")
            )
        tuned = self._own(job, owner)
        from pipelines.models.convert import hub

        task = tuned.job.task
        card = hub.model_card(tuned.job.title or task.prompt, find(task.model, self._catalog), tuned.facts)
        yield Progress(WRITING, 0, 1)
        with self._exported(tuned) as folder:
            return (yield from hub.upload(folder, name, card, token))

    def _own(self, job: str, owner: str) -> Tuning:
        found = self._find(self._table.get(job, owner))
        if found is None:
            raise ValueError(said("Nothing is tuned there yet. Tune on a clip first."))
        return found

    def _find(self, job: Job) -> Tuning | None:
        try:
            facts = json.loads((self._storage.tuned(job.id) / "tuned.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        sound = (self._storage.tuned(job.id) / clips.SOUND).exists()
        return Tuning(job, facts, self._storage.place(job), sound)

    @contextmanager
    def _exported(self, tuned: Tuning) -> Iterator[Path]:
        """A folder, for a while, with the tuned model in the layout as published."""
        self._storage.check_space()
        from pipelines.systems import tuning

        folder = self._storage.tuned(tuned.job.id)
        with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".part") as draft:
            card = find(tuned.job.task.model, self._catalog)
            tuning.export(card, self._settings, folder, Path(draft) / "tuned")
            yield Path(draft) / "tuned"


@lru_cache
def _built_in() -> dict[str, Tuning]:
    """The built-in tuned models by their names, as finished jobs that nobody owns."""
    found = {}
    for name, folder in tuned_models().items():
        facts = json.loads((folder / "tuned.json").read_text("utf-8"))
        task = from_json(json.dumps(facts["task"]))
        ideas = tuple(json.loads((folder / "ideas.json").read_text("utf-8")))
        job, clip = Job(name, "", task, "done"), folder / "clip.mp4"
        sound = (folder / clips.SOUND).exists()
        found[name] = Tuning(job, facts, clip, sound, folder / "clip.webp", built_in=True, ideas=ideas)
    return found


def _poster(source: Path) -> Path | None:
    """The small picture beside the video `source`, made when it is first asked for; None where that can't be."""
    poster = source.with_suffix(".jpg")
    try:
        if not poster.exists():
            video.poster(source, poster)
    except OSError:  # deleted by hand, or damaged: edits do not need it
        return None
    return poster
