"""The classes that a config may name: how each is built without its weights, and how files name its tensors.

torch, diffusers and transformers are imported only when a network is built.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def _same_name(name: str) -> str | None:
    return name


def _same_weights(module: Any, weights: dict[str, Any]) -> dict[str, Any]:
    return weights


@dataclass(frozen=True)
class Network:
    """One class of networks."""

    build: Callable[[dict[str, Any]], Any]  # from its config; called with the meta device as torch's default
    rename: Callable[[str], str | None] = _same_name  # a tensor's name in a file -> in the module; None: not wanted
    complete: Callable[[Any, dict[str, Any]], dict[str, Any]] = _same_weights  # (module, weights): adds what files lack
    bfloat16: bool = False  # whether its values leave the range of float16: half precision is then bfloat16
    exact: tuple[str, ...] = ()  # modules and tensors, by a part of their names, that stay in fp32 beside bfloat16


def class_name(config: dict[str, Any]) -> str | None:
    """The class that `config` names, as diffusers or as transformers writes it."""
    return config.get("_class_name") or (config.get("architectures") or [None])[0]


def empty(config: dict[str, Any], folder: Path) -> Any:
    """The module that `config` describes, without its weights, on the meta device.

    Raises ValueError, naming the config in `folder`, where no class of CLASSES can be built of it.
    """
    import torch

    kind = class_name(config)
    try:
        network = CLASSES[kind]
        with torch.device("meta"):
            return network.build(dict(config))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{folder / 'config.json'} does not describe a network known here ({kind}): {error}"
        ) from error


def _build_autoencoder(config: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKL

    preview = {key: config.pop(key) for key in ("latent_rgb",) if key in config}
    module = AutoencoderKL.from_config(config)
    module.register_to_config(**preview)
    return module


def _build_text_encoder(config: dict[str, Any]) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return _with_positions(CLIPTextModel(CLIPTextConfig.from_dict(config)))


def _build_clip(config: dict[str, Any]) -> Any:
    from transformers import CLIPConfig, CLIPModel

    return _with_positions(CLIPModel(CLIPConfig.from_dict(config)))


def _with_positions(module: Any) -> Any:
    """`module` with the positions that its embeddings count: they are in no file, so they can't be left on meta."""
    import torch

    for part in module.modules():
        if "position_ids" in dict(part.named_buffers(recurse=False)):
            positions = torch.arange(part.position_ids.shape[-1], device="cpu").expand(1, -1)
            part.register_buffer("position_ids", positions, persistent=False)
    return module


def _build_unet2d(config: dict[str, Any]) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config(config)


def _build_pseudo3d_unet(config: dict[str, Any]) -> Any:
    from pipelines.models.networks.pseudo3d_unet import build_pseudo3d_unet

    return build_pseudo3d_unet(config)


def _build_unet3d(config: dict[str, Any]) -> Any:
    from pipelines.models.networks.unet3d import build_unet3d

    return build_unet3d(config)


def _build_inflated_unet(config: dict[str, Any]) -> Any:
    from pipelines.models.networks.inflated_unet import InflatedUNet

    taken, given = config.get("in_channels", 4), config.get("out_channels", 4)
    if taken != given:  # one for inpainting takes a mask and a picture beside the latents
        raise ValueError(f"it takes {taken} channels and gives {given}, so it was made for something else")
    return InflatedUNet(config, pose=config.pop("pose", False))


def _with_temporal_weights(module: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """`weights` of an image model with the temporal ones to start from; others as they are."""
    from pipelines.models.networks.inflated_unet import temporal_start

    if not weights or any(".attn_temp." in name for name in weights):
        return weights
    dtype = next(iter(weights.values())).dtype
    return weights | {name: tensor.to(dtype) for name, tensor in temporal_start(module).items()}


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _build_bodypose_model(config: dict[str, Any]) -> Any:
    from controlnet_aux.open_pose.model import bodypose_model

    return bodypose_model()


def _build_body_pose_network(config: dict[str, Any]) -> Any:
    from pipelines.models.networks.openpose import BodyPoseNetwork

    return BodyPoseNetwork(config["width"], config["dilations"])


def _build_blazepose_detector(config: dict[str, Any]) -> Any:
    from pipelines.models.networks.blazepose import BlazePoseDetector

    return BlazePoseDetector()


def _build_blazepose_landmarks(config: dict[str, Any]) -> Any:
    from pipelines.models.networks.blazepose import BlazePoseLandmarks

    return BlazePoseLandmarks()


def _autoencoder_name(name: str) -> str:
    """Today's name of an AutoencoderKL's tensor; attention was named otherwise until diffusers 0.17."""
    old_name = r"(?<=attentions\.0\.)(query|key|value|proj_attn)(?=\.)"
    return re.sub(old_name, lambda match: _OLD_ATTENTION[match[0]], name)


def _text_encoder_name(name: str) -> str | None:
    """Today's name of a CLIPTextModel's tensor: a level less since transformers 5, and positions are not stored."""
    name = name.removeprefix("text_model.")
    return None if name == "embeddings.position_ids" else name


def _clip_name(name: str) -> str | None:
    """A CLIPModel's tensors are named as ever; old files hold positions beside them."""
    return None if name.endswith(".position_ids") else name


CLASSES: dict[str | None, Network] = {  # an engine adds its own: see systems/engine.py
    "UNet3DConditionModel": Network(_build_unet3d),
    "InflatedUNet": Network(_build_inflated_unet, complete=_with_temporal_weights),
    "UNetPseudo3DConditionModel": Network(_build_pseudo3d_unet),
    "UNet2DConditionModel": Network(_build_unet2d),
    "AutoencoderKL": Network(_build_autoencoder, _autoencoder_name),
    "CLIPTextModel": Network(_build_text_encoder, _text_encoder_name),
    "CLIPModel": Network(_build_clip, _clip_name),
    "bodypose_model": Network(_build_bodypose_model),
    "BodyPoseNetwork": Network(_build_body_pose_network),
    "BlazePoseDetector": Network(_build_blazepose_detector),
    "BlazePoseLandmarks": Network(_build_blazepose_landmarks),
}
