"""Where the files of a model are: a folder on this machine, or the Hugging Face Hub and its cache.

Nothing here reads a weight or imports torch: the page asks `availability` before the first job.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.cards import Lora, ModelCard, Source
from pipelines.catalog import CLIP
from pipelines.errors import Refusal
from pipelines.messages import said
from pipelines.models.files import OnProgress, part_folder
from pipelines.models.layouts import LAYOUTS, layout_of, layout_of_names
from pipelines.models.layouts.diffusers import weight_files
from pipelines.settings import Settings

CLIP_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json")  # beside its weights


def source_of_folder(folder: Path | str, base: Source | None = None) -> Source:
    """The Stable Diffusion 1.x or 2.x, tuned Tune-A-Video or FollowYourPose model in `folder`, for editing clips.

    `base` has what the folder lacks: a tuned model often comes without the parts that were not tuned. FollowYourPose's
    folder may hold its base as a folder of its own. Raises ValueError where there is something else, or too little.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(said("There is no folder {folder}.", folder=folder))
    layout = layout_of(folder)
    layout.check_editable(folder)
    if base is None:
        base = layout.base_within(folder)
    if base is None and (missing := _missing(Source(str(folder)), folder)):
        raise ValueError(said("{missing} If it was tuned from another model, name that as its base.", missing=missing))
    return Source(str(folder), base=base)


# The Hub


def locate(
    source: Source, settings: Settings, on_progress: OnProgress | None = None, parts: Sequence[str] | None = None
) -> Path:
    """The folder on this machine that has at least `parts` of `source`, downloaded first where it is on the Hub only.

    By default these are all parts, or where `source` has a base only the UNet. Raises ValueError where it is in neither
    place, saying what to do.
    """
    parts = source.own_parts if parts is None else parts
    if source.is_folder:
        if not Path(source.location).is_dir():
            raise ValueError(said("There is no folder {folder}.", folder=source.location))
        return Path(source.location)
    snapshot = _snapshot(source)
    if snapshot is not None and not _missing(source, snapshot, parts):
        return snapshot
    if not settings.hub:
        raise ValueError(
            said(
                "{name} is not on this machine, and fetching it is turned off. Set MARIONETTE_HUB=1, or download it "
                "elsewhere and give its folder as the model.",
                name=source.location,
            )
        )
    return _download(source, on_progress, lambda names: layout_of_names(names).downloads(names, parts, source.variant))


def require(find: Callable[..., Path], *asked: Any, **more: Any) -> Path:
    """What `find`, `locate` or `locate_file`, finds for a job; a Refusal where that is nothing."""
    try:
        return find(*asked, **more)
    except ValueError as error:
        raise Refusal(str(error)) from error


def bytes_here(source: Source, settings: Settings) -> int:
    """The bytes of all files of `source`, and of what its base adds, on this machine; 0 where it is not here."""
    try:
        folder = locate(source, replace(settings, hub=False))
    except ValueError:
        return 0
    parts = [place for part in source.own_parts if (place := part_folder(folder, part)).is_dir()]
    files = [file for place in parts or [folder] for file in place.rglob("*") if file.is_file()]
    own = sum(file.stat().st_size for file in files)
    if source.base is None:
        return own
    rest = tuple(part for part in source.base.parts if part not in source.own_parts)
    return own + bytes_here(replace(source.base, parts=rest), settings)


def locate_file(source: Source, name: str, settings: Settings, on_progress: OnProgress | None = None) -> Path:
    """The folder of `source` or, where it is on the Hub, the one on this machine that has its file `name`.

    A copy can be put by hand into the app's cache, in a folder called like the repository's last part. Downloaded
    where it is on the Hub only. Raises ValueError where it is nowhere, saying what to do.
    """
    if source.is_folder:
        if not Path(source.location).is_dir():
            raise ValueError(said("There is no folder {folder}.", folder=source.location))
        return Path(source.location)
    folder = _folder_with(source, name, settings)
    if folder is not None:
        return folder
    if not settings.hub:
        raise ValueError(
            said(
                "{name} is not on this machine, and fetching it is turned off. Set MARIONETTE_HUB=1, or put its "
                "{file} into {folder}.",
                name=source.location,
                file=name,
                folder=settings.cache / Path(source.location).name,
            )
        )
    return _download(source, on_progress, lambda names: [name])


def _folder_with(source: Source, name: str, settings: Settings) -> Path | None:
    folders = (settings.cache / Path(source.location).name, _snapshot(source, name))
    return next((folder for folder in folders if folder is not None and (folder / name).is_file()), None)


