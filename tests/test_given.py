"""Reference images and clips on the page, without a browser: what is seen, what reaches the task, and whose it is."""

from dataclasses import asdict, replace

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from running_app import waiting_backend

from pipelines.catalog import find, offered
from pipelines.media import video
from pipelines.tasks import PoseToVideo, TextToVideo, to_json
from ui import forms, page

ME, OTHER = "1" * 32, "2" * 32
NAME = "a" * 32
POSED, TEXT, CHANGES = "wan-2.1-vace-poses", "wan-2.1-vace-images", "wan-2.1-1.3b"
PARTS = "wan-2.1-vace-clips"


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    with waiting_backend(tmp_path_factory.mktemp("given")) as waiting:
        yield waiting


@pytest.fixture(scope="module")
def demo(backend):
    return page.build(backend, backend.settings)


def handlers(demo, name, module):
    """The handlers of that name."""
    found = [
        one for one in demo.fns.values() if getattr(one.fn, "__name__", "") == name and one.fn.__module__ == module
    ]
    assert found, name
    return found


def by_id(updates):
    return {getattr(component, "elem_id", None): update for component, update in updates.items()}


def of_states(updates):
    return [value for one, value in updates.items() if isinstance(one, gr.State)]


@pytest.mark.parametrize("name", offered("text-to-video"))
def test_they_are_seen_on_the_text_tab_for_models_that_take_them_only(demo, name):
    (choose,) = handlers(demo, "choose_model", "ui.text_to_video")
    shown = by_id(choose.fn(name))
    assert shown["reference"].visible == ("reference" in find(name).takes)
    assert shown["changed-clip"].visible == ("clip" in find(name).takes)


@pytest.mark.parametrize("name", offered("pose-to-video"))
def test_the_reference_is_seen_on_the_pose_tab_for_models_that_take_it_only(demo, name):
    (choose,) = handlers(demo, "choose_model", "ui.pose_to_video")
    assert by_id(choose.fn(name))["pose-reference"].visible == ("reference" in find(name).takes)


def test_both_are_hidden_when_the_page_opens(demo):
    seen = {block.elem_id: block.visible for block in demo.blocks.values() if block.elem_id}
    assert not (seen["reference"] or seen["pose-reference"] or seen["changed-clip"])


def test_a_page_that_opens_with_such_a_model_shows_them_and_no_words_of_another(backend):
    opened = page.build(backend, replace(backend.settings, model=CHANGES))
    seen = {block.elem_id: block for block in opened.blocks.values() if block.elem_id}
    assert seen["changed-clip"].visible and not seen["reference"].visible
    assert seen["chips"].value == ""  # it lists no words


def text_task(name, **given):
    card = find(name)
    values = asdict(card.defaults) | {"prompt": "a fox", "model": name, "seed": 7, **given}
    return forms.text_to_video(values)


GIVEN = {"reference": NAME, "clip": "b" * 32, "clip_start": 1.5, "clip_strength": 0.4}


def test_what_a_model_takes_reaches_the_task_and_the_hidden_controls_do_not():
    def told(name):
        before, after = vars(text_task(name)), vars(text_task(name, **GIVEN))
        return {key: value for key, value in after.items() if before[key] != value}

    assert told(CHANGES) == {name: value for name, value in GIVEN.items() if name != "reference"}
    assert told(TEXT) == {"reference": NAME}
    assert told("miniature-modelscope") == {}


def test_the_pose_tab_tells_of_a_reference_only_models_that_take_one():
    defaults = PoseToVideo.for_model(find("followyourpose-v1"), "a fox", 7, motion="wave")
    for name, reference in ((POSED, NAME), ("followyourpose-v1", "")):
        asked = asdict(defaults) | asdict(find(name).defaults) | {"model": name, "reference": NAME, "person": "all"}
        (task,) = forms.poses_to_videos(asked)
        assert task.reference == reference


def test_an_upload_is_checked_shown_and_nobody_elses(demo, backend, tmp_path):
    Image.fromarray(np.full((300, 200, 3), 90, np.uint8)).save(tmp_path / "who.png")
    (tmp_path / "bad.png").write_text("<svg onload=alert(1)>")
    takers, showers = (handlers(demo, name, "ui.reference") for name in ("take_reference", "show_reference"))
    assert len(takers) == 2  # one on each tab
    for take, show in zip(takers, showers, strict=True):
        (name,) = of_states(take.fn(ME, str(tmp_path / "who.png")))
        assert backend.assets.image(name, backend.owners.of(ME))
        shown = [str(getattr(update, "value", "")) for update in show.fn(ME, name).values()]
        assert any("data:image/png;base64," in value for value in shown)
        assert of_states(show.fn(OTHER, name)) == [""]
        refused = [str(getattr(update, "value", "")) for update in take.fn(ME, str(tmp_path / "bad.png")).values()]
        assert any("no picture" in value for value in refused)


