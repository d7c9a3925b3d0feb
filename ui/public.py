"""Where the web server runs: a folder among the data that holds what browsers load and what they upload, and no more.

gradio tells clients the paths of files, and takes the folder that it runs in for one that may be served. So it runs
where there is nothing else, and every path that it tells is relative to that. It would also serve what was uploaded,
to anybody who knows its name: `Shut` keeps that back, and what only developers of gradio want.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.catalog import ASSETS, MOTIONS
from pipelines.settings import Settings

PICTURES = (ASSETS / "examples", MOTIONS)
_OF_FILES = re.compile(r"/file[=/](.*)", re.DOTALL)  # in the paths by which gradio serves files
MADE = "made-"  # how folders begin, among those of the uploads, that hold what was made for a client
_RANGE = re.compile(rb"bytes=[0-9, -]*")
_FOR_DEVELOPERS = re.compile(r"(/gradio_api)?/dev/reload/?")


def enter(settings: Settings) -> Settings:
    """Makes the folder the one that this process runs in, and returns `settings` for there. To be called once, before
    the page is built."""
    settings = replace(settings, data=settings.data.absolute(), cache=settings.cache.absolute())
    folder = settings.shown.parent
    settings.uploads.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    os.environ["GRADIO_TEMP_DIR"] = str(settings.uploads.relative_to(folder))
    return settings


def picture(file: Path) -> str:
    """Where a browser that shows the page finds a picture that belongs to it, in one of PICTURES."""
    return f"pictures/{file.parent.name}/{quote(file.name)}"


def pictures() -> list[Mount]:
    """The routes of the page's own pictures. Within the page they would be half of its bytes."""
    return [Mount(f"/pictures/{folder.name}", StaticFiles(directory=folder)) for folder in PICTURES]


class Shut:
    """Answers 404 where an upload is asked for, or what only developers of gradio want, and passes over a range of a
    file that is none (RFC 9110, 14.2)."""

    def __init__(self, app: ASGIApp, settings: Settings):
        self._app, self._uploads = app, os.path.realpath(settings.uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._is_shut(scope["path"]):
                return await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            scope["headers"] = [one for one in scope["headers"] if one[0] != b"range" or _RANGE.fullmatch(one[1])]
        await self._app(scope, receive, send)

    def _is_shut(self, path: str) -> bool:
        if _FOR_DEVELOPERS.fullmatch(path):
            return True
        asked = _OF_FILES.search(path)
        if asked is None:
            return False
        try:
            found = os.path.realpath(asked.group(1))
        except (OSError, ValueError):  # a null byte, or a name too long: no file
            return False
        if os.path.commonpath((found, self._uploads)) != self._uploads:
            return False
        return not os.path.relpath(found, self._uploads).startswith(MADE)
