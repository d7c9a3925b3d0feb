"""The edge of the app, from outside over HTTP: foreign pages, odd values, floods and guessed passwords."""

import json
import socket
import threading
import time
import tracemalloc
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from running_app import running_app

from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from ui import page, server
from ui.origins import BODY_BYTES

PASSWORD = "a good one"
FOREIGN = "http://evil.example"
PROXY = {"MARIONETTE_TRUSTED_PROXIES": "127.0.0.0/8"}  # so that a test can come from many addresses


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    limits = {"MARIONETTE_QUEUE": "40", "MARIONETTE_QUEUE_EACH": "4", "MARIONETTE_ORIGINS": "https://friend.example"}
    with running_app(tmp_path_factory.mktemp("edge"), **PROXY, **limits) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("locked"), **PROXY, MARIONETTE_PASSWORD=PASSWORD) as running:
        yield running


def calls(app, address="", **headers):
    more = {"X-Forwarded-For": address} if address else {}
    # Without https there is nothing to verify, and no list of authorities to read for each of some thousand clients.
    return httpx.Client(base_url=app.url, timeout=120, headers=more | headers, verify=False)


def log_in(caller, password, **headers):
    said = caller.post("/login", data={"username": "me", "password": password}, headers=headers)
    for cookie in caller.cookies.jar:
        cookie.secure = False  # browsers trust 127.0.0.1 without https
    return said


ACTIONS = [
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/call/v2/text_to_video"),
    ("POST", "/gradio_api/upload"),
    ("POST", "/gradio_api/cancel"),
    ("POST", "/login"),
    ("OPTIONS", "/gradio_api/queue/join"),
    ("GET", "/logout"),
]


@pytest.mark.parametrize(("method", "path"), ACTIONS)
@pytest.mark.parametrize("whence", [{"Origin": FOREIGN}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}])
def test_a_foreign_page_can_change_nothing(app, method, path, whence):
    said = calls(app).request(method, path, headers=whence | {"Access-Control-Request-Method": "POST"})
    assert said.status_code == 403 and "another site" in said.json()["detail"]
    assert not any(name.startswith("access-control-") for name in said.headers)


@pytest.mark.parametrize("path", ["/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x", "/"])
def test_a_foreign_page_reads_nothing_with_the_cookies_of_who_has_the_password(locked, path):
    with calls(locked) as caller:
        assert log_in(caller, PASSWORD).status_code == 200 and caller.cookies
        assert caller.get(path.replace("queue/data?session_hash=x", "info")).status_code == 200
        for whence in ({"Origin": FOREIGN}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}):
            said = caller.get(path, headers=whence)
            assert said.status_code == 403 and "access-control-allow-origin" not in said.headers
        followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert caller.get("/", headers=followed).status_code == 200  # a link to the app


def test_cookies_are_not_sent_by_other_sites(locked):
    with calls(locked) as caller:
        cookies = log_in(caller, PASSWORD).headers.get_list("set-cookie")
        assert len(cookies) == 2 and all("SameSite=Lax" in cookie and "HttpOnly" in cookie for cookie in cookies)
        assert not any("none" in cookie.lower() for cookie in cookies)


def test_own_pages_programs_and_listed_sites_are_answered(app):
    own = calls(app).post("/gradio_api/run/known", json={"data": [""]}, headers={"Origin": app.url})
    assert own.status_code == 200 and len(own.json()["data"][0]) == 32
    assert calls(app).post("/gradio_api/run/known", json={"data": [""]}).status_code == 200
    listed = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    asked = calls(app).options("/gradio_api/run/known", headers=listed)
    assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == "https://friend.example"
    said = calls(app).post("/gradio_api/run/known", json={"data": [""]}, headers=listed)
    assert said.status_code == 200 and said.headers["access-control-allow-credentials"] == "true"


def test_only_listed_sites_may_show_the_app_in_a_frame(app):
    assert calls(app).get("/").headers["content-security-policy"] == "frame-ancestors 'self' https://friend.example"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80@127.0.0.1", ""])
