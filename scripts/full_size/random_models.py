"""The models that one_system.py tries: random weights in half precision, in diffusers' layout, written in seconds."""

from dataclasses import replace

from scripts.full_size.layouts import SCHEDULE, Published, model, part
from scripts.full_size.networks import CLIP_L, OPEN_CLIP_H, SD_UNET, SD_VAE, Config, manifest
from scripts.full_size.values import torch, write_quickly

SMALL_UNET: Config = {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 32, "attention_head_dim": 8}
SMALL = {  # by what the full one is for
    "unet": {**SMALL_UNET, "sample_size": 8},
    "vae": {"block_out_channels": [32, 32, 64, 64], "layers_per_block": 1, "sample_size": 64},
    "text_encoder": {
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
        "projection_dim": 32,
    },
}


def published(name: str, size: str) -> Published:
    """The model folder for the system `name`, "full" or "small"."""

    def made(folder: str, config: Config):
        small = SMALL[folder.rpartition("/")[2]] if size == "small" else {}
        file, texts = part(folder, config | small, torch.float16)
        return replace(file, write=write_quickly), texts

    vae, scheduler = made("vae", SD_VAE), {"_class_name": "PNDMScheduler", **SCHEDULE}
    if name == "modelscope":
        unet = {"_class_name": "UNet3DConditionModel", **manifest("modelscope_diffusers")["config"]}
        parts, pipeline = [made("unet", unet), vae, made("text_encoder", OPEN_CLIP_H)], "TextToVideoSDPipeline"
    elif name == "followyourpose":
        unet = SD_UNET | {"_class_name": "InflatedUNet", "pose": True}
        parts, pipeline = [made("unet", unet), vae, made("text_encoder", CLIP_L)], "FollowYourPosePipeline"
    elif name == "tempofunk":
        unet = {"_class_name": "UNetPseudo3DConditionModel", **manifest("tempofunk_makeavid")["config"]}
        parts = [made("unet", unet), made("sd_image/unet", SD_UNET), vae, made("text_encoder", CLIP_L)]
        pipeline = "StableDiffusionPseudo3DPipeline"
    else:
        parts, pipeline = [made("unet", SD_UNET), vae, made("text_encoder", CLIP_L)], "StableDiffusionPipeline"
    return model(pipeline, parts, (), scheduler)
