"""ModelScope's original layout -> diffusers' names. Dictionaries in, dictionaries out: no file is read here.

`text2video_pytorch_model.pth` holds the UNet under the names of ModelScope's UNetSD, `VQGAN_autoencoder.pth` a whole
latent diffusion checkpoint of which the autoencoder is wanted, `open_clip_pytorch_model.bin` a whole OpenCLIP ViT-H-14
of which the text tower is wanted. `configuration.json` says how large the UNet is; the others' sizes are read off the
shapes of their weights.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint, convert_open_clip_checkpoint
from torch import Tensor

from pipelines.messages import said

Weights = Mapping[str, Tensor]

SCHEDULER = {  # hard-coded in ModelScope; only the number of timesteps stands in configuration.json
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
SCALING_FACTOR = 0.18215  # of the latents; hard-coded in ModelScope


def unet(weights: Weights, model_cfg: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the weights of the UNet, as diffusers keeps them; likewise `vae` and `text_encoder`."""
    config = {"_class_name": "UNet3DConditionModel", **unet_config(model_cfg)}
    return config, unet_weights(weights, model_cfg["unet_res_blocks"])


def vae(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    weights = vae_part(checkpoint)
    return {"_class_name": "AutoencoderKL", **vae_config(weights)}, vae_weights(weights)


def text_encoder(weights: Weights) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return {"architectures": ["CLIPTextModel"], **text_encoder_config(weights)}, text_encoder_weights(weights)


def unet_config(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """UNet3DConditionModel's config for `model.model_cfg` of configuration.json.

    Raises ValueError where the configuration asks for something that UNet3DConditionModel can't be.
    """
    multipliers = model_cfg["unet_dim_mult"]
    attends = [0.5**level in model_cfg["unet_attn_scales"] for level in range(len(multipliers))]
    if str(model_cfg["temporal_attention"]) != "True":
        raise ValueError(said("This ModelScope model has no temporal attention; only models that have it can be run."))
    if model_cfg["mean_type"] != "eps":
        raise ValueError(
            said(
                "This ModelScope model predicts {kind}; only 'eps' can be sampled here.",
                kind=repr(model_cfg["mean_type"]),
            )
        )
    return {
        "sample_size": 32,
        "in_channels": model_cfg["unet_in_dim"],
        "out_channels": model_cfg["unet_out_dim"],
        "block_out_channels": [model_cfg["unet_dim"] * multiplier for multiplier in multipliers],
        "down_block_types": ["CrossAttnDownBlock3D" if here else "DownBlock3D" for here in attends],
        "up_block_types": ["CrossAttnUpBlock3D" if here else "UpBlock3D" for here in reversed(attends)],
        "layers_per_block": model_cfg["unet_res_blocks"],
        "cross_attention_dim": model_cfg["unet_context_dim"],
        "attention_head_dim": model_cfg["unet_head_dim"],
        "transformer_in_heads": model_cfg["unet_num_heads"],
    }


_OUTER = {  # the parts that stand outside the blocks
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "input_blocks.0.1": "transformer_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_IN_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_IN_MIDDLE = {"0": ("resnets", 0), "1": ("attentions", 0), "2": ("temp_attentions", 0), "3": ("resnets", 1)}
_IN_LAYER = {"0": "resnets", "1": "attentions", "2": "temp_attentions"}


def unet_key_map(keys: Iterable[str], res_blocks: int) -> dict[str, str]:
    """UNetSD's names `keys` -> UNet3DConditionModel's, for any number of levels and of residual blocks in each.

    Raises ValueError for a name that belongs to no part of the network.
    """
    return {key: _unet_name(key, res_blocks) for key in keys}


def _unet_name(key: str, res_blocks: int) -> str:
    for old, new in _OUTER.items():
        if key.startswith(old + "."):
            return new + key.removeprefix(old)
    if match := re.fullmatch(r"middle_block\.(\d)\.(.+)", key):
        part, layer = _IN_MIDDLE[match[1]]
        return _within("mid_block", part, layer, match[2])
    if match := re.fullmatch(r"input_blocks\.(\d+)\.op\.(.+)", key):
        return f"down_blocks.{(int(match[1]) - 1) // (res_blocks + 1)}.downsamplers.0.conv.{match[2]}"
    if match := re.fullmatch(r"output_blocks\.(\d+)\.\d\.conv\.(.+)", key):
        return f"up_blocks.{int(match[1]) // (res_blocks + 1)}.upsamplers.0.conv.{match[2]}"
    if match := re.fullmatch(r"(input|output)_blocks\.(\d+)\.([012])\.(.+)", key):
        down = match[1] == "input"
        block, layer = divmod(int(match[2]) - down, res_blocks + 1)
        return _within(f"{'down' if down else 'up'}_blocks.{block}", _IN_LAYER[match[3]], layer, match[4])
    raise ValueError(said("{part} is no part of ModelScope's text-to-video UNet.", part=repr(key)))


def _within(block: str, part: str, layer: int, rest: str) -> str:
    if part == "resnets" and rest.startswith("temopral_conv."):  # the original's spelling
        return f"{block}.temp_convs.{layer}.{rest.removeprefix('temopral_conv.')}"
    if part == "resnets":
        name, leaf = rest.rsplit(".", 1)
        rest = f"{_IN_RESNET[name]}.{leaf}"
    return f"{block}.{part}.{layer}.{rest}"


def unet_weights(weights: Weights, res_blocks: int) -> dict[str, Tensor]:
    """UNetSD's weights for UNet3DConditionModel: renamed, and temporal 1x1 convolutions as the linear maps they are."""
    names = unet_key_map(weights, res_blocks)
    return {
        names[key]: tensor.squeeze(-1) if re.search(r"\.proj_(in|out)\.weight$", key) and tensor.ndim == 3 else tensor
        for key, tensor in weights.items()
    }


def vae_config(weights: Weights) -> dict[str, Any]:
    """AutoencoderKL's config, read off the shapes of the weights (names as after `vae_part`)."""
    levels = _count(weights, r"encoder\.down\.(\d+)\.")
    return {
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "out_channels": weights["decoder.conv_out.weight"].shape[0],
        "latent_channels": weights["post_quant_conv.weight"].shape[1],
        "block_out_channels": [weights[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)],
        "layers_per_block": _count(weights, r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": SCALING_FACTOR,
    }


def vae_part(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The autoencoder's weights, under their own names, out of a latent diffusion checkpoint."""
    prefix = "first_stage_model."
    weights = checkpoint.get("state_dict", checkpoint)
    return {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}


def vae_weights(weights: Weights) -> dict[str, Tensor]:
    """The autoencoder's weights (names as after `vae_part`) for AutoencoderKL."""
    return convert_ldm_vae_checkpoint(dict(weights), vae_config(weights))


def text_encoder_config(weights: Weights) -> dict[str, Any]:
    """CLIPTextModel's config for an OpenCLIP checkpoint: all layers but the last, which ModelScope never reads."""
    vocabulary, width = weights["token_embedding.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": weights["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": _count(weights, r"transformer\.resblocks\.(\d+)\.") - 1,
        "num_attention_heads": width // 64,
        "max_position_embeddings": weights["positional_embedding"].shape[0],
        "hidden_act": "gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }


def text_encoder_weights(weights: Weights) -> dict[str, Tensor]:
    """OpenCLIP's text tower, without its last layer and its projection, for CLIPTextModel."""
    last = f"encoder.layers.{text_encoder_config(weights)['num_hidden_layers']}."
    renamed = convert_open_clip_checkpoint(None, dict(weights), prefix="")
    renamed = {key.removeprefix("text_model."): tensor for key, tensor in renamed.items()}
    return {
        key: tensor for key, tensor in renamed.items() if not key.startswith(last) and key != "text_projection.weight"
    }


def _count(keys: Iterable[str], pattern: str) -> int:
    """How many different numbers stand at the group of `pattern` in the names."""
    return len({match[1] for key in keys if (match := re.match(pattern, key))})
