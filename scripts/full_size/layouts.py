"""The published folders: which files with which weights, what stands beside them, and what is made of each."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import T5Tokenizer

from pipelines.catalog import ASSETS, MINIATURES
from pipelines.models.files import part_folder
from scripts.full_size.networks import (
    CLIP_L,
    OPEN_CLIP_H,
    SD_UNET,
    SD_VAE,
    UMT5_XXL,
    VACE,
    WAN,
    WAN_VAE,
    Config,
    manifest,
    open_clip_text,
    shapes,
)
from scripts.full_size.values import (
    Shapes,
    numbers,
    write_checkpoint,
    write_flax,
    write_pickle,
    write_safetensors,
)

PROMPT, CLIP = "a robot dances on the beach", ASSETS / "examples" / "bear.mp4"
SCHEDULE = {
    **{"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    **{"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "epsilon"},
}
FLOW = {
    **{"_class_name": "UniPCMultistepScheduler", "num_train_timesteps": 1000, "use_flow_sigmas": True},
    **{"prediction_type": "flow_prediction", "flow_shift": 3.0},
}


@dataclass(frozen=True)
class File:
    """A file of weights."""

    path: str  # in the model's folder
    shapes: Shapes
    write: Callable[[Path, Shapes, torch.dtype], None] = write_safetensors
    dtype: torch.dtype = torch.float32

    @property
    def bytes(self) -> int:
        return numbers(self.shapes) * self.dtype.itemsize


@dataclass(frozen=True)
class Published:
    """A model's folder, and commands that make a video of it: {model} is that folder, {out} where results go."""

    files: tuple[File, ...]
    commands: tuple[list[str], ...]
    texts: Mapping[str, Any] = field(default_factory=dict)  # files of JSON
    tokenizers: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)  # folders

    @property
    def bytes(self) -> int:
        """On the disk: the folder, and what the app converts of it."""
        return sum(file.bytes * (1 if file.write is write_safetensors else 2) for file in self.files)

    @property
    def memory(self) -> int:
        """What all weights take in fp32, as they are on a CPU."""
        return 4 * sum(numbers(file.shapes) for file in self.files)

    def write(self, folder: Path) -> None:
        """Writes the folder."""
        for file in self.files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            file.write(folder / file.path, file.shapes, file.dtype)
        for path, content in self.texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(json.dumps(content))
        for path, write in self.tokenizers.items():
            write(folder / path)


def clip_tokenizer(folder: Path) -> None:
    """That of the miniatures: its words are fewer, and its numbers are among those of the published one."""
    shutil.copytree(part_folder(MINIATURES / "sd", "tokenizer"), folder)


def t5_tokenizer(folder: Path) -> None:
    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,.-"]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *letters]
    T5Tokenizer(vocab=words, extra_ids=0).save_pretrained(folder)


def part(folder: str, config: Config, dtype: torch.dtype = torch.float32, infix: str = "") -> tuple[File, Config]:
    """A part in diffusers' layout: its weights, and the config beside them."""
    stem = "model" if "architectures" in config else "diffusion_pytorch_model"
    return File(f"{folder}/{stem}{infix}.safetensors", shapes(config), dtype=dtype), {f"{folder}/config.json": config}


def model(
    pipeline: str,
    parts: list[tuple[File, Config]],
    commands: tuple[list[str], ...],
    schedule: Config,
    tokenizer: Callable[[Path], None] = clip_tokenizer,
    within: str = "",
) -> Published:
    """In diffusers' layout, `within` a folder of the model's."""
    texts: dict[str, Any] = {f"{within}model_index.json": {"_class_name": pipeline}}
    texts[f"{within}scheduler/scheduler_config.json"] = schedule
    for _, config in parts:
        texts |= config
    return Published(tuple(file for file, _ in parts), commands, texts, {f"{within}tokenizer": tokenizer})


def text_to_video(frames: int, side: int) -> list[str]:
    return ["text-to-video", PROMPT, "--model", "{model}", *_size(frames, side), "-o", "{out}/video.mp4"]


def pose_to_video(frames: int, side: int) -> list[str]:
    return ["pose-to-video", "motion:wave", PROMPT, "--model", "{model}", *_size(frames, side), "-o", "{out}/video.mp4"]


def _size(frames: int, side: int) -> list[str]:
    return [*("--frames", str(frames), "--width", str(side), "--height", str(side)), "--steps", "2", "--seed", "7"]


def stable_diffusion(within: str = "", dtype: torch.dtype = torch.float32) -> list[tuple[File, Config]]:
    return [
        part(f"{within}unet", SD_UNET, dtype),
        part(f"{within}vae", SD_VAE, dtype),
        part(f"{within}text_encoder", CLIP_L, dtype),
    ]


