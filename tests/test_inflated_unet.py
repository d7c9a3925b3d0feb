"""The inflated UNet: starts as the image model, and each saving gives what the plain formula gives."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from pipelines.models.networks.inflated_unet import EditingUNet, InflatedUNet, temporal_start
from pipelines.models.networks.pose_adapter import PoseAdapter

EXACT = 1e-5  # of the largest value: what rounding alone may change
TRAINED = ("attn1.to_q.", "attn2.to_q.", "attn_temp.")

NETWORKS = {
    "as Stable Diffusion 1": {},
    "as Stable Diffusion 2": {
        "use_linear_projection": True,
        "attention_head_dim": (2, 2, 4, 8),
        "upcast_attention": True,
    },
    "one layer per block": {"layers_per_block": 1},
    "two levels": {
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    "no attention before the second level": {
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
}
SHAPES = {
    "two branches of one video": {},
    "one branch": {"texts": 1},
    "two videos": {"batch": 2},
    "three branches": {"texts": 3},
    "one frame": {"frames": 1},
    "two frames": {"frames": 2},
    "seven frames": {"frames": 7},
    "not square": {"height": 8, "width": 16},
    "odd sizes": {"height": 5, "width": 7},
}


def inputs(batch=1, texts=2, frames=4, height=8, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((batch, 4, frames, height, width), generator=generator)
    return latents, torch.randn((texts, 7, tiny.WIDTH), generator=generator)


# The plain formula: videos as [b, c, f, h, w], a copy of everything for each branch, frame and key


def plain(unet, latents, timestep, texts, features=()):
    latents = latents.expand(len(texts), *latents.shape[1:])
    timesteps = torch.as_tensor(timestep).expand(len(texts))
    time = unet.time_embedding(unet.time_proj(timesteps))
    hidden = per_frame(unet.conv_in, latents)
    skips = [hidden]
    for level, block in enumerate(unet.down_blocks):
        for number, resnet in enumerate(block.resnets, start=1):
            hidden = plain_residual(resnet, hidden, time)
            if hasattr(block, "attentions"):
                hidden = plain_transformer(block.attentions[number - 1], hidden, texts)
            if features and (number + 1) % 3 == 0:
                hidden = hidden + features[level]
            skips.append(hidden)
        for downsampler in block.downsamplers or ():
            hidden = per_frame(downsampler.conv, hidden)
            skips.append(hidden)
    hidden = plain_residual(unet.mid_block.resnets[0], hidden, time)
    hidden = plain_transformer(unet.mid_block.attentions[0], hidden, texts)
    hidden = plain_residual(unet.mid_block.resnets[1], hidden, time)
    for block in unet.up_blocks:
        for number, resnet in enumerate(block.resnets):
            hidden = plain_residual(resnet, torch.cat([hidden, skips.pop()], dim=1), time)
            if hasattr(block, "attentions"):
                hidden = plain_transformer(block.attentions[number], hidden, texts)
        for upsampler in block.upsamplers or ():
            hidden = per_frame(upsampler.conv, F.interpolate(hidden, size=skips[-1].shape[2:]))
    return per_frame(unet.conv_out, F.silu(unet.conv_norm_out(hidden)))


def per_frame(convolution, hidden):
    return torch.stack([convolution(frame) for frame in hidden.unbind(2)], dim=2)


def plain_residual(resnet, hidden, time):
    change = per_frame(resnet.conv1, F.silu(resnet.norm1(hidden)))
    change = change + resnet.time_emb_proj(F.silu(time))[:, :, None, None, None]
    change = per_frame(resnet.conv2, F.silu(resnet.norm2(change)))
    return change + (per_frame(resnet.conv_shortcut, hidden) if resnet.conv_shortcut is not None else hidden)


def plain_transformer(module, hidden, texts):
    batch, frames, height, width, block = *hidden.shape[:1], *hidden.shape[2:], module.transformer_blocks[0]
    images = module.norm(hidden.transpose(1, 2).flatten(0, 1))
    if isinstance(module.proj_in, torch.nn.Linear):
        states = module.proj_in(images.flatten(2).transpose(1, 2))
    else:
        states = module.proj_in(images).flatten(2).transpose(1, 2)
    normed = block.norm1(states)
    seen = []
    for video in normed.unflatten(0, (batch, frames)):
        seen += [torch.cat([video[0], video[max(frame - 1, 0)]]) for frame in range(frames)]
    states = states + plain_attention(block.attn1, normed, torch.stack(seen))
    states = states + plain_attention(block.attn2, block.norm2(states), texts.repeat_interleave(frames, dim=0))
    states = states + block.ff(block.norm3(states))
    pixels = states.unflatten(0, (batch, frames)).transpose(1, 2).flatten(0, 1)
    normed = block.norm_temp(pixels)
    pixels = pixels + plain_attention(block.attn_temp, normed, normed)
    if hasattr(block, "conv_temporal"):
        by_time = pixels.transpose(1, 2)
        pixels = (by_time + block.conv_temporal.up(block.conv_temporal.down(by_time))).transpose(1, 2)
    states = pixels.unflatten(0, (batch, -1)).transpose(1, 2).flatten(0, 1)
    if isinstance(module.proj_out, torch.nn.Linear):
        images = module.proj_out(states).transpose(1, 2).unflatten(2, (height, width))
    else:
        images = module.proj_out(states.transpose(1, 2).unflatten(2, (height, width)))
    return hidden + images.unflatten(0, (batch, frames)).transpose(1, 2)


def plain_attention(attention, states, seen):
    found = []
    query, key, value = attention.to_q(states), attention.to_k(seen), attention.to_v(seen)
    for q, k, v in zip(*(x.chunk(attention.heads, dim=-1) for x in (query, key, value)), strict=True):
        found.append(torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, dim=-1) @ v)
    return attention.to_out[0](torch.cat(found, dim=-1))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_forward_is_the_plain_formula_for_every_shape(shape):
    unet = tiny.inflated_unet()
    latents, texts = inputs(**SHAPES[shape])
    assert tiny.relative_error(EditingUNet(unet, texts)(latents, 481), plain(unet, latents, 481, texts)) < EXACT


@pytest.mark.parametrize("pose", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_forward_is_the_plain_formula_for_every_network(network, pose):
    unet = tiny.inflated_unet(pose=pose, **NETWORKS[network])
    latents, texts = inputs(frames=5, height=16)
    assert tiny.relative_error(EditingUNet(unet, texts)(latents, 3), plain(unet, latents, 3, texts)) < EXACT


def test_videos_may_stand_at_different_timesteps():
    unet = tiny.inflated_unet()
    latents, texts = inputs(batch=2)
    timesteps = torch.tensor([17, 900])
    ours = EditingUNet(unet, texts)(latents, timesteps)
    assert tiny.relative_error(ours, plain(unet, latents, timesteps, texts)) < EXACT


@pytest.mark.parametrize("videos", [1, 2])
def test_pose_features_are_added_after_the_second_layer_of_each_down_block(videos):
    unet = tiny.inflated_unet(pose=True)
    latents, texts = inputs(batch=videos)
    features = unet.skeleton_adapter(torch.rand(videos, 4, 3, 64, 64))
    without = EditingUNet(unet, texts)(latents, 500)
    ours = EditingUNet(unet, texts, pose_features=features)(latents, 500)
    assert tiny.relative_error(ours, plain(unet, latents, 500, texts, features)) < EXACT
    assert tiny.relative_error(ours, without) > 0.01
    nothing = [0 * feature for feature in features]
    assert tiny.relative_error(EditingUNet(unet, texts, pose_features=nothing)(latents, 500), without) < EXACT


def test_blocks_with_one_layer_take_no_pose_features_as_published():
    unet = tiny.inflated_unet(pose=True, layers_per_block=1)
    latents, texts = inputs()
    features = unet.skeleton_adapter(torch.rand(1, 4, 3, 64, 64))
    assert EditingUNet(unet, texts, pose_features=features)(latents, 5).equal(EditingUNet(unet, texts)(latents, 5))


def test_a_config_may_say_after_which_layers_pose_features_are_added():
    unet = tiny.inflated_unet(pose=True, layers_per_block=1, pose_layers=[0])
    latents, texts = inputs()
    features = unet.skeleton_adapter(torch.rand(1, 4, 3, 64, 64))
    without = EditingUNet(unet, texts)(latents, 5)
    assert tiny.relative_error(EditingUNet(unet, texts, pose_features=features)(latents, 5), without) > 0.01
    published = tiny.inflated_unet(pose=True)
    named = tiny.inflated_unet(pose=True, pose_layers=[1])
    assert EditingUNet(named, texts, 1, features)(latents, 5).equal(
        EditingUNet(published, texts, 1, features)(latents, 5)
    )
    for wrong in (0, ["0"], None):
        with pytest.raises(ValueError, match="pose_layers"):
            tiny.inflated_unet(pose=True, pose_layers=wrong)


def test_text_keys_and_values_are_computed_once_a_prompt():
    unet = tiny.inflated_unet()
    latents, texts = inputs()
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    rows = tiny.count_calls([attention.to_k, attention.to_v])
    network = EditingUNet(unet, texts)
    answers = [network(latents, timestep) for timestep in (900, 500, 100)]
    assert rows == {attention.to_k: [2], attention.to_v: [2]}  # both texts, once, and not once a frame
    for timestep, answer in zip((900, 500, 100), answers, strict=True):
        assert tiny.relative_error(answer, plain(unet, latents, timestep, texts)) < EXACT


def test_what_the_branches_have_in_common_is_computed_once():
    unet = tiny.inflated_unet()
    latents, texts = inputs(texts=3, frames=5)
    first, block = unet.down_blocks[0], unet.down_blocks[0].attentions[0].transformer_blocks[0]
    shared, separate = [unet.conv_in, first.resnets[0].conv1, block.attn1.to_k], [unet.conv_out, first.resnets[1].conv1]
    rows = tiny.count_calls([*shared, *separate])
    EditingUNet(unet, texts)(latents, 500)
    assert [rows[module] for module in shared] == [[5]] * 3
    assert [rows[module] for module in separate] == [[15]] * 2


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_frames_0_and_1_look_at_the_first_frame_once(frames, monkeypatch):
    unet = tiny.inflated_unet()
    latents, texts = inputs(frames=frames, texts=1)
    sizes, fused = [], F.scaled_dot_product_attention

    def watch(query, key, value):
        sizes.append((query.shape[0], query.shape[2], key.shape[2]))  # rows, queries, keys
        return fused(query, key, value)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watch)
    EditingUNet(unet, texts)(latents, 500)
    early = (1, min(frames, 2) * 64, 64)
    assert sizes[: 1 + (frames > 2)] == ([early] if frames < 3 else [early, (frames - 2, 64, 128)])


@pytest.mark.parametrize("slices", [2, 3, 1000])
def test_saving_memory_changes_nothing(slices):
    unet = tiny.inflated_unet(pose=True)
    latents, texts = inputs(frames=7)
    ours = EditingUNet(unet, texts, slices)(latents, 500)
    assert tiny.relative_error(ours, EditingUNet(unet, texts)(latents, 500)) < EXACT


def test_the_same_input_gives_the_same_output_and_leaves_the_shared_module_as_it_was():
    unet = tiny.inflated_unet()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    latents, texts = inputs()
    assert EditingUNet(unet, texts)(latents, 500).equal(EditingUNet(unet, texts)(latents, 500))
    assert all(tensor.equal(before[name]) for name, tensor in unet.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


# Inflation


@pytest.mark.parametrize("pose", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", [(8, 8), (5, 7)])
def test_one_frame_starts_as_the_image_model(network, pose, size):
    image = tiny.image_unet(seed=3, **NETWORKS[network])
    video = tiny.inflated_unet(seed=4, pose=pose, **NETWORKS[network])
    added = video.state_dict().keys() - image.state_dict().keys()
    start = temporal_start(video)
    assert start.keys() == {name for name in added if not name.startswith("skeleton_adapter.")}
    video.load_state_dict({**image.state_dict(), **start}, strict=False)
    latents, texts = inputs(frames=1, height=size[0], width=size[1])
    expected = image(latents[:, :, 0].expand(2, -1, -1, -1), 500, texts).sample
    assert tiny.relative_error(EditingUNet(video, texts)(latents, 500)[:, :, 0], expected) < EXACT


def test_a_still_video_starts_as_the_image_model_in_every_frame():
    """Frames that are equal have the same statistics together as alone, and see themselves in each other."""
    image, video = tiny.image_unet(seed=3), tiny.inflated_unet(seed=4)
    video.load_state_dict({**image.state_dict(), **temporal_start(video)})
    latents, texts = inputs(frames=1)
    expected = image(latents[:, :, 0].expand(2, -1, -1, -1), 500, texts).sample
    ours = EditingUNet(video, texts)(latents.expand(-1, -1, 6, -1, -1), 500)
    assert tiny.relative_error(ours, expected[:, :, None].expand_as(ours)) < EXACT


def test_the_start_is_the_same_every_time_and_has_weights_of_the_usual_size():
    unet = tiny.inflated_unet(pose=True)
    first, second = temporal_start(unet), temporal_start(unet)
    assert all(tensor.equal(second[name]) for name, tensor in first.items())
    name = "mid_block.attentions.0.transformer_blocks.0.attn_temp.to_q.weight"
    usual = torch.nn.Linear(32, 32).weight
    assert first[name].std() == pytest.approx(usual.std().item(), rel=0.2) and not first[name].equal(
        temporal_start(unet, 1)[name]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"class_embed_type": "timestep", "projection_class_embeddings_input_dim": 8},
        {"transformer_layers_per_block": [1, 2, 10, 10]},
        {"addition_embed_type": "text_time"},
        {"down_block_types": ["SimpleCrossAttnDownBlock2D"] * 4},
        {"resnet_time_scale_shift": "scale_shift"},
        {"conv_in_kernel": 5},
    ],
)
def test_networks_that_are_not_stable_diffusions_are_refused_by_name(change):
    with pytest.raises(ValueError, match=next(iter(change)) if "types" not in next(iter(change)) else "SimpleCross"):
        InflatedUNet({**tiny.IMAGE_UNET, **change})


# Training


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_plain_formula_and_reach_what_is_trained_only(checkpointing):
    unet = tiny.inflated_unet()
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(any(part in name for part in TRAINED))
    latents, texts = inputs(texts=1)

    def gradients(predict):
        unet.zero_grad()
        predict().square().mean().backward()
        return {name: parameter.grad for name, parameter in unet.named_parameters() if parameter.grad is not None}

    expected = gradients(lambda: plain(unet, latents, 300, texts))
    ours = gradients(lambda: unet(latents, 300, texts, checkpointing=checkpointing))
    assert ours.keys() == {name for name in unet.state_dict() if any(part in name for part in TRAINED)}
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert all((ours[name] - gradient).abs().max() < EXACT * largest for name, gradient in expected.items())
    assert all(gradient.abs().max() > 0 for gradient in ours.values())


# The published networks


@pytest.mark.parametrize("name", ["tuneavideo_sd14", "tuneavideo_sd21", "followyourpose_sd14"])
def test_the_full_size_networks_have_the_published_names_and_shapes(name):
    manifest = tiny.manifest(name)
    pose = "pose_encoder" in manifest
    with torch.device("meta"):
        unet = InflatedUNet(manifest["config"], pose=pose)
        adapter = PoseAdapter(manifest["config"]["block_out_channels"])
    assert isinstance(unet, UNet2DConditionModel)
    shapes = {name: list(tensor.shape) for name, tensor in unet.state_dict().items()}
    assert shapes == manifest["state_dict"] and len(shapes) == (868 if pose else 798)
    assert sum(parameter.numel() for parameter in unet.parameters()) == manifest["param_count"]
    if pose:
        assert {name: list(tensor.shape) for name, tensor in adapter.state_dict().items()} == manifest["pose_encoder"]
