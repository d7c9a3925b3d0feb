"""What a job will take is counted before it starts, and told where it is too much."""

import ctypes
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import programs
import pytest
import torch

from pipelines.cards import Range
from pipelines.catalog import CATALOG
from pipelines.models.manager import ModelManager
from pipelines.models.memory import largest, peak_bytes
from pipelines.models.networks.unet3d import TextToVideoUNet
from pipelines.settings import Settings
from pipelines.systems import modelscope
from pipelines.tasks import TextToVideo

MINIATURE = CATALOG["miniature-modelscope"]
FEW = replace(MINIATURE.limits, frames=Range(8, 24, 4), side=Range(128, 512, 64), voxels=2**40)  # each takes a count
ROOMY = replace(MINIATURE, limits=FEW)


def test_tensors_are_counted_while_they_live():
    def call():
        first = torch.empty(1000, device="meta")  # 4,000 bytes
        second = first + 1
        del first
        third = second.view(10, 100).t()  # no bytes of its own
        return third.contiguous()

    assert peak_bytes(call) == 8000
    kept = torch.empty(5000, device="meta")
    assert peak_bytes(lambda: kept.view(-1)) == 0  # what was there before doesn't count
    assert peak_bytes(lambda: kept * 2) == 20_000


def test_largest():
    assert [largest(lambda n: n * n, room, range(2, 10)) for room in (3, 4, 26, 81, 1000)] == [None, 2, 5, 9, 9]
    assert largest(lambda n: n, 12, range(1, 130, 4)) == 9


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    settings = Settings(cache=tmp_path_factory.mktemp("cache"), device="cpu", hub=False)
    return ModelManager({"miniature-modelscope": ROOMY}, settings)


def task(frames=16, side=128):
    return TextToVideo.for_model(ROOMY, "a robot", 7, frames=frames, width=side, height=side)


def taken(cache, branches, frames, side):
    """The bytes that one step of the miniature takes beside the weights, of a process that did nothing before."""
    ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: what is freed goes back, so that none is counted twice

    def resident(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    models = ModelManager({"miniature-modelscope": ROOMY}, Settings(cache=cache, device="cpu", hub=False))
    with models.lease("miniature-modelscope/unet") as unet, torch.no_grad():
        network = TextToVideoUNet(unet, torch.randn(branches, 77, unet.config.cross_attention_dim))
        network(torch.randn(1, 4, 2, 8, 8), 500)  # what torch allocates once
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = resident("VmRSS")
        network(torch.randn(1, 4, frames, side, side), 500)
        return resident("VmHWM") - before


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a while")
@pytest.mark.parametrize("branches, frames, side", [(2, 16, 32), (1, 24, 32)])
def test_the_count_is_within_a_quarter_of_what_a_cpu_really_takes(models, tmp_path, branches, frames, side):
    counted = modelscope.denoising_memory(models.empty("miniature-modelscope/unet"), branches, frames, side, side, 1)
    with ProcessPoolExecutor(1, mp_context=programs.CONTEXT) as fresh:  # here, freed memory would be used again
        really = fresh.submit(taken, tmp_path, branches, frames, side).result()
    assert counted > 80e6 and really == pytest.approx(counted, rel=0.25)


def with_room(tmp_path, room):
    settings = Settings(cache=tmp_path, device="cpu", hub=False)
    return ModelManager({"miniature-modelscope": ROOMY}, settings, budget=lambda: room)


def outcome(models, task):
    """The facts of the finished task."""
    steps = models.attempt(lambda: modelscope.generate(task, models))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value[1]


def test_what_can_not_fit_is_refused_with_what_can(tmp_path, models):
    unet = models.empty("miniature-modelscope/unet")
    weights = models.room("miniature-modelscope/unet") - with_room(tmp_path, 0).room("miniature-modelscope/unet")
    assert weights != 0
    needed = modelscope.denoising_memory(unet, 2, 12, 16, 16, 8)
    file_bytes = -with_room(tmp_path, 0).room("miniature-modelscope/unet")
    tight = with_room(tmp_path, file_bytes + needed)
    with pytest.raises(MemoryError, match=r"16 frames of 128x128 need .* 12 frames fit"):
        outcome(tight, task(frames=16))
    assert outcome(tight, replace(task(frames=12), steps=1))["network_calls"] == 1
    with pytest.raises(MemoryError, match=r"8 frames fit at 128x128"):
        outcome(with_room(tmp_path, file_bytes + modelscope.denoising_memory(unet, 2, 8, 16, 16, 8)), task(8, 256))
    with pytest.raises(MemoryError, match="smaller model"):
        outcome(with_room(tmp_path, 0), task())


def test_memory_is_saved_where_only_that_fits(tmp_path, models):
    unet = models.empty("miniature-modelscope/unet")
    whole, sliced = (modelscope.denoising_memory(unet, 2, 16, 16, 16, slices) for slices in (1, 8))
    assert sliced < whole
    file_bytes = -with_room(tmp_path, 0).room("miniature-modelscope/unet")
    quick = replace(task(), steps=1)
    assert "8 parts" in outcome(with_room(tmp_path, file_bytes + (whole + sliced) // 2), quick)["memory_saving"]
    assert outcome(with_room(tmp_path, file_bytes + whole), quick)["memory_saving"] == "none needed"
