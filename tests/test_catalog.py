"""The catalog: complete, and in step with the drawn world whose words it lists."""

import pytest

from pipelines.catalog import CATALOG, SCHEDULERS, find
from scripts.miniature.world import ACTIONS, CHARACTERS, COLOURS, PLACES


@pytest.mark.parametrize("card", CATALOG.values(), ids=CATALOG)
def test_cards_tell_what_a_visitor_should_know(card):
    for text in (card.title, card.summary, card.licence, card.shortcomings, card.not_for, card.needs):
        assert len(text) > 10
    assert card.defaults.scheduler in card.schedulers and set(card.schedulers) <= set(SCHEDULERS)
    assert card.source.is_folder or card.source.location.count("/") == 1


def test_the_paper_theatre_lists_the_words_it_was_drawn_with():
    vocabulary = find("miniature-modelscope").vocabulary
    drawn = {"characters": CHARACTERS, "colours": tuple(COLOURS), "places": PLACES, "actions": ACTIONS}
    assert dict(vocabulary) == drawn


@pytest.mark.parametrize("name", ["", "nothing", None, 7, ["modelscope-1.7b"], "../../etc"])
def test_unknown_models_are_refused_with_the_choice(name):
    with pytest.raises(ValueError, match="Choose one of: miniature-modelscope"):
        find(name)
