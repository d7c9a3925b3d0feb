"""The tuned model that comes with the app: everybody edits with it, and nobody can change it or take it away."""

import hashlib
import json
import pickle
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from tiny import finish

from pipelines.catalog import CATALOG, TUNED, find, tuned_models
from pipelines.events import Result
from pipelines.media import video
from pipelines.models.convert import tuned as files
from pipelines.models.manager import ModelManager
from pipelines.serving.executor import BUILT_IN, Asset
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.task_settings import is_name
from pipelines.tasks import Edit, PoseToVideo, Tune

ME, OTHER, UNKNOWN = "1" * 32, "2" * 32, "3" * 32
(NAME,) = tuned_models()
WEIGHTS = TUNED / NAME / "tuned.safetensors"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built-in")
    return Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False)


@pytest.fixture(scope="module")
def backend(settings):
    with closing(local_backend(settings)) as backend:
        yield backend


def edit(tuning, prompt="a person in red kicks in the snow", **settings):
    model, frames, width, height = tuning.shape
    shape = {"frames": frames, "width": width, "height": height, "fps": tuning.facts["fps"]}
    return Edit.for_model(find(model), prompt, 1, tuned=tuning.job.id, **shape, **settings)


def made(backend, task, owner):
    *_, end = backend.jobs.events(backend.jobs.submit(task, owner), owner)
    assert isinstance(end, Result), end
    return end.video


def everything(folder):
    """All files with what they hold and when they were written."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_it_was_tuned_from_the_model_that_comes_with_the_app_and_is_small(settings):
    models = ModelManager(dict(CATALOG), settings)
    for folder in tuned_models().values():
        tuned = files.load(folder)
        base = tuned.facts["task"]["model"]
        assert tuned.facts["base"] == models.key(f"{base}/inflated_unet"), "python -m scripts.tune_built_in"
        assert tuned.steps == tuned.facts["task"]["steps"] and not tuned.moments
        kept = files.load_inversion(find(base).defaults.steps, folder)
        assert kept is not None and kept[-1].shape == tuned.latents.shape
        assert len(video.read(folder / "clip.mp4")) == tuned.facts["frames"]
        assert sum(file.stat().st_size for file in folder.iterdir()) < 3e6


def test_everybody_sees_it_with_prompts_that_change_its_clip(backend):
    (tuning,) = backend.tunings.built_in()
    assert backend.tunings.of(ME) == [] and backend.tunings.get(NAME, ME) is backend.tunings.get(NAME, OTHER) is tuning
    assert isinstance(tuning.job.task, Tune) and tuning.job.owner == "" and not is_name(NAME)
    assert tuning.ideas and tuning.job.task.prompt not in tuning.ideas
    for prompt in tuning.ideas:
        edit(tuning, prompt).checked()


def test_two_visitors_edit_with_it_and_nothing_of_it_is_copied_or_changed(backend, settings):
    (tuning,), before = backend.tunings.built_in(), everything(TUNED)
    mine, others = (made(backend, edit(tuning, steps=3), owner) for owner in (ME, OTHER))
    assert (video.read(mine) == video.read(others)).all() and mine != others
    assert everything(TUNED) == before
    names = {path.name for path in (settings.data / "videos").rglob("*")}
    assert not {name for name in names if name.endswith(".safetensors")} and "tuned" not in names
    assert [job.task.prompt for job in backend.jobs.finished(ME)] == [edit(tuning).prompt]


def test_an_edited_file_names_it_by_its_content_and_finds_it_again_for_everybody(backend):
    (tuning,) = backend.tunings.built_in()
    file = made(backend, edit(tuning, steps=2), ME)
    assert json.loads(video.read_comment(file))["tuned"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    for visitor in (ME, OTHER):
        assert backend.assets.task_of(file, visitor) == edit(tuning, steps=2)


def test_nobody_can_change_it_or_take_it_away(backend):
    before = everything(TUNED)
    ways = (
        lambda name: backend.tunings.rename(name, ME, "mine"),
        lambda name: backend.tunings.resume(name, ME),
        lambda name: backend.tunings.sample(name, ME),
        lambda name: backend.tunings.export(name, ME),
        lambda name: backend.jobs.delete(name, ME),
        lambda name: backend.jobs.cancel(name, ME),
        lambda name: backend.jobs.export(name, ME, "mp4"),
    )
    for way in ways:
        with pytest.raises(ValueError, match="no such job") as of_it:
            way(NAME)
        with pytest.raises(ValueError) as of_nothing:
            way(UNKNOWN)
        assert str(of_it.value) == str(of_nothing.value)
    publishing = Settings(data=backend.settings.data, cache=backend.settings.cache, device="cpu")
    backend.tunings._settings, was = publishing, backend.tunings._settings
    try:
        with pytest.raises(ValueError, match="no such job"):
            finish(backend.tunings.publish(NAME, ME, "mine", "hf_token"))
    finally:
        backend.tunings._settings = was
    assert everything(TUNED) == before


@pytest.mark.parametrize("name", [f"{NAME}/../{NAME}", f"../tuned/{NAME}", NAME.upper(), f" {NAME}", "..", ".", "/"])
def test_no_other_name_leads_to_the_apps_files(backend, name):
    (tuning,) = backend.tunings.built_in()
    with pytest.raises(ValueError, match="no such tuned model"):
        backend.jobs.submit(replace(edit(tuning), tuned=name), ME)
    with pytest.raises(KeyError):
        Asset(BUILT_IN, name).path(Path("data"))


def test_its_name_is_that_of_a_tuned_model_only(backend):
    with pytest.raises(ValueError, match="no clip"):
        Tune.for_model(find("miniature-sd"), "a bear", 1, clip=NAME)
    with pytest.raises(ValueError, match="no such image"):
        backend.assets.image(NAME, ME)
    asset = Asset(BUILT_IN, NAME)
    assert pickle.loads(pickle.dumps(asset)).path(Path("anywhere")) == TUNED / NAME


def test_a_dancer_wears_it(backend):
    task = PoseToVideo.for_model(
        find("miniature-followyourpose"), "a person in yellow kicks in the snow", 1, motion="wave", tuned=NAME, steps=2
    )
    assert len(video.read(made(backend, task, OTHER))) == task.frames


def test_programs_edit_with_it_and_are_refused_in_the_same_words_as_ever(shared_app):
    """The app works in worker processes, as it does by default."""
    client = Client(shared_app.url, verbose=False)
    _, told = client.predict(NAME, "a person in red kicks in the snow", "", steps=2, api_name="/edit")
    assert told["task"]["tuned"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() and told["visitor_id"]
    endpoint = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/edit"]
    (described,) = (one for one in endpoint["parameters"] if one["parameter_name"] == "tuned")
    assert NAME in described["label"]
    for unknown in (UNKNOWN, f"{NAME}/", "tuned", told["task"]["tuned"]):
        with pytest.raises(AppError, match="There is no such tuned model. Call /tune first"):
            client.predict(unknown, "a bear", told["visitor_id"], steps=2, api_name="/edit")
    with pytest.raises(AppError, match="no such job"):
        client.predict(NAME, told["visitor_id"], api_name="/stop")
