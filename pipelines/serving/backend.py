"""Where jobs run. The page knows only this protocol; `LocalBackend` runs one job at a time per device in a thread."""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.catalog import CATALOG, ModelCard, find, find_motion
from pipelines.errors import log_error
from pipelines.events import Event, Failed, Losses, Preview, Progress, Result
from pipelines.media import clips, uploads, video
from pipelines.media.images import Images
from pipelines.media.uploads import Choice, Clip
from pipelines.models import tokens
from pipelines.models.files import part_folder
from pipelines.models.sources import availability, locate
from pipelines.poses import keypoints, openpose_json
from pipelines.poses.pose_preview import PosePreview, PosePreviews
from pipelines.serving import estimate, health, recovery, status, tidy
from pipelines.serving.ages import Ages
from pipelines.serving.clip_storage import Clips, Kept
from pipelines.serving.content import Contents
from pipelines.serving.jobs import Job, new_id
from pipelines.serving.owners import Owners
from pipelines.serving.quota import Quota, Upload
from pipelines.serving.readers import Readers
from pipelines.serving.runner import LOADING, WRITING, Pace, make
from pipelines.serving.shown import Shown
from pipelines.serving.status import Status
from pipelines.serving.storage import Storage
from pipelines.serving.watch import Loop
from pipelines.settings import Settings
from pipelines.tasks import Edit, FindPoses, Finish, Grid, PoseToVideo, Task, TextToVideo, Tune, from_json, kind_of

if TYPE_CHECKING:  # torch comes with the manager, and waits for the first job
    from pipelines.models.manager import ModelManager
    from pipelines.poses.search import Found

STOPPED = "Stopped."
CLOSING_SECONDS = 5.0  # that a running job has to end in when the app is ended


@dataclass(frozen=True)
class Tuning:
    """A model tuned on a clip, or what there is of one that was stopped."""

    job: Job
    facts: dict[str, Any]  # "steps" done, "losses", "frames", "width", "height", "fps", "base"
    video: Path  # the frames of the clip that it was tuned on
    sound: bool  # whether there is sound to keep
    poster: Path | None = None  # a small picture of them, where tunings are listed

    @property
    def shape(self) -> tuple[str, int, int, int]:
        """Model, frames, width and height, which every edit has too."""
        return (self.job.task.model, *(self.facts[name] for name in ("frames", "width", "height")))