def stable_diffusion_14() -> Published:
    """CompVis/stable-diffusion-v1-4: tuned on a clip for two steps, then edited. Small, as its inversion has 50."""
    size = ["--frames", "2", "--width", "128", "--height", "128", "--steps", "2"]
    tune = ["tune", str(CLIP), "a bear dances", "--model", "{model}", *size, "-o", "{out}/tuned"]
    edit = ["edit", "{out}/tuned", PROMPT, "--model", "{model}", "--steps", "2", "-o", "{out}/video.mp4"]
    schedule = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, **SCHEDULE}
    return model("StableDiffusionPipeline", stable_diffusion(), (tune, edit), schedule)


def followyourpose() -> Published:
    """YueMafighting/FollowYourPose_v1: a checkpoint, the adapter, and Stable Diffusion 1.4 in a folder of its own."""
    known = manifest("followyourpose_sd14")
    base = model(
        "StableDiffusionPipeline",
        stable_diffusion("stable-diffusion-v1-4/"),
        (pose_to_video(8, 256),),
        {"_class_name": "PNDMScheduler", "skip_prk_steps": True, **SCHEDULE},
        within="stable-diffusion-v1-4/",
    )
    own = (
        File("followyourpose_checkpoint-1000/pytorch_model.bin", known["state_dict"], write_pickle),
        File("pose_encoder.pth", known["pose_encoder"], write_pickle),
    )
    return Published((*own, *base.files), base.commands, base.texts, base.tokenizers)


def tempofunk() -> Published:
    """TempoFunk/makeavid-sd-jax: its UNet as FLAX writes it; in `sd_image` the UNet that draws the first image."""
    known = manifest("tempofunk_makeavid")
    half = torch.float16
    whole = model(
        "StableDiffusionPseudo3DPipeline",
        [part("sd_image/unet", SD_UNET, half), part("vae", SD_VAE), part("text_encoder", CLIP_L)],
        (text_to_video(4, 256),),
        {"_class_name": "DPMSolverMultistepScheduler", **SCHEDULE},
    )
    unet = File("unet/diffusion_flax_model.msgpack", known["params"], write_flax)
    config = {"_class_name": "UNetPseudo3DConditionModel", **known["config"], "param_dtype": "float32"}
    texts = {**whole.texts, "unet/config.json": config}
    return Published((unet, *whole.files), whole.commands, texts, whole.tokenizers)


def modelscope() -> Published:
    """ali-vilab/text-to-video-ms-1.7b, its files in half precision."""
    config = {"_class_name": "UNet3DConditionModel", **manifest("modelscope_diffusers")["config"]}
    parts = [
        part("unet", config, torch.float16, ".fp16"),
        part("vae", SD_VAE, torch.float16, ".fp16"),
        part("text_encoder", OPEN_CLIP_H, torch.float16, ".fp16"),
    ]
    return model("TextToVideoSDPipeline", parts, (text_to_video(4, 256),), {"_class_name": "DDIMScheduler", **SCHEDULE})


def modelscope_original() -> Published:
    """As modelscope.cn has it: of the whole checkpoints that it holds only what is read."""
    unet, vae = manifest("modelscope_original"), manifest("modelscope_vae")
    files = (
        File("text2video_pytorch_model.pth", unet["params"], write_pickle),
        File(
            "VQGAN_autoencoder.pth",
            {vae["prefix_in_file"] + name: shape for name, shape in vae["params"].items()},
            write_checkpoint,
        ),
        File("open_clip_pytorch_model.bin", open_clip_text(), write_pickle),
    )
    named = {"ckpt_clip": files[2].path, "ckpt_unet": files[0].path, "ckpt_autoencoder": files[1].path}
    sampled = {"temporal_attention": "True", "num_timesteps": 1000, "mean_type": "eps"}
    configuration = {
        "task": "text-to-video-synthesis",
        "model": {
            "type": "latent-text-to-video-synthesis",
            "model_args": {**named, "max_frames": 16, "tiny_gpu": 1},
            "model_cfg": {**unet["model_cfg"], **sampled, "var_type": "fixed_small", "loss_type": "mse"},
        },
    }
    return Published(
        files,
        (text_to_video(4, 256),),
        {"configuration.json": configuration},
        {"tokenizer": clip_tokenizer},
    )


def _wan(pipeline: str, transformer: Config, command: list[str]) -> Published:
    parts = [
        part("transformer", transformer),
        part("vae", WAN_VAE),
        part("text_encoder", UMT5_XXL, torch.bfloat16),
    ]
    return model(pipeline, parts, (command,), FLOW, t5_tokenizer)


def wan() -> Published:
    """Wan-AI/Wan2.1-T2V-1.3B-Diffusers, its text encoder in bfloat16."""
    return _wan("WanPipeline", WAN, text_to_video(5, 256))


def vace() -> Published:
    """Wan-AI/Wan2.1-VACE-1.3B-diffusers, its text encoder in bfloat16."""
    return _wan("WanVACEPipeline", VACE, pose_to_video(5, 256))


SYSTEMS: Mapping[str, Callable[[], Published]] = {
    "stable-diffusion-1.4": stable_diffusion_14,
    "modelscope": modelscope,
    "modelscope-original": modelscope_original,
    "tempofunk": tempofunk,
    "followyourpose": followyourpose,
    "wan": wan,
    "wan-vace": vace,
}
