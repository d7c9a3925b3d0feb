"""FLAX's msgpack: read whole, in every precision, one to one; and what is no such file is refused in a sentence."""

import io
import json
import shutil
import struct
from pathlib import Path

import msgpack
import pytest
import tiny
import torch

from pipelines.models import folders, loading, sources
from pipelines.models.convert import flax
from pipelines.models.networks.pseudo3d_unet import build_pseudo3d_unet
from pipelines.settings import Settings

FILE = Path("unet") / "diffusion_flax_model.msgpack"


def read(content):
    return flax.read_weights(io.BytesIO(content), len(content))


def test_the_full_size_names_and_shapes_are_those_of_the_network_one_to_one():
    manifest = tiny.manifest("tempofunk_makeavid")
    ours = {
        flax.torch_name(tuple(path.split("."))): flax.turned(torch.empty(shape, device="meta")).shape
        for path, shape in manifest["params"].items()
    }
    with torch.device("meta"):
        wanted = build_pseudo3d_unet(manifest["config"]).state_dict()
    assert len(ours) == len(manifest["params"]) == 930
    assert ours == {name: tensor.shape for name, tensor in wanted.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_precision_is_read_as_it_is(dtype):
    weights = {name: tensor.to(dtype) for name, tensor in tiny.pseudo3d_unet().state_dict().items()}
    found = read(tiny.flax_bytes(weights))
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert found[name].dtype == dtype and found[name].is_contiguous() and found[name].equal(tensor), name


def array(shape, dtype="float32", values=b""):
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, values)))


WHOLE = tiny.flax_bytes(
    {"conv_in.spatial_conv.bias": torch.ones(3), "conv_in.spatial_conv.weight": torch.ones(3, 2, 1, 1)}
)
MANY = array([1], values=b"1234")
FOREIGN = {
    "another object": msgpack.packb([1, 2, 3]),
    "a word": msgpack.packb("weights"),
    "a number where weights should be": msgpack.packb({"conv_in": {"bias": 3}}),
    "nothing where weights should be": msgpack.packb({"conv_in": None}),
    "a list within": msgpack.packb({"conv_in": [1]}),
    "a time": msgpack.packb({"conv_in": msgpack.Timestamp(1, 2)}),
    "names that are numbers": msgpack.packb({1: {"bias": array([1], values=b"1234")}}),
    "names that are bytes": msgpack.packb({b"a": {"bias": array([1], values=b"1234")}}),
    "another extension": msgpack.packb({"conv_in": {"bias": msgpack.ExtType(2, b"1234")}}),
    "an extension that is no array": msgpack.packb({"conv_in": {"bias": msgpack.ExtType(1, b"1234")}}),
    "an empty extension": msgpack.packb({"conv_in": {"bias": msgpack.ExtType(1, b"")}}),
    "an extension within one": msgpack.packb({"a": {"bias": msgpack.ExtType(1, msgpack.packb(array([1])))}}),
    "whole numbers": msgpack.packb({"conv_in": {"bias": array([1], "int32", b"1234")}}),
    "a dtype that is a list": msgpack.packb({"conv_in": {"bias": array([1], ["float32"], b"1234")}}),
    "a shape that promises more": msgpack.packb({"conv_in": {"bias": array([10**12], values=b"1234")}}),
    "a shape that overflows": msgpack.packb({"conv_in": {"bias": array([2**63, 2, 2**63], values=b"1234")}}),
    "a negative shape": msgpack.packb({"conv_in": {"bias": array([-1, -1], values=b"1234")}}),
    "a shape with a hole": msgpack.packb({"conv_in": {"bias": array([0], values=b"")}}),
    "a shape of words": msgpack.packb({"conv_in": {"bias": array(["a"], values=b"1234")}}),
    "no dimensions": msgpack.packb({"conv_in": {"bias": array([], values=b"1234")}}),
    "many dimensions": msgpack.packb({"conv_in": {"bias": array([1] * 8, values=b"1234")}}),
    "more behind the weights": WHOLE + b"\x00",
    "maps in maps": b"\x81\xa1a" * 100_000 + b"\xc0",
    "lists in lists": b"\x91" * 100_000 + b"\xc0",
    "a huge map": b"\xdf" + struct.pack(">I", 2**32 - 1),
    "a huge list": b"\xdd" + struct.pack(">I", 2**32 - 1),
    "a huge extension": b"\x81\xa1a\xc9" + struct.pack(">IB", 2**32 - 1, 1),
    "a huge list in an array": msgpack.packb({"a": msgpack.ExtType(1, b"\x93\xdd" + struct.pack(">I", 2**32 - 1))}),
    "a huge buffer in an array": msgpack.packb({"a": msgpack.ExtType(1, b"\x93\x90\xa1a\xc6\xff\xff\xff\xff")}),
    "many small arrays": msgpack.packb({f"a{i}": {str(j): MANY for j in range(600)} for i in range(17)}),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_network_is_told_from_what_is_broken(name):
    with pytest.raises(flax.NotFlax):
        read(FOREIGN[name])


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", WHOLE[:1], WHOLE[:20], WHOLE[:-1], b"\x81\xa1a\xc8\x00\x05\x01", b"\xdb\xff\xff\xff\xff"]
)
def test_a_broken_file_is_told_as_such(content):
    with pytest.raises(EOFError):
        read(content)


