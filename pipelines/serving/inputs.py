"""What a task works on: found among its owner's things, checked against the task, and named as assets."""

from collections.abc import Mapping

from pipelines.cards import ModelCard
from pipelines.catalog import find
from pipelines.events import Result
from pipelines.media import clips
from pipelines.media.images import Images
from pipelines.messages import said
from pipelines.pose_tasks import FindPoses
from pipelines.poses import openpose_json
from pipelines.serving.clip_storage import Clips
from pipelines.serving.executor import BUILT_IN, Asset
from pipelines.serving.storage import Storage
from pipelines.serving.table import JobTable
from pipelines.serving.tunings import Tuning, Tunings
from pipelines.tasks import Edit, Finish, Grid, PoseToVideo, Task, TextToVideo, Tune

Found = dict[str, Asset | tuple[Asset | str, ...]]


class Inputs:
    """Finds the assets of a task among what one owner has."""

    def __init__(
        self,
        catalog: Mapping[str, ModelCard],
        table: JobTable,
        storage: Storage,
        clips: Clips,
        images: Images,
        tunings: Tunings,
    ):
        self._catalog, self._table, self._storage = catalog, table, storage
        self._clips, self._images, self._tunings = clips, images, tunings

    def of(self, task: Task | FindPoses, owner: str) -> Found:
        """What `task` works on, by its settings. Raises ValueError where that is gone, somebody else's, or not what the
        task says it is."""
        match task:
            case TextToVideo():
                found = self._images_of(task, owner, "image", "mask", "reference")
                return found | ({"clip": self._clip(task, owner)} if task.clip else {})
            case PoseToVideo():
                return self._followed(task, owner) | self._worn(task, owner) | self._images_of(task, owner, "reference")
            case Tune() | FindPoses():
                return {"clip": self._clip(task, owner)}
            case Edit(tuned=str(job)) if job:
                tuning = self._tunings.get(job, owner)
                if task.sound and not tuning.sound:
                    raise ValueError(said("The clip has no sound to keep."))
                if (task.model, task.frames, task.width, task.height) != tuning.shape:
                    raise ValueError(said("An edit has the model, the frames and the size of the tuned clip."))
                return {"tuned": self._tuned(tuning)}
            case Finish():
                made = self._table.get(task.source, owner)
                if made.task != task.of:
                    raise ValueError(said("This is not how the video was made. Choose it once more."))
                source = Asset("videos", made.id, self._storage.export(made, "mp4").name)
                task.of_made(made.made)
                return {"source": source}
            case Grid():
                return {"videos": tuple(self._cell(job, owner) for job in task.jobs)}
        return {}

    def _images_of(self, task: TextToVideo | PoseToVideo, owner: str, *settings: str) -> Found:
        names = {setting: name for setting in settings if (name := getattr(task, setting))}
        return {setting: Asset("images", name, self._images.get(name, owner).name) for setting, name in names.items()}

    def _clip(self, task: TextToVideo | Tune | PoseToVideo | FindPoses, owner: str) -> Asset:
        kept = self._clips.get(task.clip, owner)
        if isinstance(task, TextToVideo | Tune) and openpose_json.is_keypoints(kept.file):
            raise ValueError(said("Keypoints have no pictures. Upload a clip of the people themselves."))
        if isinstance(task, TextToVideo):
            clips.changed(task, kept.clip)
        elif not isinstance(task, FindPoses):
            clips.used(task, kept.clip)
        if isinstance(task, PoseToVideo) and task.sound and not kept.clip.sound:
            raise ValueError(clips.SILENT)
        return Asset("clips", kept.name, kept.file.name, kept.measured)

    def _tuned(self, tuning: Tuning) -> Asset:
        if tuning.built_in:
            return Asset(BUILT_IN, tuning.job.id)
        return Asset("videos", tuning.job.id, self._storage.tuned(tuning.job.id).name)

    def _followed(self, task: PoseToVideo, owner: str) -> Found:
        if task.motion:
            if task.sound:
                raise ValueError(clips.SILENT)
            return {}
        return {"clip": self._clip(task, owner)}

    def _worn(self, task: PoseToVideo, owner: str) -> Found:
        if not task.tuned:
            return {}
        base = find(task.model, self._catalog).tuned_from
        tuning = self._tunings.get(task.tuned, owner)
        if tuning.job.task.model != base:
            raise ValueError(
                said(
                    "{model} takes only what was tuned from {base}. Choose another, or tune once more.",
                    model=task.model,
                    base=base,
                )
            )
        return {"tuned": self._tuned(tuning)}

    def _cell(self, job: str, owner: str) -> Asset | str:
        """A video that a grid is made of, or in a word why there is none."""
        try:
            made = self._table.get(job, owner)
        except ValueError:
            return "deleted"
        if isinstance(made.end, Result):
            return Asset("videos", job, made.end.video.name) if made.end.video.exists() else "deleted"
        return "stopped" if made.end is not None and made.end.stopped else "not made"
