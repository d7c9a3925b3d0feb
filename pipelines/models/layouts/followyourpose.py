"""FollowYourPose's layout: a checkpoint of the whole inflated UNet; the other parts are those of Stable Diffusion."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from pipelines.cards import Source
from pipelines.messages import said
from pipelines.models import weights
from pipelines.models.classes import empty
from pipelines.models.convert.cache import converted
from pipelines.models.files import part_folder, read_json
from pipelines.models.layouts.diffusers import POSE, Diffusers, Stored
from pipelines.settings import Settings

CHECKPOINT = r"followyourpose_checkpoint-(\d+)/pytorch_model\.bin"  # as accelerate writes it
POSE_ENCODER = "pose_encoder.pth"  # the adapter alone


class FollowYourPose(Diffusers):
    """As YueMafighting/FollowYourPose_v1 has it."""

    mark = POSE_ENCODER

    def recognises(self, names: Collection[str]) -> bool:
        return longest_trained(names) is not None

    def check(self, folder: Path, part: str, variant: str | None) -> None:
        if part != "unet":
            super().check(folder, part, variant)

    def downloads(self, names: Collection[str], parts: Sequence[str], variant: str | None) -> list[str]:
        return [Diffusers.mark, _checkpoint(names), POSE_ENCODER, *super().downloads(names, parts, variant)[1:]]

    def inflated_unet(self, folder: Path, variant: str | None, settings: Settings, base: Callable[[], Path]) -> Stored:
        checkpoint = folder / _checkpoint(path.relative_to(folder).as_posix() for path in folder.glob("*/*.bin"))
        whole = base()
        super().check_editable(whole)
        file = part_folder(whole, "unet") / "config.json"
        config = {**read_json(file), "_class_name": "InflatedUNet", "pose": True}

        def convert() -> tuple[dict[str, Any], dict[str, Any]]:
            tensors = dict(weights.read(checkpoint))
            if not any(name.startswith("skeleton_adapter.") for name in tensors):
                adapter = weights.read(folder / POSE_ENCODER)
                tensors |= {f"skeleton_adapter.{name}": tensor for name, tensor in adapter}
            wrong = tensors.keys() ^ empty(config, file.parent).state_dict().keys()
            if wrong:
                raise ValueError(
                    said(
                        "{checkpoint} is not FollowYourPose's UNet for {parent}: see {part}. Download this model "
                        "once more.",
                        checkpoint=checkpoint,
                        parent=file.parent,
                        part=min(wrong),
                    )
                )
            return config, tensors

        return Stored(converted("inflated_unet", [checkpoint, file], convert, settings))

    def check_editable(self, folder: Path) -> None:
        """Its UNet is inflated already."""

    def base_within(self, folder: Path) -> Source | None:
        if (folder / Diffusers.mark).is_file():
            return None  # the folder has all parts itself
        bases = sorted(folder.glob("*/model_index.json"))
        if not bases:
            raise ValueError(
                said(
                    "{folder} holds FollowYourPose without Stable Diffusion 1.4: put its folder into it.", folder=folder
                )
            )
        return Source(str(bases[0].parent))

    def pipeline(self, folder: Path) -> str | None:
        return POSE


def _checkpoint(names: Iterable[str]) -> str:
    """As `longest_trained`, of names among which there is one: by that the layout is recognised."""
    found = longest_trained(names)
    assert found is not None
    return found


def longest_trained(names: Iterable[str]) -> str | None:
    """The checkpoint among `names` that was trained for the most steps; None where there is none."""
    steps = {name: int(match[1]) for name in names if (match := re.fullmatch(CHECKPOINT, name))}
    return max(steps, key=steps.__getitem__, default=None)
