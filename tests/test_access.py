"""Who may enter a Space that admits only some: from the outside, over HTTP, with a stand-in for the Hub's sign-in."""

import base64
import json
from dataclasses import replace
from urllib.parse import unquote

import httpx
import programs
import pytest
from gradio_client import Client
from gradio_client.exceptions import AuthenticationError
from running_app import environment, running_app
from stand_in_provider import SECRET, TOKEN, Provider

from pipelines.serving.owners import Owners
from pipelines.settings import Settings
from ui import access

SPACE = {"SYSTEM": "spaces", "SPACE_ID": "Somebody/marionette", "OAUTH_CLIENT_ID": "client"}


@pytest.fixture(scope="module")
def provider():
    made = Provider()
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory, provider):
    """A Space that admits its owner and one other."""
    folder = tmp_path_factory.mktemp("door")
    with running_app(folder, **provider.variables("Somebody"), MARIONETTE_ADMITTED="owner, A-Friend") as running:
        yield running


@pytest.fixture
def caller(app):
    """A program that keeps cookies as a browser does."""
    with browsing(app) as client:
        yield client


def browsing(app):
    def sent_back(response):
        for cookie in client.cookies.jar:
            cookie.secure = False  # browsers trust 127.0.0.1 without https

    hooks = {"response": [sent_back]}
    client = httpx.Client(base_url=app.url, follow_redirects=True, timeout=60, event_hooks=hooks)
    return client


def sign_in(caller, provider, user, lifetime=3600):
    provider.user, provider.lifetime = user, lifetime
    return caller.get("/login/huggingface", params={"_target_url": "/"})


CLOSED = [
    *(("GET", f"/gradio_api/{path}") for path in ("info", "openapi.json", "heartbeat/x", "file=app.py", "queue/data")),
    *(("GET", path) for path in ("/config", "/theme.css", "/login", "/logout/../config", "/login/callback/")),
    *(("POST", path) for path in ("/", "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/run/arrive")),
    *(("POST", f"/gradio_api/call/v2/{name}") for name in ("text_to_video", "grid", "pose_to_video", "tune", "edit")),
    ("POST", "/gradio_api/call/v2/stop"),
]  # fmt: skip


def test_a_stranger_sees_a_page_with_one_thing_to_do_and_nothing_of_the_app(caller):
    said = caller.get("/")
    assert said.status_code == 200 and said.headers["cache-control"] == "no-store"
    assert 'href="/login/huggingface"' in said.text and "Sign in with Hugging Face" in said.text
    assert "gradio" not in said.text and "Generate" not in said.text


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_without_signing_in_every_other_way_is_refused_in_a_sentence(caller, app, method, path):
    said = caller.request(method, path, content=b'{"prompt": "a robot"}', headers={"Authorization": f"Bearer {TOKEN}"})
    assert (said.status_code, said.json()) == (401, {"detail": access.SIGN_IN})
    assert not list(app.data.glob("videos/*/*"))


def test_a_program_that_did_not_sign_in_does_not_get_further_than_that(app):
    with pytest.raises((AuthenticationError, ValueError)):
        Client(app.url, verbose=False)


def test_the_owner_signs_in_and_what_they_make_is_theirs_on_every_device(caller, app, provider):
    said = sign_in(caller, provider, "somebody")
    assert said.url.path == "/" and "window.gradio_config" in said.text
    # What the page asks when it opens, and then sends with every job: who has come.
    owner = caller.post("/gradio_api/run/arrive", json={"data": [""]}).json()["data"][0]
    assert owner == Owners(Settings(data=app.data)).account("id-of-somebody")
    event = caller.post(
        "/gradio_api/call/v2/text_to_video", json={"prompt": "a bear", "steps": 1, "frames": 8, "visitor_id": owner}
    )
    told = caller.get(f"/gradio_api/call/text_to_video/{event.json()['event_id']}").text
    assert "event: complete" in told and len(list(app.data.glob("videos/*/*.mp4"))) == 1

    with browsing(app) as elsewhere:
        sign_in(elsewhere, provider, "somebody")
        assert elsewhere.post("/gradio_api/run/arrive", json={"data": [""]}).json()["data"][0] == owner
        sign_in(elsewhere, provider, "a-friend")
        assert elsewhere.post("/gradio_api/run/arrive", json={"data": [owner]}).json()["data"][0] != owner


def test_who_signs_out_is_outside_again(caller, provider):
    assert "window.gradio_config" in sign_in(caller, provider, "A-Friend").text
    assert "Sign in with Hugging Face" in caller.get("/logout").text
    assert caller.get("/config").status_code == 401


def test_who_is_not_admitted_is_told_so_and_can_sign_out(caller, provider):
    said = sign_in(caller, provider, "<i>mallory</i>")
    assert "&lt;i&gt;mallory&lt;/i&gt; is not admitted" in said.text and 'href="/logout"' in said.text
    refused = caller.post("/gradio_api/call/v2/text_to_video", json={"prompt": "a robot"})
    assert refused.status_code == 403 and "is not admitted" in refused.json()["detail"]


def test_a_sign_in_that_has_run_out_counts_for_nothing(caller, provider):
    assert "window.gradio_config" not in sign_in(caller, provider, "somebody", lifetime=-60).text
    assert caller.get("/config").status_code == 401


@pytest.mark.parametrize("signature", ["", ".aaaa.bbbb"])
def test_a_session_that_somebody_wrote_themselves_counts_for_nothing(caller, signature):
    session = {"oauth_info": {"userinfo": {"preferred_username": "somebody"}}}
    caller.cookies.set("session", base64.b64encode(json.dumps(session).encode()).decode() + signature)
    assert caller.get("/config").status_code == 401


def test_no_token_and_no_secret_is_written_anywhere(caller, app, provider):
    sign_in(caller, provider, "somebody")
    files = [file for file in app.data.parent.rglob("*") if file.is_file()]
    assert app.data.parent / "app.log" in files
    for file in files:
        content = unquote(file.read_bytes().decode("latin-1"))
        assert TOKEN not in content and SECRET not in content, file


def test_owner_is_who_the_space_belongs_to_and_capitals_do_not_count():
    def names(told, **more):
        return access.admitted(Settings(admitted=told), SPACE | more)

    assert names("") == frozenset() and names("owner") == {"somebody"}
    assert names("Owner, Alice,bob ") == {"somebody", "alice", "bob"}
    assert names("alice") == {"alice"}
    assert access.gate(replace(Settings(), admitted=""), SPACE) == []


@pytest.mark.parametrize("told", [",", "alice,,bob", " "])
def test_a_list_with_nobody_in_a_place_is_refused(told):
    with pytest.raises(ValueError, match="must be Hub names"):
        access.admitted(Settings(admitted=told), SPACE)


@pytest.mark.parametrize("missing", ["SYSTEM", "SPACE_ID", "OAUTH_CLIENT_ID"])
def test_where_nobody_can_sign_in_nobody_is_let_in_by_mistake(missing, tmp_path):
    with pytest.raises(ValueError, match="hf_oauth: true"):
        access.gate(Settings(admitted="owner"), {name: value for name, value in SPACE.items() if name != missing})


def test_the_app_does_not_start_off_a_space(tmp_path):
    variables = environment(MARIONETTE_ADMITTED="owner", MARIONETTE_DATA=str(tmp_path))
    ran = programs.run(["app.py"], variables)
    assert ran.returncode != 0 and "Traceback" not in ran.stderr
    assert ran.stderr.strip().startswith("Marionette can't start: MARIONETTE_ADMITTED asks people to sign in")
