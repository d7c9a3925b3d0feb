"""Attacks with calls that no page and no honest program makes: odd values, odd bodies, and odd routes."""

import json
import math
import random
import secrets
from collections.abc import Iterator
from typing import Any

from scripts.attack.arena import Arena
from scripts.attack.report import Answer, Case, fault
from scripts.attack.target import QUICK, Target

NESTED: Any = "x"
for _ in range(200):
    NESTED = [NESTED]
ODD = {
    "null": None,
    "true": True,
    "not-a-number": math.nan,
    "infinite": -math.inf,
    "giant": 10**300,
    "giant-digits": 10**4000,
    "negative": -1,
    "fraction": 0.1,
    "empty": "",
    "text": "x",
    "number-as-text": "1e999",
    "long": "x" * 100_000,
    "surrogate": "a\ud800b",
    "control": "\0\x1b[31m\r\n",
    "markup": "<img src=x onerror=alert(1)>",
    "climbing": "../../../../etc/passwd",
    "list": [],
    "listed-text": ["x"],
    "nested": NESTED,
    "object": {"a": {"b": 1}},
    "update": {"__type__": "update", "value": "/etc/passwd"},
    "file": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
}
OWNER = "ab" * 16  # of the jobs that are begun by values which can be meant
BASES: dict[str, dict[str, Any]] = {  # arguments of the published endpoints that reach as far as possible
    "text_to_video": QUICK,
    "grid": {"prompts": ["a robot", "a bear"], "seeds": [7], "steps": 1, "frames": 8},
    "pose_to_video": {"prompt": "a robot", "motion": "wave", "steps": 1, "frames": 8},
    "tune": {"clip": {"path": "/nowhere.mp4"}, "prompt": "a robot", "steps": 2, "frames": 8},
    "edit": {"tuned": "0" * 32, "prompt": "a robot", "visitor_id": "a" * 32},
    "finish": {"job": "0" * 32, "visitor_id": "a" * 32},
    "stop": {"job": "0" * 32, "visitor_id": "a" * 32},
}


def published(arena: Arena) -> Iterator[Case]:
    """Every argument of every published endpoint takes no odd value, and says so in words."""
    info = arena.app.http.get("/gradio_api/info").json()["named_endpoints"]
    for name, endpoint in info.items():
        arguments = [one["parameter_name"] for one in endpoint["parameters"]]
        pairs = [(argument, odd) for argument in arguments for odd in ODD]
        for argument, odd in arena.some(pairs, 6):
            yield Case(f"{name}.{argument}={odd}", lambda n=name[1:], a=argument, o=odd: _argument(arena, n, a, o))
        yield Case(f"{name} with what it does not know", lambda n=name[1:]: _argument(arena, n, "mallory", "text"))


def _argument(arena: Arena, name: str, argument: str, odd: str) -> str | None:
    values = BASES.get(name, {}) | {argument: ODD[odd]}
    if argument != "visitor_id":
        values["visitor_id"] = values.get("visitor_id", secrets.token_hex(16))
    answer = arena.app.call(name, until=lambda told: "job" in told, **values)
    if answer.status == 200 and not answer.failed and name != "stop":
        _stop(arena.app, answer)  # a value that can be meant: its job is not waited for
    return fault(answer, arena.paths, foreseen=True)


def _stop(app: Target, answer: Answer) -> None:
    told = answer.json()[1]
    app.run("stop", [told["job"], told["visitor_id"]])


