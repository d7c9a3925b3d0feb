"""From trained stages to the models that the app ships: `python -m scripts.theatre.publishing training/weights`.

Writes assets/miniature in diffusers' layout: half precision, shared parts once, no file of 10 MB or more. Text encoder
and tokenizer stay as they are. Of each video model the student is shipped, where there is one.
"""

import argparse
import shutil
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import nn

from pipelines.catalog import MINIATURES
from pipelines.systems.preview import fit_latent_rgb
from scripts import checksums
from scripts.miniature import networks
from scripts.miniature import openpose as detector
from scripts.miniature.publishing import write_json
from scripts.miniature.world import sample_words
from scripts.theatre import data
from scripts.theatre.networks import autoencoder
from scripts.theatre.world import stage

from .training.checkpoints import kept, restore

SMALL = {"max_shard_size": "9950KB"}


def publish(weights: Path, assets: Path, stages: dict[str, str]) -> None:
    """`weights` is a folder of stages; `stages` says of which of them each part of `assets` is made."""

    def trained(part: str, network: nn.Module) -> nn.Module:
        restore(weights, stages[part], network)
        return network

    image = trained("sd", networks.image_unet(data.CHANNELS))
    vae = trained("vae", autoencoder())
    poses = trained("followyourpose", networks.followyourpose_unet(image))
    hinted = trained("tempofunk", networks.tempofunk_unet(image))
    video = trained("modelscope", networks.video_unet(data.CHANNELS))
    matrix, bias = fit_latent_rgb(vae, drawn_latents(vae))
    for name in ("sd", "followyourpose", "tempofunk", "modelscope"):
        shutil.rmtree(assets / name / "unet", ignore_errors=True)  # earlier weights may lie in other files
    image.half().save_pretrained(assets / "sd" / "unet", **SMALL)
    vae.half().save_pretrained(assets / "sd" / "vae")
    write_json(assets / "sd" / "vae" / "latent_rgb.json", {"matrix": matrix.tolist(), "bias": bias.tolist()})
    networks.save_followyourpose(poses.half(), assets / "followyourpose" / "unet")
    hinted.half().save_pretrained(assets / "tempofunk" / "unet", **SMALL)
    video.half().save_pretrained(assets / "modelscope" / "unet", **SMALL)
    for part, folder, file in (("openpose", detector.FOLDER.name, "model"), ("referee", "referee", "referee")):
        if known := kept(weights, stages[part]):
            save_file({name: tensor.half() for name, tensor in known.items()}, assets / folder / f"{file}.safetensors")


@torch.no_grad()
def drawn_latents(vae: AutoencoderKL, count: int = 20) -> torch.Tensor:
    """Latents [count,12,16,16] of freshly drawn pictures."""
    rng = np.random.default_rng(7)
    frames = np.stack([stage(sample_words(rng), rng).draw(4)[0] for _ in range(count)])
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.cat([vae.encode(image[None]).latent_dist.mean for image in images]) * vae.config.scaling_factor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a folder of stages: training/weights")
    parser.add_argument("--assets", type=Path, default=MINIATURES)
    parser.add_argument("--from", nargs="+", default=[], metavar="PART=STAGE", dest="stages", help="other stages")
    arguments = parser.parse_args()
    stages = {part: part for part in ("sd", "openpose", "referee")}
    stages |= {"vae": "decoder", "modelscope": "lcm-modelscope", "followyourpose": "lcm-pose"}
    stages |= {"tempofunk": "lcm-tempofunk"} | dict(each.split("=") for each in arguments.stages)
    publish(arguments.weights, arguments.assets, stages)
    checksums.write()


if __name__ == "__main__":
    main()
