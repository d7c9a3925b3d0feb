"""Every setting is declared once: what is declared can be set in every way that there is, kept, told and compared."""

import json
from dataclasses import fields, replace

import gradio as gr
import pytest

from pipelines import __main__ as command_line
from pipelines.catalog import CAPABILITIES, find
from pipelines.pose_tasks import FindPoses
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.task_settings import Choice, Kept, Number, OneOf, Text, Truth, recalled, settings_of
from pipelines.tasks import KINDS, NOBODY, Edit, Finish, PoseToVideo, TextToVideo, Tune, from_json, to_json
from ui import api, compare

BODIES = find("miniature-followyourpose").bodies
CARDS = {  # with sizes to choose from, and for poses with characters that have bodies; each takes all that any takes
    TextToVideo: replace(find("makeavid-sd"), loras=find("modelscope-1.7b").loras, takes=frozenset(CAPABILITIES)),
    PoseToVideo: replace(find("followyourpose-v1"), bodies=BODIES, takes=frozenset(CAPABILITIES)),
    Tune: find("stable-diffusion-1.4"),
    Edit: find("stable-diffusion-1.4"),
}
GIVEN = {TextToVideo: {}, PoseToVideo: {"clip": NOBODY}, Tune: {"clip": NOBODY}, Edit: {"tuned": NOBODY}}
WITH = {"mask": {"image": NOBODY}, "motion": {"clip": ""}, "lora": {"scheduler": "lcm"}}  # what goes with it
EVERY = [(kind, name) for kind in CARDS for name in settings_of(kind)]
SETTABLE = [
    (kind, name)
    for kind in (*CARDS, Finish, FindPoses)
    for name, setting in settings_of(kind).items()
    if setting.asked and not isinstance(setting, Kept)
]
COMMANDS = {
    **{TextToVideo: ["text-to-video", "a bear"], PoseToVideo: ["pose-to-video", "a.mp4", "a bear"]},
    **{Tune: ["tune", "a.mp4", "a bear", "-o", "a"], Edit: ["edit", "a", "a bear"]},
    **{Finish: ["finish", "a.mp4"], FindPoses: ["poses", "a.mp4", "-o", "a.json"]},
}
ENDPOINTS = {
    **{TextToVideo: "text_to_video", PoseToVideo: "pose_to_video", Tune: "tune", Edit: "edit"},
    **{Finish: "finish", FindPoses: "poses"},
}


def default(kind):
    return kind.for_model(CARDS[kind], "a bear", 7, **GIVEN[kind])


def other(setting, card, value):
    """A value that `setting` may have, and that is not `value`."""
    match setting:
        case Text():
            return "Other words"
        case Truth():
            return not value
        case Choice():
            return next(name for name in setting.names_for(card) if name != value)
        case OneOf(numbers=numbers):
            return next(number for number in numbers if number != value)
        case Kept():
            return "1" * 32
        case Number():
            allowed = setting.range_for(card)
            if not allowed.step:
                return allowed.low + 0.4 * (allowed.high - allowed.low)
            return allowed.low if value not in (allowed.low, None) else allowed.low + allowed.step
    raise AssertionError(setting)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_field_is_declared(kind):
    undeclared = {one.name for one in fields(kind)} - set(settings_of(kind))
    assert undeclared <= ({"model"} if kind in CARDS else {"of", "prompt", "seeds", "jobs"})


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=[f"{kind.__name__}-{name}" for kind, name in EVERY])
def test_what_is_set_is_kept_and_comes_back(kind, name):
    task, card = default(kind), CARDS[kind]
    given = {one: getattr(task, one) for one in settings_of(kind)}
    changed = given | WITH.get(name, {}) | {name: other(settings_of(kind)[name], card, given[name])}
    made = kind.for_model(card, **changed)
    assert getattr(made, name) == changed[name] != given[name]
    assert from_json(to_json(made), {card.name: card}) == made


@pytest.mark.parametrize(("kind", "name"), SETTABLE, ids=[f"{kind.__name__}-{name}" for kind, name in SETTABLE])
def test_the_command_line_and_the_endpoint_take_it(kind, name, endpoints):
    setting, command = settings_of(kind)[name], COMMANDS[kind]
    if name not in ("prompt", "motion"):
        flag = setting.flag or f"--{name.replace('_', '-')}"
        value = other(setting, CARDS.get(kind), setting.default_for(CARDS.get(kind)))
        said = [flag] if isinstance(setting, Truth) else [flag, str(value)]
        assert getattr(command_line._parser().parse_args([*command, *said]), name) == value
    label = endpoints[ENDPOINTS[kind]][name]
    assert label.endswith(".") and (setting.help in label or name in ("prompt", "motion", "upscale"))


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory):
    """What the published endpoints say of their parameters."""
    settings = Settings(data=tmp_path_factory.mktemp("data"), device="cpu", hub=False)
    backend = local_backend(settings)
    with gr.Blocks() as demo:
        api.endpoints(backend, settings)
    backend.close()
    published = demo.get_api_info()["named_endpoints"]
    return {
        name.strip("/"): {one["parameter_name"]: one["label"] for one in endpoint["parameters"]}
        for name, endpoint in published.items()
    }


COMPARED = [(kind, name) for kind, name in EVERY if kind is not Tune]


@pytest.mark.parametrize(("kind", "name"), COMPARED, ids=[f"{kind.__name__}-{name}" for kind, name in COMPARED])
def test_two_videos_that_differ_in_it_are_said_to(kind, name):
    task = default(kind)
    value = other(settings_of(kind)[name], CARDS[kind], getattr(task, name))
    table = compare.differences([task, replace(task, **{name: value})])
    assert table.count('scope="row"') == 1 and compare.SETTINGS[name] in table


def test_a_task_of_an_older_version_gets_the_defaults_of_what_it_did_not_know():
    values = json.loads(to_json(default(PoseToVideo)))
    del values["retarget"], values["tuned"]
    recall = recalled(PoseToVideo, values)
    assert recall["retarget"] is True and recall["tuned"] == "" and recall["clip"] == NOBODY
