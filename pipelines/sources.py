"""Where the files of a model are: a folder or the Hugging Face Hub, which files to read, and what they hash to.

Two layouts are known: diffusers' (model_index.json and a folder a part) and ModelScope's original (configuration.json
and three pickles). Nothing here reads a weight or imports torch: the page asks `availability` before the first job.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from pipelines.catalog import CATALOG, CLIP, MINIATURES, Defaults, Limits, ModelCard, Range, Source
from pipelines.settings import Settings

PARTS = ("tokenizer", "scheduler", "text_encoder", "unet", "vae")  # of a text-to-video model
ORIGINAL = {  # ModelScope's files and the key of `model.model_args` under which configuration.json names them
    "text_encoder": "ckpt_clip",
    "unet": "ckpt_unet",
    "vae": "ckpt_autoencoder",
}
CLIP_FILES = ("config.json", "preprocessor_config.json", "tokenizer.json")  # beside its weights
AGAIN = "Download this model once more."
OnProgress = Callable[[int, int], None]  # (bytes done, bytes in all)


def is_original(folder: Path) -> bool:
    """Whether `folder` has ModelScope's original layout."""
    return (folder / "configuration.json").is_file() and not (folder / "model_index.json").is_file()


def read_json(path: Path) -> dict[str, Any]:
    """Raises ValueError naming the file where it is missing or no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing. {AGAIN}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as JSON. {AGAIN}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} can't be read as JSON. {AGAIN}")
    return content


def part_folder(folder: Path, part: str) -> Path:
    """The folder of one part of a model in diffusers layout.

    The built-in miniatures share parts: `components.json` says where they lie. No other folder may point elsewhere.
    """
    if (folder / "components.json").is_file() and folder.resolve().is_relative_to(MINIATURES):
        shared = read_json(folder / "components.json")
        return (folder / shared.get(part, part)).resolve()
    return folder / part


def weight_files(folder: Path, variant: str | None) -> list[Path]:
    """The files that hold the weights in the part folder `folder`: safetensors before pickles, `variant` before plain.

    Raises ValueError where there is none, or where shards that an index names are missing.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    chosen = _choose_weights(names, variant)
    if chosen is None:
        raise ValueError(f"There are no weights in {folder}. {AGAIN}")
    if not chosen.endswith(".json"):
        return [folder / chosen]
    shards = sorted(set(read_json(folder / chosen).get("weight_map", {}).values()))
    missing = [name for name in shards if name not in names]
    if missing or not shards:
        raise ValueError(f"{folder} lacks {', '.join(missing) or 'all shards'}. {AGAIN}")
    return [folder / name for name in shards]


def _choose_weights(names: Collection[str], variant: str | None) -> str | None:
    """The weight file, or the index of a sharded one, to take out of `names`; None where there is none."""
    for ending, own_stem in (("safetensors", "model"), ("bin", "pytorch_model")):
        for infix in (f".{variant}", "") if variant else ("",):
            for stem in ("diffusion_pytorch_model", own_stem):
                whole, index = f"{stem}{infix}.{ending}", f"{stem}.{ending}.index{infix}.json"
                for name in (whole, index, f"{whole}.index.json"):
                    if name in names:
                        return name
    return None


def original_file(folder: Path, part: str) -> Path:
    """The pickle of `part` in ModelScope's original layout. Raises ValueError where it is missing."""
    try:
        name = read_json(folder / "configuration.json")["model"]["model_args"][ORIGINAL[part]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'configuration.json'} is not that of a ModelScope text-to-video model.") from error
    path = folder / Path(name).name
    if not path.is_file():
        raise ValueError(f"{path} is missing. {AGAIN}")
    return path


# The Hub


def locate(
    source: Source, settings: Settings, on_progress: OnProgress | None = None, parts: Sequence[str] = PARTS
) -> Path:
    """The folder on this machine that has at least `parts` of `source`, downloaded first where it is on the Hub only.

    Raises ValueError where it is in neither place, saying what to do.
    """
    if source.is_folder:
        if not Path(source.location).is_dir():
            raise ValueError(f"There is no folder {source.location}.")
        return Path(source.location)
    snapshot = _snapshot(source)
    if snapshot is not None and not _missing(snapshot, source.variant, parts):
        return snapshot
    if not settings.hub:
        raise ValueError(
            f"{source.location} is not on this machine, and fetching it is turned off. Set MARIONETTE_HUB=1, or "
            "download it elsewhere and give its folder as the model."
        )
    return _download(source, on_progress, parts)


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


