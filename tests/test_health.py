"""`GET /health`, the worker's loop, and what an upload may take: mostly from outside, over HTTP."""

import json
import logging
import os
import threading
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import httpx
import numpy as np
import pytest
from PIL import Image
from running_app import running_app

from pipelines.serving.local import local_backend
from pipelines.serving.quota import Quota, Upload
from pipelines.serving.tidy import Thing
from pipelines.serving.watch import Loop
from pipelines.settings import Settings


def health(app):
    """What the app says of itself; it must say it within a second."""
    try:
        with urlopen(f"{app.url}/health", timeout=10) as answer:
            status, told = answer.status, json.load(answer)
    except HTTPError as error:
        status, told = error.code, json.load(error)
    assert status == (200 if told["ok"] else 503)
    return told


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with running_app(
        tmp_path_factory.mktemp("health"), MARIONETTE_PASSWORD="sesame", MARIONETTE_METRICS="1"
    ) as running:
        yield running


def test_a_well_app_says_so_to_everybody_and_names_nothing(app):
    told = health(app)
    assert told["ok"] and told["table"] == "ok" and told["found"] == 0 and told["notes"] == []
    assert told["worker"]["alive"] and told["worker"]["last_beat_seconds"] < 10
    assert told["disk"]["ok"] and told["disk"]["free_mb"] > told["disk"]["needed_mb"] == 500
    assert str(app.data) not in json.dumps(told) and "sesame" not in json.dumps(told)


