"""What scores the theatre: the referee and the detector of joints. They share no weight with what they judge."""

import argparse

import torch
from accelerate import Accelerator
from torch.nn import functional

from pipelines.models.networks.openpose import BodyPoseNetwork
from scripts.miniature import openpose as lessons
from scripts.miniature.referee import Reader, soil
from scripts.miniature.training.loop import SEED
from scripts.miniature.training.openpose import PoseTrainer
from scripts.theatre import data, openpose
from scripts.theatre.referee import Lessons

from .checkpoints import learn


class ReaderTrainer(torch.nn.Module):
    """Wraps the referee's network so that one forward is one loss."""

    def __init__(self, reader: Reader):
        super().__init__()
        self.reader = reader

    def forward(
        self, clips: torch.Tensor, characters: torch.Tensor, actions: torch.Tensor, figures: torch.Tensor
    ) -> torch.Tensor:
        """clips [B,F,3,64,64] in [-1,1]; characters and actions [B]; figures [B,F,32,32], 0 to 1."""
        character, action, figure = self.reader(clips)
        words = functional.cross_entropy(character, characters) + functional.cross_entropy(action, actions)
        return words + functional.binary_cross_entropy_with_logits(figure, figures)


def train_referee(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    clips = arguments.work / "clips"
    with accelerator.main_process_first():
        data.draw_clips(clips, arguments.clips, SEED)
    drawn, generator = Lessons(clips), torch.Generator()
    reader = Reader().to(memory_format=torch.channels_last)

    def loss_of(trainer, step, rng):
        frames, *truth = drawn.batch(arguments.batch, rng)
        frames = soil(frames, generator.manual_seed(int(rng.integers(2**62))))
        return trainer(*(each.to(accelerator.device) for each in (frames, *truth)))

    learn(accelerator, arguments, "referee", reader, ReaderTrainer(reader), loss_of, steps, {"": 2e-3})


def train_openpose(accelerator: Accelerator, arguments: argparse.Namespace, steps: int) -> None:
    network = BodyPoseNetwork(**lessons.CONFIG).to(memory_format=torch.channels_last)

    def loss_of(trainer, step, rng):
        stills = lessons.lesson(8, rng, openpose.draw_still)
        return trainer(*(torch.from_numpy(each).to(accelerator.device) for each in stills))

    learn(accelerator, arguments, "openpose", network, PoseTrainer(network), loss_of, steps, {"": 3e-3})
