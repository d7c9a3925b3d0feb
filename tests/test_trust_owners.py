"""Nobody becomes somebody else: what this server stores, publishes or stored once is no key to anybody's things."""

import base64
import hmac
import json
import sqlite3
import stat
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from running_app import running_app
from stand_in_provider import Provider

from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.serving.owners import Owners
from pipelines.settings import Settings

ANNA, MALLORY = "a" * 30 + "12", "b" * 30 + "34"
SECRET = "5ec2e7" * 10 + "abcd"  # of the old data: the page has published it
SUBJECT = "id-of-somebody"  # of an account on the Hub: anybody can look it up
JOB, HERS, CLIP, IMAGE = "1" * 32, "2" * 32, "3" * 32, "4" * 32


def computed(subject: str, secret: str) -> str:
    """What the id of a signed-in user was before it had a key of its own, from what everybody knows."""
    first, proof = "user " + subject, "proof "
    half = hmac.digest(secret.encode(), first.encode(), "sha256").hex()[:16]
    return half + hmac.digest(secret.encode(), (proof + half).encode(), "sha256").hex()[:16]


def task(**changes) -> dict:
    return {
        **{"task": "text-to-video", "prompt": "a robot", "model": "miniature-modelscope", "negative_prompt": ""},
        **{"frames": 8, "width": 128, "height": 128, "fps": 8, "steps": 2, "guidance": 3.0, "scheduler": "ddim"},
        **{"seed": 7, "image": "", "mask": "", "image_guidance": None},
        **changes,
    }


def old_data(folder: Path) -> Path:
    """A data folder as the version before left it: two videos, a clip and an image, and ids of visitors everywhere."""
    folder.mkdir(parents=True)
    (folder / "secret").write_text(SECRET)
    rows = sqlite3.connect(folder / "jobs.db", isolation_level=None)
    rows.execute(
        "CREATE TABLE jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, task TEXT NOT NULL, state TEXT NOT NULL CHECK "
        "(state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'interrupted')), attempts INTEGER NOT NULL "
        "DEFAULT 0, submitted REAL NOT NULL, started REAL, ended REAL, stage TEXT, step INTEGER, total INTEGER, "
        "error TEXT, video TEXT, facts TEXT, title TEXT) STRICT"
    )
    rows.execute("CREATE INDEX jobs_of_owner ON jobs (owner, submitted)")
    rows.execute("CREATE INDEX jobs_in_state ON jobs (state, ended)")
    frames = np.random.default_rng(0).integers(0, 255, (8, 128, 128, 3), np.uint8)
    for job, owner in ((JOB, ANNA), (HERS, computed(SUBJECT, SECRET))):
        film = folder / "videos" / job / "a-robot-7.mp4"
        film.parent.mkdir(parents=True)
        told = task(image=IMAGE)
        video.write(np.stack([np.kron(frame[::8, ::8], np.ones((8, 8, 1), np.uint8)) for frame in frames]), film, 8)
        now = time.time()
        values = (job, owner, json.dumps(task()), "done", 1, now, now, now, str(film), json.dumps({"task": told}))
        rows.execute(
            "INSERT INTO jobs (id, owner, task, state, attempts, submitted, started, ended, video, facts) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
    rows.execute("PRAGMA user_version = 2")
    rows.close()
    clip = {"owner": ANNA, "seconds": 1.0, "frames": 8, "width": 128, "height": 128, "fps": 8.0}
    (folder / "clips" / CLIP).mkdir(parents=True)
    (folder / "clips" / CLIP / "upload").write_bytes((folder / "videos" / JOB / "a-robot-7.mp4").read_bytes())
    (folder / "clips" / CLIP / "preview.mp4").write_bytes((folder / "clips" / CLIP / "upload").read_bytes())
    (folder / "clips" / CLIP / "clip.json").write_text(
        json.dumps(clip | {"codec": "H.264", "kind": "MP4 or MOV", "cut": False, "sound": False})
    )
    (folder / "images" / IMAGE).mkdir(parents=True)
    (folder / "images" / IMAGE / "image.json").write_text(json.dumps({"owner": ANNA}))
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    (folder / "images" / IMAGE / "image.png").write_bytes(base64.b64decode(png))
    return folder


@pytest.fixture
def backend(tmp_path):
    made = local_backend(settings_of(old_data(tmp_path / "data")))
    yield made
    made.close()


def settings_of(folder: Path) -> Settings:
    return Settings(data=folder, cache=folder.parent / "cache", device="cpu", hub=False)


def has(backend, visitor_id: str) -> list[str]:
    return [job.id for job in backend.jobs.finished(backend.owners.of(visitor_id))]


def test_data_of_the_version_before_is_still_its_owners_and_holds_no_id_of_a_visitor(backend, tmp_path):
    me = backend.owners.of(ANNA)
    assert has(backend, ANNA) == [JOB]
    assert backend.assets.clip(CLIP, me).name == CLIP and backend.assets.image(IMAGE, me)
    assert backend.jobs.finished(me)[0].end.facts["task"]["image"] != IMAGE  # what a browser is told of it
    assert not has(backend, MALLORY)
    for known in (CLIP, IMAGE):
        with pytest.raises(ValueError, match="no such"):
            (backend.assets.clip if known == CLIP else backend.assets.image)(known, backend.owners.of(MALLORY))
    for file in filter(Path.is_file, (tmp_path / "data").rglob("*")):
        for known in (ANNA, computed(SUBJECT, SECRET)):
            assert known.encode() not in file.read_bytes(), file


def test_who_signs_in_finds_their_library_and_who_computes_their_old_id_finds_nothing(backend):
    assert has(backend, backend.owners.account(SUBJECT)) == [HERS]
    old = computed(SUBJECT, SECRET)
    assert not has(backend, old) and backend.owners.account(SUBJECT) != old
    assert backend.owners.account("id-of-somebody-else") != backend.owners.account(SUBJECT)
    assert backend.owners.is_account(old) and backend.owners.is_account(backend.owners.account(SUBJECT))
    assert not backend.owners.is_account(ANNA)


@pytest.mark.parametrize("done", ["nothing", "files", "a file", "all"])
def test_a_migration_that_was_interrupted_is_run_again(tmp_path, done):
    folder = old_data(tmp_path / "data")
    if done in ("files", "a file"):
        Owners(settings_of(folder)).renew([])  # and then the power failed
        if done == "a file":
            (folder / "images" / IMAGE / "image.json").write_text(json.dumps({"owner": ANNA}))
    if done == "all":
        local_backend(settings_of(folder)).close()
    backend = local_backend(settings_of(folder))
    try:
        me = backend.owners.of(ANNA)
        assert has(backend, ANNA) == [JOB] and backend.assets.clip(CLIP, me) and backend.assets.image(IMAGE, me)
        assert has(backend, backend.owners.account(SUBJECT)) == [HERS]
    finally:
        backend.close()


def test_clips_and_images_stay_their_owners_where_the_table_was_lost(tmp_path):
    folder = old_data(tmp_path / "data")
    (folder / "jobs.db").unlink()
    backend = local_backend(settings_of(folder))
    try:
        me = backend.owners.of(ANNA)
        assert backend.assets.clip(CLIP, me) and backend.assets.image(IMAGE, me)
    finally:
        backend.close()


def test_a_migration_that_can_not_be_done_is_told_and_changes_nothing(tmp_path, monkeypatch):
    folder = old_data(tmp_path / "data")
    Owners(settings_of(folder))  # so that there is a key already
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ValueError, match="No space left on device.*Mend that first"):
            local_backend(settings_of(folder))
    backend = local_backend(settings_of(folder))
    try:
        assert has(backend, ANNA) == [JOB] and backend.assets.clip(CLIP, backend.owners.of(ANNA))
    finally:
        backend.close()