def clip_folder(settings: Settings) -> Path | None:
    """The folder on this machine with the whole of `catalog.CLIP`, laid out as on the Hub; None where there is none.

    Asks no network: looks into `clip` of the app's cache, where a copy can be put by hand, then into the Hub's cache.
    """
    for folder in (settings.cache / "clip", _snapshot(CLIP, "config.json")):
        if folder is not None and all((folder / name).is_file() for name in CLIP_FILES):
            try:
                weight_files(folder, CLIP.variant)
                return folder
            except ValueError:
                continue
    return None


def _snapshot(source: Source, *files: str) -> Path | None:
    """Where the Hub's own cache keeps `source`, possibly in part; known by one of `files` that every download of it
    has, by default a layout's mark."""
    from huggingface_hub import try_to_load_from_cache

    for name in files or dict.fromkeys(layout.mark for layout in reversed(LAYOUTS)):
        found = try_to_load_from_cache(source.location, name, revision=source.revision)
        if isinstance(found, str):
            return Path(found).parents[len(Path(name).parts) - 1]
    return None


def _download(source: Source, on_progress: OnProgress | None, choose: Callable[[list[str]], list[str]]) -> Path:
    """Fetches the files that `choose` takes from the names of all."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        # Unlike a listing of the files, this does not try again for half a minute where there is no network.
        info = HfApi().model_info(source.location, revision=source.revision, timeout=10)
        wanted = choose([file.rfilename for file in info.siblings or ()])
        bar = _progress_bar(on_progress) if on_progress else None
        return Path(snapshot_download(source.location, revision=source.revision, allow_patterns=wanted, tqdm_class=bar))
    except HfHubHTTPError as error:
        raise ValueError(
            said(
                "The Hugging Face Hub refused {name}: {reason}", name=source.location, reason=str(error).splitlines()[0]
            )
        ) from error
    except Exception as error:
        if not _is_connection_error(error):
            raise
        raise ValueError(
            said(
                "{name} is not on this machine, and the Hugging Face Hub can't be reached. Connect to the internet "
                "and try again, choose a built-in model, or give a folder with the weights as the model.",
                name=source.location,
            )
        ) from error


def _is_connection_error(error: BaseException) -> bool:
    """Whether `error` tells of a network that is not there; which library says so has changed with every Hub client."""
    if isinstance(error, ConnectionError | TimeoutError | FileNotFoundError):  # the last: not in the cache either
        return True
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


def _progress_bar(on_progress: OnProgress) -> type:
    """A tqdm that shows nothing and tells `on_progress` of the bytes of a download."""
    from tqdm.auto import tqdm

    class Bar(tqdm):
        def __init__(self, *args, **kwargs):
            self.counts_bytes = kwargs.get("unit") == "B"
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "file": open(os.devnull, "w")})

        def update(self, n=1):
            super().update(n)
            if self.counts_bytes and self.total:
                on_progress(int(self.n), int(self.total))

    return Bar


# What a person is told


def _missing(source: Source, folder: Path, parts: Sequence[str] | None = None) -> str | None:
    """One sentence on the first of `parts`, by default of its own, that the copy of `source` in `folder` lacks; None
    where it has them all."""
    layout = layout_of(folder)
    try:
        for part in source.own_parts if parts is None else parts:
            layout.check(folder, part, source.variant)
    except ValueError as error:
        return str(error)
    return None


def availability(card: ModelCard, settings: Settings, lora: str = "") -> str | None:
    """None if the weights of `card`, or of that LoRA for it, are on this machine, else one sentence on what is missing
    and what to do."""
    if lora:
        return _lora_availability(card.loras[lora], settings)
    source = card.source
    folder = Path(source.location) if source.is_folder else _snapshot(source)
    if folder is not None and folder.is_dir():
        missing = _missing(source, folder)
        if missing is None and source.base is not None:
            return availability(replace(card, source=source.base), settings)
        if missing is None or source.is_folder:
            return missing
    if source.is_folder:
        return said("There is no folder {folder}.", folder=source.location)
    return _to_be_fetched(source, settings)


def _lora_availability(lora: Lora, settings: Settings) -> str | None:
    if lora.source.is_folder:
        there = (Path(lora.source.location) / lora.file).is_file()
        return None if there else said("There is no {file} in {folder}.", file=lora.file, folder=lora.source.location)
    return None if _folder_with(lora.source, lora.file, settings) else _to_be_fetched(lora.source, settings)


def _to_be_fetched(source: Source, settings: Settings) -> str:
    if settings.hub:
        return said(
            "{name} is not on this machine yet: the first video downloads it from the Hugging Face Hub.",
            name=source.location,
        )
    return said(
        "{name} is not on this machine, and fetching it is turned off: set MARIONETTE_HUB=1.", name=source.location
    )
