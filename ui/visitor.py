"""Who a visitor is: a random id that their browser keeps, and that says which jobs and videos are theirs."""

import os
import re
import secrets
from pathlib import Path

import gradio as gr

from pipelines.settings import Settings


def state(settings: Settings) -> gr.BrowserState:
    """The visitor's id. Under a name and a secret that never change, browsers still know it after a restart."""
    return gr.BrowserState("", storage_key="marionette-visitor", secret=_secret(settings.data / "secret"))


def known(value: object) -> str:
    """`value` where it is an id, else a new one. An id can't be guessed: whoever has it is the visitor."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value):
        return value
    return secrets.token_hex(16)


def _secret(file: Path) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    return file.read_text()
