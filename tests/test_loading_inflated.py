"""Loading inflated UNets: of Stable Diffusion, of tuned models, of FollowYourPose; and refusing what is neither."""

import json
import os
import shutil

import pytest
import tiny
import torch
from safetensors.torch import save_file

from pipelines.cards import Source
from pipelines.models import loading, sources
from pipelines.models.layouts import layout_of_names
from pipelines.models.networks.inflated_unet import InflatedUNet, temporal_start
from pipelines.settings import Settings

BIN = "diffusion_pytorch_model.bin"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    tiny.write_image_model(folder / "sd")
    tiny.write_tuned_model(folder / "tuned")
    tiny.write_pose_model(folder / "pose")
    return folder


@pytest.fixture
def models(published, tmp_path):
    """A copy of the models that a test may damage."""
    return shutil.copytree(published, tmp_path / "models")


@pytest.fixture
def settings(tmp_path):
    return Settings(cache=tmp_path / "cache", hub=False)


def load(folder, settings, part="inflated_unet", base=None):
    source = sources.source_of_folder(folder, base and Source(str(base)))
    return loading.part_of(source, part, settings).load(lambda done, total: None)


def refused(folder, settings, *words, part="inflated_unet", base=None):
    with pytest.raises(ValueError) as caught:
        load(folder, settings, part, base)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 700
    for word in words:
        assert word in sentence


def same(module, weights):
    ours = module.state_dict()
    return ours.keys() == weights.keys() and all(tensor.equal(ours[name]) for name, tensor in weights.items())


