"""Model sources -> modules. The only place that reads weights.

`component` finds a part of a model, tells its identity, and how to load it. A module is built without memory ("meta")
and then given the tensors of its files as they are stored; the manager decides on dtype and device. torch is imported
only where weights are touched: the page asks `availability` before any job.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.catalog import CATALOG, CLIP, ModelCard
from pipelines.settings import Settings
from pipelines.sources import (
    AGAIN,
    OnProgress,
    availability,
    card_of_folder,
    clip_folder,
    content_hash,
    is_original,
    locate,
    original_file,
    part_folder,
    read_json,
    weight_files,
)

__all__ = ["Component", "availability", "card_of_folder", "clip_component", "component"]

CONVERTER = 1  # to be raised whenever a conversion changes, so that older converted files are not used


@dataclass(frozen=True)
class Component:
    """A part of a model that can be loaded. Equal keys mean equal weights and configs, wherever they came from."""

    key: str
    bytes: int  # of its files; 0 for what is no module
    load: Callable[[OnProgress], Any]  # called with a function that is told bytes done and bytes in all
    empty: Callable[[], Any] | None = None  # a module without its weights, on the meta device


def component(card: ModelCard, part: str, settings: Settings, on_progress: OnProgress | None = None) -> Component:
    """The part `part` ("tokenizer", "scheduler", "text_encoder", "unet", "vae") of the model `card`.

    "scheduler" loads to the scheduler's config, a plain dict; "tokenizer" to a CLIPTokenizer; the others to modules in
    the dtype of their files, on the CPU. Downloads the model first where it is on the Hub only, telling `on_progress`;
    converts ModelScope's original files once. Raises ValueError, as `load` does, where files are missing or damaged.
    """
    folder = locate(card.source, settings, on_progress)
    original = is_original(folder)
    if part == "tokenizer":
        return _tokenizer(_openclip_tokenizer(folder, settings) if original else part_folder(folder, part), original)
    if part == "scheduler":
        return _scheduler(_original_scheduler(folder) if original else _scheduler_config(part_folder(folder, part)))
    here = _converted(folder, part, settings) if original else part_folder(folder, part)
    return _module(here, card.source.variant, settings)


def clip_component(part: str, settings: Settings) -> Component:
    """The part `part` ("tokenizer", "image_processor", "model") of `catalog.CLIP`: a CLIPTokenizer, a
    CLIPImageProcessor, a CLIPModel.

    Downloads nothing. Raises ValueError, as `load` does, where files are missing or damaged.
    """
    folder = clip_folder(settings)
    if folder is None:
        raise ValueError(
            f"{CLIP.location} is not on this machine. Download its revision {CLIP.revision} with the Hub's own client, "
            f"or put a copy into {settings.cache / 'clip'}."
        )
    if part == "tokenizer":
        return _tokenizer(folder, pad_with_zero=False)
    if part == "image_processor":
        return _image_processor(folder)
    return _module(folder, CLIP.variant, settings)


def _module(folder: Path, variant: str | None, settings: Settings) -> Component:
    config = read_json(folder / "config.json")
    files = weight_files(folder, variant)
    identity = [json.dumps(_essence(config), sort_keys=True), *(content_hash(file, settings) for file in files)]
    if (folder / "latent_rgb.json").is_file():  # beside a VAE only
        config["latent_rgb"] = read_json(folder / "latent_rgb.json")
    return Component(
        key=hashlib.sha256("\n".join(identity).encode()).hexdigest(),
        bytes=sum(file.stat().st_size for file in files),
        load=lambda on_progress: _load_module(_empty(config, folder), files, on_progress),
        empty=lambda: _empty(config, folder),
    )


def _essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what says nothing about the module: names of files and versions of libraries."""
    return {key: value for key, value in config.items() if not key.startswith("_") and key != "transformers_version"}


# Parts without weights