def test_no_other_name_leads_to_the_app(app, host):
    said = calls(app).get("/config", headers={"Host": host, "X-Forwarded-Host": host} if host else {"Host": host})
    assert said.status_code == 403 and "MARIONETTE_ORIGINS" in said.json()["detail"]


def test_what_one_visitor_gets_of_the_page_changes_nothing_for_the_next(app):
    """Visitors share the parts of its description: each has its own root all the same."""
    names = [app.url.removeprefix("http://"), app.url.removeprefix("http://").replace("127.0.0.1", "localhost")]
    told = [calls(app).get("/config", headers={"Host": name}).json() for name in (*names, *names)]
    assert [one.pop("root") for one in told] == [f"http://{name}" for name in (*names, *names)]
    assert told[0] == told[1] == told[2] == told[3]
    assert len(told[0]["components"]) > 300 and names[0] not in json.dumps(told[0])


def test_monitoring_is_closed_and_so_is_what_this_page_does_not_use(app):
    paths = "/monitoring", "/monitoring/summary", "/monitoring/x"
    assert [calls(app).get(path).status_code for path in paths] == [403, 403, 403]
    for path in ("/gradio_api/deep_link?session_hash=x", "/gradio_api/process_recording", "/gradio_api/vibe-edit"):
        assert calls(app).post(path).json()["detail"] == "This app does not offer that."


# What a client may send by mistake or on purpose, in place of one value.
ODD = [
    None, True, -1, 0.5, "", "x" * 20_000, "\ud800", "../../etc/passwd", "\0", [], ["a"], [["a"]], {}, {"a": 1},
    1e308, 2**62, 10**30, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, {"path": None},
    {"path": "x.mp4", "meta": {"_type": "gradio.FileData"}, "url": "http://127.0.0.1:1/x"}, [None] * 50,
]  # fmt: skip


def told(said):
    """The sentence that a client is told, wherever gradio puts it; None where the request was answered."""
    if said.status_code == 200:
        return None
    body = said.json()
    return body.get("error") or body.get("detail")


def is_sentence(text):
    words = isinstance(text, str) and len(text.split()) > 2
    return words and not any(raw in text for raw in ("Traceback", "pydantic", "gradio.", "Error(", "site-packages"))


def test_every_action_of_the_page_answers_odd_values_in_a_sentence(app):
    """Called directly, as the page calls what it does not queue."""
    actions = calls(app).get("/config").json()["dependencies"]
    direct = [action for action in actions if not action["queue"] and action["backend_fn"]]
    assert len(direct) > 20
    bad, json_body = [], {"content-type": "application/json"}
    with calls(app) as caller:
        for number, action in enumerate(direct):
            for value in ODD[number % 5 :: 5]:
                body = {"data": [value] * len(action["inputs"]), "fn_index": action["id"], "session_hash": "odd"}
                said = caller.post("/gradio_api/run/predict", content=json.dumps(body), headers=json_body)
                if said.status_code != 200 and not is_sentence(told(said)):
                    bad.append((action["api_name"], repr(value)[:40], said.status_code, said.text[:200]))
    assert not bad, bad[:10]


def queued(caller, body):
    """The sentence with which a queued action ends; None where it succeeds or goes on."""
    said = caller.post("/gradio_api/queue/join", content=json.dumps(body), headers={"content-type": "application/json"})
    if said.status_code != 200:
        return told(said)
    with caller.stream("GET", "/gradio_api/queue/data", params={"session_hash": body["session_hash"]}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line[5:]) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                return None if message["success"] else message["output"]["error"] or "null"
            if message.get("msg") in ("process_generating", "unexpected_error", "close_stream"):
                return message.get("message")
    return None