class Backend(Protocol):
    """Takes tasks, runs them, and tells how they go.

    A visitor is known by an id, which `owner` makes an owner of; all other methods know owners only.
    Every job belongs to an owner. To anybody else a job does not exist: every method that takes a job's id raises the
    same ValueError for a job of somebody else as for an unknown one.
    """

    @property
    def browser_secret(self) -> str:
        """What browsers encrypt a visitor's id with. The page publishes it: it opens nothing."""

    def owner(self, visitor_id: object) -> str:
        """The owner that stands for a visitor's id; for what is no id, a new one of nobody."""

    def account(self, subject: str) -> str:
        """The visitor's id of a signed-in user, by what their account is called for ever."""

    def is_account(self, visitor_id: object) -> bool:
        """Whether `account` makes this id, or made it in an older version."""

    def submit(self, task: Task, owner: str, address: str = "") -> str:
        """Queues `task` and returns the job's id. Raises ValueError for a bad task or a full queue or disk.

        `address` is the network address that asks, "" where it is not known: it has a limit too.
        """

    def submit_grid(self, tasks: Sequence[TextToVideo], owner: str, address: str = "") -> list[str]:
        """Queues `tasks`, which differ in prompt and seed, row after row, and then what lays their videos side by side.

        Returns the jobs' ids, that of the grid last. Raises ValueError as `submit` does; then none is queued.
        """

    def events(self, job: str, owner: str) -> Iterator[Event | None]:
        """What happened to `job` and what happens next, up to and including its Result or Failed.

        None stands for a quarter of a second in which nothing happened, so that a listener can look up and leave.
        A listener that comes late or reads slowly gets the latest of each kind of event, not all of them.
        """

    def unfinished(self, owner: str) -> list[Job]:
        """The owner's jobs that wait or run, oldest first: what a page that is opened again goes on following."""

    def finished(self, owner: str, search: str = "", limit: int = -1, offset: int = 0, kind: str = "") -> list[Job]:
        """The owner's videos (of a `kind` of task) whose prompts hold every word of `search`, newest first."""

    def get(self, job: str, owner: str) -> Job:
        """The job as it is now."""

    def cancel(self, job: str, owner: str) -> None:
        """Takes a waiting job off the queue; a running one ends within one denoising step. Its end is
        Failed(stopped=True). Does nothing to a job that has ended."""

    def sample(self, job: str, owner: str) -> None:
        """Has a running tuning draw a sample after its next step, which comes as a Preview. Does nothing to a job that
        does not tune any more."""

    def delete(self, job: str, owner: str) -> None:
        """Deletes a finished job and all its files. Raises ValueError where it has not ended."""

    def export(self, job: str, owner: str, kind: str) -> Path:
        """The video of a finished job as "mp4", "gif" or "webm", made when it is first asked for. Raises ValueError
        where there is no video."""

    def poster(self, job: str, owner: str) -> Path:
        """A small picture of a finished job's video."""

    def keep_clip(self, path: str | Path, owner: str, poses: bool = False) -> Kept:
        """Checks an upload, a clip or where `poses` are wanted also keypoints, and keeps a copy under a name of its
        own. Raises ValueError where it is none, and where too many others are being read."""

    def keep_image(self, path: str | Path, owner: str, mask: bool = False) -> str:
        """Checks an upload, a first image or a `mask` of one, and keeps its pixels under the name that it returns.
        Raises ValueError where it is no usable picture."""

    def keep_frame(self, job: str, owner: str) -> str:
        """Keeps the first frame of a finished job's video as a first image, under the name that it returns."""

    def image(self, name: str, owner: str) -> bytes:
        """A small PNG of a first image or a mask that was kept. Raises ValueError for an unknown one and for one of
        somebody else."""

    def clip(self, name: str, owner: str) -> Kept:
        """A clip that was kept. Raises ValueError for an unknown one and for one of somebody else."""

    def look(self, task: Tune, owner: str) -> tuple[bytes, Choice]:
        """The frames that a tuning would use, as a small animated WebP, and which they are."""

    def motion(self, name: str) -> Clip:
        """How long and how large a built-in motion is. Raises ValueError listing the names there are."""

    def preview_poses(self, task: PoseToVideo, owner: str) -> Generator[Progress | None, None, PosePreview | None]:
        """The skeletons that the dancer of `task` would follow, without generating anything.

        Tells of progress as `events` does, and returns them, or None where it was stopped. Who was found is remembered
        for the video. A second pose preview of the same owner stops the first; so does closing the generator. Raises
        ValueError, in words for the person who asked, where there is nobody to follow.
        """

    def find_poses(self, task: FindPoses, owner: str) -> Generator[Progress | None, None, "Found | None"]:
        """The joints of everybody in the clip of `task`, told of and stopped as a pose preview is."""

    def stop_pose_preview(self, owner: str) -> None:
        """Stops the owner's pose preview within a frame, if there is one."""

    def companions(self, job: str, owner: str) -> dict[str, Path]:
        """What is kept with a finished video that followed poses: MP4 files of the "skeletons" and, where there was a
        clip, of its frames ("source"), as long as the video; "keypoints" as OpenPose's JSON where they are known."""

    def tunings(self, owner: str) -> list[Tuning]:
        """The owner's tuned models that there are something of, newest first."""

    def resume(self, job: str, owner: str, address: str = "") -> None:
        """Queues a tuning that was stopped or has failed once more; it goes on from what is there."""

    def rename(self, job: str, owner: str, title: str) -> None:
        """Gives a tuned model a name. Raises ValueError where that is too long."""

    def export_tuned(self, job: str, owner: str) -> Path:
        """A tuned model as a ZIP file in the layout in which Tune-A-Video models are published."""

    def publish(self, job: str, owner: str, name: str, token: str) -> Generator[Progress, None, str]:
        """Uploads a tuned model to the private repository `name` of the Hub user whose `token` that is, and returns its
        address. Raises ValueError where the Hub refuses."""

    def task_of(self, path: Path, owner: str) -> Task:
        """The task in the uploaded video `path`, if that was made by Marionette, with those of the owner's own things
        that it names. Raises ValueError where it was not, is no video at all, or asks for what can't be made here."""

    def address(self, file: Path) -> str | None:
        """Where the web server finds `file`, a video, an export or a preview that a method here told, from now on; None
        where it is gone."""

    def availability(self, model: str) -> str | None:
        """None if the weights of `model` are at hand, else one sentence: what is missing and what to do."""

    def estimate(self, task: Task) -> float | None:
        """The seconds that `task` will take here, roughly, once its turn has come; None where that can't be told."""

    def estimate_on_gpu(self, task: Task) -> float | None:
        """What `estimate` would be on a GPU such as Spaces have; None where jobs run on a GPU already, and for a task
        without a model, which uses none."""

    def lent(self, task: Task) -> int | None:
        """The seconds of GPU that `task` asks for at once where GPUs are lent; None where they are not, and for a task
        without a model."""

    def has_gpu(self) -> bool:
        """Whether jobs run on a GPU."""

    def status(self) -> Status:
        """What the machine is at. Loads nothing."""

    def health(self) -> dict[str, Any]:
        """Whether videos can be made ("ok"), and what is known of the worker, the disk and the table. No secrets."""

    def receiving(self, size: int) -> AbstractContextManager[None]:
        """Holds room for a request that brings uploads of `size` bytes. Entering it raises ValueError where there is
        none."""

    def unload(self) -> None:
        """Frees the memory of every model that no job uses right now; the next job loads what it needs again."""

    def tokens(self, model: str, prompt: str) -> tuple[int, str] | None:
        """How many tokens `prompt` is for `model`, and the end of it that is not read ("" for none); None where the
        weights are not at hand. Quick enough to be asked at every key."""

    def close(self) -> None:
        """Ends the running job, to be made anew when the app is started again, and leaves the device."""


