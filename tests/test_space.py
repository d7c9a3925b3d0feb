"""What a Space says of itself, and who may enter: the original, a copy with and without a GPU, a laptop."""

from dataclasses import replace
from html import unescape

import gradio as gr
import programs
import pytest
from gradio_client import Client
from gradio_client.exceptions import AuthenticationError
from running_app import environment, launch_options, running_app

from pipelines.serving.local import local_backend
from pipelines.settings import SHARED, Settings
from ui import space

ORIGINAL, COPY = {"SPACE_ID": "theatre/marionette"}, {"SPACE_ID": "somebody/marionette"}
VARIABLES = {"MARIONETTE_ORIGINAL": "theatre/marionette"}  # copied with the Space


@pytest.fixture
def said(tmp_path, monkeypatch):
    """What the notice says and whether there is a button to duplicate, where `variables` are set."""

    def said(variables, gpu=False):
        settings = Settings.from_environment(VARIABLES | variables)
        settings = replace(settings, data=tmp_path / "data", device="cuda" if gpu else "cpu", hub=False)
        backend = local_backend(settings)
        try:
            with gr.Blocks() as demo:
                space.notice(backend, settings, variables)
        finally:
            backend.close()
        blocks = demo.blocks.values()
        words = " ".join(unescape(block.value) for block in blocks if isinstance(block, gr.HTML))
        return words, any(isinstance(block, gr.DuplicateButton) for block in blocks)

    return said


def test_the_original_says_what_is_shared_and_limited_and_offers_a_copy(said):
    words, button = said(ORIGINAL, gpu=True)
    assert button and "This Space is shared" in words and "no GPU" not in words
    for told in (f"up to {SHARED['queue_each']} may wait", f"{SHARED['upload_mb']} MB", "after 24 hours", "20 seconds"):
        assert told in words


def test_a_copy_says_none_of_it(said):
    assert said(COPY, gpu=True) == ("", False)
    assert said({}, gpu=False) == ("", False)  # a laptop


def test_a_space_without_gpu_says_what_one_would_add_and_how_long_it_would_take_here(said):
    words, button = said(COPY)
    assert not button and "This Space has no GPU" in words and "The paper theatre plays all the same" in words
    assert "about" in words and ("minutes" in words or "hours" in words) and "ModelScope" in words
    assert "shared" in said(ORIGINAL)[0] and "no GPU" in said(ORIGINAL)[0]


def test_the_limits_of_a_shared_machine_hold_on_the_original_only():
    original, copy = (Settings.from_environment(VARIABLES | space) for space in (ORIGINAL, COPY))
    assert {name: getattr(original, name) for name in SHARED} == SHARED
    assert copy == replace(Settings(), original="theatre/marionette")
    assert all(getattr(copy, name) > limit for name, limit in SHARED.items())
    own = Settings.from_environment(VARIABLES | ORIGINAL | {"MARIONETTE_QUEUE_EACH": "4"})
    assert own.queue_each == 4 and own.keep_days == SHARED["keep_days"]
    assert not Settings().is_original({"SPACE_ID": ""}) and not Settings().is_original(ORIGINAL)


def test_a_password_is_asked_for_and_told_to_nobody(tmp_path):
    with running_app(tmp_path, MARIONETTE_PASSWORD="sésame") as app:
        for wrong in (None, ("me", "sesame")):
            with pytest.raises((AuthenticationError, ValueError)):
                Client(app.url, auth=wrong, verbose=False)
        client = Client(app.url, auth=("anybody", "sésame"), verbose=False, download_files=tmp_path)
        call = {"steps": 1, "frames": 8, "api_name": "/text_to_video"}
        assert client.predict("a bear", **call)[1]["seconds"] > 0
    assert "sésame" not in repr(Settings(password="sésame"))
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 5 and not [file for file in written if "sésame".encode() in file.read_bytes()]


def test_without_a_password_none_is_asked_for(tmp_path):
    assert "auth" not in launch_options(Settings(data=tmp_path))


def test_the_app_starts_as_the_original_space(tmp_path):
    variables = environment(**VARIABLES, **ORIGINAL, MARIONETTE_DATA=str(tmp_path), MARIONETTE_HUB="0", SYSTEM="spaces")
    code = "import app; print(app.settings.queue_each, 'space-notice' in str(app.demo.get_config_file()))\n"
    ran = programs.run(["-c", f"{code}app.backend.close()"], variables)
    assert ran.stdout.split() == [str(SHARED["queue_each"]), "True"], ran.stderr