def _tokenizer(folder: Path, pad_with_zero: bool) -> Component:
    def load(on_progress: OnProgress) -> Any:
        from transformers import CLIPTokenizer

        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the tokenizer's libraries raise everything, bare Exception included
            raise ValueError(f"The tokenizer in {folder} can't be read. {AGAIN}") from error
        if pad_with_zero:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
        return tokenizer

    files = sorted(path for path in folder.glob("*") if path.suffix in (".json", ".txt"))
    if not files:
        raise ValueError(f"There is no tokenizer in {folder}. {AGAIN}")
    content = [str(pad_with_zero).encode(), *(hashlib.sha256(file.read_bytes()).digest() for file in files)]
    return Component(key=hashlib.sha256(b"".join(content)).hexdigest(), bytes=0, load=load)


def _image_processor(folder: Path) -> Component:
    config = read_json(folder / "preprocessor_config.json")

    def load(on_progress: OnProgress) -> Any:
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor.from_dict(config)

    text = json.dumps(config, sort_keys=True)
    return Component(key=hashlib.sha256(text.encode()).hexdigest(), bytes=0, load=load)


def _openclip_tokenizer(folder: Path, settings: Settings) -> Path:
    """ModelScope's files hold no vocabulary (OpenCLIP's code does): it is looked for beside them, then on the Hub."""
    if (folder / "tokenizer").is_dir():
        return folder / "tokenizer"
    try:
        return locate(CATALOG["modelscope-1.7b"].source, settings, parts=("tokenizer",)) / "tokenizer"
    except ValueError as error:
        raise ValueError(
            f"{folder} has no tokenizer: put CLIP's vocab.json and merges.txt into {folder / 'tokenizer'}."
        ) from error


def _scheduler(config: dict[str, Any]) -> Component:
    text = json.dumps(config, sort_keys=True)
    return Component(key=hashlib.sha256(text.encode()).hexdigest(), bytes=0, load=lambda on_progress: json.loads(text))


def _scheduler_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "scheduler_config.json")
    missing = {"beta_start", "beta_end", "beta_schedule", "num_train_timesteps"} - config.keys()
    if missing:
        raise ValueError(f"{folder / 'scheduler_config.json'} lacks {', '.join(sorted(missing))}.")
    return config


def _original_scheduler(folder: Path) -> dict[str, Any]:
    from pipelines.convert.modelscope import SCHEDULER

    return {**SCHEDULER, "num_train_timesteps": _model_cfg(folder).get("num_timesteps", 1000)}


def _model_cfg(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / "configuration.json")["model"]["model_cfg"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'configuration.json'} is not that of a ModelScope text-to-video model.") from error


# Modules


def _empty(config: dict[str, Any], folder: Path) -> Any:
    import torch

    kind = config.get("_class_name") or (config.get("architectures") or [None])[0]
    try:
        build, _ = _KINDS[kind]
        with torch.device("meta"):
            return build(dict(config))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{folder / 'config.json'} does not describe a network known here ({kind}): {error}"
        ) from error


def _load_module(module: Any, files: list[Path], on_progress: OnProgress) -> Any:
    import torch

    where = files[0].parent
    _, rename = _KINDS[type(module).__name__]
    weights, done, total = {}, 0, sum(file.stat().st_size for file in files)
    for file in files:
        for name, tensor in _read(file):
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise ValueError(f"{file} is damaged: {name} holds values that are no numbers. {AGAIN}")
            if (name := rename(name)) is not None:
                weights[name] = tensor
            done += tensor.nbytes
            on_progress(min(done, total), total)
    try:
        module.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise ValueError(f"The weights in {where} do not fit the network in its config: {problem}") from error
    on_progress(total, total)
    return module.eval().requires_grad_(False)


def _read(file: Path) -> Iterator[tuple[str, Any]]:
    """The tensors of a safetensors file or of a pickle, one after the other. Pickles are opened for tensors only."""
    import pickle

    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as content:
                for name in content.keys():
                    yield name, content.get_tensor(name)
        else:
            yield from _read_pickle(file).items()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file} is damaged or holds more than weights, so it was not opened. {AGAIN}") from error
    except (SafetensorError, RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged or incomplete. {AGAIN}") from error


class _Inert(dict):
    """What stands for an object of PyTorch Lightning's, which whole training checkpoints hold beside their tensors."""


def _read_pickle(file: Path) -> dict[str, Any]:
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    is_archive = zipfile.is_zipfile(file)  # since torch 1.6; older ones can be read, but not bit by bit
    named = get_unsafe_globals_in_checkpoint(file) if is_archive else []
    inert = [(_Inert, name) for name in named if name.startswith("pytorch_lightning.")]
    with safe_globals(inert):
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)


