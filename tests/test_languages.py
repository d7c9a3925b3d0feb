"""The page in every language: what stands on it is said in each, and no language has what nobody says."""

import ast
import json
import re

import pytest
from running_app import launch_options, page_config

from pipelines.catalog import CATALOG
from pipelines.detectors import DETECTORS
from pipelines.messages import Message
from pipelines.settings import Settings
from scripts.translations import ROOT, UI, declared, messages, plain, readable, said, unsaid_errors, unsaid_markup
from ui.languages import LANGUAGE, TRANSLATIONS, WORDS, drawn, say, tell

MARK = "__i18n__"
READ = ("label", "info", "placeholder")  # props that a person reads, of any component; and of these also the value:
SAID_BY_VALUE = {"button", "html", "markdown", "uploadbutton", "downloadbutton", "duplicatebutton", "loginbutton"}
NAMES = {card.title for card in (*CATALOG.values(), *DETECTORS.values()) if "built in" not in card.title}
NAMES |= {"MP4", "GIF", "WebM", "curl", "7, 8, 9"}
ALIKE = {"Detector", "Error", "robot", "Prompt", "Clip", "No"}  # the same word in Spanish
OTHERWISE = {  # files whose errors no visitor of the page meets -> who does
    **dict.fromkeys(
        ("settings.py", "owners.py", "places.py", "rows.py", "agents.py", "ray_executor.py"), "whoever starts the app"
    ),
    **dict.fromkeys(("__main__.py", "classes.py"), "whoever gives a folder to the command line"),
    "drained.py": "whoever runs the app",
    "access.py": "whoever starts the app, and gradio's own page that asks for a password",
    "origins.py": "whoever starts the app, and programs",
    "api.py": "programs",
    "ages.py": "nobody: it is caught",
    "sidecar.py": "nobody: it is caught",
    "states.py": "nobody: it is caught",
    "openpose_parser.py": "nobody: it is caught",
    **dict.fromkeys(("inflated_unet.py", "pose_adapter.py", "pseudo3d_unet.py", "engine.py"), "whoever adds a model"),
}
MISTAKES = (  # errors that only whoever changes the code meets, or starts the app
    *("Not Found", "A video is made of frames", " is not for a browser", " has no part ", "Poses are made of joints"),
    *("The smoothing must be", "The skeletons can be placed", "This machine has no device", "MARIONETTE_MODEL is"),
)
AT_RUN_TIME = {  # component -> why it is in English
    "motions": "the name of a built-in motion, as endpoints want it; its cards are named by its label",
    "scheduler": "names of samplers",
    "pose-scheduler": "likewise",
    "edit-scheduler": "likewise",
}


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    """The page's components as a browser gets them, without those that only stand for the parameters of endpoints."""
    config = page_config(tmp_path_factory.mktemp("languages"))
    of_endpoints = {
        name for one in config["dependencies"] if one["api_visibility"] == "public" for name in one["inputs"]
    }
    there = set()

    def collect(node):
        there.add(node["id"])
        for child in node.get("children") or ():
            collect(child)

    collect(config["layout"])
    return [one for one in config["components"] if one["id"] in there - of_endpoints]


def texts(component):
    """What a person reads of it before anything has happened."""
    props = component["props"]
    if component["type"] == "api" or "unseen" in (props.get("elem_classes") or ()):
        return
    yield from (props.get(name) for name in READ)
    if component["type"] in SAID_BY_VALUE:
        yield props.get("value")
    for name, *_ in props.get("choices") or ():
        yield name


def key(text):
    """What is said in `text`, by its English; None where nothing is."""
    if MARK not in text:
        return None
    return json.JSONDecoder().raw_decode(text[text.index(MARK) + len(MARK) :])[0]["key"]


def test_every_text_of_the_page_is_said_in_every_language(components):
    plainly, lacking = set(), set()
    for one in components:
        for text in texts(one):
            if not isinstance(text, str) or not readable(text) or text in NAMES:
                continue
            if (english := key(text)) is None:
                if one["props"].get("elem_id") not in AT_RUN_TIME:
                    plainly.add(text[:90])
            else:
                lacking |= {(locale, english) for locale in TRANSLATIONS if english not in WORDS.translations[locale]}
    assert plainly == set() and lacking == set()


