"""Clips and reference images of Wan behind the page: whose they are, what is told of them, and what becomes of them."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_wan
from diffusers import WanVACEPipeline
from PIL import Image

from pipelines.catalog import find, find_motion, motions
from pipelines.events import Result
from pipelines.media import video
from pipelines.models.folders import card_of_folder
from pipelines.poses import openpose_json
from pipelines.serving import tidy
from pipelines.serving.job import Job
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import NOBODY, PoseToVideo, TextToVideo

ME, OTHER = "1" * 32, "2" * 32
SMALL = {"frames": 5, "width": 32, "height": 32, "steps": 2}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    plain = tiny_wan.write_model(folder / "wan")
    vace = tiny_wan.write_model(folder / "vace", {"transformer": tiny_wan.vace_transformer()}, WanVACEPipeline)
    cards = [card_of_folder(plain), card_of_folder(vace)]
    poses = replace(card_of_folder(vace, kind="pose-to-video"), name="poses")
    clips = replace(card_of_folder(vace), name="clips", takes=find("wan-2.1-vace-clips").takes)
    return {card.name: card for card in (*cards, poses, clips)}


@pytest.fixture(scope="module")
def backend(catalog, tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    backend = local_backend(Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False), catalog)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def clip(backend, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    video.write(np.random.default_rng(0).integers(0, 256, (16, 48, 48, 3), np.uint8), path, 8)
    return backend.assets.keep_clip(path, ME).name


@pytest.fixture(scope="module")
def picture(backend, tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "who.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 24, 3), np.uint8)).save(path)
    return backend.assets.keep_image(path, ME)


def changed(catalog, clip, **settings):
    return TextToVideo.for_model(catalog["wan"], "a robot", 7, clip=clip, fps=8, **{**SMALL, **settings})


def shown(catalog, picture, kind=TextToVideo):
    if kind is TextToVideo:
        return kind.for_model(catalog["vace"], "a robot", 7, reference=picture, **SMALL)
    return kind.for_model(catalog["poses"], "a robot", 7, reference=picture, motion=next(iter(motions())), **SMALL)


def made(backend, task):
    job = backend.jobs.submit(task, ME)
    *_, end = [event for event in backend.jobs.events(job, ME) if event is not None]
    assert isinstance(end, Result), end
    return end


def test_a_clip_becomes_another_and_the_file_names_it_by_its_content(backend, catalog, clip):
    task = changed(catalog, clip, clip_strength=0.5)
    end = made(backend, task)
    assert len(video.read(end.video)) == 5 and end.facts["clip_frames"] == 5 and end.facts["network_calls"] == 1
    assert len(end.facts["task"]["clip"]) == 64 and end.facts["task"]["clip"] != clip
    assert backend.assets.task_of(end.video, ME) == task
    assert backend.assets.task_of(end.video, OTHER).clip == NOBODY


def test_a_part_of_a_clip_is_drawn_anew_and_the_file_names_clip_and_mask_by_their_content(
    backend, catalog, clip, tmp_path
):
    mask = Image.new("L", (48, 48))
    mask.paste(255, (0, 0, 24, 48))
    mask.save(tmp_path / "mask.png")
    name = backend.assets.keep_image(tmp_path / "mask.png", ME, mask=True)
    task = TextToVideo.for_model(catalog["clips"], "a robot", 7, clip=clip, mask=name, fps=8, **SMALL)
    end = made(backend, task)
    assert len(video.read(end.video)) == 5 and end.facts["clip_frames"] == 5 and end.facts["network_calls"] == 2
    assert len(end.facts["task"]["clip"]) == len(end.facts["task"]["mask"]) == 64
    assert backend.assets.task_of(end.video, ME) == task
    theirs = backend.assets.task_of(end.video, OTHER)
    assert theirs.clip == theirs.mask == NOBODY
    with pytest.raises(ValueError, match="no such image"):
        backend.jobs.submit(replace(task, mask=NOBODY), ME)


@pytest.mark.parametrize("kind", [TextToVideo, PoseToVideo])
def test_a_reference_is_shown_and_the_file_names_it_by_its_content(backend, catalog, picture, kind):
    task = shown(catalog, picture, kind)
    end = made(backend, task)
    assert len(video.read(end.video)) == 5 and end.facts["reference"] == "given"
    assert len(end.facts["task"]["reference"]) == 64
    assert backend.assets.task_of(end.video, ME) == task
    assert backend.assets.task_of(end.video, OTHER).reference == NOBODY


def test_what_is_somebody_elses_or_not_there_is_refused_at_once(backend, catalog, clip, picture):
    for task, owner in ((changed(catalog, clip), OTHER), (changed(catalog, NOBODY), ME)):
        with pytest.raises(ValueError, match="no such clip"):
            backend.jobs.submit(task, owner)
    for kind in (TextToVideo, PoseToVideo):
        for name, owner in ((picture, OTHER), (NOBODY, ME)):
            with pytest.raises(ValueError, match="no such image"):
                backend.jobs.submit(shown(catalog, name, kind), owner)
    with pytest.raises(ValueError, match="less than 2 seconds"):
        backend.jobs.submit(changed(catalog, clip, clip_start=2.0), ME)


def test_keypoints_are_no_clip_to_change(backend, catalog, tmp_path):
    openpose_json.write(openpose_json.read(find_motion(next(iter(motions())))), tmp_path / "keypoints.json")
    kept = backend.assets.keep_clip(tmp_path / "keypoints.json", ME, poses=True)
    with pytest.raises(ValueError, match="Keypoints have no pictures"):
        backend.jobs.submit(changed(catalog, kept.name), ME)


def test_what_a_waiting_job_works_on_is_not_deleted(catalog):
    for task in (changed(catalog, NOBODY), shown(catalog, NOBODY), shown(catalog, NOBODY, PoseToVideo)):
        assert NOBODY in tidy.needed([Job("a" * 32, ME, task)])
