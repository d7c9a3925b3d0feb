"""Finishing through the backend and the command line: what reaches the file, whose it is, stopped, killed, refused."""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
from running_app import waiting_backend

from pipelines.catalog import find
from pipelines.events import Failed, Progress, Result
from pipelines.media import measuring, video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.systems import finish
from pipelines.tasks import Edit, Finish, PoseToVideo, TextToVideo, Tune, from_json, recall, to_json
from scripts.miniature import world
from ui import forms, html
from ui.finish import Finishing

ME, OTHER = "1" * 32, "2" * 32
CARD = find("miniature-modelscope")
OF = TextToVideo.for_model(CARD, "a bear dances", 7, frames=8, steps=1)


def drawn(frames=8):
    return world.draw_clip(world.Words("bear", "red", "snow", "dancing"), np.random.default_rng(0), frames).frames


def follow(backend, job, owner=ME):
    return [event for event in backend.jobs.events(job, owner) if event is not None]


def sound_of(path, seconds):
    """A file with a tone that long."""
    import imageio_ffmpeg

    tone = ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}", "-c:a", "aac", str(path)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *tone], check=True)
    return path


# The task

SAMPLED = {
    "text-to-video": OF,
    "edit": Edit.for_model(find("miniature-sd"), "a bear", 7, tuned="0" * 32),
    "pose-to-video": PoseToVideo.for_model(find("followyourpose-v1"), "a bear", 7, motion="wave"),
}


@pytest.mark.parametrize("of", SAMPLED.values(), ids=SAMPLED)
def test_a_task_comes_back_from_json_with_what_it_finishes(of):
    task = Finish.for_video(of, "a" * 32, 2, 4)
    assert from_json(to_json(task)) == recall(to_json(task)) == task.checked() == task
    assert json.loads(to_json(task))["of"] == json.loads(to_json(of))
    assert (task.prompt, task.model, task.seed) == (of.prompt, of.model, of.seed)


def test_a_fast_video_stays_as_fast():
    larger, smoother = (Finish.for_video(None, "0" * 32, *times) for times in ((2, 1), (1, 2)))
    assert larger.becomes(90, 64, 64, 240.0) == (90, 128, 128, 240.0)
    with pytest.raises(ValueError, match="480 a second, are too many.*less smoothness"):
        smoother.becomes(90, 64, 64, 240.0)
    with pytest.raises(ValueError, match="300 frames are too many.*a shorter one"):
        larger.becomes(300, 64, 64, 24.0)


def test_what_a_clip_of_others_becomes_is_told_by_its_file_alone():
    task = Finish.for_video(None, "0" * 32, 2, 1)
    assert json.loads(to_json(task))["of"] is None
    with pytest.raises(ValueError, match="not the description of a video"):
        from_json(to_json(task))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"upscale": 3}, "size must be one of 1, 2, 4, not '3'"),
        ({"upscale": True}, "size must be"),
        ({"upscale": 2.0}, "size must be"),
        ({"upscale": "2"}, "size must be"),
        ({"upscale": None}, "size must be"),
        ({"upscale": float("nan")}, "size must be"),
        ({"interpolate": 0}, "smoothness must be one of"),
        ({"interpolate": -2}, "smoothness must be one of"),
        ({"interpolate": [2]}, "smoothness must be one of"),
        ({"upscale": 1, "interpolate": 1}, "Nothing would change"),
        ({"source": "../../etc"}, "no video to finish"),
        ({"source": None}, "no video to finish"),
        ({"source": ["a" * 32]}, "no video to finish"),
        ({"of": Tune.for_model(find("miniature-sd"), "a bear", 7, clip="0" * 32)}, "made of a prompt"),
        ({"of": Finish.for_video(OF, "a" * 32, 2, 2)}, "made of a prompt"),
        ({"of": {"prompt": "a bear"}}, "made of a prompt"),
    ],
)
def test_what_can_not_be_is_refused_in_words(change, says):
    with pytest.raises(ValueError, match=says):
        Finish.for_video(**{"of": OF, "source": "a" * 32, "upscale": 2, "interpolate": 2} | change)


