"""The page's own words in the reader's language: English, simplified Chinese and Spanish, by the browser's locale.

Every text that stands on the page goes through `say`. Its English is its key in translations/*.json, which hold whole
texts with their markup; what is missing there is shown in English, and found by a test. What is made while the app
runs stays English: errors, facts, how far a job is, estimates, and hints on a prompt. So do prompts, which the models
know in no other language.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

FOLDER = Path(__file__).resolve().parent / "translations"
TRANSLATIONS: dict[str, dict[str, str]] = {  # locale, as gradio calls it -> English -> the translation
    file.stem: json.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.json"))
}
ENGLISH = {text: text for words in TRANSLATIONS.values() for text in words}
WORDS = gr.I18n(en=dict(ENGLISH), **{locale: dict(words) for locale, words in TRANSLATIONS.items()})


def say(text: str, *values: object) -> I18nData:
    """`text`, written in English, as the reader's browser is to show it; `values` fill its {} in every language.

    Values that are themselves said are so in that language.

    A browser learns these words when it opens the page: what is said with values only later stays English. In another
    text or in HTML, str() of it may stand once.
    """
    filled = _filled(text, values, {})
    if values:
        for locale, known in (("en", ENGLISH), *TRANSLATIONS.items()):
            WORDS.translations[locale][filled] = _filled(text, values, known)
    return WORDS(filled)


def _filled(text: str, values: tuple[Any, ...], known: Mapping[str, str]) -> str:
    parts = [known.get(value.key, value.key) if isinstance(value, I18nData) else value for value in values]
    text = known.get(text, text)
    return text.format(*parts) if values else text


ENGLISH_ONLY = say("In English. Ctrl+Enter starts.")  # of prompts
