"""Pose to video through the backend, as the page does: what is kept, whose it is, and the finished video."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny

from pipelines.catalog import find_motion
from pipelines.events import Result
from pipelines.media import video
from pipelines.models.folders import card_of_folder
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import NOBODY, Finish, PoseToVideo, Tune

ME, OTHER = "1" * 32, "2" * 32
SIDE, FRAMES = 64, 8


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    cards = {
        "pose": card_of_folder(tiny.write_pose_model(folder / "pose")),
        "sd": card_of_folder(tiny.write_image_model(folder / "sd")),
        "other": card_of_folder(tiny.write_image_model(folder / "other")),
    }
    cards = {name: replace(card, name=name, defaults=replace(card.defaults, steps=1)) for name, card in cards.items()}
    return cards | {"pose": replace(cards["pose"], tuned_from="sd")}


@pytest.fixture
def backend(catalog, tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = local_backend(settings, catalog)
    yield backend
    backend.close()


def task(catalog, **settings):
    settings = {"frames": FRAMES, "width": SIDE, "height": SIDE, **settings}
    return PoseToVideo.for_model(catalog["pose"], "a robot dances", 1, **settings)


def follow(backend, job):
    return [event for event in backend.jobs.events(job, ME) if event is not None]


def test_kept_keypoints_and_a_motion_become_videos(backend, catalog, tmp_path):
    file = shutil.copyfile(find_motion("duet"), tmp_path / "duet.json")
    kept = backend.assets.keep_clip(file, ME, poses=True)
    assert kept.clip.frames > FRAMES and video.read(kept.preview).max() > 100
    for poses, people in (({"clip": kept.name}, 2), ({"motion": "wave"}, 1)):
        made = follow(backend, backend.jobs.submit(task(catalog, **poses), ME))[-1]
        assert isinstance(made, Result) and made.facts["poses"]["people"] == people
        assert video.read(made.video).shape == (FRAMES, SIDE, SIDE, 3)
        assert backend.assets.task_of(made.video, ME) == task(catalog, **poses)
    assert len(backend.jobs.finished(ME, kind="pose-to-video")) == 2


def test_of_a_short_part_it_is_told_how_many_frames_were_made(backend, catalog):
    asked = task(catalog, motion="wave", end=0.5)
    job = backend.jobs.submit(asked, ME)
    facts = follow(backend, job)[-1].facts
    frames = len(video.read(backend.table.get(job).result.video))
    assert facts["frames"] == frames < asked.frames and facts["task"]["frames"] == asked.frames
    assert backend.table.get(job).made == replace(asked, frames=frames)
    job = backend.jobs.submit(Finish.for_video(asked, job, 1, 2), ME)
    assert follow(backend, job)[-1].facts["frames"] == 2 * frames - 1
    assert backend.table.get(job).made.of.frames == frames


def test_what_is_somebody_elses_or_not_there_is_refused_at_once(backend, catalog, tmp_path):
    file = shutil.copyfile(find_motion("wave"), tmp_path / "wave.json")
    name = backend.assets.keep_clip(file, ME, poses=True).name
    for owner, settings, says in (
        (OTHER, {"clip": name}, "no such clip"),
        (ME, {"clip": "0" * 32}, "no such clip"),
        (ME, {"clip": name, "start": 999.0}, "start must be"),
    ):
        with pytest.raises(ValueError, match=says):
            backend.jobs.submit(task(catalog, **settings), owner)


def test_keypoints_are_kept_for_poses_only_and_bad_ones_not_at_all(backend, tmp_path):
    file = shutil.copyfile(find_motion("wave"), tmp_path / "wave.json")
    with pytest.raises(ValueError, match="not a video"):
        backend.assets.keep_clip(file, ME)
    (tmp_path / "bad.json").write_text('[{"people": []}]')
    with pytest.raises(ValueError, match="not one joint"):
        backend.assets.keep_clip(tmp_path / "bad.json", ME, poses=True)


def tuned(backend, catalog, model, tmp_path):
    """A job that tuned `model` on a clip."""
    video.write(np.random.default_rng(1).integers(0, 255, (4, SIDE, SIDE, 3), np.uint8), tmp_path / "clip.mp4", 8)
    clip = backend.assets.keep_clip(tmp_path / "clip.mp4", ME).name
    shape = {"frames": 2, "width": SIDE, "height": SIDE, "steps": 2, "learning_rate": 1e-2}
    job = backend.jobs.submit(Tune.for_model(catalog[model], "somebody dances", 1, clip=clip, **shape), ME)
    assert isinstance(follow(backend, job)[-1], Result)
    return job


def test_who_was_tuned_on_dances_and_the_model_stays_as_it_was(backend, catalog, tmp_path):
    job = tuned(backend, catalog, "sd", tmp_path)
    films = []
    for looks in ("", job, ""):
        made = follow(backend, backend.jobs.submit(task(catalog, motion="wave", tuned=looks), ME))[-1]
        assert backend.assets.task_of(made.video, ME).tuned == looks != made.facts["task"]["tuned"] or not looks
        assert backend.assets.task_of(made.video, OTHER).tuned == (NOBODY if looks else "")
        films.append(video.read(made.video))
    assert (films[0] == films[2]).all() and (films[0] != films[1]).any()


def test_what_was_tuned_must_be_the_owners_and_of_the_base_that_it_fits(backend, catalog, tmp_path):
    job = tuned(backend, catalog, "other", tmp_path)
    for owner, looks, says in (
        (ME, job, "takes only what was tuned from sd"),
        (OTHER, job, "no such job"),
        (ME, "0" * 32, "no such job"),
    ):
        with pytest.raises(ValueError, match=says):
            backend.jobs.submit(task(catalog, motion="wave", tuned=looks), owner)
    with pytest.raises(ValueError, match="takes no tuned model"):
        PoseToVideo.for_model(replace(catalog["pose"], tuned_from=""), "a robot", 1, motion="wave", tuned=job)
