"""Signing in, and tuned models on their way to the Hub: against a stand-in of its API that keeps what it is sent."""

import base64
import json
import logging
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import tiny
import yaml
from gradio import oauth

from pipelines.catalog import find, tuned_models
from pipelines.events import Progress, Result
from pipelines.media import video
from pipelines.models.convert import hub as sending
from pipelines.models.folders import card_of_folder
from pipelines.serving.local import local_backend
from pipelines.serving.owners import Owners
from pipelines.settings import Settings
from pipelines.tasks import Tune
from ui import hub, page, visitor

ME, OTHER = "1" * 32, "2" * 32
TOKEN = "hf_a_token_that_nobody_may_see"
SPACE = {"SYSTEM": "spaces", "SPACE_ID": "theatre/marionette", "OAUTH_CLIENT_ID": "client"}


class Hub:
    """What of the Hub's API an upload asks: huggingface_hub's hf_api.py and _commit_api.py."""

    def __init__(self):
        self.asked, self.tokens, self.files, self.repositories = [], set(), {}, {}
        stand_in = self

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                stand_in.tokens.add(self.headers["Authorization"])
                stand_in.asked.append(self.path)
                status, answer = stand_in.answer(self.path, self.headers["Authorization"], body)
                said = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path, token, body):
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            if asked["name"] in self.repositories:
                return 409, {"error": "exists"}
            self.repositories[asked["name"]] = asked
            return 200, {"url": f"{self.url}/me/{asked['name']}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": one["path"], **plain} for one in json.loads(body)["files"]]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {
                "commitUrl": f"{self.url}/me/x/commit/1",
                "commitOid": "1" * 40,
                "hookOutput": "",
                "success": True,
            }
        return 404, {"error": path}


@pytest.fixture
def stand_in(monkeypatch):
    made = Hub()
    monkeypatch.setattr(sending, "HfApi", lambda endpoint, token: real(endpoint=made.url, token=token))
    yield made
    made.server.shutdown()


real = sending.HfApi


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    card = replace(card_of_folder(tiny.write_image_model(folder / "sd")), name="sd", title="A tiny one")
    return replace(card, defaults=replace(card.defaults, steps=2), licence="CreativeML Open RAIL-M: with restrictions")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, card):
    """A backend with a model tuned on a clip, and the job."""
    folder = tmp_path_factory.mktemp("hub")
    backend = local_backend(Settings(data=folder / "data", cache=folder / "cache", device="cpu"), {"sd": card})
    frames = np.random.default_rng(1).integers(0, 255, (6, 64, 64, 3)).astype(np.uint8)
    video.write(frames, folder / "clip.mp4", 6)
    clip = backend.assets.keep_clip(folder / "clip.mp4", ME).name
    size = {"frames": 3, "width": 64, "height": 64, "steps": 2, "learning_rate": 1e-3}
    job = backend.jobs.submit(Tune.for_model(card, "a [robot] *dances*\n| and bows", 1, clip=clip, **size), ME)
    assert isinstance([event for event in backend.jobs.events(job, ME) if event][-1], Result)
    yield backend, job
    backend.close()


def private(asked):
    """As huggingface_hub says it since 2.0, or said it before."""
    return asked.get("visibility") == "private" or asked.get("private") is True


def test_a_tuned_model_becomes_a_private_repository_that_the_app_can_read(tuned, stand_in, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    backend, job = tuned
    told, address = tiny.finish(backend.tunings.publish(job, ME, "my-dancer", TOKEN))
    assert address == f"{stand_in.url}/me/my-dancer" and private(stand_in.repositories["my-dancer"])
    counts = [event.step for event in told if isinstance(event, Progress) and event.stage == sending.UPLOADING]
    assert counts == sorted(counts) and counts[-1] == told[-1].total == len(stand_in.files) - 1
    for name, content in stand_in.files.items():
        file = tmp_path / "model" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    assert card_of_folder(tmp_path / "model").system == "tuneavideo"

    written = b"".join(file.read_bytes() for file in backend.settings.data.rglob("*") if file.is_file())
    assert TOKEN.encode() not in written + b"".join(stand_in.files.values())
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())
    assert stand_in.tokens == {f"Bearer {TOKEN}"}


def test_the_model_card_tells_the_facts_and_takes_nothing_for_markup(tuned, card):
    backend, job = tuned
    text = sending.model_card("a <b>title</b>", card, backend.tunings.of(ME)[0].facts)
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "creativeml-openrail-m"
    assert "a \\<b\\>title" in body and r"a \[robot\] \*dances\* \| and bows" in body
    for fact in ("| Steps | 2 |", "3 of 64x64, 6 a second", "| Seed | 1 |", "with restrictions"):
        assert fact in body, fact
    sd = find("stable-diffusion-1.4")
    head = sending.model_card("t", sd, backend.tunings.of(ME)[0].facts).split("---\n")[1]
    assert yaml.safe_load(head)["base_model"] == sd.source.location


