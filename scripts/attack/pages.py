"""Attacks by pages of other sites that a visitor has open, and by whoever guesses the password."""

import concurrent.futures
import time
from collections.abc import Iterator

import httpx

from scripts.attack.arena import Arena
from scripts.attack.report import Case
from scripts.attack.target import OwnApp, Target

PASSWORD = "correct horse battery staple"
SITES = ("https://evil.example", "null", "http://localhost:9", "http://127.0.0.1:9", "http://127.0.0.1.evil.example")
NOTHING = {"data": [], "session_hash": "x", "fn_index": 0}
GUESSES = 60
GUESSES_ALLOWED = 20  # in the first ten seconds, from one address


def foreign(arena: Arena) -> Iterator[Case]:
    """A page of another site reads nothing and does nothing, with a visitor's cookies or without."""
    yield from _by_sites(arena.app, {"cookie": "session=abc"}, arena.many(len(SITES), 2))
    if not arena.short:
        with arena.start("password", {"MARIONETTE_PASSWORD": PASSWORD}) as app:
            said = app.http.post("/login", data={"username": "me", "password": PASSWORD})
            for cookie in said.headers.get_list("set-cookie"):
                yield Case(f"cookie {cookie.split('=')[0]}", lambda cookie=cookie: _strict(cookie))
            cookies = "; ".join(f"{name}={value}" for name, value in said.cookies.items())
            yield Case("its own page, signed in", lambda: _own_page(app, {"cookie": cookies}))
            yield from _by_sites(app, {"cookie": cookies}, len(SITES), "signed in, ")


def _by_sites(app: Target, cookies: dict[str, str], count: int, where: str = "") -> Iterator[Case]:
    event = next(one["id"] for one in app.events() if not one["inputs"])
    body = f'{{"data": [], "fn_index": {event}, "session_hash": "foreign"}}'.encode()
    yield Case(f"{where}its own page", lambda: _own_page(app, cookies))
    for site in SITES[:count]:
        for path in ("/config", "/gradio_api/info", "/", "/gradio_api/queue/data?session_hash=x", "/gradio_api/token"):
            headers = cookies | {"origin": site}
            yield Case(f"{where}{site} reads {path}", lambda path=path, h=headers: _unreadable(app, path, h))
        for path in ("run/x", "queue/join", "call/text_to_video", "call/v2/stop", "upload", "cancel", "reset"):
            for kind in ("application/json", "text/plain"):
                for name, extra in (("with cookies", cookies), ("without", {})):
                    headers = extra | {"origin": site, "content-type": kind}
                    title = f"{where}{site} posts {path} as {kind} {name}"
                    yield Case(title, lambda path=path, h=headers: _refused(app, f"/gradio_api/{path}", body, h))
        headers = cookies | {"origin": site, "content-type": "application/x-www-form-urlencoded"}
        yield Case(f"{where}{site} signs in", lambda h=headers: _refused(app, "/login", b"username=a&password=b", h))
        headers = {"origin": site, "access-control-request-method": "POST", "access-control-request-headers": "x"}
        yield Case(f"{where}{site} asks before", lambda h=headers: _unreadable(app, "/gradio_api/run/x", h, "OPTIONS"))


def _unreadable(app: Target, path: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """Whether a browser keeps the answer from the page that asked."""
    with app.http.stream(method, path, headers=headers) as said:
        allowed = said.headers.get("access-control-allow-origin")
        credentials = said.headers.get("access-control-allow-credentials")
        if said.status_code < 400 and allowed in (headers["origin"], "*"):
            return f"may be read: {method} {path} {headers} -> {said.status_code}, for {allowed}, {credentials=}"
    return None


def _refused(app: Target, path: str, body: bytes, headers: dict[str, str]) -> str | None:
    said = app.http.post(path, content=body, headers=headers)
    if said.status_code in (401, 403):
        return None
    return f"is not refused for its origin: POST {path} {headers} -> {said.status_code} {said.text[:80]!r}"


def _own_page(app: Target, cookies: dict[str, str]) -> str | None:
    """What must go on working."""
    event = next(one["id"] for one in app.events() if not one["inputs"])
    body = {"data": [], "fn_index": event, "session_hash": "own"}
    for headers in ({"origin": app.url}, {"origin": app.url, "sec-fetch-site": "same-origin"}, {}):
        said = app.http.post("/gradio_api/run/x", json=body, headers=cookies | headers)
        if said.status_code != 200:
            return f"is refused: {headers} -> {said.status_code} {said.text[:100]!r}"
    return None


def _strict(cookie: str) -> str | None:
    """Off Spaces there is no frame for which a cookie would have to be sent across sites."""
    parts = [part.strip().lower() for part in cookie.split(";")]
    if "samesite=none" in parts or not any(part.startswith("samesite=") for part in parts):
        return f"goes along with requests of other sites: {cookie.split('=')[0]}; {'; '.join(parts[1:])}"
    return None if "httponly" in parts else "may be read by scripts"


def rebinding(arena: Arena) -> Iterator[Case]:
    """A name of the attacker's that suddenly means this machine leads nowhere."""
    app = arena.app
    event = next(one["id"] for one in app.events() if not one["inputs"])
    body = {"data": [], "fn_index": event, "session_hash": "rebound"}
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:7860",
    ):
        headers = {"host": host, "origin": f"http://{host}"}
        for path in ("/", "/config", "/gradio_api/info"):
            yield Case(f"{host} GET {path}", lambda path=path, h=headers: _not_here(app.http.get(path, headers=h)))
        yield Case(
            f"{host} POST", lambda h=headers: _not_here(app.http.post("/gradio_api/run/x", json=body, headers=h))
        )
    port = httpx.URL(app.url).port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        yield Case(f"{host} must work", lambda h=host: _here(app.http.get("/config", headers={"host": h})))


