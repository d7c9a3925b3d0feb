"""Jobs on ZeroGPU: in a fork, in the visitor's name, for a time that is asked for; the stand-in is lent_gpu.py."""

import json
import os
from contextvars import copy_context
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import programs
import pytest
import tiny
import torch
from gradio.context import LocalContext
from lent_gpu import Spaces
from running_app import environment

from pipelines.catalog import CATALOG
from pipelines.detectors import DETECTORS
from pipelines.events import TUNING, Failed, Losses, Preview, Progress, Result
from pipelines.media import video
from pipelines.models.convert import tuned
from pipelines.models.manager import ModelManager
from pipelines.serving import zerogpu
from pipelines.serving.local import local_backend
from pipelines.serving.runner import generated
from pipelines.settings import Settings
from pipelines.systems import modelscope
from pipelines.tasks import Edit, PoseToVideo, TextToVideo, Tune
from ui import estimates

ME, OTHER = "1" * 32, "2" * 32
SIDE, FRAMES = 64, 8


@pytest.fixture(autouse=True)
def one_thread():
    """As the fork has it, so that both compute the very same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Tiny models of every system."""
    folder = tmp_path_factory.mktemp("models")
    cards = tiny.write_all(folder)
    return {name: replace(card, defaults=replace(card.defaults, steps=3)) for name, card in cards.items()}


@pytest.fixture
def settings(tmp_path):
    return Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False, zerogpu="")


@pytest.fixture
def spaces():
    return Spaces()


@pytest.fixture
def backend(settings, catalog, spaces):
    backend = zerogpu.zero_backend(settings, catalog, spaces)
    yield backend
    backend.close()


def text(catalog, prompt="a robot dances", **settings):
    settings = {"frames": FRAMES, "width": SIDE, "height": SIDE, **settings}
    return TextToVideo.for_model(catalog["text"], prompt, 1, **settings)


def tune(backend, catalog, tmp_path, **settings):
    frames = np.random.default_rng(1).integers(0, 255, (6, SIDE, SIDE, 3)).astype(np.uint8)
    video.write(frames, tmp_path / "clip.mp4", 6)
    clip = backend.assets.keep_clip(tmp_path / "clip.mp4", ME).name
    settings = {"frames": 3, "width": SIDE, "height": SIDE, "steps": 4, "learning_rate": 1e-3, **settings}
    return Tune.for_model(catalog["sd"], "somebody dances", 1, clip=clip, **settings)


def submit(backend, task, visitor=None):
    """As a handler of the page does, for the visitor with that token."""

    def handler():
        if visitor is not None:
            LocalContext.request.set(SimpleNamespace(headers={"x-ip-token": visitor}))
        return backend.jobs.submit(task, ME)

    return copy_context().run(handler)


def follow(backend, job):
    return [event for event in backend.jobs.events(job, ME) if event is not None]


def test_a_video_is_made_in_a_fork_and_comes_out_whole(backend, catalog, spaces):
    events = follow(backend, submit(backend, text(catalog)))
    assert isinstance(events[-1], Result), events[-1]
    stages = {event.stage for event in events if isinstance(event, Progress)}
    assert {"Reading the prompt", "Denoising", "Decoding"} & stages and any(isinstance(one, Preview) for one in events)
    assert video.read(events[-1].video).shape == (FRAMES, SIDE, SIDE, 3)
    ((_, seconds, process),) = spaces.calls
    assert json.loads(events[-1].video.with_suffix(".json").read_text("utf-8"))["device_seconds"] > 0
    assert process != os.getpid() and seconds == 1.5 * zerogpu.PIECE


def test_it_is_the_same_video_as_on_a_device_of_ones_own(backend, settings, catalog, tmp_path):
    own = local_backend(replace(settings, data=tmp_path / "own"), catalog)
    try:
        videos = [follow(one, submit(one, text(catalog)))[-1].video for one in (backend, own)]
    finally:
        own.close()
    assert np.array_equal(*map(video.read, videos))


@pytest.mark.parametrize("kind", ["text", "pseudo3d", "pose"])
def test_all_that_a_job_needs_is_on_the_device_before_the_page_opens(settings, catalog, kind):
    """What a fork loads is lost with it: a video of each system loads nothing more."""
    models = ModelManager(catalog, settings)
    zerogpu._load(models, catalog[kind])
    for detector in DETECTORS.values():
        zerogpu._try(models, [f"{detector.name}/{part}" for part in detector.parts])
    loaded = {resident.key for resident in models.stats()}
    card = catalog[kind]
    size = {"width": SIDE, "height": SIDE, "steps": 1, "frames": FRAMES}
    if kind == "pose":
        task = PoseToVideo.for_model(card, "a bear", 1, motion="wave", **size)
    else:
        task = TextToVideo.for_model(card, "a bear", 1, **size)
    for _ in generated(task, models):
        pass
    assert len(loaded) >= 5 and {resident.key for resident in models.stats()} == loaded


