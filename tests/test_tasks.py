"""Tasks: what a person may ask for, and the sentences they read where they may not."""

import json
import math

import pytest

from pipelines.cards import Limits, ModelCard, Range
from pipelines.catalog import find, offered
from pipelines.common_settings import MAX_SEED
from pipelines.task_settings import MAX_PROMPT
from pipelines.tasks import Edit, PoseToVideo, TextToVideo, Tune, from_json, to_json

CARD = find("miniature-modelscope")


def test_a_bare_prompt_takes_the_models_defaults():
    task = TextToVideo.for_model(CARD, "a bear", 7)
    assert (task.frames, task.steps, task.scheduler) == (CARD.defaults.frames, CARD.defaults.steps, "dpm++")
    assert task.seconds == task.frames / task.fps


@pytest.mark.parametrize("card", offered("text-to-video").values(), ids=offered("text-to-video"))
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
    "text", ["", "[]", "{}", "null", '{"task": "laundry"}', '{"task": "text-to-video"}', "[" * 5000, "1" * 5000]
)
def test_foreign_json_is_refused_in_words(text):
    with pytest.raises(ValueError, match="not the description of a video"):
        from_json(text)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"model": "gone"}, "made with 'gone', a model that is not offered here"),
        ({"model": ["x"] * 1000}, "not offered here"),
        ({"card": 1, "cls": 2, "self": 3}, "no setting called card, cls, self"),
        ({"x" * 9000: 1}, "no setting called x{80}[.]"),
        ({"frames": 1e400}, "number of frames must be from"),
        ({"frames": [8]}, "number of frames must be a number"),
        ({"prompt": {"a": 1}}, "prompt must be text"),
        ({"seed": None}, "seed must be a number"),
        ({"scheduler": {}}, "no scheduler called"),
    ],
)
def test_json_with_hostile_values_is_refused_in_words(changes, says):
    values = json.loads(to_json(TextToVideo.for_model(CARD, "a bear", 7))) | changes
    with pytest.raises(ValueError, match=says):
        from_json(json.dumps(values))


def test_json_from_another_model_list_is_checked_again():
    text = to_json(TextToVideo.for_model(CARD, "a bear", 7))
    smaller = {CARD.name: _with_limits(Limits(frames=Range(1, 8), side=Range(128, 128, 8), voxels=8 * 128 * 128))}
    with pytest.raises(ValueError, match="number of frames"):
        from_json(text, smaller)


def _with_limits(limits: Limits) -> ModelCard:
    return ModelCard(**{**vars(CARD), "limits": limits})


SD = find("miniature-sd")
CLIP = "0123456789abcdef" * 2


TUNABLE = {name: card for name, card in offered("edit").items() if card.tuning}


@pytest.mark.parametrize("card", TUNABLE.values(), ids=TUNABLE)
def test_tuning_takes_the_published_recipe_where_nothing_is_said(card):
    task = Tune.for_model(card, "a man is skiing", 1, clip=CLIP)
    assert (task.steps, task.learning_rate, task.trained) == (card.tuning.steps, card.tuning.learning_rate, "all")
    assert from_json(to_json(task)) == task


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("clip", "../../etc/passwd", "no clip"),
        ("clip", None, "no clip"),
        ("start", -1, "start"),
        ("start", math.nan, "start"),
        ("end", 0, "after its start"),
        ("end", "3", "must be a number"),
        ("stride", 0, "stride"),
        ("stride", 1.5, "whole number"),
        ("frames", 1, "number of frames"),
        ("across", 1.1, "place across"),
        ("down", -0.1, "place down"),
        ("width", 64, "width"),
        ("steps", 0, "number of steps"),
        ("learning_rate", 0.5, "learning rate"),
        ("learning_rate", math.inf, "learning rate"),
        ("trained", "everything", "no part that is trained"),
        ("guidance", 3, "no setting called guidance"),
    ],
)
def test_a_bad_setting_of_a_tuning_is_refused_by_name(setting, value, says):
    with pytest.raises(ValueError, match=says):
        Tune.for_model(SD, "a bear", 1, **({"clip": CLIP} | {setting: value}))


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("tuned", "", "Tune on a clip first"),
        ("tuned", "..", "Tune on a clip first"),
        ("strength", 1.2, "strength"),
        ("strength", math.nan, "strength"),
        ("guidance", -1, "guidance"),
        ("scheduler", "unipc", "Choose one of: ddim"),
        ("fps", 0, "frame rate"),
    ],
)
def test_a_bad_setting_of_an_edit_is_refused_by_name(setting, value, says):
    with pytest.raises(ValueError, match=says):
        Edit.for_model(SD, "a bear", 1, **({"tuned": CLIP} | {setting: value}))


def test_a_model_is_for_one_kind_of_task():
    with pytest.raises(ValueError, match="Choose one of: miniature-sd"):
        Tune.for_model(CARD, "a bear", 1, clip=CLIP)
    with pytest.raises(ValueError, match="Choose one of: miniature-modelscope"):
        TextToVideo.for_model(SD, "a bear", 1)


