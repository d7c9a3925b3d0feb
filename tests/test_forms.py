"""Forms: every control changes the task, and nothing impossible gets through, whoever filled them in."""

import math

import pytest

from pipelines.catalog import find
from pipelines.common_settings import MAX_SEED
from pipelines.serving.backend import Tuning
from pipelines.serving.job import Job
from pipelines.tasks import Edit, Tune
from ui import forms

GOOD = {
    "prompt": "a robot in blue waving on the beach",
    "model": "modelscope-1.7b",
    "negative_prompt": "",
    "frames": 16,
    "width": 256,
    "height": 256,
    "fps": 8,
    "steps": 25,
    "guidance": 9.0,
    "scheduler": "dpm++",
    "seed": 7,
}
OTHER = {
    "prompt": "a bear dances in the snow",
    "model": "zeroscope-v2-576w",
    "negative_prompt": "rain",
    "frames": 24,
    "width": 320,
    "height": 192,
    "fps": 12,
    "steps": 50,
    "guidance": 1.5,
    "scheduler": "ddim",
    "seed": 8,
}


def read(randomise=False, **values):
    return forms.text_to_video(GOOD | values, randomise)


@pytest.mark.parametrize("name", OTHER)
def test_every_control_changes_the_task_and_only_its_own_part(name):
    before, after = read(), read(**{name: OTHER[name]})
    assert getattr(before, name) == GOOD[name] and getattr(after, name) == OTHER[name]
    assert [part for part in GOOD if getattr(before, part) != getattr(after, part)] == [name]


def test_a_new_seed_each_time_does_not_depend_on_what_the_box_holds():
    seeds = {read(randomise=True, seed=None).seed for _ in range(20)}
    assert len(seeds) == 20 and all(0 <= seed <= MAX_SEED for seed in seeds)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("prompt", "", "empty"),
        ("prompt", " \n ", "empty"),
        ("prompt", "x" * 10_000, "10000 characters"),
        ("prompt", "a\x00robot", "control characters"),
        ("prompt", None, "must be text"),
        ("prompt", ["a robot"], "must be text"),
        ("model", "gpt", "no model called 'gpt'"),
        ("model", None, "no model called"),
        ("negative_prompt", 3, "must be text"),
        ("frames", 0, "number of frames must be from 1 to 256"),
        ("frames", 1000, "number of frames must be from 1 to 256"),
        ("frames", 2.5, "whole number"),
        ("frames", None, "must be a number"),
        ("frames", True, "must be a number"),
        ("width", 100, "width must be from 128 to 768"),
        ("width", 250, "multiple of 8"),
        ("height", math.inf, "height must be .* not inf"),
        ("fps", -1, "frame rate must be from"),
        ("steps", "25", "number of steps must be a number"),
        ("guidance", math.nan, "guidance must be a number"),
        ("scheduler", "euler", "no scheduler called 'euler'"),
        ("seed", -1, "seed must be from 0"),
        ("seed", 2**40, "seed must be from 0"),
        ("seed", "NaN", "seed must be a number"),
    ],
)
def test_what_can_not_be_is_refused_in_words_that_name_it(name, value, says):
    with pytest.raises(ValueError, match=says):
        read(**{name: value})


def test_too_large_a_whole_says_what_would_fit():
    with pytest.raises(ValueError, match=find("modelscope-1.7b").title + " can make.*frames at most"):
        read(frames=64, width=768, height=768)


# Tuning and editing

