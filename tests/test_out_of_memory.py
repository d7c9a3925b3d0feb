"""Memory runs out at each stage of a job, once or twice: real classes, and modules that raise what a GPU raises."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from pipelines.cards import Range
from pipelines.events import Result
from pipelines.media import video
from pipelines.models import loading
from pipelines.models.folders import card_of_folder
from pipelines.models.manager import ModelManager
from pipelines.serving.runner import make
from pipelines.settings import Settings
from pipelines.systems import metrics
from pipelines.tasks import TextToVideo

STAGES = {  # where memory runs out -> the part of the model, the module in it, and the call of that module
    "reading the prompt": ("text_encoder", "", 1),
    "fitting the preview": ("vae", "decoder", 1),
    "loading the network": ("unet", None, 0),
    "a denoising step": ("unet", "conv_out", 2),
    "decoding a frame": ("vae", "decoder", 3),
}


class Trouble:
    """Loads components as the app does; in the first `times` attempts memory runs out at `stage`."""

    def __init__(self, stage: str, times: int):
        self.part, self.module, self.call = STAGES[stage]
        self.times = times

    def __call__(self, card, part, settings, on_progress=None):
        component = loading.component(card, part, settings, on_progress)
        return replace(component, load=lambda told: self.load(component, told)) if part == self.part else component

    def load(self, component, told):
        module = component.load(told)
        if self.module is None:
            self.run_out()
        else:
            calls = []
            module.get_submodule(self.module).register_forward_pre_hook(lambda *_: self.count(calls))
        return module

    def count(self, calls):
        calls.append(1)
        if len(calls) == self.call:
            self.run_out()

    def run_out(self):
        if self.times:
            self.times -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    card = card_of_folder(tiny.write_model(tmp_path_factory.mktemp("published") / "model"))
    return replace(card, limits=replace(card.limits, side=Range(16, 256, 8)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def job(card, models, path):
    task = TextToVideo.for_model(card, "a bear", 7, frames=2, width=32, height=24, steps=3, guidance=2.0)
    *_, end = make(task, models, path)
    assert isinstance(end, Result)
    return video.read(path).astype(int), end.facts


def manager(card, cache, **rest):
    return ModelManager({card.name: card}, Settings(cache=cache), "cpu", **rest)


@pytest.fixture(scope="module")
def untroubled(card, cache, tmp_path_factory):
    frames, facts = job(card, manager(card, cache), tmp_path_factory.mktemp("video") / "a.mp4")
    assert (facts["memory_saving"], facts["approximations"]) == ("none needed", "none")
    return frames


@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_once_costs_time_and_nothing_else(card, cache, tmp_path, untroubled, stage):
    trouble = Trouble(stage, times=1)
    models = manager(card, cache, component=trouble)
    frames, facts = job(card, models, tmp_path / "a.mp4")
    assert trouble.times == 0
    assert facts["memory_saving"] == "memory ran out once; then attention in 8 parts: the same result, more slowly"
    assert facts["approximations"] == "none" and np.abs(frames - untroubled).max() <= 2
    assert not models.frugal and not any(one.leases for one in models.stats())


@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_twice_is_told_and_harms_no_later_job(card, cache, tmp_path, untroubled, stage):
    trouble = Trouble(stage, times=2)
    models = manager(card, cache, component=trouble)
    with pytest.raises(
        MemoryError, match=r"needs more than \d.* GB at once and \d.* GB can be had\. Choose fewer"
    ) as told:
        job(card, models, tmp_path / "a.mp4")
    assert trouble.times == 0 and list(tmp_path.iterdir()) == []
    assert told.value.__context__ is None  # no traceback that would hold tensors of the attempts
    assert not models.frugal and not any(one.leases for one in models.stats())
    frames, facts = job(card, models, tmp_path / "a.mp4")
    assert facts["memory_saving"] == "none needed" and np.array_equal(frames, untroubled)


def test_a_video_is_kept_where_only_its_figures_fail(card, cache, tmp_path, monkeypatch, caplog):
    """CLIP is asked for its figures here, and can't be had."""
    monkeypatch.setattr(metrics, "clip_available", lambda settings: True)
    frames, facts = job(card, manager(card, cache), tmp_path / "a.mp4")
    assert len(frames) == 2 and "flicker" in facts and "clip_score" not in facts
    assert "The figures of CLIP" in caplog.text and "a bear" not in caplog.text