def test_what_would_be_too_large_is_refused_with_its_numbers():
    wide = TextToVideo.for_model(find("zeroscope-v2-576w"), "a bear", 7)
    assert Finish.for_video(wide, "a" * 32, 2, 4).becomes(24, 576, 320, 8) == (93, 1152, 640, 32)
    with pytest.raises(ValueError, match="2304x1280 is too large: a finished video has 2048 pixels"):
        Finish.for_video(wide, "a" * 32, 4, 1)
    with pytest.raises(ValueError, match="93 frames, 120.4 a second, are too many.*120 a second"):
        Finish.for_video(wide, "a" * 32, 1, 4).becomes(24, 16, 16, 30.1)
    with pytest.raises(ValueError, match="257 frames"):
        Finish.for_video(wide, "a" * 32, 1, 4).becomes(65, 16, 16, 8)


@pytest.mark.parametrize(
    "text",
    [
        '{"task": "finish"}',
        '{"task": "finish", "of": 3}',
        '{"task": "finish", "of": {"task": "gpt"}}',
        '{"task": "finish", "of": {"task": ["finish"]}}',
        '{"task": "finish", "of": ' * 300 + "{}" + "}" * 300,
        to_json(Finish("a" * 32, 2, 2, Finish("a" * 32, 2, 2, OF))),
    ],
)
def test_hostile_descriptions_are_refused(text):
    with pytest.raises(ValueError, match="not the description of a video made by Marionette"):
        from_json(text)
    broken = json.loads(to_json(Finish.for_video(OF, "a" * 32, 2, 2))) | {"source": 3}
    with pytest.raises(ValueError, match="no video to finish"):
        from_json(json.dumps(broken))


def test_every_control_reaches_the_task():
    job = type("Made", (), {"id": "b" * 32, "task": OF})()
    assert forms.finish(job, 4, 2) == Finish("b" * 32, 4, 2, OF)
    finished = type("Made", (), {"id": "c" * 32, "task": forms.finish(job, 4, 2)})()
    assert forms.finish(finished, 1, 4) == Finish("b" * 32, 1, 4, OF)  # anew, from where it came from


# The file


@pytest.fixture
def settings(tmp_path):
    return Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)


def run(task, source, path, settings):
    *_, end = finish.make(task, path, settings, source)
    return end


def test_a_video_becomes_larger_and_smoother_and_says_how(tmp_path, settings):
    video.write(drawn(), tmp_path / "a.mp4", 8)
    task = Finish.for_video(OF, "a" * 32, 2, 4)
    steps = [event.step for event in finish.make(task, tmp_path / "b.mp4", settings, tmp_path / "a.mp4")
             if isinstance(event, Progress)]  # fmt: skip
    assert steps == list(range(30))
    made = video.read(tmp_path / "b.mp4")
    assert made.shape == (29, 256, 256, 3) and video.probe(tmp_path / "b.mp4").fps == 32
    assert recall(video.read_comment(tmp_path / "b.mp4")) == task
    given = video.read(tmp_path / "a.mp4").repeat(2, axis=1).repeat(2, axis=2)
    assert np.abs(made[::4].astype(int) - given).mean() < 6
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.mp4", "b.mp4"]


def test_facts_mark_the_interpolated_frames(tmp_path, settings):
    video.write(drawn(), tmp_path / "a.mp4", 8)
    facts = run(Finish.for_video(OF, "a" * 32, 1, 4), tmp_path / "a.mp4", tmp_path / "b.mp4", settings).facts
    assert facts["interpolated_frames"] == {
        "count": 21, "which": "all whose number, counted from 0, is no multiple of 4"
    }  # fmt: skip
    assert (facts["frames"], facts["width"], facts["fps"], facts["sound"]) == (29, 128, 32, False)
    facts = run(Finish.for_video(OF, "a" * 32, 2, 1), tmp_path / "a.mp4", tmp_path / "b.mp4", settings).facts
    assert facts["interpolated_frames"] == {"count": 0, "which": "none"}
    assert json.loads(json.dumps(facts))["task"]["of"]["prompt"] == "a bear dances"


