"""The state of something that computes, as one file: tensors, and numbers and lists around them, by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipelines.media import video


def save(state: Mapping[str, Any], file: Path) -> None:
    """Writes `state`, of which JSON takes all but the tensors, whole or not at all. Raises OSError where it can't."""
    tensors: dict[str, Tensor] = {}
    told = _packed("", dict(state), tensors)
    content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with video.whole(file) as temporary:
            save_file(content, temporary, {"state": json.dumps(told)})
    except SafetensorError as error:  # it may stand for a full disk
        raise OSError(str(error)) from error


def load(file: Path, device: torch.device) -> dict[str, Any] | None:
    """What was saved in `file`, its tensors on `device`; None where there is nothing. Raises ValueError where it is
    damaged, or something else."""
    try:
        with safe_open(file, framework="pt", device="cpu") as content:
            told = json.loads(content.metadata()["state"])
            # Copied to where tensors usually begin: products of matrices round differently at other addresses.
            tensors = {name: content.get_tensor(name).clone().to(device) for name in content.keys()}
        return _unpacked(told, tensors)
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{file.name} holds no state that can be read: {error}") from error


def _packed(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` for JSON: its tensors go to `tensors`, and their names there stand for them."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"of": {key: _packed(f"{name}.{key}", each, tensors) for key, each in value.items()}}
    if isinstance(value, list):
        return [_packed(f"{name}.{index}", each, tensors) for index, each in enumerate(value)]
    return value


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "of" in value:
            return {key: _unpacked(each, tensors) for key, each in value["of"].items()}
        return tensors[value["tensor"]]
    return [_unpacked(each, tensors) for each in value] if isinstance(value, list) else value