def test_every_queued_action_answers_odd_values_in_a_sentence(app):
    actions = calls(app).get("/config").json()["dependencies"]
    chosen = [action for action in actions if action["queue"] and action["backend_fn"]]
    assert len(chosen) > 50
    bad = []

    def call(number, action, value):
        body = {"data": [value] * len(action["inputs"]), "fn_index": action["id"], "session_hash": uuid.uuid4().hex}
        with calls(app, f"198.51.100.{number % 250}") as caller:
            said = queued(caller, body)
        if said is not None and not is_sentence(said):
            bad.append((action["id"], action["api_name"], repr(value)[:40], said[:200]))

    with ThreadPoolExecutor(4) as several:
        for number, action in enumerate(chosen):
            for value in ODD[number % 7 :: 7]:
                several.submit(call, number, action, value)
    assert not bad, bad[:10]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("run/predict", '{"data": 5, "fn_index": 0}'),
        ("run/predict", '{"data": [], "fn_index": 99999}'),
        ("run/predict", '{"data": [], "fn_index": "0"}'),
        ("run/predict", '{"data": [], "fn_index": 0, "session_hash": "%s"}' % ("x" * 5000)),
        ("run/nothing", '{"data": []}'),
        ("run/predict", '{"data": ["'),
        ("run/predict", "[" * 50_000),
        ("run/predict", "9" * 5000),
        ("run/predict", '{"data": [1e999], "fn_index": 0}'),
        ("run/predict", '{"data": ["\\ud800"], "fn_index": 0}'),
        ("queue/join", '{"data": [], "fn_index": 0}'),
        ("queue/join", '{"data": [], "fn_index": 163, "session_hash": 5}'),
        ("call/v2/text_to_video", "{}"),
        ("call/v2/text_to_video", '{"prompt": "a bear", "wings": 2}'),
        ("call/v2/nothing", "{}"),
        ("call/nothing", '{"data": []}'),
        ("component_server", "{}"),
        ("component_server", '{"data": 1, "component_id": 99999, "session_hash": "x", "fn_name": "y"}'),
        ("component_server", '{"data": 1, "component_id": "x", "session_hash": [], "fn_name": {}}'),
        ("cancel", '{"session_hash": 1}'),
    ],
)
def test_every_other_mistake_is_told_in_a_sentence(app, path, body):
    said = calls(app).post(f"/gradio_api/{path}", content=body, headers={"content-type": "application/json"})
    assert 400 <= said.status_code < 500 and is_sentence(told(said)), (said.status_code, said.text[:300])


def test_an_event_that_there_is_not_is_told_in_a_sentence(app):
    said = calls(app).get("/gradio_api/call/text_to_video/x")
    assert said.status_code == 404 and is_sentence(told(said))


def test_a_long_request_is_refused_before_it_is_read(app):
    body = b'{"data": ["' + b"x" * BODY_BYTES + b'"], "fn_index": 0}'
    said = calls(app).post("/gradio_api/run/predict", content=body, headers={"content-type": "application/json"})
    assert said.status_code == 413 and "/gradio_api/upload" in said.json()["detail"]
    chunked = calls(app).post("/gradio_api/run/predict", content=iter([b"{}"]))
    assert chunked.status_code == 411


def generate(caller, **more):
    body = {"prompt": "a bear", "steps": 1, "frames": 8, **more}
    return caller.post("/gradio_api/call/v2/text_to_video", json=body).json()["event_id"]


