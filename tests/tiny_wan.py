"""Wan 2.1 of the real classes, tiny and random, written as it is published."""

from pathlib import Path

import tiny
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from pipelines.models.manager import ModelManager
from pipelines.settings import Settings

CHANNELS = 4
TRANSFORMER = {
    **{"num_attention_heads": 2, "attention_head_dim": 12, "in_channels": CHANNELS, "out_channels": CHANNELS},
    **{"text_dim": 16, "freq_dim": 32, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32},
}
VAE = {
    **{"base_dim": 16, "z_dim": CHANNELS, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
    **{"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.8, 1.0, 1.2]},
}
SIZES = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
SCHEDULE = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
PROMPTS = ["blurry", "a robot dances"]


def manager(cards: dict, folder: Path) -> ModelManager:
    """A manager of the models of `cards` whose data and caches are in `folder`."""
    return ModelManager(cards, Settings(data=folder / "data", cache=folder / "cache"), device="cpu")


def transformer(seed: int = 1) -> WanTransformer3DModel:
    return tiny.randomised(WanTransformer3DModel(**TRANSFORMER), seed)


def vace_transformer() -> WanVACETransformer3DModel:
    """With two layers of control for two kinds of latents and a mask of 8x8 pixels."""
    sizes = {**TRANSFORMER, "vace_layers": [0, 1], "vace_in_channels": 2 * CHANNELS + 64}
    return tiny.randomised(WanVACETransformer3DModel(**sizes), 3)


def vae() -> AutoencoderKLWan:
    return tiny.randomised(AutoencoderKLWan(**VAE))


def write_model(folder: Path, changes: dict | None = None, pipeline: type = WanPipeline) -> Path:
    """Writes the whole model; `changes` are of its parts."""
    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,."]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *letters]
    parts = {
        "transformer": transformer(),
        "vae": vae(),
        "text_encoder": tiny.randomised(UMT5EncoderModel(UMT5Config(**SIZES))),
        "tokenizer": T5Tokenizer(vocab=words, extra_ids=0),
        "scheduler": UniPCMultistepScheduler(**SCHEDULE),
    }
    pipeline(**parts | (changes or {})).save_pretrained(folder)
    return folder
