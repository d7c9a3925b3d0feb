"""The detector of drawn joints."""

import argparse

import torch
from accelerate import Accelerator

from pipelines.models.networks.openpose import BodyPoseNetwork
from scripts.miniature import openpose

from .loop import train


class PoseTrainer(torch.nn.Module):
    """Wraps the detector so that one forward is one loss."""

    def __init__(self, network: BodyPoseNetwork):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, fields: torch.Tensor, heatmaps: torch.Tensor) -> torch.Tensor:
        """Squared errors. Joints and limbs are few among the cells: there they count ten times."""
        loss = 0
        for found, drawn in zip(self.network(images), (fields, heatmaps), strict=True):
            loss = loss + ((1 + 9 * drawn.abs()) * (found - drawn).square()).mean()
        return loss


def train_openpose(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    network = BodyPoseNetwork(**openpose.CONFIG).to(memory_format=torch.channels_last)
    trainer, steps = PoseTrainer(network), arguments.openpose_steps

    def loss_of(trainer, step, rng):
        return trainer(*(torch.from_numpy(each).to(accelerator.device) for each in openpose.lesson(8, rng)))

    train(accelerator, "openpose", trainer, loss_of, steps, {"": 3e-3}, arguments.work)
    if accelerator.is_main_process:
        openpose.save(network)
    accelerator.wait_for_everyone()
