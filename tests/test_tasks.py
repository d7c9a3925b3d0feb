"""Tasks: what a person may ask for, and the sentences they read where they may not."""

import json
import math

import pytest

from pipelines.catalog import CATALOG, Limits, ModelCard, Range, find
from pipelines.tasks import MAX_PROMPT, MAX_SEED, TextToVideo, from_json, to_json

CARD = find("miniature-modelscope")


def test_a_bare_prompt_takes_the_models_defaults():
    task = TextToVideo.for_model(CARD, "a bear", 7)
    assert (task.frames, task.steps, task.scheduler) == (CARD.defaults.frames, CARD.defaults.steps, "dpm++")
    assert task.seconds == task.frames / task.fps


@pytest.mark.parametrize("card", CATALOG.values(), ids=CATALOG)
def test_every_model_accepts_its_own_defaults(card):
    assert TextToVideo.for_model(card, "a bear", 0).checked() == TextToVideo.for_model(card, "a bear", 0)


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("frames", 0, "number of frames"),
        ("frames", 1000, "number of frames"),
        ("frames", 16.5, "whole number"),
        ("frames", math.nan, "number of frames"),
        ("frames", True, "must be a number"),
        ("steps", math.inf, "number of steps"),
        ("steps", "25", "must be a number"),
        ("guidance", -math.inf, "guidance"),
        ("guidance", None, "must be a number"),
        ("width", 127, "width"),
        ("height", 10**400, "height"),
        ("fps", 0, "frame rate"),
        ("scheduler", "euler", "Choose one of"),
        ("scheduler", ["ddim"], "Choose one of"),
        ("negative_prompt", 3, "must be text"),
        ("cheese", 1, "no setting called cheese"),
    ],
)
def test_a_bad_value_is_refused_by_name(setting, value, says):
    with pytest.raises(ValueError, match=says):
        TextToVideo.for_model(CARD, "a bear", 7, **{setting: value})


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 0.5, "7", math.nan])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        TextToVideo.for_model(CARD, "a bear", seed)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("a" * 10_000, str(MAX_PROMPT)),
        ("a\x00b", "control"),
        (7, "text"),
        ("\ud800", "control"),
    ],
)
def test_a_bad_prompt_is_refused(prompt, says):
    with pytest.raises(ValueError, match=says):
        TextToVideo.for_model(CARD, prompt, 7)


def test_sizes_follow_the_models_step():
    card = find("modelscope-1.7b")
    with pytest.raises(ValueError, match="multiple of 8"):
        TextToVideo.for_model(card, "a bear", 7, width=260)
    assert TextToVideo.for_model(card, "a bear", 7, width=264).width == 264


def test_a_video_too_large_for_the_model_is_told_how_long_it_may_be():
    card = find("modelscope-1.7b")
    with pytest.raises(ValueError, match="frames at most") as refusal:
        TextToVideo.for_model(card, "a bear", 7, frames=64, width=768, height=768)
    most = int(str(refusal.value).split("makes ")[1].split()[0])
    assert TextToVideo.for_model(card, "a bear", 7, frames=most, width=768, height=768).frames == most


def test_json_and_back():
    task = TextToVideo.for_model(CARD, 'ein Bär; = # "quoted" 🤖', 7, guidance=3.5, negative_prompt="blurry")
    assert json.loads(to_json(task))["task"] == "text-to-video"
    assert from_json(to_json(task)) == task


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"task": "laundry"}', '{"task": "text-to-video"}', "[" * 5000]
)
def test_foreign_json_is_refused_in_words(text):
    with pytest.raises(ValueError, match="not the description of a video"):
        from_json(text)


def test_json_from_another_model_list_is_checked_again():
    text = to_json(TextToVideo.for_model(CARD, "a bear", 7))
    smaller = {CARD.name: _with_limits(Limits(frames=Range(1, 8), side=Range(128, 128, 8), voxels=8 * 128 * 128))}
    with pytest.raises(ValueError, match="number of frames"):
        from_json(text, smaller)


def _with_limits(limits: Limits) -> ModelCard:
    return ModelCard(**{**vars(CARD), "limits": limits})
