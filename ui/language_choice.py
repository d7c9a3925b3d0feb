"""The visitor's choice of a language: a script that runs before gradio's, in every page that the server sends."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.catalog import ASSETS

CHOICE = (  # a part of a template: assets/language.js says which one is selected
    '<select class="language" aria-label="Language · Idioma · 语言">'
    + "".join(
        f'<option value="{locale}" lang="{locale}" ${{language === "{locale}" ? "selected" : ""}}>{name}</option>'
        for locale, name in {"en": "English", "es": "Español", "zh-CN": "中文"}.items()
    )
    + "</select>"
)
_SCRIPT = f"<script>{(ASSETS / 'language.js').read_text('utf-8')}</script>".encode()
_BEFORE = b"<head>"


class Scripted:
    """An ASGI app whose pages begin with the script. gradio takes `head` too late: it has chosen a language by then."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return await self._app(scope, receive, send)
        start: Message | None = None
        body = b""

        async def scripted(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                if not dict(message["headers"]).get(b"content-type", b"").startswith(b"text/html"):
                    return await send(message)
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body"):
                    whole = body.replace(_BEFORE, _BEFORE + _SCRIPT, 1)
                    rest = [(name, value) for name, value in start["headers"] if name != b"content-length"]
                    await send({**start, "headers": [*rest, (b"content-length", str(len(whole)).encode())]})
                    await send({"type": "http.response.body", "body": whole})

        await self._app(scope, receive, scripted)
