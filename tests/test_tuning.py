"""Tuning on a clip and telling it again, with the real classes on a tiny Stable Diffusion."""

import errno
import json
import shutil
from contextlib import closing
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pipelines.cards import Range
from pipelines.catalog import CATALOG
from pipelines.events import TUNING, Losses, Preview, Progress
from pipelines.media import clips, ffmpeg, video
from pipelines.models.convert import tuned as files
from pipelines.models.folders import card_of_folder
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import tuneavideo, tuning
from pipelines.systems.stable_diffusion import DECODING, encode
from pipelines.tasks import Edit, Tune

SIDE, FRAMES = 64, 4
INVERTED = 6  # steps of the inversion that ends a tuning


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    card = card_of_folder(tiny.write_image_model(folder / "sd"))
    velocity = tiny.write_image_model(folder / "velocity")
    scheduler = velocity / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}))
    card = replace(card, name="sd", defaults=replace(card.defaults, steps=INVERTED))
    catalog = {"sd": card, "velocity": replace(card_of_folder(velocity), name="velocity")}
    return ModelManager(catalog, Settings(data=folder / "data", cache=folder / "cache", hub=False), device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A bright square that walks over a dark ground."""
    frames = np.full((8, SIDE, SIDE, 3), 40, np.uint8)
    for number, frame in enumerate(frames):
        frame[20:40, 6 * number : 6 * number + 16] = (230, 120, 60)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    video.write(frames, path, 8)
    return path


def tune_task(models, model="sd", **settings):
    settings = {"clip": "0" * 32, "frames": FRAMES, "width": SIDE, "height": SIDE, "steps": 3, **settings}
    return Tune.for_model(models.card(model), "a square walks", 5, **{"learning_rate": 1e-3, **settings})


def edit_task(models, model="sd", **settings):
    settings = {"tuned": "0" * 32, "frames": FRAMES, "width": SIDE, "height": SIDE, "fps": 8, "steps": 3, **settings}
    return Edit.for_model(models.card(model), settings.pop("prompt", "a circle walks"), 5, **settings)


def tune(models, clip, folder, stop_after=None, **settings):
    """Runs a tuning, or that many of its steps, and returns its events and what is on the disk."""
    task, told = tune_task(models, **settings), []
    with closing(tuning.generate(task, models, clip, folder, folder / "clip.mp4")) as events:
        for event in events:
            told.append(event)
            if event == Progress(TUNING, stop_after or -1, task.steps):
                break
    return told, files.load(folder)


def edit(models, folder, **settings):
    task = edit_task(models, **settings)
    events = tuneavideo.generate(task, models, folder)
    told = []
    while True:
        try:
            told.append(next(events))
        except StopIteration as end:
            return told, *end.value


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def tuned(models, clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    tune(models, clip, folder, steps=6)
    return folder


def test_tuning_changes_the_queries_and_the_attention_over_time_and_nothing_else(models, clip, tmp_path):
    with models.lease("sd/inflated_unet") as unet:
        before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
        told, tuned = tune(models, clip, tmp_path)
        assert same(before, unet.state_dict())  # the resident model is shared: it is as it was
        assert not any(parameter.requires_grad for parameter in unet.parameters())
        named = {name for name in before if any(part in name for part in tuning.MODULES)}
        assert tuned.delta.keys() == named == set(tuning.trained_parameters(unet, "all"))
    assert all(not torch.equal(tensor, before[name]) for name, tensor in tuned.delta.items() if "to_q" in name)
    losses = [event.values for event in told if isinstance(event, Losses)]
    assert [len(values) for values in losses] == [1, 2, 3] and tuned.facts["losses"] == list(losses[-1])
    assert tuned.moments == {}  # done: there is nothing to go on with


def test_mid_and_up_leaves_the_way_down_alone(models, clip, tmp_path):
    _, tuned = tune(models, clip, tmp_path, trained="mid and up")
    assert tuned.delta and not any(name.startswith("down_blocks") for name in tuned.delta)


def test_the_loss_falls(models, clip, tmp_path):
    _, tuned = tune(models, clip, tmp_path, steps=60, learning_rate=3e-3)
    losses = tuned.facts["losses"]
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])


@pytest.fixture(scope="module")
def short_sighted(models):
    """The same model where it sees eight frames at once."""
    card = models.card("sd")
    limits = replace(card.limits, frames=Range(2, 40), voxels=8 * SIDE * SIDE, once=8, window=8)
    return ModelManager({"sd": replace(card, limits=limits)}, models.settings, device="cpu")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """A bright square that walks on and on."""
    frames = np.full((12, SIDE, SIDE, 3), 40, np.uint8)
    for number, frame in enumerate(frames):
        frame[20:40, 4 * number : 4 * number + 16] = (230, 120, 60)
    path = tmp_path_factory.mktemp("clip") / "long.mp4"
    video.write(frames, path, 8)
    return path


def test_of_a_longer_clip_each_step_learns_a_window(short_sighted, long_clip, tmp_path):
    learned = []

    def look(module, given):
        if isinstance(module, tuning.TuningLoss):
            learned.append([part.clone() for part in given])

    hook = register_module_forward_pre_hook(look)
    try:
        _, tuned = tune(short_sighted, long_clip, tmp_path, frames=12, steps=6)
    finally:
        hook.remove()
    starts = []
    for step, (latents, noise, _) in enumerate(learned):
        generator = torch.Generator().manual_seed(5 * 2**20 + step)
        _, drawn = (torch.randn(tuned.latents.shape, generator=generator) for _ in range(2))
        starts += [start for start in range(5) if noise.equal(drawn[:, :, start : start + 8])]
        far = [(latents - tuned.latents[:, :, start : start + 8]).square().mean() for start in range(5)]
        assert np.argmin(far) == starts[-1]
    assert len(starts) == 6 and len(set(starts)) > 1
    tune(short_sighted, long_clip, tmp_path / "resumed", stop_after=3, frames=12, steps=6)
    _, resumed = tune(short_sighted, long_clip, tmp_path / "resumed", frames=12, steps=6)
    assert same(resumed.delta, tuned.delta)


def test_a_longer_clip_is_inverted_and_edited_in_windows(short_sighted, long_clip, tmp_path):
    seen = []
    with short_sighted.lease("sd/inflated_unet") as unet:
        hook = unet.conv_in.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        tune(short_sighted, long_clip, tmp_path, frames=12, steps=1)
        *_, frames, facts = edit(short_sighted, tmp_path, frames=12)
        hook.remove()
    assert frames.shape == (12, SIDE, SIDE, 3) and "2 windows of 8 frames" in facts["approximations"]
    assert set(seen) == {8} and len(seen) == 1 + 2 * (INVERTED + 3 + 3)  # the edit inverts for its own steps
    assert files.load_inversion(INVERTED, tmp_path).shape[:4] == (INVERTED + 1, 1, 4, 12)


def test_no_step_is_taken_by_gradients_longer_than_one(models, clip, tmp_path):
    norms = []

    def look(optimizer, *_):
        gradients = [one.grad.norm() for group in optimizer.param_groups for one in group["params"]]
        norms.append(float(torch.stack(gradients).norm()))

    hook = register_optimizer_step_pre_hook(look)
    with models.lease("sd/inflated_unet") as unet, torch.no_grad():
        unet.conv_out.weight.mul_(16)  # so that it is very wrong
    try:
        tune(models, clip, tmp_path)
    finally:
        hook.remove()
        with torch.no_grad():
            unet.conv_out.weight.div_(16)
    assert max(norms) == pytest.approx(1, abs=1e-3)


def test_the_same_tuning_twice_is_the_same(models, clip, tmp_path):
    one, other = (tune(models, clip, tmp_path / name)[1] for name in ("one", "other"))
    assert same(one.delta, other.delta) and one.facts == other.facts
    trajectories = [files.load_inversion(INVERTED, tmp_path / name) for name in ("one", "other")]
    assert torch.equal(*trajectories)


def test_a_stopped_tuning_is_kept_and_goes_on_to_the_same_end(models, clip, tmp_path):
    _, whole = tune(models, clip, tmp_path / "whole", steps=6)
    _, half = tune(models, clip, tmp_path / "half", stop_after=2, steps=6)
    assert len(half.facts["losses"]) == 2 and half.moments
    told, resumed = tune(models, clip, tmp_path / "half", steps=6)
    assert Progress(TUNING, 3, 6) in told and Progress(TUNING, 2, 6) not in told
    assert resumed.facts["losses"] == whole.facts["losses"] and same(resumed.delta, whole.delta)


def test_edits_made_in_between_do_not_leave_an_old_trajectory_behind(models, clip, tmp_path):
    tune(models, clip, tmp_path, stop_after=2, steps=4)
    edit(models, tmp_path)
    assert files.load_inversion(3, tmp_path) is not None
    tune(models, clip, tmp_path, steps=4)
    assert files.load_inversion(3, tmp_path) is None


def test_a_tuning_that_died_while_it_inverted_is_not_tuned_again(models, clip, tmp_path):
    _, done = tune(models, clip, tmp_path)
    (tmp_path / f"inversion-{INVERTED}.safetensors").unlink()
    told, again = tune(models, clip, tmp_path)
    assert not any(isinstance(event, Losses) for event in told) and same(again.delta, done.delta)
    assert files.load_inversion(INVERTED, tmp_path) is not None


def test_a_killed_tuning_goes_on_from_its_last_checkpoint(models, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "KEEP_EVERY", 2)
    task = tune_task(models, steps=6)
    events = tuning.generate(task, models, clip, tmp_path / "whole", tmp_path / "clip.mp4")
    for event in events:
        if event == Progress(TUNING, 5, 6):  # what a kill leaves on the disk in this moment
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    assert len(files.load(tmp_path / "killed").facts["losses"]) == 4
    _, resumed = tune(models, clip, tmp_path / "killed", steps=6)
    assert same(resumed.delta, files.load(tmp_path / "whole").delta)


def test_samples_are_drawn_where_they_are_asked_for_and_change_nothing(models, clip, tmp_path):
    told, plain = tune(models, clip, tmp_path / "plain", steps=4)
    assert not any(isinstance(event, Preview) for event in told)
    wanted = iter([True, False, False, True])
    task, folder = tune_task(models, steps=4), tmp_path / "sampled"
    events = list(tuning.generate(task, models, clip, folder, tmp_path / "clip.mp4", lambda: next(wanted)))
    first, last = [index for index, event in enumerate(events) if isinstance(event, Preview)]
    for index, steps in ((first, 1), (last, 4)):
        (*_, losses) = [event for event in events[:index] if isinstance(event, Losses)]
        assert len(losses.values) == steps
        assert Image.open(BytesIO(events[index].image)).format == "WEBP"
    assert events[first].image != events[last].image  # each by the parameters of its moment
    sampled = files.load(folder)
    assert same(sampled.delta, plain.delta) and sampled.facts == plain.facts


def test_another_task_in_the_same_folder_begins_anew(models, clip, tmp_path):
    tune(models, clip, tmp_path, stop_after=2, steps=4)
    told, tuned = tune(models, clip, tmp_path, steps=4, stride=2)
    assert Progress(TUNING, 1, 4) in told and len(tuned.facts["losses"]) == 4


def test_another_clip_in_the_same_folder_begins_anew(models, clip, tmp_path):
    """On the command line every clip has the same name."""
    _, first = tune(models, clip, tmp_path / "one", stop_after=2)
    backwards = tmp_path / "backwards.mp4"
    video.write(video.read(clip)[::-1], backwards, 8)
    _, second = tune(models, backwards, tmp_path / "one", stop_after=1)
    _, alone = tune(models, backwards, tmp_path / "two", stop_after=1)
    assert second.facts["losses"] == alone.facts["losses"] != first.facts["losses"][:1]
    assert len(second.facts["losses"]) == 1 and same(second.delta, alone.delta)


def test_a_clips_model_and_sound_are_gone_before_another_takes_its_place(models, clip, tmp_path):
    loud, folder = tmp_path / "loud.mp4", tmp_path / "tuned"
    tone = ["-f", "lavfi", "-i", "sine=f=440:d=1", "-c:v", "copy", "-c:a", "aac"]
    assert not ffmpeg.run(["-v", "error", "-i", str(clip), *tone, str(loud)], seconds=60).returncode
    tune(models, loud, folder)
    assert (folder / clips.SOUND).exists()
    backwards = tmp_path / "backwards.mp4"
    video.write(video.read(clip)[::-1], backwards, 8)
    task = tune_task(models)
    with closing(tuning.generate(task, models, backwards, folder, folder / "clip.mp4")) as events:
        next(event for event in events if event == Progress(tuning.READING, 1, 1))
    assert sorted(file.name for file in folder.iterdir()) == ["clip.mp4"]
    assert np.abs(video.read(folder / "clip.mp4")[0].astype(int) - video.read(backwards)[0]).mean() < 4


def test_a_clip_that_cant_be_used_leaves_what_was_tuned_before(models, clip, tmp_path):
    _, tuned = tune(models, clip, tmp_path)
    still = tmp_path / "still.mp4"
    video.write(video.read(clip)[:1].repeat(4, axis=0), still, 8)
    with pytest.raises(ValueError, match="Nothing moves"):
        tune(models, still, tmp_path)
    assert same(files.load(tmp_path).delta, tuned.delta)


def test_a_loss_that_is_no_number_ends_the_tuning_and_keeps_what_was_good(models, clip, tmp_path):
    _, good = tune(models, clip, tmp_path, stop_after=2, steps=4)
    broken = {name: tensor.clone() for name, tensor in good.delta.items()}
    broken[next(iter(broken))].fill_(3e38)
    files.save(replace(good, delta=broken), tmp_path)
    with pytest.raises(ValueError, match="step 3: its loss is no number.*lower learning rate"):
        tune(models, clip, tmp_path, steps=4)
    assert len(files.load(tmp_path).facts["losses"]) == 2


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(models, clip, tmp_path, monkeypatch):
    tune(models, clip, tmp_path, stop_after=2, steps=4)
    before = (tmp_path / files.FILE).read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)  # a disk that is full can't be had here
    with pytest.raises(OSError, match="disk is full. Free some space, then resume"):
        tune(models, clip, tmp_path, steps=4)
    assert (tmp_path / files.FILE).read_bytes() == before and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"start": 0.9, "end": 0.95}, "is one frame"), ({"start": 7.0}, "start must be from 0")],
)
def test_a_part_that_can_not_be_tuned_on_is_refused(models, clip, tmp_path, settings, says):
    with pytest.raises(ValueError, match=says):
        tune(models, clip, tmp_path, **settings)


def test_a_clip_in_which_nothing_moves_is_refused(models, tmp_path):
    still = np.linspace(40, 200, SIDE).astype(np.uint8)[None, :, None, None]
    video.write(np.broadcast_to(still, (8, SIDE, SIDE, 3)).copy(), tmp_path / "still.mp4", 8)
    with pytest.raises(ValueError, match="Nothing moves"):
        tune(models, tmp_path / "still.mp4", tmp_path / "tuned")


def test_an_edit_is_made_from_the_clips_own_noise_and_keeps_the_trajectory(models, tuned):
    told, frames, facts = edit(models, tuned)
    assert frames.shape == (FRAMES, SIDE, SIDE, 3)
    assert Progress(tuneavideo.INVERTING, 3, 3) in told and files.load_inversion(3, tuned) is not None
    again, same_frames, _ = edit(models, tuned)
    assert not any(isinstance(event, Progress) and event.stage == tuneavideo.INVERTING for event in again)
    assert np.array_equal(frames, same_frames)


def test_every_setting_of_an_edit_changes_it(models, tuned):
    _, plain, _ = edit(models, tuned)
    for settings in (
        {"prompt": "a triangle sleeps"}, {"negative_prompt": "a circle"}, {"guidance": 3.0}, {"steps": 4},
        {"scheduler": "dpm++"}, {"strength": 0.5},
    ):  # fmt: skip
        assert not np.array_equal(plain, edit(models, tuned, **settings)[1]), settings
    _, noise, _ = edit(models, tuned, strength=1.0)
    other = replace(edit_task(models, strength=1.0), seed=6)
    (*_,) = (events := tuneavideo.generate(other, models, tuned))
    assert events.gi_frame is None and not np.array_equal(plain, noise)


@pytest.mark.parametrize("model", ["miniature-sd", "velocity"])
def test_inversion_leads_back_to_the_clip(models, clip, tmp_path, model):
    if model in CATALOG:  # a network that has learned nothing does not agree with itself from step to step
        models = ModelManager(CATALOG, models.settings, device="cpu")
        tune(models, clip, tmp_path, model=model, steps=1, learning_rate=1e-6, width=128, height=128)
    else:
        tune(models, clip, tmp_path, model=model, steps=1, learning_rate=1e-6)
    with (
        models.lease(f"{model}/tokenizer") as tokenizer,
        models.lease(f"{model}/text_encoder") as encoder,
        models.lease(f"{model}/inflated_unet") as unet,
        models.lease(f"{model}/scheduler") as schedule,
        torch.no_grad(),
    ):
        trajectory = files.load_inversion(models.card(model).defaults.steps, tmp_path)
        empty = encode([""], tokenizer, encoder)
        *_, last = tuneavideo.sample(unet, empty, trajectory[-1], schedule, "ddim", len(trajectory) - 1, 1.0)
    way = (trajectory[-1] - trajectory[0]).abs().mean()
    assert (last.latents - trajectory[0]).abs().mean() < 0.2 * way


def test_a_tuned_model_of_another_base_is_refused(models, tuned, tmp_path):
    shutil.copytree(tuned, tmp_path / "other")
    model = files.load(tmp_path / "other")
    model.facts["base"] = "0" * 64
    files.save(model, tmp_path / "other")
    with pytest.raises(ValueError, match="tuned from another model"):
        edit(models, tmp_path / "other")


@pytest.mark.parametrize("damage", ["truncated", "empty", "numbers", "gone"])
def test_a_damaged_tuned_model_is_refused_in_a_sentence(models, tuned, tmp_path, damage):
    shutil.copytree(tuned, tmp_path / "copy")
    file = tmp_path / "copy" / files.FILE
    if damage == "gone":
        file.unlink()
    elif damage == "numbers":
        model = files.load(tmp_path / "copy")
        model.delta[next(iter(model.delta))].fill_(float("nan"))
        files.save(model, tmp_path / "copy")
    else:
        file.write_bytes(file.read_bytes()[: 1000 if damage == "truncated" else 0])
    with pytest.raises(ValueError, match="Tune on"):
        edit(models, tmp_path / "copy")


def test_a_damaged_trajectory_is_made_again(models, tuned):
    _, frames, _ = edit(models, tuned)
    (tuned / "inversion-3.safetensors").write_bytes(b"no tensors")
    assert np.array_equal(edit(models, tuned)[1], frames)


def test_what_is_exported_loads_as_published_and_edits_alike(models, tuned, tmp_path):
    tuning.export(models.card("sd"), models.settings, tuned, tmp_path / "published")
    card = replace(card_of_folder(tmp_path / "published"), name="published")
    assert card.tuning is None
    other = ModelManager({"published": card}, models.settings, device="cpu")
    with models.lease("sd/inflated_unet") as unet, tuneavideo.applied(unet, files.load(tuned).delta):
        with other.lease("published/inflated_unet") as exported:
            assert same(unet.state_dict(), exported.state_dict())
    task = Edit.for_model(card, "a circle walks", 5, frames=FRAMES, width=SIDE, height=SIDE, fps=8, steps=3)
    made = list(tuneavideo.generate(task, other))
    assert made[-1] == Progress(DECODING, FRAMES, FRAMES)


def test_memory_is_counted_and_too_much_is_refused_with_what_fits(models):
    task = tune_task(models, frames=16)
    plain, checkpointing = tuning.working_memory(task, models, 16)
    assert not checkpointing
    unet = models.empty("sd/inflated_unet")
    saving = tuning.tuning_memory(unet, "all", 16, 8, 8, True)
    assert saving < plain
    assert tuning.tuning_memory(unet, "mid and up", 16, 8, 8, False) < 0.9 * plain  # nothing is kept of what is frozen
    tight = ModelManager({"sd": models.card("sd")}, models.settings, device="cpu", budget=lambda: 0)
    weights = -tight.room("sd/inflated_unet")
    between = ModelManager(
        {"sd": models.card("sd")}, models.settings, device="cpu", budget=lambda: weights + (saving + plain) // 2
    )
    assert tuning.working_memory(task, between, 16) == (saving, True)
    small = ModelManager({"sd": models.card("sd")}, models.settings, device="cpu", budget=lambda: weights + saving // 2)
    with pytest.raises(MemoryError, match=r"At this size \d+ frames fit"):
        tuning.working_memory(task, small, 16)
