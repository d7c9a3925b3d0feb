"""The step that tunes on a clip, without a browser: the sample clip, and captions that are known."""

import shutil

import gradio as gr
import numpy as np
import pytest
from running_app import waiting_backend

from pipelines.media import video
from pipelines.tasks import Tune
from ui import visitor
from ui.text_to_video import FIRST_PROMPT
from ui.tune_clip import SAMPLE_CLIP, Bench

ME = "1" * 32


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    with waiting_backend(tmp_path_factory.mktemp("tune")) as waiting:
        yield waiting


@pytest.fixture(scope="module")
def bench(backend):
    with gr.Blocks() as demo:
        owner = gr.BrowserState("")
        arrived = demo.load(lambda: None)
        return Bench(visitor.ForVisitors(backend), owner, arrived, gr.State(0), gr.State())


def test_one_click_takes_the_sample_says_what_it_shows_and_tunes_on_it(bench, backend):
    taken = bench.take_sample(ME)
    assert taken[bench.prompt] == FIRST_PROMPT and taken[bench.there].visible
    controls = [*bench.asked, bench.prompt, bench.model, bench.clip, *bench.controls.values()]
    data = {control: control.value for control in controls} | {bench.owner: ME}
    assert bench.press_on_sample(data).keys() == {bench.problem}  # it could not be taken, and the page said why
    assert backend.table.unfinished() == []
    changed = {bench.clip: taken[bench.clip], bench.prompt: taken[bench.prompt], bench.controls["end"]: 2.0}
    updates = bench.press_on_sample(data | changed)
    (job,) = backend.table.unfinished()
    assert isinstance(job.task, Tune) and job.task.prompt == FIRST_PROMPT and job.task.clip == taken[bench.clip]
    assert not updates[bench.try_sample].visible and not updates[bench.tune].visible


def test_a_caption_is_known_of_marionettes_own_files_only(bench, tmp_path):
    film = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)
    video.write(film, tmp_path / "theirs.mp4", 8, "shot on a phone")
    assert bench.prompt not in bench.take(ME, str(tmp_path / "theirs.mp4"))
    shutil.copy(SAMPLE_CLIP, tmp_path / "ours.mp4")
    assert bench.take(ME, str(tmp_path / "ours.mp4"))[bench.prompt] == FIRST_PROMPT
