"""A shared video in a stranger's hands: nothing in it, and nothing that the web server answers, opens more than it.

From the outside, over HTTP; the attacker even knows the data folder, every name in it and every id.
"""

import hashlib
import json
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from running_app import ROOT, RunningApp, running_app

from pipelines.media import video

ANNA, MALLORY = "a" * 30 + "12", "b" * 30 + "34"
QUICK = {"steps": 2, "frames": 8}


@dataclass(frozen=True)
class Made:
    """What Anna has made, and the video that she sends to Mallory."""

    app: RunningApp
    tuned: str  # her job ids
    edited: str
    shared: Path
    told: dict  # what the endpoint told with it

    @property
    def ids(self) -> list[str]:
        """Every id and owner that there is."""
        data = self.app.data
        things = [folder.name for kind in ("videos", "clips", "images") for folder in data.glob(f"{kind}/*")]
        owners = [json.loads(file.read_text())["owner"] for file in data.glob("clips/*/clip.json")]
        return [*things, *owners]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    clip = folder / "secret-dance.mp4"
    frames = np.full((12, 96, 128, 3), 200, np.uint8)
    for number, frame in enumerate(frames):
        frame[30:60, 8 * number : 8 * number + 24] = (200, 30, 30)
    video.write(frames, clip, 8)
    with running_app(folder) as app:
        client = Client(app.url, verbose=False, download_files=folder / "downloads")
        job = client.submit(
            handle_file(clip), "a robot dances", frames=8, steps=2000, visitor_id=ANNA, api_name="/tune"
        )
        for _, news in job:
            tuned = news["job"]
            if news.get("stage") == "Tuning" and news["step"]:  # what is tuned so far is kept
                client.predict(tuned, ANNA, api_name="/stop")
                break
        with pytest.raises(AppError, match="Stopped"):
            job.result(timeout=600)
        shared, told = client.predict(tuned, "a bear dances", ANNA, steps=2, api_name="/edit")
        yield Made(app, tuned, told["job"], Path(shared), told)


@pytest.fixture
def mallory(made):
    with httpx.Client(base_url=made.app.url, timeout=120) as client:
        yield client


