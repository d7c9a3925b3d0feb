"""The networks at full size: their configs as they are published, and the names and shapes of their weights.

Those of other programs' layouts were taken from these programs (tests/data/goldens/manifests), the others are those of
the classes that the configs name.
"""

import gzip
import json
from pathlib import Path
from typing import Any

from pipelines.models.classes import empty
from pipelines.systems.engine import find_engine

Config = dict[str, Any]
MANIFESTS = Path(__file__).resolve().parents[2] / "tests" / "data" / "goldens" / "manifests"

SD_UNET: Config = {
    "_class_name": "UNet2DConditionModel",
    **{"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
}
SD_VAE: Config = {
    "_class_name": "AutoencoderKL",
    **{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 512},
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
CLIP_L: Config = {
    "architectures": ["CLIPTextModel"],
    **{"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
    **{"num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "projection_dim": 768},
}
OPEN_CLIP_H: Config = {
    "architectures": ["CLIPTextModel"],
    **{"vocab_size": 49408, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23},
    **{"num_attention_heads": 16, "max_position_embeddings": 77, "hidden_act": "gelu", "projection_dim": 512},
}
WAN: Config = {
    "_class_name": "WanTransformer3DModel",
    **{"num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16, "out_channels": 16},
    **{"text_dim": 4096, "freq_dim": 256, "ffn_dim": 8960, "num_layers": 30, "cross_attn_norm": True},
    **{"qk_norm": "rms_norm_across_heads", "eps": 1e-6, "patch_size": [1, 2, 2], "rope_max_seq_len": 1024},
}
VACE = WAN | {
    "_class_name": "WanVACETransformer3DModel",
    **{"vace_layers": list(range(0, 30, 2)), "vace_in_channels": 96},
}
WAN_VAE: Config = {"_class_name": "AutoencoderKLWan", "base_dim": 96, "z_dim": 16}
UMT5_XXL: Config = {
    "architectures": ["UMT5EncoderModel"],
    **{"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
    **{"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True},
}


def manifest(name: str) -> dict[str, Any]:
    """The names and shapes that another program has."""
    return json.loads(gzip.decompress((MANIFESTS / f"{name}.json.gz").read_bytes()))


def shapes(config: Config) -> dict[str, list[int]]:
    """Of the weights in a file of the network that `config` describes."""
    for engine in ("wan", "wan-vace"):  # whose classes are known once they are
        find_engine(engine)
    found = {name: list(tensor.shape) for name, tensor in empty(config, Path("published")).state_dict().items()}
    if config.get("architectures") == ["CLIPTextModel"]:
        return {f"text_model.{name}": shape for name, shape in found.items()}
    found.pop("encoder.embed_tokens.weight", None)  # of UMT5: another name for its one table of words
    return found


def open_clip_text() -> dict[str, list[int]]:
    """Of OpenCLIP's ViT-H-14, the text tower: all 24 layers, of which ModelScope reads 23."""
    width, inner, vocabulary, length = 1024, 4096, 49408, 77
    found = {"positional_embedding": [length, width], "text_projection": [width, width], "logit_scale": [1]}
    found["token_embedding.weight"] = [vocabulary, width]
    for layer in range(24):
        here = {
            **{"attn.in_proj_weight": [3 * width, width], "attn.in_proj_bias": [3 * width]},
            **{"attn.out_proj.weight": [width, width], "attn.out_proj.bias": [width]},
            **{"mlp.c_fc.weight": [inner, width], "mlp.c_fc.bias": [inner]},
            **{"mlp.c_proj.weight": [width, inner], "mlp.c_proj.bias": [width]},
            **{f"{norm}.{leaf}": [width] for norm in ("ln_1", "ln_2") for leaf in ("weight", "bias")},
        }
        found |= {f"transformer.resblocks.{layer}.{name}": shape for name, shape in here.items()}
    return found | {"ln_final.weight": [width], "ln_final.bias": [width]}