@pytest.mark.parametrize("name", ["", "a b", "../x", "a--b", "-a", "me/x", "a" * 97, "é"])
def test_a_name_that_can_not_be_is_told_before_anything_is_sent(tuned, stand_in, name):
    backend, job = tuned
    with pytest.raises(ValueError, match="repository's name"):
        tiny.finish(backend.tunings.publish(job, ME, name, TOKEN))
    assert stand_in.asked == []


def test_what_the_hub_refuses_is_told_in_words_without_the_token(tuned, stand_in, monkeypatch):
    backend, job = tuned
    tiny.finish(backend.tunings.publish(job, ME, "twice", TOKEN))
    for name, token, says in (("twice", TOKEN, "of this name already"), ("new", "hf_another", "Sign in again")):
        with pytest.raises(ValueError, match=says) as told:
            tiny.finish(backend.tunings.publish(job, ME, name, token))
        assert token not in repr(told.value) and told.value.__cause__ is None
    monkeypatch.setattr(sending, "HfApi", lambda endpoint, token: real(endpoint="http://127.0.0.1:9", token=token))
    with pytest.raises(ValueError, match="can't be reached"):
        tiny.finish(backend.tunings.publish(job, ME, "new", TOKEN))


def test_only_the_owner_can_publish_and_only_where_the_hub_is_used(tuned, stand_in, monkeypatch):
    backend, job = tuned
    with pytest.raises(ValueError, match="no such job"):
        tiny.finish(backend.tunings.publish(job, OTHER, "stolen", TOKEN))
    monkeypatch.setattr(backend.tunings, "_settings", replace(backend.settings, hub=False))
    with pytest.raises(ValueError, match="set not to use"):
        tiny.finish(backend.tunings.publish(job, ME, "x", TOKEN))
    assert stand_in.asked == []


# Who has come


def test_the_owner_of_jobs_is_the_hub_user_on_every_device_until_they_sign_out(tmp_path, monkeypatch):
    for name, value in SPACE.items():
        monkeypatch.setenv(name, value)
    settings = Settings(data=tmp_path)
    backend = local_backend(settings)
    arrive = hub.arrival(backend)
    profile = {"sub": "0123", "preferred_username": "me", "name": "Me"}
    mine = arrive(ME, profile)
    assert mine == arrive("", profile) != arrive("", profile | {"sub": "0124"})
    assert visitor.known(mine) == mine  # an id like any other
    backend.close()
    backend = local_backend(settings)
    assert hub.arrival(backend)("", profile) == mine  # after a restart
    assert arrive(ME, None) == ME  # not signed in, as ever
    stranger = arrive(mine, None)
    assert stranger != mine and visitor.known(stranger) == stranger
    assert not backend.owners.is_account(ME)
    backend.close()
    (tmp_path / "key").write_text("0" * 64)
    assert Owners(settings).account("0123") != mine  # nobody can make it who has the account's name and the secret


def test_the_page_offers_to_sign_in_only_where_it_can_be_done(tmp_path, monkeypatch):
    def built():
        settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
        backend = local_backend(settings)
        demo = page.build(backend, settings)
        backend.close()
        return demo, {block.elem_id for block in demo.blocks.values()}

    demo, there = built()
    assert not {"sign-in", "to-hub"} & there and not demo.expects_oauth
    for name, value in SPACE.items():
        monkeypatch.setenv(name, value)
    given = {"OAUTH_CLIENT_ID": "client", "OAUTH_CLIENT_SECRET": "secret", "OAUTH_SCOPES": "openid contribute-repos"}
    for name, value in (given | {"OPENID_PROVIDER_URL": "https://127.0.0.1:9"}).items():
        monkeypatch.setattr(oauth, name, value)  # read when gradio was imported
    demo, there = built()
    assert {"sign-in", "to-hub", "keep-on-hub"} <= there and demo.expects_oauth
    (publish,) = [event.fn for event in demo.fns.values() if getattr(event.fn, "__name__", "") == "publish"]
    assert "Sign in at the top" in next(publish(ME, ME, "x", None))
    token = gr.OAuthToken(token=TOKEN, scope="", expires_at=0)
    *_, said = publish("0" * 32, ME, "x", token)
    assert "Nothing was uploaded" in said and TOKEN not in said


def test_the_pages_own_handler_shows_progress_and_the_address(tuned, stand_in, monkeypatch):
    for name, value in SPACE.items():
        monkeypatch.setenv(name, value)
    backend, job = tuned
    with gr.Blocks() as demo:
        hub.keeping(backend, gr.BrowserState(""), gr.State(""))
    offer, event = demo.fns.values()
    assert offer.fn(job).visible and not any(offer.fn(name).visible for name in tuned_models())
    *shown, last = event.fn(job, ME, " from-the-page ", SimpleNamespace(token=TOKEN))
    assert "footlights" in shown[0] and f"{stand_in.url}/me/from-the-page" in last
