"""Who may enter: everybody, whoever knows the password, or the Hub users whom the owner of a Space admits."""

import asyncio
import math
import os
import time
from collections.abc import Mapping
from hmac import compare_digest
from html import escape
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.messages import said
from pipelines.settings import Settings
from ui import health, hub, visitor
from ui.attempts import Attempts
from ui.languages import tell_in
from ui.origins import Origins

OWNER = "owner"  # in the setting: whoever the Space belongs to
# The only paths that lead to a door that is shut: signing in and out, what gradio asks itself when it starts, and what
# those ask who watch over the app.
OPEN = ("/login/huggingface", "/login/callback", "/logout", "/gradio_api/startup-events", health.PATH)
SIGN_IN = said("This copy of Marionette is private. Sign in with Hugging Face first, in a browser, on its page.")

PATIENCE = 10.0  # seconds for which the answer to a password is held back; where more is due, it is refused

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Marionette</title>
<style>
  :root { color-scheme: light dark }
  body { font: 1.1rem/1.6 Georgia, serif; max-width: 34rem; margin: 18vh auto; padding: 0 1.5rem; text-align: center }
  a { display: inline-block; margin-top: 1rem; padding: .6rem 1.4rem; border: 2px solid; border-radius: .5rem;
      color: inherit; text-decoration: none }
</style>
<h1>Marionette</h1>
<p>%s</p>
<a href="%s" target="_blank">%s</a>
</html>"""


def gate(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[Middleware]:
    """What stands before the app where `settings` admit some Hub users only.

    Raises ValueError where nobody could sign in.
    """
    names = admitted(settings, environment)
    return [Middleware(AccessGate, names=names)] if names else []


def admitted(settings: Settings, environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """The Hub names, in small letters, of those whom `settings` admit; none where everybody may come.

    Raises ValueError where nobody could sign in.
    """
    if not settings.admitted:
        return frozenset()
    # Off Spaces gradio makes believe that whoever clicks has signed in.
    if environment.get("SYSTEM") != "spaces" or not hub.offered(environment):
        raise ValueError(
            "MARIONETTE_ADMITTED asks people to sign in with Hugging Face, which only a Space whose README says "
            "hf_oauth: true offers. Elsewhere, MARIONETTE_PASSWORD keeps strangers out."
        )
    names = {name.strip() for name in settings.admitted.casefold().split(",")}
    if OWNER in names:
        names = names - {OWNER} | {environment["SPACE_ID"].casefold().split("/")[0]}
    if "" in names:
        raise ValueError(f"MARIONETTE_ADMITTED={settings.admitted!r} must be Hub names with commas between, or owner.")
    return frozenset(names)


def is_open(settings: Settings) -> bool:
    """Whether anybody may come from anywhere, so that a link leads there whoever gets it."""
    return not settings.password and not settings.admitted and Origins.of(settings).public


def password(settings: Settings) -> dict[str, Any]:
    """What `Blocks.launch` needs to ask for the password that is set, if one is."""
    if not settings.password:
        return {}

    attempts = Attempts()

    async def opens(name: str, given: str) -> bool:
        address = visitor.ADDRESS.get()
        while wait := attempts.wait(address):  # of several at once only one is heard after each wait
            if wait > PATIENCE:
                told = f"Too many wrong passwords. Try again in {math.ceil(wait)} seconds."
                raise HTTPException(429, told, headers={"Retry-After": str(math.ceil(wait))})
            await asyncio.sleep(wait)
        right = compare_digest(given.encode(errors="replace"), settings.password.encode())
        (attempts.right if right else attempts.wrong)(address)
        return right

    return {"auth": opens, "auth_message": "Any name, and the password that the owner of this copy has set."}


class AccessGate:
    """Stands before every page, endpoint and file of the app, and lets in only who signed in under one of `names`.

    It reads the session that gradio's own middleware, further out, has found in a signed cookie.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str]):
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN:
            return await self._app(scope, receive, send)
        name = _signed_in(scope.get("session", {}))
        if name.casefold() in self._names:
            return await self._app(scope, receive, send)
        await _refusal(name, scope)(scope, receive, send)


def _signed_in(session: Mapping[str, Any]) -> str:
    """The Hub name of who has signed in; "" for nobody."""
    info = session.get("oauth_info")
    if info is None or info.get("expires_at", math.inf) < time.time():
        return ""
    return info["userinfo"]["preferred_username"]


def _refusal(name: str, scope: Scope) -> Response:
    language = Headers(scope=scope).get("accept-language")
    unknown = tell_in(
        language,
        "This copy of Marionette is private, and {name} is not admitted. Sign out, or ask its owner.",
        name=name,
    )
    unsaved = {"Cache-Control": "no-store"}
    if scope["path"] == "/" and scope.get("method") in ("GET", "HEAD"):
        told = (
            (escape(unknown), "/logout", tell_in(language, "Sign out"))
            if name
            else (tell_in(language, "This copy is private."), OPEN[0], tell_in(language, "Sign in with Hugging Face"))
        )
        return HTMLResponse(_PAGE % told, headers=unsaved)  # status 200, as of gradio's own page that asks a password
    return JSONResponse(
        {"detail": unknown if name else tell_in(language, SIGN_IN)}, 403 if name else 401, headers=unsaved
    )
