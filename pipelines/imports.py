"""Imports of the large libraries, and of what needs them, while the page goes on serving."""

import gc
import sys
import threading
from importlib import import_module
from types import ModuleType

_one_at_a_time = threading.RLock()


def imported(name: str) -> ModuleType:
    """The module `name`, imported like any other, with Python's own collections held back at its first import.

    torch and diffusers leave 400,000 objects behind. On the way Python would look through all of them six times, for up
    to 0.7 s each in which no other thread runs, the page's least of all. They stand for good: they are taken out of
    what later collections look through (gc.freeze).
    """
    if name in sys.modules:
        return import_module(name)  # it waits for another thread that is still at it
    with _one_at_a_time:
        gc.disable()
        try:
            return import_module(name)
        finally:
            gc.freeze()
            gc.enable()
