"""The adversary: its short form finds nothing to complain of in the app, and enough in an app that is badly made."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from running_app import ROOT

from scripts.attack import __main__ as attack
from scripts.attack import corpus, watch
from scripts.attack.report import Answer, Case, Skip, Tally, fault, table


@pytest.mark.timeout(1500)
def test_nothing_falls_in_the_short_form():
    ran = subprocess.run(
        [sys.executable, "-m", "scripts.attack", "--short"], cwd=ROOT, capture_output=True, text=True, timeout=1200
    )
    fallen = [line for line in ran.stdout.splitlines() if line.startswith("FELL ")]
    # How long the event loop was blocked is a figure of a quiet machine: python -m scripts.attack tells it.
    assert [line for line in fallen if not line.startswith("FELL event-loop:")] == [], ran.stdout + ran.stderr
    assert ran.returncode == bool(fallen), ran.stdout + ran.stderr
    rows = [line.split() for line in ran.stdout.splitlines()[1:] if line[:1].strip() and line not in fallen]
    tried = {name: int(count) for name, count, *_ in rows}
    assert set(attack.ON_ANY) <= set(tried) and all(tried.values()), ran.stdout
    assert "not tried" not in ran.stdout and sum(tried.values()) > 500, ran.stdout


def test_the_corpus_is_as_large_as_promised_and_made_anew_each_time():
    honest, hostile = corpus.honest(), corpus.hostile()
    assert (len(honest), len(hostile)) == (100, 200)
    assert {one.right for one in honest} == {corpus.ACCEPTED}
    assert {one.place for one in honest} == {one.place for one in hostile}
    for one in [*honest[20:28], *hostile[60:64]]:
        assert one.make() == one.make() and one.make()


def answer(text, status=500, said=None, failed=False, asked="POST /x"):
    return Answer(asked, status, text, 0.1, failed, said)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (answer("", status=0), "no answer"),
        (answer("Internal Server Error"), "no sentence"),
        (answer(""), "without a word"),
        (answer('{"error": null}'), "without a word"),
        (answer('{"error": ""}'), "without a word"),
        (answer('{"detail": "x"}'), "no sentence"),
        (answer('{"error": "list index out of range"}'), "no sentence"),
        (answer('{"error": "Wrong: \'NoneType\' object is not iterable."}'), "raw internals"),
        (answer('{"error": "KeyError: 3 is not there."}'), "raw internals"),
        (answer('{"error": "The file /data/app/x is gone."}'), "server's path"),
        (answer('{"detail": "Not here: /data/app/x."}', status=404), "server's path"),
        (answer('Traceback (most recent call last):\n  File "/x.py"', status=200), "a traceback"),
        (answer('{"error": "Job 0123456789abcdef0123456789abcdef is busy."}'), "an id"),
        (answer("null", 200, None, True), "without a word"),
        (answer("{}", 200, "The prompt is empty. Write one.", True), None),
        (answer('{"error": "The prompt is empty. Write one."}'), None),
        (answer('{"detail": [{"msg": "Field required"}]}', status=422), None),
        (answer('{"data": ["/data/app/x"]}', status=200), None),  # what may be told on success is asked elsewhere
        (answer("Not Found", status=404), None),
    ],
)
def test_an_answer_is_judged_strictly(given, why):
    found = fault(given, ["/data/app"])
    assert (found is None) if why is None else (found is not None and why in found)


def test_a_path_or_an_id_that_was_asked_with_may_come_back():
    asked = "GET /data/app/0123456789abcdef0123456789abcdef"
    text = '{"error": "There is no /data/app/0123456789abcdef0123456789abcdef."}'
    assert fault(answer(text, asked=asked), ["/data/app"]) is None


def test_what_was_not_foreseen_is_no_answer_where_it_must_be():
    told = answer('{"error": "Something went wrong inside the app, and nothing was changed."}')
    assert fault(told) is None and "not foreseen" in fault(told, foreseen=True)


def test_a_tally_counts_what_fell_what_took_too_long_and_what_broke_off():
    def cases():
        yield Case("held", lambda: None)
        yield Case("fell", lambda: "it fell")
        yield Case("slow", lambda: None, patience=-1)
        yield Skip("no disk")
        yield Case("broke", lambda: 1 / 0)
        raise RuntimeError("no more")

    row = Tally("all")
    row.carry_out(cases())
    assert row.tries == 5 and row.skipped == ["no disk"]
    assert [case for case, _ in row.fallen] == ["fell", "slow", "broke", "(the attack itself)"]
    assert "FELL all: fell: it fell" in table([row]) and "--only 'all:fell'" in table([row])
    some = Tally("some")
    some.carry_out(cases(), wanted="held")
    assert some.tries == 2  # and that it broke off


def test_who_blocked_the_event_loop_is_named():
    busy = Tally("files", spans=[(10.0, 12.0, "files:bomb"), (12.0, 13.0, "files:plain")])
    row = watch.tally([(9.0, 0.01), (10.5, 0.9), (11.0, 0.3), (12.5, 0.1)], [busy])
    assert (row.tries, row.worst) == (4, 0.9)
    assert [case for case, _ in row.fallen] == ["files:bomb"] and "0.90 s" in row.fallen[0][1]


class Careless(BaseHTTPRequestHandler):
    """An app in which everything that can be asked for goes wrong, and that is open to everybody."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("content-length", 0))
        self.rfile.read(length)
        inputs = [{"id": 1, "type": "textbox", "props": {"value": ""}}]
        event = {"id": 0, "api_name": "hint", "backend_fn": True, "inputs": [1], "targets": []}
        body, status = {"error": None}, 500
        if self.path == "/config":
            plain = event | {"id": 1, "inputs": []}
            body, status = {"dependencies": [event, plain], "components": inputs}, 200
        said = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.send_header("access-control-allow-origin", self.headers.get("origin", "*"))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_OPTIONS = answer

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def careless():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("name", ["bodies", "hidden-calls", "foreign-pages", "rebinding"])
def test_a_careless_app_falls(careless, name):
    row = attack.carry_out(careless, short=True, attack=name)[0]
    assert row.attack == name and row.tries >= 1 and len(row.fallen) >= row.tries / 4


def test_a_careless_app_ends_the_program_with_1_and_every_finding_can_be_repeated(careless, capsys):
    assert attack.main(["--url", careless, "--short", "--only", "rebinding:evil.example GET /config"]) == 1
    told = capsys.readouterr().out
    assert "FELL rebinding: evil.example GET /config: answers as evil.example" in told
    assert "repeat: python -m scripts.attack --only 'rebinding:evil.example GET /config'" in told


def test_an_attack_that_there_is_not_is_refused(capsys):
    with pytest.raises(SystemExit):
        attack.main(["--only", "nothing"])
    assert "no attack called 'nothing'" in capsys.readouterr().err
