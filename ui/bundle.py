"""`GET /videos.zip`: several videos in one file, which is written while it is sent and takes no room on the disk.

It asks for videos by their own addresses, which nobody can guess: whoever knows them can load each by itself, too.
"""

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlencode
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipelines.messages import said
from pipelines.settings import Settings
from ui.languages import tell_in

PATH = "/videos.zip"
MOST = 48  # videos in one file
CHUNK = 2**18  # bytes that are read at once
_NAME = re.compile("[0-9a-f]{32}/[0-9a-f]{32}")  # of the folder that holds one shown file, among those shown


def address(files: Sequence[str]) -> str:
    """Where the videos at these addresses (see Assets.address) are found as one file, from the root of the app."""
    names = [Path(file).parent.relative_to(Path(file).parent.parent.parent).as_posix() for file in files]
    return f"{PATH}?{urlencode([('of', name) for name in names])}"


def route(settings: Settings) -> Route:
    """The route that answers for the videos that are shown."""
    shown = settings.shown.resolve()

    def answer(request: Request) -> Response:
        if not _may_enter(request):
            return _told(request, said("Give the password on the page first."), 401)
        names = request.query_params.getlist("of")
        if len(names) > MOST or not all(_NAME.fullmatch(name) for name in names):
            return _told(request, said("Choose {most} videos or fewer, by their addresses.", most=MOST), 400)
        found = [file for name in dict.fromkeys(names) for file in sorted((shown / name).glob("*.mp4"))]
        if not found:
            return _told(request, said("These videos are not here any more."), 404)
        headers = {
            "Content-Disposition": f'attachment; filename="marionette-{time.strftime("%Y-%m-%d")}.zip"',
            "Cache-Control": "no-store",
        }
        return StreamingResponse(_zipped(found), media_type="application/zip", headers=headers)

    return Route(PATH, answer)


def _told(request: Request, sentence: str, status: int) -> JSONResponse:
    return JSONResponse({"detail": tell_in(request.headers.get("accept-language"), sentence)}, status)


def _may_enter(request: Request) -> bool:
    """As gradio decides for every file of its own, where there is a password."""
    app = request.app
    cookies = (request.cookies.get(f"access-token-{kind}{app.cookie_id}") for kind in ("", "unsecure-"))
    return app.auth is None or any(app.tokens.get(cookie) is not None for cookie in cookies)


class _Pipe:
    """What ZipFile writes into, without going back, and what has to be sent is taken from."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _zipped(files: Sequence[Path]) -> Iterator[bytes]:
    """The ZIP file of `files`, part by part; those that are deleted meanwhile are left out."""
    pipe, names = _Pipe(), set[str]()
    with ZipFile(pipe, "w", ZIP_STORED) as archive:  # type: ignore[arg-type]
        for file in files:
            try:
                source, changed = file.open("rb"), time.localtime(file.stat().st_mtime)[:6]
            except OSError:
                continue
            name = _unused(file.name, names)
            names.add(name)
            with source, archive.open(ZipInfo(name, max(changed, (1980, 1, 1, 0, 0, 0))), "w") as entry:
                while chunk := source.read(CHUNK):
                    entry.write(chunk)
                    yield pipe.taken()
    yield pipe.taken()


def _unused(name: str, names: set[str]) -> str:
    """`name`, or the same with a number: two videos may be called alike. Plain letters whatever the file is called."""
    stem, suffix = re.sub(r"[^a-z0-9-]+", "-", Path(name).stem.lower()).strip("-") or "video", Path(name).suffix
    tries = (f"{stem}{number}{suffix}" for number in ("", *(f"-{one}" for one in range(2, MOST + 2))))
    return next(one for one in tries if one not in names)
