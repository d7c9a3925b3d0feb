"""Attacks on the start: settings that can't be, and places that are missing, or something else than they should be."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.attack import target
from scripts.attack.arena import Arena
from scripts.attack.endurance import started_or_said
from scripts.attack.report import Case


def starts(arena: Arena) -> Iterator[Case]:
    """What is wrong at the start is said in one line; what is optional and missing does not matter."""
    wrong = {
        "UPLOAD_MB": ("-5", "0", "many", "1e9", "nan"),
        "UPLOAD_SECONDS": ("-1", "nan", "inf"),
        "UPLOAD_SIDE": ("0", "-1"),
        "UPLOAD_MEMORY_MB": ("-1",),
        "KEEP_DAYS": ("nan", "-1", "inf"),
        "KEEP_GB": ("nan", "-1"),
        "QUEUE": ("-1", "0", "1.5"),
        "QUEUE_EACH": ("-3",),
        "DISK_MARGIN_MB": ("-1",),
        "IDLE_MINUTES": ("nan", "-1"),
        "DEVICE": ("gpu9", ""),
        "MODEL": ("", "../x"),
        "ADMITTED": (",",),
    }
    for name, values in wrong.items():
        for value in values:
            variables = {f"MARIONETTE_{name}": value}
            yield Case(f"{name}={value}", lambda v=variables: _one_line(arena, v), patience=120)
    for name, prepare in BROKEN.items():
        yield Case(name, lambda name=name, prepare=prepare: _starts(arena, name, prepare), patience=240)


def _one_line(arena: Arena, variables: dict[str, str], prepare: Callable[[Path], dict] | None = None) -> str | None:
    folder = arena.folder / f"start-{time.monotonic_ns()}"
    folder.mkdir()
    app, said = started_or_said(folder, variables=variables | (prepare(folder) if prepare else {}))
    if "Traceback" in said:
        return f"a traceback at the start: {said[-300:]!r}"
    if app is not None:
        app.close()
        app.end()
        return "starts as if nothing was wrong"
    if len(said.strip().splitlines()) != 1:
        return f"says more than a line: {said[:300]!r}"
    return None if next(iter(variables)) in said else f"does not name the setting: {said!r}"


def _no_home(folder: Path) -> dict[str, str]:
    return {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere", "HF_HOME": "/proc/nowhere"}


def _proxies(folder: Path) -> dict[str, str]:
    return {
        name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy")
    }


def _file_as(name: str) -> Callable[[Path], dict[str, str]]:
    def prepare(folder: Path) -> dict[str, str]:
        file = folder / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        return {}

    return prepare


def _folder_as(name: str) -> Callable[[Path], dict[str, str]]:
    def prepare(folder: Path) -> dict[str, str]:
        (folder / "data" / name).mkdir(parents=True)
        return {}

    return prepare


def _empty_secret(folder: Path) -> dict[str, str]:
    (folder / "data").mkdir()
    (folder / "data" / "secret").write_text("")
    return {}


# name -> what is broken, with more variables: the app then works, or says in one line why not
BROKEN: dict[str, Callable[[Path], dict[str, str]]] = {
    "no home": _no_home,
    "dead proxies": _proxies,
    "cache is a device": lambda folder: {"MARIONETTE_CACHE": "/dev/null/x"},
    "data is a device": lambda folder: {"MARIONETTE_DATA": "/dev/null/x"},
    "data can't be made": lambda folder: {"MARIONETTE_DATA": "/proc/nowhere"},
    "no place for temporary files": lambda folder: {"TMPDIR": "/dev/null/x"},
    "gradio's folder is a device": lambda folder: {"GRADIO_TEMP_DIR": "/dev/null/x"},
    "a file for videos": _file_as("videos"),
    "a file for clips": _file_as("clips"),
    "a file for images": _file_as("images"),
    "a folder for the log": _folder_as("marionette.log"),
    "a folder for the secret": _folder_as("secret"),
    "an empty secret": _empty_secret,
    "no ffmpeg": lambda folder: {"IMAGEIO_FFMPEG_EXE": "/nowhere/ffmpeg"},
}


def _starts(arena: Arena, name: str, prepare: Callable[[Path], dict[str, str]]) -> str | None:
    folder = arena.folder / f"broken-{name.replace(' ', '-')}"
    folder.mkdir()
    app, said = started_or_said(folder, variables=prepare(folder))
    if "Traceback" in said:
        if app is not None:
            app.close()
            app.end()
        return f"a traceback at the start: {said[-300:]!r}"
    if app is None:
        lines = said.strip().splitlines()
        return None if len(lines) == 1 and "can't start" in said else f"says no clear line: {said[-300:]!r}"
    try:
        answer = app.call("text_to_video", seconds=60, **target.QUICK, visitor_id="f" * 32)
        if answer.status == 200 and not answer.failed:
            return None
        if answer.said and ("MARIONETTE_" in answer.said or "ffmpeg" in answer.said):
            return None
        return f"starts, and makes no video: {answer.said or answer.text[:200]}"
    finally:
        app.close()
        app.end()
