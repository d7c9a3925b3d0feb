"""What is other here than in gradio's own server: who may ask, what is kept of a session, how errors are told."""

import asyncio
import time
from collections import ChainMap, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import gradio as gr
from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from gradio import routes
from gradio.block_function import BlockFunction
from gradio.blocks import BlocksConfig
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from pipelines.messages import said
from pipelines.serving.backend import log_error
from ui import inputs, visitor
from ui.languages import LANGUAGE, asked_for, tell, tell_in
from ui.origins import Guard, Origins

SESSIONS = 200  # of which gradio keeps what differs from a fresh page
THREADS = 200  # in which handlers run; who follows a job has one for as long
FOLLOWERS = 160  # of one kind: the other threads are for what ends at once
AT_ONCE = 8  # calls of a handler that is not queued
TIDY_SECONDS, LEFT_SECONDS = 60.0, 900.0  # a program may come late for what it asked for
UNFIT = said("What was sent is not what this action takes. /gradio_api/info says what that is.")
ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


class Page(gr.Blocks):
    """Blocks that keep little of a session, limit every handler, and answer whatever goes wrong in a sentence."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.default_config = _Layout(self)
        self._at_once: defaultdict[int, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))

    def queue(self, *args: Any, **options: Any) -> "Page":
        for event in self.fns.values():
            if event.concurrency_limit is None:
                event.concurrency_limit = FOLLOWERS
        super().queue(*args, api_open=False, **options)
        self._queue.compute_analytics_summary = lambda records: {}  # a pandas table of 10,000 rows after every event
        return self

    def get_config_file(self) -> Any:
        """The description of the page, of which every visitor's is a copy, in parts that are not copied along."""
        config: dict[str, Any] = super().get_config_file()
        for parts in ("components", "dependencies"):
            config[parts] = [_Fixed(part) for part in config[parts]]
        for part in ("layout", "page", "i18n_translations"):
            config[part] = _Fixed(config[part] or {})
        return config

    async def process_api(self, block_fn: BlockFunction, inputs: list[Any], **rest: Any) -> dict[str, Any]:
        request: Any = rest.get("request")
        if isinstance(request, gr.Request) and request.client is not None:
            visitor.ADDRESS.set(request.client.host)
        told = isinstance(request, gr.Request) and block_fn.api_visibility != "public"  # programs read English
        LANGUAGE.set(asked_for(request.headers.get("accept-language")) if told else "en")
        try:
            if block_fn.queue:
                return await super().process_api(block_fn, inputs, **rest)
            async with self._at_once[block_fn._id]:
                return await super().process_api(block_fn, inputs, **rest)
        except gr.Error:
            raise
        except Exception as error:
            words = [value for value in inputs if isinstance(value, str)]
            sentence = log_error(error, f"Action {block_fn.api_name}", words, undone=said("nothing was changed"))
            raise gr.Error(tell(sentence), title=tell("Error"), print_exception=False) from error

    async def preprocess_data(self, block_fn: BlockFunction, inputs: list[Any], *rest: Any) -> list[Any]:
        try:
            return await super().preprocess_data(block_fn, inputs, *rest)
        except Exception as error:
            raise gr.Error(tell(UNFIT), title=tell("Error"), print_exception=False) from error


class _Fixed(dict):
    """What nobody changes: a deep copy is the same. Copying 1.8 MB took a third of a second for every page."""

    def __deepcopy__(self, memo: dict) -> "_Fixed":
        return self


class _Layout(BlocksConfig):
    """gradio's list of components, of which every session has a copy: only what is another in that session is copied.

    The settings of all components, 0.8 MB a session, are for links to a page as somebody left it, which this app does
    not offer.
    """

    def __copy__(self) -> BlocksConfig:
        copied = super().__copy__()
        copied.blocks = cast("dict[int, Any]", ChainMap({}, self.blocks))
        copied.__class__ = _SessionLayout
        return copied


class _SessionLayout(BlocksConfig):
    @staticmethod
    def config_for_block(*block: Any) -> dict[str, Any]:
        return _NOTHING


_NOTHING: dict[str, Any] = {}


class App(routes.App):
    """gradio's application behind the guard."""

    def __init__(self, origins: Origins, middleware: Sequence[Middleware] = (), more: Sequence[BaseRoute] = ()):
        """`middleware` stands behind the guard; `more` are routes beside gradio's."""
        super().__init__(
            middleware=list(middleware),
            routes=list(more),
            default_response_class=routes.ORJSONResponse,
            openapi_url=None,  # it would list gradio's own routes; what the app offers stands in /gradio_api/info
            dependencies=[Depends(inputs.check)],
            exception_handlers={RequestValidationError: _unfit, **dict.fromkeys((*ERRORS, Exception), _failed)},
        )
        self._origins = origins

    def build_middleware_stack(self) -> ASGIApp:
        return Guard(super().build_middleware_stack(), self._origins)


@asynccontextmanager
async def tidied(app: App) -> AsyncIterator[None]:
    """While the app runs, what gradio's queue keeps of sessions that nobody listens to any more is forgotten."""

    async def tidy() -> None:
        left: dict[str, float] = {}
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            left = forget(app, left, time.monotonic())

    task = asyncio.create_task(tidy())
    try:
        yield
    finally:
        task.cancel()


def forget(app: routes.App, left: Mapping[str, float], now: float) -> dict[str, float]:
    """Forgets the sessions all of whose events ended LEFT_SECONDS ago without being told to anybody.

    `left` says since when each was seen so; returned is the same for the next time.
    """
    queue = app.get_blocks()._queue
    app.iterators_to_reset &= queue.event_ids_to_events.keys()
    over = [
        session
        for session, events in queue.pending_event_ids_session.items()
        if not any(event in queue.event_ids_to_events for event in events)
    ]
    seen = {session: left.get(session, now) for session in over}
    for session, since in seen.items():
        if now - since >= LEFT_SECONDS:
            del queue.pending_event_ids_session[session]
            queue.pending_messages_per_session.pop(session, None)
    return {session: since for session, since in seen.items() if now - since < LEFT_SECONDS}


def _told(request: Request, sentence: str, status: int) -> JSONResponse:
    sentence = tell_in(request.headers.get("accept-language"), sentence)
    return JSONResponse({"detail": sentence, "error": sentence}, status)


async def _unfit(request: Request, error: RequestValidationError) -> JSONResponse:
    first: Mapping[str, Any] = error.errors()[0]
    place = " ".join(str(part) for part in first["loc"])
    told = said("What was sent can't be read: {place}: {problem}.", place=place, problem=first["msg"])
    return _told(request, told, 422)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, TypeError | ValueError) and "/call/v2/" in request.url.path:  # an argument is missing, or new
        return _told(request, f"{error}".split(" Please ")[0], 422)
    where = f"{request.method} {request.scope['route'].path}"
    return _told(request, log_error(error, where, (), undone=said("nothing was changed")), 500)
