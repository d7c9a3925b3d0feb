"""Where the files of a model are: a folder or the Hugging Face Hub, which files to read, and what they hash to.

Three layouts are known: diffusers' (model_index.json and a folder a part; TempoFunk's UNet there may be FLAX's
msgpack), ModelScope's original (configuration.json and three pickles) and FollowYourPose's (a checkpoint of the whole
UNet; the rest is Stable Diffusion's). Nothing here reads a weight or imports torch: the page asks `availability` before
the first job.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.catalog import CLIP, MINIATURES, ModelCard, Source
from pipelines.settings import Settings

PARTS = ("tokenizer", "scheduler", "text_encoder", "unet", "vae")  # of a text-to-video model
ORIGINAL = {  # ModelScope's files and the key of `model.model_args` under which configuration.json names them
    "text_encoder": "ckpt_clip",
    "unet": "ckpt_unet",
    "vae": "ckpt_autoencoder",
}
POSE = "FollowYourPosePipeline"  # FollowYourPose laid out like Stable Diffusion
EDITABLE = ("StableDiffusionPipeline", "TuneAVideoPipeline", POSE)  # whose UNets are, or can be, inflated
CHECKPOINT = r"followyourpose_checkpoint-(\d+)/pytorch_model\.bin"  # the whole UNet, as accelerate writes it
POSE_ENCODER = "pose_encoder.pth"  # FollowYourPose's adapter alone
FLAX = "diffusion_flax_model.msgpack"
PSEUDO3D = "StableDiffusionPseudo3DPipeline"  # TempoFunk's
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
    """The files that hold the weights in the part folder `folder`: safetensors before pickles before FLAX,
    `variant` before plain, and plain before fp16.

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
        for infix in dict.fromkeys((f".{variant}" if variant else "", "", ".fp16")):
            for stem in ("diffusion_pytorch_model", own_stem):
                whole, index = f"{stem}{infix}.{ending}", f"{stem}.{ending}.index{infix}.json"
                for name in (whole, index, f"{whole}.index.json"):
                    if name in names:
                        return name
    return FLAX if FLAX in names else None


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


def pose_checkpoint(folder: Path) -> Path | None:
    """FollowYourPose's checkpoint in `folder`, the one trained longest; None where there is none."""
    found = _pose_checkpoint(path.relative_to(folder).as_posix() for path in folder.glob("*/*.bin"))
    return found and folder / found


def _pose_checkpoint(names: Iterable[str]) -> str | None:
    steps = {name: int(match[1]) for name in names if (match := re.fullmatch(CHECKPOINT, name))}
    return max(steps, key=steps.__getitem__, default=None)


def source_of_folder(folder: Path | str, base: Source | None = None) -> Source:
    """The Stable Diffusion 1.x or 2.x, tuned Tune-A-Video or FollowYourPose model in `folder`, for editing clips.

    `base` has what the folder lacks: a tuned model often comes without the parts that were not tuned. FollowYourPose's
    folder may hold its base as a folder of its own. Raises ValueError where there is something else, or too little.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    if pose_checkpoint(folder) is None:
        check_editable(folder)
    elif base is None and not (folder / "model_index.json").is_file():
        bases = sorted(folder.glob("*/model_index.json"))
        if not bases:
            raise ValueError(f"{folder} holds FollowYourPose without Stable Diffusion 1.4: put its folder into it.")
        base = Source(str(bases[0].parent))
    if base is None and (missing := _missing(folder, None)):
        raise ValueError(f"{missing} If it was tuned from another model, name that as its base.")
    return Source(str(folder), base=base)


def check_editable(folder: Path) -> None:
    """Raises ValueError, naming what it holds instead, where `folder` is no model whose UNet is or can be inflated."""
    index = folder / "model_index.json"
    kind = read_json(index).get("_class_name") if index.is_file() else None
    if kind not in EDITABLE:
        held = f"a {kind}" if kind else "no model_index.json"
        raise ValueError(
            f"{folder} holds {held}: it is neither Stable Diffusion 1.x or 2.x (StableDiffusionPipeline) nor a tuned "
            "model (TuneAVideoPipeline)."
        )


# The Hub


def locate(
    source: Source, settings: Settings, on_progress: OnProgress | None = None, parts: Sequence[str] | None = None
) -> Path:
    """The folder on this machine that has at least `parts` of `source`, downloaded first where it is on the Hub only.

    By default these are all parts, or where `source` has a base only the UNet. Raises ValueError where it is in neither
    place, saying what to do.
    """
    parts = _own_parts(source) if parts is None else parts
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
    return _download(source, on_progress, lambda names: _files_to_download(names, source.variant, parts))


def locate_file(source: Source, name: str, settings: Settings, on_progress: OnProgress | None = None) -> Path:
    """The folder of `source` or, where it is on the Hub, the one on this machine that has its file `name`.

    A copy can be put by hand into the app's cache, in a folder called like the repository's last part. Downloaded
    where it is on the Hub only. Raises ValueError where it is nowhere, saying what to do.
    """
    if source.is_folder:
        if not Path(source.location).is_dir():
            raise ValueError(f"There is no folder {source.location}.")
        return Path(source.location)
    folder = _folder_with(source, name, settings)
    if folder is not None:
        return folder
    if not settings.hub:
        raise ValueError(
            f"{source.location} is not on this machine, and fetching it is turned off. Set MARIONETTE_HUB=1, or put "
            f"its {name} into {settings.cache / Path(source.location).name}."
        )
    return _download(source, on_progress, lambda names: [name])


def _folder_with(source: Source, name: str, settings: Settings) -> Path | None:
    folders = (settings.cache / Path(source.location).name, _snapshot(source, name))
    return next((folder for folder in folders if folder is not None and (folder / name).is_file()), None)


def _own_parts(source: Source) -> Sequence[str]:
    return ("unet",) if source.base else PARTS


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

    for name in (file, POSE_ENCODER):
        found = try_to_load_from_cache(source.location, name, revision=source.revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _download(source: Source, on_progress: OnProgress | None, choose: Callable[[list[str]], list[str]]) -> Path:
    """Fetches the files that `choose` takes from the names of all."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        # Unlike a listing of the files, this does not try again for half a minute where there is no network.
        info = HfApi().model_info(source.location, revision=source.revision, timeout=10)
        wanted = choose([file.rfilename for file in info.siblings])
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
    if checkpoint := _pose_checkpoint(names):
        wanted += [checkpoint, POSE_ENCODER]
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
            elif part != "unet" or pose_checkpoint(folder) is None:
                weight_files(part_folder(folder, part), variant)
    except ValueError as error:
        return str(error)
    return None


def availability(card: ModelCard, settings: Settings) -> str | None:
    """None if the weights of `card` are on this machine, else one sentence on what is missing and what to do."""
    source = card.source
    folder = Path(source.location) if source.is_folder else _snapshot(source)
    if folder is not None and folder.is_dir():
        missing = _missing(folder, source.variant, _own_parts(source))
        if missing is None and source.base is not None:
            return availability(replace(card, source=source.base), settings)
        if missing is None or source.is_folder:
            return missing
    if source.is_folder:
        return f"There is no folder {source.location}."
    if settings.hub:
        return f"{source.location} is not on this machine yet: the first video downloads it from the Hugging Face Hub."
    return f"{source.location} is not on this machine, and fetching it is turned off: set MARIONETTE_HUB=1."


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
