"""How much visitors may upload: by the disk's free space, by a visitor, and by all together."""

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.messages import said
from pipelines.serving.tidy import Thing, size
from pipelines.settings import Settings

ALL, EACH = 0.5, 0.1  # shares of MARIONETTE_KEEP_GB that the uploads of all, and of one visitor, may take
LEAST = 2  # uploads of the largest size that everybody may have, however small those shares are


@dataclass(frozen=True)
class Upload:
    """A clip or an image of a visitor's that is kept."""

    owner: str
    thing: Thing


class Quota:
    """What is still free for uploads. All sizes are bytes."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._coming = 0  # of the requests that are being received
        self._changing = threading.Lock()
        largest = LEAST * settings.upload_mb * 2**20
        self.each = max(largest, int(EACH * settings.keep_gb * 1e9))
        self.all = max(2 * largest, int(ALL * settings.keep_gb * 1e9))

    def make_room(self, wanted: int, owner: str, uploads: Sequence[Upload]) -> None:
        """Deletes older `uploads` so that `owner` may keep `wanted` bytes more: their own, then anybody's.

        Those held stay. Raises ValueError where that is not enough.
        """
        mine = [upload for upload in uploads if upload.owner == owner]
        if not _fits(wanted, mine, self.each):
            raise ValueError(
                said(
                    "Your uploads of the last minutes, and those that your waiting videos need, take all "
                    "of the {count} MB that one visitor's may. Wait for a while, then upload this again.",
                    count=self.each // 10**6,
                )
            )
        kept = [upload for upload in uploads if upload.thing.path.exists()]
        if not _fits(wanted, kept, self.all):
            raise ValueError(said("There is no room for more uploads at the moment. Try again in a while."))

    @contextmanager
    def receiving(self, wanted: int) -> Iterator[None]:
        """Holds `wanted` bytes for a request that brings uploads, while it lasts.

        Raises ValueError where they would leave too little of the disk, or of the room for temporary files.
        """
        folder = self._settings.uploads
        with self._changing:
            coming = self._coming + wanted
            if shutil.disk_usage(_existing(folder)).free - coming < self._settings.disk_margin_mb * 2**20:
                raise ValueError(
                    said("The disk is nearly full, so nothing can be uploaded for now. Try again in a while.")
                )
            if size(folder) + coming > self.all:
                raise ValueError(said("Too much is being uploaded at the moment. Try again in a while."))
            self._coming = coming
        try:
            yield
        finally:
            with self._changing:
                self._coming -= wanted


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _fits(wanted: int, uploads: Sequence[Upload], limit: int) -> bool:
    """Whether `wanted` bytes fit beside `uploads` under `limit`, the oldest being deleted where need be."""
    sizes = {upload.thing.path: size(upload.thing.path) for upload in uploads}
    excess = sum(sizes.values()) + wanted - limit
    going = []
    for upload in sorted(uploads, key=lambda upload: upload.thing.made):
        if excess > 0 and not upload.thing.held:
            excess -= sizes[upload.thing.path]
            going.append(upload.thing)
    if excess > 0:
        return False  # and nothing is deleted in vain
    for thing in going:
        try:
            thing.delete()
        except FileNotFoundError:
            pass  # another upload was faster
    return True
