"""What a browser may load: a folder that holds nothing else, under names that nobody can guess. Standard library only.

Whoever has the address of one file has that file, and nothing more: an address holds no id, and none leads to another.
"""

import os
import shutil
from pathlib import Path

from pipelines.media import video
from pipelines.serving.owners import Owners
from pipelines.settings import Settings

SEEN = (".mp4", ".gif", ".webm", ".zip", "-keypoints.json")  # how the name of a file ends that may be seen


class Shown:
    """The folder `public/shown` among the data: a folder for a job or a clip, and in it one for each of its files."""

    def __init__(self, settings: Settings):
        self._data = settings.data.resolve()
        self._folder = settings.shown.resolve()
        self._owners = Owners(settings)

    def clear(self) -> None:
        """Takes away what has outlived its job or clip, at the start."""
        for group in self._folder.glob("*"):
            if not any(file.stat().st_nlink > 1 for file in group.glob("*/*")):  # or a copy: made anew when wanted
                shutil.rmtree(group, ignore_errors=True)

    def address(self, file: Path) -> str | None:
        """Where the web server finds `file`, a video or the like of a job or a clip, from now on; None where there is
        no such file any more. It is relative to the folder that the server runs in, where that is above.

        Raises ValueError for any file that is not to be seen.
        """
        file = file.resolve()
        if not file.is_relative_to(self._data):  # as the folder was called before it was moved
            return None
        kind, *rest = file.relative_to(self._data).parts
        if kind not in ("videos", "clips") or len(rest) != 2 or not file.name.endswith(SEEN):
            raise ValueError(f"{file.name} is not for a browser.")
        thing, name = rest
        shown = self._group(kind, thing) / self._owners.token("file", kind, thing, name)[:32] / name
        try:
            _link(file, shown)
        except FileNotFoundError:
            return None
        return _here(shown)

    def built_in(self, file: Path) -> str:
        """Where the web server finds `file`, a picture or a video that belongs to the app itself. As `address`."""
        shown = self._folder / "built-in" / file.parent.name / file.name
        _link(file, shown)
        return _here(shown)

    def forget(self, kind: str, thing: str) -> None:
        """Takes away what is shown of a job ("videos") or of a clip ("clips")."""
        shutil.rmtree(self._group(kind, thing), ignore_errors=True)

    def _group(self, kind: str, thing: str) -> Path:
        return self._folder / self._owners.token("shown", kind, thing)[:32]


def _here(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _link(file: Path, shown: Path) -> None:
    """Makes `shown` the same file as `file`, or where that can't be, as on a bucket, a copy of it."""
    here = file.stat()
    try:
        there = shown.stat()
        if os.path.samestat(here, there) or (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns):
            return
    except FileNotFoundError:
        shown.parent.mkdir(parents=True, exist_ok=True)
    draft = shown.parent / f".{os.urandom(8).hex()}"
    try:
        os.link(file, draft)
    except FileNotFoundError:
        raise
    except OSError:
        with video.whole(draft) as temporary:
            shutil.copy2(file, temporary)
    draft.replace(shown)
    draft.unlink(missing_ok=True)  # a link that took the place of a link to the same file stays
