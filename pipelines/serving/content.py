"""What a task works on, by its content: how a file that leaves the app names it, so that it holds no id.

A task in the table names clips, images, tuned models and videos by ids. In the files that are made of it, and in what
is told of it, the SHA-256 of each one's content stands in their place; who drops such a file on the page finds it again
among their own things, or among what comes with the app.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pipelines.catalog import tuned_models
from pipelines.media import video
from pipelines.media.images import Images
from pipelines.serving.clip_storage import Clips
from pipelines.serving.storage import Storage
from pipelines.serving.table import JobTable
from pipelines.tasks import NOBODY, Task, renamed

WEIGHTS = "tuned.safetensors"  # in a tuned model's folder


class Contents:
    """Finds content by name, and names by content, among what one owner has."""

    def __init__(self, jobs: JobTable, storage: Storage, clips: Clips, images: Images):
        self._jobs, self._storage, self._clips, self._images = jobs, storage, clips, images

    def public(self, task: Task, owner: str) -> Task:
        """`task` with the content of each thing, where it named that; NOBODY for what is gone."""
        return renamed(task, lambda part, name: self._digest(part, name, owner))

    def own(self, task: Task, owner: str) -> Task:
        """The other way: `task` with the names of the owner's own things; NOBODY for what is not among them. What is
        named by an id, as in older files, stays so."""
        return renamed(task, lambda part, name: self._found(part, name, owner) if len(name) == 64 else name)

    def _digest(self, part: str, name: str, owner: str) -> str:
        try:
            match part:
                case "clip":
                    return digest(self._clips.get(name, owner).file)
                case "image" | "mask" | "reference":
                    return digest(self._images.get(name, owner))
                case "tuned" if name in tuned_models():
                    return _built_in(name)
                case "tuned":
                    return digest(self._storage.tuned(self._jobs.get(name, owner).id) / WEIGHTS)
            return digest(self._storage.place(self._jobs.get(name, owner)))
        except (ValueError, OSError):
            return NOBODY

    def _found(self, part: str, content: str, owner: str) -> str:
        if part == "tuned":
            for name in tuned_models():
                if _built_in(name) == content:
                    return name
        for name, file in self._candidates(part, owner):
            try:
                if digest(file) == content:
                    return name
            except OSError:  # deleted in the meantime, or by hand
                continue
        return NOBODY

    def _candidates(self, part: str, owner: str) -> Iterator[tuple[str, Path]]:
        """The owner's things that a task may name as `part`, newest first where that is known."""
        match part:
            case "clip":
                yield from self._clips.of(owner)
            case "image" | "mask" | "reference":
                yield from self._images.of(owner)
            case "tuned":
                yield from ((job.id, self._storage.tuned(job.id) / WEIGHTS) for job in self._jobs.tunings(owner))


@lru_cache
def _built_in(name: str) -> str:
    """As `digest`, of a built-in tuned model: nothing is written among the app's own files."""
    with (tuned_models()[name] / WEIGHTS).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digest(file: Path) -> str:
    """The SHA-256 of the content of `file`, which is remembered beside it. Raises OSError where there is none."""
    stat, note = file.stat(), file.with_name(f".{file.name}.sha256")
    as_it_is = [stat.st_size, stat.st_mtime_ns]
    try:
        *measured, known = json.loads(note.read_text("utf-8"))
        if measured == as_it_is:
            return known
    except (OSError, ValueError, TypeError):  # not yet, or damaged
        pass
    hashed = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(2**20):
            hashed.update(piece)
    computed = hashed.hexdigest()
    with video.whole(note) as new:
        new.write_text(json.dumps([*as_it_is, computed]), "utf-8")
    return computed
