"""The page's words in the reader's language: English, simplified Chinese or Spanish, by choice or the browser's locale.

Every text that stands on the page goes through `say`, what is made while the app runs through `tell`. The English text,
or the template of a message, is the key in translations/*.json, which hold whole texts with their markup; what is
missing there is shown in English, and found by a test. Examples of prompts stay English. So does what endpoints answer.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from pipelines.messages import Message, fill, said

FOLDER = Path(__file__).resolve().parent / "translations"
TRANSLATIONS: dict[str, dict[str, str]] = {  # locale, as gradio calls it -> English -> the translation
    file.stem: json.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.json"))
}


def _paper(file: Path) -> str:
    """The text of a Markdown file without its heading, a paragraph a line."""
    text = re.sub("^# .*\n+", "", file.read_text("utf-8"))
    return re.sub(r"(?<!\n)\n *(?=[^\s#-])", " ", text).strip()


RESPONSIBLE_USE = _paper(FOLDER.parent.parent / "RESPONSIBLE_USE.md")
for _locale, _words in TRANSLATIONS.items():
    _words[RESPONSIBLE_USE] = _paper(FOLDER / f"responsible_use.{_locale}.md")
ENGLISH = {text: text for words in TRANSLATIONS.values() for text in words}
WORDS = gr.I18n(en=dict(ENGLISH), **{locale: dict(words) for locale, words in TRANSLATIONS.items()})


LANGUAGE: ContextVar[str] = ContextVar("language", default="en")  # of who asks for what is being done


def say(text: str, *values: object) -> I18nData:
    """`text`, written in English, as the reader's browser is to show it; `values` fill its {} in every language.

    Values that are themselves said are so in that language; so are messages, which are escaped for HTML.

    A browser learns these words when it opens the page: what is said with values only later stays English. In another
    text or in HTML, str() of it may stand once.
    """
    filled = _filled(text, values, {})
    if values:
        for locale in ("en", *TRANSLATIONS):  # of values that are filled in themselves, too
            known = WORDS.translations[locale]
            known[filled] = _filled(text, values, known, locale)
    return WORDS(filled)


def tell_in(header: str | None, text: str, **values: object) -> str:
    """As `tell`, to whoever asks with this Accept-Language: for what is answered before any handler runs."""
    return _in(asked_for(header), lambda: tell(text, **values))


def _filled(text: str, values: tuple[Any, ...], known: Mapping[str, str], locale: str = "en") -> str:
    parts = [_part(value, known, locale) for value in values]
    text = known.get(text, text)
    return text.format(*parts) if values else text


def _part(value: Any, known: Mapping[str, str], locale: str) -> Any:
    if isinstance(value, I18nData):
        return known.get(value.key, value.key)
    return escape(_in(locale, lambda: tell(value))) if isinstance(value, Message) else value


def drawn(make: Callable[[], str]) -> I18nData | str:
    """What `make` tells, as the reader's browser is to show it when the page opens: `make` is called once for every
    language. What it tells later, while the app runs, is told in the language of who asks."""
    english = _in("en", make)
    for locale in ("en", *TRANSLATIONS):
        WORDS.translations[locale][english] = _in(locale, make)
    return WORDS(english) if english else ""  # a browser would show what it finds no words for


def _in(locale: str, make: Callable[[], str]) -> str:
    before = LANGUAGE.set(locale)
    try:
        return make()
    finally:
        LANGUAGE.reset(before)


# What is said while the app runs ---------------------------------------------------------------------------------


def asked_for(header: str | None) -> str:
    """The language of a request by its Accept-Language: English where that names none of TRANSLATIONS first.

    The page sends the visitor's choice in it (assets/language.js).
    """
    first = re.split("[,;]", header or "")[0].strip().lower()
    return next((one for one in TRANSLATIONS if one.lower() == first or one.split("-")[0] == first.split("-")[0]), "en")


def tell(text: str, **values: object) -> str:
    """`text` in the language of who asks: a message, or a template with the `values` of its {places}.

    Whatever has no translation is told as it is. So is a message that the data of an older version kept.
    """
    template = text.template if isinstance(text, Message) else text
    message = said(template, **values) if values or not isinstance(text, Message) else text
    translated = TRANSLATIONS.get(LANGUAGE.get(), {}).get(template)
    if translated is None:
        return str.__str__(message)
    told = {name: tell(value) if isinstance(value, Message) else value for name, value in message.values.items()}
    try:
        return translated if message == template else fill(translated, told)
    except (KeyError, TypeError, ValueError):
        return str.__str__(message)


PROMPTS = say("In English; for the paper theatre also in Spanish or Chinese. Ctrl+Enter starts.")
