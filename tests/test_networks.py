"""Our forward of ModelScope's UNet: each saving gives what the plain computation of diffusers gives."""

import time

import pytest
import tiny
import torch
from diffusers import UNet3DConditionModel

from pipelines.models.networks.unet3d import TextToVideoUNet, build_unet3d

EXACT = 1e-5  # of the largest value: what rounding alone may change


def inputs(batch=1, texts=2, frames=3, height=8, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((batch, 4, frames, height, width), generator=generator)
    return latents, torch.randn((texts, 7, tiny.WIDTH), generator=generator)


def plain(unet, latents, timestep, texts):
    """diffusers' own forward, every text with its own copy of the latents."""
    return unet(latents.expand(len(texts), *latents.shape[1:]), timestep, texts).sample


SHAPES = {
    "two branches of one video": {},
    "one branch": {"texts": 1},
    "two videos": {"batch": 2},
    "a single frame": {"frames": 1},
    "not square": {"height": 4, "width": 12},
    "odd sizes": {"height": 5, "width": 7},
    "three branches": {"texts": 3},
}
NETWORKS = {
    "two levels": {},
    "four levels, several layers": {
        "block_out_channels": (16, 16, 32, 32),
        "down_block_types": ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        "up_block_types": ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
        "layers_per_block": 2,
    },
    "no attention before the second level": {
        "down_block_types": ("DownBlock3D", "CrossAttnDownBlock3D"),
        "up_block_types": ("CrossAttnUpBlock3D", "UpBlock3D"),
    },
    "many heads": {"attention_head_dim": 4},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_forward_is_that_of_diffusers_for_every_shape(shape):
    unet = tiny.unet()
    latents, texts = inputs(**SHAPES[shape])
    assert tiny.relative_error(TextToVideoUNet(unet, texts)(latents, 481), plain(unet, latents, 481, texts)) < EXACT


@pytest.mark.parametrize("network", NETWORKS)
def test_the_forward_is_that_of_diffusers_for_every_network(network):
    unet = tiny.unet(**NETWORKS[network])
    latents, texts = inputs(frames=2, height=16, width=8)
    assert tiny.relative_error(TextToVideoUNet(unet, texts)(latents, 3), plain(unet, latents, 3, texts)) < EXACT


def test_videos_may_stand_at_different_timesteps():
    unet = tiny.unet()
    latents, texts = inputs(batch=2)
    timesteps = torch.tensor([17, 900])
    ours = TextToVideoUNet(unet, texts)(latents, timesteps)
    assert tiny.relative_error(ours, plain(unet, latents, timesteps, texts)) < EXACT


def test_text_keys_and_values_are_computed_once_a_prompt():
    unet = tiny.unet()
    latents, texts = inputs()
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    rows = tiny.count_calls([attention.to_k, attention.to_v])
    network = TextToVideoUNet(unet, texts)
    answers = [network(latents, timestep) for timestep in (900, 500, 100)]
    assert rows == {attention.to_k: [2], attention.to_v: [2]}  # both texts, once, and not once a frame
    for timestep, answer in zip((900, 500, 100), answers, strict=True):
        assert tiny.relative_error(answer, plain(unet, latents, timestep, texts)) < EXACT


def test_what_both_branches_have_in_common_is_computed_once():
    unet = tiny.unet()
    latents, texts = inputs(frames=3)
    first, block = unet.down_blocks[0], unet.down_blocks[0].attentions[0].transformer_blocks[0]
    temporal = [unet.transformer_in.proj_in, first.temp_convs[0].conv1[0]]
    shared = [unet.conv_in, first.resnets[0], block.attn1.to_q, *temporal]
    separate = [block.ff, unet.mid_block.resnets[0], unet.conv_out]
    rows = tiny.count_calls(shared + separate)
    ours = TextToVideoUNet(unet, texts)(latents, 500)
    pixels = latents.shape[3] * latents.shape[4]
    assert [rows[module] for module in shared] == [[3], [3], [3], [pixels], [1]]  # images; pixels; videos
    assert [rows[module] for module in separate] == [[6], [6], [6]]
    assert tiny.relative_error(ours, plain(unet, latents, 500, texts)) < EXACT


def test_temporal_convolutions_in_two_dimensions_give_what_they_give_in_three():
    unet = tiny.unet()
    hidden = torch.randn((6, 16, 5, 7), generator=torch.Generator().manual_seed(0))
    layer = unet.down_blocks[0].temp_convs[0]
    ours = TextToVideoUNet(unet, inputs()[1]).temporal_convolution(layer, hidden, frames=3)
    assert tiny.relative_error(ours, layer(hidden, num_frames=3)) < EXACT


def test_fused_attention_gives_what_attention_written_out_gives():
    from diffusers.models.attention_processor import AttnProcessor

    unet = tiny.unet()
    latents, texts = inputs()
    ours = TextToVideoUNet(unet, texts)(latents, 500)
    unet.set_attn_processor(AttnProcessor())  # softmax(q k / sqrt(d)) v, step by step, with the texts copied per frame
    assert tiny.relative_error(ours, plain(unet, latents, 500, texts)) < EXACT


@pytest.mark.parametrize("slices", [2, 5, 1000])
def test_saving_memory_changes_nothing(slices):
    unet = tiny.unet()
    latents, texts = inputs()
    ours = TextToVideoUNet(unet, texts, slices)(latents, 500)
    assert tiny.relative_error(ours, TextToVideoUNet(unet, texts)(latents, 500)) < EXACT


def test_the_shared_module_is_left_as_it_was():
    unet = tiny.unet()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    processors = unet.attn_processors
    latents, texts = inputs()
    TextToVideoUNet(unet, texts)(latents, 500)
    assert all(tensor.equal(before[name]) for name, tensor in unet.state_dict().items())
    assert unet.attn_processors == processors
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


def test_our_forward_is_not_slower_than_the_plain_one():
    unet = tiny.unet(block_out_channels=(32, 64))
    latents, texts = inputs(frames=8, height=16, width=16)
    network = TextToVideoUNet(unet, texts)

    def seconds(function):
        times = []
        for _ in range(5):
            began = time.process_time()
            function()
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(lambda: network(latents, 500)) < 1.05 * seconds(lambda: plain(unet, latents, 500, texts))


def test_the_full_size_network_has_the_published_names_and_shapes():
    manifest = tiny.manifest("modelscope_diffusers")
    with torch.device("meta"):
        unet = build_unet3d(manifest["config"])
    assert isinstance(unet, UNet3DConditionModel)
    assert {name: list(tensor.shape) for name, tensor in unet.state_dict().items()} == manifest["params"]
    assert sum(tensor.numel() for tensor in unet.parameters()) == manifest["total_params"]


def test_the_first_transformer_may_have_another_number_of_heads():
    config = {**tiny.UNET, "transformer_in_heads": 2}
    unet = tiny.randomised(build_unet3d(config))
    assert unet.transformer_in.proj_in.out_features == 2 * 8
    latents, texts = inputs()
    assert tiny.relative_error(TextToVideoUNet(unet, texts)(latents, 5), plain(unet, latents, 5, texts)) < EXACT
