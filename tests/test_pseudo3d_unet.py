"""The pseudo-3D UNet: FLAX's blocks as they were recorded, and each saving gives what the plain formula gives."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from pipelines.models.networks.pseudo3d_unet import Pseudo3DUNet, build_pseudo3d_unet
from scripts.parity import tempofunk as parity

EXACT = 1e-5  # of the largest value: what rounding alone may change
RECORDED = tiny.GOLDENS.parent / "tempofunk"


def test_the_blocks_are_those_that_flax_recorded():
    checks = list(parity.blocks(load_file(RECORDED / "blocks.safetensors")))
    assert [str(check) for check in checks if not check.passed] == []
    assert {check.name for check in checks} >= {
        *(f"blocks.{name}{run}" for name in ("conv", "downsample", "upsample") for run in ("", "_image")),
        *(f"blocks.{name}{run}" for name in ("resnet", "transformer") for run in ("", "_image", "_small")),
    }


def test_the_full_size_network_has_the_published_shapes():
    manifest = tiny.manifest("tempofunk_makeavid")
    with torch.device("meta"):
        unet = build_pseudo3d_unet({**manifest["config"], "param_dtype": "bfloat16"})
    tensors = unet.state_dict()
    assert len(tensors) == manifest["n_tensors"] == 930
    assert sum(tensor.numel() for tensor in tensors.values()) == manifest["total_params"]


# The plain formula: clips as (b, c, f, h, w), a copy of everything for each branch and frame, attention written out


def plain(unet, latents, timestep, texts):
    latents = latents.expand(len(texts), *latents.shape[1:])
    timesteps = torch.as_tensor(timestep).expand(len(texts))
    time = unet.time_embedding(unet.time_proj(timesteps))
    hidden = plain_convolution(unet.conv_in, latents)
    skips = [hidden]
    for block in unet.down_blocks:
        for index in range(len(block.resnets)):
            hidden = plain_layer(block, index, hidden, time, texts)
            skips.append(hidden)
        for downsampler in block.downsamplers or ():
            hidden = plain_convolution(downsampler.conv, hidden)
            skips.append(hidden)
    hidden = plain_layer(unet.mid_block, 0, hidden, time, texts)
    hidden = plain_resnet(unet.mid_block.resnets[1], hidden, time)
    for block in unet.up_blocks:
        for index in range(len(block.resnets)):
            hidden = plain_layer(block, index, torch.cat([hidden, skips.pop()], dim=1), time, texts)
        for upsampler in block.upsamplers or ():
            larger = hidden.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
            hidden = plain_convolution(upsampler.conv, larger)
    hidden = F.silu(F.group_norm(hidden, *group_norm(unet.conv_norm_out)))
    return plain_convolution(unet.conv_out, hidden)


def group_norm(norm):
    return norm.num_groups, norm.weight, norm.bias, 1e-5


def plain_convolution(module, hidden):
    if hidden.ndim == 4:
        return getattr(module, "spatial_conv", module)(hidden)
    images = [module.spatial_conv(hidden[:, :, frame]) for frame in range(hidden.shape[2])]
    video = torch.stack(images, dim=2)  # (b, c, f, h, w)
    pixels = video.permute(0, 3, 4, 1, 2).flatten(0, 2)  # (b h w, c, f)
    b, _, _, h, w = video.shape
    return module.temporal_conv(pixels).unflatten(0, (b, h, w)).permute(0, 3, 4, 1, 2)


def plain_layer(block, index, hidden, time, texts):
    hidden = plain_resnet(block.resnets[index], hidden, time)
    if not hasattr(block, "attentions"):
        return hidden
    return plain_transformer(block.attentions[index], hidden, texts)


def plain_resnet(module, hidden, time):
    change = plain_convolution(module.conv1, F.silu(F.group_norm(hidden, *group_norm(module.norm1))))
    change = change + module.time_emb_proj(F.silu(time)).view(len(hidden), -1, *[1] * (hidden.ndim - 2))
    change = plain_convolution(module.conv2, F.silu(F.group_norm(change, *group_norm(module.norm2))))
    return change + (hidden if module.conv_shortcut is None else plain_convolution(module.conv_shortcut, hidden))


def plain_transformer(module, hidden, texts):
    frames = hidden.shape[2] if hidden.ndim == 5 else 1
    images = hidden.transpose(1, 2).flatten(0, 1) if hidden.ndim == 5 else hidden  # (b f, c, h, w)
    block = module.transformer_blocks[0]
    states = F.group_norm(images, *group_norm(module.norm))
    if isinstance(module.proj_in, nn.Conv2d):
        states = module.proj_in(states).flatten(2).transpose(1, 2)
    else:
        states = module.proj_in(states.flatten(2).transpose(1, 2))  # (b f, h w, c)
    normed = block.norm1(states)
    states = states + plain_attention(block.attn1, normed, normed)
    states = states + plain_attention(block.attn2, block.norm2(states), texts.repeat_interleave(frames, dim=0))
    if hidden.ndim == 5:
        pixels = states.unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)  # (b h w, f, c)
        normed = block.norm_temporal(pixels)
        pixels = pixels + plain_attention(block.attn_temporal, normed, normed)
        states = pixels.unflatten(0, (len(hidden), -1)).transpose(1, 2).flatten(0, 1)
    values, gate = block.ff.net[0].proj(block.norm3(states)).chunk(2, dim=-1)
    gelu = 0.5 * gate * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
    states = states + block.ff.net[2](values * gelu)
    if isinstance(module.proj_out, nn.Conv2d):
        change = module.proj_out(states.transpose(1, 2).unflatten(2, images.shape[2:]))
    else:
        change = module.proj_out(states).transpose(1, 2).unflatten(2, images.shape[2:])
    return hidden + (change.unflatten(0, (-1, frames)).transpose(1, 2) if hidden.ndim == 5 else change)


def plain_attention(attention, states, context):
    def heads(values):
        return values.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

    query, key, value = heads(attention.to_q(states)), heads(attention.to_k(context)), heads(attention.to_v(context))
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1)
    return attention.to_out[0]((weights @ value).transpose(1, 2).flatten(2))


# Ours


def inputs(batch=1, texts=2, frames=3, height=8, width=8, channels=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, frames, height, width) if frames else (batch, channels, height, width)
    return torch.randn(shape, generator=generator), torch.randn((texts, 7, tiny.WIDTH), generator=generator)


SHAPES = {
    "two branches of one video": {},
    "one branch": {"texts": 1},
    "two videos": {"batch": 2},
    "three branches": {"texts": 3},
    "a single frame": {"frames": 1},
    "an image": {"frames": None},
    "two images": {"frames": None, "batch": 2},
    "not square": {"height": 8, "width": 24},
}
NETWORKS = {
    "two levels": {
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlockPseudo3D", "DownBlockPseudo3D"),
        "up_block_types": ("UpBlockPseudo3D", "CrossAttnUpBlockPseudo3D"),
    },
    "no attention before the second level": {
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlockPseudo3D", "CrossAttnDownBlockPseudo3D"),
        "up_block_types": ("CrossAttnUpBlockPseudo3D", "UpBlockPseudo3D"),
    },
    "several layers": {"layers_per_block": 2},
    "heads for each block": {"attention_head_dim": (2, 4, 8, 16)},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_forward_is_the_plain_formula_for_every_shape(shape):
    unet = tiny.pseudo3d_unet()
    latents, texts = inputs(**SHAPES[shape])
    assert tiny.relative_error(Pseudo3DUNet(unet, texts)(latents, 481), plain(unet, latents, 481, texts)) < EXACT


@pytest.mark.parametrize("network", NETWORKS)
def test_the_forward_is_the_plain_formula_for_every_network(network):
    unet = tiny.pseudo3d_unet(**NETWORKS[network])
    latents, texts = inputs(frames=2)
    assert tiny.relative_error(Pseudo3DUNet(unet, texts)(latents, 3), plain(unet, latents, 3, texts)) < EXACT


def test_videos_may_stand_at_different_timesteps():
    unet = tiny.pseudo3d_unet()
    latents, texts = inputs(batch=2)
    timesteps = torch.tensor([17, 900])
    ours = Pseudo3DUNet(unet, texts)(latents, timesteps)
    assert tiny.relative_error(ours, plain(unet, latents, timesteps, texts)) < EXACT


@pytest.mark.parametrize("changes", [{}, {"use_linear_projection": True, "attention_head_dim": (2, 2, 4, 8)}])
def test_a_plain_stable_diffusion_is_computed_as_flax_does(changes):
    unet = tiny.image_unet(**changes)
    latents, texts = inputs(frames=None, channels=4)
    ours = Pseudo3DUNet(unet, texts)(latents, 500)
    assert tiny.relative_error(ours, plain(unet, latents, 500, texts)) < EXACT
    theirs = unet(latents.expand(2, -1, -1, -1), 500, texts).sample  # with PyTorch's GELU and epsilons
    assert EXACT < tiny.relative_error(ours, theirs) < 0.01


def test_a_new_network_does_nothing_over_time():
    """Frames that are all one stay one, and are what the network makes of that image."""
    torch.manual_seed(0)
    unet = build_pseudo3d_unet(tiny.PSEUDO3D).eval().requires_grad_(False)
    image, texts = inputs(frames=None, texts=1)
    clip = image.unsqueeze(2).expand(-1, -1, 4, -1, -1)
    network = Pseudo3DUNet(unet, texts)
    assert tiny.relative_error(network(clip, 500), network(image, 500).unsqueeze(2).expand(-1, -1, 4, -1, -1)) < EXACT


def test_text_keys_and_values_are_computed_once_a_prompt():
    unet = tiny.pseudo3d_unet()
    latents, texts = inputs()
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    rows = tiny.count_calls([attention.to_k, attention.to_v])
    network = Pseudo3DUNet(unet, texts)
    for timestep in (900, 500, 100):
        network(latents, timestep)
    assert rows == {attention.to_k: [2], attention.to_v: [2]}  # both texts, once, and not once a frame


def test_what_both_branches_have_in_common_is_computed_once():
    unet = tiny.pseudo3d_unet()
    latents, texts = inputs(frames=3)
    first, block = unet.down_blocks[0], unet.down_blocks[0].attentions[0].transformer_blocks[0]
    shared = [unet.conv_in.spatial_conv, first.resnets[0].conv1.spatial_conv, block.attn1.to_q]
    separate = [block.ff.net[2], unet.mid_block.resnets[0].conv1.spatial_conv, unet.conv_out.spatial_conv]
    rows = tiny.count_calls(shared + separate)
    Pseudo3DUNet(unet, texts)(latents, 500)
    assert [rows[module] for module in shared] == [[3], [3], [3]]  # images
    assert [rows[module] for module in separate] == [[6], [6], [6]]


@pytest.mark.parametrize("slices", [2, 5, 1000])
def test_saving_memory_changes_nothing(slices):
    unet = tiny.pseudo3d_unet()
    latents, texts = inputs()
    ours = Pseudo3DUNet(unet, texts, slices)(latents, 500)
    assert tiny.relative_error(ours, Pseudo3DUNet(unet, texts)(latents, 500)) < EXACT


def test_channels_come_last_in_memory_on_the_whole_way():
    unet = tiny.pseudo3d_unet()
    latents, texts = inputs(frames=3)
    strides = []
    for module in (unet.down_blocks[0].resnets[0].conv2, unet.up_blocks[1].upsamplers[0].conv, unet.conv_out):
        module.spatial_conv.register_forward_hook(lambda module, inputs, output: strides.append(inputs[0].stride(1)))
    Pseudo3DUNet(unet, texts)(latents, 500)
    assert strides == [1, 1, 1]


def test_the_shared_module_is_left_as_it_was():
    unet = tiny.pseudo3d_unet()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    latents, texts = inputs()
    Pseudo3DUNet(unet, texts)(latents, 500)
    assert all(tensor.equal(before[name]) for name, tensor in unet.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


def test_blocks_by_the_names_of_image_blocks_are_the_same():
    types = {
        key: [kind.replace("Pseudo3D", "2D") for kind in tiny.PSEUDO3D[key]] for key in tiny.PSEUDO3D if "types" in key
    }
    with torch.device("meta"):
        renamed, unet = build_pseudo3d_unet({**tiny.PSEUDO3D, **types}), build_pseudo3d_unet(tiny.PSEUDO3D)
    assert renamed.config.down_block_types == list(unet.config.down_block_types)
    assert renamed.state_dict().keys() == unet.state_dict().keys()


@pytest.mark.parametrize(
    "changes", [{"down_block_types": ["DownBlock3D"] * 4}, {"up_block_types": tiny.PSEUDO3D["up_block_types"][1:]}]
)
def test_blocks_that_are_not_known_are_refused(changes):
    with pytest.raises(ValueError, match="4 levels need as many of"):
        build_pseudo3d_unet({**tiny.PSEUDO3D, **changes})
