"""Model sources -> modules: `component` finds a part of a model, tells its identity, and how to load it.

A module is built without memory ("meta") and then given the tensors of its files as they are stored; the manager
decides on dtype and device. torch is imported only where weights are touched: the page asks `availability` before any
job. Where the files are: sources.py; how they lie there: layouts/; what is built of them: classes.py.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cards import ModelCard, Source
from pipelines.catalog import CLIP
from pipelines.detectors import Detector
from pipelines.errors import Refusal
from pipelines.messages import said
from pipelines.models import weights
from pipelines.models.classes import CLASSES, class_name, empty
from pipelines.models.convert.cache import converted
from pipelines.models.files import OnProgress, check_shipped, content_hash, part_folder, read_json
from pipelines.models.layouts import layout_of
from pipelines.models.layouts.diffusers import Diffusers, Stored, weight_files
from pipelines.models.sources import clip_folder, locate, locate_file, require
from pipelines.settings import Settings


@dataclass(frozen=True)
class Component:
    """A part of a model that can be loaded. Equal keys mean equal weights and configs, wherever they came from."""

    key: str
    bytes: int  # of its files; 0 for what is no module
    load: Callable[[OnProgress], Any]  # called with a function that is told bytes done and bytes in all
    empty: Callable[[], Any] | None = None  # a module without its weights, on the meta device
    bfloat16: bool = False  # whether half precision has to be bfloat16 (classes.Network)
    exact: tuple[str, ...] = ()  # what stays in fp32 then (classes.Network)
    faster: bool = False  # whether it is bfloat16 where others are exact


def component(card: ModelCard, part: str, settings: Settings, on_progress: OnProgress | None = None) -> Component:
    """The part `part` ("tokenizer", "scheduler", "text_encoder", "unet", "vae", …) of the model `card`.

    "scheduler" loads to the scheduler's config, a plain dict; "tokenizer" to a CLIPTokenizer; the others to modules in
    the dtype of their files, on the CPU. "image_unet" is the UNet of `card.image_model`; "inflated_unet" is Stable
    Diffusion's UNet, inflated, or the one of a tuned model or of FollowYourPose. Downloads the model first where it is
    on the Hub only, telling `on_progress`; converts the files of ModelScope, FLAX and FollowYourPose once. Raises
    ValueError, as `load` does, where files are missing or damaged.
    """
    if part == "image_unet":
        if card.image_model is None:
            raise ValueError(
                said("{title} takes no first image, so that none is drawn for it.", title=said(card.title))
            )
        try:
            folder = require(locate, card.image_model, settings, on_progress, parts=("unet",))
        except Refusal as error:
            raise Refusal(
                said("{error} Or give a first image: then none needs to be drawn.", error=str(error))
            ) from error
        return _module(layout_of(folder).module(folder, "unet", card.image_model.variant, settings), settings)
    return part_of(card.source, part, settings, on_progress)


def part_of(source: Source, part: str, settings: Settings, on_progress: OnProgress | None = None) -> Component:
    """As `component`, of a model that has no card."""
    folder = require(locate, source, settings, on_progress)
    layout = layout_of(folder)
    if part == "inflated_unet":

        def base() -> Path:
            return folder if source.base is None else require(locate, source.base, settings, on_progress)

        return _module(layout.inflated_unet(folder, source.variant, settings, base), settings)
    if source.base is not None and not (folder / part).is_dir():
        return part_of(source.base, part, settings, on_progress)
    if part == "tokenizer":
        return _tokenizer(_tokenizer_folder(folder, layout, settings), layout.pad_with_zero)
    if part == "scheduler":
        return _scheduler(layout.scheduler(folder))
    return _module(layout.module(folder, part, source.variant, settings), settings)


def clip_component(part: str, settings: Settings) -> Component:
    """The part `part` ("tokenizer", "image_processor", "model") of `catalog.CLIP`: a CLIPTokenizer, a
    CLIPImageProcessor, a CLIPModel.

    Downloads nothing. Raises ValueError, as `load` does, where files are missing or damaged.
    """
    folder = clip_folder(settings)
    if folder is None:
        raise ValueError(
            said(
                "{name} is not on this machine. Download its revision {revision} with the Hub's own client, or put a "
                "copy into {folder}.",
                name=CLIP.location,
                revision=CLIP.revision,
                folder=settings.cache / "clip",
            )
        )
    if part == "tokenizer":
        return _tokenizer(folder)
    if part == "image_processor":
        return _image_processor(folder)
    return _module(Stored(folder, CLIP.variant), settings)


def detector_component(
    detector: Detector, part: str, settings: Settings, on_progress: OnProgress | None = None
) -> Component:
    """The network `part` of `detector`.

    Downloads it first where it is on the Hub only; converts OpenPose's own file once. Raises ValueError, as `load`
    does, where files are missing or damaged.
    """
    from pipelines.models.convert import openpose

    if detector.source is None or part not in detector.parts:
        raise ValueError(f"{detector.name} has no part {part!r}.")
    folder = require(locate_file, detector.source, openpose.FILE, settings, on_progress)
    if len(detector.parts) > 1:
        return _module(Stored(folder / part, detector.source.variant), settings)
    source = folder / openpose.FILE
    if not source.is_file():
        return _module(Stored(folder, detector.source.variant), settings)

    def convert() -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            return openpose.CONFIG, openpose.body_weights(dict(weights.read(source)))
        except (KeyError, AttributeError) as error:
            raise ValueError(
                said(
                    "{source} is not OpenPose's body network: {error} was not found in it.",
                    source=source,
                    error=str(error),
                )
            ) from error

    return _module(Stored(converted("openpose", [source], convert, settings)), settings)


def _module(stored: Stored, settings: Settings) -> Component:
    folder = stored.folder
    config = read_json(folder / "config.json")
    files = weight_files(folder, stored.variant)
    identity = [json.dumps(_essence(config), sort_keys=True), *(content_hash(file, settings) for file in files)]
    if stored.kind is not None:
        identity.append(stored.kind)
        config["_class_name"] = stored.kind
    if (folder / "latent_rgb.json").is_file():  # beside a VAE only
        config["latent_rgb"] = read_json(folder / "latent_rgb.json")
    network = CLASSES.get(class_name(config))
    return Component(
        key=hashlib.sha256("\n".join(identity).encode()).hexdigest(),
        bytes=sum(file.stat().st_size for file in files),
        load=lambda on_progress: _load_module(config, folder, files, on_progress),
        empty=lambda: empty(config, folder),
        bfloat16=network is not None and network.bfloat16,
        exact=network.exact if network is not None else (),
    )


def _essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what says nothing about the module: names of files and versions of libraries."""
    return {key: value for key, value in config.items() if not key.startswith("_") and key != "transformers_version"}


