"""Skeletons before anything is generated: found once, remembered, told frame by frame, stopped, nobody else's."""

import subprocess
from functools import partial

import numpy as np
import pytest
import tiny
from imageio_ffmpeg import get_ffmpeg_exe

from pipelines.catalog import find, find_motion
from pipelines.events import Result
from pipelines.media import video
from pipelines.poses import detection, keypoints, openpose_json, pose_sequence, skeleton
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import PoseToVideo
from scripts.miniature.world import Words, draw_clip

ME, OTHER = "1" * 32, "2" * 32
FRAMES = 8


@pytest.fixture
def backend(tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    yield backend
    backend.close()


@pytest.fixture
def clip(backend, tmp_path):
    """A drawn clip of 10 frames whose dancer the built-in detector knows."""
    drawn = draw_clip(Words("person", "red", "beach", "waving"), np.random.default_rng(1), frames=10).frames
    video.write(drawn, tmp_path / "clip.mp4", 8)
    return backend.assets.keep_clip(tmp_path / "clip.mp4", ME, poses=True).name


def task(**settings):
    settings = {"frames": FRAMES, "steps": 5, **settings}
    return PoseToVideo.for_model(find("miniature-followyourpose"), "a robot dances", 1, **settings)


def finish(events):
    told, value = tiny.finish(events)
    return value, [event for event in told if event is not None]


def test_a_motion_is_shown_without_torch_or_a_search(backend):
    found, _ = finish(backend.previews.poses(task(motion="duet"), ME))
    assert found.picture[:4] == b"RIFF" and not found.beside and found.facts["people"] == 2 and found.fps == 8
    assert backend.executor.manager is None
    assert backend.assets.motion("duet").fps == 8 and backend.assets.motion("duet").frames > FRAMES


def test_a_clip_is_searched_once_and_the_video_looks_no_more(backend, clip, monkeypatch, tmp_path):
    asked = task(clip=clip)
    found, told = finish(backend.previews.poses(asked, ME))
    steps = [(event.step, event.total) for event in told if event.stage == detection.FINDING]
    assert steps[-1] == (FRAMES, FRAMES) and found.beside and found.picture[:4] == b"RIFF"
    assert found.facts["people"] >= 1 and len(found.facts["confidence_of_frames"]) == FRAMES
    (tmp_path / "found.json").write_text(found.keypoints)
    assert openpose_json.read(tmp_path / "found.json").joints.shape[0] == FRAMES

    def nobody(*values):
        raise AssertionError("somebody looked again")
        yield

    monkeypatch.setattr(detection, "extract", nobody)
    again, told = finish(backend.previews.poses(task(clip=clip, placing="fill", person=0, smoothing="none"), ME))
    assert again.picture != found.picture and not any(event.stage == detection.FINDING for event in told)
    made = [event for event in backend.jobs.events(backend.jobs.submit(asked, ME), ME)][-1]
    assert isinstance(made, Result) and 0 <= made.facts["pose_accuracy"] <= 100
    kept = backend.jobs.companions(made.video.parent.name, ME)
    assert kept.keys() == pose_sequence.COMPANIONS.keys()
    assert video.read(kept["skeletons"]).shape == video.read(made.video).shape
    assert len(video.read(kept["source"])) == FRAMES and video.probe(kept["source"]).fps == asked.fps
    with pytest.raises(AssertionError, match="looked again"):  # another part of the clip is another search
        finish(backend.previews.poses(task(clip=clip, start=0.2), ME))


def test_a_newer_preview_a_stop_and_a_closed_page_end_the_search(backend, clip):
    def searching(**settings):
        events = backend.previews.poses(task(clip=clip, **settings), ME)
        while (event := next(events)) is None or event.stage != detection.FINDING:
            pass
        return events

    first = searching()
    finish(backend.previews.poses(task(motion="wave"), ME))
    assert finish(first)[0] is None
    second = searching(start=0.1)
    backend.previews.stop(ME)
    assert finish(second)[0] is None
    third = searching(start=0.2)
    third.close()
    found, told = finish(backend.previews.poses(task(clip=clip, start=0.3), ME))  # nothing is in its way
    assert found.facts["people"] >= 1
    assert not list(backend.assets.clip(clip, ME).file.parent.glob("*.part"))


def test_what_is_wrong_is_told_and_the_next_search_goes_on(backend, clip, tmp_path):
    sky = np.linspace(90, 200, 64).astype(np.uint8)[None, :, None, None]
    video.write(np.broadcast_to(sky, (10, 64, 64, 3)), tmp_path / "nobody.mp4", 8)
    empty = backend.assets.keep_clip(tmp_path / "nobody.mp4", ME, poses=True).name
    with pytest.raises(ValueError, match="Nobody was found in any of the 8 frames. Choose a part"):
        finish(backend.previews.poses(task(clip=empty), ME))
    with pytest.raises(ValueError, match="no such clip"):
        finish(backend.previews.poses(task(clip=clip), OTHER))
    with pytest.raises(ValueError, match="turned off"):
        finish(backend.previews.poses(task(clip=clip, detector="openpose"), ME))
    with pytest.raises(ValueError, match="no sound"):
        backend.jobs.submit(task(clip=clip, sound=True), ME)
    with pytest.raises(ValueError, match="no sound"):
        backend.jobs.submit(task(motion="wave", sound=True), ME)
    assert finish(backend.previews.poses(task(clip=clip), ME))[0].facts["people"] >= 1


def test_what_is_cropped_off_is_not_looked_at(backend, clip):
    whole, _ = finish(backend.previews.poses(task(clip=clip), ME))
    low, _ = finish(backend.previews.poses(task(clip=clip, top=0.4, left=0.1), ME))
    assert low.picture != whole.picture
    sides = ({}, {"left": 0.45}, {"right": 0.45}, {"top": 0.45}, {"bottom": 0.45})
    found = [finish(backend.previews.poses(task(motion="wave", **side), ME))[0].keypoints for side in sides]
    assert len(set(found)) == len(sides)


def test_the_sound_of_the_used_part_is_kept_at_its_own_pace(backend, tmp_path):
    """Silence for a second, then a tone: what is used begins half a second before the tone."""
    poses = keypoints.place(openpose_json.read(find_motion("wave")), 128, 128)
    video.write(skeleton.draw(poses), tmp_path / "silent.mp4", 8)  # skeletons: nobody need be looked for
    run = partial(subprocess.run, check=True, capture_output=True)
    tone = ["-f", "lavfi", "-i", "aevalsrc='if(gt(t,1),sin(2000*t),0)':d=3"]
    run([get_ffmpeg_exe(), "-i", tmp_path / "silent.mp4", *tone, "-c:v", "copy", tmp_path / "loud.mp4"])
    clip = backend.assets.keep_clip(tmp_path / "loud.mp4", ME, poses=True).name
    asked = task(clip=clip, start=0.5, sound=True, fps=8, steps=1)
    made = [event for event in backend.jobs.events(backend.jobs.submit(asked, ME), ME)][-1]
    decode = ["-f", "s16le", "-ac", "1", "-ar", "8000", "pipe:1"]
    heard = np.frombuffer(run([get_ffmpeg_exe(), "-i", made.video, *decode]).stdout, np.int16)
    assert len(heard) / 8000 == pytest.approx(FRAMES / 8, abs=0.15)
    assert np.abs(heard[:3200]).max() < 500 < np.abs(heard[4800:7200]).max()
