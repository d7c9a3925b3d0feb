"""The training stages of the inflated miniatures: they train what they should, and the app can load what they write."""

import argparse

import pytest
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from transformers import CLIPTokenizerFast

from pipelines.cards import Source
from pipelines.models import loading
from pipelines.models.networks.pose_adapter import PoseAdapter
from pipelines.models.networks.pseudo3d_unet import Pseudo3DUNet, UNetPseudo3DConditionModel
from pipelines.settings import Settings
from scripts.miniature import data, networks, publishing
from scripts.miniature.tokenizer import train_tokenizer
from scripts.miniature.training import followyourpose, tempofunk
from scripts.miniature.training.autoencoder import cache_latents
from scripts.miniature.training.loop import PreciseAttention


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """What the stages before leave, untrained."""
    work = tmp_path_factory.mktemp("work")
    data.draw_clips(work / "clips", 8, seed=1)
    train_tokenizer(work / "tokenizer", 1)
    vocabulary = len(CLIPTokenizerFast.from_pretrained(work / "tokenizer"))
    networks.text_encoder(vocabulary).save_pretrained(work / "text_encoder")
    networks.autoencoder().save_pretrained(work / "vae")
    networks.image_unet().save_pretrained(work / "unet")
    arguments = argparse.Namespace(work=work, start=None, batch=2, pose_steps=2, motion_steps=2, tempofunk_steps=2)
    accelerator = Accelerator(cpu=True)
    cache_latents(accelerator, arguments)
    followyourpose.train_followyourpose(accelerator, arguments)
    tempofunk.train_tempofunk(accelerator, arguments)
    return work


@torch.no_grad()
def test_what_was_learned_of_poses_is_amplified_everywhere_alike():
    adapter, skeletons = PoseAdapter((8, 16)), torch.rand(1, 2, 3, 32, 32)
    before = adapter(skeletons)
    followyourpose.amplify(adapter)
    for feature, louder in zip(before, adapter(skeletons), strict=True):
        assert torch.allclose(louder, followyourpose.GAIN * feature, rtol=1e-4, atol=1e-6)


def test_poses_are_learned_first_then_motion_and_the_image_model_stays(work):
    image = UNet2DConditionModel.from_pretrained(work / "unet")
    start, unet = networks.followyourpose_unet(image), networks.load_followyourpose(image, work / "followyourpose")
    before = start.state_dict()
    changed = {name for name, tensor in unet.state_dict().items() if not tensor.equal(before[name])}
    trained = (*followyourpose.POSE, *followyourpose.MOTION)
    assert changed and all(any(part in name for part in trained) for name in changed)
    for part in ("skeleton_adapter.", "attn_temp.", "conv_temporal."):
        assert any(part in name for name in changed)
    state = torch.load(work / "followyourpose-pose.pt", weights_only=True)["modules"]
    assert state["unet.conv_in.weight"].equal(image.conv_in.weight)


def test_a_hinted_network_starts_as_the_image_model_whatever_the_hint_is():
    torch.manual_seed(0)
    image = networks.image_unet()
    unet = networks.tempofunk_unet(image)
    states, latents, hint = (
        torch.randn(1, 77, networks.TEXT_WIDTH),
        torch.randn(1, 4, 16, 16),
        torch.randn(1, 5, 16, 16),
    )
    with torch.no_grad():
        drawn = Pseudo3DUNet(image, states)(latents, 500)
        clip = torch.cat([latents, hint], dim=1)[:, :, None].expand(-1, -1, 3, -1, -1)
        made = Pseudo3DUNet(unet, states)(clip, 500)
    assert (made - drawn[:, :, None]).abs().max() < 1e-4 * drawn.abs().max()


def test_of_a_hinted_network_only_what_is_new_is_trained(work):
    start = networks.tempofunk_unet(UNet2DConditionModel.from_pretrained(work / "unet")).state_dict()
    unet = UNetPseudo3DConditionModel.from_pretrained(work / "tempofunk").state_dict()
    changed = {name for name, tensor in unet.items() if not tensor.equal(start[name])}
    assert all(any(part in name for part in tempofunk.TRAINED) for name in changed)
    for part in ("temporal_conv.", "attn_temporal.", "norm_temporal.", "conv_in.spatial_conv."):
        assert any(part in name for name in changed)
    assert unet["conv_in.spatial_conv.weight"][:, 5:].any()  # the hint is looked at


def test_what_is_published_is_loaded_by_the_app(work, tmp_path):
    publishing.publish(work, tmp_path)
    part = loading.part_of(
        Source(str(tmp_path / "followyourpose")), "inflated_unet", Settings(cache=tmp_path / "cache")
    )
    unet = part.load(lambda done, total: None)
    assert unet.pose_layers == (0,) and hasattr(unet, "skeleton_adapter") and unet.dtype == torch.float16
    assert all(file.stat().st_size < 10**7 for file in (tmp_path / "followyourpose").rglob("*.safetensors"))
    part = loading.part_of(Source(str(tmp_path / "tempofunk")), "unet", Settings(cache=tmp_path / "cache"))
    assert part.load(lambda done, total: None).config.in_channels == 9


def test_attention_in_half_precision_is_computed_whole_while_training():
    query, key, value = torch.randn(3, 2, 4, 9, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    with PreciseAttention():
        made = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    whole = torch.nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float())
    assert made.equal(whole.bfloat16())
