"""Prompts in Spanish and Chinese: read as English by models that know a few words, and by no others."""

import unicodedata

import numpy as np
import pytest

from pipelines.catalog import CATALOG, find
from pipelines.events import Result
from pipelines.media import video
from pipelines.readings import CHINESE, SPANISH, read, worded
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo, Tune
from scripts.miniature.captions import caption
from scripts.miniature.world import sample_words
from ui import html
from ui.languages import TRANSLATIONS
from ui.words import unknown_words, with_word

THEATRE, FULL = find("miniature-modelscope"), find("modelscope-1.7b")
SAID = {"es": SPANISH, "zh-CN": CHINESE}


@pytest.mark.parametrize(
    ("prompt", "english"),
    [
        ("un robot rojo baila en la playa", "a red robot dances on the beach"),
        ("UNA MUJER VESTIDA DE MORADO camina por la ciudad.", "a woman in purple walks in the city"),
        ("un oso blanco y un robot azul bailan en la nieve", "a white bear and a blue robot dance in the snow"),
        ("El astronauta se inclina en el desierto", "an astronaut bows in the desert"),
        ("un oso agita la mano en el bosque", "a bear waves in the forest"),
        ("bailando en el bosque", "someone dances in the forest"),
        ("一个红色的机器人在海滩上跳舞", "a red robot dances on the beach"),
        ("機器人穿著藍色衣服在雪地揮手", "a blue robot waves in the snow"),
        ("一位穿紫色裙子的女人在街上散步", "a woman in purple walks in the city"),
        ("红熊和蓝色机器人在月球上跳跃", "a red bear and a blue robot jump on the moon"),
        ("机器人 dances", "a robot dances"),
    ],
)
def test_a_prompt_is_read_as_a_caption_of_known_words(prompt, english):
    reading = read(prompt, THEATRE.vocabulary)
    assert (reading.text, reading.unknown) == (english, ())
    assert read(unicodedata.normalize("NFD", prompt), THEATRE.vocabulary) == reading
    assert unknown_words(english, THEATRE.vocabulary) == []


@pytest.mark.parametrize(
    ("prompt", "english", "unknown"),
    [
        ("un robot rojo y un dragón bailan", "a red robot dances", ("dragón",)),
        ("一条龙在沙漠里踢腿", "someone kicks in the desert", ("龙",)),
    ],
)
def test_what_it_does_not_know_is_left_out_and_named(prompt, english, unknown):
    reading = read(prompt, THEATRE.vocabulary)
    assert (reading.text, reading.unknown) == (english, unknown)
    page = html.prompt_hints(prompt, THEATRE, None)
    assert f"Read as: {english}" in page and f"“{unknown[0]}”" in page and "robot”" not in page


@pytest.mark.parametrize(
    "prompt", ["", "你好", "dibujos animados", "ein roter Roboter", "a bear named Rosa dances", "12!"]
)
def test_other_prompts_stay_as_they_are(prompt):
    assert read(prompt, THEATRE.vocabulary) is None


def test_english_captions_stay_as_they_are():
    rng = np.random.default_rng(0)
    captions = [caption(sample_words(rng, held_out=None), rng) for _ in range(500)]
    assert [text for text in captions if read(text, THEATRE.vocabulary) is not None] == []


@pytest.mark.parametrize("locale", TRANSLATIONS)
@pytest.mark.parametrize("card", [card for card in CATALOG.values() if card.vocabulary], ids=lambda card: card.name)
def test_every_word_that_a_model_knows_can_be_said_in_every_language(locale, card):
    for words in card.vocabulary.values():
        for word in words:
            for other in SAID[locale][word].split():
                text = f"{other} en la playa" if locale == "es" else other
                reading = read(text, card.vocabulary)
                assert word in reading.text or word.removesuffix("ing") in reading.text, (word, other, reading)
                assert reading.unknown == ()


def test_models_without_a_vocabulary_read_what_was_written():
    assert all(read("un robot rojo baila en la playa", card.vocabulary) is None for card in (FULL, find("makeavid-sd")))
    task = TextToVideo.for_model(FULL, "un robot rojo baila en la playa", 7)
    assert worded(task, FULL.vocabulary) is task


def test_a_tuning_reads_its_caption_and_a_video_what_it_leaves_out():
    tuned = Tune.for_model(find("miniature-sd"), "un oso verde baila", 1, clip="a" * 32)
    assert worded(tuned, find("miniature-sd").vocabulary).prompt == "a green bear dances"
    task = TextToVideo.for_model(THEATRE, "a bear", 7, negative_prompt="la nieve")
    assert worded(task, THEATRE.vocabulary).negative_prompt == "in the snow"


def test_a_word_that_is_pressed_puts_the_prompt_into_english():
    assert with_word("un robot rojo baila", "colours", "blue", THEATRE.vocabulary) == "A robot in blue dancing"
    assert 'data-word="red" tabindex="0" aria-pressed="true"' in html.chips("红色的机器人", THEATRE)


def test_the_video_is_that_of_the_english_prompt_and_tells_both(tmp_path):
    backend = local_backend(Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False))
    made = {}
    try:
        for prompt in ("un robot rojo baila en la playa", "a red robot dances on the beach"):
            job = backend.jobs.submit(TextToVideo.for_model(THEATRE, prompt, 7, frames=8, steps=2), "1" * 32)
            *_, made[prompt] = (event for event in backend.jobs.events(job, "1" * 32) if event is not None)
    finally:
        backend.close()
    spanish, english = made.values()
    assert isinstance(spanish, Result) and isinstance(english, Result)
    assert np.array_equal(video.read(spanish.video), video.read(english.video))
    assert spanish.facts["task"]["prompt"] == "un robot rojo baila en la playa"
    assert spanish.facts["read_as"] == "a red robot dances on the beach" and "read_as" not in english.facts