def hidden(arena: Arena) -> Iterator[Case]:
    """The events of the page, the hidden ones too, take every odd value in every place without a word of Python."""
    components = {one["id"]: one for one in arena.app.config["components"]}
    draw = random.Random(11)
    for event in arena.app.events():
        kinds = [components[one]["type"] for one in event["inputs"]]
        plain = [components[one]["props"].get("value") for one in event["inputs"]]
        plain = [OWNER if kind == "browserstate" else value for kind, value in zip(kinds, plain, strict=True)]
        name = f"{event['api_name']}#{event['id']}"
        pairs = [(place, odd) for place in range(len(plain)) for odd in ODD]
        for place, odd in draw.sample(pairs, min(len(pairs), arena.many(len(pairs), 1))):
            values = [*plain[:place], ODD[odd], *plain[place + 1 :]]
            title = f"{name} {kinds[place]}{place}={odd}"
            yield Case(title, lambda event=event["id"], values=values: _event(arena, event, values))
        for title, values in _arities(plain).items():
            if not arena.short or draw.random() < 0.05:
                yield Case(f"{name} {title}", lambda event=event["id"], values=values: _event(arena, event, values))
        if draw.random() < arena.many(1, 0.1):
            values = [None] * len(plain)
            title = f"{name} queued, all null"
            yield Case(title, lambda event=event["id"], values=values: fault(arena.app.join(event, values)))
    for job in arena.app.unfinished(OWNER):
        arena.app.run("stop", [job, OWNER])


def _arities(plain: list[Any]) -> dict[str, object]:
    return {
        "nothing": [],
        "one more": [*plain, "x"],
        "many more": [*plain, *["x"] * 2000],
        "no list": {"0": "x"},
        "null data": None,
        "all lists": [[["x"]]] * len(plain),
        "all surrogates": ["\udfff"] * len(plain),
    }


def _event(arena: Arena, event: int, values: object) -> str | None:
    return fault(arena.app.act(event, values, session="attack", enough=2), arena.paths)


def bodies(arena: Arena) -> Iterator[Case]:
    """Bodies of requests that no client of gradio writes."""
    app = arena.app
    event = next(one["id"] for one in app.events() if one["inputs"])
    good = {"data": ["x"], "fn_index": event, "session_hash": "abc", "event_data": None, "trigger_id": 1}
    odd: dict[str, Any] = {f"fn_index {name}": good | {"fn_index": value} for name, value in ODD.items()}
    odd |= {f"session {name}": good | {"session_hash": value} for name, value in ODD.items()}
    odd |= {f"event_data {name}": good | {"event_data": value} for name, value in ODD.items()}
    odd |= {f"trigger {name}": good | {"trigger_id": value} for name, value in ODD.items()}
    odd |= {
        "unknown event": good | {"fn_index": 10**6},
        "no event": {"data": ["x"]},
        "batched": good | {"batched": True},
        "event id": good | {"event_id": "1"},
        "simple": good | {"simple_format": True},
        "request": good | {"request": {"headers": {}}},
        "polluted": good | {"__proto__": {"a": 1}, "constructor": 1},
    }
    for way in ("run/x", "queue/join", "call/text_to_video", "call/v2/text_to_video", "cancel", "reset"):
        for name, body in arena.some(list(odd.items()), 6):
            yield Case(f"{way} {name}", lambda way=way, body=body: _body(arena, way, body))
        for name, content in arena.some(list(RAW_BODIES.items()), 4):
            act = lambda way=way, content=content: fault(_raw(app, way, content), arena.paths)  # noqa: E731
            yield Case(f"{way} raw {name}", act)
    for way in (
        "call/nobody",
        "run/nobody",
        "call/v2/nobody",
        "api/nobody",
        "call/%2e%2e",
        "run/%00",
        "call/" + "x" * 5000,
    ):
        yield Case(f"{way[:20]}", lambda way=way: _body(arena, way, good))


RAW_BODIES = {
    "empty": b"",
    "no-json": b"{",
    "deep": b"[" * 100_000,
    "deep-data": b'{"data":' + b"[" * 900 + b"]" * 900 + b',"fn_index":5,"session_hash":"a"}',
    "utf16": '{"data":[]}'.encode("utf-16"),
    "twice": b'{"data":[],"data":1,"fn_index":5,"session_hash":"a"}',
    "text": b'"x"',
    "number": b"1" * 5000,
    "bytes": bytes(range(256)),
}


