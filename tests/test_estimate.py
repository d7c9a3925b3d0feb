"""How long a job will take: the work in it is counted, and the pace is that of the jobs before."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from running_app import waiting_backend
from torch.utils.flop_counter import FlopCounterMode

from pipelines.catalog import CATALOG
from pipelines.events import DENOISING, Failed, Progress, Result
from pipelines.models.manager import ModelManager
from pipelines.models.networks import caching
from pipelines.models.networks.inflated_unet import InflatedUNet
from pipelines.models.networks.unet3d import build_unet3d
from pipelines.serving import estimate, load_time
from pipelines.serving.estimate import CORE, DECODING, GPU, REST, has_gpu, seconds, usual_speed, work
from pipelines.serving.executor import Slot
from pipelines.serving.job import Job
from pipelines.serving.local import local_backend
from pipelines.serving.runner import LOADING, Pace
from pipelines.serving.status import Loaded
from pipelines.settings import Settings
from pipelines.systems.engine import find_engine
from pipelines.tasks import Edit, Finish, Grid, TextToVideo, Tune

MODELSCOPE, SD = CATALOG["modelscope-1.7b"], CATALOG["stable-diffusion-1.4"]


def counted(unet, network, frames, side):
    """FLOPs of one call of `network` over `unet`, on the meta device, for a pixel of a frame."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        text = torch.empty(1, 77, unet.config.cross_attention_dim)
        channels = unet.config.in_channels
        network(unet, text)(torch.empty(1, channels, frames, side // 8, side // 8), torch.empty(1))
    return counter.get_total_flops() / (frames * side * side)


BUILT_IN = ["miniature-sd", "miniature-modelscope", "miniature-tempofunk"]


@pytest.mark.parametrize("name", ["modelscope-1.7b", "stable-diffusion-1.4", *BUILT_IN])
def test_what_the_catalog_says_of_a_networks_work_is_what_is_counted(name, tmp_path):
    card = CATALOG[name]
    inflated = card.kind == "edit"
    if card.source.is_folder:
        models = ModelManager(CATALOG, Settings(cache=tmp_path, device="cpu", hub=False))
        unet = models.empty(f"{name}/{'inflated_unet' if inflated else 'unet'}")
    else:
        with torch.device("meta"):
            manifest = tiny.manifest("tuneavideo_sd14" if inflated else "modelscope_diffusers")
            unet = InflatedUNet(manifest["config"]) if inflated else build_unet3d(manifest["config"])
    network = find_engine(card.system).network
    assert counted(unet, network, card.defaults.frames, card.defaults.width) == pytest.approx(card.flops, rel=0.1)


def task(**settings):
    return TextToVideo.for_model(MODELSCOPE, "a bear", 7, **settings)


def done(task, took, **facts):
    return Job("a", "b", task, "done", end=Result(Path("a.mp4"), {"device_seconds": took, **facts}))


def test_work_grows_with_all_that_makes_a_job_longer():
    plain = work(task(), MODELSCOPE)
    assert plain == (25 * 2 + DECODING) * MODELSCOPE.flops * 16 * 256 * 256
    assert work(task(guidance=1.0), MODELSCOPE) < plain < work(task(steps=26), MODELSCOPE)
    assert work(task(frames=24), MODELSCOPE) == pytest.approx(1.5 * plain)
    tuning = Tune.for_model(SD, "a bear", 7, clip="0" * 32)
    assert work(tuning, SD) > 5 * work(Edit.for_model(SD, "a bear", 7, tuned="0" * 32), SD)


def test_the_pace_is_that_of_the_latest_jobs_without_loading():
    longer = task(frames=24)
    made = [
        done(task(), 90.0, working_seconds=20.0),
        done(task(), 60.0),
        done(task(), 10.0),
        done(task(), 0.1),
        Job("a", "b", task(), "failed", end=Failed("no")),
    ]
    made.insert(0, done(replace(task(), model="another"), 1.0))
    made.insert(0, done(task(), 1.0, resumed_at_step=100))  # only the rest of a job
    assert seconds(longer, MODELSCOPE, made, speed=1.0) == pytest.approx(30.0)
    assert seconds(longer, replace(MODELSCOPE, flops=0.0), made, speed=1.0) == pytest.approx(30.0)


def test_the_pace_of_what_needs_no_model_is_that_of_its_pixels():
    small, large = (Finish.for_video(of, "0" * 32, 2, 1) for of in (task(), task(frames=24)))
    grid = Grid.for_videos(task(), "a bear\na robot", [7], ["1" * 32, "2" * 32])
    made = [
        Job("a", "b", small, "done", end=Result(Path("a.mp4"), {"seconds": 4.0})),
        Job("a", "b", grid, "done", end=Result(Path("a.mp4"), {"seconds": 1.0})),
    ]
    assert seconds(large, None, made, speed=1.0) == pytest.approx(6.0)
    assert seconds(grid, None, made, speed=1.0) == pytest.approx(1.0)
    unknown = Finish.for_video(None, "0" * 32, 2, 1)
    assert 0 < seconds(grid, None, [], speed=1.0) < 10
    assert seconds(unknown, None, made, speed=1.0) is None and seconds(small, None, [], speed=1.0) is None


def test_without_one_it_is_the_kind_of_device():
    assert seconds(task(), MODELSCOPE, [], speed=2e12) == work(task(), MODELSCOPE) / 2e12 + REST
    assert seconds(task(), replace(MODELSCOPE, flops=0.0), [], speed=2e12) is None
    assert usual_speed(Settings(device="cuda")) == GPU and usual_speed(Settings(device="cpu")) % CORE == 0
    assert has_gpu(Settings(device="cuda:1")) and not has_gpu(Settings(device="cpu"))


def test_the_estimate_counts_as_many_whole_steps_as_the_networks_compute():
    """Layers keep the two apart: an estimate imports no torch."""
    assert estimate.WHOLE == caching.WHOLE


def test_the_backend_learns_its_pace(tmp_path):
    miniature = CATALOG["miniature-modelscope"]
    backend = local_backend(Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False))
    try:
        quick = TextToVideo.for_model(miniature, "a bear", 7, frames=8, steps=2)
        guessed = backend.machine.estimate(quick)
        assert 0 < guessed < 60
        *_, end = (event for event in backend.jobs.events(backend.jobs.submit(quick, "1" * 32), "1" * 32) if event)
        assert backend.machine.estimate(quick) == pytest.approx(end.facts["working_seconds"]) != guessed
        finish = Finish.for_video(quick, "0" * 32, 2, 1)
        assert (
            backend.machine.estimate(finish),
            backend.machine.estimate_on_gpu(finish),
            backend.machine.lent(finish),
        ) == (None, None, None)
        assert backend.machine.estimate(replace(quick, steps=4)) > 1.3 * end.facts["working_seconds"]
    finally:
        backend.close()


def test_loading_is_guessed_by_its_bytes_and_learned_where_a_slot_held_as_little():
    fresh, name = Slot("0", "CPU", fresh=True), MODELSCOPE.name
    began, other = replace(fresh, fresh=False), replace(fresh, models=(Loaded(("another",), "cpu", 9, False),))
    weights = int(6 * load_time.READ)
    assert (
        load_time.seconds(name, [], fresh, weights)
        == load_time.seconds(name, [], other, weights)
        == load_time.START + 6
    )
    assert load_time.seconds(name, [], began, weights) == 6
    assert load_time.seconds(name, [], replace(fresh, since=4.0), weights) == load_time.START + 2  # it has begun
    assert load_time.seconds(name, [], replace(fresh, since=100.0), weights) == 0
    assert load_time.seconds(name, [], replace(fresh, models=(Loaded((name,), "cpu", 9, False),)), weights) == 0
    made = [done(task(), 9.0, loading_seconds=one) for one in (2.0, 3.0, 90.0)]
    made += [done(task(), 9.0), done(task(), 9.0, starting_seconds=20.0), done(task(), 9.0, loading_seconds=99.0)]
    made.insert(0, done(replace(task(), model="another"), 9.0, starting_seconds=99.0, loading_seconds=99.0))
    assert load_time.seconds(name, made, began, weights) == 3
    assert load_time.seconds(name, made, replace(fresh, since=4.0), weights) == 16


def test_a_countdown_holds_the_loading_that_is_to_come(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("pipelines.serving.runner.time", SimpleNamespace(perf_counter=lambda: clock.now))

    def left(pace, stage, step, total, seconds):
        clock.now += seconds
        return pace.estimate(Progress(stage, step, total)).seconds_left

    pace = Pace({}, expected=20, loading=12)
    assert left(pace, LOADING, 0, 1, seconds=2) == 30  # a process began until then
    assert left(pace, LOADING, 1, 4, seconds=2) == 28  # the slowest that is known counts: 8 s, or three times two
    assert left(pace, "Reading the prompt", 0, 1, seconds=1) == 27
    assert left(pace, "Reading the prompt", 1, 1, seconds=1) == 26
    assert left(pace, LOADING, 1, 4, seconds=1) == 25
    assert left(pace, DENOISING, 0, 5, seconds=1) == 18  # all was loaded sooner than that
    pace.end()
    assert (pace.working, pace.loading) == (2, 6)
    again = Pace(pace.taken | {DENOISING: 10.0}, expected=20, loading=3)
    assert left(again, LOADING, 0, 1, seconds=1) == 2 + 2 + 10
    assert left(again, "Reading the prompt", 0, 1, seconds=1) == 1 + 2 + 10


def test_the_backend_counts_and_learns_what_a_cold_start_takes(tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    quick = TextToVideo.for_model(CATALOG["miniature-modelscope"], "a bear", 7, frames=8, steps=1)
    backend = local_backend(settings)

    def made():
        *_, end = (event for event in backend.jobs.events(backend.jobs.submit(quick, "1" * 32), "1" * 32) if event)
        return end.facts

    try:
        load = backend.machine.seconds_to_load
        assert load_time.START < load(quick) < load_time.START + 1
        assert load(Finish.for_video(quick, "0" * 32, 2, 1)) == 0 < load(replace(quick, model="miniature-tempofunk"))
        cold = made()
        assert load(quick) == 0 < cold["starting_seconds"] and "loading_seconds" not in cold
        assert 0 < load(replace(quick, model="miniature-tempofunk")) < 1
        assert not {"starting_seconds", "loading_seconds"} & made().keys()
        backend.machine.unload()
        assert 0 < load(quick) < 1
        warm = made()
        assert "starting_seconds" not in warm and 0 < warm["loading_seconds"]
        backend.machine.unload()
        assert load(quick) == pytest.approx(warm["loading_seconds"])
    finally:
        backend.close()
    backend = local_backend(settings)
    try:
        assert backend.machine.seconds_to_load(quick) == pytest.approx(cold["starting_seconds"])
    finally:
        backend.close()


def test_what_is_made_before_loads_the_model_too(tmp_path):
    quick, another = (
        TextToVideo.for_model(CATALOG[name], "a bear", 7, frames=8, steps=1)
        for name in ("miniature-modelscope", "miniature-tempofunk")
    )
    with waiting_backend(tmp_path) as backend:
        assert backend.machine.seconds_to_load(another) > load_time.START
        backend.jobs.submit(quick, "1" * 32)
        assert backend.machine.seconds_to_load(quick) == 0 < backend.machine.seconds_to_load(another) < 1