FOLLOWYOURPOSE = find("followyourpose-v1")


@pytest.mark.parametrize("where", [{"clip": CLIP}, {"motion": "wave"}], ids=["clip", "motion"])
def test_poses_are_followed_as_published_where_nothing_is_said(where):
    task = PoseToVideo.for_model(FOLLOWYOURPOSE, "an astronaut on the beach", 1, **where)
    assert (task.steps, task.guidance, task.scheduler, task.width, task.height) == (50, 12.5, "ddim", 512, 512)
    assert (task.shown, task.person, task.strength, task.placing) == ("auto", None, 1.0, "fit")
    assert json.loads(to_json(task))["task"] == "pose-to-video"
    assert from_json(to_json(task)) == task == task.checked()


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("clip", "../../etc/passwd", "no poses to follow"),
        ("clip", "", "no poses to follow"),
        ("clip", None, "no poses to follow"),
        ("motion", "wave", "but not both"),
        ("shown", "dogs", "one of: auto, clip, skeleton"),
        ("shown", ["auto"], "one of: auto, clip, skeleton"),
        ("detector", "dwpose", "no detector called 'dwpose'"),
        ("start", -1, "start"),
        ("start", math.nan, "start"),
        ("end", 0, "after its start"),
        ("end", "3", "must be a number"),
        ("stride", 0, "stride"),
        ("stride", 1.5, "whole number"),
        ("person", -1, "number of the person"),
        ("person", 1.5, "whole number"),
        ("person", True, "number of the person"),
        ("gaps", 1, "gaps are filled must be true or false"),
        ("smoothing", "a lot", "one of: none, light, strong"),
        ("placing", "squash", "one of: fit, fill, crop"),
        ("placing", {}, "one of: fit, fill, crop"),
        ("strength", 1.6, "pose strength"),
        ("strength", math.inf, "pose strength"),
        ("strength", None, "pose strength"),
        ("frames", 129, "number of frames"),
        ("frames", 7, "number of frames"),
        ("width", 520, "multiple of 64"),
        ("fps", 0, "frame rate"),
        ("scheduler", "unipc", "Choose one of: ddim"),
        ("across", 0.5, "no setting called across"),
        ("tuned", "../tuned", "no such tuned model"),
        ("tuned", None, "no such tuned model"),
        ("left", -0.1, "crop at the left"),
        ("top", math.nan, "crop at the top"),
        ("right", "0.5", "must be a number"),
        ("bottom", 1, "crop at the bottom"),
        ("sound", 1, "the sound is kept must be true or false"),
    ],
)
def test_a_bad_setting_of_poses_is_refused_by_name(setting, value, says):
    with pytest.raises(ValueError, match=says):
        PoseToVideo.for_model(FOLLOWYOURPOSE, "a bear", 1, **({"clip": CLIP} | {setting: value}))


def test_a_crop_leaves_something():
    PoseToVideo.for_model(FOLLOWYOURPOSE, "a bear", 1, clip=CLIP, left=0.5, right=0.4, top=0.9)
    for crop in ({"left": 0.5, "right": 0.45}, {"top": 0.9, "bottom": 0.1}):
        with pytest.raises(ValueError, match="less than a tenth"):
            PoseToVideo.for_model(FOLLOWYOURPOSE, "a bear", 1, clip=CLIP, **crop)


@pytest.mark.parametrize("motion", ["moonwalk", "../wave", ["wave"], 7])
def test_a_motion_that_is_not_there_is_refused_with_the_choice(motion):
    with pytest.raises(ValueError, match="Choose one of: bow"):
        PoseToVideo.for_model(FOLLOWYOURPOSE, "a bear", 1, motion=motion)


@pytest.mark.parametrize("setting", [{"sound": True}, {"strength": 0.5}])
def test_what_a_model_has_no_use_for_is_refused(setting):
    card = find("a-man-is-surfing")  # tuned by its makers: there is no clip here whose sound or motion could be kept
    with pytest.raises(ValueError, match=f"A man is surfing takes no {next(iter(setting))}"):
        Edit.for_model(card, "a panda surfs", 1, **setting)
    assert Edit.for_model(card, "a panda surfs", 1, sound=False, strength=0.0).sound is False


def test_the_frames_that_a_size_allows_are_of_the_models_own():
    card, small = (
        _with_limits(Limits(frames=Range(1, 81, 4), side=Range(64, 256, 64), voxels=voxels))
        for voxels in (8 * 128 * 128, 64 * 64)
    )
    with pytest.raises(ValueError, match="it makes 5 frames at most"):
        TextToVideo.for_model(card, "a bear", 7, frames=9, width=128, height=128)
    with pytest.raises(ValueError, match="Choose a smaller size"):
        TextToVideo.for_model(small, "a bear", 7, frames=1, width=128, height=128)
