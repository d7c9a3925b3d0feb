"""What a browser may load lies in a folder of its own, as long as what it belongs to."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from test_jobs import task

from pipelines.events import Result
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.serving.shown import Shown
from pipelines.settings import Settings

ANNA = "a" * 64


@pytest.fixture
def settings(tmp_path):
    return Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False, disk_margin_mb=0)


@pytest.fixture(params=["links", "copies"])
def disk(request, monkeypatch):
    """A disk where files can be linked, or one where they can't, such as a bucket."""

    def refuses(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "copies":
        monkeypatch.setattr(os, "link", refuses)
    return request.param


def made(settings, job="1" * 32, name="a-bear-7.mp4", content=b"film"):
    file = settings.data / "videos" / job / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_a_file_has_one_address_which_tells_nothing_and_follows_what_becomes_of_it(settings, disk):
    shown, file = Shown(settings), made(settings)
    address = Path(shown.address(file))
    assert address.read_bytes() == b"film" and address.name == file.name and address.is_relative_to(settings.shown)
    assert "1" * 32 not in str(address.relative_to(settings.shown))
    assert (address.stat().st_ino == file.stat().st_ino) == (disk == "links")
    assert shown.address(file) == str(address) == Shown(settings).address(file)  # also after a restart
    made(settings, name="new", content=b"another film").replace(file)
    assert shown.address(file) == str(address) and address.read_bytes() == b"another film"
    assert not list(address.parent.glob(".*"))
    file.unlink()
    assert shown.address(file) is None


def test_what_belongs_to_the_app_has_an_address_among_what_is_shown(settings, disk, tmp_path):
    picture = tmp_path / "motions" / "bow, deep.gif"
    picture.parent.mkdir()
    picture.write_bytes(b"GIF")
    shown = Shown(settings)
    address = Path(shown.built_in(picture))
    assert address.read_bytes() == b"GIF" and address.is_relative_to(settings.shown)
    picture.unlink()
    picture.write_bytes(b"GIF of the next version")
    shown.clear()
    assert shown.built_in(picture) == str(address) and address.read_bytes() == b"GIF of the next version"


def test_of_one_job_no_address_leads_to_another(settings):
    shown = Shown(settings)
    films = [made(settings, name="a.mp4"), made(settings, name="a.zip"), made(settings, job="2" * 32, name="a.mp4")]
    addresses = [Path(shown.address(file)) for file in films]
    assert len({address.parent for address in addresses}) == 3
    shown.forget("videos", "1" * 32)
    assert [address.exists() for address in addresses] == [False, False, True] and all(map(Path.exists, films))


@pytest.mark.parametrize(
    "name",
    ["jobs.db", "secret", "videos/1/tuned/tuned.safetensors", "videos/1/a.json", "videos/1/b/a.mp4", "clips/1/upload"],
)
def test_what_is_not_to_be_seen_has_no_address(settings, name):
    file = settings.data / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    link = made(settings, name="link.mp4")
    link.unlink()
    link.symlink_to(file)
    for asked in (file, link, settings.data / "videos" / "1" / ".." / ".." / name):
        with pytest.raises(ValueError, match="not for a browser"):
            Shown(settings).address(asked)
    assert Shown(settings).address(Path("/etc/passwd")) is None
    assert not [one for one in settings.shown.rglob("*") if one.is_file()]


def test_what_is_shown_goes_with_its_job(settings, disk):
    backend = local_backend(settings)
    backend.dispatcher.pause()
    try:
        job = backend.table.add(task("a bear"), ANNA)
        backend.table.take(0)
        place = backend.storage.place(job)
        place.parent.mkdir(parents=True, exist_ok=True)  # its sidecar may be there
        video.write(np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8), place, 8)
        backend.table.tell(job.id, Result(place, {}))
        addresses = [Path(backend.assets.address(backend.jobs.export(job.id, ANNA, kind))) for kind in ("mp4", "gif")]
        assert all(map(Path.exists, addresses))
        backend.jobs.delete(job.id, ANNA)
        assert not any(map(Path.exists, addresses)) and not list(settings.shown.iterdir())
    finally:
        backend.close()


def test_what_has_outlived_its_job_is_cleared_at_the_start(settings):
    shown = Shown(settings)
    stays, goes = made(settings), made(settings, job="2" * 32)
    addresses = [Path(shown.address(file)) for file in (stays, goes)]
    goes.unlink()  # by hand, or by an older version of the app
    shown.clear()
    assert [address.exists() for address in addresses] == [True, False]
