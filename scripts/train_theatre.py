"""Trains the paper theatre's models at 256x256: `python -m scripts.train_theatre --start assets/theatre`.

Each stage writes a checkpoint every few minutes to the work folder and goes on from it when started again; a finished
stage is skipped. `--start` names a folder of weights to begin from where the work folder has no checkpoint.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from scripts import checksums
from scripts.miniature.training.loop import SEED
from scripts.theatre.training.autoencoder import train_vae
from scripts.theatre.training.checkpoints import save_all
from scripts.theatre.training.decoder import train_decoder
from scripts.theatre.training.distillation import (
    train_lcm_modelscope,
    train_lcm_pose,
    train_lcm_sd,
    train_lcm_tempofunk,
)
from scripts.theatre.training.followers import train_motion, train_poses, train_tempofunk
from scripts.theatre.training.judges import train_openpose, train_referee
from scripts.theatre.training.latents import cache_latents
from scripts.theatre.training.teachers import train_modelscope, train_sd


class Stage(NamedTuple):
    run: Callable[[Accelerator, argparse.Namespace, int], None]
    steps: int  # in all, those of earlier sessions included


STAGES = {  # in the order in which they need each other
    "vae": Stage(train_vae, 12000),
    "referee": Stage(train_referee, 2500),
    "openpose": Stage(train_openpose, 5000),
    "latents": Stage(cache_latents, 4000),  # clips
    "sd": Stage(train_sd, 9000),
    "modelscope": Stage(train_modelscope, 6000),
    "decoder": Stage(train_decoder, 6000),
    "lcm-sd": Stage(train_lcm_sd, 1500),
    "lcm-modelscope": Stage(train_lcm_modelscope, 2000),
    "pose": Stage(train_poses, 3800),
    "motion": Stage(train_motion, 2800),
    "tempofunk": Stage(train_tempofunk, 2500),
    "lcm-pose": Stage(train_lcm_pose, 1500),
    "lcm-tempofunk": Stage(train_lcm_tempofunk, 1500),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="*", default=list(STAGES), help=f"of {', '.join(STAGES)}; none to only save")
    parser.add_argument("--steps", nargs="+", default=[], metavar="STAGE=N", help="other numbers than the table's")
    parser.add_argument("--seconds", nargs="+", default=[], metavar="STAGE=N", help="the most; it decays by the clock")
    parser.add_argument("--work", type=Path, default=Path("training"), help="checkpoints and caches (several GB)")
    parser.add_argument("--start", type=Path, help="folder of weights to go on from: assets/theatre")
    parser.add_argument("--save", type=Path, help="folder for the newest weights of all stages: assets/theatre")
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--stills", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=8, help="crops or clips a process")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU: one, pinned to a core, disturbs nobody")
    parser.add_argument("--cores", type=int, default=1, help="that draw")
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16" if torch.cuda.is_available() else "no")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"There is no stage {', '.join(sorted(unknown))}. Choose from {', '.join(STAGES)}.")
    steps = {name: stage.steps for name, stage in STAGES.items()}
    steps |= _numbers(arguments.steps)
    arguments.seconds = _numbers(arguments.seconds)
    accelerator = Accelerator(mixed_precision=arguments.precision)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_num_threads(arguments.threads)
    for name in arguments.stages:
        set_seed(SEED)
        STAGES[name].run(accelerator, arguments, steps[name])
    if accelerator.is_main_process and arguments.save:
        save_all(arguments.work, STAGES, arguments.save)
        checksums.write()


def _numbers(given: list[str]) -> dict[str, int]:
    return {name: int(number) for name, number in (each.split("=") for each in given)}


if __name__ == "__main__":
    main()