def _build_autoencoder(config: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKL

    preview = {key: config.pop(key) for key in ("latent_rgb",) if key in config}
    module = AutoencoderKL.from_config(config)
    module.register_to_config(**preview)
    return module


def _build_text_encoder(config: dict[str, Any]) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return _with_positions(CLIPTextModel(CLIPTextConfig.from_dict(config)))


def _build_clip(config: dict[str, Any]) -> Any:
    from transformers import CLIPConfig, CLIPModel

    return _with_positions(CLIPModel(CLIPConfig.from_dict(config)))


def _with_positions(module: Any) -> Any:
    """`module` with the positions that its embeddings count: they are in no file, so they can't be left on meta."""
    import torch

    for part in module.modules():
        if "position_ids" in dict(part.named_buffers(recurse=False)):
            positions = torch.arange(part.position_ids.shape[-1], device="cpu").expand(1, -1)
            part.register_buffer("position_ids", positions, persistent=False)
    return module


def _build_unet3d(config: dict[str, Any]) -> Any:
    from pipelines.networks.unet3d import build_unet3d

    return build_unet3d(config)


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _autoencoder_name(name: str) -> str:
    """Today's name of an AutoencoderKL's tensor; attention was named otherwise until diffusers 0.17."""
    old_name = r"(?<=attentions\.0\.)(query|key|value|proj_attn)(?=\.)"
    return re.sub(old_name, lambda match: _OLD_ATTENTION[match[0]], name)


def _text_encoder_name(name: str) -> str | None:
    """Today's name of a CLIPTextModel's tensor: a level less since transformers 5, and positions are not stored."""
    name = name.removeprefix("text_model.")
    return None if name == "embeddings.position_ids" else name


def _clip_name(name: str) -> str | None:
    """A CLIPModel's tensors are named as ever; old files hold positions beside them."""
    return None if name.endswith(".position_ids") else name


_KINDS: dict[str, tuple[Callable[[dict], Any], Callable[[str], str | None]]] = {  # class -> builder, renamer
    "UNet3DConditionModel": (_build_unet3d, lambda name: name),
    "AutoencoderKL": (_build_autoencoder, _autoencoder_name),
    "CLIPTextModel": (_build_text_encoder, _text_encoder_name),
    "CLIPModel": (_build_clip, _clip_name),
}


# ModelScope's original files


def _converted(folder: Path, part: str, settings: Settings) -> Path:
    """The part in diffusers layout, in the cache; converted if these files are asked for the first time."""
    source = original_file(folder, part)
    hashes = [content_hash(path, settings) for path in (source, folder / "configuration.json")]
    identity = hashlib.sha256(" ".join([str(CONVERTER), part, *hashes]).encode()).hexdigest()
    target = settings.cache / "converted" / identity[:32]
    if target.is_dir():
        return target
    config, weights = _convert(folder, part, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, draft / _FILE[part])
        (draft / "config.json").write_text(json.dumps(config, indent=2))
        try:
            os.rename(draft, target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


_FILE = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


def _convert(folder: Path, part: str, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from pipelines.convert import modelscope

    weights = dict(_read(source))
    try:
        if part == "unet":
            model_cfg = _model_cfg(folder)
            config = {"_class_name": "UNet3DConditionModel", **modelscope.unet_config(model_cfg)}
            return config, modelscope.unet_weights(weights, model_cfg["unet_res_blocks"])
        if part == "vae":
            weights = modelscope.vae_part(weights)
            return {"_class_name": "AutoencoderKL", **modelscope.vae_config(weights)}, modelscope.vae_weights(weights)
        config = {"architectures": ["CLIPTextModel"], **modelscope.text_encoder_config(weights)}
        return config, modelscope.text_encoder_weights(weights)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"{source} is not ModelScope's {part}: {error} was not found in it.") from error
