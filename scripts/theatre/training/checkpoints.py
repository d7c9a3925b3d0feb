"""Where a stage starts: from nothing, or from weights that an earlier session left."""

from pathlib import Path

import torch


def go_on_from(start: Path | None, part: str, module: torch.nn.Module) -> None:
    """Gives `module` the weights that lie as `part` in the folder `start`, if there are any."""
    if start and (start / part).exists():
        module.load_state_dict(type(module).from_pretrained(start / part, torch_dtype=torch.float32).state_dict())
