"""Grids: several prompts and seeds in one click become videos of their own, and one that shows them side by side."""

import json
from dataclasses import asdict, replace

import gradio as gr
import numpy as np
import pytest

from pipelines.catalog import find
from pipelines.events import LAYING, Failed, Progress, Result
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.systems import grid
from pipelines.tasks import Finish, Grid, TextToVideo, from_json, recall, to_json
from pipelines.video_tasks import CELLS
from ui import forms, html, page, stream

ME, OTHER = "1" * 32, "2" * 32
CARD = find("miniature-modelscope")
PROMPTS = ("a bear dances in the snow", "a robot waves on the beach")
LINES = "\n".join(PROMPTS)


def of(prompt=PROMPTS[0], seed=7):
    return TextToVideo.for_model(CARD, prompt, seed, frames=8, steps=1)


def a_grid(prompts=PROMPTS, seeds=(7, 8)):
    jobs = [f"{number:032x}" for number in range(len(prompts) * len(seeds))]
    return Grid.for_videos(of(prompts[0], seeds[0]), "\n".join(prompts), seeds, jobs)


def tasks(prompts=LINES, seeds="7, 8", **more):
    values = asdict(CARD.defaults) | {"frames": 8, "steps": 1, "prompt": prompts, "model": CARD.name, "seed": 3}
    return forms.texts_to_videos(values, seeds, **more)


@pytest.fixture
def backend(tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False, queue_each=4)
    backend = local_backend(settings)
    yield backend
    backend.close()


# What the controls say -----------------------------------------------------------------------------------------------


def test_every_line_and_every_seed_make_a_video_row_after_row():
    made = tasks("a bear\n\n  \na robot\na bear", " 9, 8;9 ")
    assert [(task.prompt, task.seed) for task in made] == [("a bear", 9), ("a bear", 8), ("a robot", 9), ("a robot", 8)]
    assert {replace(task, prompt="", seed=0) for task in made} == {replace(made[0], prompt="", seed=0)}


def test_without_seeds_of_its_own_a_grid_has_the_one_of_the_form_or_one_new_one():
    assert {task.seed for task in tasks(seeds=" ")} == {3}
    drawn = [tasks(seeds="", randomise=True) for _ in range(5)]
    assert all(one.seed == other.seed for one, other in drawn) and len({one.seed for one, _ in drawn}) == 5
    assert len(tasks("a bear", "")) == 1


@pytest.mark.parametrize(
    ("prompts", "seeds", "says"),
    [
        ("\n".join("abcdef"), "1 2 3", "6 prompts and 3 seeds make 18 videos"),
        ("a", "seven", "whole numbers"),
        ("a", "1.5", "whole numbers"),
        ("a", "-1", "whole numbers"),
        ("a", "1, 4294967296", "seed must be from 0"),
        ("", "1, 2", "empty"),
        ("x" * 5000 + "\na", "1", "5000 characters"),
    ],
)
def test_what_makes_no_grid_is_refused_in_words(prompts, seeds, says):
    with pytest.raises(ValueError, match=says):
        tasks(prompts, seeds)


# The task ------------------------------------------------------------------------------------------------------------


def test_a_grid_comes_back_from_json_and_from_its_own_file():
    task = a_grid()
    assert recall(to_json(task)) == from_json(to_json(task)) == task == task.checked()
    assert task.prompts == list(PROMPTS) and (task.model, task.seed, task.seconds) == (CARD.name, 7, 1.0)
    with pytest.raises(ValueError, match="made of a prompt"):
        Finish.for_video(task, "a" * 32, 2, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [7]},
        {"seeds": [7, -8]},
        {"seeds": "78"},
        {"prompt": "a bear\n"},
        {"prompt": "a\n" * CELLS},
        {"jobs": ["0" * 32]},
        {"jobs": ["../../etc/passwd"] * 4},
        {"of": json.loads(to_json(a_grid()))},
    ],
)
def test_a_strangers_file_brings_no_other_grid(change):
    with pytest.raises(ValueError, match="."):
        from_json(json.dumps(json.loads(to_json(a_grid())) | change))


# The video -----------------------------------------------------------------------------------------------------------


def film(colour, frames=8, side=128):
    """A film of one colour with a bright corner, which H.264 keeps."""
    made = np.full((frames, side, side, 3), colour, np.uint8)
    made[:, :40, :40] = 250
    return made


