"""The small FollowYourPose: poses are learned on single pictures, then motion on clips without poses."""

import argparse

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizerFast

from pipelines.models.networks.inflated_unet import EditingUNet, InflatedUNet
from pipelines.models.networks.pose_adapter import PoseAdapter
from scripts.miniature import data, networks

from .denoising import Diffusion, Latents
from .loop import train

POSE = ("skeleton_adapter.",)
GAIN = 1.3  # of the features after training: chosen on 16 motions, where the dancer followed best
MOTION = ("attn1.to_q.", "attn2.to_q.", "attn_temp.", "conv_temporal.")  # as the published program trains


class FollowingTrainer(torch.nn.Module):
    """FollowYourPose's UNet, of which only those parameters are trained whose names hold one of `trained`."""

    def __init__(
        self, unet: InflatedUNet, text_encoder: torch.nn.Module, diffusion: Diffusion, trained: tuple[str, ...]
    ):
        super().__init__()
        self.unet, self.diffusion = unet, diffusion
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(any(part in name for part in trained))
        self.states = torch.no_grad()(lambda ids: text_encoder(ids).last_hidden_state)  # not a part: not trained

    def forward(
        self, latents: torch.Tensor, figures: torch.Tensor, ids: torch.Tensor, skeletons: torch.Tensor | None = None
    ) -> torch.Tensor:
        """latents [B,4,F,16,16]; figures [B,1,F,16,16]; ids [B,77]; skeletons [B,F,3,128,128] or none."""
        features = None if skeletons is None else self.unet.skeleton_adapter(skeletons)
        network = EditingUNet(self.unet, self.states(ids), pose_features=features)
        return self.diffusion.loss(network, latents, figures)


def train_followyourpose(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    """As the paper does (Ma et al. 2023, section 3.2): first the pose encoder, on single pictures, the rest being
    frozen; then what relates frames, on clips without poses. Goes on from the stages `sd` and `latents`."""
    work, device = arguments.work, accelerator.device
    tokenizer = CLIPTokenizerFast.from_pretrained(work / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(work / "text_encoder").to(device)
    vae = AutoencoderKL.from_pretrained(work / "vae")
    latents = Latents(work, tokenizer, vae.config.scaling_factor, device)
    image = UNet2DConditionModel.from_pretrained(work / "unet")
    unet = networks.followyourpose_unet(image)
    if arguments.start:
        unet = networks.load_followyourpose(image, arguments.start / "followyourpose" / "unet")

    def loss_of_pictures(trainer, step, rng):
        clips = rng.integers(0, latents.count(), 3 * arguments.batch)
        frames = rng.integers(0, data.FRAMES, len(clips))
        picture, figures = (get(clips, frames)[:, :, None] for get in (latents.sample, latents.figures))
        return trainer(picture, figures, latents.tokens(clips, rng), latents.skeletons(clips, frames))

    def loss_of_clips(trainer, step, rng):
        clips = rng.integers(0, latents.count(), max(1, arguments.batch // 2))
        video, figures = (get(clips, slice(None)).transpose(1, 2) for get in (latents.sample, latents.figures))
        return trainer(video, figures, latents.tokens(clips, rng))  # (B, 4, F, 16, 16), (B, 1, F, 16, 16)

    for name, trained, loss_of, steps in (
        ("pose", POSE, loss_of_pictures, arguments.pose_steps),
        ("motion", MOTION, loss_of_clips, arguments.motion_steps),
    ):
        trainer = FollowingTrainer(unet, text_encoder, Diffusion(device), trained)
        train(accelerator, f"followyourpose-{name}", trainer, loss_of, steps, {"": 1e-3}, work)
    if not arguments.start:
        amplify(unet.skeleton_adapter)
    if accelerator.is_main_process:
        networks.save_followyourpose(unet, work / "followyourpose")
    accelerator.wait_for_everyone()


@torch.no_grad()
def amplify(adapter: PoseAdapter) -> None:
    """Makes all its features GAIN times as large: without its biases it is homogeneous, its only bend being a ReLU."""
    adapter.conv_in.weight *= GAIN
    for name, parameter in adapter.named_parameters():
        if name.endswith("bias"):
            parameter *= GAIN
