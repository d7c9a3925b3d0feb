"""The step that tunes on a clip, without a browser: the sample clip, and captions that are known."""

import shutil
from contextlib import closing
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
from running_app import waiting_backend

from pipelines.events import TUNING, Losses, Progress
from pipelines.media import video
from pipelines.serving.local import local_backend
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


def test_one_click_takes_the_sample_as_an_upload_and_says_what_it_shows(bench, backend):
    taken = bench.take_sample(ME)
    assert taken[bench.prompt] == FIRST_PROMPT and taken[bench.there].visible
    kept = bench.backend.assets.clip(taken[bench.clip], ME)
    assert kept.clip.frames == 16 and kept.clip.width == 128
    assert kept.name in {thing.name for thing in backend.assets.things() if thing.kind == "clips"}
    with pytest.raises(ValueError, match="no such clip"):  # it is the visitor's own, as an upload is
        bench.backend.assets.clip(taken[bench.clip], "2" * 32)
    assert backend.table.unfinished() == []


def test_a_paused_tuning_is_resumed_where_it_was_begun_and_keeps_no_other_from_it(bench, backend):
    taken = bench.take_sample(ME)
    data = {control: control.value for control in (*bench.asked, bench.model, *bench.controls.values())}
    data |= {bench.owner: ME, bench.prompt: "a bear", bench.clip: taken[bench.clip], bench.controls["end"]: 2.0}
    assert bench.press(data)[bench.running].visible
    job = backend.table.take(1)
    backend.table.tell(job.id, Losses((0.3, 0.2)))
    backend.table.tell(job.id, Progress(TUNING, 2, 300))
    bench.pause_all(ME, None, "", "")
    assert backend.table.set_aside(job.id, kept=True)
    then = bench.arrive(ME, None, "", "")
    assert "Paused at step 2 of 300. Resume goes on from there." in then[bench.line]
    assert "after 2 of" in then[bench.plot] and then[bench.hold.resume].visible and then[bench.running].visible
    assert not then[bench.draw].interactive and then[bench.halt].interactive and then[bench.tune].visible
    going = bench.resume_all(ME, None, "", "")
    assert going[bench.hold.pause].visible and not going[bench.tune].visible
    backend.jobs.cancel(job.id, job.owner)


def test_the_sample_is_refused_where_an_upload_is(backend):
    full = replace(backend.settings, disk_margin_mb=10**9)
    with closing(local_backend(replace(full, data=backend.settings.data.parent / "full"))) as other:
        with gr.Blocks() as demo:
            page = Bench(
                visitor.ForVisitors(other), gr.BrowserState(""), demo.load(lambda: None), gr.State(0), gr.State()
            )
        taken = page.take_sample(ME)
    assert taken[page.clip] == "" and "The disk is nearly full" in taken[page.problem].value


def test_a_caption_is_known_of_marionettes_own_files_only(bench, tmp_path):
    film = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)
    video.write(film, tmp_path / "theirs.mp4", 8, "shot on a phone")
    assert bench.prompt not in bench.take(ME, str(tmp_path / "theirs.mp4"))
    shutil.copy(SAMPLE_CLIP, tmp_path / "ours.mp4")
    assert bench.take(ME, str(tmp_path / "ours.mp4"))[bench.prompt] == FIRST_PROMPT
