"""The app as a person starts it: `python app.py` in a process of its own, on the built-in miniature."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import urlopen

from programs import ROOT, Program

from pipelines.serving.backend import Backend
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from ui import page

T = TypeVar("T")


@dataclass(frozen=True)
class RunningApp:
    url: str
    data: Path  # where it leaves its videos
    seconds: float  # from the start of the process to the first page
    process: Program | subprocess.Popen


def environment(**variables: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MARIONETTE_", "GRADIO_"))}
    return ours | variables


@contextmanager
def running_app(
    folder: Path, patience: float = 180, program: Sequence[str] = ("app.py",), forked: bool = True, **more: str
) -> Iterator[RunningApp]:
    """Starts the app with its videos in `folder` and `more` variables, waits for the page, and ends it afterwards.

    `program` are Python's arguments, in place of those that start the app as a person does. Where it is not `forked`,
    the interpreter is started anew and imports everything itself.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "videos"
    variables = {
        "MARIONETTE_DATA": str(data),
        "MARIONETTE_HUB": "0",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
    }
    variables = environment(**variables | more)
    url = f"http://127.0.0.1:{port}"
    start = time.monotonic()
    log = folder / "app.log"
    if forked:
        process = Program(program, variables, output=log, errors=log)
    else:
        with open(log, "wb") as file:
            process = subprocess.Popen([sys.executable, *program], cwd=ROOT, env=variables, stdout=file, stderr=file)
    try:
        while not _answers(url):
            said = log.read_text(errors="replace")
            assert process.poll() is None, f"the app ended before its page was there:\n{said}"
            assert time.monotonic() - start < patience, f"no page after {patience} s:\n{said}"
            time.sleep(0.1)
        yield RunningApp(url, data, time.monotonic() - start, process)
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as page:
            return page.status == 200
    except (URLError, ConnectionError):
        return False


def launch_options(settings: Settings) -> dict[str, Any]:
    """What the page of an app with these settings is launched with."""
    with closing(local_backend(settings)) as backend:
        return page.launch_options(backend, settings)


def page_config(folder: Path) -> dict[str, Any]:
    """The page of an app with its data in `folder`, as a browser is told of it."""
    settings = _alone(folder)
    with closing(local_backend(settings)) as backend:
        return json.loads(json.dumps(page.build(backend, settings).get_config_file(), default=str))


@contextmanager
def waiting_backend(folder: Path) -> Iterator[Backend]:
    """A backend with its data in `folder` that takes jobs on and begins none."""
    with closing(local_backend(_alone(folder))) as backend:
        backend.dispatcher.pause()
        yield backend


def _alone(folder: Path) -> Settings:
    return Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False)


def awaited(coroutine: Coroutine[Any, Any, T]) -> T:
    """What comes of `coroutine`, run in a thread of its own: Playwright keeps a loop running in that of the tests."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
