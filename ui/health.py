"""`GET /health`: 200 where videos can be made, 503 where not, and why, as JSON. Everybody may ask.

`GET /metrics` tells more, to a Prometheus server, where the settings say so.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from pipelines.serving.backend import Backend

PATH, METRICS = "/health", "/metrics"


def route(backend: Backend) -> Route:
    """The route that answers for `backend`."""

    def answer(request: Request) -> JSONResponse:
        told = backend.machine.health()
        return JSONResponse(told, 200 if told["ok"] else 503, headers={"Cache-Control": "no-store"})

    return Route(PATH, answer)


def metrics(backend: Backend) -> Route:
    """Likewise, in Prometheus' text format."""

    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(backend.machine.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Route(METRICS, answer)
