"""FollowYourPose's adapter against its formula written out."""

import pytest
import tiny
import torch
import torch.nn.functional as F

from pipelines.models.networks.pose_adapter import PoseAdapter

CHANNELS = (16, 16, 24, 32)


def adapter():
    return tiny.randomised(PoseAdapter(CHANNELS))


def skeletons(batch=1, frames=3, height=64, width=64):
    return torch.rand((batch, frames, 3, height, width), generator=torch.Generator().manual_seed(0))


def plain(module, picture):
    """One picture (3, H, W): pixels of an 8x8 square side by side as channels, then four levels."""
    _, height, width = picture.shape
    squares = (
        picture.reshape(3, height // 8, 8, width // 8, 8).permute(0, 2, 4, 1, 3).reshape(192, height // 8, width // 8)
    )
    hidden, features = module.conv_in(squares[None]), []
    for level in range(4):
        for part in (0, 1):
            block = module.body[2 * level + part]
            if level and not part:
                hidden = F.interpolate(hidden, scale_factor=0.5, mode="area")
                if CHANNELS[level] != CHANNELS[level - 1]:
                    hidden = block.in_conv(hidden)
            hidden = hidden + block.block2(block.block1(hidden).clamp(min=0))
        features.append(hidden[0])
    return features


@pytest.mark.parametrize("size", [(64, 64), (64, 192), (128, 64)])
def test_features_are_those_of_the_formula_for_each_picture(size):
    module, pictures = adapter(), skeletons(2, 3, *size)
    features = module(pictures)
    height, width = size[0] // 8, size[1] // 8
    assert [tuple(feature.shape) for feature in features] == [
        (2, channels, 3, height // 2**level, width // 2**level) for level, channels in enumerate(CHANNELS)
    ]
    for video in range(2):
        for frame in range(3):
            for feature, expected in zip(features, plain(module, pictures[video, frame]), strict=True):
                assert tiny.relative_error(feature[video, :, frame], expected) < 1e-5


def test_only_levels_that_grow_have_a_convolution_on_the_way_in():
    names = adapter().state_dict()
    assert {name.split(".")[1] for name in names if "in_conv" in name} == {"4", "6"}


@pytest.mark.parametrize("size", [(96, 64), (64, 40)])
def test_sizes_that_would_not_meet_the_unets_are_refused(size):
    with pytest.raises(ValueError, match=f"{size[1]}x{size[0]}.*multiples of 64"):
        adapter()(skeletons(1, 1, *size))
