"""Messages: plain text to whoever does not know them, and told in the language of who asks."""

import copy
import json
import pickle

import pytest

from pipelines.messages import fill, from_json, said, to_json
from ui import languages
from ui.languages import LANGUAGE, TRANSLATIONS, asked_for, tell

PLACE = "Place {number} in the queue"


@pytest.fixture
def spanish():
    token = LANGUAGE.set("es")
    yield
    LANGUAGE.reset(token)


def test_a_message_is_its_english_text_and_survives_whatever_carries_it(spanish):
    message = said(PLACE, number=3)
    assert message == "Place 3 in the queue" and {message: 1}["Place 3 in the queue"] == 1
    assert json.loads(json.dumps(message)) == "Place 3 in the queue"
    assert f"{message}." == "Place 3 in the queue." and type(f"{message}.") is str
    kept = from_json("Place 3 in the queue", json.loads(json.dumps(to_json(message))))
    for one in (message, str(ValueError(message)), copy.deepcopy(message), pickle.loads(pickle.dumps(message)), kept):
        assert tell(one) == "Puesto 3 en la cola"


def test_values_that_are_messages_are_told_too_and_kept(spanish):
    message = said("{time} left", time=said("about {count:.0f} s", count=4.6))
    assert message == "about 5 s left"
    kept = from_json(message, json.loads(json.dumps(to_json(message))))
    assert tell(kept) == tell(message) == "faltan alrededor de 5 s"


@pytest.mark.parametrize("kept", [None, 7, {}, {"template": PLACE, "values": 7}, {"template": PLACE, "values": {}}])
def test_what_is_damaged_or_has_no_translation_is_told_in_english(spanish, kept):
    assert tell(from_json("Place 3 in the queue", kept)) == "Place 3 in the queue"
    assert tell(said("{count} dragons", count=3)) == "3 dragons" and tell("plain") == "plain"


def test_a_template_reaches_nothing_but_its_values():
    assert fill("{count.__class__} {count!r} {count}", {"count": 1}) == "{count.__class__} {count!r} 1"
    with pytest.raises(KeyError):
        fill("{missing}", {"count": 1})
    assert tell("{what}", what="{count}") == "{count}"


def test_english_is_told_where_no_other_language_is_asked_for_first():
    assert [asked_for(one) for one in ("es", "es-MX,en;q=0.5", "zh-CN", "zh-TW", "ZH")] == ["es"] * 2 + ["zh-CN"] * 3
    for other in (None, "", "en-US,es;q=0.9", "fr", "*", ";;,", "es\x00"):
        assert asked_for(other) == "en"
    assert tell("Progress") == "Progress" and set(TRANSLATIONS) == {"es", "zh-CN"} and languages.ENGLISH
