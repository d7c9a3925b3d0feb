"""The theatre's architectures: the published classes at a size that a laptop trains and runs, on latents 12x16x16."""

from diffusers import AutoencoderKL

from .data import CHANNELS
from .world import SIZE


def autoencoder() -> AutoencoderKL:
    """Images [B,3,256,256] in [-1,1] to latents [B,12,16,16] and back."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        block_out_channels=(8, 16, 32, 96, 160),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=1,  # a group of few channels would lose how bright a picture is
        mid_block_add_attention=False,
        sample_size=SIZE,
        scaling_factor=1.0,  # training leaves latents of mean 0 and deviation 1
    )
