"""Imports of the large libraries, and of what needs them, while the page goes on serving."""

import ctypes
import gc
import os
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

LARGEST = ("libtorch_cpu.so", "libtorch_cpu.dylib")  # of torch's libraries, as systems call it

_one_at_a_time = threading.RLock()


def imported(name: str) -> ModuleType:
    """The module `name`, which needs torch, imported like any other, with Python's own collections held back at its
    first import.

    torch and diffusers leave 400,000 objects behind. On the way Python would look through all of them six times, for up
    to 0.7 s each in which no other thread runs, the page's least of all. They stand for good: they are taken out of
    what later collections look through (gc.freeze).
    """
    if name in sys.modules:
        return import_module(name)  # it waits for another thread that is still at it
    with _one_at_a_time:
        gc.disable()
        try:
            load_torch_library()
            return import_module(name)
        finally:
            gc.freeze()
            gc.enable()


def load_torch_library() -> None:
    """Loads torch's largest library, where that is not done yet, without Python's lock.

    An import would hold the lock for 0.3 s and more, until the library is there; a foreign call gives it up. Does
    nothing where the library lies elsewhere: then the import finds it.
    """
    torch = None if "torch" in sys.modules or os.name != "posix" else find_spec("torch")
    for folder in (torch and torch.submodule_search_locations) or ():
        for file in (Path(folder) / "lib" / name for name in LARGEST):
            if file.exists():
                ctypes.CDLL(None).dlopen(os.fsencode(file), os.RTLD_LAZY)
