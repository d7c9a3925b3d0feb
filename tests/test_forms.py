"""Forms: every control changes the task, and nothing impossible gets through, whoever filled them in."""

import math

import pytest

from pipelines.catalog import find
from pipelines.tasks import MAX_SEED
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
    values = GOOD | values
    settings = [values[name] for name in forms.SETTINGS]
    return forms.text_to_video(values["prompt"], values["model"], *settings, seed=values["seed"], randomise=randomise)


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
        ("frames", 0, "number of frames must be from 1 to 64"),
        ("frames", 1000, "number of frames must be from 1 to 64"),
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
