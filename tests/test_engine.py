"""The engine contract: the catalog's engines keep it, without torch until one is asked for, and move no module."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from pipelines.catalog import CATALOG, ENGINES
from pipelines.media import video
from pipelines.models.classes import Network
from pipelines.models.manager import ModelManager
from pipelines.serving.runner import generated
from pipelines.settings import Settings
from pipelines.systems import engine, modelscope, stable_diffusion
from pipelines.systems.diffusion import denoise, draw_noise, estimate_from_noise, guided
from pipelines.systems.engine import find_engine
from pipelines.tasks import KINDS, Edit, PoseToVideo, TextToVideo, Tune

SIDE, FRAMES = 64, 4
SIZE = {"width": SIDE, "height": SIDE, "frames": FRAMES}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models of every system."""
    folder = tmp_path_factory.mktemp("models")
    cards = tiny.write_all(folder)
    return ModelManager(cards, Settings(data=folder / "data", cache=folder / "cache", hub=False), device="cpu")


def test_asking_which_engines_there_are_imports_no_torch():
    code = "import sys; from pipelines.systems.engine import ENGINES; print(len(ENGINES), 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == [str(len(ENGINES)), "False"], run.stderr


@pytest.mark.parametrize("card", CATALOG.values(), ids=CATALOG)
def test_every_model_has_an_engine_that_takes_its_tasks_and_its_samplers(card):
    found = find_engine(card.system)
    assert KINDS[card.kind] in found.generate and (card.tuning is None or Tune in found.generate)
    models = ModelManager(CATALOG, Settings(hub=False), device="cpu")
    if card.source.is_folder:
        with models.lease(f"{card.name}/scheduler") as schedule:
            for name in card.schedulers:
                assert len(found.solver(name, schedule, 4).timesteps) >= 4


def test_a_video_is_what_the_functions_of_the_contract_make_of_its_task(models):
    """Field by field: both prompts, seed, sampler, steps and guidance."""
    task = TextToVideo.for_model(
        models.card("text"), "a robot", 7, negative_prompt="blurry", scheduler="ddim", steps=4, guidance=3.0, **SIZE
    )
    found = find_engine(models.card("text").system)
    parts = {part: models.lease(f"text/{part}").__enter__() for part in found.parts}
    with torch.no_grad():
        texts = found.encode(["blurry", "a robot"], parts["tokenizer"], parts["text_encoder"])
        predict = guided(found.network(parts["unet"], texts), 3.0)
        factor = stable_diffusion.vae_scale_factor(parts["vae"])
        noise = draw_noise((1, 4, FRAMES, SIDE // factor, SIDE // factor), 7)
        solver, foresee = found.solver("ddim", parts["scheduler"], 4), estimate_from_noise(parts["scheduler"])
        *_, last = denoise(predict, noise, solver, foresee)
        expected = np.stack(list(found.decode(parts["vae"], last.latents)))
    _, (frames, facts, _) = tiny.finish(generated(task, models))
    assert np.array_equal(frames, expected) and facts["network_calls"] == 4


def tasks_of(models, folder):
    """A task of every kind, with its files."""
    frames = np.full((6, SIDE, SIDE, 3), 40, np.uint8)
    for number, frame in enumerate(frames):
        frame[20:40, 6 * number : 6 * number + 16] = (230, 120, 60)
    clip, tuned = folder / "clip.mp4", folder / "tuned"
    video.write(frames, clip, 8)
    size = {**SIZE, "steps": 2}
    yield TextToVideo.for_model(models.card("text"), "a robot", 7, **size), {}
    yield TextToVideo.for_model(models.card("pseudo3d"), "a robot", 7, **size), {}
    yield PoseToVideo.for_model(models.card("pose"), "a robot", 7, motion="wave", **{**size, "frames": 8}), {}
    inputs = {"clip": clip, "folder": tuned, "source": folder / "source.mp4"}
    yield Tune.for_model(models.card("sd"), "a square", 7, clip="0" * 32, **size), inputs
    yield Edit.for_model(models.card("sd"), "a circle", 7, tuned="0" * 32, **size), {"tuned": tuned}


def test_no_system_moves_a_module(models, tmp_path, monkeypatch):
    """Only the manager does: what is leased on one device must not be found on another (Accelerator's prepare moves
    to the first)."""
    movers = set()

    def watched(name):
        plain = getattr(nn.Module, name)

        def move(module, *args, **kwargs):
            frame, callers = sys._getframe(1), []
            while frame is not None:
                callers.append(Path(frame.f_code.co_filename).name)
                frame = frame.f_back
            if "manager.py" not in callers:
                movers.add((type(module).__name__, name, callers[0]))
            return plain(module, *args, **kwargs)

        return move

    for name in ("to", "cuda", "cpu", "to_empty"):
        monkeypatch.setattr(nn.Module, name, watched(name))
    for task, inputs in tasks_of(models, tmp_path):
        tiny.finish(generated(task, models, **inputs))
    assert movers == set()
    nn.Linear(1, 1).to("cpu")
    assert movers == {("Linear", "to", "test_engine.py")}  # it would have been seen


def test_two_engines_with_different_ideas_of_a_class_are_refused(monkeypatch):
    other = replace(modelscope.ENGINE, classes={"AutoencoderKL": Network(dict)})
    monkeypatch.setitem(ENGINES, "other", "engine_other")
    monkeypatch.setitem(sys.modules, "engine_other", type("module", (), {"ENGINE": other}))
    with pytest.raises(ValueError, match="'other' builds AutoencoderKL in another way"):
        engine.find_engine("other")