def change(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_an_image_model_is_inflated_and_starts_as_itself(published, settings):
    unet = load(published / "sd", settings)
    assert isinstance(unet, InflatedUNet) and not unet.training
    assert same(unet, {**tiny.image_unet().state_dict(), **temporal_start(unet)})
    assert not any(tensor.is_meta or tensor.requires_grad for tensor in unet.parameters())


def test_half_precision_is_kept_by_all_weights(models, settings):
    tiny.image_unet().half().save_pretrained(models / "sd" / "unet")
    assert {tensor.dtype for tensor in load(models / "sd", settings).parameters()} == {torch.float16}


def test_the_image_unet_and_the_inflated_one_are_two_components(published, settings):
    source = sources.source_of_folder(published / "sd")
    image, inflated = (loading.part_of(source, part, settings) for part in ("unet", "inflated_unet"))
    assert image.key != inflated.key and image.bytes == inflated.bytes
    assert {tensor.device.type for tensor in inflated.empty().parameters()} == {"meta"}


@pytest.mark.parametrize("safe", [False, True])
def test_a_tuned_model_keeps_its_own_temporal_weights(models, settings, safe):
    if safe:
        weights = torch.load(models / "tuned" / "unet" / BIN, weights_only=True)
        save_file(weights, models / "tuned" / "unet" / "diffusion_pytorch_model.safetensors")
        (models / "tuned" / "unet" / BIN).unlink()
    assert same(load(models / "tuned", settings, base=models / "sd"), tiny.inflated_unet(seed=5).state_dict())


def test_what_a_tuned_model_lacks_comes_from_its_base(published, settings):
    tuned, sd = published / "tuned", published / "sd"
    assert same(load(tuned, settings, "vae", base=sd), tiny.vae().state_dict())
    assert load(tuned, settings, "scheduler", base=sd)["skip_prk_steps"]
    keys = {
        loading.part_of(source, "text_encoder", settings).key
        for source in (sources.source_of_folder(sd), sources.source_of_folder(tuned, Source(str(sd))))
    }
    assert len(keys) == 1
    refused(tuned, settings, str(tuned), "base")


def test_a_part_of_its_own_goes_before_that_of_the_base(models, settings):
    shutil.copytree(models / "sd" / "scheduler", models / "tuned" / "scheduler")
    change(models / "tuned" / "scheduler" / "scheduler_config.json", beta_end=0.02)
    assert load(models / "tuned", settings, "scheduler", base=models / "sd")["beta_end"] == 0.02


def test_followyourpose_is_converted_once_to_safetensors(published, settings):
    expected = tiny.inflated_unet(seed=6, pose=True).state_dict()
    assert same(load(published / "pose", settings), expected)
    made = {path: path.stat().st_mtime_ns for path in settings.cache.rglob("*.safetensors")}
    assert len(made) == 1
    assert same(load(published / "pose", settings), expected)
    assert {path: path.stat().st_mtime_ns for path in settings.cache.rglob("*.safetensors")} == made
    assert same(load(published / "pose", settings, "vae"), tiny.vae().state_dict())


def test_followyourpose_may_lie_beside_or_within_its_base(models, settings):
    inside = models / "pose" / "stable-diffusion-v1-4"
    for name in ("pose_encoder.pth", "followyourpose_checkpoint-1000"):
        shutil.move(models / "pose" / name, inside / name)
    assert same(load(inside, settings), tiny.inflated_unet(seed=6, pose=True).state_dict())
    shutil.rmtree(models / "pose")
    refused(models / "pose", settings, "no folder")


def test_the_longest_trained_checkpoint_is_taken_and_the_adapter_from_its_own_file_if_need_be(models, settings):
    unet = tiny.inflated_unet(seed=7, pose=True).state_dict()
    (models / "pose" / "followyourpose_checkpoint-2000").mkdir()
    without = {name: tensor for name, tensor in unet.items() if not name.startswith("skeleton_adapter.")}
    torch.save(without, models / "pose" / "followyourpose_checkpoint-2000" / "pytorch_model.bin")
    before = tiny.inflated_unet(seed=6, pose=True).state_dict()
    adapter = {name: tensor for name, tensor in before.items() if name.startswith("skeleton_adapter.")}
    assert same(load(models / "pose", settings), without | adapter)


# Foreign and hostile folders


def test_models_that_are_not_stable_diffusion(models, settings, tmp_path):
    refused(tmp_path / "nowhere", settings, "no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", settings, "no model_index.json")
    for kind in ("StableDiffusionXLPipeline", "TextToVideoSDPipeline", None, ["list"]):
        change(models / "sd" / "model_index.json", _class_name=kind)
        refused(models / "sd", settings, str(models / "sd"), "Stable Diffusion 1.x or 2.x")


def test_latents_may_have_any_number_of_channels(tmp_path, settings):
    tiny.write_image_model(tmp_path / "sd", in_channels=12, out_channels=12)
    assert load(tmp_path / "sd", settings).conv_in.in_channels == 12


@pytest.mark.parametrize(
    "entry, word",
    [
        ({"addition_embed_type": "text_time"}, "addition_embed_type"),
        ({"in_channels": 9}, "9 channels"),
        ({"down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}, "AttnDownBlock2D"),
        ({"block_out_channels": 7}, "config.json"),
        ({"attention_head_dim": 5}, "do not fit"),
        ({"cross_attention_dim": 8}, "do not fit"),
    ],
)
def test_networks_that_are_not_stable_diffusions(models, settings, entry, word):
    change(models / "sd" / "unet" / "config.json", **entry)
    refused(models / "sd", settings, word)


def test_a_tuned_model_for_another_network(models, settings):
    change(models / "tuned" / "unet" / "config.json", cross_attention_dim=16)
    refused(models / "tuned", settings, "do not fit", base=models / "sd")


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 half"])
def test_checkpoints_that_are_no_pickles(models, settings, content):
    (models / "tuned" / "unet" / BIN).write_bytes(content)
    refused(models / "tuned", settings, BIN, "damaged", base=models / "sd")
    checkpoint = models / "pose" / "followyourpose_checkpoint-1000" / "pytorch_model.bin"
    checkpoint.write_bytes(content)
    refused(models / "pose", settings, str(checkpoint), "damaged")


def test_checkpoints_that_are_more_than_tensors_are_not_opened(models, settings, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    checkpoint = models / "pose" / "followyourpose_checkpoint-1000" / "pytorch_model.bin"
    for file in (models / "tuned" / "unet" / BIN, checkpoint):
        torch.save({"conv_in.weight": Trap()}, file)
    refused(models / "tuned", settings, "more than weights", base=models / "sd")
    refused(models / "pose", settings, "more than weights")
    assert not (tmp_path / "sprung").exists() and not list(settings.cache.glob("converted/*"))


@pytest.mark.parametrize("content", [[1, 2], {"conv_in.weight": "text"}, {"state_dict": {}}, {}])
def test_checkpoints_of_something_else(models, settings, content):
    checkpoint = models / "pose" / "followyourpose_checkpoint-1000" / "pytorch_model.bin"
    for file in (models / "tuned" / "unet" / BIN, checkpoint):
        torch.save(content, file)
    refused(models / "tuned", settings, str(models / "tuned" / "unet"), base=models / "sd")
    refused(models / "pose", settings, str(checkpoint))
    assert not list(settings.cache.glob("converted/*"))


def test_followyourpose_with_a_name_too_many_or_without_its_base(models, settings):
    checkpoint = models / "pose" / "followyourpose_checkpoint-1000" / "pytorch_model.bin"
    weights = torch.load(checkpoint, weights_only=True)
    torch.save({**weights, "stranger": torch.zeros(2)}, checkpoint)
    refused(models / "pose", settings, "stranger", str(checkpoint))
    shutil.rmtree(models / "pose" / "stable-diffusion-v1-4")
    refused(models / "pose", settings, "Stable Diffusion 1.4")


# The Hub


def test_what_is_downloaded_of_followyourpose():
    numbers = [
        f"followyourpose_checkpoint-{steps}/{name}"
        for steps in (900, 1000)
        for name in ("pytorch_model.bin", "optimizer.bin")
    ]
    names = [*numbers, "pose_encoder.pth", "README.md", "followyourpose_checkpoint-1000/random_states_0.pkl"]
    wanted = layout_of_names(names).downloads(names, ("unet",), None)
    assert set(wanted) & set(names) == {"followyourpose_checkpoint-1000/pytorch_model.bin", "pose_encoder.pth"}


def test_what_is_downloaded_of_modelscopes_own_repository():
    pickles = ["VQGAN_autoencoder.pth", "open_clip_pytorch_model.bin", "text2video_pytorch_model.pth"]
    names = [*pickles, "configuration.json", "README.md", ".gitattributes", "samples/a.gif"]
    wanted = layout_of_names(names).downloads(names, ("tokenizer", "scheduler", "text_encoder", "unet", "vae"), None)
    assert sorted(wanted) == sorted([*pickles, "configuration.json"])