def test_no_model_leaves_the_device_in_the_process_that_lends_it(settings, catalog):
    """There is no device there: its memory can't be measured, and what is moved would be lost to the forks."""
    models = ModelManager(catalog, settings, budget=lambda: 0)  # as if nothing fitted
    for name in ("text", "sd"):
        assert zerogpu._load(models, catalog[name])
    assert len(models.stats()) >= 7


def test_the_visitor_who_asks_pays(backend, catalog, spaces):
    jobs = [submit(backend, text(catalog, steps=1), visitor) for visitor in ("mine", None, "yours")]
    assert all(isinstance(follow(backend, job)[-1], Result) for job in jobs)
    assert [visitor for visitor, *_ in spaces.calls] == ["mine", None, "yours"]
    assert not backend.executor.visitors  # nobody's request is kept longer than the job


def test_too_small_a_quota_is_told_in_words(backend, catalog, spaces):
    spaces.left = 5
    end = follow(backend, submit(backend, text(catalog), "mine"))[-1]
    assert isinstance(end, Failed) and "No GPU can be borrowed" in end.message
    assert "exceeded your free ZeroGPU quota" in end.message and "5s left" in end.message and "<b>" not in end.message
    end = follow(backend, submit(backend, text(catalog)))[-1]
    assert "The app was restarted after you asked for this" in end.message
    assert zerogpu._reason(RuntimeError("Connection closed by visitor while queueing")).startswith(
        "The page was closed"
    )
    assert zerogpu._reason(RuntimeError("another")) is None


def test_the_time_asked_for_is_estimated_from_the_task(backend, catalog):
    quick, slow = text(catalog), replace(text(catalog), steps=100, frames=16)
    assert backend.machine.lent(quick) == zerogpu.PIECE  # nothing is known of this model yet
    assert f"Asks for {zerogpu.PIECE} s of a GPU." in estimates.line(backend, [quick])
    assert f"2 videos: asks for {zerogpu.PIECE} s of a GPU, once for each" in estimates.line(backend, [quick] * 2)
    follow(backend, submit(backend, quick))
    assert backend.machine.lent(quick) == zerogpu.LEAST
    assert backend.machine.estimate(slow) > 20 * backend.machine.estimate(quick)
    known = TextToVideo.for_model(CATALOG["modelscope-1.7b"], "a bear", 1)
    with pytest.raises(ValueError, match="can use only what it loaded.*modelscope-1.7b|no model called"):
        backend.jobs.submit(known, ME)


def generate(task, models, checkpoints=None):
    """Fails as the prompt says."""
    yield Progress("Denoising", 0, 1)
    raise (ValueError if task.prompt == "words" else RuntimeError)("it is too dark")


def test_what_goes_wrong_in_the_fork_is_told_as_elsewhere(settings, catalog, spaces, monkeypatch, caplog):
    tiny.add_engine(monkeypatch, "failing", replace(modelscope.ENGINE, generate={TextToVideo: generate}))
    failing = {"text": replace(catalog["text"], system="failing")}
    backend = zerogpu.zero_backend(settings, failing, spaces)
    try:
        words, other = (follow(backend, submit(backend, text(catalog, prompt)))[-1] for prompt in ("words", "other"))
    finally:
        backend.close()
    assert words.message.startswith("it is too dark (Log number")
    assert "Something went wrong inside the app" in other.message and "dark" not in other.message
    assert "RuntimeError: it is too dark" in caplog.text and "in generate" in caplog.text


def test_stop_ends_a_job_and_frees_the_gpu(backend, catalog, spaces):
    job = submit(backend, text(catalog, steps=100))
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == "Denoising":
            backend.jobs.cancel(job, ME)
    assert backend.jobs.get(job, ME).end == Failed("Stopped.", stopped=True)
    with pytest.raises(ProcessLookupError):
        os.kill(spaces.calls[-1][2], 0)