class LocalBackend:
    """The backend of one machine: a thread that runs job after job on the device of `settings`."""

    def __init__(self, settings: Settings, catalog: Mapping[str, ModelCard] = CATALOG):
        """Goes on with the jobs in the data folder. Raises ValueError where another process uses that folder, and
        OSError where it can't be written."""
        self._settings = settings
        self._catalog = catalog
        self._owners = Owners(settings)
        self._jobs, self._notes = recovery.opened(settings, self._owners.renew)
        self._shown = Shown(settings)
        self._shown.clear()
        self._storage = Storage(settings, self._jobs)
        self._clips = Clips(settings)
        self._images = Images(settings)
        self._contents = Contents(self._jobs, self._storage, self._clips, self._images)
        self._readers = Readers()
        self._quota = Quota(settings)
        self._tidy = tidy.Tidy(settings, Ages(settings.data / "ages.json"), self._things)
        self._next_tidy = time.monotonic() + tidy.FIRST_SECONDS
        self._tokenizers: dict[str, tokens.Tokenizer] = {}  # by model
        self._past: dict[tuple, dict[str, float]] = {}  # seconds a stage took, by kind of job: see Pace
        self._models: ModelManager | None = None
        self._making = threading.Lock()  # of the manager
        self._pose_previews = PosePreviews()
        self._asked: set[str] = set()  # the tunings of which somebody wants a sample
        self._closing = False
        self._loop = Loop(self._work)
        self._loop.start()

    @property
    def browser_secret(self) -> str:
        return self._owners.browser_secret

    def owner(self, visitor_id: object) -> str:
        return self._owners.of(visitor_id)

    def account(self, subject: str) -> str:
        return self._owners.account(subject)

    def is_account(self, visitor_id: object) -> bool:
        return self._owners.is_account(visitor_id)

    def submit(self, task: Task, owner: str, address: str = "") -> str:
        return self._jobs.add(self._admitted(task, owner), owner, address).id

    def submit_grid(self, tasks: Sequence[TextToVideo], owner: str, address: str = "") -> list[str]:
        admitted: dict[str, Task] = {new_id(): self._admitted(task, owner) for task in tasks}
        prompts, seeds = dict.fromkeys(task.prompt for task in tasks), dict.fromkeys(task.seed for task in tasks)
        grid = Grid.for_videos(tasks[0], "\n".join(prompts), list(seeds), list(admitted))
        return [job.id for job in self._jobs.add_all(admitted | {new_id(): grid}, owner, address)]

    def _admitted(self, task: Task, owner: str) -> Task:
        """The task, validated. Raises ValueError where it can't be taken on."""
        if self._closing:
            raise ValueError("The app is shutting down. Try again when it is back.")
        task = task.checked(self._catalog)
        self._inputs(task, owner)
        self._storage.check_space()
        return task

    def events(self, job: str, owner: str) -> Iterator[Event | None]:
        return self._follow(self._jobs.get(job, owner))

    def unfinished(self, owner: str) -> list[Job]:
        return self._jobs.unfinished(owner)

    def finished(self, owner: str, search: str = "", limit: int = -1, offset: int = 0, kind: str = "") -> list[Job]:
        return self._jobs.finished(owner, search, limit, offset, kind)

    def get(self, job: str, owner: str) -> Job:
        return self._jobs.get(job, owner)

    def cancel(self, job: str, owner: str) -> None:
        self._jobs.stop(self._jobs.get(job, owner).id, STOPPED)

    def sample(self, job: str, owner: str) -> None:
        found = self._jobs.get(job, owner)
        if isinstance(found.task, Tune) and found.end is None:
            self._asked.add(found.id)

    def delete(self, job: str, owner: str) -> None:
        self._storage.delete(self._jobs.get(job, owner))

    def export(self, job: str, owner: str, kind: str) -> Path:
        return self._storage.export(self._jobs.get(job, owner), kind)

    def poster(self, job: str, owner: str) -> Path:
        return self._storage.poster(self._jobs.get(job, owner))

    def keep_clip(self, path: str | Path, owner: str, poses: bool = False) -> Kept:
        self._make_room(path, owner)
        with self._readers.turn(owner):
            return self._clips.keep(path, owner, poses)

    def keep_image(self, path: str | Path, owner: str, mask: bool = False) -> str:
        self._make_room(path, owner)
        with self._readers.turn(owner):
            return self._images.keep(path, owner, mask)

    def keep_frame(self, job: str, owner: str) -> str:
        source = self.export(job, owner, "mp4")
        with tempfile.TemporaryDirectory(prefix="marionette-") as folder:
            video.first_frame(source, Path(folder) / "frame.png")
            return self.keep_image(Path(folder) / "frame.png", owner)

    def image(self, name: str, owner: str) -> bytes:
        return self._images.show(name, owner)

    def clip(self, name: str, owner: str) -> Kept:
        return self._clips.get(name, owner)

    def look(self, task: Tune, owner: str) -> tuple[bytes, Choice]:
        kept = self._clips.get(task.clip, owner)
        with self._readers.turn(owner):
            frames, fps = clips.read(task, kept.file, self._settings)
        return video.animation(frames, fps), clips.used(task, kept.clip)

    def motion(self, name: str) -> Clip:
        return keypoints.as_clip(openpose_json.read(find_motion(name)))

    def preview_poses(self, task: PoseToVideo, owner: str) -> Generator[Progress | None, None, PosePreview | None]:
        task = task.checked(self._catalog)
        inputs = self._inputs(task, owner)
        return self._pose_previews.run(task, self._manager, owner, inputs.get("clip"), inputs.get("known"))

    def find_poses(self, task: FindPoses, owner: str) -> Generator[Progress | None, None, "Found | None"]:
        return self._pose_previews.find(task, self._manager, owner, self._clips.get(task.clip, owner).file)

    def stop_pose_preview(self, owner: str) -> None:
        self._pose_previews.stop(owner)

    def companions(self, job: str, owner: str) -> dict[str, Path]:
        from pipelines.poses import pose_sequence

        return pose_sequence.kept(self._storage.place(self._jobs.get(job, owner)))

    def tunings(self, owner: str) -> list[Tuning]:
        found = (self._tuning(job) for job in self._jobs.tunings(owner))
        return [replace(tuning, poster=_poster(tuning.video)) for tuning in found if tuning is not None]

    def resume(self, job: str, owner: str, address: str = "") -> None:
        self._storage.check_space()
        self._jobs.again(self._jobs.get(job, owner).id, address)

    def rename(self, job: str, owner: str, title: str) -> None:
        title = " ".join(str(title).split())
        if len(title) > 80 or not title.isprintable():
            raise ValueError("A name has 80 letters or fewer.")
        self._jobs.rename(self._jobs.get(job, owner).id, title)

    def task_of(self, path: Path, owner: str) -> Task:
        said = uploads.read_comment(path, self._settings)
        if not said:
            raise ValueError("This video does not tell how it was made: it is not by Marionette, or was changed since.")
        return self._contents.own(from_json(said, self._catalog), owner)

    def address(self, file: Path) -> str | None:
        return self._shown.address(file)

    def export_tuned(self, job: str, owner: str) -> Path:
        tuned = self._tuned(job, owner)
        archive = self._storage.place(tuned.job).with_suffix(".zip")
        if not archive.exists() or archive.stat().st_mtime < tuned.job.ended:
            with self._exported(tuned) as folder, video.whole(archive) as temporary:
                made = shutil.make_archive(str(folder.parent / "archive"), "zip", folder)
                Path(made).replace(temporary)
        return archive

    def publish(self, job: str, owner: str, name: str, token: str) -> Generator[Progress, None, str]:
        if not self._settings.hub:
            raise ValueError("This app is set not to use the Hugging Face Hub. Its owner can change MARIONETTE_HUB.")
        tuned = self._tuned(job, owner)
        from pipelines.models.convert import hub

        task = tuned.job.task
        card = hub.model_card(tuned.job.title or task.prompt, find(task.model, self._catalog), tuned.facts)
        yield Progress(WRITING, 0, 1)
        with self._exported(tuned) as folder:
            return (yield from hub.upload(folder, name, card, token))

    def _tuned(self, job: str, owner: str) -> Tuning:
        found = self._tuning(self._jobs.get(job, owner))
        if found is None:
            raise ValueError("Nothing is tuned there yet. Tune on a clip first.")
        return found

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

    def availability(self, model: str) -> str | None:
        return availability(find(model, self._catalog), self._settings)

    def estimate(self, task: Task) -> float | None:
        card = None if isinstance(task, Finish | Grid) else find(task.model, self._catalog)
        made = self._jobs.tunings() if isinstance(task, Tune) else self._jobs.finished(kind=kind_of(task), limit=20)
        return estimate.seconds(task, card, made, self._speed())

    def estimate_on_gpu(self, task: Task) -> float | None:
        if self.has_gpu() or isinstance(task, Finish | Grid):
            return None
        return estimate.seconds(task, find(task.model, self._catalog), (), estimate.GPU)

    def lent(self, task: Task) -> int | None:
        return None

    def has_gpu(self) -> bool:
        return estimate.has_gpu(self._settings)

    def status(self) -> Status:
        jobs = self._jobs.unfinished()
        waiting = sum(job.waits for job in jobs)
        held = self._models.stats() if self._models is not None else []
        trouble = (f"The table of jobs is {self._jobs.trouble}.",) if self._jobs.trouble else ()
        told = (*self._notes, *trouble)
        return Status(status.device(self._settings), len(jobs) - waiting, waiting, status.loaded(held), told)

    def unload(self) -> None:
        if self._models is not None:
            self._models.unload_all()

    def _speed(self) -> float:
        return estimate.usual_speed(self._settings)

    def tokens(self, model: str, prompt: str) -> tuple[int, str] | None:
        card = find(model, self._catalog)
        if model not in self._tokenizers:
            if self.availability(model) is not None:
                return None
            folder = part_folder(locate(card.source, self._settings), "tokenizer")
            self._tokenizers[model] = tokens.tokenizer_of(folder)
        return tokens.report(prompt, self._tokenizers[model], card.max_tokens)

    def close(self) -> None:
        self._closing = True
        self._pose_previews.close()
        if not self._loop.join(CLOSING_SECONDS):  # it is in the middle of something that can't be interrupted
            for job in self._jobs.unfinished():
                self._jobs.interrupt(job.id)
        self._jobs.close()

    def _make_room(self, path: str | Path, owner: str) -> None:
        """Raises ValueError where the disk, or the room for uploads, does not take a copy of `path` and what is made
        of it."""
        try:
            size = 2 * Path(path).stat().st_size  # a clip's preview is smaller than the clip, but not by how much
        except OSError as error:
            raise ValueError("The upload is not there any more. Upload it again.") from error
        self._storage.check_space(size)
        self._quota.make_room(size, owner, self._uploads())

    def _uploads(self) -> list[Upload]:
        needed, days, data = tidy.needed(self._jobs.unfinished()), self._settings.keep_days, self._settings.data
        found = []
        for kind, store in (("clips", self._clips), ("images", self._images)):
            owners = store.owners()
            things = tidy.uploads(kind, data / kind, owners, needed, days, store.delete)
            found += [Upload(owners[thing.name], thing) for thing in things]
        return found

    def _things(self) -> list[tidy.Thing]:
        """Everything among the data that may be deleted for its age or for room."""
        kept = self._storage.things(tidy.needed(self._jobs.unfinished()))
        return [*kept, *(upload.thing for upload in self._uploads()), *tidy.temporary(self._settings)]

    def health(self) -> dict[str, Any]:
        return health.report(self._loop, self._jobs, self._settings, self._settings.data, self._notes)

    def receiving(self, size: int) -> AbstractContextManager[None]:
        return self._quota.receiving(size)

    def _inputs(self, task: Task, owner: str) -> dict[str, Any]:
        """The files that `task` works on. Raises ValueError where they are gone, or somebody else's."""
        match task:
            case TextToVideo():
                names = {"image": task.image, "mask": task.mask}
                return {part: self._images.get(name, owner) for part, name in names.items() if name}
            case PoseToVideo():
                return self._followed(task, owner) | self._worn(task, owner)
            case Tune():
                kept = self._clips.get(task.clip, owner)
                clips.used(task, kept.clip)
                return {"clip": kept.file}
            case Edit(tuned=str(job)) if job:
                tuning = self._tuned(job, owner)
                if task.sound and not (self._storage.tuned(job) / clips.SOUND).exists():
                    raise ValueError("The clip has no sound to keep.")
                if (task.model, task.frames, task.width, task.height) != tuning.shape:
                    raise ValueError("An edit has the model, the frames and the size of the tuned clip.")
                return {"tuned": self._storage.tuned(job)}
            case Finish():
                made = self._jobs.get(task.source, owner)
                if made.task != task.of:
                    raise ValueError("This is not how the video was made. Choose it once more.")
                return {"source": self._storage.export(made, "mp4")}
            case Grid():
                return {"videos": [self._cell(job, owner) for job in task.jobs]}
        return {}

    def _followed(self, task: PoseToVideo, owner: str) -> dict[str, Path]:
        if task.motion:
            if task.sound:
                raise ValueError(clips.SILENT)
            return {}
        kept = self._clips.get(task.clip, owner)
        clips.used(task, kept.clip)
        if task.sound and not kept.clip.sound:
            raise ValueError(clips.SILENT)
        return {"clip": kept.file, "known": kept.file.parent}

    def _worn(self, task: PoseToVideo, owner: str) -> dict[str, Path]:
        if not task.tuned:
            return {}
        base = find(task.model, self._catalog).tuned_from
        if self._tuned(task.tuned, owner).job.task.model != base:
            raise ValueError(f"{task.model} takes only what was tuned from {base}. Choose another, or tune once more.")
        return {"tuned": self._storage.tuned(task.tuned)}

    def _cell(self, job: str, owner: str) -> Path | str:
        """A video that a grid is made of, or in a word why there is none."""
        try:
            made = self._jobs.get(job, owner)
        except ValueError:
            return "deleted"
        if isinstance(made.end, Result):
            return made.end.video if made.end.video.exists() else "deleted"
        return "stopped" if made.end is not None and made.end.stopped else "not made"

    def _tuning(self, job: Job) -> Tuning | None:
        try:
            facts = json.loads((self._storage.tuned(job.id) / "tuned.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        sound = (self._storage.tuned(job.id) / clips.SOUND).exists()
        return Tuning(job, facts, self._storage.place(job), sound)

    def _follow(self, job: Job) -> Iterator[Event | None]:
        told: tuple[Event, ...] = ()
        while True:
            news = [event for event in job.events if not any(event is old for old in told)]
            yield from news
            told = job.events
            if job.end is not None:
                self._storage.show(job.id)
                return
            job = self._jobs.wait(seen := job, seconds=0.25)
            if job is seen:
                yield None

    def _work(self) -> None:
        """One turn of the worker: what is due of the tidying, and a job if one waits."""
        if time.monotonic() > self._next_tidy:
            self._next_tidy = time.monotonic() + tidy.ROUND_SECONDS
            if self._tidy.round():
                self._next_tidy = time.monotonic() + tidy.SOON_SECONDS
        self._jobs.settle()
        job = self._jobs.take(seconds=0.25)
        if job is not None:
            self._run(job)
        elif self._models is not None:
            self._models.unload_idle()

    def _run(self, job: Job) -> None:
        """Runs the job to its end, whatever that is; nothing that goes wrong in it reaches the worker."""
        try:
            self._jobs.tell(job.id, self._make(job))
            return
        except _Closing:
            self._jobs.interrupt(job.id)
        except _Stopped:
            self._jobs.tell(job.id, Failed(STOPPED, stopped=True))
        except BaseException as error:  # a library may even call exit()
            wrote = job.task.prompt, getattr(job.task, "negative_prompt", "")
            self._jobs.tell(job.id, Failed(log_error(error, f"Job {job.id}", wrote, "the video was not made")))
        if not isinstance(job.task, Tune):  # what is tuned so far can be used, and gone on from
            self._storage.clear(job.id)

    def _make(self, job: Job) -> Result:
        task = job.task.checked(self._catalog)  # it may be from before the app was updated
        self._storage.check_space()
        inputs: dict[str, Any] = self._inputs(task, job.owner)
        task = self._contents.public(task, job.owner)  # what is made of it may leave the app
        if isinstance(task, Tune):
            self._asked.discard(job.id)
            inputs |= {"folder": self._storage.tuned(job.id), "asked": partial(self._wants_sample, job.id)}
        pace = Pace(self._past.get(task.effort, {}))

        def tell(event: Progress | Preview | Losses) -> None:
            if isinstance(event, Progress):
                event = pace.estimate(event)
            self._loop.beat()
            if self._jobs.tell(job.id, event).stopping:
                raise _Stopped
            if self._closing:
                raise _Closing

        with closing(self._events(task, self._storage.place(job), inputs, tell)) as events:
            for event in events:
                if isinstance(event, Result):
                    self._past[task.effort] = pace.taken
                    self._storage.describe(event)
                    return event
                tell(event)
        raise AssertionError("what is made ends with a Result")

    def _events(
        self, task: Task, path: Path, inputs: dict[str, Any], tell: Callable[[Progress], None]
    ) -> Generator[Progress | Preview | Losses | Result, None, None]:
        """Makes the video `path` of `task`; `tell` takes what is told from within the loading of a model."""
        if isinstance(task, Finish | Grid):
            # And with it OpenCV, which waits for the first job too.
            return import_module(f"pipelines.systems.{kind_of(task)}").make(task, path, self._settings, **inputs)
        tell(Progress(LOADING, 0, 1))
        return self._generating(task, path, inputs, tell)

    def _generating(
        self, task: Task, path: Path, inputs: dict[str, Any], tell: Callable[[Progress], None]
    ) -> Generator[Progress | Preview | Losses | Result, None, None]:
        """As `_events`, of a task that a model carries out."""
        models = self._manager()
        models.on_progress = lambda done, total: tell(Progress(LOADING, done, total))
        return make(task, models, path, companions=True, **inputs)

    def _manager(self) -> "ModelManager":
        with self._making:
            if self._models is None:
                from pipelines.models.manager import ModelManager

                self._models = ModelManager(self._catalog, self._device_settings())
            return self._models

    def _device_settings(self) -> Settings:
        return self._settings

    def _wants_sample(self, job: str) -> bool:
        wanted = job in self._asked
        self._asked.discard(job)
        return wanted


def _poster(source: Path) -> Path | None:
    """The small picture beside the video `source`, made when it is first asked for; None where that can't be."""
    poster = source.with_suffix(".jpg")
    try:
        if not poster.exists():
            video.poster(source, poster)
    except OSError:  # deleted by hand, or damaged: edits do not need it
        return None
    return poster


class _Stopped(BaseException):
    """Somebody pressed Stop. Not an Exception, so that no library on the way takes it for a failure of its own."""


class _Closing(BaseException):
    """The app is being shut down."""