def _body(arena: Arena, way: str, body: object) -> str | None:
    return fault(arena.app.post(f"/gradio_api/{way}", body), arena.paths)


def _raw(app: Target, way: str, content: bytes) -> Answer:
    return app.ask("POST", f"/gradio_api/{way}", content=content, headers={"content-type": "application/json"})


# What no visitor has any business with.
CLOSED = """
/monitoring /monitoring/summary /monitoring/x /monitoring/x/dashboard /docs /redoc /openapi.json /dev/reload /.env
/gradio_api/dev/reload /gradio_api/vibe-code /gradio_api/profiling/traces /gradio_api/run-history/records
/gradio_api/token /.git/config /data/secret /app.py /pipelines/settings.py
""".split()
ODD_ROUTES = [
    *"""
    / /pwa_icon/0 /pwa_icon/-5 /pwa_icon/512 /pwa_icon/100000 /pwa_icon/x /manifest.json /?view=api&x=%00 /?deep_link=x
    /?deep_link=../../etc/passwd /config?deep_link=x /config?session_hash=%ff /gradio_api/info?all_endpoints=x
    /gradio_api/info?serialize= /static/../app.py /assets/../app.py /assets/%2e%2e/%2e%2e/app.py /assets/%00
    /svelte/%2e%2e/%2e%2e/app.py /static/%2e%2e%2fconfig.json /gradio_api/custom_component/0/x/y/z
    /gradio_api/custom_component/x/client/component/index.js /gradio_api/custom_component/../client/component/%2e%2e
    /gradio_api/upload_progress /gradio_api/upload_progress?upload_id=x /gradio_api/queue/data
    /gradio_api/queue/data?session_hash=nobody /gradio_api/call/text_to_video/nobody /gradio_api/call/nobody/nobody
    /gradio_api/heartbeat/%00 /gradio_api/stream/x/0/1/playlist.m3u8 /gradio_api/stream/x/x/x/playlist-file
    /gradio_api/stream/x/0/1/0.ts /gradio_api/proxy=http://127.0.0.1:1/ /gradio_api/proxy=file:///etc/passwd
    /gradio_api/proxy=x /gradio_api/proxy=https://x.hf.space/ /gradio_api/file= /gradio_api/file=%00
    /gradio_api/file=http://127.0.0.1:1/x /gradio_api/file=http://169.254.169.254/ /gradio_api/file=ftp://x/y
    /gradio_api/file/x /gradio_api/deep_link?session_hash=x /gradio_api/deep_link /gradio_api/runs /runs /login /logout
    /gradio_api/vibe-code/ /nobody /gradio_api/nobody /% /%c0%af /gradio_api/user /theme.css /gradio_api/theme.css
    /gradio_api/openapi.json /gradio_api/mcp/ /gradio_api/mcp/schema /gradio_api/startup-events /favicon.ico
    /gradio_api/app_id /gradio_api/login_check /health /robots.txt // /..//
    """.split(),
    "/?__theme=" + "x" * 3000,
    "/gradio_api/file=" + "a/" * 3000,
]
POSTED = """
upload component_server process_recording vibe-edit undo-vibe-edit vibe-code vibe-starter-queries stream/x
stream/x/close reset cancel run-history/connect profiling/clear
""".split()
HEADERS: tuple[dict[str, str], ...] = (
    {"range": "bytes=-"},
    {"range": "bytes=5-1"},
    {"range": "bytes=0-999999999999999999999"},
    {"range": "bytes=9999999999-99999999999"},
    {"range": "bytes=0-0,2-3,4-5"},
    {"range": "bytes=²-³"},
    {"accept-language": "x" * 5000},
    {"x-forwarded-proto": "javascript", "x-forwarded-host": "evil.example"},
    {"x-forwarded-for": "x" * 3000},
    {"x-gradio-server": "javascript:alert(1)"},
    {"cookie": "session=" + "A" * 4000},
    {"cookie": "access-token-x=\x01; ="},
    {"authorization": "Bearer \x01"},
    {"content-type": "multipart/form-data"},
)


