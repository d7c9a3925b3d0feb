"""Trains the paper theatre's models: `python -m scripts.train_miniature --publish assets/miniature`.

Each stage writes a checkpoint every few minutes to the work folder and goes on from it when started again; a finished
stage is skipped. One process, or several: `accelerate launch -m scripts.train_miniature …`.
"""

import argparse
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from scripts import checksums
from scripts.miniature import data, referee
from scripts.miniature.publishing import publish
from scripts.miniature.training.autoencoder import cache_latents, train_vae
from scripts.miniature.training.followyourpose import train_followyourpose
from scripts.miniature.training.loop import SEED
from scripts.miniature.training.modelscope import train_modelscope
from scripts.miniature.training.openpose import train_openpose
from scripts.miniature.training.sd import train_sd
from scripts.miniature.training.tempofunk import train_tempofunk
from scripts.miniature.training.text import train_text


def train_referee(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    if accelerator.is_main_process:
        referee.train_referee(arguments.work)
    accelerator.wait_for_everyone()


STAGES = {
    "referee": train_referee,
    "openpose": train_openpose,
    "vae": train_vae,
    "latents": cache_latents,
    "text": train_text,
    "sd": train_sd,
    "modelscope": train_modelscope,
    "followyourpose": train_followyourpose,
    "tempofunk": train_tempofunk,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--work", type=Path, default=Path("training"), help="checkpoints and caches (several GB)")
    parser.add_argument("--publish", type=Path, help="folder for the finished weights: assets/miniature")
    parser.add_argument("--start", type=Path, help="folder of published weights to go on from")
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8, help="crops or clips a process")
    parser.add_argument("--openpose-steps", type=int, default=5000)
    parser.add_argument("--vae-steps", type=int, default=5500)
    parser.add_argument("--text-steps", type=int, default=1000)
    parser.add_argument("--sd-steps", type=int, default=3000)
    parser.add_argument("--modelscope-steps", type=int, default=3000)
    parser.add_argument("--pose-steps", type=int, default=2000)
    parser.add_argument("--motion-steps", type=int, default=1200)
    parser.add_argument("--tempofunk-steps", type=int, default=1200)
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16" if torch.cuda.is_available() else "no")
    arguments = parser.parse_args()
    accelerator = Accelerator(mixed_precision=arguments.precision)
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // accelerator.num_processes))
    set_seed(SEED)
    with accelerator.main_process_first():
        data.draw_clips(arguments.work / "clips", arguments.clips, SEED)
    for stage in arguments.stages:
        STAGES[stage](accelerator, arguments)
    if accelerator.is_main_process and arguments.publish:
        publish(arguments.work, arguments.publish)
        checksums.write()


if __name__ == "__main__":
    main()