def _snapshot(source: Source, file: str = "model_index.json") -> Path | None:
    """Where the Hub's own cache keeps `source`, possibly in part; known by a `file` that every download of it has."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.location, file, revision=source.revision)
    return Path(found).parent if isinstance(found, str) else None


def _download(source: Source, on_progress: OnProgress | None, parts: Sequence[str]) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        # Unlike a listing of the files, this does not try again for half a minute where there is no network.
        info = HfApi().model_info(source.location, revision=source.revision, timeout=10)
        wanted = _files_to_download([file.rfilename for file in info.siblings], source.variant, parts)
        bar = _progress_bar(on_progress) if on_progress else None
        return Path(snapshot_download(source.location, revision=source.revision, allow_patterns=wanted, tqdm_class=bar))
    except HfHubHTTPError as error:
        raise ValueError(f"The Hugging Face Hub refused {source.location}: {str(error).splitlines()[0]}") from error
    except Exception as error:
        if not _is_connection_error(error):
            raise
        raise ValueError(
            f"{source.location} is not on this machine, and the Hugging Face Hub can't be reached. Connect to the "
            "internet and try again, choose a built-in model, or give a folder with the weights as the model."
        ) from error


def _is_connection_error(error: BaseException) -> bool:
    """Whether `error` tells of a network that is not there; which library says so has changed with every Hub client."""
    if isinstance(error, ConnectionError | TimeoutError | FileNotFoundError):  # the last: not in the cache either
        return True
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


def _files_to_download(names: Collection[str], variant: str | None, parts: Sequence[str]) -> list[str]:
    wanted = ["model_index.json"]
    for part in parts:
        here = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        if part in ("tokenizer", "scheduler"):
            wanted += [f"{part}/{name}" for name in here]
        elif chosen := _choose_weights(here, variant):
            ending = "safetensors" if "safetensors" in chosen else "bin"
            shards = [name for name in here if "-of-" in name and name.endswith(ending)]
            wanted += [
                f"{part}/{name}" for name in ("config.json", chosen, *(shards if chosen.endswith("json") else ()))
            ]
    return wanted


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


def _missing(folder: Path, variant: str | None, parts: Sequence[str] = PARTS) -> str | None:
    """One sentence on the first of `parts` that `folder` lacks; None where it has them all."""
    try:
        for part in parts:
            if is_original(folder):
                if part in ORIGINAL:
                    original_file(folder, part)
            elif part in ("tokenizer", "scheduler"):
                if not part_folder(folder, part).is_dir():
                    return f"{folder} has no {part}. {AGAIN}"
            else:
                weight_files(part_folder(folder, part), variant)
    except ValueError as error:
        return str(error)
    return None


def availability(card: ModelCard, settings: Settings) -> str | None:
    """None if the weights of `card` are on this machine, else one sentence on what is missing and what to do."""
    source = card.source
    folder = Path(source.location) if source.is_folder else _snapshot(source)
    if folder is not None and folder.is_dir():
        missing = _missing(folder, source.variant)
        if missing is None or source.is_folder:
            return missing
    if source.is_folder:
        return f"There is no folder {source.location}."
    if settings.hub:
        return f"{source.location} is not on this machine yet: the first video downloads it from the Hugging Face Hub."
    return f"{source.location} is not on this machine, and fetching it is turned off: set MARIONETTE_HUB=1."


def card_of_folder(folder: Path | str) -> ModelCard:
    """A card for the text-to-video model in `folder`, its defaults and limits read from its configs.

    Raises ValueError where there is no such model.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    if is_original(folder):
        arguments = read_json(folder / "configuration.json").get("model", {}).get("model_args", {})
        frames, side = arguments.get("max_frames", 16), 256
    elif (folder / "model_index.json").is_file():
        kind = read_json(folder / "model_index.json").get("_class_name")
        if kind not in ("TextToVideoSDPipeline", "TextToVideoMSPipeline"):
            raise ValueError(f"{folder} holds a {kind}, not a text-to-video model (TextToVideoSDPipeline).")
        vae = read_json(part_folder(folder, "vae") / "config.json")
        factor = 2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1)
        size = read_json(part_folder(folder, "unet") / "config.json").get("sample_size") or 32
        frames, side = 16, factor * (size if isinstance(size, int) else min(size))
    else:
        raise ValueError(f"{folder} holds no model: it has neither a model_index.json nor a configuration.json.")
    typical = CATALOG["modelscope-1.7b"]
    return ModelCard(
        name=folder.name,
        title=folder.name,
        system="modelscope",
        source=Source(str(folder)),
        defaults=Defaults(frames=frames, width=side, height=side, fps=8, steps=25, guidance=9.0, scheduler="dpm++"),
        limits=Limits(frames=Range(1, 64), side=Range(min(64, side), 1024, 8), voxels=typical.limits.voxels),
        summary=f"The text-to-video model in {folder}.",
        licence="As its maker says",
        shortcomings="Not known to this app.",
        not_for=typical.not_for,
        needs="What its size asks for.",
    )


# Identity


def content_hash(path: Path, settings: Settings) -> str:
    """SHA-256 of a file, remembered in the cache until its size or time changes.

    A file in the Hub's cache is named by the hash that it must have: raises ValueError where it has another.
    """
    real, status = path.resolve(), path.stat()
    ticket = hashlib.sha256(f"{real} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    remembered = settings.cache / "hashes" / ticket[:32]
    if remembered.is_file():
        digest = remembered.read_text()
    else:
        with real.open("rb") as file:
            digest = _sha256(file)
        write_whole(remembered, digest.encode())
    if re.fullmatch("[0-9a-f]{64}", real.name) and real.name != digest:
        raise ValueError(f"{path} is damaged: its content is not what the Hub has. Delete {real} and try again.")
    return digest


def _sha256(file) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**22):
        digest.update(block)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a small file so that nobody ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)
