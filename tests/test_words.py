"""The hint about unknown words: silent on everything the paper theatre learned, and on how people put it."""

import numpy as np
import pytest

from pipelines.catalog import find
from scripts.miniature.captions import caption
from scripts.miniature.world import sample_words
from ui.words import chosen_words, unknown_words, with_word

VOCABULARY = find("miniature-modelscope").vocabulary


def test_no_caption_it_learned_from_has_an_unknown_word():
    rng = np.random.default_rng(0)
    for _ in range(500):
        text = caption(sample_words(rng, held_out=None), rng)
        assert unknown_words(text, VOCABULARY) == [], text


@pytest.mark.parametrize(
    "prompt",
    [
        "a robot in blue waving on the beach",
        "A bear wearing green dances in the snow!",
        "the astronaut's orange suit, jumping on the moon",
        "robots danced and kicked in snowy forests",
        "Show me a video of a woman who walks through cities in a white dress",
        "A PERSON DRESSED IN PINK BOWS",
        "an android waves hello by the sea",
        "",
        "12345 !?",
    ],
)
def test_how_people_put_known_things_is_known(prompt):
    assert unknown_words(prompt, VOCABULARY) == []


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a dragon in green plays guitar on the beach", ["dragon", "plays", "guitar"]),
        ("a cat and a cat and a Dog", ["cat", "dog"]),
        ("a black robot", ["black"]),
        ("机器人 dances", ["机器人"]),
    ],
)
def test_other_words_are_named_once_in_their_order(prompt, unknown):
    assert unknown_words(prompt, VOCABULARY) == unknown


@pytest.mark.parametrize(
    ("prompt", "kind", "word", "becomes"),
    [
        ("", "characters", "astronaut", "An astronaut"),
        ("An astronaut", "places", "moon", "An astronaut on the moon"),
        ("a bear wearing green dances in the snow", "colours", "red", "A bear in red dancing in the snow"),
        ("A bear in red dancing in the snow", "actions", "dancing", "A bear in red in the snow"),  # pressed again
        ("A robot in blue waving on the beach", "places", "forest", "A robot in blue waving in the forest"),
        ("A dragon in blue sings", "colours", "pink", "A dragon in pink sings"),
        ("A dragon sings", "places", "city", "A dragon sings in the city"),
    ],
)
def test_a_word_that_is_pressed_takes_its_place_in_the_prompt(prompt, kind, word, becomes):
    assert with_word(prompt, kind, word, VOCABULARY) == becomes


def test_only_words_of_the_vocabulary_can_be_pressed():
    for kind, word in (("colours", "black"), ("spells", "red"), ("places", "red")):
        with pytest.raises(ValueError, match="does not list"):
            with_word("a bear", kind, word, VOCABULARY)


def test_every_caption_says_its_own_words():
    rng = np.random.default_rng(0)
    for _ in range(200):
        words = sample_words(rng, held_out=None)
        chosen = chosen_words(caption(words, rng), VOCABULARY)
        assert chosen == {
            "characters": words.character, "colours": words.colour, "places": words.place, "actions": words.action
        }  # fmt: skip
