"""The controls that make a video faster and change it: the same in every tab, and all of them off at first."""

from collections.abc import Callable, Mapping, Sequence

import gradio as gr

from pipelines.catalog import CATALOG, SCHEDULERS, ModelCard
from pipelines.tasks import CACHING, PRECISIONS, SHORTCUTS
from ui.languages import say
from ui.media import slider

Controls = dict[str, gr.components.Component]  # in the order of SHORTCUTS


def build(card: ModelCard, prefix: str = "") -> Controls:
    """The controls for `card`. Ids begin with `prefix`."""
    with gr.Accordion(say("Faster, but another video"), open=False, elem_id=f"{prefix}shortcuts"):
        controls = {
            "lora": gr.Dropdown(
                _loras(card),
                value="",
                visible=bool(card.loras),
                label=say("Speed"),
                info=say("What was trained to need few steps; the first video downloads it"),
                filterable=False,
                elem_id=f"{prefix}lora",
            ),
            "precision": gr.Dropdown(
                _precisions(),
                value="exact",
                visible="precision" in card.takes,
                label=say("Precision"),
                filterable=False,
                elem_id=f"{prefix}precision",
            ),
            "caching": slider(
                CACHING.range_for(card),
                1,
                visible="caching" in card.takes,
                label=say("Steps that share deep features"),
                info=say("1 computes them in every step"),
                elem_id=f"{prefix}caching",
            ),
        }
        for name, label, value in (
            ("guided_from", say("Guidance begins"), 0),
            ("guided_until", say("Guidance ends"), 1),
        ):
            controls[name] = gr.Slider(
                *(0, 1, value),
                step=0.05,
                visible=name in card.takes,
                label=label,
                info=say("0 is noise, 1 the finished video"),
                buttons=[],
                elem_id=f"{prefix}{name.replace('_', '-')}",
            )
    return controls


def fill(controls: Controls, card: ModelCard, values: Mapping[str, object]) -> dict:
    """Updates that show what `card` can do, and those of `values` that are shortcuts; the others are off."""
    values = {**SHORTCUTS, **values}
    updates = {controls["lora"]: gr.Dropdown(_loras(card), value=values["lora"], visible=bool(card.loras))}
    precision = gr.Dropdown(_precisions(), value=values["precision"], visible="precision" in card.takes)
    updates[controls["precision"]] = precision
    for name in ("caching", "guided_from", "guided_until"):
        updates[controls[name]] = gr.Slider(value=values[name], visible=name in card.takes)
    return updates


def choose(controls: Controls, card_of: Callable[..., ModelCard], inputs: Sequence[gr.components.Component]) -> None:
    """A LoRA that is chosen fills in its own steps, guidance and sampler, and none the model's.

    `card_of` tells the model by the values of `inputs`; `controls` hold those of the sampling, too.
    """

    def fill_in(name: str, *values: object) -> dict:
        card = card_of(*values).with_lora(name)
        return {
            controls["steps"]: card.defaults.steps,
            controls["guidance"]: card.defaults.guidance,
            controls["scheduler"]: samplers(card, card.defaults.scheduler),
        }

    outputs = [controls[name] for name in ("steps", "guidance", "scheduler")]
    quiet = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    controls["lora"].input(fill_in, [controls["lora"], *inputs], outputs, **quiet)


def samplers(card: ModelCard, value: object) -> gr.Dropdown:
    """The update of a control that chooses one of the card's."""
    return gr.Dropdown([(SCHEDULERS[name], name) for name in card.schedulers], value=value)


def _precisions() -> list[tuple[object, str]]:
    return [(say(title), name) for name, title in PRECISIONS.items()]


def _loras(card: ModelCard) -> list[tuple[object, str]]:
    return [(say("As published"), ""), *((say(lora.title), name) for name, lora in card.loras.items())]


for _card in CATALOG.values():  # so that a browser learns the words for every model
    _loras(_card)
