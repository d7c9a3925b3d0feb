"""What visitors give and get as files: uploads taken in, shown again, and where a browser finds a file."""

import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from pipelines.cards import ModelCard
from pipelines.catalog import find_motion
from pipelines.media import clips, images, uploads, video
from pipelines.media.images import Images
from pipelines.media.measuring import Clip
from pipelines.media.uploads import Choice
from pipelines.messages import said
from pipelines.poses import keypoints, openpose_json
from pipelines.serving import tidy
from pipelines.serving.clip_storage import Clips, Kept
from pipelines.serving.content import Contents
from pipelines.serving.quota import Quota, Upload
from pipelines.serving.readers import Readers
from pipelines.serving.shown import Shown
from pipelines.serving.storage import Storage
from pipelines.serving.table import JobTable
from pipelines.settings import Settings
from pipelines.tasks import Task, Tune, from_json


class Assets:
    """Clips and images under names of their own. To anybody but its owner none of them exists."""

    def __init__(
        self,
        settings: Settings,
        catalog: Mapping[str, ModelCard],
        table: JobTable,
        storage: Storage,
        clips: Clips,
        images: Images,
        contents: Contents,
        shown: Shown,
    ):
        self._settings, self._catalog = settings, catalog
        self._table, self._storage, self._contents, self._shown = table, storage, contents, shown
        self._clips, self._images = clips, images
        self._readers = Readers()
        self._quota = Quota(settings)

    def receiving(self, size: int) -> AbstractContextManager[None]:
        """Holds room for a request that brings uploads of `size` bytes. Entering it raises ValueError where there is
        none."""
        return self._quota.receiving(size)

    def keep_clip(self, path: str | Path, owner: str, poses: bool = False) -> Kept:
        """Checks an upload, a clip or where `poses` are wanted also keypoints, and keeps a copy under a name of its
        own. Raises ValueError where it is none, and where too many others are being read."""
        self._make_room(path, owner)
        with self._readers.turn(owner):
            return self._clips.keep(path, owner, poses)

    def keep_image(self, path: str | Path, owner: str, mask: bool = False) -> str:
        """Checks an upload, a first image or a `mask` of one, and keeps its pixels under the name that it returns.
        Raises ValueError where it is no usable picture."""
        self._make_room(path, owner)
        with self._readers.turn(owner):
            return self._images.keep(path, owner, mask)

    def keep_frame(self, job: str, owner: str) -> str:
        """Keeps the first frame of a finished job's video as a first image, under the name that it returns."""
        source = self._storage.export(self._table.get(job, owner), "mp4")
        with tempfile.TemporaryDirectory(prefix="marionette-") as folder:
            video.first_frame(source, Path(folder) / "frame.png")
            return self.keep_image(Path(folder) / "frame.png", owner)

    def image(self, name: str, owner: str) -> bytes:
        """A small PNG of a first image or a mask that was kept. Raises ValueError for an unknown one and for one of
        somebody else."""
        return self._images.show(name, owner)

    def first_picture(self, name: str, owner: str) -> bytes:
        """A small PNG of the first picture of a clip that was kept. Raises ValueError as `clip` does."""
        with tempfile.TemporaryDirectory(prefix="marionette-") as folder:
            file = Path(folder) / "picture.png"
            video.first_frame(self._clips.get(name, owner).preview, file)
            return images.small(file)

    def clip(self, name: str, owner: str) -> Kept:
        """A clip that was kept. Raises ValueError for an unknown one and for one of somebody else."""
        return self._clips.get(name, owner)

    def look(self, task: Tune, owner: str) -> tuple[bytes, Choice]:
        """The frames that a tuning would use, as a small animated WebP, and which they are."""
        kept = self._clips.get(task.clip, owner)
        with self._readers.turn(owner):
            frames, fps = clips.read(task, kept.file, self._settings, kept.measured)
        return video.animation(frames, fps), clips.used(task, kept.clip)

    def motion(self, name: str) -> Clip:
        """How long and how large a built-in motion is. Raises ValueError listing the names there are."""
        return keypoints.as_clip(openpose_json.read(find_motion(name)))

    def task_of(self, path: Path, owner: str) -> Task:
        """The task in the uploaded video `path`, if that was made by Marionette, with those of the owner's own things
        that it names. Raises ValueError where it was not, is no video at all, or asks for what can't be made here."""
        comment = uploads.read_comment(path, self._settings)
        if not comment:
            raise ValueError(
                said("This video does not tell how it was made: it is not by Marionette, or was changed since.")
            )
        return self._contents.own(from_json(comment, self._catalog), owner)

    def address(self, file: Path) -> str | None:
        """Where the web server finds `file`, a video, an export or a preview that the backend told of, from now on;
        None where it is gone."""
        return self._shown.address(file)

    def built_in(self, file: Path) -> str:
        """Where the web server finds `file`, a picture or a video that belongs to the app itself."""
        return self._shown.built_in(file)

    def things(self) -> list[tidy.Thing]:
        """Everything among the data that may be deleted for its age or for room."""
        kept = self._storage.things(tidy.needed(self._table.unfinished()))
        uploaded = (upload.thing for upload in self._uploads())
        return [*kept, *uploaded, *tidy.texts(self._settings), *tidy.temporary(self._settings)]

    def _make_room(self, path: str | Path, owner: str) -> None:
        """Raises ValueError where the disk, or the room for uploads, does not take a copy of `path` and what is made
        of it."""
        try:
            size = 2 * Path(path).stat().st_size  # a clip's preview is smaller than the clip, but not by how much
        except (OSError, TypeError) as error:  # TypeError: there is no path at all
            raise ValueError(said("The upload is not there any more. Upload it again.")) from error
        self._storage.check_space(size)
        self._quota.make_room(size, owner, self._uploads())

    def _uploads(self) -> list[Upload]:
        needed, days, data = tidy.needed(self._table.unfinished()), self._settings.keep_days, self._settings.data
        found = []
        for kind, store in (("clips", self._clips), ("images", self._images)):
            owners = store.owners()
            things = tidy.uploads(kind, data / kind, owners, needed, days, store.delete)
            found += [Upload(owners[thing.name], thing) for thing in things]
        return found
