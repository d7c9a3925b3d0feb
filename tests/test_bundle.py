"""Several videos in one file, over HTTP: what may be asked for, and what comes."""

from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from zipfile import ZipFile

import pytest
from starlette.testclient import TestClient

from pipelines.serving.shown import Shown
from pipelines.settings import Settings
from ui import bundle, server
from ui.origins import Origins


@pytest.fixture
def settings(tmp_path):
    return Settings(data=tmp_path / "data", cache=tmp_path / "cache")


@pytest.fixture
def asked(settings):
    app = server.App(Origins.of(settings, {}), (), [bundle.route(settings)])
    client = TestClient(app, "http://127.0.0.1")
    client.application = app
    return client


def shown(settings, job, name="a-bear-7.mp4", content=b"video"):
    """The address of a video of the job."""
    file = settings.data / "videos" / job / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return Shown(settings).address(file)


def test_the_videos_asked_for_come_whole_under_names_of_their_own(settings, asked):
    large = bytes(range(256)) * 4096  # of several chunks
    files = [shown(settings, "0" * 32), shown(settings, "1" * 32, content=large), shown(settings, "2" * 32, "A é.mp4")]
    answer = asked.get(bundle.address([*files, files[0]]))
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].startswith('attachment; filename="marionette-')
    with ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a-bear-7.mp4": b"video", "a-bear-7-2.mp4": large, "a.mp4": b"video"
        }  # fmt: skip


def test_nothing_but_shown_videos_is_had(settings, asked):
    mine = shown(settings, "0" * 32)
    (settings.data / "secret").write_text("secret")
    Path(mine).with_name("job.json").write_text("{}")
    with ZipFile(BytesIO(asked.get(bundle.address([mine])).content)) as archive:
        assert archive.namelist() == ["a-bear-7.mp4"]
    (name,) = parse_qs(urlsplit(bundle.address([mine])).query)["of"]
    group, file = name.split("/")
    for odd in (
        "",
        "..",
        "../..",
        f"{name}/..",
        f"{group}/*",
        f"{name}\n",
        "/etc",
        f"{group.upper()}/{file}",
        "0" * 32,
    ):
        assert asked.get(bundle.PATH, params={"of": [name, odd]}).status_code == 400, odd
    assert asked.get(bundle.PATH, params={"of": [f"{'0' * 32}/{'1' * 32}"]}).status_code == 404
    assert asked.get(bundle.PATH).status_code == 404
    assert asked.get(bundle.PATH, params={"of": [name] * (bundle.MOST + 1)}).status_code == 400


def test_what_was_deleted_is_not_in_it(settings, asked):
    gone, there = shown(settings, "0" * 32), shown(settings, "1" * 32, "there.mp4")
    Shown(settings).forget("videos", "0" * 32)
    with ZipFile(BytesIO(asked.get(bundle.address([gone, there])).content)) as archive:
        assert archive.namelist() == ["there.mp4"]


def test_where_there_is_a_password_only_those_get_it_who_gave_it(settings, asked):
    address = bundle.address([shown(settings, "0" * 32)])
    asked.application.auth = [("anybody", "password")]
    assert asked.get(address).status_code == 401
    asked.cookies[f"access-token-unsecure-{asked.application.cookie_id}"] = "forged"
    assert asked.get(address).status_code == 401
    asked.application.tokens["given"] = "anybody"
    asked.cookies[f"access-token-unsecure-{asked.application.cookie_id}"] = "given"
    assert asked.get(address).status_code == 200