# From a folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return tiny.write_pseudo3d_model(tmp_path_factory.mktemp("published") / "model")


@pytest.fixture
def model(published, tmp_path):
    return Path(shutil.copytree(published, tmp_path / "model"))


@pytest.fixture
def settings(tmp_path):
    return Settings(cache=tmp_path / "cache", hub=False)


def load(folder, settings, part="unet"):
    return loading.component(folders.card_of_folder(folder), part, settings).load(lambda done, total: None)


def test_a_folder_is_converted_once_and_gives_the_network_that_was_saved(model, settings):
    expected = tiny.pseudo3d_unet().state_dict()
    for _ in range(2):
        loaded = load(model, settings).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(tensor.equal(expected[name]) for name, tensor in loaded.items())
    (converted,) = settings.cache.rglob("*.safetensors")
    written = converted.stat().st_mtime_ns
    load(model, settings)
    assert converted.stat().st_mtime_ns == written
    (model / FILE).write_bytes(tiny.flax_bytes(tiny.pseudo3d_unet(seed=1).state_dict()))
    load(model, settings)
    assert len(list(settings.cache.rglob("*.safetensors"))) == 2


def test_pytorchs_own_weights_go_first(model, settings):
    tiny.pseudo3d_unet(seed=1).save_pretrained(model / "unet")
    expected = tiny.pseudo3d_unet(seed=1).conv_in.spatial_conv.weight
    assert load(model, settings).conv_in.spatial_conv.weight.equal(expected)


def test_the_image_model_is_that_of_its_own_folder(model, settings):
    expected = tiny.image_unet(layers_per_block=1).state_dict()
    loaded = load(model, settings, "image_unet").state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in loaded.items())


@pytest.mark.parametrize(
    "content, says",
    [
        (WHOLE[:-1], "damaged or incomplete"),
        (FOREIGN["a huge map"], "holds no weights written by FLAX"),
        (WHOLE, "does not fit the network in"),
        (tiny.flax_bytes(tiny.pseudo3d_unet(in_channels=4).state_dict()), "see conv_in.spatial_conv.weight"),
    ],
)
def test_a_file_that_can_not_be_used_is_told_in_a_sentence_and_leaves_nothing(model, settings, content, says):
    (model / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=says) as refusal:
        load(model, settings)
    assert str(model / FILE) in str(refusal.value) and "\n" not in str(refusal.value)
    assert not list(settings.cache.glob("converted/*"))


@pytest.mark.parametrize("change", [{"block_out_channels": 7}, {"down_block_types": 3}, {"_class_name": "FlaxThing"}])
def test_a_config_of_something_else(model, settings, change):
    file = model / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match="config.json"):
        load(model, settings)


def test_weights_that_hold_no_numbers_are_refused(model, settings):
    weights = tiny.pseudo3d_unet().state_dict()
    weights["conv_in.spatial_conv.bias"][0] = float("nan")
    (model / FILE).write_bytes(tiny.flax_bytes(weights))
    with pytest.raises(ValueError, match="no numbers"):
        load(model, settings)


def test_the_card_of_a_folder(model, settings):
    card = folders.card_of_folder(model)
    assert (card.system, card.defaults.width, card.limits.side.step) == (
        "tempofunk",
        64,
        64,
    )  # 8 pixels, three halvings
    assert card.image_model.location == str(model / "sd_image")
    assert sources.availability(card, settings) is None
    (model / FILE).unlink()
    assert "no weights" in sources.availability(card, settings)
    shutil.rmtree(model / "sd_image")
    assert not folders.card_of_folder(model).image_model.is_folder  # the published one
    with pytest.raises(ValueError, match="stable-diffusion-v1-5 is not on this machine.*Or give a first image"):
        load(model, settings, "image_unet")
