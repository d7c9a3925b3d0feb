"""From the training folder to the shipped weights: half precision, diffusers' layout, no file over 10 MB."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet3DConditionModel
from transformers import CLIPTextModel, CLIPTokenizerFast

from pipelines.models.networks.pseudo3d_unet import UNetPseudo3DConditionModel
from pipelines.systems.preview import fit_latent_rgb

from . import networks


def publish(work: Path, assets: Path) -> None:
    """Writes what is trained to `assets`: half precision, diffusers layout, shared parts once, no file over 10 MB."""
    small = {"max_shard_size": "9950KB"}
    sd, video = assets / "sd", assets / "modelscope"
    poses, hinted = assets / "followyourpose", assets / "tempofunk"
    for folder in (sd, video, poses, hinted):
        shutil.rmtree(folder, ignore_errors=True)  # earlier weights may lie in other files
    vae = AutoencoderKL.from_pretrained(work / "vae")
    stored = np.load(work / "clips" / "latents.npy", mmap_mode="r")[:200:10, 0, 0].astype(np.float32)
    matrix, bias = fit_latent_rgb(vae, torch.from_numpy(stored) * vae.config.scaling_factor)
    tokenizer = CLIPTokenizerFast.from_pretrained(work / "tokenizer")
    tokenizer.save_pretrained(sd / "tokenizer")
    vae.half().save_pretrained(sd / "vae")
    CLIPTextModel.from_pretrained(work / "text_encoder").half().save_pretrained(sd / "text_encoder")
    # What transformers loads it in; diffusers loads the others in float32 too, if it is not told otherwise.
    config = json.loads((sd / "text_encoder" / "config.json").read_text())
    write_json(sd / "text_encoder" / "config.json", config | {"dtype": "float32"})
    UNet2DConditionModel.from_pretrained(work / "unet").half().save_pretrained(sd / "unet", **small)
    write_json(sd / "vae" / "latent_rgb.json", {"matrix": matrix.tolist(), "bias": bias.tolist()})
    write_json(sd / "scheduler" / "scheduler_config.json", networks.SCHEDULER)
    shared = {
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    absent = {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    unet = {"unet": ["diffusers", "UNet2DConditionModel"]}
    write_json(sd / "model_index.json", {"_class_name": "StableDiffusionPipeline", **shared, **unet, **absent})
    if (work / "followyourpose").exists():
        image = UNet2DConditionModel.from_pretrained(work / "unet")
        unet = networks.load_followyourpose(image, work / "followyourpose")
        networks.save_followyourpose(unet.half(), poses / "unet")
        parts = shared | {"unet": ["pipelines", "InflatedUNet"]}
        write_json(poses / "model_index.json", {"_class_name": "FollowYourPosePipeline", **parts})
        write_json(poses / "components.json", {part: f"../sd/{part}" for part in shared})
    if (work / "tempofunk").exists():
        UNetPseudo3DConditionModel.from_pretrained(work / "tempofunk").half().save_pretrained(hinted / "unet", **small)
        parts = shared | {"unet": ["pipelines", "UNetPseudo3DConditionModel"]}
        write_json(hinted / "model_index.json", {"_class_name": "MakeAVideoPipeline", **parts})
        write_json(hinted / "components.json", {part: f"../sd/{part}" for part in shared})
    if not (work / "unet3d").exists():
        return
    UNet3DConditionModel.from_pretrained(work / "unet3d").half().save_pretrained(video / "unet", **small)
    ddim = networks.SCHEDULER | {"_class_name": "DDIMScheduler"}
    write_json(video / "scheduler" / "scheduler_config.json", {k: v for k, v in ddim.items() if k != "skip_prk_steps"})
    parts = shared | {"unet": ["diffusers", "UNet3DConditionModel"], "scheduler": ["diffusers", "DDIMScheduler"]}
    write_json(video / "model_index.json", {"_class_name": "TextToVideoSDPipeline", **parts})
    write_json(video / "components.json", {part: f"../sd/{part}" for part in ("vae", "text_encoder", "tokenizer")})


def write_json(file: Path, value: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2) + "\n")
