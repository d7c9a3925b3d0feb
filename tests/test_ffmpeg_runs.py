"""A clip is measured once, when it is uploaded: real starts of ffmpeg, counted by a program in its place."""

import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import tiny
from imageio_ffmpeg import get_ffmpeg_exe

from pipelines.events import Result
from pipelines.media import video
from pipelines.models.folders import card_of_folder
from pipelines.serving.clip_storage import Clips
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import PoseToVideo, Tune
from scripts.miniature.world import Words, draw_clip

ME = "1" * 64
UPLOAD = " fd: "  # how ffmpeg is told to read an upload; our own videos it reads by their names


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A drawn dancer, ten frames, with sound."""
    folder = tmp_path_factory.mktemp("clip")
    frames = draw_clip(Words("person", "red", "beach", "waving"), np.random.default_rng(1), frames=10).frames
    video.write(frames, folder / "silent.mp4", 8)
    sound = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1.25", "-c:v", "copy", "-c:a", "aac", "-shortest"]
    files = ["-i", folder / "silent.mp4"], [folder / "clip.mp4"]
    subprocess.run([get_ffmpeg_exe(), "-v", "error", *files[0], *sound, *files[1]], check=True)
    return folder / "clip.mp4"


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The arguments of every ffmpeg that has read an upload: a program notes them, then becomes ffmpeg."""
    log, program = tmp_path / "started.txt", tmp_path / "ffmpeg"
    log.touch()
    program.write_text(f'#!/bin/sh\necho " $* " >> "{log}"\nexec "{get_ffmpeg_exe()}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))

    def take():
        lines = log.read_text().splitlines()
        os.truncate(log, 0)
        return [line for line in lines if UPLOAD in line]

    return take


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    cards = {
        "pose": card_of_folder(tiny.write_pose_model(folder / "pose")),
        "sd": card_of_folder(tiny.write_image_model(folder / "sd")),
    }
    return {name: replace(card, name=name, defaults=replace(card.defaults, steps=1)) for name, card in cards.items()}


@pytest.fixture
def backend(catalog, tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = local_backend(settings, catalog)
    yield backend
    backend.close()


def tuning(catalog, clip):
    size = {"frames": 4, "width": 64, "height": 64, "steps": 1, "learning_rate": 1e-3}
    return Tune.for_model(catalog["sd"], "somebody dances", 1, clip=clip, **size)


def posing(catalog, clip, **settings):
    size = {"frames": 8, "width": 64, "height": 64, "detector": "miniature-openpose"}
    return PoseToVideo.for_model(catalog["pose"], "a robot dances", 1, clip=clip, **{**size, **settings})


def made(backend, task):
    end = list(backend.jobs.events(backend.jobs.submit(task, ME), ME))[-1]
    assert isinstance(end, Result), end
    return end


def test_an_upload_is_measured_once(backend, clip, started):
    backend.assets.keep_clip(clip, ME)
    reads = started()
    assert len(reads) == 3  # its packets, its first frame, its preview


def test_a_tuning_reads_its_clip_once_for_the_frames_and_once_for_the_sound(backend, catalog, clip, started):
    kept = backend.assets.keep_clip(clip, ME)
    started()
    result = made(backend, tuning(catalog, kept.name))
    reads = started()
    assert len(reads) == 2 and sum("0:a:0" in line for line in reads) == 1
    assert backend.tunings.get(result.video.parent.name, ME).sound


def test_a_video_that_follows_poses_reads_its_clip_as_often(backend, catalog, clip, started):
    kept = backend.assets.keep_clip(clip, ME)
    started()
    result = made(backend, posing(catalog, kept.name, sound=True))
    reads = started()
    assert len(reads) == 2 and sum("0:a:0" in line for line in reads) == 1
    assert result.facts["poses"]["frames"] == 8


def test_a_look_at_a_clip_reads_it_once(backend, catalog, clip, started):
    kept = backend.assets.keep_clip(clip, ME)
    started()
    backend.assets.look(tuning(catalog, kept.name), ME)
    assert len(started()) == 1
    for _ in backend.previews.poses(posing(catalog, kept.name), ME):
        pass
    assert len(started()) == 1


def test_what_was_measured_is_kept_whole_and_missed_by_nothing_where_it_is_not(backend, catalog, clip, started):
    """A clip from before measures were kept is measured anew, and gives the same frames."""
    kept = backend.assets.keep_clip(clip, ME)
    again = Clips(backend.settings).get(kept.name, ME)
    assert again == kept and again.measured.clip == kept.clip and again.measured.most > 0
    before, _ = backend.assets.look(tuning(catalog, kept.name), ME)
    file = kept.file.with_name("clip.json")
    file.write_text(file.read_text().partition(', "measured"')[0] + "}")
    assert backend.assets.clip(kept.name, ME).measured is None
    started()
    assert backend.assets.look(tuning(catalog, kept.name), ME)[0] == before
    assert len(started()) == 3
