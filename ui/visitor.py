"""Who a visitor is: a random id that their browser keeps, and that says which jobs and videos are theirs."""

import inspect
import re
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

import gradio as gr

from pipelines.serving.backend import Backend

ADDRESS: ContextVar[str] = ContextVar("address", default="")  # which asks for what is being done


def state(backend: Backend) -> gr.BrowserState:
    """The visitor's id. Under a name and a secret that never change, browsers still know it after a restart."""
    return gr.BrowserState("", storage_key="marionette-visitor", secret=backend.browser_secret)


def known(value: object) -> str:
    """`value` where it is an id, else a new one. An id can't be guessed: whoever has it is the visitor."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value):
        return value
    return secrets.token_hex(16)


class ForVisitors:
    """The backend, for those who know visitors by their ids: every method that takes an owner takes an id instead.

    This is the only place where an id becomes an owner, so that no id is kept behind it.
    """

    def __init__(self, backend: Backend):
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._backend, name)
        if not callable(method) or "owner" not in inspect.signature(method).parameters:
            return method
        return self._for_id(method)

    def _for_id(self, method: Callable) -> Callable:
        signature = inspect.signature(method)

        @wraps(method)
        def call(*values: object, **named: object) -> Any:
            given = signature.bind(*values, **named)
            given.arguments["owner"] = self._backend.owner(given.arguments["owner"])
            return method(*given.args, **given.kwargs)

        return call