def test_a_shared_video_and_what_is_told_of_it_hold_no_id(made):
    task = json.loads(video.read_comment(made.shared))
    (weights,) = made.app.data.glob("videos/*/tuned/tuned.safetensors")
    assert task["tuned"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    told = json.dumps({name: value for name, value in made.told.items() if name not in ("job", "visitor_id")})
    assert len(made.ids) >= 4 and made.told["job"] == made.edited and made.told["visitor_id"] == ANNA
    for known in (ANNA, *made.ids):
        assert known.encode() not in made.shared.read_bytes() and known not in told, known
    assert not re.search(r"\b[0-9a-f]{32}\b", video.read_comment(made.shared) + told)


def test_the_id_of_a_visitor_is_written_nowhere(made):
    files = [file for file in made.app.data.parent.rglob("*") if file.is_file()]
    assert any(file.name == "jobs.db" for file in files)
    assert not [file for file in files if ANNA.encode() in file.read_bytes()]


def test_what_stands_in_the_files_is_no_key_to_anything(made):
    """The owner of whatever there is, its ids, and whatever stands in the shared video."""
    client = Client(made.app.url, verbose=False)
    task = json.loads(video.read_comment(made.shared))
    for key in {*made.ids, task["tuned"], task["tuned"][:32], MALLORY, "", "0" * 32}:
        with pytest.raises(AppError, match="no such job"):
            client.predict(made.edited, key, api_name="/finish")
        with pytest.raises(AppError, match="no such tuned model"):
            client.predict(made.tuned, "a bear", key, api_name="/edit")


def ways_to(file: Path, data: Path) -> list[str]:
    """Addresses under which somebody might ask for `file`."""
    relative = str(file.relative_to(data))
    names = [str(file), f"../{relative}", f"shown/../../{relative}", f"uploads/../../{relative}", relative]
    names += [f"file://{file}", str(file).replace("/", "//"), f"/proc/self/cwd/../{relative}", f"./../{relative}"]
    ways = []
    for name in names:
        for path in (name, quote(name, safe=""), quote(quote(name, safe=""), safe="")):
            path = path.replace("..", "%2e%2e") if "%" not in path else path
            ways += [f"/gradio_api/file={path}", f"/file={path}", f"/gradio_api/file/{path}"]
    ways += [f"/static/{quote('../' * 20 + str(file)[1:], safe='')}", f"/assets/{quote(str(file), safe='')}"]
    ways += [f"/svelte/{quote('../' * 20 + str(file)[1:], safe='')}", f"/gradio_api/proxy=file://{file}"]
    return ways


def secrets_of(made) -> dict[str, bytes]:
    files = [file for file in made.app.data.rglob("*") if file.is_file() and "shown" not in file.parts]
    return {str(file): file.read_bytes() for file in files}


def test_nothing_of_the_data_folder_is_served(made, mallory):
    kept = secrets_of(made)
    assert {"jobs.db", "clip.json", "upload", "tuned.safetensors", "preview.mp4", "secret", "key"} <= {
        Path(name).name for name in kept
    }
    for name in kept:
        for way in ways_to(Path(name), made.app.data):
            said = mallory.get(way)
            assert said.status_code != 200, way
            assert len(kept[name]) < 16 or kept[name][:64] not in said.content


def test_no_link_leads_out_of_what_is_shown(made, mallory):
    link = made.app.data / "public" / "shown" / "link.mp4"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(made.app.data / "jobs.db")
    (link.parent / "folder").symlink_to(made.app.data / "clips")
    try:
        clip = next(made.app.data.glob("clips/*/clip.json"))
        for path in ("shown/link.mp4", f"shown/folder/{clip.parent.name}/clip.json", str(link)):
            assert mallory.get(f"/gradio_api/file={path}").status_code == 403
    finally:
        link.unlink()
        (link.parent / "folder").unlink()


def test_who_has_the_address_of_a_video_has_that_video_and_no_id(made, mallory):
    address = finished(made, mallory)["url"].split("/gradio_api/", 1)[1]
    said = mallory.get(f"/gradio_api/{address}")
    assert said.status_code == 200 and said.headers["content-type"] == "video/mp4"
    part = mallory.get(f"/gradio_api/{address}", headers={"Range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert not [one for one in (*made.ids, ANNA) if one in address]
    folder, name = address.removeprefix("file=").rsplit("/", 1)
    for near in (folder, folder.rsplit("/", 1)[0], "shown", f"{folder}/x{name}", f"{folder}/{name}/.."):
        assert mallory.get(f"/gradio_api/file={near}").status_code in (403, 404)


def test_a_file_of_the_server_that_is_named_as_an_upload_is_neither_read_nor_copied(made, mallory):
    """Whatever takes a file, endpoint or hidden event, is given files of the server that would tell the most."""
    config = mallory.get("/config").json()
    kinds = {one["id"]: one["type"] for one in config["components"]}
    takers = {"uploadbutton", "file", "video", "image", "downloadbutton", "api", "html", "json", "state"}
    clip = next(made.app.data.glob("clips/*/clip.json"))
    weights = next(made.app.data.glob("videos/*/tuned/tuned.safetensors"))
    wanted = [clip, clip.with_name("upload"), weights, made.app.data / "jobs.db", made.app.data / "secret"]
    contents = {hashlib.sha256(file.read_bytes()).hexdigest() for file in wanted if file.name != "jobs.db"}
    before = served(made)
    asked = [one for one in config["dependencies"] if {kinds[name] for name in one["inputs"]} & takers]
    assert len(asked) > 30
    said = ""
    for dependency in asked:
        file = wanted[dependency["id"] % len(wanted)]
        forged = {
            "path": str(file),
            "url": f"file://{file}",
            "meta": {"_type": "gradio.FileData"},
            "orig_name": "a.mp4",
        }
        data = [
            MALLORY if kinds[name] == "browserstate" else forged if kinds[name] in takers - {"state"} else None
            for name in dependency["inputs"]
        ]
        said += joined(mallory, dependency["id"], data)
    cached = served(made) - before
    assert not [file for file in cached if hashlib.sha256(file.read_bytes()).hexdigest() in contents]
    assert not [file for file in cached if file.read_bytes().startswith(b"SQLite")]
    owner = json.loads(clip.read_text())["owner"]
    assert owner not in said and ANNA not in said and (made.app.data / "secret").read_text() not in said


def test_no_path_of_the_server_is_told(made, mallory):
    told = [mallory.get(path).text for path in ("/config", "/gradio_api/info", "/gradio_api/openapi.json", "/")]
    upload = mallory.post("/gradio_api/upload", files={"files": ("dance.mp4", made.shared.read_bytes())})
    told.append(upload.text)
    told.append(json.dumps(finished(made, mallory)))
    bad = {"path": "../clips", "meta": {"_type": "gradio.FileData"}}
    for name, values in (
        ("tune", {"clip": {"path": upload.json()[0]}, "prompt": ""}),
        ("tune", {"clip": {"path": "/etc/passwd"}, "prompt": "a robot"}),
        ("tune", {"clip": bad, "prompt": "a robot"}),
        ("text_to_video", {"prompt": "a robot", "image": bad}),
    ):
        told.append(called(mallory, name, values))
    told.append(mallory.get("/gradio_api/file=no/such/file").text)
    told.append(mallory.get("/gradio_api/file=..").text)
    here = [str(made.app.data.parent), str(ROOT), os.path.realpath(tempfile.gettempdir()) + "/", str(Path.home()) + "/"]
    assert not [(path, text[:300]) for text in told for path in here if path in text]


def test_of_the_app_itself_only_the_pages_own_pictures_are_served(mallory):
    for name in ("motions/bow%20to%20the%20left.gif", "examples/bear.webp", "examples/bear.png"):
        assert mallory.get(f"/pictures/{name}").content == (ROOT / "assets" / unquote(name)).read_bytes()
    for name in ("", "motions/", "../checksums.txt", "motions/../../checksums.txt", "motions/%2e%2e/style.css"):
        assert mallory.get(f"/pictures/{name}").status_code == 404, name


def test_a_range_that_is_none_is_passed_over(mallory):
    said = mallory.get("/pictures/examples/bear.webp")
    assert said.status_code == 200
    for odd in ("bytes=²-³", "bytes=x-y", "lines=1-2"):
        again = mallory.get("/pictures/examples/bear.webp", headers={"range": odd.encode()})
        assert (again.status_code, again.content) == (200, said.content), odd
    part = mallory.get("/pictures/examples/bear.webp", headers={"range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, said.content[2:6])


def test_what_was_uploaded_is_served_to_nobody(made, mallory):
    content = secrets.token_bytes(100)
    (path,) = mallory.post("/gradio_api/upload", files={"files": ("my-dance.mp4", content)}).json()
    (file,) = made.app.data.rglob("my-dance.mp4")
    assert file.read_bytes() == content
    for way in (f"/gradio_api/file={path}", f"/gradio_api/file={quote(path, safe='')}", *ways_to(file, made.app.data)):
        said = mallory.get(way)
        assert said.status_code != 200 and content not in said.content, way
    folder = path.rsplit("/", 2)[0]
    for guess in (hashlib.sha256(content).hexdigest(), hashlib.sha1(content).hexdigest(), "*", ""):
        assert mallory.get(f"/gradio_api/file={folder}/{guess}/my-dance.mp4").status_code == 404
    for near in (folder, path.rsplit("/", 1)[0]):
        assert mallory.get(f"/gradio_api/file={near}").status_code == 404


def test_what_only_developers_of_gradio_want_is_shut(mallory):
    for path in (
        "/openapi.json",
        "/docs",
        "/redoc",
        "/dev/reload",
        "/gradio_api/dev/reload",
        "/gradio_api/dev/reload/",
    ):
        assert mallory.get(path).status_code in (403, 404), path


def served(made: Made) -> set[Path]:
    """The files that gradio might serve."""
    return {file for file in (made.app.data / "public").rglob("*") if file.is_file()}


def called(client: httpx.Client, name: str, values: dict) -> str:
    """All that an endpoint tells."""
    event = client.post(f"/gradio_api/call/v2/{name}", json=values)
    if event.status_code != 200:
        return event.text
    return client.get(f"/gradio_api/call/{name}/{event.json()['event_id']}").text


def joined(client: httpx.Client, event: int, data: list) -> str:
    """All that a hidden event tells up to its end."""
    session = secrets.token_hex(5)
    asked = {"data": data, "fn_index": event, "session_hash": session, "event_data": {"job": "x", "act": "open"}}
    said = client.post("/gradio_api/queue/join", json=asked)
    if said.status_code != 200:
        return said.text
    told = ""
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            told += line
            if "process_completed" in line or "close_stream" in line:
                return told
    return told


def finished(made: Made, client: httpx.Client) -> dict:
    """What a browser is told of a file: of a video that is made for Mallory."""
    told = called(client, "text_to_video", {"prompt": "a robot", "visitor_id": MALLORY, **QUICK})
    return json.loads(told.rsplit("data: ", 1)[1])[0]