def _load_module(config: dict[str, Any], where: Path, files: list[Path], on_progress: OnProgress) -> Any:
    import torch

    module = empty(config, where)
    network = CLASSES[class_name(config)]
    tensors, done, total = {}, 0, sum(file.stat().st_size for file in files)
    for file in files:
        check_shipped(file)
        for name, tensor in weights.read(file):
            if not isinstance(tensor, torch.Tensor):
                raise ValueError(
                    said(
                        "{file} holds more than weights: {name} is none. Download this model once more.",
                        file=file,
                        name=str(name)[:80],
                    )
                )
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise ValueError(
                    said(
                        "{file} is damaged: {name} holds values that are no numbers. Download this model once more.",
                        file=file,
                        name=name,
                    )
                )
            if (name := network.rename(name)) is not None:
                tensors[name] = tensor
            done += tensor.nbytes
            on_progress(min(done, total), total)
    try:
        module.load_state_dict(network.complete(module, tensors), strict=True, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise ValueError(
            said("The weights in {where} do not fit the network in its config: {problem}", where=where, problem=problem)
        ) from error
    on_progress(total, total)
    return module.eval().requires_grad_(False)


# Parts without weights


TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")  # in tokenizer_config.json


def _tokenizer(folder: Path, pad_with_zero: bool = False) -> Component:
    files = sorted(path for path in folder.glob("*") if path.suffix in (".json", ".txt"))
    if not files:
        raise ValueError(said("There is no tokenizer in {folder}. Download this model once more.", folder=folder))

    def load(on_progress: OnProgress) -> Any:
        import transformers

        file = folder / "tokenizer_config.json"
        kind = read_json(file).get("tokenizer_class") if file.is_file() else None
        try:
            loader = getattr(transformers, kind if kind in TOKENIZERS else "CLIPTokenizer")
            tokenizer = loader.from_pretrained(folder, local_files_only=True)
            if pad_with_zero or (tokenizer.pad_token == "!" and tokenizer.pad_token_id == 0):
                tokenizer = _padded_with_zero(folder)
        except Exception as error:  # the tokenizer's libraries raise everything, bare Exception included
            raise ValueError(
                said("The tokenizer in {folder} can't be read. Download this model once more.", folder=folder)
            ) from error
        return tokenizer

    content = [str(pad_with_zero).encode(), *(hashlib.sha256(file.read_bytes()).digest() for file in files)]
    return Component(key=hashlib.sha256(b"".join(content)).hexdigest(), bytes=0, load=load)


def _padded_with_zero(folder: Path) -> Any:
    """The tokenizer in `folder`, padding with the number 0 as OpenCLIP does. That is "!" within a word; named as the
    padding token, it would no more be read in a prompt.
    """
    from transformers import CLIPTokenizer

    class ZeroPadded(CLIPTokenizer):
        pad_token_id = 0

    if (folder / "vocab.json").is_file():
        return ZeroPadded.from_pretrained(folder, local_files_only=True, pad_token="<|endoftext|>")
    # What newer libraries saved holds "!" among the tokens that are cut out first: made anew, it does not.
    model = read_json(folder / "tokenizer.json")["model"]
    merges: Any = [tuple(merge.split()) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return ZeroPadded(vocab=model["vocab"], merges=merges, pad_token="<|endoftext|>")


def _image_processor(folder: Path) -> Component:
    config = read_json(folder / "preprocessor_config.json")

    def load(on_progress: OnProgress) -> Any:
        from transformers import CLIPImageProcessor

        return CLIPImageProcessor.from_dict(config)

    text = json.dumps(config, sort_keys=True)
    return Component(key=hashlib.sha256(text.encode()).hexdigest(), bytes=0, load=load)


def _tokenizer_folder(folder: Path, layout: Diffusers, settings: Settings) -> Path:
    """The tokenizer in `folder`, or else the one of the model that its layout names."""
    here = part_folder(folder, "tokenizer")
    if here.is_dir() or layout.tokenizer_source is None:
        return here
    try:
        return require(locate, layout.tokenizer_source, settings, parts=("tokenizer",)) / "tokenizer"
    except ValueError as error:
        raise ValueError(
            said(
                "{folder} has no tokenizer: put CLIP's vocab.json and merges.txt into {here}.", folder=folder, here=here
            )
        ) from error


def _scheduler(config: dict[str, Any]) -> Component:
    text = json.dumps(config, sort_keys=True)
    return Component(key=hashlib.sha256(text.encode()).hexdigest(), bytes=0, load=lambda on_progress: json.loads(text))
