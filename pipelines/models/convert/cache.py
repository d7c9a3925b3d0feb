"""A cache of converted weights: the same files are converted once."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.messages import said
from pipelines.models.files import content_hash
from pipelines.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

CONVERTER = 1  # to be raised whenever a conversion changes, so that older converted files are not used


def converted(
    part: str,
    files: Sequence[Path],
    convert: Callable[[], tuple[dict[str, Any], dict[str, "Tensor"]]],
    settings: Settings,
) -> Path:
    """The folder in the cache that holds a part of a model in diffusers layout, converted from `files`.

    If these files are asked for the first time, `convert` is called for the part's config and weights. What it raises
    leaves nothing behind.
    """
    hashes = [content_hash(path, settings) for path in files]
    identity = hashlib.sha256(" ".join([str(CONVERTER), part, *hashes]).encode()).hexdigest()
    target = settings.cache / "converted" / identity[:32]
    if target.is_dir():
        return target
    config, weights = convert()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=target.parent))
    except OSError as error:
        raise ValueError(
            said(
                "This model must be converted, and the cache can't be written ({reason}). The owner of this app can "
                "set MARIONETTE_CACHE to another folder.",
                reason=error.strerror,
            )
        ) from error
    try:
        from safetensors.torch import save_file

        name = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, draft / f"{name}.safetensors")
        (draft / "config.json").write_text(json.dumps(config, indent=2))
        try:
            os.rename(draft, target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target
