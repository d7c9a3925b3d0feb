"""Who a visitor is: a random id that their browser keeps, and that says which jobs and videos are theirs."""

import inspect
import re
import secrets
from contextvars import ContextVar
from functools import wraps
from typing import Any

import gradio as gr

from pipelines.serving.backend import Backend, Owners

ADDRESS: ContextVar[str] = ContextVar("address", default="")  # which asks for what is being done


def state(backend: Backend) -> gr.BrowserState:
    """The visitor's id. Under a name and a secret that never change, browsers still know it after a restart."""
    return gr.BrowserState("", storage_key="marionette-visitor", secret=backend.owners.browser_secret)


def known(value: object) -> str:
    """`value` where it is an id, else a new one. An id can't be guessed: whoever has it is the visitor."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value):
        return value
    return secrets.token_hex(16)


class ForVisitors:
    """The backend, for those who know visitors by their ids: every method that takes an owner takes an id instead.

    This is the only place where an id becomes an owner, so that no id is kept behind it. Of the backend there are only
    the objects that the page asks.
    """

    def __init__(self, backend: Backend):
        self.owners = backend.owners
        self.jobs, self.assets, self.tunings, self.previews, self.machine = (
            _ForIds(part, backend.owners)
            for part in (backend.jobs, backend.assets, backend.tunings, backend.previews, backend.machine)
        )


class _ForIds:
    """One of the backend's objects."""

    def __init__(self, asked: Any, owners: Owners):
        self._asked, self._owners = asked, owners

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._asked, name)
        signature = inspect.signature(method)
        if "owner" not in signature.parameters:
            return method

        @wraps(method)
        def call(*values: object, **named: object) -> Any:
            given = signature.bind(*values, **named)
            given.arguments["owner"] = self._owners.of(given.arguments["owner"])
            return method(*given.args, **given.kwargs)

        return call
