"""A body pose network with OpenPose's outputs, much smaller than OpenPose's own."""

from collections.abc import Sequence

from torch import Tensor, nn


class BodyPoseNetwork(nn.Module):
    """Finds joints and limbs: what OpenPose's own network (Cao et al. 2017, section 2.2) does in six stages, in one.

    Takes the same images and gives the same two maps as `bodypose_model` of controlnet-aux, so that one decoder serves
    both. `width` is the number of channels; every one of `dilations` is a residual convolution of the trunk.
    """

    def __init__(self, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _convolution(3, width // 4, kernel=5, stride=2),
            _convolution(width // 4, width // 2, stride=2),
            _convolution(width // 2, width, stride=2),
        )
        self.trunk = nn.ModuleList(_convolution(width, width, dilation=dilation) for dilation in dilations)
        self.fields = nn.Conv2d(width, 38, 1)
        self.heatmaps = nn.Conv2d(width, 19, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [B,3,H,W], BGR in [-0.5,0.5] -> part affinity fields [B,38,H/8,W/8], heatmaps [B,19,H/8,W/8].

        Two channels a limb: its direction (x, y) where it is, 0 elsewhere. One channel a joint, 1 at its middle, and
        the last 1 where there is none.
        """
        features = self.stem(images)  # (B, width, H/8, W/8)
        for convolution in self.trunk:
            features = features + convolution(features)
        return self.fields(features), self.heatmaps(features)


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation)
    return nn.Sequential(convolution, nn.GroupNorm(8, outputs), nn.SiLU())
