"""`GET /health`: 200 where videos can be made, 503 where not, and why, as JSON. Everybody may ask."""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipelines.serving.backend import Backend

PATH = "/health"


def route(backend: Backend) -> Route:
    """The route that answers for `backend`."""

    def answer(request: Request) -> JSONResponse:
        told = backend.machine.health()
        return JSONResponse(told, 200 if told["ok"] else 503, headers={"Cache-Control": "no-store"})

    return Route(PATH, answer)
