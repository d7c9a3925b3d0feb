"""What is cut off and goes on from its checkpoint ends as what nobody cut off, byte for byte."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from tiny import SCHEDULER

from pipelines.events import DENOISING, Progress
from pipelines.media import video
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import diffusion, followyourpose, modelscope, tempofunk, tuneavideo, tuning
from pipelines.systems.checkpoints import Checkpoints
from pipelines.tasks import Edit, PoseToVideo, TextToVideo, Tune

CONFIG = {**SCHEDULER, "num_train_timesteps": 1000}
VELOCITY = {**CONFIG, "prediction_type": "v_prediction"}
FORESEE = diffusion.estimate_from_noise(CONFIG)
STEPS = 7
SOLVERS = {
    "modelscope ddim": lambda: diffusion.solver("ddim", CONFIG, 5),
    "dpm++": lambda: diffusion.solver("dpm++", CONFIG, STEPS),
    "unipc": lambda: diffusion.solver("unipc", CONFIG, STEPS),
    "lcm": lambda: diffusion.solver("lcm", CONFIG, STEPS, seed=7),
    "ddim": lambda: diffusion.image_solver("ddim", CONFIG, STEPS),
    "pndm": lambda: diffusion.image_solver("pndm", CONFIG, STEPS),
    "pndm of velocities": lambda: diffusion.image_solver("pndm", VELOCITY, STEPS),
    "tempofunk ddim": lambda: tempofunk.solver("ddim", CONFIG, STEPS),
    "tempofunk dpm++": lambda: tempofunk.solver("dpm++", CONFIG, STEPS),
}
SIDE = 64
SIZE = {"width": SIDE, "height": SIDE, "frames": 3}


def predict(latents, timestep):
    """A stand-in for a network: smooth, and different at every timestep."""
    return torch.tanh(latents * (0.5 + timestep / 1000)) + 0.1


def walk(make, folder=None, calls=None, seconds=1e9, circumstances="here"):
    """The denoising loop around a network that notes its calls."""

    def counted(latents, timestep):
        if calls is not None:
            calls.append(timestep)
        return predict(latents, timestep)

    checkpoint = Checkpoints(folder, seconds).of("loop", circumstances) if folder else None
    return diffusion.denoise(counted, diffusion.draw_noise((1, 4, 2, 8, 8), 7), make(), FORESEE, checkpoint)


def stop_after(steps, number):
    for step in steps:
        if step.number == number:
            steps.close()
            return


@pytest.mark.parametrize("name", SOLVERS)
def test_every_sampler_goes_on_after_every_step(name, tmp_path):
    whole, calls = list(walk(SOLVERS[name])), []
    for number in range(1, len(whole) + 1):
        folder = tmp_path / str(number)
        stop_after(walk(SOLVERS[name], folder), number)
        calls.clear()
        rest = list(walk(SOLVERS[name], folder, calls))
        assert [step.number for step in rest] == list(range(number, len(whole) + 1))
        assert len(calls) == len(whole) - number  # no step is made twice
        for step, expected in zip(rest, whole[number - 1 :], strict=True):
            assert step.latents.equal(expected.latents) and step.denoised.equal(expected.denoised)


def test_what_dies_without_a_word_goes_on_from_the_last_checkpoint(tmp_path):
    whole, running, calls = list(walk(SOLVERS["dpm++"])), walk(SOLVERS["dpm++"], tmp_path, seconds=0), []
    for _ in range(3):
        next(running)
    shutil.copytree(tmp_path, tmp_path / "found")  # as a process that is killed leaves it
    assert list(walk(SOLVERS["dpm++"], tmp_path / "found", calls))[-1].latents.equal(whole[-1].latents)
    assert len(calls) == len(whole) - 3


def test_between_checkpoints_nothing_is_written(tmp_path):
    running = walk(SOLVERS["dpm++"], tmp_path)
    next(running)
    assert not list(tmp_path.iterdir())
    list(running)
    assert list(tmp_path.iterdir())  # the last step, from which decoding may have to begin again


@pytest.mark.parametrize("damage", ["empty", "cut", "other circumstances", "another size", "foreign"])
def test_what_can_not_be_gone_on_from_begins_anew(damage, tmp_path):
    whole, calls = list(walk(SOLVERS["dpm++"])), []
    stop_after(walk(SOLVERS["dpm++"], tmp_path), 3)
    file = tmp_path / "loop.safetensors"
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "foreign":
        shutil.copy(tiny.write_model(tmp_path / "model") / "unet" / "diffusion_pytorch_model.safetensors", file)
    elif damage == "another size":
        smaller = diffusion.draw_noise((1, 4, 2, 8, 4), 7)
        running = diffusion.denoise(
            predict, smaller, SOLVERS["dpm++"](), FORESEE, Checkpoints(tmp_path).of("loop", "here")
        )
        file.unlink()
        stop_after(running, 3)
    circumstances = "elsewhere" if damage == "other circumstances" else "here"
    steps = list(walk(SOLVERS["dpm++"], tmp_path, calls, circumstances=circumstances))
    assert steps[-1].latents.equal(whole[-1].latents) and len(calls) == len(whole)


def test_a_checkpoint_that_can_not_be_written_costs_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"")  # where the folder should be
    whole, steps = list(walk(SOLVERS["dpm++"])), list(walk(SOLVERS["dpm++"], tmp_path / "file", seconds=0))
    assert steps[-1].latents.equal(whole[-1].latents)


def test_cleared_checkpoints_leave_no_folder_and_nothing_that_is_not_theirs(tmp_path):
    kept = Checkpoints(tmp_path / "kept")
    kept.clear()
    stop_after(walk(SOLVERS["dpm++"], tmp_path / "kept"), 3)
    kept.clear()
    assert not (tmp_path / "kept").exists()


# Whole systems


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models of every system."""
    folder = tmp_path_factory.mktemp("models")
    cards = tiny.write_all(folder)
    cards["sd"] = replace(cards["sd"], defaults=replace(cards["sd"].defaults, steps=3))  # so many inverts a tuning
    return ModelManager(cards, Settings(data=folder / "data", cache=folder / "cache", hub=False), device="cpu")


