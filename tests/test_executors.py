"""The contract that every executor keeps, tried on each: this process's own, workers' processes, ZeroGPU on
lent_gpu.py, and a Ray cluster of this machine."""

import gc
import hashlib
import pickle
import sys
import threading
import time
import weakref
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scripted_ray
import tiny
import torch
from lent_gpu import Spaces

from pipelines.catalog import find
from pipelines.events import DENOISING, Losses, Preview, Progress
from pipelines.media import video
from pipelines.pose_tasks import FindPoses
from pipelines.poses.pose_preview import PosePreview
from pipelines.serving import estimate, local
from pipelines.serving.executor import CHECKPOINTS, Asset, Made, Work
from pipelines.serving.job import new_id
from pipelines.serving.local import LocalExecutor
from pipelines.serving.processes import ProcessExecutor
from pipelines.serving.runner import LOADING
from pipelines.serving.zerogpu import ZeroExecutor
from pipelines.settings import Settings
from pipelines.systems import diffusion, modelscope
from pipelines.systems.checkpoints import Checkpoints
from pipelines.tasks import Finish, Grid, PoseToVideo, TextToVideo, Tune
from scripts.miniature.world import Words, draw_clip

SCRIPTED = replace(find("miniature-modelscope"), name="scripted", system="scripted")
TUNED = replace(find("miniature-sd"), name="tuned", system="scripted")
CATALOG = {card.name: card for card in (SCRIPTED, TUNED)}
ALIVE = []  # weak references to what was on the way in each run in this process
FRAMES = np.linspace(50, 150, 8 * 16 * 16 * 3).reshape(8, 16, 16, 3).astype(np.uint8)


def generate(task, models, image=None, checkpoints=None):
    """Does what the prompt says: the name of a file to note each step in, or how to fail."""
    tensor = np.zeros(8)
    ALIVE.append(weakref.ref(tensor))
    if task.prompt == "words":
        raise ValueError("it is too dark")
    if task.prompt == "crash":
        raise KeyError("of no use to a person")
    if task.prompt.startswith("/"):
        yield from noted(Path(task.prompt))
    if task.prompt in ("denoise", "slowly"):
        return FRAMES, (yield from denoised(checkpoints, 0.05 if task.prompt == "denoise" else 0.4))
    for step in range(2):
        yield Progress("Denoising", step, 2)
        yield Preview(b"picture")
    return FRAMES, {"image": None if image is None else image.read_text()}


def denoised(checkpoints, seconds):
    """A true loop around a stand-in for a network, which takes `seconds` a step; a slow one keeps every step.

    Returns a hash of the latents as a fact.
    """
    checkpoints = Checkpoints(checkpoints._folder, 0.0) if seconds > 0.1 else checkpoints
    checkpoint = checkpoints.of("loop", "here")
    solver = diffusion.solver("dpm++", {**tiny.SCHEDULER, "num_train_timesteps": 1000}, 8)
    foresee = diffusion.estimate_from_noise({**tiny.SCHEDULER, "num_train_timesteps": 1000})

    def predict(latents, timestep):
        time.sleep(seconds)
        return torch.tanh(latents * (0.5 + timestep / 1000))

    noise = diffusion.draw_noise((1, 4, 2, 8, 8), 7)
    with closing(diffusion.denoise(predict, noise, solver, foresee, checkpoint)) as steps:
        for step in steps:
            latents = step.latents
            yield Progress(DENOISING, step.number, step.total)
    return {"latents": hashlib.sha256(latents.numpy().tobytes()).hexdigest(), "from": checkpoint.restored}


def noted(file):
    """Steps without end, each noted in `file`, and the end too, which takes a moment."""
    try:
        while True:
            yield Progress("Denoising", 1, 2)
            with file.open("a") as notes:
                notes.write("step\n")
            time.sleep(0.01)
    finally:
        time.sleep(0.1)
        with file.open("a") as notes:
            notes.write("ended\n")


def tune(task, models, clip, folder, source, asked):
    """Goes on until a sample was wished for."""
    folder.mkdir(parents=True, exist_ok=True)
    losses = [1.0]
    while not asked():
        yield Losses(tuple(losses))
        losses.append(1.0)
        time.sleep(0.01)
    yield Preview(b"sample")
    (folder / "tuned.json").write_text("{}")
    return FRAMES, {}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def made_by(kind, data, **more):
    settings = Settings(data=data, device="cpu", hub=False, zerogpu="", **more)
    if kind == "local":
        return LocalExecutor(settings, CATALOG)
    if kind == "processes":
        return ProcessExecutor(settings, CATALOG, (sys.executable, str(Path(__file__).parent / "scripted_worker.py")))
    if kind == "ray":
        return scripted_ray.executor(settings, CATALOG)
    return ZeroExecutor(settings, CATALOG, Spaces())