def test_a_tuning_in_pieces_is_the_tuning_in_one_go(backend, settings, catalog, spaces, tmp_path, monkeypatch):
    monkeypatch.setattr(zerogpu, "WORKED", 0)  # every piece ends after its first step
    own = local_backend(replace(settings, data=tmp_path / "own"), catalog)
    try:
        for one in (own, backend):  # in this order the forks know already how much memory a tuning takes
            end = follow(one, submit(one, tune(one, catalog, tmp_path), "mine"))[-1]
            assert isinstance(end, Result), end
        (pieces,), (whole,) = backend.tunings.of(ME), own.tunings.of(ME)
    finally:
        own.close()
    assert [visitor for visitor, *_ in spaces.calls] == ["mine"] * 5  # four steps, and the inversion
    assert all(seconds <= 120 for _, seconds, _ in spaces.calls)  # the day of somebody who is not signed in
    assert pieces.facts["losses"] == pytest.approx(whole.facts["losses"], rel=1e-5) and len(whole.facts["losses"]) == 4
    mine, theirs = (tuned.load(one.video.parent / "tuned") for one in (pieces, whole))
    assert not mine.moments  # it is tuned to the end
    for name, tensor in theirs.delta.items():
        assert (mine.delta[name] - tensor).abs().max() < 1e-4, name  # a step changes ten times as much

    size = {"frames": 3, "width": SIDE, "height": SIDE, "fps": 6, "steps": 3}
    edit = Edit.for_model(catalog["sd"], "a robot dances", 1, tuned=pieces.job.id, **size)
    assert isinstance(follow(backend, submit(backend, edit))[-1], Result)


def test_a_tuning_is_stopped_kept_resumed_and_sampled(backend, catalog, tmp_path):
    job = submit(backend, tune(backend, catalog, tmp_path, steps=2000))
    previews = []
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Losses) and not previews:
            backend.tunings.sample(job, ME)
        if isinstance(event, Preview):
            previews.append(event)
            backend.jobs.cancel(job, ME)
    done = len(backend.tunings.of(ME)[0].facts["losses"])
    assert previews and 1 <= done < 2000
    backend.tunings.resume(job, ME)
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == TUNING:
            assert event.step > done
            backend.jobs.cancel(job, ME)
    with pytest.raises(ValueError, match="no such job"):
        backend.tunings.resume(job, OTHER)


# The package itself


def test_elsewhere_the_package_leaves_functions_as_they_are():
    import spaces

    function = zerogpu._lendable(None)
    assert spaces.GPU(duration=zerogpu._duration)(function) is function
    assert not zerogpu.here({}) and not zerogpu.here({"SPACES_ZERO_GPU": "false"})
    assert zerogpu.here({"SPACES_ZERO_GPU": "true"})


def test_a_setting_that_names_no_model_is_told(settings, catalog, spaces):
    with pytest.raises(ValueError, match="no model called 'gpt'"):
        zerogpu.ZeroExecutor(replace(settings, zerogpu="text, gpt"), catalog, spaces)


REAL = """
import gc, os, torch
if torch.version.cuda is None:  # what a torch with CUDA has and spaces looks for; none of it is used
    torch.version.cuda = "12.8"
    torch._C._cuda_init = lambda: None
    exec("def _is_in_bad_fork(): return False", torch.cuda.__dict__)
import app
from pipelines.models.manager import ModelManager
import spaces.zero
gc.unfreeze()
(models,) = [one for one in gc.get_objects() if type(one) is ModelManager]
print([str(one.device) for one in models.stats() if one.bytes], sum(one.bytes for one in models.stats()))
lend = app.backend.executor.lend
print(spaces.zero.torch.pack(), len(spaces.zero.decorator.decorated_cache) > 0, hasattr(lend, "zerogpu"))
app.backend.close()
"""


def test_the_package_itself_takes_the_models_that_were_put_on_the_device_at_import(tmp_path):
    """As on ZeroGPU up to the first call: nothing answers at that address."""
    variables = environment(
        SPACES_ZERO_GPU="true",
        SPACES_ZERO_DEVICE_API_URL="http://127.0.0.1:9",
        ZEROGPU_OFFLOAD_DIR=str(tmp_path / "tensors"),
        MARIONETTE_DATA=str(tmp_path / "data"),
        MARIONETTE_HUB="0",
        MARIONETTE_ZEROGPU="",
    )
    ran = programs.run(["-c", REAL], variables, timeout=300)
    assert ran.returncode == 0, ran.stderr
    loaded, packed = ran.stdout.strip().splitlines()
    devices, bytes_ = loaded.rsplit(" ", 1)
    assert len(json.loads(devices.replace("'", '"'))) >= 5 and set(json.loads(devices.replace("'", '"'))) == {"cuda:0"}
    assert packed == f"{bytes_} True True"
