"""The tensors of a weight file, safetensors or pickle, one after the other."""

import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.messages import said


def read(file: Path) -> Iterator[tuple[str, Any]]:
    """Names and tensors of `file`. Pickles are opened for tensors only. Raises ValueError for a damaged file, and for
    one that holds more than weights."""
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as content:
                for name in content.keys():
                    yield name, content.get_tensor(name)
        else:
            yield from _read_pickle(file).items()
    except pickle.UnpicklingError as error:
        raise ValueError(
            said(
                "{file} is damaged or holds more than weights, so it was not opened. Download this model once more.",
                file=file,
            )
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(said("{file} is damaged or incomplete. Download this model once more.", file=file)) from error


class _Inert(dict):
    """Stands for an object of PyTorch Lightning, which whole training checkpoints hold beside their tensors."""


def _read_pickle(file: Path) -> dict[str, Any]:
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    is_archive = zipfile.is_zipfile(file)  # since torch 1.6; older ones can be read, but not bit by bit
    named = get_unsafe_globals_in_checkpoint(file) if is_archive else []
    inert: list[Any] = [(_Inert, name) for name in named if name.startswith("pytorch_lightning.")]
    with safe_globals(inert):
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    if not isinstance(content, dict):
        raise ValueError(said("{file} holds no weights by name. Download this model once more.", file=file))
    return content
