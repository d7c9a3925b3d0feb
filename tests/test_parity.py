"""scripts/parity: the recordings of the original programs hold, and a wrong result is seen."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import GOLDENS

from scripts import parity
from scripts.parity.checks import compare


@pytest.fixture
def goldens(tmp_path):
    """A copy of the recordings that a test may change."""
    shutil.copytree(GOLDENS / "modelscope", tmp_path / "goldens" / "modelscope")
    return tmp_path / "goldens"


def change(file: Path, **changes):
    tensors = load_file(file)
    save_file({**tensors, **{name: change(tensors[name]) for name, change in changes.items()}}, file)


def lines(printed: str) -> dict[str, list[str]]:
    """name -> [max_abs_error, scale_of_reference, tolerance, ok|FAIL]"""
    return {line.split()[0]: line.split()[1:] for line in printed.splitlines() if not line.startswith("#")}


def test_everything_recorded_of_modelscope_holds(capsys):
    assert parity.main([str(GOLDENS)]) == 0
    printed = capsys.readouterr().out
    found = lines(printed)
    assert all(len(rest) == 4 and rest[-1] == "ok" for rest in found.values())
    wanted = ["unet.output", "unet.output_single_frame", "autoencoder.mean", "autoencoder.decoded", "betas"]
    wanted += ["a.timesteps", "a.latents_per_step", "a.frames", "b.final_latents"]
    assert {f"modelscope/{name}" for name in wanted} <= found.keys()
    intermediates = load_file(GOLDENS / "modelscope" / "unet_intermediates.safetensors")
    assert {f"modelscope/unet.{name.removeprefix('inter.')}" for name in intermediates} <= found.keys()
    assert "# tempofunk: not in" in printed


def test_one_wrong_value_among_thousands_fails(goldens, capsys):
    def nudge(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[17] += 1e-3
        return tensor

    change(goldens / "modelscope" / "unet_forward.safetensors", output=nudge)
    assert parity.main([str(goldens)]) == 1
    assert [name for name, rest in lines(capsys.readouterr().out).items() if rest[-1] == "FAIL"] == [
        "modelscope/unet.output"
    ]


def test_other_weights_fail(goldens, capsys):
    file = goldens / "modelscope" / "VQGAN_autoencoder.pth"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["state_dict"]["first_stage_model.decoder.conv_out.bias"] += 0.1
    torch.save(checkpoint, file)
    assert parity.main([str(goldens)]) == 1
    found = lines(capsys.readouterr().out)
    assert found["modelscope/autoencoder.decoded"][-1] == found["modelscope/a.frames"][-1] == "FAIL"
    assert found["modelscope/autoencoder.mean"][-1] == "ok"


def test_weights_that_can_not_be_loaded_fail(goldens, capsys):
    (goldens / "modelscope" / "text2video_pytorch_model.pth").write_bytes(b"broken")
    assert parity.main([str(goldens)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_an_error_that_is_no_number_fails():
    assert not compare("x", torch.tensor([float("nan")]), torch.tensor([1.0]), 1.0).passed
    assert not compare("x", torch.zeros(2), torch.zeros(3), 1.0).passed


def test_nothing_to_check_is_no_success(tmp_path, capsys):
    assert parity.main([str(tmp_path)]) == 2
    assert "0 of 0 checks passed" in capsys.readouterr().out


# Tune-A-Video and FollowYourPose: recordings in part, and checkpoints as what they change in their Stable Diffusion


@pytest.fixture
def inflated(tmp_path):
    """The recordings in the layout of the original programs, for a test to change."""
    folder = Path(shutil.copytree(GOLDENS.parent / "inflated", tmp_path / "inflated"))
    tuned, pose = folder / "tuneavideo" / "tuned" / "unet", folder / "followyourpose" / "followyourpose_checkpoint-1000"
    for system, file in (
        ("tuneavideo", tuned / "diffusion_pytorch_model.bin"),
        ("followyourpose", pose / "pytorch_model.bin"),
    ):
        base = load_file(folder / system / "sd" / "unet" / "diffusion_pytorch_model.safetensors")
        weights = base | load_file(folder / system / "delta.safetensors")
        file.parent.mkdir(exist_ok=True)
        torch.save({name: tensor.float() for name, tensor in weights.items()}, file)
    for part in ("vae", "text_encoder", "tokenizer"):  # what is recorded of FollowYourPose here does without
        shutil.copytree(folder / "tuneavideo" / "sd" / part, folder / "followyourpose" / "sd" / part)
    return folder


def test_what_is_recorded_of_the_inflated_networks_holds(inflated, capsys):
    assert parity.main([str(inflated)]) == 0
    printed = capsys.readouterr().out
    found = lines(printed)
    assert all(len(rest) == 4 and rest[-1] == "ok" for rest in found.values())
    wanted = ["inflated.output", "inflated.f1.output_zero_temp_bias", "tuned.output", "tuned.odd.output"]
    wanted += ["tuned.tap.down_blocks.2", "inversion.inv_latents", "pipeline.text_embeddings"]
    wanted += [f"pipeline.{run}final_latents" for run in ("", "nocfg.", "neg.", "pndm.")]
    wanted += ["training.losses", "training.grad_norm_step0", "training.update_l2"]
    assert {f"tuneavideo/{name}" for name in wanted} <= found.keys()
    wanted = ["unet.output_train", "unet.output_sample", "skeletons.land_270x480.aa", "skeletons.portrait_700x523.noaa"]
    assert {f"followyourpose/{name}" for name in wanted} <= found.keys()
    assert "# followyourpose: pipeline is not recorded here" in printed


def test_a_wrong_weight_update_or_skeleton_fails(inflated, capsys):
    def nudge(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[3] += 1e-4
        return tensor

    change(inflated / "tuneavideo" / "training.safetensors", losses=nudge)
    change(inflated / "followyourpose" / "skeleton_preprocess.safetensors", **{"square_512.aa": nudge})
    for name in ("inflated_forward", "tuned_forward", "ddim_inversion", "pipeline"):
        (inflated / "tuneavideo" / f"{name}.safetensors").unlink()
    (inflated / "followyourpose" / "unet_forward.safetensors").unlink()
    assert parity.main([str(inflated)]) == 1
    assert [name for name, rest in lines(capsys.readouterr().out).items() if rest[-1] == "FAIL"] == [
        "followyourpose/skeletons.square_512.aa",
        "tuneavideo/training.losses",
    ]