TUNE = {
    "start": (0.0, 0.5), "end": (2.0, 1.5), "stride": (1, 2), "frames": (24, 16), "across": (0.5, 0.0),
    "down": (0.5, 1.0), "width": (512, 256), "height": (512, 320), "steps": (500, 100), "learning_rate": (3e-5, 1e-4),
    "trained": ("all", "mid and up"), "seed": (33, 34),
}  # fmt: skip
EDIT = {
    "negative_prompt": ("", "rain"), "strength": (0.0, 0.5), "guidance": (12.5, 7.0), "steps": (50, 25),
    "scheduler": ("ddim", "pndm"), "sound": (False, True), "seed": (0, 1), "precision": ("exact", "fast"),
    "caching": (1, 2), "guided_from": (0.0, 0.2), "guided_until": (1.0, 0.8),
}  # fmt: skip
CLIP = "0123456789abcdef" * 2
SHAPE = {"frames": 24, "width": 512, "height": 512, "fps": 7.5}
TUNED = Tuning(
    Job("f" * 32, "me", Tune.for_model(find("stable-diffusion-1.4"), "a man skis", 33, clip=CLIP)),
    SHAPE,
    video=None,
    poster=None,
    sound=False,
)


def tune(prompt="a man skis", model="stable-diffusion-1.4", clip=CLIP, **values):
    settings = {name: values.get(name, TUNE[name][0]) for name in TUNE}
    return forms.tune(settings | {"prompt": prompt, "model": model, "clip": clip})


def edits(prompts="a bear skis", **values):
    return forms.edits({name: values.get(name, EDIT[name][0]) for name in EDIT} | {"prompt": prompts}, TUNED)


def differing(before, after):
    return [name for name in vars(before) if getattr(before, name) != getattr(after, name)]


@pytest.mark.parametrize("name", TUNE)
def test_every_control_changes_the_tuning_and_only_its_own_part(name):
    assert set(TUNE) == {*forms.asked(Tune), "seed"}
    assert differing(tune(), after := tune(**{name: TUNE[name][1]})) == [name] and getattr(after, name) == TUNE[name][1]


def test_a_model_that_is_published_as_tuned_needs_no_clip():
    card = find("a-man-is-surfing")
    settings = {name: before for name, (before, _) in EDIT.items()}
    panda, astronaut = forms.edits(settings | {"prompt": "a panda surfs\n\nan astronaut surfs"}, card)
    assert (panda.prompt, panda.model, panda.tuned) == ("a panda surfs", card.name, "")
    assert (panda.frames, panda.width, panda.height) == (8, 512, 512)
    assert differing(panda, astronaut) == ["prompt"]
    assert panda.told_by == card.name and edits()[0].told_by == TUNED.job.id


def test_clip_caption_and_base_go_into_the_tuning():
    assert differing(tune(), tune(prompt="a woman skis")) == ["prompt"]
    assert differing(tune(), tune(clip="f" * 32)) == ["clip"]
    assert differing(tune(), tune(model="miniature-sd", width=128, height=128)) == ["model", "width", "height"]


@pytest.mark.parametrize("name", EDIT)
def test_every_control_changes_the_edit_and_only_its_own_part(name):
    assert set(EDIT) | {"lora"} == {*forms.asked(Edit), "seed"}  # a LoRA brings its own sampler
    (before,), (after,) = edits(), edits(**{name: EDIT[name][1]})
    assert differing(before, after) == [name] and getattr(after, name) == EDIT[name][1]


def test_an_edit_is_as_fast_as_its_clip_however_fast_that_is():
    size = {"tuned": "0" * 32, "frames": 4, "width": 128, "height": 128}
    fast, slow = (Edit.for_model(find("miniature-sd"), "a bear", 7, fps=fps, **size) for fps in (240.0, 0.05))
    assert (fast.fps, slow.fps) == (240.0, 0.05)


def test_an_edit_has_the_shape_and_the_pace_of_the_clip_and_one_is_made_for_every_line():
    found = edits("a bear skis\n\n  a robot skis \n")
    assert [task.prompt for task in found] == ["a bear skis", "a robot skis"]
    for task in found:
        assert {name: getattr(task, name) for name in SHAPE} == SHAPE
        assert (task.tuned, task.model) == ("f" * 32, "stable-diffusion-1.4")
    with pytest.raises(ValueError, match="prompt is empty"):
        edits(" \n ")
