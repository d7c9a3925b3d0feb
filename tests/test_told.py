"""What the server tells a visitor in their language, over HTTP; programs are told in English."""

import json
import socket

import httpx
import pytest

from pipelines.catalog import find
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo
from ui import page
from ui.languages import TRANSLATIONS

ME = "a" * 32


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The page in this process, over a backend that begins nothing."""
    folder = tmp_path_factory.mktemp("told")
    settings = Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    backend.dispatcher.pause()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    demo = page.build(backend, settings)
    where = {"server_name": "127.0.0.1", "server_port": port, "prevent_thread_lock": True, "quiet": True}
    demo.launch(**page.launch_options(backend, settings), **where, _frontend=False)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        yield backend, demo, client
    demo.close()
    backend.close()


def number(demo, name, queued):
    """The number of an event whose handler has this name."""
    return next(at for at, one in demo.fns.items() if getattr(one.fn, "__name__", "") == name and one.queue is queued)


def asked(client, function, data, language):
    body = {"fn_index": function, "data": data, "session_hash": "s"}
    return client.post("/gradio_api/run/predict", json=body, headers={"Accept-Language": language}).text


def joined(client, function, data, language):
    """What comes of an event of the queue, as the stream tells it."""
    session = f"of-{language}"
    body = {"fn_index": function, "data": data, "session_hash": session}
    headers = {"Accept-Language": language}
    client.post("/gradio_api/queue/join", json=body, headers=headers).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["msg"] == "process_completed":
                return json.dumps(json.loads(line[5:]), ensure_ascii=False)
    raise AssertionError("it did not end")


def test_what_is_shown_of_the_machine_is_told_in_the_language_of_the_request(app):
    _, demo, client = app
    look = number(demo, "look", queued=False)
    for language, words in {"es": "Dispositivo", "zh-CN": "设备", "en": "Device", "fr": "Device"}.items():
        told = json.loads(asked(client, look, [], language))
        assert f"<dt>{words}</dt>" in json.dumps(told, ensure_ascii=False), told


def test_progress_and_errors_are_told_in_the_language_of_the_request(app):
    backend, demo, client = app
    task = TextToVideo.for_model(find("miniature-modelscope"), "a bear", 1)
    backend.jobs.submit(task, backend.owners.of(ME), "")
    (updates,) = (
        at
        for at, one in demo.fns.items()
        if getattr(one.fn, "__name__", "") == "updates" and "line" in [output.elem_id for output in one.outputs]
    )
    data = [ME, None, "", None]
    assert "Tu vídeo es el siguiente" in joined(client, updates, data, "es-MX")
    assert "Your video is next" in joined(client, updates, data, "en")
    shown = number(demo, "use_settings", queued=True)
    for language, words in {"es": "Ese trabajo no está aquí", "zh-CN": "这里没有该任务", "en": "no such job"}.items():
        assert words in joined(client, shown, [ME, None], language)


def test_programs_are_told_in_english(app):
    _, _, client = app
    for language in ("en", "es"):
        called = client.post("/gradio_api/call/text_to_video", json={"data": []}, headers={"Accept-Language": language})
        told = called.text
        if called.is_success:
            with client.stream("GET", f"/gradio_api/call/text_to_video/{called.json()['event_id']}") as stream:
                told = "".join(stream.iter_text())
        assert "What was sent" in told or "left out" in told or "prompt" in told, told
        assert "Lo enviado" not in told and "está" not in told


def test_every_page_begins_with_the_script_that_knows_the_choice(app):
    text = app[2].get("/").text
    assert text.index("marionette-language") < text.index("gradio_config")
    assert all(f"'{locale}'" in text.partition("</script>")[0] for locale in ("en", *TRANSLATIONS))
