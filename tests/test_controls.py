"""The page's controls: each comes from the declared setting, has its words, and follows the model."""

import json

import pytest
from running_app import page_config

from pipelines.catalog import offered
from pipelines.task_settings import Choice, Kept, Number, Truth, settings_of
from pipelines.tasks import Edit, PoseToVideo, TextToVideo, Tune
from ui import controls

TABS = {TextToVideo: "", PoseToVideo: "pose-", Edit: "edit-"}  # kinds of task -> what their controls' ids begin with
OF_CARDS = [
    (kind, card) for kind in (*TABS, Tune) for card in offered(kind.FOR).values() if kind is not Tune or card.tuning
]


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    """The page's components, by their ids."""
    config = page_config(tmp_path_factory.mktemp("controls"))
    return {one["props"]["elem_id"]: one for one in config["components"] if one["props"].get("elem_id")}


@pytest.mark.parametrize("kind", TABS, ids=lambda kind: kind.__name__)
def test_everything_that_can_be_set_has_a_control_with_its_declared_words(components, kind):
    asked = {name: one for name, one in settings_of(kind).items() if one.asked and not isinstance(one, Kept)}
    for name in asked.keys() - {"prompt", "motion", "person", "image_guidance"}:  # with words or choices of their own
        control = components[TABS[kind] + name.replace("_", "-")]
        assert asked[name].label in control["props"]["label"], name
        if name not in ("width", "height"):  # which say what sizes there are
            assert asked[name].help in json.loads(json.dumps(control["props"]["info"])), name


def test_everything_of_a_tuning_has_a_control(components):
    parts = ("start", "end", "stride", "frames", "across", "down")
    of_tuning = ("width", "height", "steps", "learning_rate", "trained", "seed")
    ids = {**{name: f"part-{name}" for name in parts}, **{name: f"tune-{name}".replace("_", "-") for name in of_tuning}}
    asked = {name: one for name, one in settings_of(Tune).items() if one.asked and not isinstance(one, Kept)}
    assert asked.keys() - {"prompt"} == ids.keys()
    for name, elem_id in ids.items():
        assert asked[name].label in components[elem_id]["props"]["label"], name


@pytest.mark.parametrize("kind, card", OF_CARDS, ids=lambda one: getattr(one, "name", getattr(one, "__name__", "")))
def test_a_control_offers_what_the_model_can_do_and_its_default_is_allowed(kind, card):
    for name, setting in settings_of(kind).items():
        if isinstance(setting, Kept) or not setting.asked:
            continue
        there = controls.control(kind, name, card)
        (shown,) = controls.update(kind, name, there, card, setting.default_for(card)).values()
        if setting.needs:
            assert there.visible == shown.visible == setting.taken(card)
        if isinstance(setting, Number) and controls.slides(setting, card):
            allowed = setting.range_for(card)
            assert (there.minimum, there.maximum) == (shown.minimum, shown.maximum) == (allowed.low, allowed.high)
            setting.check(there.minimum, card), setting.check(there.maximum, card)
            setting.check(there.minimum + there.step, card)
        if isinstance(setting, Choice):
            offered_there = [value for _, value in there.choices]
            assert [value for value in offered_there if value] == list(setting.names_for(card))
            assert there.value in offered_there or there.value == ""
        assert isinstance(there.value, bool) == isinstance(setting, Truth)
        default = setting.default_for(card)
        assert default is None or there.value == default  # None: what it follows from is filled in with the model
