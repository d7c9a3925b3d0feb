"""Tuning and editing through the backend, as the page does: whose they are, stopped, resumed, exported, deleted."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import tiny

from pipelines.events import TUNING, Failed, Losses, Preview, Progress, Result
from pipelines.media import video
from pipelines.models.folders import card_of_folder
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import Edit, Tune

ME, OTHER = "1" * 32, "2" * 32
SIDE, FRAMES = 64, 3


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    card = card_of_folder(tiny.write_image_model(tmp_path_factory.mktemp("sd") / "sd"))
    return {"sd": replace(card, name="sd", defaults=replace(card.defaults, steps=3))}


@pytest.fixture
def backend(catalog, tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = local_backend(settings, catalog)
    yield backend
    backend.close()


@pytest.fixture
def clip(backend, tmp_path):
    frames = np.random.default_rng(1).integers(0, 255, (6, SIDE, SIDE, 3)).astype(np.uint8)
    video.write(frames, tmp_path / "clip.mp4", 6)
    return backend.assets.keep_clip(tmp_path / "clip.mp4", ME).name


def tune(catalog, clip, **settings):
    settings = {"frames": FRAMES, "width": SIDE, "height": SIDE, "steps": 2, "learning_rate": 1e-3, **settings}
    return Tune.for_model(catalog["sd"], "somebody dances", 1, clip=clip, **settings)


def edit(catalog, tuned, prompt="a robot dances", **settings):
    settings = {"frames": FRAMES, "width": SIDE, "height": SIDE, "fps": 6, "steps": 3, **settings}
    return Edit.for_model(catalog["sd"], prompt, 1, tuned=tuned, **settings)


def follow(backend, job):
    return [event for event in backend.jobs.events(job, ME) if event is not None]


def test_a_clip_is_tuned_on_and_told_again(backend, catalog, clip):
    job = backend.jobs.submit(tune(catalog, clip), ME)
    events = follow(backend, job)
    assert isinstance(events[-1], Result) and any(isinstance(event, Losses) for event in events)
    (tuning,) = backend.tunings.of(ME)
    assert tuning.shape == ("sd", FRAMES, SIDE, SIDE) and len(tuning.facts["losses"]) == 2
    assert tuning.poster.exists() and len(video.read(tuning.video)) == FRAMES
    made = follow(backend, backend.jobs.submit(edit(catalog, job), ME))[-1]
    assert video.read(made.video).shape == (FRAMES, SIDE, SIDE, 3)
    assert video.probe(made.video).fps == 6
    assert [found.task.prompt for found in backend.jobs.finished(ME)] == [
        "a robot dances"
    ]  # no tuning among the videos


def test_no_picture_is_made_while_an_edit_is_validated(backend, catalog, clip):
    job = backend.jobs.submit(tune(catalog, clip), ME)
    follow(backend, job)
    poster = backend.jobs.get(job, ME).end.video.with_suffix(".jpg")
    backend.jobs.submit(edit(catalog, job), ME)
    assert not poster.exists()
    assert backend.tunings.of(ME)[0].poster == poster and poster.exists()


def test_what_is_somebody_elses_can_not_be_used(backend, catalog, clip):
    with pytest.raises(ValueError, match="no such clip"):
        backend.jobs.submit(tune(catalog, clip), OTHER)
    with pytest.raises(ValueError, match="no such clip"):
        backend.assets.look(tune(catalog, clip), OTHER)
    job = backend.jobs.submit(tune(catalog, clip), ME)
    follow(backend, job)
    assert backend.tunings.of(OTHER) == []
    for act in (
        lambda: backend.jobs.submit(edit(catalog, job), OTHER),
        lambda: backend.tunings.sample(job, OTHER),
        lambda: backend.tunings.resume(job, OTHER),
        lambda: backend.tunings.rename(job, OTHER, "mine"),
        lambda: backend.tunings.export(job, OTHER),
        lambda: backend.jobs.delete(job, OTHER),
    ):
        with pytest.raises(ValueError, match="no such job"):
            act()


def test_an_edit_must_have_the_shape_of_its_clip(backend, catalog, clip):
    job = backend.jobs.submit(tune(catalog, clip), ME)
    follow(backend, job)
    with pytest.raises(ValueError, match="the frames and the size of the tuned clip"):
        backend.jobs.submit(edit(catalog, job, frames=FRAMES + 1), ME)
    with pytest.raises(ValueError, match="no sound"):
        backend.jobs.submit(edit(catalog, job, sound=True), ME)


def test_a_stopped_tuning_can_be_used_resumed_renamed_exported_and_deleted(backend, catalog, clip, tmp_path):
    job = backend.jobs.submit(tune(catalog, clip, steps=2000), ME)
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == TUNING and event.step >= 2:
            backend.jobs.cancel(job, ME)
    assert backend.jobs.get(job, ME).end == Failed("Stopped.", stopped=True)
    (tuning,) = backend.tunings.of(ME)
    done = len(tuning.facts["losses"])
    assert 2 <= done < 2000
    assert isinstance(follow(backend, backend.jobs.submit(edit(catalog, job), ME))[-1], Result)

    backend.tunings.rename(job, ME, "  My   dancer ")
    assert backend.tunings.of(ME)[0].job.title == "My dancer"
    with zipfile.ZipFile(backend.tunings.export(job, ME)) as archive:
        assert {"model_index.json", "unet/config.json", "vae/config.json"} <= set(archive.namelist())
        archive.extractall(tmp_path / "published")
    assert card_of_folder(tmp_path / "published").tuning is None

    backend.tunings.resume(job, ME)
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == TUNING:
            assert event.step > done  # it went on, and did not begin anew
            backend.jobs.cancel(job, ME)
    assert len(backend.tunings.of(ME)[0].facts["losses"]) > done

    folder = backend.tunings.of(ME)[0].video.parent
    backend.jobs.delete(job, ME)
    assert backend.tunings.of(ME) == [] and not folder.exists()


def test_a_running_tuning_draws_a_sample_when_it_is_asked_to(backend, catalog, clip):
    job, asked, previews = backend.jobs.submit(tune(catalog, clip, steps=200), ME), False, []
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == TUNING and not asked:
            assert not previews  # there is none by default
            asked = True
            backend.tunings.sample(job, ME)
        if isinstance(event, Preview):
            previews.append(event)
            backend.jobs.cancel(job, ME)
    assert len(previews) == 1 and 1 <= len(backend.tunings.of(ME)[0].facts["losses"]) < 200
    backend.tunings.sample(job, ME)  # it tunes no more: nothing happens
    assert backend.jobs.get(job, ME).end == Failed("Stopped.", stopped=True)


def test_tuned_models_and_half_tuned_ones_survive_a_restart(backend, catalog, clip, tmp_path):
    job = backend.jobs.submit(tune(catalog, clip, steps=2000), ME)
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == TUNING and event.step >= 2:
            break
    backend.close()  # the app is shut down while it tunes
    again = local_backend(backend.settings, catalog)
    try:
        for event in again.jobs.events(job, ME):
            if isinstance(event, Progress) and event.stage == TUNING:
                assert event.step > 2
                again.jobs.cancel(job, ME)
        assert len(again.tunings.of(ME)) == 1
    finally:
        again.close()
