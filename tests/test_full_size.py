"""The published folders at full size: the same writers on small networks, and what each is said to hold."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pipelines.models.convert import flax, modelscope
from pipelines.models.folders import card_of_folder
from pipelines.models.layouts import layout_of
from scripts.full_size import __main__ as program
from scripts.full_size import values
from scripts.full_size.layouts import SYSTEMS
from scripts.full_size.networks import UMT5_XXL, WAN, open_clip_text, shapes

BYTES = {  # as the files are published, of those whose size is known
    ("stable-diffusion-1.4", "unet/diffusion_pytorch_model.safetensors"): 3.44e9,
    ("modelscope", "unet/diffusion_pytorch_model.fp16.safetensors"): 2.82e9,
    ("modelscope-original", "text2video_pytorch_model.pth"): 5.65e9,
    ("followyourpose", "followyourpose_checkpoint-1000/pytorch_model.bin"): 3.99e9,
    ("tempofunk", "unet/diffusion_flax_model.msgpack"): 4.40e9,
    ("wan", "transformer/diffusion_pytorch_model.safetensors"): 5.68e9,
    ("wan", "text_encoder/model.safetensors"): 11.36e9,
}


def small(published):
    """The same folder with empty weights: every tensor of one value."""
    ones = [{name: [1] * len(shape) for name, shape in file.shapes.items()} for file in published.files]
    files = (replace(file, shapes=shapes) for file, shapes in zip(published.files, ones, strict=True))
    return replace(published, files=tuple(files))


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_app_knows_the_folder_and_has_the_commands_for_it(name, tmp_path):
    published = SYSTEMS[name]()
    small(published).write(tmp_path / "model")
    layout = layout_of(tmp_path / "model")
    card = card_of_folder(tmp_path / "model", kind="pose-to-video" if name == "wan-vace" else "text-to-video")
    assert type(layout).__name__ == {
        "modelscope-original": "ModelScope", "tempofunk": "Msgpack", "followyourpose": "FollowYourPose"
    }.get(name, "Diffusers")  # fmt: skip
    assert card.system == {
        "stable-diffusion-1.4": "tuneavideo", "modelscope": "modelscope", "modelscope-original": "modelscope",
    }.get(name, name)  # fmt: skip
    assert published.commands[-1][-1] == "{out}/video.mp4"
    for part in card.source.own_parts:
        layout.check(tmp_path / "model", part, None)


@pytest.mark.parametrize(("name", "path"), BYTES)
def test_the_files_are_as_large_as_the_published_ones(name, path):
    (file,) = [file for file in SYSTEMS[name]().files if file.path == path]
    assert file.bytes == pytest.approx(BYTES[name, path], rel=0.005)


def test_the_networks_are_the_published_ones():
    assert sum(map(math.prod, shapes(WAN).values())) == pytest.approx(1.419e9, rel=1e-3)
    assert "encoder.embed_tokens.weight" not in shapes(UMT5_XXL)
    weights = {name: torch.empty(shape, device="meta") for name, shape in open_clip_text().items()}
    assert modelscope.text_encoder_config(weights)["num_hidden_layers"] == 23


def test_values_pass_a_network_on():
    wanted = {"norm.weight": 0.1, "norm.bias": 0.02, "map.weight": 400**-0.5}
    kinds = {"norm.weight": [400], "norm.bias": [400], "map.weight": [300, 400]}
    for name, tensor in values.values(kinds, torch.float32):
        assert float(tensor.std()) == pytest.approx(wanted[name], rel=0.2), name


def test_flax_is_written_as_the_app_reads_it(tmp_path):
    file, wanted = tmp_path / "unet.msgpack", {"a.kernel": [3, 3, 4, 8], "a.bias": [8], "b.inner.scale": [8]}
    values.write_flax(file, wanted, torch.float32)
    with file.open("rb") as content:
        read = flax.read_weights(content, file.stat().st_size)
    found = {name: list(tensor.shape) for name, tensor in read.items()}
    assert found == {"a.weight": [8, 4, 3, 3], "a.bias": [8], "b.inner.weight": [8]}
    assert float(read["a.weight"].std()) == pytest.approx(1 / 6, rel=0.2)  # of 36 inputs each


def test_large_files_are_several_with_an_index(tmp_path, monkeypatch):
    monkeypatch.setattr(values, "SHARD", 100)
    wanted = {"one": [20], "two": [20], "three": [4, 4]}
    values.write_safetensors(tmp_path / "model.safetensors", wanted, torch.float32)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)}
    for name, file in index["weight_map"].items():
        assert list(load_file(tmp_path / file)[name].shape) == wanted[name]


def test_what_is_too_large_is_said_and_not_tried(tmp_path, monkeypatch, capsys):
    published = SYSTEMS["wan"]()
    monkeypatch.setattr(program, "free_ram", lambda: published.memory)
    monkeypatch.setattr(program, "SPARE", 1)
    assert "of memory are free" in program.too_large(published, tmp_path, tight=False)
    assert program.too_large(replace(published, files=published.files[:1]), tmp_path, tight=False) == ""
    monkeypatch.setattr(program, "SPARE", 10**18)
    assert "free." in program.too_large(published, tmp_path, tight=True)


def test_a_command_is_looked_on_at_without_what_its_parent_took(tmp_path):
    """At a built-in model: what is told does not depend on the size."""
    report = tmp_path / "report.json"
    asked = ["text-to-video", "a bear", "--steps", "1", "--frames", "8", "-o", str(tmp_path / "bear.mp4")]
    held = bytearray(b"1" * 2**30)  # in memory here, while the other process is started
    watched = [sys.executable, "-m", "scripts.full_size.measured", str(report), *asked]
    environment = os.environ | {"MARIONETTE_DATA": str(tmp_path)}
    subprocess.run(watched, cwd=program.ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    told = json.loads(report.read_text())
    assert told["facts"]["seconds_per_step"] > 0 and {"unet", "vae", "text_encoder"} <= told["loading"].keys()
    assert 0 < told["predicted"] and told["before"] < told["taken"] < len(held) + told["before"]
    table = dict(program.rows("text-to-video", told))
    assert "s in all" in table["text-to-video"] and table["  memory, as planned"].endswith("the most beside them")
