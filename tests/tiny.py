"""A text-to-video model of the real classes, tiny and random, written in the published layout."""

import gzip
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgpack
import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel, UNet3DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipelines.cards import ModelCard
from pipelines.catalog import ENGINES
from pipelines.models.classes import CLASSES
from pipelines.models.folders import card_of_folder
from pipelines.models.networks.inflated_unet import InflatedUNet
from pipelines.models.networks.pseudo3d_unet import UNetPseudo3DConditionModel
from pipelines.systems.engine import Engine

GOLDENS = Path(__file__).parent / "data" / "goldens"


def manifest(name: str) -> dict:
    """A list of keys and shapes at full size, out of goldens/manifests."""
    return json.loads(gzip.decompress((GOLDENS / "manifests" / f"{name}.json.gz").read_bytes()))


PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
WIDTH = 32  # of the text states

UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 8,
    "norm_num_groups": 8,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module` with every weight random: as they are made, ModelScope's temporal layers do nothing."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data = noise / parameter[0].numel() ** 0.5
        else:
            parameter.data = 0.1 * noise + name.endswith("weight")  # of a norm
    return module.eval().requires_grad_(False)


def unet(seed: int = 0, **changes) -> UNet3DConditionModel:
    return randomised(UNet3DConditionModel(**{**UNET, **changes}), seed)


def vae() -> AutoencoderKL:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "sample_size": 64, "scaling_factor": 0.3}
    return randomised(AutoencoderKL(latent_channels=4, **blocks, **sizes))


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a vocabulary of bytes and no merges."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)


def text_encoder(vocabulary: int = 514) -> CLIPTextModel:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    marks = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    return randomised(CLIPTextModel(CLIPTextConfig(vocab_size=vocabulary, **sizes, **marks)))


def write_model(folder: Path) -> Path:
    """Writes the whole model in diffusers layout."""
    unet().save_pretrained(folder / "unet")
    vae().save_pretrained(folder / "vae")
    text_encoder().save_pretrained(folder / "text_encoder")
    tokenizer().save_pretrained(folder / "tokenizer")
    DDIMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    index = {"_class_name": "TextToVideoSDPipeline", "unet": ["diffusers", "UNet3DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def finish(generator):
    """What the generator yields, and what it returns."""
    events = []
    while True:
        try:
            events.append(next(generator))
        except StopIteration as end:
            return events, end.value


def add_engine(monkeypatch, name: str, engine: Engine) -> None:
    """Registers `engine` under `name`, as the catalog does, for the time of a test."""
    monkeypatch.setitem(ENGINES, name, f"engine_{name}")
    monkeypatch.setitem(sys.modules, f"engine_{name}", SimpleNamespace(ENGINE=engine))
    for kind, network in engine.classes.items():
        monkeypatch.setitem(CLASSES, kind, network)


def count_calls(modules):
    """How many times each of `modules` is called from now on, and with how many rows."""
    rows = {module: [] for module in modules}
    for module in modules:
        module.register_forward_hook(lambda module, inputs, output: rows[module].append(len(inputs[0])))
    return rows


def relative_error(ours: torch.Tensor, reference: torch.Tensor) -> float:
    assert ours.shape == reference.shape
    return ((ours - reference).abs().max() / reference.abs().max()).item()


# A tiny Stable Diffusion, and its UNet inflated

IMAGE_UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 16, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
IMAGE_SCHEDULER = {key: value for key, value in SCHEDULER.items() if key != "clip_sample"}


def image_unet(seed: int = 0, **changes) -> UNet2DConditionModel:
    return randomised(UNet2DConditionModel(**{**IMAGE_UNET, **changes}), seed)


def inflated_unet(seed: int = 0, pose: bool = False, **changes) -> InflatedUNet:
    """With random temporal layers."""
    return randomised(InflatedUNet({**IMAGE_UNET, **changes}, pose=pose), seed)


def write_image_model(folder: Path, **changes) -> Path:
    """Writes a whole tiny Stable Diffusion in diffusers layout; `changes` are of its UNet's config."""
    image_unet(**changes).save_pretrained(folder / "unet")
    vae().save_pretrained(folder / "vae")
    text_encoder().save_pretrained(folder / "text_encoder")
    tokenizer().save_pretrained(folder / "tokenizer")
    PNDMScheduler(skip_prk_steps=True, **IMAGE_SCHEDULER).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


def write_tuned_model(folder: Path) -> Path:
    """Writes a tuned UNet, and nothing but it, as Tune-A-Video publishes it."""
    unet = inflated_unet(seed=5)
    (folder / "unet").mkdir(parents=True)
    torch.save(unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.bin")
    config = {key: value for key, value in IMAGE_UNET.items() if not key.endswith("types")}
    config["down_block_types"] = [name.replace("2D", "3D") for name in IMAGE_UNET["down_block_types"]]
    config["up_block_types"] = [name.replace("2D", "3D") for name in IMAGE_UNET["up_block_types"]]
    config |= {"_class_name": "UNet3DConditionModel", "mid_block_type": "UNetMidBlock3DCrossAttn"}
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "TuneAVideoPipeline"}))
    return folder


def write_pose_model(folder: Path) -> Path:
    """Writes FollowYourPose as published, its Stable Diffusion in a folder of its own."""
    weights = inflated_unet(seed=6, pose=True).state_dict()
    (folder / "followyourpose_checkpoint-1000").mkdir(parents=True)
    torch.save(weights, folder / "followyourpose_checkpoint-1000" / "pytorch_model.bin")
    adapter = {name.removeprefix("skeleton_adapter."): tensor for name, tensor in weights.items() if "adapter" in name}
    torch.save(adapter, folder / "pose_encoder.pth")
    write_image_model(folder / "stable-diffusion-v1-4")
    return folder


# A tiny makeavid-sd: its UNet as FLAX writes it, beside a Stable Diffusion that draws the first image

PSEUDO3D = {
    **{key: value for key, value in IMAGE_UNET.items() if not key.endswith("types")},
    "in_channels": 9,
    "down_block_types": ("CrossAttnDownBlockPseudo3D",) * 3 + ("DownBlockPseudo3D",),
    "up_block_types": ("UpBlockPseudo3D",) + ("CrossAttnUpBlockPseudo3D",) * 3,
    "layers_per_block": 1,
}


def pseudo3d_unet(seed: int = 0, **changes) -> UNetPseudo3DConditionModel:
    """With random temporal layers."""
    return randomised(UNetPseudo3DConditionModel(**{**PSEUDO3D, **changes}), seed)


def flax_path(name: str, tensor: torch.Tensor) -> list[str]:
    """FLAX's names for the tensor that is called `name` in PyTorch."""
    *parts, leaf = re.sub(r"\.(\d+)", r"_\1", name).split(".")
    return [*parts, leaf if leaf == "bias" else "scale" if tensor.ndim == 1 else "kernel"]


def flax_bytes(weights: dict[str, torch.Tensor]) -> bytes:
    """What flax's `to_bytes` writes of PyTorch's `weights`."""
    tree = {}
    for name, tensor in weights.items():
        *parts, leaf = flax_path(name, tensor)
        branch = tree
        for part in parts:
            branch = branch.setdefault(part, {})
        order = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}[tensor.ndim]
        branch[leaf] = flax_array(tensor.permute(order).contiguous())
    return msgpack.packb(tree)


def flax_array(array: torch.Tensor) -> msgpack.ExtType:
    values = bytes(array.flatten().view(torch.uint8).numpy())
    return msgpack.ExtType(1, msgpack.packb((list(array.shape), str(array.dtype).removeprefix("torch."), values)))


def write_pseudo3d_model(folder: Path) -> Path:
    """Writes the whole model, and in `sd_image` the Stable Diffusion, in the layout of makeavid-sd-jax."""
    write_model(folder)
    for file in (folder / "unet").iterdir():
        file.unlink()
    config = {"_class_name": "UNetPseudo3DConditionModel", **PSEUDO3D, "param_dtype": "float32"}
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    (folder / "unet" / "diffusion_flax_model.msgpack").write_bytes(flax_bytes(pseudo3d_unet().state_dict()))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPseudo3DPipeline"}))
    image_unet(layers_per_block=1).save_pretrained(folder / "sd_image" / "unet")
    return folder


def write_all(folder: Path) -> dict[str, ModelCard]:
    """Writes a model for every system. Returns their cards: "text", "sd", "pose" and "pseudo3d"."""
    made = {
        "text": write_model(folder / "text"),
        "sd": write_image_model(folder / "sd"),
        "pose": write_pose_model(folder / "pose"),
        "pseudo3d": write_pseudo3d_model(folder / "pseudo3d"),
    }
    return {name: replace(card_of_folder(path), name=name) for name, path in made.items()}
