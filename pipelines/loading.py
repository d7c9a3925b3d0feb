"""Model sources -> modules. The only place that reads weights.

`component` finds a part of a model, tells its identity, and how to load it. A module is built without memory ("meta")
and then given the tensors of its files as they are stored; the manager decides on dtype and device. torch is imported
only where weights are touched: the page asks `availability` before any job.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.catalog import CATALOG, CLIP, Detector, ModelCard, Source
from pipelines.convert.cache import converted
from pipelines.settings import Settings
from pipelines.sources import (
    AGAIN,
    FLAX,
    POSE_ENCODER,
    OnProgress,
    check_editable,
    clip_folder,
    content_hash,
    is_original,
    locate,
    locate_file,
    original_file,
    part_folder,
    pose_checkpoint,
    read_json,
    weight_files,
)


@dataclass(frozen=True)
class Component:
    """A part of a model that can be loaded. Equal keys mean equal weights and configs, wherever they came from."""

    key: str
    bytes: int  # of its files; 0 for what is no module
    load: Callable[[OnProgress], Any]  # called with a function that is told bytes done and bytes in all
    empty: Callable[[], Any] | None = None  # a module without its weights, on the meta device


def component(card: ModelCard, part: str, settings: Settings, on_progress: OnProgress | None = None) -> Component:
    """The part `part` ("tokenizer", "scheduler", "text_encoder", "unet", "vae", …) of the model `card`.

    "scheduler" loads to the scheduler's config, a plain dict; "tokenizer" to a CLIPTokenizer; the others to modules in
    the dtype of their files, on the CPU. "image_unet" is the UNet of `card.image_model`; "inflated_unet" is Stable
    Diffusion's UNet, inflated, or the one of a tuned model or of FollowYourPose. Downloads the model first where it is
    on the Hub only, telling `on_progress`; converts the files of ModelScope, FLAX and FollowYourPose once. Raises
    ValueError, as `load` does, where files are missing or damaged.
    """
    if part == "image_unet":
        try:
            folder = locate(card.image_model, settings, on_progress, parts=("unet",))
        except ValueError as error:
            raise ValueError(f"{error} Or give a first image: then none needs to be drawn.") from error
        return _module(part_folder(folder, "unet"), card.image_model.variant, settings)
    return part_of(card.source, part, settings, on_progress)


def part_of(source: Source, part: str, settings: Settings, on_progress: OnProgress | None = None) -> Component:
    """As `component`, of a model that has no card."""
    folder = locate(source, settings, on_progress)
    if part == "inflated_unet":
        return _inflated_unet(folder, source, settings, on_progress)
    if source.base is not None and not (folder / part).is_dir():
        return part_of(source.base, part, settings, on_progress)
    original = is_original(folder)
    if part == "tokenizer":
        return _tokenizer(_openclip_tokenizer(folder, settings) if original else part_folder(folder, part), original)
    if part == "scheduler":
        return _scheduler(_original_scheduler(folder) if original else _scheduler_config(part_folder(folder, part)))
    if original:
        here = _converted_original(folder, part, settings)
    elif weight_files(here := part_folder(folder, part), source.variant)[0].name == FLAX:
        here = _converted_flax(here, settings)
    return _module(here, source.variant, settings)


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


def detector_component(
    detector: Detector, part: str, settings: Settings, on_progress: OnProgress | None = None
) -> Component:
    """The network of `detector`, whose only part is "body".

    Downloads it first where it is on the Hub only; converts OpenPose's own file once. Raises ValueError, as `load`
    does, where files are missing or damaged.
    """
    from pipelines.convert import openpose

    if part != "body":
        raise ValueError(f"{detector.name} has no part {part!r}.")
    folder = locate_file(detector.source, openpose.FILE, settings, on_progress)
    source = folder / openpose.FILE
    if not source.is_file():
        return _module(folder, detector.source.variant, settings)

    def convert() -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            return openpose.CONFIG, openpose.body_weights(dict(_read(source)))
        except (KeyError, AttributeError) as error:
            raise ValueError(f"{source} is not OpenPose's body network: {error} was not found in it.") from error

    return _module(converted("openpose", [source], convert, settings), None, settings)


def _module(folder: Path, variant: str | None, settings: Settings, kind: str | None = None) -> Component:
    """The module in `folder`: what its config says that it is, or else a `kind` (a key of CLASSES) made of it."""
    config = read_json(folder / "config.json")
    files = weight_files(folder, variant)
    identity = [json.dumps(_essence(config), sort_keys=True), *(content_hash(file, settings) for file in files)]
    if kind is not None:
        identity.append(kind)
        config["_class_name"] = kind
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


def _inflated_unet(folder: Path, source: Source, settings: Settings, on_progress: OnProgress | None) -> Component:
    checkpoint = pose_checkpoint(folder)
    if checkpoint is None:
        check_editable(folder)
        return _module(part_folder(folder, "unet"), source.variant, settings, "InflatedUNet")
    base = folder if source.base is None else locate(source.base, settings, on_progress)
    check_editable(base)
    file = part_folder(base, "unet") / "config.json"
    config = {**read_json(file), "_class_name": "InflatedUNet", "pose": True}

    def convert() -> tuple[dict[str, Any], dict[str, Any]]:
        weights = dict(_read(checkpoint))
        if not any(name.startswith("skeleton_adapter.") for name in weights):
            weights |= {f"skeleton_adapter.{name}": tensor for name, tensor in _read(folder / POSE_ENCODER)}
        wrong = weights.keys() ^ _empty(config, file.parent).state_dict().keys()
        if wrong:
            raise ValueError(f"{checkpoint} is not FollowYourPose's UNet for {file.parent}: see {min(wrong)}. {AGAIN}")
        return config, weights

    return _module(converted("inflated_unet", [checkpoint, file], convert, settings), None, settings)


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
        build, _ = CLASSES[kind]
        with torch.device("meta"):
            return build(dict(config))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{folder / 'config.json'} does not describe a network known here ({kind}): {error}"
        ) from error


def _load_module(module: Any, files: list[Path], on_progress: OnProgress) -> Any:
    import torch

    where = files[0].parent
    _, rename = CLASSES[type(module).__name__]
    weights, done, total = {}, 0, sum(file.stat().st_size for file in files)
    for file in files:
        for name, tensor in _read(file):
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(f"{file} holds more than weights: {str(name)[:80]} is none. {AGAIN}")
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise ValueError(f"{file} is damaged: {name} holds values that are no numbers. {AGAIN}")
            if (name := rename(name)) is not None:
                weights[name] = tensor
            done += tensor.nbytes
            on_progress(min(done, total), total)
    if type(module).__name__ == "InflatedUNet":
        weights = _inflated(module, weights)
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
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no weights by name. {AGAIN}")
    return content


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


def _build_unet2d(config: dict[str, Any]) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config(config)


def _build_pseudo3d_unet(config: dict[str, Any]) -> Any:
    from pipelines.networks.pseudo3d_unet import build_pseudo3d_unet

    return build_pseudo3d_unet(config)


def _build_unet3d(config: dict[str, Any]) -> Any:
    from pipelines.networks.unet3d import build_unet3d

    return build_unet3d(config)


def _build_inflated_unet(config: dict[str, Any]) -> Any:
    from pipelines.networks.inflated_unet import InflatedUNet

    taken, given = config.get("in_channels", 4), config.get("out_channels", 4)
    if taken != given:  # one for inpainting takes a mask and a picture beside the latents
        raise ValueError(f"it takes {taken} channels and gives {given}, so it was made for something else")
    return InflatedUNet(config, pose=config.pop("pose", False))


def _inflated(module: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """`weights` of an image model with the temporal ones to start from; others as they are."""
    from pipelines.networks.inflated_unet import temporal_start

    if not weights or any(".attn_temp." in name for name in weights):
        return weights
    dtype = next(iter(weights.values())).dtype
    return weights | {name: tensor.to(dtype) for name, tensor in temporal_start(module).items()}


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _build_bodypose_model(config: dict[str, Any]) -> Any:
    from controlnet_aux.open_pose.model import bodypose_model

    return bodypose_model()


def _build_body_pose_network(config: dict[str, Any]) -> Any:
    from pipelines.networks.openpose import BodyPoseNetwork

    return BodyPoseNetwork(config["width"], config["dilations"])


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


CLASSES: dict[str, tuple[Callable[[dict], Any], Callable[[str], str | None]]] = {  # class -> builder, renamer
    "UNet3DConditionModel": (_build_unet3d, lambda name: name),
    "InflatedUNet": (_build_inflated_unet, lambda name: name),
    "UNetPseudo3DConditionModel": (_build_pseudo3d_unet, lambda name: name),
    "UNet2DConditionModel": (_build_unet2d, lambda name: name),
    "AutoencoderKL": (_build_autoencoder, _autoencoder_name),
    "CLIPTextModel": (_build_text_encoder, _text_encoder_name),
    "CLIPModel": (_build_clip, _clip_name),
    "bodypose_model": (_build_bodypose_model, lambda name: name),
    "BodyPoseNetwork": (_build_body_pose_network, lambda name: name),
}


# Files of other layouts, converted once


def _converted_original(folder: Path, part: str, settings: Settings) -> Path:
    source = original_file(folder, part)

    def convert() -> tuple[dict[str, Any], dict[str, Any]]:
        from pipelines.convert import modelscope

        weights = dict(_read(source))
        try:
            if part == "unet":
                return modelscope.unet(weights, _model_cfg(folder))
            return modelscope.vae(weights) if part == "vae" else modelscope.text_encoder(weights)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise ValueError(f"{source} is not ModelScope's {part}: {error} was not found in it.") from error

    return converted(part, [source, folder / "configuration.json"], convert, settings)


def _converted_flax(folder: Path, settings: Settings) -> Path:
    """The UNet in `folder`, whose weights are FLAX's, with PyTorch's instead, in the cache."""
    source, config = folder / FLAX, read_json(folder / "config.json")

    def convert() -> tuple[dict[str, Any], dict[str, Any]]:
        from pipelines.convert import flax

        wanted = {name: list(tensor.shape) for name, tensor in _empty(config, folder).state_dict().items()}
        try:
            with source.open("rb") as file:
                weights = flax.read_weights(file, source.stat().st_size)
        except EOFError as error:
            raise ValueError(f"{source} is damaged or incomplete. {AGAIN}") from error
        except flax.NotFlax as error:
            raise ValueError(f"{source} holds no weights written by FLAX: {error}. {AGAIN}") from error
        found = {name: list(tensor.shape) for name, tensor in weights.items()}
        if found != wanted:
            wrong = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
            raise ValueError(
                f"{source} does not fit the network in {folder / 'config.json'}: see {', '.join(wrong[:3])}."
            )
        return config, weights

    return converted("unet", [source, folder / "config.json"], convert, settings)