@pytest.fixture(scope="module")
def tuned(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    frames = np.full((3, SIDE, SIDE, 3), 60, np.uint8)
    for number, frame in enumerate(frames):
        frame[20:40, 8 * number : 8 * number + 20] = (230, 120, 60)
    video.write(frames, folder / "clip.mp4", 8)
    task = Tune.for_model(models.card("sd"), "a square", 7, clip="0" * 32, steps=2, **SIZE)
    tiny.finish(tuning.generate(task, models, folder / "clip.mp4", folder / "tuned", folder / "source.mp4"))
    return folder / "tuned"


def text_task(models, name, **settings):
    return TextToVideo.for_model(models.card(name), "a robot", 7, **{"steps": 4, "guidance": 3.0, **SIZE, **settings})


def made_by(system, models, tuned):
    """(`generate` with its task and files, the stage to stop in, after which of its steps)."""
    match system:
        case "modelscope":
            return lambda **kept: modelscope.generate(text_task(models, "text"), models, **kept), DENOISING, 2
        case "tempofunk":
            return lambda **kept: tempofunk.generate(text_task(models, "pseudo3d"), models, **kept), DENOISING, 2
        case "tempofunk's first image":
            return (
                lambda **kept: tempofunk.generate(text_task(models, "pseudo3d"), models, **kept),
                tempofunk.DRAWING,
                2,
            )
        case "followyourpose":
            settings = {"motion": "wave", "steps": 4, "guidance": 3.0, **SIZE, "frames": 8}
            task = PoseToVideo.for_model(models.card("pose"), "a robot", 7, **settings)
            return lambda **kept: followyourpose.generate(task, models, **kept), DENOISING, 2
    edit = Edit.for_model(models.card("sd"), "a circle", 7, tuned="0" * 32, **{"steps": 3, "guidance": 3.0, **SIZE})
    stage = tuneavideo.INVERTING if system == "inversion" else DENOISING
    return lambda **kept: tuneavideo.generate(edit, models, tuned, **kept), stage, 2


@pytest.mark.parametrize(
    "system", ["modelscope", "tempofunk", "tempofunk's first image", "followyourpose", "edit", "inversion"]
)
def test_every_system_goes_on_where_it_was_cut_off(system, models, tuned, tmp_path):
    generate, stage, number = made_by(system, models, tuned)
    _, (whole, facts) = tiny.finish(generate())
    if system == "inversion":
        for file in tuned.glob("inversion-*"):  # it would be read, and not made
            file.unlink()
    running = generate(checkpoints=Checkpoints(tmp_path))
    for event in running:
        if isinstance(event, Progress) and (event.stage, event.step) == (stage, number):
            break
    running.close()
    events, (frames, resumed) = tiny.finish(generate(checkpoints=Checkpoints(tmp_path)))
    steps = [event.step for event in events if isinstance(event, Progress) and event.stage == stage and event.step]
    assert steps[0] >= number and np.array_equal(frames, whole)
    if stage == DENOISING:
        assert resumed["resumed_at_step"] == number and "resumed_at_step" not in facts


def test_a_job_that_was_cut_off_while_it_was_decoded_denoises_nothing_again(models, tmp_path, monkeypatch):
    task = text_task(models, "text")
    _, (whole, _) = tiny.finish(modelscope.generate(task, models))
    running = modelscope.generate(task, models, Checkpoints(tmp_path))
    for event in running:
        if isinstance(event, Progress) and event.stage == modelscope.DECODING:
            break
    running.close()
    events, (frames, facts) = tiny.finish(modelscope.generate(task, models, Checkpoints(tmp_path)))
    steps = [event.step for event in events if isinstance(event, Progress) and event.stage == DENOISING]
    assert steps == [facts["resumed_at_step"]] == [4] and np.array_equal(frames, whole)


def test_features_that_are_remembered_from_step_to_step_are_in_no_checkpoint(models, tmp_path):
    task = text_task(models, "text", steps=8, caching=2)
    running = modelscope.generate(task, models, Checkpoints(tmp_path))
    for event in running:
        if isinstance(event, Progress) and (event.stage, event.step) == (DENOISING, 6):
            break
    running.close()
    assert not list(tmp_path.iterdir())
