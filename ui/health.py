"""`GET /health`: 200 where videos can be made, 503 where not, and why, as JSON. Everybody may ask."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipelines.serving.backend import Backend

PATH = "/health"


def watched(options: dict[str, Any], backend: Backend) -> dict[str, Any]:
    """`options` of `Blocks.launch` with this route added."""

    def answer(request: Request) -> JSONResponse:
        told = backend.health()
        return JSONResponse(told, 200 if told["ok"] else 503, headers={"Cache-Control": "no-store"})

    more = options.get("app_kwargs", {})
    routes = [*more.get("routes", ()), Route(PATH, answer)]
    return {**options, "app_kwargs": {**more, "routes": routes}}
