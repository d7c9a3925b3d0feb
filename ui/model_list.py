"""The list of a tab's models, which fills in the settings of the one that is chosen."""

from collections.abc import Iterable

import gradio as gr

from pipelines.cards import ModelCard
from ui.languages import say

FILLS = "Fills in its own best settings"


class ModelList:
    """The list, and for which model the settings were filled in last.

    A list of gradio says `input` also when one only looks into it and leaves. Whoever fills in settings then asks for
    which model that was done last, or would put the model's own over those that a visitor has typed.
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
        self.filled = gr.State(first.name)  # the model whose settings were filled in last
        self.form: list[gr.components.Component] = [self.control, self.filled]

    def shows(self, name: str) -> dict:
        """The updates of `form` for one who fills in the settings of the model `name` along with it."""
        return {self.control: name, self.filled: name}
