"""What a large text encoder has read, kept among the data: a prompt that comes back does not bring the encoder back.

A file a text, named by a hash of it and of all that its states depend on. The text itself stands nowhere.
"""

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from pipelines.models.convert import states
from pipelines.settings import Settings

MOST = 2**30  # bytes of all together; a prompt of a hundred words takes one or two million

log = logging.getLogger(__name__)


class TextStates:
    """Those of one encoder. What can't be read counts as not there, and what can't be written is left."""

    def __init__(self, settings: Settings, identity: str, length: int, most: int = MOST):
        """`identity` is all that the states depend on beside the text: the weights, the tokenizer, the dtype.

        Each text has states for `length` tokens. Where all files take more than `most` bytes, those unused for longest
        go.
        """
        self._folder, self._length, self._most = settings.texts.absolute(), length, most
        self._identity = f"{identity}, {length} tokens"

    def get(self, text: str) -> Tensor | None:
        """The states of `text` (length, c), on the CPU; None where they are not there."""
        file = self._file(text)
        try:
            state = states.load(file, torch.device("cpu"))
            if state is None:
                return None
            found = state["states"]
            whole = state["digest"] == _digest(found) and 0 < len(found) <= self._length
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is damaged, and its text is read anew: %s", file.name, error)
            return None
        if not whole:
            log.warning("%s is damaged, and its text is read anew.", file.name)
            return None
        with suppress(OSError):
            os.utime(file)
        return torch.cat([found, found.new_zeros(self._length - len(found), found.shape[1])])  # (length, c)

    def keep(self, text: str, found: Tensor) -> None:
        """Writes the states of `text` (length, c), whole or not at all; the zeros after its end are left out."""
        if not torch.isfinite(found).all():
            return  # the next attempt may read it well
        used = found.any(dim=1).nonzero()
        found = found[: int(used.max()) + 1 if len(used) else 1].contiguous()
        try:
            states.save({"states": found, "digest": _digest(found)}, self._file(text))
            self._make_room()
        except OSError as error:  # the disk is full: the text is read anew the next time
            log.warning("What a text was read as could not be written: %s", error)

    def _file(self, text: str) -> Path:
        name = hashlib.sha256(f"{self._identity}\n{text}".encode()).hexdigest()
        return self._folder / f"{name}.safetensors"

    def _make_room(self) -> None:
        files = []
        for file in self._folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):  # another process makes room too
                files.append((file.stat().st_mtime, file.stat().st_size, file))
        excess = sum(size for _, size, _ in files) - self._most
        for _, size, file in sorted(files):
            if excess <= 0:
                return
            file.unlink(missing_ok=True)
            excess -= size


def _digest(found: Tensor) -> str:
    return hashlib.sha256(found.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
