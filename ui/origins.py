"""Which requests reach the app: those of its own pages and of programs. Pages of other sites neither act nor read."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.settings import Settings
from ui import visitor

Network = IPv4Network | IPv6Network

HUB = "https://huggingface.co"  # shows a Space in a frame
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
INSIDE = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 127.0.0.0/8 fc00::/7 ::1"
PRIVATE = tuple(map(ip_network, INSIDE.split()))  # where the proxies of a Space are
FORWARDED = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-gradio-server")
CHANGING = ("/logout", "/gradio_api/logout")  # a GET that changes something
# Endpoints of gradio that this page does not use: they write files or run ffmpeg for whoever asks.
CLOSED = ("/gradio_api/deep_link", "/gradio_api/process_recording", "/gradio_api/vibe-", "/gradio_api/undo-vibe-edit")
UPLOADS = ("/gradio_api/upload", "/gradio_api/component_server")  # limited by the size of a file
BODY_BYTES = 256 * 1024  # of any other request: a longer JSON would hold up the event loop
CONNECTIONS_EACH = 300  # open requests of one address


@dataclass(frozen=True)
class Origins:
    """Who may ask."""

    listed: frozenset[str]  # origins such as "https://example.org" that may use the app, beside its own
    names: frozenset[str] | None  # of hosts under which the app may be called; None: any
    proxies: tuple[Network, ...]  # whose X-Forwarded headers are believed
    space: bool  # a Space is shown in a frame of another site, and reached through proxies only

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str] = os.environ) -> "Origins":
        """What `settings` allow. Raises ValueError for an origin or a network that can't be read."""
        space, root = environment.get("SYSTEM") == "spaces", environment.get("GRADIO_ROOT_PATH", "")
        listed = {_origin(text) for text in _split(settings.origins)}
        listed |= {_origin(root)} if "://" in root else set()
        if space:
            listed |= {HUB} | {f"https://{host}" for host in _split(environment.get("SPACE_HOST", ""))}
        server = environment.get("GRADIO_SERVER_NAME", "127.0.0.1").strip("[]")
        names = None
        if server in LOOPBACK and not space:
            names = LOOPBACK | {urlsplit(origin).hostname or "" for origin in listed}
        return cls(frozenset(listed), names, tuple(map(_network, _split(settings.trusted_proxies))), space)

    @property
    def public(self) -> bool:
        """Whether the app answers to others than this machine."""
        return self.names is None or bool(self.names - LOOPBACK - {""})

    def trusts(self, peer: str) -> bool:
        return self.space or _within(peer, self.proxies)

    def client(self, peer: str, forwarded: str) -> str:
        """The address that asks: the last in X-Forwarded-For that is none of the proxies'."""
        proxies = self.proxies + (PRIVATE if self.space else ())
        for address in [*reversed(_split(forwarded)), peer] if self.trusts(peer) else [peer]:
            if not _within(address, proxies):
                return address
        return peer

    def refusal(self, method: str, path: str, headers: Headers) -> str | None:
        """Why a request is not answered, in a sentence; None where it is.

        A page says in Origin or Sec-Fetch-Site where it comes from, and can't help it; programs say neither.
        """
        name = _name(headers.get("host", ""))
        if self.names is not None and name not in self.names and not name.endswith(".localhost"):
            return (
                "This app does not answer under that name. Open it at the address that it told when it started; behind "
                "a proxy, MARIONETTE_ORIGINS lists its public address."
            )
        if not self.foreign(headers):
            return None
        if method in ("GET", "HEAD") and path not in CHANGING and ("cookie" not in headers or self._visits(headers)):
            return None
        return "A page of another site may not ask for this. The owner of this app can list it in MARIONETTE_ORIGINS."

    def foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site") in ("cross-site", "same-site")
        return origin not in self.listed and not _same_host(origin, headers.get("host", ""))

    def _visits(self, headers: Headers) -> bool:
        """Whether somebody followed a link to the app, or opened a page that shows it in a frame."""
        shown = ("document", "iframe") if self.listed else ("document",)
        return (
            "origin" not in headers
            and headers.get("sec-fetch-mode") == "navigate"
            and (headers.get("sec-fetch-dest") in shown)
        )

    def cookie(self, text: str) -> str:
        """A Set-Cookie header as strict as may be: other sites' pages do not send it, except the frame of a Space.

        There it is not Partitioned: who signs in does so in a tab of its own, and is to be known in the frame.
        """
        kept = [part for part in text.split("; ") if not part.lower().startswith("samesite")]
        if not self.space:
            return "; ".join([*kept, "SameSite=Lax"])
        return "; ".join([*(part for part in kept if part.lower() != "secure"), "SameSite=None", "Secure"])