def test_metrics_are_told_where_that_is_wanted_and_name_nobody(app, shared_app):
    assert httpx.get(f"{shared_app.url}/metrics").status_code == 404
    answer = httpx.get(f"{app.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert samples["marionette_ok"] == "1" and samples['marionette_jobs{state="waiting"}'] == "0"
    assert samples['marionette_worker_busy{worker="0"}'] == "0"


def test_the_door_is_open_for_nothing_else(app):
    assert httpx.get(f"{app.url}/config").status_code == 401
    assert httpx.post(f"{app.url}/health").status_code == 405
    assert httpx.get(f"{app.url}/health/../config").status_code == 401


def test_without_free_space_health_is_bad_and_no_upload_is_read(tmp_path):
    with running_app(tmp_path, MARIONETTE_DISK_MARGIN_MB="1000000") as app:
        told = health(app)
        assert not told["ok"] and not told["disk"]["ok"] and told["worker"]["alive"]
        refused = httpx.post(f"{app.url}/gradio_api/upload", files={"files": ("clip.mp4", b"x" * 10_000)})
        assert refused.status_code == 507 and "disk is nearly full" in refused.json()["detail"]
        assert not [path for path in (app.data / "temp").rglob("*") if path.is_file()]


def test_an_upload_must_tell_its_length_and_an_honest_one_is_taken(tmp_path):
    with running_app(tmp_path) as app:
        url = f"{app.url}/gradio_api/upload"
        body, kind = b"--b\r\n\r\nx\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}
        assert httpx.post(url, content=iter([body]), headers=kind).status_code == 411
        with pytest.raises(HTTPError) as huge:  # nothing of it is sent, or waited for
            urlopen(Request(url, b"", kind | {"Content-Length": str(10**14)}), timeout=10)
        assert huge.value.code == 507
        taken = httpx.post(url, files={"files": ("clip.mp4", b"x" * 10_000)})
        assert taken.status_code == 200
        assert (app.data / "public" / taken.json()[0]).stat().st_size == 10_000


# The loop


def wait_until(what, seconds=20.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_turn_that_fails_ends_that_turn_only(monkeypatch):
    monkeypatch.setattr("pipelines.serving.watch.PAUSE_SECONDS", 0.01)
    errors, done = [OSError("disk"), SystemExit(1), MemoryError(), KeyError("x")], threading.Event()

    def turn():
        if errors:
            raise errors.pop(0)
        done.set()
        time.sleep(0.01)

    loop = Loop(turn)
    loop.start()
    assert done.wait(20) and loop.alive and loop.restarts == 0
    wait_until(lambda: loop.failures == 0)
    assert loop.join(20) and not loop.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_dies_is_replaced(monkeypatch):
    """Nothing that a turn raises ends the thread; what the log raises on top of it does."""
    monkeypatch.setattr("pipelines.serving.watch.PAUSE_SECONDS", 0.01)
    turns = []

    class Broken(logging.Handler):
        def handle(self, record):
            raise SystemExit

    def turn():
        turns.append(threading.get_ident())
        if len(turns) == 1:
            raise RuntimeError("first")
        time.sleep(0.01)

    broken = Broken()
    logging.getLogger("pipelines.errors").addHandler(broken)
    loop = Loop(turn)
    try:
        loop.start()
        wait_until(lambda: len(turns) > 3)
    finally:
        logging.getLogger("pipelines.errors").removeHandler(broken)
    assert loop.restarts == 1 and loop.alive
    assert loop.join(20)


def test_a_loop_that_gives_no_sign_is_seen_and_not_waited_for():
    going = threading.Event()
    loop = Loop(going.wait)
    loop.start()
    time.sleep(0.2)
    assert loop.alive and loop.quiet_seconds >= 0.15
    assert not loop.join(0.1)
    going.set()
    assert loop.join(20)


# What uploads may take


def upload(folder, owner, name, size, made, held=False):
    path = folder / name
    path.mkdir(parents=True)
    (path / "upload").write_bytes(bytes(size))
    remove = lambda: ((path / "upload").unlink(), path.rmdir())  # noqa: E731
    return Upload(owner, Thing("clips", name, path, made, 30.0, held, remove))


def test_a_visitor_may_keep_so_much_and_their_own_oldest_makes_room(tmp_path):
    quota = Quota(Settings(data=tmp_path, keep_gb=0.1, upload_mb=1))  # 10 MB each, 50 MB in all
    assert (quota.each, quota.all) == (10**7, 5 * 10**7)
    mine = [upload(tmp_path, "me", f"mine{number}", 3 * 10**6, number) for number in range(3)]
    others = [upload(tmp_path, "you", "yours", 3 * 10**6, -1)]
    quota.make_room(10**6, "me", mine + others)
    assert all(one.thing.path.exists() for one in mine + others)
    quota.make_room(2 * 10**6, "me", mine + others)
    assert [one.thing.path.exists() for one in mine + others] == [False, True, True, True]


def test_what_is_in_use_stays_and_then_the_upload_is_refused(tmp_path):
    quota = Quota(Settings(data=tmp_path, keep_gb=0.1, upload_mb=1))
    mine = [upload(tmp_path, "me", f"mine{number}", 3 * 10**6, number, held=number > 0) for number in range(3)]
    with pytest.raises(ValueError, match="one visitor"):
        quota.make_room(5 * 10**6, "me", mine)
    assert all(one.thing.path.exists() for one in mine)  # nothing was deleted in vain
    many = [upload(tmp_path, f"owner {number}", f"n{number}", 9 * 10**6, number, held=True) for number in range(5)]
    with pytest.raises(ValueError, match="no room for more uploads"):
        quota.make_room(6 * 10**6, "new", many)


def test_uploads_that_come_at_once_share_what_is_free(tmp_path):
    settings = Settings(data=tmp_path, keep_gb=0.1, upload_mb=1, disk_margin_mb=10)
    quota = Quota(settings)
    with quota.receiving(3 * 10**7):
        with pytest.raises(ValueError, match="Too much is being uploaded"), quota.receiving(3 * 10**7):
            pass
        with quota.receiving(10**7):
            pass
    with quota.receiving(3 * 10**7):
        pass
    settings.uploads.mkdir(parents=True)
    (settings.uploads / "left").write_bytes(bytes(3 * 10**7))
    with pytest.raises(ValueError, match="Too much"), quota.receiving(3 * 10**7):
        pass


def test_a_backend_counts_what_a_visitor_has_uploaded(tmp_path):
    """Noise that is 0.3 MB as a JPEG and 1 MB as kept: of 2 MB, a third picture takes too much."""
    noise = np.random.default_rng(7).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg")
    backend = local_backend(Settings(data=tmp_path / "data", device="cpu", hub=False, keep_gb=0.02, upload_mb=1))
    try:
        names = [backend.assets.keep_image(tmp_path / "noise.jpg", "1" * 64) for _ in range(2)]
        with pytest.raises(ValueError, match="one visitor"):
            backend.assets.keep_image(tmp_path / "noise.jpg", "1" * 64)
        assert backend.assets.keep_image(tmp_path / "noise.jpg", "2" * 64)
        for name in names:  # an hour later they are the first to go
            os.utime(tmp_path / "data" / "images" / name, (time.time() - 3600,) * 2)
        kept = backend.assets.keep_image(tmp_path / "noise.jpg", "1" * 64)
        assert backend.assets.image(kept, "1" * 64)
        with pytest.raises(ValueError, match="not there any more"):
            backend.assets.keep_image(tmp_path / "gone.jpg", "1" * 64)
    finally:
        backend.close()
