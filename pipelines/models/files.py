"""Files of models: JSON, folders of parts, and what identifies a file's content. Nothing here reads a weight."""

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.catalog import MINIATURES
from pipelines.messages import said
from pipelines.settings import Settings

CHECKSUMS = MINIATURES.parent / "checksums.txt"
OnProgress = Callable[[int, int], None]  # (bytes done, bytes in all)

log = logging.getLogger(__name__)


def read_json(path: Path) -> dict[str, Any]:
    """Raises ValueError naming the file where it is missing or no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(said("{path} is missing. Download this model once more.", path=path)) from error
    except (OSError, ValueError) as error:
        raise ValueError(said("{path} can't be read as JSON. Download this model once more.", path=path)) from error
    if not isinstance(content, dict):
        raise ValueError(said("{path} can't be read as JSON. Download this model once more.", path=path))
    return content


def part_folder(folder: Path, part: str) -> Path:
    """The folder of one part of a model in diffusers layout.

    The built-in miniatures share parts: `components.json` says where they lie. No other folder may point elsewhere.
    """
    if (folder / "components.json").is_file() and folder.resolve().is_relative_to(MINIATURES):
        shared = read_json(folder / "components.json")
        return (folder / shared.get(part, part)).resolve()
    return folder / part


def is_shared(file: Path) -> bool:
    """Whether `file`, which a model's folder names and has not, is another built-in miniature's: they share weights as
    they share parts. No other folder may point elsewhere."""
    return all(path.is_relative_to(MINIATURES) for path in (file.absolute(), file.resolve())) and file.is_file()


def content_hash(path: Path, settings: Settings) -> str:
    """SHA-256 of a file, remembered in the cache until its size or time changes.

    A file in the Hub's cache is named by the hash that it must have: raises ValueError where it has another.
    """
    real, status = path.resolve(), path.stat()
    ticket = hashlib.sha256(f"{real} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    remembered = settings.cache / "hashes" / ticket[:32]
    if remembered.is_file():
        digest = remembered.read_text()
    else:
        with real.open("rb") as file:
            digest = _sha256(file)
        try:
            write_whole(remembered, digest.encode())
        except OSError:  # a cache that can't be written only costs time
            log.debug("The hash of %s is not remembered", path)
    if re.fullmatch("[0-9a-f]{64}", real.name) and real.name != digest:
        raise ValueError(
            said(
                "{path} is damaged: its content is not what the Hub has. Delete {real} and try again.",
                path=path,
                real=real,
            )
        )
    return digest


def check_shipped(path: Path) -> None:
    """Raises ValueError where `path` is one of the app's own weights and is not what was shipped: a bit has flipped.

    The hashes stand in assets/checksums.txt, as sha256sum writes them. Other files are not looked at.
    """
    real = path.resolve()
    if not real.is_relative_to(CHECKSUMS.parent.resolve()):
        return
    wanted = _shipped().get(real.relative_to(CHECKSUMS.parent.resolve()).as_posix())
    if wanted is None:
        return
    with real.open("rb") as file:
        if _sha256(file) != wanted:
            raise ValueError(
                said("{path} is damaged: this app comes with another file. Install the app once more.", path=path)
            )


@lru_cache
def _shipped() -> dict[str, str]:
    """The hashes of the app's own weights, by their paths in the folder of the list."""
    lines = CHECKSUMS.read_text("utf-8").splitlines() if CHECKSUMS.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _sha256(file) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**22):
        digest.update(block)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a small file so that nobody ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)
