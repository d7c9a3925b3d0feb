"""BlazePose's two networks (Bazarevsky et al. 2020; Grishchenko et al. 2022), as MediaPipe 0.10.21 publishes them.

One finds people in a picture, the other finds the joints of one person in a square cut out around them. Both stand on
EfficientNet-Lite (Tan & Le 2019) without its classifier, and differ in its widths. Their weights were converted by
scripts/convert_blazepose.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

STAGES = (  # kernel, stride and number of blocks of each stage; the widths differ
    (3, 2, 2),
    (5, 2, 2),
    (3, 2, 3),
    (5, 1, 3),
    (5, 2, 4),
)
KEYPOINTS = 4  # of a person found: middle of the hips, a point on the circle around the body, and the same of the torso
ANCHORS = (2, 2, 6)  # guesses in each cell of the grids of 28, 14 and 7 cells a side
LANDMARKS = 39  # 33 of the body, 2 that say where to look in the next frame, 4 that mean nothing outside training


class BlazePoseDetector(nn.Module):
    """Where people are in a picture of 224 x 224 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = EfficientNetLite((24, 40, 80, 112, 192))
        self.lateral28 = _separable(40, 96, first=nn.Identity())
        self.lateral14 = _separable(112, 192, first=nn.Identity())
        self.merge14 = _Merge(1152, 192)
        self.merge28 = _Merge(192, 96)
        self.score28, self.place28 = _guesses(24, ANCHORS[0])
        self.score14, self.place14 = _guesses(48, ANCHORS[1])
        self.score7, self.place7 = _guesses(288, ANCHORS[2])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [B,3,224,224], RGB in [-1,1] -> guesses [B,2254,12], their logits [B,2254].

        A guess is the box's middle, its width and height, and KEYPOINTS points, (x, y) each, in pixels relative to
        the middle of its cell. The guesses are those of the fine grid first, row by row.
        """
        fine, middle, coarse = self.trunk(images)  # (B, 40, 28, 28), (B, 112, 14, 14), (B, 1152, 7, 7)
        merged14 = self.merge14(coarse, self.lateral14(middle))  # (B, 192, 14, 14)
        merged28 = self.merge28(merged14, self.lateral28(fine))  # (B, 96, 28, 28)
        fine, middle, coarse = (_depth_to_space(features) for features in (merged28, merged14, coarse))
        scores = [self.score28(fine), self.score14(middle), self.score7(coarse)]
        places = [self.place28(fine), self.place14(middle), self.place7(coarse)]
        # A cell's guesses lie one behind the other in its channels.
        scores = [score.permute(0, 2, 3, 1).flatten(1) for score in scores]  # (B, H * W * anchors)
        places = [place.permute(0, 2, 3, 1).reshape(len(place), -1, 4 + 2 * KEYPOINTS) for place in places]
        return torch.cat(places, 1), torch.cat(scores, 1)


class BlazePoseLandmarks(nn.Module):
    """The joints of the person in the middle of a picture of 256 x 256 pixels ("full" of the three sizes)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = EfficientNetLite((24, 32, 64, 88, 144))
        self.narrow = _separable(864, 288, first=_relu6())
        self.body = nn.Sequential(
            *(_Residual(288, stride=2), *(_Residual(288) for _ in range(4))),
            *(_Residual(288, stride=2), *(_Residual(288) for _ in range(5))),
        )
        self.landmarks = nn.Conv2d(288, 5 * LANDMARKS, 2)
        self.confidence = nn.Conv2d(288, 1, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [B,3,256,256], RGB in [0,1] -> landmarks [B,39,5], confidence [B] from 0 to 1.

        A landmark is x, y, z in pixels of the picture (z from the hips, towards the camera negative), and the logits
        of its being to be seen and of its being in the picture. The confidence is that there is a person at all.
        """
        *_, features = self.trunk(images)  # (B, 864, 8, 8)
        features = self.body(self.narrow(features))  # (B, 288, 2, 2)
        landmarks = self.landmarks(features).reshape(-1, LANDMARKS, 5)
        return landmarks, self.confidence(features).flatten().sigmoid()


class EfficientNetLite(nn.Module):
    """Features at an 8th, a 16th and a 32nd of the picture's size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, 24, kernel=3, stride=2), _relu6())
        self.first = nn.Sequential(_convolution(24, 24, kernel=3, groups=24), _relu6(), _convolution(24, 16))
        stages, inputs = [], 16
        for width, (kernel, stride, count) in zip(widths, STAGES, strict=True):
            blocks = []
            for number in range(count):
                expanded = 64 if inputs == 16 else 6 * inputs
                blocks.append(_InvertedResidual(inputs, expanded, width, kernel, stride if number == 0 else 1))
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.last = nn.Sequential(
            *(_convolution(inputs, 6 * inputs), _relu6()),
            *(_convolution(6 * inputs, 6 * inputs, kernel=3, groups=6 * inputs), _relu6()),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)  # in which CPUs are a third faster here
        features = self.first(self.stem(images))  # (B, 16, H/2, W/2)
        features = self.stages[0](features)  # (B, 24, H/4, W/4)
        eighth = self.stages[1](features)
        sixteenth = self.stages[3](self.stages[2](eighth))
        return eighth, sixteenth, self.last(self.stages[4](sixteenth))


class _InvertedResidual(nn.Module):
    """Wide inside and narrow outside (Sandler et al. 2018)."""

    def __init__(self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(_convolution(inputs, expanded), _relu6()),
            *(_convolution(expanded, expanded, kernel, stride, groups=expanded), _relu6()),
            _convolution(expanded, outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features) if self.residual else self.layers(features)


class _Residual(nn.Module):
    """A separable convolution beside the features as they are or, with a stride, as the largest of each four."""

    def __init__(self, width: int, stride: int = 1, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding=1 if stride == 1 else 0, groups=width)
        self.activation = _relu6() if activation is None else activation
        self.pointwise = nn.Conv2d(width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        if self.stride == 1:
            beside, around = features, features
        else:  # "same" padding of TensorFlow: what is odd lies below and to the right
            beside, around = functional.max_pool2d(features, 2), functional.pad(features, (0, 1, 0, 1))
        return functional.relu6(beside + self.pointwise(self.activation(self.depthwise(around))), inplace=True)


class _Merge(nn.Module):
    """Coarse features, twice as large, and those of the finer grid, as in a feature pyramid (Lin et al. 2017)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(_convolution(inputs, outputs), _relu6())
        self.body = nn.Sequential(*(_Residual(outputs, activation=nn.Identity()) for _ in range(2)))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        larger = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return self.body(fine + self.narrow(larger))


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups)


def _relu6() -> nn.ReLU6:
    """In place, as nobody else reads what comes out of a convolution: copies took nearly half of the time."""
    return nn.ReLU6(inplace=True)


def _separable(inputs: int, outputs: int, first: nn.Module) -> nn.Sequential:
    """A depthwise and a pointwise convolution, with the activation `first` between them and ReLU6 at the end."""
    depthwise = _convolution(inputs, inputs, kernel=3, groups=inputs)
    return nn.Sequential(depthwise, first, _convolution(inputs, outputs), _relu6())


def _guesses(width: int, anchors: int) -> tuple[nn.Sequential, nn.Sequential]:
    """What makes logits, and what makes places, of features of twice the size of the grid."""
    logits, places = (
        nn.Sequential(_convolution(width, width, 3, stride=2, groups=width), _convolution(width, anchors * numbers))
        for numbers in (1, 4 + 2 * KEYPOINTS)
    )
    return logits, places


def _depth_to_space(features: Tensor) -> Tensor:
    """[B,4C,H,W] -> [B,C,2H,2W] in TensorFlow's order: the four values of a channel are C channels apart."""
    batch, channels, high, wide = features.shape
    features = features.reshape(batch, 2, 2, channels // 4, high, wide)  # (B, row, column, C, H, W)
    return features.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * high, 2 * wide)
