"""diffusers' layout with a part, TempoFunk's UNet, whose weights are FLAX's: one file of msgpack."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipelines.messages import said
from pipelines.models.classes import empty
from pipelines.models.convert.cache import converted
from pipelines.models.files import part_folder, read_json
from pipelines.models.layouts.diffusers import FLAX, Diffusers, Stored, choose_weights, weight_files
from pipelines.settings import Settings


class Msgpack(Diffusers):
    """As TempoFunk/makeavid-sd-jax has it."""

    def recognises(self, names: Collection[str]) -> bool:
        parts = {name.partition("/")[0] for name in names if name.endswith(f"/{FLAX}")}
        return any(choose_weights([name.removeprefix(f"{part}/") for name in names], None) == FLAX for part in parts)

    def module(self, folder: Path, part: str, variant: str | None, settings: Settings) -> Stored:
        here = part_folder(folder, part)
        if weight_files(here, variant)[0].name != FLAX:
            return super().module(folder, part, variant, settings)
        source, config = here / FLAX, read_json(here / "config.json")

        def convert() -> tuple[dict[str, Any], dict[str, Any]]:
            from pipelines.models.convert import flax

            wanted = {name: list(tensor.shape) for name, tensor in empty(config, here).state_dict().items()}
            try:
                with source.open("rb") as file:
                    tensors = flax.read_weights(file, source.stat().st_size)
            except EOFError as error:
                raise ValueError(
                    said("{source} is damaged or incomplete. Download this model once more.", source=source)
                ) from error
            except flax.NotFlax as error:
                raise ValueError(
                    said(
                        "{source} holds no weights written by FLAX: {error}. Download this model once more.",
                        source=source,
                        error=str(error),
                    )
                ) from error
            found = {name: list(tensor.shape) for name, tensor in tensors.items()}
            if found != wanted:
                wrong = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
                raise ValueError(
                    said(
                        "{source} does not fit the network in {config}: see {names}.",
                        source=source,
                        config=here / "config.json",
                        names=", ".join(wrong[:3]),
                    )
                )
            return config, tensors

        return Stored(converted("unet", [source, here / "config.json"], convert, settings), variant)
