"""Hostile uploads as a stranger sends them, over HTTP: answered with a sentence, and nobody else waits for them."""

import json
import struct
import threading
import time
import zipfile
from urllib.request import Request, urlopen

import numpy as np
import pytest
from running_app import running_app

from pipelines.media import video

BOUNDARY = "----a-boundary"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with running_app(tmp_path_factory.mktemp("app")) as running:
        yield running


class Visitor:
    """Somebody at the page's own endpoints, which have no names: a listener is found by what it listens to."""

    def __init__(self, url, name):
        self.url, self.name = url, name
        self.config = json.loads(self.read("/config"))

    def read(self, path, data=None, kind="application/json", timeout=120):
        with urlopen(Request(self.url + path, data, {"Content-Type": kind}), timeout=timeout) as answer:
            return answer.read().decode()

    def send(self, path):
        """Uploads a file and returns what gradio calls it."""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'
        body = head.encode() + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
        (place,) = json.loads(self.read("/gradio_api/upload", body, f"multipart/form-data; boundary={BOUNDARY}"))
        return {"path": place, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def drop(self, path, component):
        """Drops a file on the `component` of a tab; the text of all that the page is told then."""
        (target,) = (one["id"] for one in self.config["components"] if one["props"].get("elem_id") == component)
        (listener,) = (one for one in self.config["dependencies"] if [target, "upload"] in one["targets"])
        call = {"fn_index": listener["id"], "session_hash": self.name, "data": [None, self.send(path)]}
        self.read("/gradio_api/queue/join", json.dumps(call).encode())
        told = ""
        with urlopen(f"{self.url}/gradio_api/queue/data?session_hash={self.name}", timeout=120) as lines:
            for line in lines:
                told += line.decode()
                if "process_completed" in told:
                    return told
        raise AssertionError(told)


def bombs(folder):
    """Files for the pose tab, each with what it is told."""
    lists = b'{"people":[' + b",".join([b"[]"] * 500_000) + b"]}"
    with zipfile.ZipFile(folder / "lists.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number}.json", lists)
    size = struct.pack("<HH", 4096, 4096)
    frame = b"!\xf9\x04\0\1\0\0\0," + bytes(4) + size + b"\0\2\2L\1\0"
    (folder / "huge.gif").write_bytes(b"GIF89a" + size + b"\xf0\0\0" + b"\0\0\0\xff\xff\xff" + frame * 3000 + b";")
    (folder / "utf16.json").write_bytes('{"people": []}'.encode("utf-16"))
    (folder / "deep.json").write_bytes(b"[" * 1_000_000)
    return {
        "lists.zip": "500000 people in frame 1",
        "huge.gif": "3000 frames of 4096x4096",
        "utf16.json": "Save it as UTF-8",
        "deep.json": "is no JSON file",
    }


def test_bombs_are_answered_in_a_sentence_while_other_visitors_are_served(app, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    video.write(frames, tmp_path / "clip.mp4", 8)
    answers, waits, over = {}, [], threading.Event()

    def attack(name):
        answers[name] = Visitor(app.url, f"attack{name}").drop(tmp_path / name, "pose-clip")

    def look():
        while not over.is_set():
            began = time.monotonic()
            guest.read("/gradio_api/startup-events")
            waits.append(time.monotonic() - began)
            time.sleep(0.05)

    guest, told = Visitor(app.url, "guest"), bombs(tmp_path)
    threads = [threading.Thread(target=attack, args=(name,)) for name in told]
    looking = threading.Thread(target=look)
    for thread in (looking, *threads):
        thread.start()
    kept = guest.drop(tmp_path / "clip.mp4", "pose-clip")
    for thread in threads:
        thread.join(120)
    over.set()
    looking.join(60)
    assert "preview.mp4" in kept
    for name, sentence in told.items():
        assert sentence in answers[name], answers[name]
        assert "Traceback" not in answers[name] and str(tmp_path) not in answers[name]
    assert len(waits) > 5 and max(waits) < 5, max(waits)  # it was the whole time that a bomb took: 18 seconds and more
    assert len(list((app.data / "clips").iterdir())) == 1  # that of the guest
