"""The miniatures' architectures: the published classes at a size that a laptop trains and runs."""

import inspect
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet3DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from pipelines.models.networks.inflated_unet import InflatedUNet, temporal_start
from pipelines.models.networks.pseudo3d_unet import UNetPseudo3DConditionModel, build_pseudo3d_unet

CHANNELS = (48, 96, 96, 96)
HEAD = 16  # channels of one attention head
TEXT_WIDTH = 128
POSE = {"pose": True, "pose_layers": [0]}  # a block has but one layer; the published rule adds poses after the second
SCHEDULER = {  # Stable Diffusion 1.4's
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}


def autoencoder() -> AutoencoderKL:
    """Images [B,3,128,128] in [-1,1] to latents [B,4,16,16] and back."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        mid_block_add_attention=False,
        sample_size=128,
    )


def text_encoder(vocabulary: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=TEXT_WIDTH,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def image_unet(latent_channels: int = 4) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=tuple(width // HEAD for width in CHANNELS),  # in this class: the number of heads
        norm_num_groups=16,
        use_linear_projection=True,
    )


def video_unet(latent_channels: int = 4) -> UNet3DConditionModel:
    return UNet3DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEAD,  # in this class: the width of a head
        norm_num_groups=16,
    )


def followyourpose_unet(image: UNet2DConditionModel) -> InflatedUNet:
    """The inflated UNet with a pose adapter, that starts as the image model frame by frame."""
    unet = InflatedUNet({**image.config, **POSE}, pose=True)
    missing, unexpected = unet.load_state_dict(image.state_dict() | temporal_start(unet), strict=False)
    assert not unexpected and all(name.startswith("skeleton_adapter.") for name in missing)
    return unet


def save_followyourpose(unet: InflatedUNet, folder: Path) -> None:
    """Writes `unet` so that the app's own loader finds it: no file over 10 MB."""
    unet.save_pretrained(folder, max_shard_size="9950KB")
    config = {**json.loads((folder / "config.json").read_text()), **POSE}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load_followyourpose(image: UNet2DConditionModel, folder: Path) -> InflatedUNet:
    """What `save_followyourpose` wrote."""
    unet = InflatedUNet({**image.config, **POSE}, pose=True)
    shards = map(load_file, sorted(folder.glob("*.safetensors")))
    unet.load_state_dict({name: tensor for shard in shards for name, tensor in shard.items()})
    return unet


@torch.no_grad()
def tempofunk_unet(image: UNet2DConditionModel) -> UNetPseudo3DConditionModel:
    """The image model, inflated by the published rule: as long as it is not trained, it draws what that does, frame by
    frame and whatever mask and hint are."""
    known, channels = inspect.signature(UNetPseudo3DConditionModel).parameters, image.config.in_channels
    config = {key: value for key, value in image.config.items() if key in known}
    unet = build_pseudo3d_unet(config | {"in_channels": 2 * channels + 1})  # noisy latents, mask, hint
    own, drawn = unet.state_dict(), image.state_dict()
    for name, tensor in own.items():
        name = name.replace("spatial_conv.", "")
        if name == "conv_in.weight":
            tensor.zero_()[:, :channels] = drawn[name]
        elif name in drawn:
            tensor.copy_(drawn[name].reshape(tensor.shape))  # a projection is a 1x1 convolution
    return unet


@torch.no_grad()
def start_as_images(video: UNet3DConditionModel, image: UNet2DConditionModel) -> None:
    """Gives `video` the weights of `image`, and makes its temporal layers the identity: it starts as the image model,
    a frame at a time."""
    missing, unexpected = video.load_state_dict(image.state_dict(), strict=False)
    assert not unexpected and all("temp" in key or "transformer_in" in key for key in missing)
    for name, module in video.named_modules():
        # Temporal convolutions of diffusers start at zero by themselves; its temporal transformers do not.
        if name.endswith("proj_out") and ("temp_attentions" in name or "transformer_in" in name):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