def test_no_text_stands_plainly_in_the_source_of_the_page():
    for file in UI.glob("*.py"):
        found = [one.value for one in plain(ast.parse(file.read_text("utf-8"))) if one.value not in NAMES]
        assert found == [], f"{file.name}: python -m scripts.translations --wrap"


def test_no_markup_of_the_page_has_words_in_english_only():
    names = {"access.py": "Marionette", "language_choice.py": "Language · Idioma · 语言", "html.py": "Marionette"}
    for file in UI.glob("*.py"):
        found = [text for _, text in unsaid_markup(ast.parse(file.read_text("utf-8")))]
        assert [text for text in found if names.get(file.name, "none") not in text] == [], file.name


def test_no_error_that_a_visitor_meets_is_in_english_only():
    for file in (*(ROOT / "pipelines").rglob("*.py"), *UI.glob("*.py")):
        if file.name not in OTHERWISE:
            found = [text.replace("\0", "") for _, text in unsaid_errors(ast.parse(file.read_text("utf-8")))]
            assert [text for text in found if not text.startswith(MISTAKES)] == [], file


def test_every_language_says_the_same_and_only_what_somebody_says(components):
    source = (declared() | messages()).union(*(said(ast.parse(file.read_text("utf-8"))) for file in UI.glob("*.py")))
    shown = {key(text) for one in components for text in texts(one) if isinstance(text, str)}
    assert set(TRANSLATIONS) == {"es", "zh-CN"}
    for locale, words in TRANSLATIONS.items():
        assert source - words.keys() == set(), locale
        assert words.keys() - source - shown == set(), locale


@pytest.mark.parametrize("locale", TRANSLATIONS)
def test_a_translation_is_one_and_keeps_markup_values_and_parts(locale):
    for english, translated in TRANSLATIONS[locale].items():
        assert "}" not in re.sub(r"{[^{}]*}", "", english) and "__" not in english  # what gradio could not read
        if english not in NAMES | ALIKE and readable(re.sub(r"{[^}]*}", "", english)):
            assert translated != english and translated.strip(), english
        for kept in (r"<[^>]+>", r"\|", r"\n", r"\*\*"):
            assert re.findall(kept, translated) == re.findall(kept, english), english
        places = [sorted(re.findall(r"{[^}]*}", text)) for text in (translated, english)]  # each language has its order
        assert places[0] == places[1], english


def test_values_are_filled_in_in_every_language_and_what_is_unknown_stays_english():
    assert key(str(say("Person {}", 77))) == "Person 77"
    assert (
        WORDS.translations["es"]["Person 77"] == "Persona 77" and WORDS.translations["en"]["Person 77"] == "Person 77"
    )
    assert WORDS.translations["zh-CN"]["Person 77"] == "人物 77"
    say("{} dragons", 3)
    assert WORDS.translations["es"].pop("3 dragons") == "3 dragons"
    for words in WORDS.translations.values():
        words.pop("3 dragons", None), words.pop("Person 77", None)


def test_the_page_is_launched_with_its_languages(tmp_path):
    assert launch_options(Settings(data=tmp_path))["i18n"] is WORDS


def test_what_is_drawn_when_the_page_opens_is_in_every_language_and_messages_in_it_too():
    english = key(str(drawn(lambda: f"<p>{tell('Progress')}</p>")))
    assert english == "<p>Progress</p>" and WORDS.translations["es"][english] == "<p>Progreso</p>"
    card = key(str(say("{}|", Message("There is no <b>", "There is no folder {folder}.", {"folder": "<b>"}))))
    assert WORDS.translations["es"][card] == "No existe la carpeta &lt;b&gt;.|" and LANGUAGE.get() == "en"
    for words in WORDS.translations.values():
        words.pop(english, None), words.pop(card, None)
