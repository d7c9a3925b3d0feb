"""diffusers' layout: model_index.json, and a folder a part with its config and weights. The others differ from it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cards import Source
from pipelines.messages import said
from pipelines.models.files import is_shared, part_folder, read_json
from pipelines.settings import Settings

WITHOUT_WEIGHTS = ("tokenizer", "scheduler")  # parts of which every file is wanted
FLAX = "diffusion_flax_model.msgpack"
POSE = "FollowYourPosePipeline"  # FollowYourPose laid out like Stable Diffusion
EDITABLE = ("StableDiffusionPipeline", "TuneAVideoPipeline", POSE)  # whose UNets are, or can be, inflated


@dataclass(frozen=True)
class Stored:
    """A module on disk: a folder with config.json and weights, as published or converted into the cache."""

    folder: Path
    variant: str | None = None
    kind: str | None = None  # the class (a key of CLASSES) to make of it, where that is not the one in its config


class Diffusers:
    """The layout of most models, and of every folder that tells of no other."""

    mark = "model_index.json"  # a file of every model so laid out
    tokenizer_source: Source | None = None  # whose tokenizer is used where the folder has none
    pad_with_zero = False  # whether token 0 fills up short prompts

    def recognises(self, names: Collection[str]) -> bool:
        """Whether a model with files of these `names`, relative to its folder, has this layout."""
        return True

    def check(self, folder: Path, part: str, variant: str | None) -> None:
        """Raises ValueError, naming what is missing, where `folder` lacks files of `part`."""
        if part not in WITHOUT_WEIGHTS:
            weight_files(part_folder(folder, part), variant)
        elif not part_folder(folder, part).is_dir():
            raise ValueError(said("{folder} has no {part}. Download this model once more.", folder=folder, part=part))

    def downloads(self, names: Collection[str], parts: Sequence[str], variant: str | None) -> list[str]:
        """Those of a repository's files `names` that `parts` need."""
        wanted = [self.mark]
        for part in parts:
            here = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
            if part in WITHOUT_WEIGHTS:
                wanted += [f"{part}/{name}" for name in here]
            elif chosen := choose_weights(here, variant):
                ending = "safetensors" if "safetensors" in chosen else "bin"
                shards = [name for name in here if "-of-" in name and name.endswith(ending)]
                wanted += [
                    f"{part}/{name}" for name in ("config.json", chosen, *(shards if chosen.endswith("json") else ()))
                ]
        return wanted

    def scheduler(self, folder: Path) -> dict[str, Any]:
        """The config of the scheduler. Raises ValueError where it lacks what a noise schedule is made of, and where it
        asks for one that is not known here."""
        file = part_folder(folder, "scheduler") / "scheduler_config.json"
        config = read_json(file)
        needed = {"num_train_timesteps"}
        if not str(config.get("_class_name")).startswith("FlowMatch"):
            needed |= {"beta_start", "beta_end", "beta_schedule"}
        if missing := needed - config.keys():
            raise ValueError(said("{file} lacks {names}.", file=file, names=", ".join(sorted(missing))))
        if config.get("rescale_betas_zero_snr"):
            raise ValueError(
                said(
                    "{file} asks for rescale_betas_zero_snr, which this app can't do: the model begins from pure "
                    "noise, and its videos would come out wrong. Use another model.",
                    file=file,
                )
            )
        return config

    def module(self, folder: Path, part: str, variant: str | None, settings: Settings) -> Stored:
        """The files of `part`, converted where they lie otherwise. Raises ValueError where they are missing or
        damaged."""
        return Stored(part_folder(folder, part), variant)

    def inflated_unet(self, folder: Path, variant: str | None, settings: Settings, base: Callable[[], Path]) -> Stored:
        """The files of the UNet that is inflated over time, or is to be; `base` finds the Stable Diffusion that has the
        parts that `folder` lacks. Raises ValueError as `check_editable` does."""
        self.check_editable(folder)
        return Stored(part_folder(folder, "unet"), variant, "InflatedUNet")

    def check_editable(self, folder: Path) -> None:
        """Raises ValueError, naming what it holds instead, where `folder` is no model whose UNet is or can be
        inflated."""
        index = folder / "model_index.json"
        kind = read_json(index).get("_class_name") if index.is_file() else None
        if kind not in EDITABLE:
            held = said("a {kind}", kind=kind) if kind else said("no model_index.json")
            raise ValueError(
                said(
                    "{folder} holds {held}: it is neither Stable Diffusion 1.x or 2.x (StableDiffusionPipeline) nor "
                    "a tuned model (TuneAVideoPipeline).",
                    folder=folder,
                    held=held,
                )
            )

    def base_within(self, folder: Path) -> Source | None:
        """The model inside `folder` that has the parts which the layout leaves out; None where it leaves out none."""
        return None

    def pipeline(self, folder: Path) -> str | None:
        """The class of the pipeline that the model was published for. Raises ValueError where there is no model."""
        if not (folder / "model_index.json").is_file():
            raise ValueError(
                said(
                    "{folder} holds no model: it has neither a model_index.json nor a configuration.json.",
                    folder=folder,
                )
            )
        return read_json(folder / "model_index.json").get("_class_name")

    def clip_size(self, folder: Path) -> tuple[int, int]:
        """Frames and pixels a side of the clips that a text-to-video model was trained on."""
        return 16, trained_side(folder, folder, 32)


def weight_files(folder: Path, variant: str | None) -> list[Path]:
    """The files that hold the weights in the part folder `folder`: safetensors before pickles before FLAX,
    `variant` before plain, and plain before fp16.

    Where shards name the same weight, the last has it. Raises ValueError where there is none, or where shards that an
    index names are missing.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    chosen = choose_weights(names, variant)
    if chosen is None:
        raise ValueError(said("There are no weights in {folder}. Download this model once more.", folder=folder))
    if not chosen.endswith(".json"):
        return [folder / chosen]
    shards = sorted(set(read_json(folder / chosen).get("weight_map", {}).values()))  # ../ comes first
    missing = [name for name in shards if name not in names and not is_shared(folder / name)]
    if missing or not shards:
        raise ValueError(
            said(
                "{folder} lacks {missing}. Download this model once more.",
                folder=folder,
                missing=", ".join(missing) or said("all shards"),
            )
        )
    return [folder / name for name in shards]


def choose_weights(names: Collection[str], variant: str | None) -> str | None:
    """The weight file, or the index of a sharded one, to take out of `names`; None where there is none."""
    for ending, own_stem in (("safetensors", "model"), ("bin", "pytorch_model")):
        for infix in dict.fromkeys((f".{variant}" if variant else "", "", ".fp16")):
            for stem in ("diffusion_pytorch_model", own_stem):
                whole, index = f"{stem}{infix}.{ending}", f"{stem}.{ending}.index{infix}.json"
                for name in (whole, index, f"{whole}.index.json"):
                    if name in names:
                        return name
    return FLAX if FLAX in names else None


def trained_side(folder: Path, vae: Path, usual: int) -> int:
    """The pixels of a side that the UNet in `folder` was made for; `vae` is the folder of a model with its VAE.

    `usual` is the side of the latents where the config says nothing.
    """
    size = read_json(part_folder(folder, "unet") / "config.json").get("sample_size") or usual
    return vae_scale_factor(vae) * (size if isinstance(size, int) else min(size))


def vae_scale_factor(folder: Path) -> int:
    """How many pixels a side of a latent pixel stands for, in the model in `folder`."""
    file = part_folder(folder, "vae") / "config.json"
    return 2 ** (len(read_json(file).get("block_out_channels", [0] * 4)) - 1) if file.is_file() else 8