@contextmanager
def listening(caller, event):
    with caller.stream("GET", f"/gradio_api/call/text_to_video/{event}") as stream:
        yield (json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:"))


def outcome(address, app, **more):
    """The ids of a job that has been taken on, or the sentence with which it was not."""
    with calls(app, address) as caller, listening(caller, generate(caller, **more)) as news:
        for data in news:
            if isinstance(data, dict) and "error" in data:
                return data["error"]
            if isinstance(data, list) and isinstance(data[1], dict):
                return data[1]


def stop(app, ids):
    calls(app).post("/gradio_api/run/stop", json={"data": [ids["job"], ids["visitor_id"]]})


def test_fresh_ids_at_one_address_do_not_fill_the_queue(app):
    busy = outcome("203.0.113.1", app, steps=100, frames=24)
    made = [outcome("203.0.113.2", app, seed=seed) for seed in range(12)]
    taken = [one for one in made if isinstance(one, dict)]
    assert len(taken) == 4 and all("new at your address" in one for one in made if isinstance(one, str))
    honest = outcome("203.0.113.3", app, seed=99)
    assert isinstance(honest, dict)
    for ids in (*taken, honest, busy):
        stop(app, ids)


def test_the_loop_answers_while_others_send_what_is_large(app):
    """A request that does nothing is answered quickly, whatever is asked for beside it."""
    body = json.dumps({"data": ["x"] * 4900, "fn_index": 0, "session_hash": "big"})
    over = threading.Event()

    def flood():
        with calls(app, "203.0.113.9") as caller:
            while not over.is_set():
                session = uuid.uuid4().hex
                caller.post("/gradio_api/run/predict", content=body, headers={"content-type": "application/json"})
                caller.post("/gradio_api/run/predict", json={"data": [], "fn_index": 0, "session_hash": session})

    flooding = threading.Thread(target=flood)
    flooding.start()
    waits = []
    with calls(app) as caller:
        for _ in range(40):
            start = time.monotonic()
            caller.get("/gradio_api/app_id")
            waits.append(time.monotonic() - start)
    over.set()
    flooding.join()
    assert sorted(waits)[len(waits) // 2] < 0.2, waits


def test_a_session_costs_little_and_only_the_latest_are_kept(tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    demo = page.build(backend, settings)
    backend.close()
    options = page.launch_options(backend, settings)
    holder = options["_app"].state_holder
    demo.state_session_capacity = options["state_session_capacity"]
    holder.set_blocks(demo)
    tracemalloc.start()
    for number in range(1000):
        assert holder[f"session {number}"].blocks_config.blocks
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(holder.session_data) <= 200 and kept < 15_000_000  # before: 849 kB each


def test_what_nobody_comes_for_is_forgotten_and_what_goes_on_is_not(tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    demo = page.build(backend, settings)
    backend.close()
    queue = demo._queue
    queue.pending_event_ids_session |= {"gone": {"1"}, "going": {"2"}}
    queue.event_ids_to_events["2"] = object()
    queue.pending_messages_per_session["gone"] = queue.pending_messages_per_session["going"] = object()
    left = server.forget(demo.app, {}, 0.0)
    assert "gone" in queue.pending_event_ids_session and left == {"gone": 0.0}
    assert server.forget(demo.app, left, server.LEFT_SECONDS) == {}
    assert set(queue.pending_event_ids_session) == set(queue.pending_messages_per_session) == {"going"}


def test_each_wrong_password_makes_the_next_wait_longer(locked):
    with calls(locked, "192.0.2.1") as caller:
        seconds = []
        for _ in range(6):
            start = time.monotonic()
            assert log_in(caller, "a guess").status_code == 400
            seconds.append(time.monotonic() - start)
        # 0, 0, 0, 1, 2, 4, counted from the answer before, which came a moment earlier
        assert seconds[1] < 0.8 <= seconds[3] < seconds[4] < seconds[5]
        log_in(caller, "a guess")
        said = log_in(caller, PASSWORD)
        assert said.status_code == 429 and "Try again in" in said.json()["detail"] and said.headers["retry-after"]
    with calls(locked, "192.0.2.2") as caller:  # another address is not held up
        assert log_in(caller, PASSWORD).status_code == 200


def test_many_guesses_at_once_are_heard_one_after_another(locked):
    with calls(locked, "192.0.2.3") as caller, ThreadPoolExecutor(12) as several:
        start = time.monotonic()
        statuses = list(several.map(lambda number: log_in(caller, f"guess {number}").status_code, range(12)))
    assert time.monotonic() - start > 6 and statuses.count(400) <= 8 and 429 in statuses


def test_an_address_is_believed_only_from_a_trusted_proxy(tmp_path):
    with running_app(tmp_path, MARIONETTE_PASSWORD=PASSWORD) as running:
        for number in range(5):
            with calls(running, f"192.0.2.{number}") as caller:
                start = time.monotonic()
                log_in(caller, "a guess")
        assert time.monotonic() - start > 1.5  # all five came from one address


def test_a_request_without_a_host_or_an_end_is_no_end_of_the_app(app):
    port = int(app.url.rsplit(":", 1)[1])
    for raw in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\0\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
            line.sendall(raw)
            assert line.recv(4096).startswith(b"HTTP/1.1 4")
    assert calls(app).get("/gradio_api/app_id").status_code == 200