def _not_here(said: httpx.Response) -> str | None:
    host = said.request.headers["host"]
    return None if 400 <= said.status_code < 500 else f"answers as {host}: {said.status_code}"


def _here(said: httpx.Response) -> str | None:
    return None if said.status_code == 200 else f"is refused: {said.status_code} {said.text[:100]!r}"


def password(arena: Arena) -> Iterator[Case]:
    """Who guesses the password is slowed down, whatever they call themselves; who knows it gets in all the same."""
    with arena.start("guessing", {"MARIONETTE_PASSWORD": PASSWORD}) as app:
        for path in ("/config", "/gradio_api/info", "/gradio_api/file=x", "/gradio_api/startup-events"):
            if not path.endswith("events"):
                yield Case(f"closed: {path}", lambda path=path: _closed(app.http.get(path)))
        for path in ("run/x", "queue/join", "call/text_to_video", "upload", "call/v2/stop"):
            yield Case(f"closed: {path}", lambda path=path: _closed(app.http.post(f"/gradio_api/{path}", json=NOTHING)))
        for name, way in {
            "one name": lambda n: {},
            "many names": lambda n: {"username": f"user{n}"},
            "forged addresses": lambda n: {"forwarded": f"10.0.{n % 250}.{n // 250}"},
        }.items():
            yield Case(f"guessing with {name}", lambda way=way: _slowed(app, way), patience=120)
        yield Case("the right one from another address", lambda: _gets_in(app), patience=60)
        yield Case("an odd form", lambda: _odd_forms(app), patience=120)


def _closed(said: httpx.Response) -> str | None:
    return None if said.status_code in (401, 403) else f"is open: {said.status_code} {said.text[:80]!r}"


def _slowed(app: OwnApp, way) -> str | None:
    """How many guesses are answered in ten seconds, twenty at a time."""
    began = time.monotonic()

    def guess(number: int) -> bool:
        extra = way(number)
        form = {"username": extra.get("username", "me"), "password": f"guess {number}"}
        forwarded = {"x-forwarded-for": extra["forwarded"]} if "forwarded" in extra else {}
        try:
            said = app.http.post("/login", data=form, headers=forwarded, timeout=30)
        except httpx.HTTPError:
            return False
        return said.status_code == 400 and time.monotonic() - began < 10

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        tried = sum(pool.map(guess, range(GUESSES)))
    if tried > GUESSES_ALLOWED:
        return f"{tried} guesses were looked at within ten seconds, and {GUESSES_ALLOWED} are allowed"
    return None


def _gets_in(app: OwnApp) -> str | None:
    """Somebody at another address is not shut out by the guesses of the first."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.9"), base_url=app.url, timeout=50) as other:
        said = other.post("/login", data={"username": "me", "password": PASSWORD})
    return None if said.status_code == 200 else f"does not get in: {said.status_code} {said.text[:100]!r}"


def _odd_forms(app: OwnApp) -> str | None:
    """Forms that are no forms are refused without breaking anything."""
    forms = (
        b"",
        b"username=a",
        b"password=b",
        b"username=%ff&password=%ff",
        b"username=a&password=" + b"x" * 10**6,
        b"\0" * 99,
    )
    for form in forms:
        said = app.http.post("/login", content=form, headers={"content-type": "application/x-www-form-urlencoded"})
        if not 400 <= said.status_code < 500:
            return f"{form[:40]!r} is answered with {said.status_code}: {said.text[:100]!r}"
    return None
