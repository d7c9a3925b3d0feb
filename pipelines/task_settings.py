"""What a setting of a task is: declared once, beside the field that holds it, and read by everything that asks for it.

Tasks check values by these declarations. The page's controls, the endpoints, the command line and the table of a
comparison are made from them. Standard library only.
"""

import re
import unicodedata
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

from pipelines.cards import ModelCard, Range
from pipelines.messages import Message, said

MAX_PROMPT = 2_000  # characters; CLIP reads 77 tokens, so that more is a mistake and not a wish
# What is kept, by its id; in a file that left the app, by the SHA-256 of its content (serving/content.py).
_NAME = "[0-9a-f]{32}|[0-9a-f]{64}"

OfModel = Callable[[Any], Any]  # of a ModelCard
Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One thing that can be set in a task."""

    label: str  # on the page and in comparisons
    help: str  # one plain sentence for whoever sets it
    noun: str  # in an error: "The number of frames must be …"; of a truth: "Whether the sound is kept must be …"
    default: object = ""  # the value where nothing is said, or a function from the model's card to it
    unit: str = ""  # of numbers
    # What a model must take for this to count, in words, or a function from its card to that; "" where every one does.
    needs: str | Callable[[ModelCard], str] = ""
    taken: OfModel = lambda card: True  # whether this model does
    flag: str = ""  # of the command line, where --name is not what people would type; for a truth, what turns it off
    asked: bool = True  # whether a person may set it; else it follows from what the task works on

    @property
    def called(self) -> Message:
        """Its noun, for a sentence; told in another language, its label."""
        return Message(self.noun, self.label, {})

    def default_for(self, card: ModelCard | None) -> Any:
        """The value where nothing is said."""
        return self.default(card) if callable(self.default) else self.default

    def check(self, value: object, card: ModelCard | None) -> Any:
        """`value`, as the task holds it. Raises ValueError, in words for the person who set it, for what `card` can't
        do or what makes no sense."""
        raise NotImplementedError

    def refused(self, value: object, card: ModelCard | None) -> bool:
        """Whether `value` asks for something of which `card` can make no use."""
        return bool(self.needs) and not self.taken(card) and value != self.default_for(card)


@dataclass(frozen=True, kw_only=True)
class Text(Setting):
    """Words, as somebody typed them; line breaks and double spaces count for nothing."""

    empty: str = ""  # the error where there are none; "" where there need be none

    def check(self, value: object, card: ModelCard | None) -> str:
        if not isinstance(value, str):
            raise ValueError(said("The {noun} must be text, not {value}.", noun=self.called, value=_called(value)))
        # Control characters and halves of surrogate pairs can't be typed, and break files and terminals.
        if any(unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\t\n\r" for letter in value):
            raise ValueError(
                said("The {noun} holds control characters. Type it again as plain text.", noun=self.called)
            )
        value = " ".join(value.split())
        if len(value) > MAX_PROMPT:
            raise ValueError(
                said(
                    "The {noun} has {count} characters. Shorten it to {most} or fewer.",
                    noun=self.called,
                    count=len(value),
                    most=MAX_PROMPT,
                )
            )
        if not value and self.empty:
            raise ValueError(self.empty)
        return value


@dataclass(frozen=True, kw_only=True)
class Number(Setting):
    """A number: whole ones where the range has steps, any where it has none."""

    within: Range | OfModel
    optional: bool = False  # whether there may be none: None
    typed: bool = False  # whether people type it, where a slider would be too coarse
    by: float = 0.0  # how far one step of a slider goes, where the range has none; 0 where people type it then

    def range_for(self, card: ModelCard | None) -> Range:
        """The numbers that `card` can do."""
        return self.within if isinstance(self.within, Range) else self.within(card)

    def check(self, value: object, card: ModelCard | None) -> int | float | None:
        return None if value is None and self.optional else number(self.called, value, self.range_for(card))


@dataclass(frozen=True, kw_only=True)
class Truth(Setting):
    """Yes or no."""

    def check(self, value: object, card: ModelCard | None) -> bool:
        if not isinstance(value, bool):
            raise ValueError(said("Whether {noun} must be true or false.", noun=self.called))
        return value


@dataclass(frozen=True, kw_only=True)
class Choice(Setting):
    """One of a few, each with a name in tasks and a title for people; "" for none where that is the default."""

    choices: Mapping[str, str]
    nothing: str = ""  # what a person reads for none, where there may be none
    offered: OfModel | None = None  # the names of those that a model can do, where not all

    def names_for(self, card: ModelCard | None) -> tuple[str, ...]:
        """The names of those that `card` can do."""
        return tuple(self.choices) if self.offered is None else self.offered(card)

    def check(self, value: object, card: ModelCard | None) -> str:
        if value == self.default == "":
            return ""
        names = self.names_for(card)
        if not isinstance(value, str) or value not in names:
            raise ValueError(
                said(
                    "There is no {noun} called {value}. Choose one of: {names}.",
                    noun=self.called,
                    value=repr(str(value)[:40]),
                    names=", ".join(names),
                )
            )
        return value


@dataclass(frozen=True, kw_only=True)
class OneOf(Setting):
    """One of a few numbers."""

    numbers: tuple[int, ...]

    def check(self, value: object, card: ModelCard | None) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value not in self.numbers:
            among = ", ".join(map(str, self.numbers))
            raise ValueError(
                said(
                    "The {noun} must be one of {among}, not {value}.",
                    noun=self.called,
                    among=among,
                    value=repr(str(value)[:40]),
                )
            )
        return value


@dataclass(frozen=True, kw_only=True)
class Kept(Setting):
    """The name of something that the app keeps for the visitor: an upload, or the job that made it."""

    missing: str  # the error where there is none of that name
    required: bool = False
    built_in: Callable[[], Container[str]] = tuple  # the names of what comes with the app, and is everybody's

    def check(self, value: object, card: ModelCard | None) -> str:
        if not isinstance(value, str) or value == "" and self.required:
            raise ValueError(self.missing)
        if value != "" and not is_name(value) and value not in self.built_in():
            raise ValueError(self.missing)
        return value


def is_name(value: object) -> bool:
    """Whether something that is kept could be called so."""
    return isinstance(value, str) and re.fullmatch(_NAME, value) is not None


def _called(value: object) -> str:
    """What sort of thing came out of JSON, in a word."""
    words = {bool: said("true or false"), int: said("a number"), list: said("a list"), dict: said("an object")}
    words[float] = words[int]
    return words.get(type(value), said("nothing") if value is None else said("something else"))


def number(noun: str, value: object, allowed: Range) -> int | float:
    """`value` as an int, or as a float where `allowed` has no steps; a whole float counts as an int.

    Raises ValueError where it is no number or not `allowed`.
    """
    low, high, step = allowed.low, allowed.high, allowed.step
    if value is None:
        raise ValueError(
            said(
                "The {noun} must be a number from {low:.10g} to {high:.10g}, and there is none.",
                noun=noun,
                low=low,
                high=high,
            )
        )
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(
            said(
                "The {noun} must be a number from {low:.10g} to {high:.10g}, not {value}.",
                noun=noun,
                low=low,
                high=high,
                value=repr(str(value)[:40]),
            )
        )
    if not low <= value <= high:
        raise ValueError(
            said(
                "The {noun} must be from {low:.10g} to {high:.10g}, not {value}.",
                noun=noun,
                low=low,
                high=high,
                value=str(value)[:40],
            )
        )
    if step == 0:
        return float(value)
    if value not in allowed:
        kind = said("a whole number") if step == 1 else said("a multiple of {step:g}", step=step)
        if low % step:
            first = ", ".join(f"{low + times * step:g}" for times in range(3))
            kind = said("one of {first}, … {last}", first=first, last=allowed.numbers(high)[-1])
        raise ValueError(said("The {noun} must be {kind}, not {value:g}.", noun=noun, kind=kind, value=value))
    return int(value)


def declared(setting: Setting) -> Any:
    """The field of a task, a dataclass, that holds `setting`."""
    return field(metadata={"setting": setting})


@dataclass_transform(frozen_default=True, field_specifiers=(declared, field))
def taskclass(kind: type[Kind]) -> type[Kind]:
    """Makes a class a kind of task: a frozen dataclass whose fields hold settings that are `declared`."""
    return dataclass(frozen=True)(kind)


def settings_of(task: type) -> dict[str, Setting]:
    """The settings of a kind of task, by the names of its fields, in their order."""
    return {one.name: one.metadata["setting"] for one in fields(task) if "setting" in one.metadata}


def checked(task: type, card: ModelCard | None, given: Mapping[str, object]) -> dict[str, Any]:
    """The value of every setting of `task`: what is `given`, or else its default for `card`, None for a task without a
    model.

    Raises ValueError for the first that is wrong, and for a name that is no setting.
    """
    settings = settings_of(task)
    if unknown := given.keys() - settings.keys():
        raise ValueError(said("There is no setting called {names}.", names=", ".join(sorted(unknown))[:80]))
    values = {name: given[name] if name in given else one.default_for(card) for name, one in settings.items()}
    for name, setting in settings.items():
        if card is not None and setting.refused(values[name], card):
            needs = setting.needs(card) if callable(setting.needs) else setting.needs
            raise ValueError(
                said(
                    "{title} takes no {needs}. Leave it out, or choose another model.",
                    title=said(card.title),
                    needs=Message(needs, setting.label, {}),
                )
            )
    return {name: setting.check(values[name], card) for name, setting in settings.items()}


def recalled(task: type, values: Mapping[str, object]) -> dict[str, Any]:
    """`values` of an older version of the app, with the defaults of those settings that it did not know."""
    defaults = {name: one.default for name, one in settings_of(task).items() if not callable(one.default)}
    return defaults | dict(values)
