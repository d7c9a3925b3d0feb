"""A card for a model that somebody has in a folder: what it is, its defaults and its limits, read from its configs."""

from dataclasses import replace
from pathlib import Path

from pipelines.cards import ModelCard, Range, Source
from pipelines.catalog import CATALOG
from pipelines.messages import said
from pipelines.models.files import part_folder, read_json
from pipelines.models.layouts import layout_of
from pipelines.models.layouts.diffusers import POSE, trained_side, vae_scale_factor
from pipelines.models.sources import source_of_folder

PSEUDO3D = "StableDiffusionPseudo3DPipeline"  # TempoFunk's
WAN = "WanPipeline"
VACE = "WanVACEPipeline"
TEXT_TO_VIDEO = ("TextToVideoSDPipeline", "TextToVideoMSPipeline")
UNKNOWN = {  # what no config says
    "licence": "As its maker says",
    "shortcomings": "Not known to this app.",
    "needs": "What its size asks for.",
    "flops": 0.0,
}


def card_of_folder(folder: Path | str, base: ModelCard | None = None, kind: str = "text-to-video") -> ModelCard:
    """A card for the model in `folder`: one for text to video, a Stable Diffusion 1.x or 2.x, a tuned one, or
    FollowYourPose.

    `base` has the parts that a tuned model or FollowYourPose lacks; `kind` is what a model that does several things is
    for. Raises ValueError where there is no such model.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(said("There is no folder {folder}.", folder=folder))
    layout = layout_of(folder)
    pipeline = layout.pipeline(folder)
    try:
        if pipeline == PSEUDO3D:
            return _pseudo3d(folder)
        if pipeline in TEXT_TO_VIDEO:
            return _modelscope(folder, *layout.clip_size(folder))
        if pipeline == WAN:
            return _wan(folder, "wan-2.1-1.3b")
        if pipeline == VACE:
            return _wan(folder, f"wan-2.1-vace-{'poses' if kind == 'pose-to-video' else 'images'}")
        if pipeline == POSE:
            return _pose(folder, base)
        return _inflated(folder, tuned=pipeline == "TuneAVideoPipeline", base=base)
    except TypeError as error:
        raise ValueError(
            said("In {folder}, the config.json of the UNet or of the VAE describes no network.", folder=folder)
        ) from error


def _modelscope(folder: Path, frames: int, side: int) -> ModelCard:
    published = CATALOG["modelscope-1.7b"]
    return replace(
        published,
        name=folder.name,
        title=folder.name,
        source=Source(str(folder)),
        defaults=replace(published.defaults, frames=frames, width=side, height=side),
        limits=replace(published.limits, side=Range(min(64, side), 1024, 8)),
        summary=f"The text-to-video model in {folder}.",
        **UNKNOWN,
    )


def _wan(folder: Path, name: str) -> ModelCard:
    """Raises ValueError for Wan 2.2, which has two transformers."""
    if part_folder(folder, "transformer_2").is_dir():
        raise ValueError(
            said("{folder} holds a Wan with two transformers; only Wan 2.1, with one, is known here.", folder=folder)
        )
    published = CATALOG[name]
    return replace(
        published,
        name=folder.name,
        title=folder.name,
        source=replace(published.source, location=str(folder), revision=None),
        flow_shift=0.0,
        limits=replace(published.limits, side=Range(16, 1280, 16)),
        summary=f"The Wan in {folder}.",
        **UNKNOWN,
    )


def _inflated(folder: Path, tuned: bool, base: ModelCard | None) -> ModelCard:
    """Raises ValueError, as source_of_folder does, where it is neither Stable Diffusion nor tuned from it."""
    source = source_of_folder(folder, base and base.source)
    published = CATALOG["stable-diffusion-1.4"]
    side = trained_side(folder, Path(base.source.location) if base and base.source.is_folder else folder, 64)
    return replace(
        published,
        name=folder.name,
        title=folder.name,
        source=source,
        defaults=replace(published.defaults, width=side, height=side),
        limits=replace(published.limits, side=Range(min(64, side), 1024, 8)),
        summary=f"The {'tuned model' if tuned else 'Stable Diffusion'} in {folder}.",
        tuning=None if tuned else published.tuning,
        **UNKNOWN,
    )


def _pose(folder: Path, base: ModelCard | None) -> ModelCard:
    """Raises ValueError, as source_of_folder does, where it comes without a Stable Diffusion."""
    source = source_of_folder(folder, base and base.source)
    published = CATALOG["followyourpose-v1"]
    whole = Path(source.base.location) if source.base and source.base.is_folder else folder
    side = published.defaults.width
    if (part_folder(whole, "unet") / "config.json").is_file():
        side = max(64, trained_side(whole, whole, 64) // 64 * 64)
    return replace(
        published,
        name=folder.name,
        title=folder.name,
        source=source,
        defaults=replace(published.defaults, width=side, height=side),
        limits=replace(published.limits, side=Range(64, 1024, 64)),
        summary=f"The FollowYourPose model in {folder}.",
        tuned_from=base.name if base else "",
        **UNKNOWN,
    )


def _pseudo3d(folder: Path) -> ModelCard:
    """The Stable Diffusion whose UNet draws the first image lies in `sd_image`, or else is the published model's."""
    unet = read_json(part_folder(folder, "unet") / "config.json")
    factor = vae_scale_factor(folder)
    step = factor * 2 ** (len(unet.get("block_out_channels", [0] * 4)) - 1)
    size = unet.get("sample_size") or 64
    side = max(step, factor * (size if isinstance(size, int) else min(size)) // step * step)
    published = CATALOG["makeavid-sd"]
    return replace(
        published,
        name=folder.name,
        title=folder.name,
        source=Source(str(folder)),
        image_model=Source(str(folder / "sd_image")) if (folder / "sd_image").is_dir() else published.image_model,
        defaults=replace(published.defaults, width=side, height=side),
        limits=replace(published.limits, frames=Range(1, 64), side=Range(step, 1024 // step * step, step)),
        summary=f"The text-to-video model in {folder}.",
        **UNKNOWN,
    )
