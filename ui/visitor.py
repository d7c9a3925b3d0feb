"""Who a visitor is: a random id that their browser keeps, and that says which jobs and videos are theirs."""

import hmac
import os
import re
import secrets
from contextvars import ContextVar
from pathlib import Path

import gradio as gr

from pipelines.settings import Settings

ADDRESS: ContextVar[str] = ContextVar("address", default="")  # which asks for what is being done


def state(settings: Settings) -> gr.BrowserState:
    """The visitor's id. Under a name and a secret that never change, browsers still know it after a restart."""
    return gr.BrowserState("", storage_key="marionette-visitor", secret=secret(settings))


def known(value: object) -> str:
    """`value` where it is an id, else a new one. An id can't be guessed: whoever has it is the visitor."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value):
        return value
    return secrets.token_hex(16)


def of_user(subject: str, key: str) -> str:
    """The id of a signed-in user, by what their Hub account is called for ever; the same on every device.

    Without the `key` nobody can make or guess one.
    """
    first = _half("user " + subject, key)
    return first + _half("proof " + first, key)


def is_of_user(value: object, key: str) -> bool:
    """Whether `value` is an id that `of_user` made."""
    if not isinstance(value, str):
        return False
    return hmac.compare_digest(value[16:].encode(), _half("proof " + value[:16], key).encode())


def _half(text: str, key: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha256").hex()[:16]


def secret(settings: Settings) -> str:
    """What only this app knows, kept among its data."""
    file: Path = settings.data / "secret"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    return file.read_text()
