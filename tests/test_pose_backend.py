"""Pose to video through the backend, as the page does: what is kept, whose it is, and the finished video."""

import shutil
from dataclasses import replace

import pytest
import tiny

from pipelines import video
from pipelines.backend import LocalBackend
from pipelines.catalog import find_motion
from pipelines.events import Result
from pipelines.folders import card_of_folder
from pipelines.settings import Settings
from pipelines.tasks import PoseToVideo

ME, OTHER = "1" * 32, "2" * 32
SIDE, FRAMES = 64, 8


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    card = card_of_folder(tiny.write_pose_model(tmp_path_factory.mktemp("pose") / "pose"))
    return {"pose": replace(card, name="pose", defaults=replace(card.defaults, steps=1))}


@pytest.fixture
def backend(catalog, tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = LocalBackend(settings, catalog)
    yield backend
    backend.close()


def task(catalog, **settings):
    settings = {"frames": FRAMES, "width": SIDE, "height": SIDE, **settings}
    return PoseToVideo.for_model(catalog["pose"], "a robot dances", 1, **settings)


def follow(backend, job):
    return [event for event in backend.events(job, ME) if event is not None]


def test_kept_keypoints_and_a_motion_become_videos(backend, catalog, tmp_path):
    file = shutil.copyfile(find_motion("duet"), tmp_path / "duet.json")
    kept = backend.keep_clip(file, ME, poses=True)
    assert kept.clip.frames > FRAMES and video.read(kept.preview).max() > 100
    for poses, people in (({"clip": kept.name}, 2), ({"motion": "wave"}, 1)):
        made = follow(backend, backend.submit(task(catalog, **poses), ME))[-1]
        assert isinstance(made, Result) and made.facts["poses"]["people"] == people
        assert video.read(made.video).shape == (FRAMES, SIDE, SIDE, 3)
        assert backend.task_of(made.video) == task(catalog, **poses)
    assert len(backend.finished(ME, kind="pose-to-video")) == 2


def test_what_is_somebody_elses_or_not_there_is_refused_at_once(backend, catalog, tmp_path):
    file = shutil.copyfile(find_motion("wave"), tmp_path / "wave.json")
    name = backend.keep_clip(file, ME, poses=True).name
    for owner, settings, says in (
        (OTHER, {"clip": name}, "no such clip"),
        (ME, {"clip": "0" * 32}, "no such clip"),
        (ME, {"clip": name, "start": 999.0}, "start must be"),
    ):
        with pytest.raises(ValueError, match=says):
            backend.submit(task(catalog, **settings), owner)


def test_keypoints_are_kept_for_poses_only_and_bad_ones_not_at_all(backend, tmp_path):
    file = shutil.copyfile(find_motion("wave"), tmp_path / "wave.json")
    with pytest.raises(ValueError, match="not a video"):
        backend.keep_clip(file, ME)
    (tmp_path / "bad.json").write_text('[{"people": []}]')
    with pytest.raises(ValueError, match="not one joint"):
        backend.keep_clip(tmp_path / "bad.json", ME, poses=True)
