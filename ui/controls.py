"""Controls made from the declared settings of tasks: words, limits, choices and defaults stand beside their fields.

What a control shows and what an update of it changes come from the same declaration, so that no tab can forget one.
"""

from collections.abc import Mapping

import gradio as gr

from pipelines.cards import ModelCard, Range
from pipelines.catalog import CATALOG, SCHEDULERS
from pipelines.task_settings import Choice, Number, OneOf, Setting, Text, Truth, settings_of
from pipelines.tasks import Edit, Finish, PoseToVideo, TextToVideo, Tune
from ui.languages import say

Control = gr.components.Component
Controls = dict[str, Control]  # by the names of settings
KINDS = (TextToVideo, PoseToVideo, Tune, Edit, Finish)  # the tasks that have controls


def control(
    kind: type,
    name: str,
    card: ModelCard | None = None,
    prefix: str = "",
    as_: type[Control] | None = None,
    **rest: object,
) -> Control:
    """Builds the control of a setting of `kind`, as `card` recommends it, where it is called.

    Its id is the setting's name after `prefix`. `as_` is another component than the declaration asks for, and `rest`
    are properties of it; they win.
    """
    setting = settings_of(kind)[name]
    value = setting.default_for(card)
    said = {"label": say(setting.label), "info": say(setting.help), "elem_id": f"{prefix}{name.replace('_', '-')}"}
    component = as_ or _component(setting, card)
    plain = {gr.Slider: {"buttons": []}, gr.Dropdown: {"filterable": False}, gr.Textbox: {"max_lines": 4}}
    return component(**plain.get(component, {}) | said | _shown(setting, card) | {"value": value} | rest)


def controls(kind: type, names: tuple[str, ...], card: ModelCard | None, prefix: str = "") -> Controls:
    """As `control`, for several settings, one below the other."""
    return {name: control(kind, name, card, prefix) for name in names}


def update(kind: type, name: str, there: Control, card: ModelCard, value: object) -> dict:
    """An update of the control that is `there`: it shows `value`, and what `card` can do."""
    return {there: type(there)(**_shown(settings_of(kind)[name], card) | {"value": value})}


def updates(kind: type, there: Controls, card: ModelCard, values: Mapping[str, object]) -> dict:
    """As `update`, for all that are `there`, with the LoRA of `values`; what is not in `values` has its default."""
    settings, card = settings_of(kind), card.with_lora(values.get("lora", ""))
    found = {name: values[name] if name in values else settings[name].default_for(card) for name in there}
    return {key: one for name in there for key, one in update(kind, name, there[name], card, found[name]).items()}


def choices(setting: Choice | OneOf, card: ModelCard | None) -> list[tuple[object, object]]:
    """What can be chosen, as (what a person reads, the value)."""
    if isinstance(setting, OneOf):
        return [(f"{one}×", one) for one in setting.numbers]
    nothing = [(say(setting.nothing), "")] if setting.nothing else []
    told = str if setting.choices is SCHEDULERS else say  # names of samplers are the same in every language
    return [*nothing, *((told(setting.choices[name]), name) for name in setting.names_for(card))]


def slides(setting: Number, card: ModelCard | None) -> bool:
    """Whether the number is moved on a slider; else it is typed."""
    return not setting.typed and bool(setting.range_for(card).step or setting.by)


def _component(setting: Setting, card: ModelCard | None) -> type[Control]:
    match setting:
        case Text():
            return gr.Textbox
        case Truth():
            return gr.Checkbox
        case Choice(offered=None) | OneOf():
            return gr.Radio
        case Choice():
            return gr.Dropdown
        case Number():
            return gr.Slider if slides(setting, card) else gr.Number
    raise TypeError(f"There is no control for {type(setting).__name__}.")


def _shown(setting: Setting, card: ModelCard | None) -> dict[str, object]:
    """The properties of a control that depend on the model."""
    shown: dict[str, object] = {}
    if setting.needs and card is not None:
        shown["visible"] = setting.taken(card)
    if isinstance(setting, Choice | OneOf):
        shown["choices"] = choices(setting, card)
    if isinstance(setting, Number) and slides(setting, card):
        allowed = setting.range_for(card)
        shown |= {"minimum": allowed.low, "maximum": allowed.high, "step": allowed.step or setting.by}
    elif isinstance(setting, Number) and setting.unit == "px":
        shown |= _pixels(setting.range_for(card))
    return shown


def _pixels(allowed: Range) -> dict[str, object]:
    """How a side is asked for; one that can't be changed says so. Its limits are checked with the task."""
    if allowed.low == allowed.high:
        return {"info": say("{:g} pixels, always", allowed.low), "interactive": False}
    return {
        "info": say("{:g} to {:g} pixels, by {:g}", allowed.low, allowed.high, allowed.step),
        "interactive": True,
    }


for _card in CATALOG.values():  # so that a browser learns the words for every model
    _pixels(_card.limits.side)
