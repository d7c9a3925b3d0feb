"""gradio's own upload route: a request is refused before its body is read where there is no room for it."""

from contextlib import AsyncExitStack

from fastapi.concurrency import contextmanager_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.messages import said
from pipelines.serving.backend import Backend
from ui.languages import tell_in

PATH = "/gradio_api/upload"
UNSIZED = said("An upload must say beforehand how long it is (Content-Length).")


class UploadLimit:
    """Lets an upload in while the backend has room for it. The server holds a request to the length that it told."""

    def __init__(self, app: ASGIApp, backend: Backend):
        self._app, self._backend = app, backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith(PATH):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not length.isdecimal() or len(length) > 15:
            return await _told(headers, UNSIZED, 411)(scope, receive, send)
        async with AsyncExitStack() as held:
            try:
                await held.enter_async_context(
                    contextmanager_in_threadpool(self._backend.assets.receiving(int(length)))
                )
            except ValueError as error:
                return await _told(headers, str(error), 507)(scope, receive, send)
            await self._app(scope, receive, send)


def _told(headers: Headers, sentence: str, status: int) -> JSONResponse:
    return JSONResponse({"detail": tell_in(headers.get("accept-language"), sentence)}, status)