def routes(arena: Arena) -> Iterator[Case]:
    """No route tells of the server or breaks, and those that are not for visitors are closed."""
    app = arena.app
    for path in CLOSED:
        yield Case(f"GET {path}", lambda path=path: _closed(arena, path))
    for path in arena.some(ODD_ROUTES, 30):
        yield Case(f"GET {path[:80]}", lambda path=path: fault(_brief(app, "GET", path), arena.paths))
    posts = [(path, body) for path in POSTED for body in (b"{}", b"", b'[{"a": 1}]')]
    for path, body in arena.some(posts, 13):
        act = lambda path=path, body=body: fault(_raw(app, path, body), arena.paths)  # noqa: E731
        yield Case(f"POST {path} {body.decode()}", act)
    shown = arena.victim.files[0]["url"]
    places = ("/theme.css", shown.removeprefix(app.url), "/gradio_api/upload", *arena.many(("/",), ()))
    for headers, path in arena.some([(headers, path) for headers in HEADERS for path in places], 14):
        title = f"{json.dumps(headers)[:60]} {path[:30]}"
        act = lambda path=path, headers=headers: fault(_brief(app, "GET", path, headers), arena.paths)  # noqa: E731
        yield Case(title, act)
    for name, body, headers in arena.some(list(_multiparts()), 8):
        act = lambda body=body, headers=headers: fault(  # noqa: E731
            app.ask("POST", "/gradio_api/upload", content=body, headers=headers), arena.paths
        )
        yield Case(f"upload {name}", act)


def _closed(arena: Arena, path: str) -> str | None:
    answer = _brief(arena.app, "GET", path)
    if answer.status == 200 and path.endswith("token") and '"token":null' in answer.text.replace(" ", ""):
        return None
    return f"is open: {answer.text[:120]!r}" if 0 < answer.status < 400 else fault(answer, arena.paths)


def _brief(app: Target, method: str, path: str, headers: dict[str, str] | None = None) -> Answer:
    """As `ask`, of an answer that may never end."""
    import httpx

    asked = f"{method} {path[:300]} {headers or ''}"
    encoded = {name: value.encode("latin-1", "replace") for name, value in (headers or {}).items()}
    try:
        with app.http.stream(method, path, headers=encoded, timeout=20) as said:
            text = b""
            if "event-stream" not in said.headers.get("content-type", ""):
                text = said.read()
            return Answer(asked, said.status_code, text.decode(errors="replace"), 0.0)
    except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError):
        return Answer(asked, 400, "our own client does not send this", 0.0)
    except httpx.HTTPError as error:
        return Answer(asked, 0, f"{type(error).__name__}: {error}", 0.0)


def _multiparts() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Uploads that are badly written, or whose names mean harm."""
    kind = {"content-type": "multipart/form-data; boundary=B"}
    names = {
        "climbing": b"../../../../tmp/attack.mp4",
        "absolute": b"/etc/cron.d/attack",
        "zero": b"a\0.mp4",
        "long": b"a" * 5000,
        "line": b"a\r\nX: y.mp4",
        "bytes": b"\xff\xfe.mp4",
        "dots": b"..",
        "empty": b"",
        "device": b"CON.mp4",
        "markup": b"<script>.svg",
    }
    head = b'--B\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\nx\r\n--B--\r\n'
    for name, value in names.items():
        yield f"name {name}", head % value, kind
    yield "no boundary", b"x", {"content-type": "multipart/form-data"}
    yield "no end", head % b"a.mp4"[:-9], kind
    yield "no files", b"--B--\r\n", kind
    yield "many", b"".join(head[:-7] % b"a" for _ in range(2000)) + b"--B--\r\n", kind
    yield "huge header", b"--B\r\nX: " + b"y" * 200_000 + b"\r\n\r\n--B--\r\n", kind
    yield "not multipart", b"x", {"content-type": "text/plain"}
