"""What is said to a person: a sentence in English that can be said in other languages. Standard library only."""

import re
from collections.abc import Mapping
from typing import Any

_FIELD = re.compile(r"{(\w+)(?::([^{}]*))?}")  # a value's place in a template: {count} or {seconds:.1f}


class Message(str):
    """An English sentence that knows the template it was made of, its key in translations, and the template's values.

    Logs, endpoints and the command line take it for the text that it is. Values may be messages themselves. str() of
    it, or of an exception that holds it alone, is the message; other operations give plain text.
    """

    template: str
    values: Mapping[str, Any]

    def __new__(cls, text: str, template: str, values: Mapping[str, Any]) -> "Message":
        made = super().__new__(cls, text)
        made.template, made.values = template, values
        return made

    def __str__(self) -> str:
        return self

    def __reduce__(self) -> tuple:
        return Message, (str.__str__(self), self.template, self.values)


def said(template: str, **values: object) -> Message:
    """The sentence that `template` and the `values` of its {places} make; without values, as it is to be filled later.

    The template stands word by word in the source: that is how tests find what is to be translated.
    """
    return Message(fill(template, values) if values else template, template, values)


def fill(template: str, values: Mapping[str, object]) -> str:
    """`template` with `values` in its places. Raises KeyError where one is missing, and ValueError where one does not
    suit its format; nothing else of a value can be reached."""
    return _FIELD.sub(lambda place: format(values[place[1]], place[2] or ""), template)


def to_json(text: str) -> dict[str, Any] | None:
    """What JSON keeps of a message beside its text; None of a text that is none."""
    if not isinstance(text, Message):
        return None
    return {"template": text.template, "values": {name: _plain(value) for name, value in text.values.items()}}


def from_json(text: str, kept: object) -> str:
    """`text` as the message of which `to_json` made `kept`; as it is where that is damaged or None."""
    template, values = (kept.get("template"), kept.get("values")) if isinstance(kept, dict) else (None, None)
    if not isinstance(template, str) or not isinstance(values, dict):
        return text
    return Message(text, template, {name: _message(value) for name, value in values.items()})


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return {"text": str.__str__(value), **(to_json(value) or {})}
    return value if isinstance(value, int | float) else str(value)


def _message(value: object) -> object:
    return from_json(str(value.get("text", "")), value) if isinstance(value, dict) else value