@pytest.fixture(scope="module", params=["local", "processes", "zerogpu", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request, data):
    with pytest.MonkeyPatch.context() as patch:
        engine = replace(modelscope.ENGINE, generate={TextToVideo: generate, Tune: tune}, parts=())
        tiny.add_engine(patch, "scripted", engine)
        executor = made_by(request.param, data)
        yield executor
        executor.close()


def work(prompt="a bear", **assets):
    task = TextToVideo.for_model(SCRIPTED, prompt, 7, frames=8, steps=2)
    return Work(task, assets, new_id(), "a-bear-7.mp4")


def run(executor, work):
    (slot,) = executor.slots()
    return executor.run(work, slot.name)


def told(executor, work):
    return [event for event in run(executor, work) if event is not None]


def test_events_come_in_their_order_and_what_was_made_comes_last(executor, data):
    asked = work()
    *events, made = told(executor, asked)
    assert events[0] == Progress(LOADING, 0, 1)
    rest = [one for one in events if isinstance(one, Preview) or one.stage == "Denoising"]
    assert rest == [Progress("Denoising", 0, 2), Preview(b"picture"), Progress("Denoising", 1, 2), Preview(b"picture")]
    assert isinstance(made, Made) and made.files == {"video": asked.file}
    assert video.read(asked.folder(data) / made.files["video"]).shape == FRAMES.shape
    assert made.facts["task"]["prompt"] == "a bear" and made.facts["device_seconds"] >= 0


def test_work_and_what_was_made_are_plain_data(executor, data):
    asset = Asset("images", "1" * 32, "image.png")
    asset.path(data).parent.mkdir(parents=True, exist_ok=True)
    asset.path(data).write_text("pixels")
    asked = work(image=asset)
    assert pickle.loads(pickle.dumps(asked)) == asked and str(data) not in repr(asked)
    made = told(executor, pickle.loads(pickle.dumps(asked)))[-1]
    assert pickle.loads(pickle.dumps(made)) == made and str(data) not in repr(made)
    assert made.facts["image"] == "pixels"  # it was found by its name


def test_closing_a_run_stops_it_within_a_step_and_frees_the_slot(executor, tmp_path, data):
    steps = tmp_path / "steps"
    asked = work(str(steps))
    events = run(executor, asked)
    while not (steps.exists() and steps.read_text().count("step") > 3):
        next(events)
    events.close()
    done = steps.read_text()
    assert done.endswith("ended\n")  # it has been waited for: the device is free
    time.sleep(0.2)
    assert steps.read_text() == done and not (asked.folder(data) / asked.file).exists()
    with suppress(StopIteration):
        assert next(events) is None  # nothing more is told
    assert isinstance(told(executor, work())[-1], Made)


def test_a_run_that_nobody_began_to_follow_is_stopped_too(executor, tmp_path):
    steps = tmp_path / "steps"
    run(executor, work(str(steps))).close()
    done = steps.read_text() if steps.exists() else ""
    time.sleep(0.2)
    assert (steps.read_text() if steps.exists() else "") == done
    assert isinstance(told(executor, work())[-1], Made)


def test_what_was_stopped_goes_on_from_there_and_ends_with_the_same_latents(executor, data):
    whole = told(executor, work("denoise"))[-1].facts
    asked = work("denoise")
    kept = asked.folder(data) / CHECKPOINTS
    with closing(run(executor, asked)) as events:
        while (event := next(events)) is None or event.stage != DENOISING or event.step < 3:
            pass
    assert list(kept.iterdir())
    again = told(executor, asked)[-1].facts
    assert again["from"] >= 3 and whole["from"] == 0 and again["latents"] == whole["latents"]
    assert not kept.exists()


def test_what_goes_wrong_is_raised_and_the_next_work_runs(executor):
    with pytest.raises(ValueError, match="it is too dark"):
        told(executor, work("words"))
    with pytest.raises(Exception) as crash:
        told(executor, work("crash"))
    assert not isinstance(crash.value, ValueError) and "KeyError" in f"{type(crash.value)} {crash.value}"
    assert isinstance(told(executor, work())[-1], Made)


def test_a_task_without_a_model_is_carried_out_from_asset_to_file(executor, data):
    source = work()
    source.folder(data).mkdir(parents=True, exist_ok=True)
    video.write(FRAMES, source.folder(data) / "made.mp4", 8)
    task = Finish.for_video(source.task, source.job, 2, 1)
    asked = Work(task, {"source": Asset("videos", source.job, "made.mp4")}, new_id(), "finished.mp4")
    made = told(executor, asked)[-1]
    assert video.read(asked.folder(data) / made.files["video"]).shape == (8, 32, 32, 3)
    grid = Grid.for_videos(source.task, "a bear", [7, 8], [source.job, new_id()])
    with pytest.raises(ValueError, match="None of the videos of this grid was made"):
        told(executor, Work(grid, {"videos": ("deleted", "stopped")}, new_id(), "grid.mp4"))


def test_a_tuning_draws_a_sample_when_it_is_wished_for_and_not_before(executor, data):
    task = Tune.for_model(TUNED, "a clip", 7, clip="c" * 32, frames=8, steps=100)
    asked = Work(task, {"clip": Asset("clips", "c" * 32, "upload")}, new_id(), "clip.mp4")
    executor.sample(asked.job)  # too early: it does not run yet
    samples, losses = 0, 0
    for event in run(executor, asked):
        if isinstance(event, Losses):
            losses += 1
            assert samples == 0
            if losses == 5:
                executor.sample(asked.job)
        samples += isinstance(event, Preview)
    assert samples == 1 and losses >= 5
    assert (asked.folder(data) / "tuned" / "tuned.json").exists()


def test_a_look_at_poses_runs_beside_the_work(executor, tmp_path):
    task = PoseToVideo.for_model(find("miniature-followyourpose"), "a bear", 7, motion="wave", frames=8)
    steps = tmp_path / "steps"
    with closing(run(executor, work(str(steps)))) as events:
        while not steps.exists():
            next(events)
        found = []
        looking = executor.look(Work(task, {}))
        thread = threading.Thread(target=lambda: found.append(tiny.finish(looking)[1]))
        thread.start()
        while thread.is_alive():
            next(events)
    assert isinstance(found[0], PosePreview) and found[0].facts["people"] == 1


def test_slots_are_always_the_same_and_an_estimate_is_no_demand(executor):
    before = [slot.name for slot in executor.slots()]
    told(executor, work())
    assert [slot.name for slot in executor.slots()] == before and all(slot.device for slot in executor.slots())
    assert executor.lent(Grid.for_videos(work().task, "a", [7, 8], ["1" * 32, "2" * 32]), 5.0) is None
    assert executor.availability("scripted") is None and executor.speed > 0
    executor.check(work().task)
    executor.unload()


def test_a_slot_that_rests_is_there_again_when_work_is_meant_for_it(executor):
    (slot,) = executor.slots()
    for _ in range(2):
        executor.rest(slot.name)
        assert not any(one.bytes for one in executor.slots()[0].models)
    assert isinstance(told(executor, work())[-1], Made)


def test_jobs_that_were_not_queued_leave_nothing_behind(executor):
    with pytest.raises(ValueError), executor.asking(["1" * 32, "2" * 32]):
        raise ValueError("The queue is full.")
    with executor.asking(["3" * 32]):
        pass
    executor.forget("3" * 32)
    executor.forget("of nobody")
    assert not getattr(executor, "visitors", None)


def test_an_error_keeps_nothing_of_its_work_alive(executor):
    """No cycle of objects holds what was on the way when it was raised: on a device that would be all its memory."""
    ALIVE.clear()  # of the tests before
    gc.disable()
    try:
        with pytest.raises(ValueError):
            told(executor, work("words"))
        end = time.monotonic() + 20  # the thread that ran it may still be on its way out
        while any(one() is not None for one in ALIVE):
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        gc.enable()


def test_a_failing_look_for_idle_models_ends_no_work(data, monkeypatch):
    engine = replace(modelscope.ENGINE, generate={TextToVideo: generate}, parts=())
    tiny.add_engine(monkeypatch, "scripted", engine)
    executor = made_by("local", data)
    assert isinstance(told(executor, work())[-1], Made)
    looked = threading.Event()

    def fail():
        looked.set()
        raise OSError("the device is gone for a moment")

    monkeypatch.setattr(executor.manager, "unload_idle", fail)
    assert looked.wait(20)
    assert isinstance(told(executor, work())[-1], Made)
    executor.close()


@pytest.mark.parametrize("kind", ["local", "zerogpu"])
def test_what_a_look_has_loaded_is_unloaded_when_nobody_uses_it(kind, data, monkeypatch):
    frames = draw_clip(Words("person", "red", "beach", "waving"), np.random.default_rng(1), frames=8).frames
    clip = Asset("clips", "d" * 32, "upload")
    clip.path(data).parent.mkdir(parents=True, exist_ok=True)
    video.write(frames, clip.path(data), 8)
    tiny.add_engine(monkeypatch, "scripted", replace(modelscope.ENGINE, generate={TextToVideo: generate}, parts=()))
    executor = made_by(kind, data, idle_minutes=0)
    task = FindPoses.of(clip=clip.name, detector="miniature-openpose")
    assert tiny.finish(executor.look(Work(task, {"clip": clip})))[1].facts["people"] == 1
    end = time.monotonic() + 20
    while executor.slots()[0].models:
        assert time.monotonic() < end
        time.sleep(0.01)
    executor.close()


@pytest.mark.parametrize("kind", ["local", "zerogpu"])
def test_a_closed_executor_leaves_no_thread(kind, data, monkeypatch):
    engine = replace(modelscope.ENGINE, generate={TextToVideo: generate}, parts=())
    tiny.add_engine(monkeypatch, "scripted", engine)
    before = set(threading.enumerate())
    executor = made_by(kind, data)
    assert isinstance(told(executor, work())[-1], Made)
    executor.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive(), thread


def test_built_in_models_are_loaded_ahead_and_work_goes_first(data, monkeypatch):
    """Work that comes meanwhile waits for a part at most."""
    monkeypatch.setattr(local, "AHEAD_SECONDS", 0)
    tiny.add_engine(monkeypatch, "scripted", replace(modelscope.ENGINE, generate={TextToVideo: generate}))
    executor, took, loaded = made_by("local", data), [], []
    load = executor._models().lease

    @contextmanager
    def lease(name, working_bytes=0):
        loaded.append(name)
        if len(loaded) == 1:
            took.append(run(executor, work("words")))
        if len(loaded) == 2:
            assert isinstance(took[0]._error, ValueError)  # it has been carried out
        with load(name, working_bytes) as part:
            yield part

    with closing(executor):
        assert executor.slots()[0].models == ()
        monkeypatch.setattr(executor.manager, "lease", lease)
        executor.load_ahead(), executor.load_ahead()
        wanted = [f"scripted/{part}" for part in modelscope.ENGINE.parts]
        deadline = time.monotonic() + 120
        while loaded[: len(wanted)] != wanted or len(executor.slots()[0].models) < 3:
            assert time.monotonic() < deadline, loaded
            time.sleep(0.05)
    assert loaded.count("scripted/unet") == 1


def test_the_speed_is_measured_ahead_by_the_second_step(data, monkeypatch):
    """That of the clock here: a quarter of a second between any two looks."""
    monkeypatch.setattr(local, "AHEAD_SECONDS", 0)
    ticks = SimpleNamespace(now=0.0)

    def perf_counter():
        ticks.now += 0.25
        return ticks.now

    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=time.monotonic, perf_counter=perf_counter))
    drawn = []

    def draw(task, models, checkpoints=None):
        for number in range(1, 6):
            drawn.append(number)
            yield Progress("Reading the prompt", number, 5)
        for number in range(1, 6):
            drawn.append(number)
            yield Progress(DENOISING, number, 5)

    tiny.add_engine(monkeypatch, "scripted", replace(modelscope.ENGINE, generate={TextToVideo: draw}, parts=()))
    with closing(LocalExecutor(Settings(data=data, device="cpu", model="scripted"), CATALOG)) as executor:
        assert executor.speed == estimate.usual_speed(executor._settings)
        executor.load_ahead()
        deadline = time.monotonic() + 60
        while executor._speed is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        size = SCRIPTED.defaults
        pixels = size.frames * size.width * size.height
        assert executor.speed == pytest.approx(2 * SCRIPTED.flops * pixels / 0.25)
        assert drawn == [1, 2, 3, 4, 5, 1, 2]  # and no more


def test_where_gpus_are_lent_nothing_is_loaded_ahead(data, monkeypatch):
    tiny.add_engine(monkeypatch, "scripted", replace(modelscope.ENGINE, generate={TextToVideo: generate}, parts=()))
    with closing(made_by("zerogpu", data)) as executor:
        executor.load_ahead()
        assert executor._looking._ahead_from is None and executor._looking.manager is None