def test_a_clip_is_checked_shown_and_nobody_elses(demo, backend, tmp_path):
    video.write(np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), np.uint8), tmp_path / "clip.mp4", 8)
    (tmp_path / "bad.mp4").write_text("no clip")
    (take,), (show,) = (handlers(demo, name, "ui.changed_clip") for name in ("take_clip", "show_clip"))
    (name,) = of_states(take.fn(ME, str(tmp_path / "clip.mp4")))
    assert backend.assets.clip(name, backend.owners.of(ME)).clip.frames == 16
    shown = by_id(show.fn(ME, name))
    assert shown["changed-clip-chosen"].visible and shown["changed-clip-remove"].visible
    assert "2.0 s" in str(list(show.fn(ME, name).values()))
    hidden = show.fn(OTHER, name)
    assert of_states(hidden) == [""] and not by_id(hidden)["changed-clip-chosen"].visible
    assert "not a video" in by_id(take.fn(ME, str(tmp_path / "bad.mp4")))["changed-clip-message"].value


def test_a_mask_is_painted_over_the_first_picture_of_ones_own_clip(demo, backend, tmp_path):
    video.write(np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), np.uint8), tmp_path / "clip.mp4", 8)
    (take,), (show,) = (handlers(demo, name, "ui.changed_clip") for name in ("take_clip", "show_painting"))
    (take_mask,) = handlers(demo, "take_clip_mask", "ui.changed_clip")
    (name,) = of_states(take.fn(ME, str(tmp_path / "clip.mp4")))
    Image.new("L", (64, 48), 255).save(tmp_path / "mask.png")
    (mask,) = of_states(take_mask.fn(ME, str(tmp_path / "mask.png")))
    plain, laid = (show.fn(ME, name, one) for one in ("", mask))
    assert 'width="64" height="48"' in by_id(plain)["changed-clip-mask"]
    assert "data-mask" not in by_id(plain)["changed-clip-mask"] and "data-mask" in by_id(laid)["changed-clip-mask"]
    assert of_states(laid) == [mask, None]
    for hidden in (show.fn(OTHER, name, mask), show.fn(ME, "", mask)):
        assert of_states(hidden) == ["", None] and by_id(hidden)["changed-clip-mask"] == ""


def test_a_mask_is_of_the_clip_where_a_part_of_that_is_drawn_anew():
    assert text_task(PARTS, clip="b" * 32, mask="c" * 32).mask == "c" * 32
    with pytest.raises(ValueError, match="Say which part of the clip"):
        text_task(PARTS, clip="b" * 32)
    assert text_task(CHANGES, clip="b" * 32, mask="c" * 32).mask == ""


def test_the_settings_of_a_video_bring_them_back(demo, backend, tmp_path):
    (restore,) = handlers(demo, "restore", "ui.restore")[:1]
    (refill,) = handlers(demo, "refill", "ui.pose_to_video")
    film = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)

    def restored(task):
        video.write(film, tmp_path / "a.mp4", 8, to_json(task))
        return restore.fn(ME, str(tmp_path / "a.mp4"))

    clip = {name: value for name, value in GIVEN.items() if name != "reference"}
    updates = restored(TextToVideo.for_model(find(CHANGES), "a fox", 7, **clip))
    assert clip["clip"] in of_states(updates) and by_id(updates)["changed-clip"].visible
    assert (by_id(updates)["clip-start"].value, by_id(updates)["clip-strength"].value) == (1.5, 0.4)
    task = TextToVideo.for_model(find(PARTS), "a fox", 7, clip="b" * 32, mask="c" * 32)
    updates = restored(task)
    assert by_id(updates)["changed-clip-painting"].visible and not by_id(updates)["clip-strength"].visible
    assert of_states(updates).count("c" * 32) == 1 and not by_id(updates)["first-image"].visible
    updates = restored(TextToVideo.for_model(find(TEXT), "a fox", 7, reference=NAME))
    assert NAME in of_states(updates) and by_id(updates)["reference"].visible
    updates = restored(TextToVideo.for_model(find("miniature-modelscope"), "a bear", 7))
    assert not by_id(updates)["changed-clip"].visible and NAME not in of_states(updates)
    posed = PoseToVideo.for_model(find(POSED), "a fox", 7, motion="wave", reference=NAME)
    updates = refill.fn(ME, (asdict(posed), 0.0))
    assert NAME in of_states(updates) and by_id(updates)["pose-reference"].visible