def test_sound_is_kept(tmp_path, settings):
    video.write(drawn(), tmp_path / "a.mp4", 8, sound=sound_of(tmp_path / "tone.m4a", 1))
    facts = run(Finish.for_video(OF, "a" * 32, 2, 2), tmp_path / "a.mp4", tmp_path / "b.mp4", settings).facts
    assert facts["sound"] and measuring.inspect(tmp_path / "b.mp4", settings).sound


def test_odd_sizes_grow_by_one_pixel_and_a_slow_video_is_read_whole(tmp_path, settings):
    settings = replace(settings, upload_seconds=1.0)
    video.write(drawn(3)[:, :-2, :-2], tmp_path / "a.mp4", 0.5)
    run(Finish.for_video(None, "0" * 32, 1, 2), tmp_path / "a.mp4", tmp_path / "b.mp4", settings)
    assert video.read(tmp_path / "b.mp4").shape == (5, 126, 126, 3)
    with video.writing(tmp_path / "c.mp4", 2, 15, 9, 8) as write:
        for frame in drawn(2)[:, :9, :15]:
            write(frame)
    assert video.read(tmp_path / "c.mp4").shape == (2, 10, 16, 3)


def test_what_is_written_is_whole_or_not_there(tmp_path):
    with pytest.raises(video.VideoError, match="holds 1 frames instead of 2"):
        with video.writing(tmp_path / "a.mp4", 2, 16, 16, 8) as write:
            write(drawn(1)[0, :16, :16])
    with pytest.raises(video.VideoError, match="ffmpeg failed"):
        with video.writing(tmp_path / "a.mp4", 2, 16, 16, 8, sound=tmp_path / "none.m4a") as write:
            for _ in range(1000):
                write(drawn(1)[0, :16, :16])
    with pytest.raises(RuntimeError):
        with video.writing(tmp_path / "a.mp4", 2, 16, 16, 8) as write:
            write(drawn(1)[0, :16, :16])
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_ffmpeg_that_hangs_is_killed(tmp_path, monkeypatch):
    (tmp_path / "program").write_text("#!/bin/sh\nsleep 60\n")
    (tmp_path / "program").chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "program"))
    monkeypatch.setattr(video, "TIMEOUT", 0.3)
    with pytest.raises(video.VideoError, match="ffmpeg failed"):
        with video.writing(tmp_path / "a.mp4", 2, 512, 512, 8) as write:
            write(np.zeros((512, 512, 3), np.uint8))


# Through the backend


@pytest.fixture
def backend(settings):
    backend = local_backend(settings)
    yield backend
    backend.close()


@pytest.fixture
def made(backend):
    """The job of a finished video."""
    job = backend.jobs.submit(OF, ME)
    assert isinstance(follow(backend, job)[-1], Result)
    return job


def test_a_finished_video_is_in_the_library_and_restores_what_it_came_from(backend, made):
    job = backend.jobs.submit(forms.finish(backend.jobs.get(made, ME), 2, 2), ME)
    *events, end = follow(backend, job)
    assert isinstance(end, Result) and {event.stage for event in events if isinstance(event, Progress)} >= {"Finishing"}
    assert video.read(end.video).shape == (15, 256, 256, 3)
    assert [one.id for one in backend.jobs.finished(ME, "bear dances")] == [job, made]
    assert [one.id for one in backend.jobs.finished(ME, kind="text-to-video")] == [made]
    assert backend.assets.task_of(end.video, ME).of == backend.jobs.get(job, ME).task.of == OF
    assert json.loads(end.video.with_suffix(".json").read_text("utf-8")) == end.facts
    assert backend.jobs.export(job, ME, "gif").exists() and backend.jobs.poster(job, ME).exists()