class Guard:
    """Stands outside everything else of the app, gradio's CORS middleware too, and keeps the rules of `origins`."""

    def __init__(self, app: ASGIApp, origins: Origins):
        self._app, self._origins = app, origins
        self._open: Counter[str] = Counter()  # requests of an address that are being answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        scope = self._as_told(scope)
        headers = Headers(scope=scope)
        if scope["type"] == "websocket":
            if self._origins.refusal("POST", scope["path"], headers) is not None:
                return await send({"type": "websocket.close", "code": 1008})
            return await self._app(scope, receive, send)
        send = self._strict(send, headers)
        refused = self._refused(scope, headers)
        if refused is not None:
            return await refused(scope, receive, send)
        address = scope["client"][0] if scope.get("client") else ""
        visitor.ADDRESS.set(address)
        if self._open[address] >= CONNECTIONS_EACH:
            busy = f"{CONNECTIONS_EACH} requests of your address are open. Wait for one to end."
            return await _answer(busy, 429)(scope, receive, send)
        with self._counted(address):
            await self._app(scope, receive, send)

    def _as_told(self, scope: Scope) -> Scope:
        """The request as it came to the outermost proxy that is trusted; what others claim of it is dropped."""
        peer = scope["client"][0] if scope.get("client") else ""
        headers = MutableHeaders(raw=list(scope["headers"]))
        if self._origins.trusts(peer):
            client = self._origins.client(peer, ",".join(headers.getlist("x-forwarded-for")))
            if host := headers.get("x-forwarded-host"):
                headers["host"] = host.split(",")[0].strip()
            return {**scope, "headers": headers.raw, "client": (client, 0)}
        for name in FORWARDED:
            del headers[name]
        return {**scope, "headers": headers.raw}

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        path = scope["path"]
        if path.startswith(CLOSED):
            return _answer("This app does not offer that.", 404)
        sentence = self._origins.refusal(scope["method"], path, headers)
        if sentence is not None:
            return _answer(sentence, 403)
        if path.startswith(UPLOADS):
            return None
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            return _answer("Say in Content-Length how long the request is.", 411)
        if int(length[:20]) > BODY_BYTES:
            return _answer(f"A request has {BODY_BYTES // 1024} kB or less. Files go to /gradio_api/upload.", 413)
        return None

    @contextmanager
    def _counted(self, address: str) -> Iterator[None]:
        self._open[address] += 1
        try:
            yield
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    def _strict(self, send: Send, asked: Headers) -> Send:
        """`send`, with cookies made strict, and with leave to read for the origins that are listed, and no others."""
        origins, origin = self._origins, asked.get("origin")

        async def strictly(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if not name.startswith(b"access-control-")]
                headers = MutableHeaders(raw=kept)
                if origin in origins.listed:
                    headers["access-control-allow-origin"] = origin
                    headers["access-control-allow-credentials"] = "true"
                    headers["access-control-allow-methods"] = "GET, POST, OPTIONS"
                    headers["access-control-allow-headers"] = asked.get("access-control-request-headers", "")
                    headers.add_vary_header("Origin")
                cookies = headers.getlist("set-cookie")
                del headers["set-cookie"]
                for cookie in cookies:
                    headers.append("set-cookie", origins.cookie(cookie))
                if headers.get("content-type", "").startswith("text/html"):
                    frames = " ".join(["'self'", *sorted(origins.listed)])
                    headers.append("content-security-policy", f"frame-ancestors {frames}")
                message = {**message, "headers": headers.raw}
            await send(message)

        return strictly


def _answer(sentence: str, status: int) -> Response:
    return JSONResponse({"detail": sentence, "error": sentence}, status, headers={"Cache-Control": "no-store"})


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"MARIONETTE_ORIGINS must list addresses such as https://example.org, not {text!r}.")
    return f"{parts.scheme}://{parts.netloc}".lower()


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"MARIONETTE_TRUSTED_PROXIES must list addresses such as 10.0.0.1 or 10.0.0.0/8, not {text!r}."
        ) from error


def _within(address: str, networks: Iterable[Network]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in networks)


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets, in small letters."""
    return (urlsplit(f"//{host}").hostname or "") if "@" not in host and "/" not in host else ""


def _same_host(origin: str, host: str) -> bool:
    """Whether `origin` is of `host`. Which scheme the browser saw is not known behind a proxy."""
    parts = urlsplit(origin)
    usual = {"http": ":80", "https": ":443"}.get(parts.scheme)
    if usual is None or not host:
        return False
    return parts.netloc.lower().removesuffix(usual) == host.lower().removesuffix(usual)
