"""Moves the files of a work between machines without a shared disk: what it needs goes out, what it writes comes back.

Files are named by their path within the data folder, with slashes. Standard library and media.video only.
"""

import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.media import video
from pipelines.serving import sidecar
from pipelines.serving.executor import BUILT_IN, CHECKPOINTS, Asset, Work

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # of a file or folder that may come back
KEPT_BYTES = 4 * 2**30  # of inputs that a worker keeps for further works


class TransferError(Exception):
    """A file is not what, or where, it must be: nothing that a visitor could do anything about."""


@dataclass(frozen=True)
class Changes:
    """Files that a work has written, and those that it has deleted."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.gone)


def needed(work: Work, data: Path) -> dict[str, Path]:
    """The files that `work` is carried out from: those of its assets, and what its job's folder holds to go on from."""
    data = data.absolute()
    found = _files(data / "videos" / work.job) if work.job else []
    for asset in _assets(work):
        path = asset.path(data)
        found += [path] if path.is_file() else _files(path)
        if asset.kind == "clips":
            found += [file for file in _files(path.parent) if file.name.startswith("people-")]  # found in it before
    return {file.relative_to(data).as_posix(): file for file in found}


def watched(work: Work) -> tuple[str, ...]:
    """The folders in which `work` may write, the job's own first where it is a job's: beside a clip goes who was found
    in it, and beside a tuned model what an edit has worked out of it."""
    own = [f"videos/{work.job}"] if work.job else []
    assets = [f"{one.kind}/{one.name}" for one in _assets(work) if one.kind in ("clips", "videos")]
    return tuple(dict.fromkeys([*own, *assets]))


def unpack(changes: Changes, work: Work, data: Path) -> None:
    """Makes the `changes` among the data of the app, each file whole or not at all.

    In the job's own folder everything is changed but its sidecar; elsewhere files are added and none replaced. Raises
    TransferError for a file that is not the work's, and OSError where one can't be written; a checkpoint that
    can't be is left out.
    """
    own = f"videos/{work.job}" if work.job else None
    for name, content in changes.files.items():
        path, is_own = _place(name, work, data), own is not None and name.startswith(f"{own}/")
        if is_own:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif path.exists() or not path.parent.is_dir():
            continue
        try:
            with video.whole(path) as draft:
                draft.write_bytes(content)
        except OSError:
            if not (is_own and name.startswith(f"{own}/{CHECKPOINTS}/")):
                raise
    for name in changes.gone:
        path = _place(name, work, data)
        if own is not None and name.startswith(f"{own}/"):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                if path.parent != data.absolute() / own:
                    path.parent.rmdir()  # if it is empty


def digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Watch:
    """What changes under some folders, from one look to the next; files are taken once they are complete."""

    def __init__(self, data: Path, folders: Iterable[str]):
        self._data, self._folders = data.absolute(), tuple(folders)
        self._seen = self._look()
        self._told = dict(self._seen)

    def changes(self, ended: bool = False) -> Changes:
        """What has changed since the last call. Unless the work has `ended`, a file is taken when it is as it was at
        the last call, or has taken that one's place."""
        seen, before = self._look(), self._seen
        self._seen = seen
        files = {}
        for name, state in seen.items():
            last = before.get(name)
            is_complete = ended or last is not None and (state == last or state[-1] != last[-1])
            if state == self._told.get(name) or not is_complete:
                continue
            with suppress(FileNotFoundError):  # replaced, or deleted, since
                with (self._data / name).open("rb") as file:
                    self._told[name] = _state(os.fstat(file.fileno()))
                    files[name] = file.read()
        gone = tuple(name for name in self._told if name not in seen)
        for name in gone:
            del self._told[name]
        order = sorted(files, key=lambda name: self._told[name])  # as they were written
        return Changes({name: files[name] for name in order if name in self._told}, gone)

    def _look(self) -> dict[str, tuple]:
        found = {}
        for folder in self._folders:
            for file in _files(self._data / folder):
                with suppress(OSError):
                    found[file.relative_to(self._data).as_posix()] = _state(file.stat())
        return found


class Inputs:
    """The inputs on a worker's own disk: each content once, laid out as the works have them while any goes on."""

    def __init__(self, folder: Path, fetch: Callable[[Any], bytes]):
        """`fetch` gets the content of a file from what stands for it."""
        self.data = folder / "data"
        self._kept, self._fetch = folder / "contents", fetch
        self._going, self._lock = 0, threading.Lock()
        self.data.mkdir()
        self._kept.mkdir()

    def lay_out(self, files: Mapping[str, tuple[str, list[Any]]], own: str | None) -> None:
        """Puts `files`, each a hash and what stands for its content, where a work expects them.

        Those in the folder `own` are copies, which may be written to. Every call wants one of `clear`.
        """
        with self._lock:
            self._going += 1
            for name, (sha, content) in files.items():
                kept, path = self._kept / sha, self.data / name
                if not kept.exists():
                    with video.whole(kept) as draft:
                        draft.write_bytes(self._fetch(content[0]))
                    if digest(kept) != sha:
                        kept.unlink()
                        raise TransferError(f"{name} has arrived damaged.")
                os.utime(kept)
                path.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=path.parent, prefix=".", suffix=".part") as draft:
                    copy = Path(draft) / "copy"
                    if own is not None and name.startswith(f"{own}/"):
                        shutil.copyfile(kept, copy)
                    else:
                        _link(kept, copy)
                    copy.replace(path)

    def clear(self) -> None:
        """A work has ended: where no other goes on, nothing of theirs stays but the contents used last."""
        with self._lock:
            self._going -= 1
            if self._going:
                return
            for kind in ("clips", "images", "videos"):
                shutil.rmtree(self.data / kind, ignore_errors=True)
            total = 0
            for file in sorted(self._kept.iterdir(), key=lambda file: -file.stat().st_mtime):
                total += file.stat().st_size
                if total > KEPT_BYTES:
                    file.unlink()

    def forget(self) -> None:
        """Deletes the contents that are kept."""
        with self._lock:
            for file in self._kept.iterdir():
                file.unlink()


def _assets(work: Work) -> list[Asset]:
    found = []
    for asset in work.assets.values():
        several = (asset,) if isinstance(asset, Asset) else asset
        found += [one for one in several if isinstance(one, Asset) and one.kind != BUILT_IN]
    return found


def _files(folder: Path) -> list[Path]:
    """The complete files under `folder`, but for sidecars."""
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if _is_complete(name)]
        found += [Path(path) / name for name in names if _is_complete(name) and name != sidecar.NAME]
    return found


def _is_complete(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".part")


def _state(stat: os.stat_result) -> tuple:
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _place(name: str, work: Work, data: Path) -> Path:
    """The path of the file `name`. Raises TransferError where `work` has no business with it."""
    parts = PurePosixPath(name).parts
    within = any(name.startswith(f"{folder}/") for folder in watched(work))
    if not (within and all(NAME.fullmatch(part) for part in parts)) or parts[-1] == sidecar.NAME:
        raise TransferError(f"A worker sent a file that is not its own: {name!r}.")
    path = data.absolute() / name
    folder = data.absolute() / parts[0] / parts[1]
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise TransferError(f"A worker sent a file that is not its own: {name!r}.")
    return path


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
