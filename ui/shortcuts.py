"""The controls that make a video faster and change it: the same in every tab, and all of them off at first."""

from collections.abc import Callable, Sequence

import gradio as gr

from pipelines.cards import ModelCard
from pipelines.model_tasks import SHORTCUTS
from ui import controls
from ui.follower import QUIET
from ui.languages import say


def build(kind: type, card: ModelCard, prefix: str = "") -> controls.Controls:
    """The controls of `kind` for `card`, in the order of SHORTCUTS. Ids begin with `prefix`."""
    with gr.Accordion(say("Faster, with a different result"), open=False, elem_id=f"{prefix}shortcuts"):
        return controls.controls(kind, tuple(SHORTCUTS), card, prefix)


def choose(
    kind: type,
    there: controls.Controls,
    card_of: Callable[..., ModelCard],
    inputs: Sequence[gr.components.Component],
) -> None:
    """A LoRA that is chosen fills in its own steps, guidance and sampler, and none the model's.

    `card_of` tells the model by the values of `inputs`; `there` are the controls of `kind`, those of the sampling too.
    """
    sampled = {name: there[name] for name in ("steps", "guidance", "scheduler")}

    def fill_in(name: str, *values: object) -> dict:
        return controls.updates(kind, sampled, card_of(*values), {"lora": name})

    quiet = QUIET | {"queue": False}
    there["lora"].input(fill_in, [there["lora"], *inputs], list(sampled.values()), **quiet)
