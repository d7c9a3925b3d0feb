"""What a request says, looked at before gradio does: odd values are refused in a sentence, not by a bare 500."""

import math
from collections.abc import Mapping

from fastapi import HTTPException, Request

from pipelines.messages import said
from ui.languages import tell_in

DEPTH = 12  # of lists and objects within each other
VALUES = 5000  # in one request
SESSION_LETTERS = 64  # of the name that a page gives itself
EVENTS_EACH = 64  # that one address may have waiting or running in gradio's queue
QUEUED = ("/queue/join", "/call/")


async def check(request: Request) -> None:
    """A dependency of every route of the app. Raises HTTPException with a sentence for what can't be meant."""
    queue = request.app.get_blocks()._queue
    event = request.path_params.get("event_id")
    if request.method == "GET" and event is not None and "/call/" in request.url.path:
        waited = any(event in events for events in queue.pending_event_ids_session.values())
        if not (event in queue.event_ids_to_events or event in queue.pending_messages_per_session or waited):
            raise HTTPException(404, _told(request, said("There is no such event. It may have been told already.")))
    if request.method != "POST" or "json" not in request.headers.get("content-type", ""):
        return
    try:
        body = await request.json()
    except Exception:  # FastAPI, which reads it too, says what is wrong
        return
    wrong = problem(body)
    if wrong is not None:
        raise HTTPException(400, _told(request, wrong))
    if isinstance(body, dict):
        _check_action(request, body)
    if any(part in request.url.path for part in QUEUED) and request.client is not None:
        mine = sum(_host(event.request) == request.client.host for event in queue.event_ids_to_events.values())
        if mine >= EVENTS_EACH:
            busy = said("{count} requests of your address are waiting already. Wait for one to end.", count=mine)
            raise HTTPException(429, _told(request, busy))


def problem(value: object) -> str | None:
    """What is wrong with a value out of JSON, in a sentence; None where nothing is."""
    left, nested = VALUES, [(value, 0)]
    while nested:
        one, depth = nested.pop()
        left -= 1
        if left < 0 or depth > DEPTH:
            return said(
                "Too much at once: a request holds {most} values or fewer, {depth} levels deep or less.",
                most=VALUES,
                depth=DEPTH,
            )
        match one:
            case str():
                if not one.isascii() and any("\ud800" <= letter <= "\udfff" for letter in one):
                    return said("The text has a character that is none: half of a surrogate pair.")
            case bool() | None:
                pass
            case int():
                if abs(one) >= 2**63:
                    return said("A number is too large: whole numbers have 64 bits.")
            case float():
                if not math.isfinite(one):
                    return said("A number is too large, or none.")
            case list():
                nested += ((item, depth + 1) for item in one)
            case dict():
                nested += ((item, depth + 1) for pair in one.items() for item in pair)
    return None


def _check_action(request: Request, body: Mapping[str, object]) -> None:
    """Raises HTTPException where no action of the page is meant."""
    session = body.get("session_hash")
    if isinstance(session, str) and len(session) > SESSION_LETTERS:
        long = said("A session_hash has {most} letters or fewer.", most=SESSION_LETTERS)
        raise HTTPException(400, _told(request, long))
    blocks = request.app.get_blocks()
    if "/component_server" in request.url.path:
        if not isinstance(session, str) or not isinstance(body.get("fn_name"), str):
            raise HTTPException(400, _told(request, said("A session_hash and an fn_name are text.")))
        if type(body.get("component_id")) is not int or body["component_id"] not in blocks.blocks:
            raise HTTPException(404, _told(request, said("There is no such component.")))
        return
    name = request.path_params.get("api_name")
    if name is None and "fn_index" not in body:
        return
    fns = blocks.fns
    number = body.get("fn_index")
    known = number in fns if type(number) is int else any(fn.api_name == name for fn in fns.values())
    if not known:
        raise HTTPException(
            404, _told(request, said("There is no such action. /gradio_api/info lists those that there are."))
        )


def _told(request: Request, sentence: str) -> str:
    return tell_in(request.headers.get("accept-language"), sentence)


def _host(request: Request) -> str:
    return request.client.host if request.client is not None else ""
