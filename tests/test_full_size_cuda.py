"""The check for a new GPU (scripts/full_size/cuda.py), small and on a CPU."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from pipelines.catalog import CATALOG
from pipelines.models.networks.inflated_unet import EditingUNet
from pipelines.systems import tuneavideo, tuning
from pipelines.tasks import NOBODY, Tune
from scripts.full_size import one_system
from scripts.full_size.networks import SD_UNET
from scripts.full_size.random_models import SMALL
from scripts.full_size.values import values

WITHOUT = ("imageio_ffmpeg", "gradio", "controlnet_aux", "mediapipe", "ray", "peft", "msgpack")


def check(tmp_path, *arguments):
    """The exit code and the report; none of WITHOUT can be imported meanwhile."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({WITHOUT}))\n")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "scripts.full_size.cuda", "--report", report, "--size", "small", *arguments]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--device", "cpu"], env=environment, capture_output=True, text=True)
    return done.returncode, json.loads(report.read_text())["systems"], done.stdout


def test_a_clip_is_tuned_on_and_edited_and_the_network_makes_way_and_comes_back(tmp_path):
    code, systems, told = check(tmp_path, "tuneavideo")
    found = systems["tuneavideo"]
    assert code == 0, found["failed"]
    assert found["first video"]["frames"] == [8, 64, 64, 3] and found["first video"]["deviation"] > 1
    assert found["same seed"]["latents_equal"] and found["same seed"]["finite"] == 1
    eviction = found["eviction"]
    assert eviction["then_resident"] == ["model/inflated_unet"] and eviction["now_resident"] == ["model/vae"]
    assert eviction["came_back_whole"]
    assert found["video: inflated_unet"]["planned_gb"] > found["video: inflated_unet"]["weights_gb"] > 0
    assert "same seed" in told and "eviction" in told


def test_what_takes_too_long_is_in_the_report_and_the_next_goes_on(tmp_path):
    code, systems, told = check(tmp_path, "modelscope", "followyourpose", "--limit", "0.2", "--together", "1")
    assert code == 1 and set(systems) == {"modelscope", "followyourpose"}
    for found in systems.values():
        assert "Timeout (0:00:00.2" in found["failed"] and found["failed"] in told
        assert found["writing"]["gigabytes"] > 0


def test_a_pool_of_numbers_is_scaled_as_random_ones_are():
    shapes = {"a.weight": [300, 200], "norm.weight": [100], "norm.bias": [100], "none": [0]}
    one, two = dict(values(shapes, torch.float16, pool=1001)), dict(values(shapes, torch.float32))
    for name, shape in shapes.items():
        assert one[name].dtype == torch.float16 and list(one[name].shape) == shape
    assert one["a.weight"].std().item() == pytest.approx(two["a.weight"].std().item(), rel=0.1)
    assert one["norm.weight"].mean().item() == pytest.approx(1, abs=0.05)
    assert one["a.weight"].unique(dim=0).shape[0] == 300
    assert all(tensor.equal(dict(values(shapes, torch.float16, pool=1001))[name]) for name, tensor in one.items())


def test_a_smooth_clip_moves():
    size = {"frames": 5, "width": 512, "height": 256}
    task = Tune.for_model(CATALOG["stable-diffusion-1.4"], "waves", 1, clip=NOBODY, **size)
    frames, fps = one_system.smooth(task)
    assert frames.shape == (5, 256, 512, 3) and frames.dtype == np.uint8 and fps == 8
    assert np.abs(frames.astype(float) - frames[0]).mean((1, 2, 3)).max() > tuning.STILL


def test_tuning_in_half_precision_has_gradients_in_fp32():
    """As accelerate trains on a GPU: the network in float16 under autocast, what is trained in fp32."""
    torch.manual_seed(0)
    config = SD_UNET | SMALL["unet"]
    unet = tuneavideo.InflatedUNet(config).requires_grad_(False)
    latents, noise = torch.randn(2, 1, 4, 3, 32, 32)
    text, steps = torch.randn(1, 77, 32), torch.tensor([500])
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    gradients = []
    for half in (False, True):
        unet = unet.half() if half else unet
        delta = {name: one.float().clone() for name, one in tuning.trained_parameters(unet, "all").items()}
        autocast = torch.autocast("cpu", torch.float16) if half else nullcontext()
        with tuneavideo.applied(unet, delta, trainable=True), autocast:
            assert unet.dtype == (torch.float16 if half else torch.float32)
            for checkpointing in (False, True):
                network = EditingUNet(unet, text.to(unet.dtype), checkpointing=checkpointing)
                loss = tuning.loss_of(network, latents, noise, steps, schedule)
                (1024 * loss).backward()
            trained = [unet.get_parameter(name) for name in delta]
            assert all(one.grad.dtype == torch.float32 for one in trained)
            gradients.append(torch.cat([one.grad.flatten() for one in trained]))
    exact, half = gradients
    assert (half - exact).norm() < 0.02 * exact.norm()
