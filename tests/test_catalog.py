"""The catalog: complete, and in step with the drawn world whose words it lists."""

import pytest

from pipelines.cards import Range
from pipelines.catalog import CAPABILITIES, CATALOG, ENGINES, SCHEDULERS, find
from scripts.miniature.world import ACTIONS, CHARACTERS, COLOURS, PLACES


@pytest.mark.parametrize("card", CATALOG.values(), ids=CATALOG)
def test_cards_tell_what_a_visitor_should_know(card):
    for text in (card.title, card.summary, card.licence, card.shortcomings, card.not_for, card.needs):
        assert len(text) > 10
    assert card.defaults.scheduler in card.schedulers and set(card.schedulers) <= set(SCHEDULERS)
    assert card.system in ENGINES and card.takes <= CAPABILITIES.keys()
    assert card.source.is_folder or card.source.location.count("/") == 1


def test_a_range_counts_from_its_lower_end():
    assert [number for number in range(140) if number in Range(1, 129, 4)] == list(range(1, 130, 4))
    assert 264 in Range(256, 768, 8) and 260 not in Range(256, 768, 8) and 0.3 in Range(0.1, 60, 0)
    assert list(Range(1, 129, 4).numbers(12)) == [1, 5, 9] and list(Range(8, 24).numbers(99))[-1] == 24


def test_the_paper_theatre_lists_the_words_it_was_drawn_with():
    vocabulary = find("miniature-modelscope").vocabulary
    drawn = {"characters": CHARACTERS, "colours": tuple(COLOURS), "places": PLACES, "actions": ACTIONS}
    assert dict(vocabulary) == drawn


@pytest.mark.parametrize("name", ["", "nothing", None, 7, ["modelscope-1.7b"], "../../etc"])
def test_unknown_models_are_refused_with_the_choice(name):
    with pytest.raises(ValueError, match="Choose one of: miniature-modelscope"):
        find(name)