def test_the_key_of_the_server_is_for_this_user_only_and_a_damaged_one_is_told(tmp_path):
    local_backend(settings_of(tmp_path)).close()
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    (tmp_path / "key").write_text("")
    with pytest.raises(ValueError, match="should hold 64 hexadecimal digits"):
        local_backend(settings_of(tmp_path))


def test_over_http_old_data_opens_for_its_owner_alone(tmp_path):
    old_data(tmp_path / "videos")
    with running_app(tmp_path) as app:
        client = Client(app.url, verbose=False)
        file, told = client.predict(JOB, ANNA, 2, api_name="/finish")
        assert Path(file).stat().st_size and told["visitor_id"] == ANNA
        owners = {owner for file in app.data.glob("*/*/*.json") if "owner" in (owner := file.read_text())}
        keys = [json.loads(text)["owner"] for text in owners]
        for key in (MALLORY, computed(SUBJECT, SECRET), SECRET[:32], "", *keys, *(key[:32] for key in keys)):
            for job in (JOB, HERS):
                with pytest.raises(AppError, match="no such job"):
                    client.predict(job, key, api_name="/finish")
        # Only what was shown has an address, whatever is known of the folder.
        for name in ("clips/*/*", "images/*/*", "videos/*/*.mp4", "jobs.db", "key", "secret"):
            for path in app.data.glob(name):
                assert httpx.get(f"{app.url}/gradio_api/file={path}").status_code == 403


def test_the_id_of_who_signed_in_can_not_be_computed_from_what_the_page_publishes(tmp_path):
    provider = Provider()
    try:
        with running_app(tmp_path, **provider.variables("Somebody")) as app:

            def sent_back(response):
                for cookie in caller.cookies.jar:
                    cookie.secure = False  # browsers trust 127.0.0.1 without https

            hooks = {"response": [sent_back]}
            with httpx.Client(base_url=app.url, follow_redirects=True, timeout=60, event_hooks=hooks) as caller:
                provider.user = "somebody"
                caller.get("/login/huggingface", params={"_target_url": "/"})
                mine = caller.post("/gradio_api/run/arrive", json={"data": [""]}).json()["data"][0]
                again = caller.post("/gradio_api/run/arrive", json={"data": ["c" * 32]}).json()["data"][0]
                config = caller.get("/config").json()
            (published,) = [one["props"]["secret"] for one in config["components"] if one["type"] == "browserstate"]
            assert mine == again and len(mine) == 32
            assert published not in ((app.data / "key").read_text(), mine)
            subjects = ("id-of-somebody", "somebody")
            assert mine not in [computed(subject, published) for subject in subjects]
            key = (app.data / "key").read_text()
            assert key not in json.dumps(config)
            # Who has signed out is a stranger, with an id of now and with one of before.
            with httpx.Client(base_url=app.url, timeout=60) as stranger:
                for sent in (mine, *(computed(subject, published) for subject in subjects)):
                    told = stranger.post("/gradio_api/run/arrive", json={"data": [sent]}).json()["data"][0]
                    assert told not in (sent, mine)
                assert stranger.post("/gradio_api/run/arrive", json={"data": [ANNA]}).json()["data"][0] == ANNA
    finally:
        provider.close()