def test_what_is_somebody_elses_gone_or_otherwise_made_is_not_finished(backend, made):
    task = forms.finish(backend.jobs.get(made, ME), 2, 2)
    with pytest.raises(ValueError, match="no such job"):
        backend.jobs.submit(task, OTHER)
    with pytest.raises(ValueError, match="no such job"):
        backend.jobs.submit(replace(task, source="f" * 32), ME)
    with pytest.raises(ValueError, match="not how the video was made"):
        backend.jobs.submit(replace(task, of=replace(OF, prompt="another")), ME)
    with pytest.raises(ValueError, match="smoothness"):
        backend.jobs.submit(replace(task, interpolate=1000), ME)
    with pytest.raises(ValueError, match="not how the video was made"):
        backend.jobs.submit(replace(task, of=None), ME)
    backend.jobs.get(made, ME).end.video.unlink()
    with pytest.raises(ValueError, match="no video"):
        backend.jobs.submit(task, ME)
    backend.jobs.delete(made, ME)
    with pytest.raises(ValueError, match="no such job"):
        backend.jobs.submit(task, ME)


def test_stop_leaves_nothing_and_the_next_job_runs(backend, made):
    job = backend.jobs.submit(forms.finish(backend.jobs.get(made, ME), 4, 4), ME)
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == "Finishing" and event.step >= 1:
            backend.jobs.cancel(job, ME)
    assert backend.jobs.get(job, ME).end == Failed("Stopped.", stopped=True)
    after = backend.jobs.submit(forms.finish(backend.jobs.get(made, ME), 1, 2), ME)
    assert isinstance(follow(backend, after)[-1], Result)
    assert {path.name for path in (backend.settings.data / "videos").iterdir()} == {made, after}


def test_a_finish_survives_a_restart(backend, made):
    job = backend.jobs.submit(forms.finish(backend.jobs.get(made, ME), 4, 4), ME)
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == "Finishing" and event.step >= 1:
            break
    backend.close()
    again = local_backend(backend.settings)
    try:
        assert video.read(follow(again, job)[-1].video).shape == (29, 512, 512, 3)
    finally:
        again.close()


def test_the_frames_of_the_video_count_where_more_were_asked_for(tmp_path):
    """As of a clip that was too short: 96 would become too many."""
    asked = TextToVideo.for_model(CARD, "a bear dances", 7, frames=96)
    with waiting_backend(tmp_path) as backend, gr.Blocks():
        finishing = Finishing(backend, gr.BrowserState(), gr.State(), "finish")
        short, long = backend.table.add(asked, ME), backend.table.add(asked, ME)
        for job, frames in ((short, 8), (long, 96)):
            file = backend.settings.data / "videos" / job.id / "a.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            video.write(drawn().repeat(frames // 8, axis=0), file, 8)
            assert backend.table.take(1).id == job.id
            backend.table.tell(job.id, Result(file, {"frames": frames}))
        assert "29 frames · 32 a second" in finishing.look(ME, short.id, 1, 4)
        assert "381 frames, 32 a second, are too many" in finishing.look(ME, long.id, 1, 4)
        with pytest.raises(ValueError, match="381 frames"):
            backend.jobs.submit(forms.finish(backend.jobs.get(long.id, ME), 1, 4), ME)
        task = forms.finish(backend.jobs.get(short.id, ME), 1, 4)
        assert from_json(to_json(task)) == task.checked() == task and task.of == asked
        job = backend.jobs.submit(task, ME)
    with closing(local_backend(backend.settings)) as again:
        *_, end = follow(again, job)
        assert len(video.read(end.video)) == 29
        whole = forms.finish(again.jobs.get(long.id, ME), 2, 1)
        assert again.machine.estimate(whole) == pytest.approx(end.facts["seconds"] * 96 * 4 / 29)
        assert again.machine.estimate(task) == pytest.approx(end.facts["seconds"])
        assert "29 frames" in html.caption(again.jobs.get(job, ME).made)


def test_a_finish_needs_no_model(settings, tmp_path):
    """Nor torch, which takes seconds and much memory to import."""
    video.write(drawn(2), tmp_path / "a.mp4", 8)
    path = tmp_path / "b.mp4"
    script = (
        "import sys\n"
        "from pipelines.__main__ import main\n"
        f"assert main(['finish', {str(tmp_path / 'a.mp4')!r}, '--interpolate', '2', '-o', {str(path)!r}]) == 0\n"
        "print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [str(path), "[]"], done.stderr
