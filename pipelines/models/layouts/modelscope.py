"""ModelScope's original layout: configuration.json and three pickles beside it."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pipelines.catalog import CATALOG
from pipelines.messages import said
from pipelines.models import weights
from pipelines.models.convert.cache import converted
from pipelines.models.files import read_json
from pipelines.models.layouts.diffusers import Diffusers, Stored
from pipelines.settings import Settings

FILES = {  # parts -> the key of `model.model_args` under which configuration.json names their file
    "text_encoder": "ckpt_clip",
    "unet": "ckpt_unet",
    "vae": "ckpt_autoencoder",
}


class ModelScope(Diffusers):
    """As modelscope.cn has it. It holds no vocabulary (OpenCLIP's code does) and no schedule."""

    mark = "configuration.json"
    tokenizer_source = CATALOG["modelscope-1.7b"].source
    pad_with_zero = True

    def recognises(self, names: Collection[str]) -> bool:
        return self.mark in names and Diffusers.mark not in names

    def check(self, folder: Path, part: str, variant: str | None) -> None:
        if part in FILES:
            self.pickle(folder, part)

    def downloads(self, names: Collection[str], parts: Sequence[str], variant: str | None) -> list[str]:
        pickles = [name for name in names if "/" not in name and name.endswith((".pth", ".bin"))]
        return [self.mark, *pickles, *(name for name in names if name.startswith("tokenizer/"))]

    def scheduler(self, folder: Path) -> dict[str, Any]:
        from pipelines.models.convert.modelscope import SCHEDULER

        return {**SCHEDULER, "num_train_timesteps": _model_cfg(folder).get("num_timesteps", 1000)}

    def module(self, folder: Path, part: str, variant: str | None, settings: Settings) -> Stored:
        source = self.pickle(folder, part)

        def convert() -> tuple[dict[str, Any], dict[str, Any]]:
            from pipelines.models.convert import modelscope

            tensors = dict(weights.read(source))
            try:
                if part == "unet":
                    return modelscope.unet(tensors, _model_cfg(folder))
                return modelscope.vae(tensors) if part == "vae" else modelscope.text_encoder(tensors)
            except (KeyError, IndexError, AttributeError, TypeError) as error:
                raise ValueError(
                    said(
                        "{source} is not ModelScope's {part}: {error} was not found in it.",
                        source=source,
                        part=part,
                        error=str(error),
                    )
                ) from error

        return Stored(converted(part, [source, folder / self.mark], convert, settings), variant)

    def pickle(self, folder: Path, part: str) -> Path:
        """The file of `part`. Raises ValueError where it is missing."""
        try:
            name = read_json(folder / self.mark)["model"]["model_args"][FILES[part]]
        except (KeyError, TypeError) as error:
            raise ValueError(
                said("{file} is not that of a ModelScope text-to-video model.", file=folder / self.mark)
            ) from error
        path = folder / Path(name).name
        if not path.is_file():
            raise ValueError(said("{path} is missing. Download this model once more.", path=path))
        return path

    def pipeline(self, folder: Path) -> str | None:
        return "TextToVideoSDPipeline"

    def clip_size(self, folder: Path) -> tuple[int, int]:
        return read_json(folder / self.mark).get("model", {}).get("model_args", {}).get("max_frames", 16), 256


def _model_cfg(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "configuration.json")["model"]["model_cfg"]
    except (KeyError, TypeError) as error:
        raise ValueError(
            said("{file} is not that of a ModelScope text-to-video model.", file=folder / "configuration.json")
        ) from error
