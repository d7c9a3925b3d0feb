"""The list of a tab's models, which fills in the settings of the one that is chosen."""

from collections.abc import Callable, Iterable

import gradio as gr

from pipelines.cards import ModelCard
from ui.follower import QUIET
from ui.languages import say

FILLS = "Fills in its own best settings"


class ModelList:
    """The list, and for which model the settings were filled in last.

    A list of gradio says `input` also when one only looks into it and leaves. Without that note, this would put the
    model's settings over those that a visitor has typed.
    """

    def __init__(
        self, cards: Iterable[ModelCard], first: ModelCard, elem_id: str, label: str = "Model", info: str = FILLS
    ):
        """Builds the list where it is called; `first` is chosen."""
        self.control = gr.Dropdown(
            [(say(card.title), card.name) for card in cards],
            value=first.name,
            label=say(label),
            info=say(info),
            filterable=False,
            elem_id=elem_id,
        )
        self._filled = gr.State(first.name)
        self.form: list[gr.components.Component] = [self.control, self._filled]  # the outputs of who `shows` a model

    def shows(self, name: str) -> dict:
        """The updates of `form` for one who fills in the settings of the model `name` along with it."""
        return {self.control: name, self._filled: name}

    def chosen(
        self, fill: Callable[[str], dict], outputs: Iterable[gr.components.Component], **event: object
    ) -> gr.events.Dependency:
        """Has `fill` give the updates of `outputs` for a model that a visitor has chosen."""

        def choose(name: str, filled: str) -> dict:
            return {self._filled: name} | (fill(name) if name != filled else {})

        return self.control.input(choose, self.form, [self._filled, *outputs], **QUIET | event)
