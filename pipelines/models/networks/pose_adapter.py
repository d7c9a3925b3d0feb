"""FollowYourPose's pose adapter: skeleton pictures become features for the down path of an inflated UNet.

Ma et al., 2023, "Follow Your Pose", section 3.2; the layers are those of T2I-Adapter (Mou et al., 2023).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

VAE_SCALE_FACTOR = 8  # a side: the unshuffling brings skeletons to the size of their latents


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip; `halve` starts with average pooling, which drops the last row of an odd size."""

    def __init__(self, channels_in: int, channels: int, halve: bool):
        super().__init__()
        self.halve = halve
        self.in_conv = nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()
        self.block1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c', h, w), or (n, c', h / 2, w / 2)."""
        if self.halve:
            hidden = F.avg_pool2d(hidden, 2)
        hidden = self.in_conv(hidden)
        return hidden + self.block2(F.relu(self.block1(hidden)))


class PoseAdapter(nn.Module):
    """One level for each down block of the UNet, two residual blocks each."""

    def __init__(self, channels: Sequence[int], in_channels: int = 3):
        """`channels`: of the UNet's down blocks."""
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels * VAE_SCALE_FACTOR**2, channels[0], 3, padding=1)
        blocks = []
        for level, width in enumerate(channels):
            blocks.append(ResidualBlock(channels[max(level - 1, 0)], width, halve=level > 0))
            blocks.append(ResidualBlock(width, width, halve=False))
        self.body = nn.ModuleList(blocks)

    def forward(self, skeletons: Tensor) -> list[Tensor]:
        """Skeletons (b, f, 3, H, W), RGB in [0, 1] -> features of each level: (b, c_i, f, H / 8 / 2^i, W / 8 / 2^i).

        Raises ValueError where H or W is no multiple of 64: the levels would not have the sizes of the UNet's blocks.
        """
        multiple = VAE_SCALE_FACTOR * 2 ** (len(self.body) // 2 - 1)
        frames, height, width = skeletons.shape[1], *skeletons.shape[3:]
        if height % multiple or width % multiple:
            raise ValueError(
                f"Skeletons of {width}x{height} pixels can't be used: both must be multiples of {multiple}."
            )
        hidden = F.pixel_unshuffle(skeletons.flatten(0, 1), VAE_SCALE_FACTOR)  # (b f, 192, h, w)
        hidden = self.conv_in(hidden)
        features = []
        for first, second in zip(self.body[::2], self.body[1::2], strict=True):
            hidden = second(first(hidden))
            features.append(hidden.unflatten(0, (-1, frames)).transpose(1, 2))  # (b, c_i, f, h / 2^i, w / 2^i)
        return features
