"""Tuned models as files: what tuning changed and how far it is, and the whole network in the published layout."""

import errno
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.cards import Source
from pipelines.catalog import TUNED
from pipelines.media import video
from pipelines.messages import said
from pipelines.models.files import check_shipped, part_folder, read_json
from pipelines.models.sources import locate
from pipelines.settings import Settings

FILE = "tuned.safetensors"


@dataclass
class Tuned:
    """A model tuned on a clip, by what makes it differ from its base."""

    facts: dict[str, Any]  # base (hash), task, frames, width, height, fps, losses of the steps done
    delta: dict[str, Tensor]  # the trained parameters, fp32, by their names in the network
    latents: Tensor  # (1, c, f, h, w), scaled: the clip itself
    moments: dict[str, Tensor] = field(default_factory=dict)  # the optimizer's, for going on; empty once it is done

    @property
    def steps(self) -> int:
        """Of tuning, that have been made."""
        return len(self.facts["losses"])


def save(tuned: Tuned, folder: Path) -> None:
    """Writes `tuned` to `folder`, whole or not at all. Raises OSError where the disk is full."""
    tensors = {f"delta/{name}": tensor for name, tensor in tuned.delta.items()}
    tensors |= {f"moments/{name}": tensor for name, tensor in tuned.moments.items()}
    _write(tensors | {"latents": tuned.latents}, folder / FILE, tuned.facts)
    with video.whole(folder / "tuned.json") as file:  # for those who only want to know what there is
        file.write_text(json.dumps(tuned.facts, ensure_ascii=False), "utf-8")


def load(folder: Path) -> Tuned:
    """Raises ValueError where the file is missing, damaged or no tuned model."""
    try:
        with safe_open(folder / FILE, framework="pt") as content:
            facts = json.loads(content.metadata()["facts"])
        tensors = load_file(folder / FILE)
        parts: dict[str, dict[str, Tensor]] = {"delta": {}, "moments": {}}
        latents = tensors.pop("latents")
        for name, tensor in tensors.items():
            kind, _, name = name.partition("/")
            parts[kind][name] = tensor
    except FileNotFoundError as error:
        raise ValueError(said("There is no tuned model in {name}. Tune on a clip first.", name=folder.name)) from error
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(said("The tuned model is damaged. Tune on the clip once more.")) from error
    check_shipped(folder / FILE)
    if not all(torch.isfinite(tensor).all() for tensor in (latents, *parts["delta"].values())):
        raise ValueError(
            said("The tuned model is damaged: it holds values that are no numbers. Tune on the clip once more.")
        )
    return Tuned(facts, parts["delta"], latents, parts["moments"])


def save_inversion(trajectory: Tensor, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Keeps the latents of an inversion, (steps + 1, 1, c, f, h, w), for every edit in as many steps and this `dtype`
    of the network. A built-in model is only read: of that, nothing is kept."""
    if folder.resolve().is_relative_to(TUNED):
        return
    _write({"latents": trajectory}, _inversion(len(trajectory) - 1, folder, dtype), {})


def load_inversion(steps: int, folder: Path, dtype: torch.dtype = torch.float32) -> Tensor | None:
    """The latents kept for `steps`; None where there are none, or none that can be read: they can be made again."""
    try:
        return load_file(_inversion(steps, folder, dtype))["latents"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _inversion(steps: int, folder: Path, dtype: torch.dtype) -> Path:
    """bfloat16 is chosen by the task and has files of its own; other precisions come with the device."""
    return folder / f"inversion-{steps}{'-bfloat16' if dtype == torch.bfloat16 else ''}.safetensors"


def forget(folder: Path) -> None:
    """Drops the tuned model in `folder`, if there is one."""
    for name in ("tuned.json", FILE):
        (folder / name).unlink(missing_ok=True)
    forget_inversions(folder)


def forget_inversions(folder: Path) -> None:
    """Drops what was kept: the model has changed since."""
    for file in folder.glob("inversion-*.safetensors"):
        file.unlink()


def export(unet: torch.nn.Module, source: Source, settings: Settings, target: Path) -> None:
    """Writes the network, with the other parts of the Stable Diffusion `source`, in the layout that is published.

    `unet` holds the tuned parameters. Whoever loads `target`, here or with the original program, has the tuned model.
    """
    base = locate(source, settings)
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(part_folder(base, part), target / part)
    (target / "unet").mkdir()
    config = read_json(part_folder(base, "unet") / "config.json")
    kinds = {key: [name.replace("2D", "3D") for name in config[key]] for key in ("down_block_types", "up_block_types")}
    config |= {"_class_name": "UNet3DConditionModel", "mid_block_type": "UNetMidBlock3DCrossAttn", **kinds}
    (target / "unet" / "config.json").write_text(json.dumps(config, indent=2))
    state = {name: tensor.float().cpu().contiguous() for name, tensor in unet.state_dict().items()}
    save_file(state, target / "unet" / "diffusion_pytorch_model.safetensors")
    parts = {
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["models", "UNet3DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    (target / "model_index.json").write_text(json.dumps({"_class_name": "TuneAVideoPipeline", **parts}, indent=2))


def _write(tensors: dict[str, Tensor], file: Path, facts: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with video.whole(file) as temporary:
            save_file(content, temporary, {"facts": json.dumps(facts)})
    except (OSError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC or "No space left" in str(error)
        reason = said("the disk is full. Free some space, then resume")
        if not full:
            reason = said("{error}. Resume to try again", error=str(error))
        raise OSError(said("The tuned model could not be saved: {reason}.", reason=reason)) from error