def test_every_video_stands_in_its_row_and_column_below_its_words(tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    paths = [tmp_path / f"{number}.mp4" for number in range(3)]
    for path, colour in zip(paths, colours, strict=True):
        video.write(film(colour), path, 8)
    settings = Settings(data=tmp_path)
    *told, end = grid.make(a_grid(), tmp_path / "grid.mp4", settings, [*paths, "stopped"])
    frames = video.read(tmp_path / "grid.mp4")
    assert told[-1] == Progress(LAYING, 8, 8) and isinstance(end, Result)
    assert frames.shape == (8, end.facts["height"], end.facts["width"], 3)
    assert from_json(video.read_comment(tmp_path / "grid.mp4")) == a_grid()
    plate, places = grid._plate(a_grid(), 256, 256)
    for (left, top), colour in zip(places, [*colours, grid.PAPER], strict=True):
        middle = frames[:, top + 200, left + 200].astype(int)
        assert np.abs(middle - colour).max() < 24, colour
    written = frames[:, places[0][1] - 30 : places[0][1] - grid.GAP].astype(int)
    assert (written.max(axis=(1, 2, 3)) > 180).all()  # the first prompt, in light letters
    assert [one["video"] for one in end.facts["videos"]] == ["made", "made", "made", "stopped"]
    assert end.facts["videos"][1] == {"prompt": PROMPTS[0], "seed": 8, "video": "made"}


def test_labels_are_as_long_as_there_is_room_for():
    font = grid._font(16)
    lines = grid._wrapped("a bear in green dances in the snow " * 9, 256, font)
    assert len(lines) == grid.LINES and lines[-1].endswith("…")
    assert all(font.getlength(line) <= 256 for line in [*lines, *grid._wrapped("w" * 300, 256, font)])
    assert grid._writable("un oso pequeño", 1) == "un oso pequeño" and grid._writable("一只熊", 2) == "Prompt 2"


@pytest.mark.parametrize("shape", [(128, 128, 2, 2), (576, 320, 4, 4), (768, 768, 1, 16), (1024, 136, 16, 1)])
def test_a_grid_is_no_larger_than_a_screen_and_keeps_the_shape_of_its_videos(shape):
    width, height = grid._size(*shape)
    assert width % 2 == height % 2 == 0 and shape[2] * width <= grid.SIDE + 32 and shape[3] * height <= grid.SIDE + 32
    assert width / height == pytest.approx(shape[0] / shape[1], rel=0.1)


def test_nothing_is_laid_side_by_side_where_nothing_was_made(tmp_path):
    with pytest.raises(ValueError, match="None of the videos"):
        list(grid.make(a_grid(), tmp_path / "grid.mp4", Settings(data=tmp_path), ["stopped"] * 4))


# One click, followed through -----------------------------------------------------------------------------------------


def test_a_grid_is_made_of_videos_that_are_jobs_of_their_own(backend):
    jobs = backend.jobs.submit_grid(tasks(), ME)
    *_, end = (moment for moment in stream.follow(backend, jobs[-1], ME) if moment)
    assert isinstance(end.end, Result)
    made = backend.jobs.finished(ME)
    assert [job.id for job in reversed(made)] == jobs
    assert all(job.end.facts["task"]["seed"] == job.task.seed for job in made[1:])
    whole = backend.jobs.get(jobs[-1], ME)
    assert backend.jobs.export(whole.id, ME, "mp4") == whole.end.video and "grid of 4 videos" in html.caption(
        whole.task
    )
    assert video.read(whole.end.video).shape[0] == 8
    assert whole in backend.jobs.finished(ME, "robot beach")  # by a prompt that is not its first
    assert [job.id for job in backend.jobs.finished(ME, kind="grid")] == [whole.id]


def test_all_of_a_grid_is_taken_or_none(backend):
    with pytest.raises(ValueError, match="makes 6 videos, and 4 of yours may wait"):
        backend.jobs.submit_grid(tasks(seeds="1 2 3"), ME)
    assert backend.jobs.unfinished(ME) == []
    jobs = backend.jobs.submit_grid(tasks(), ME)
    with pytest.raises(ValueError, match="waiting already"):
        backend.jobs.submit_grid(tasks(), ME)
    assert len(backend.jobs.unfinished(ME)) <= len(jobs)
    for job in reversed(jobs):
        backend.jobs.cancel(job, ME)
    *_, end = (moment for moment in stream.follow(backend, jobs[-1], ME) if moment)
    assert end.end == Failed("Stopped.", stopped=True)


def test_what_is_lacking_in_a_grid_is_said_and_what_is_somebody_elses_is_not_there(backend):
    jobs = backend.jobs.submit_grid(tasks(seeds="7"), ME)
    backend.jobs.cancel(jobs[1], ME)
    *_, end = (moment for moment in stream.follow(backend, jobs[-1], ME) if moment)
    assert [one["video"] for one in end.end.facts["videos"]] == ["made", "stopped"]
    stolen = backend.jobs.submit(backend.jobs.get(jobs[-1], ME).task, OTHER)
    *_, end = (moment for moment in stream.follow(backend, stolen, OTHER) if moment)
    assert isinstance(end.end, Failed) and "None of the videos" in end.end.message


def test_the_settings_of_a_grid_fill_the_form_that_makes_it_again(backend, tmp_path):
    demo = page.build(backend, Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False))
    restore = next(event.fn for event in demo.fns.values() if getattr(event.fn, "__name__", "") == "restore")

    def restored(task):
        video.write(film((90, 60, 30)), tmp_path / "a.mp4", 8, to_json(task))
        updates = restore(ME, str(tmp_path / "a.mp4"))
        return {key.elem_id: value.value if isinstance(value, gr.Textbox) else value for key, value in updates.items()}

    again = restored(a_grid())
    assert again["prompt"] == "\n".join(PROMPTS) and again["grid"] is True and again["grid-seeds"] == "7, 8"
    assert restored(of())["grid"] is False
