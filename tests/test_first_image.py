"""The first image and its mask on the page, without a browser: what is seen, and what reaches the task."""

import base64
import io
from dataclasses import asdict

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from pipelines.catalog import find, offered
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import Finish, TextToVideo, to_json
from ui import first_image, forms, html, page

ME, OTHER = "1" * 32, "2" * 32
MODELS = offered("text-to-video")
IMAGE, MASK = "a" * 32, "b" * 32


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    backend = local_backend(Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False))
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def demo(backend):
    return page.build(backend, backend.settings)


def handler(demo, name, module):
    """The handler of that name, and what it is told to fill."""
    for event in demo.fns.values():
        if getattr(event.fn, "__name__", "") == name and event.fn.__module__ == module:
            return event.fn, event.outputs
    raise AssertionError(name)


def by_id(updates):
    return {getattr(component, "elem_id", None): update for component, update in updates.items()}


def png(mode="L", size=(40, 30), level=255):
    file = io.BytesIO()
    Image.fromarray(np.full((*size[::-1], len(mode)), level, np.uint8).squeeze(), mode).save(file, "PNG")
    return file.getvalue()


def address(content):
    return first_image.PNG + base64.b64encode(content).decode()


@pytest.mark.parametrize("name", MODELS)
def test_the_controls_are_seen_for_models_that_take_an_image_only(demo, name):
    choose, _ = handler(demo, "choose_model", "ui.text_to_video")
    assert by_id(choose(name))["first-image"].visible == ("image" in MODELS[name].takes)


def test_they_are_hidden_where_the_page_opens_with_a_model_that_takes_none(demo):
    (panel,) = [block for block in demo.blocks.values() if block.elem_id == "first-image"]
    assert not panel.visible and find("miniature-modelscope").image_model is None


def values(**changes):
    card = find("makeavid-sd")
    first = {"image": "", "mask": "", "image_guidance": 15.0} | changes
    return forms.text_to_video(asdict(card.defaults) | {"prompt": "a dancer", "model": card.name, "seed": 7} | first)


CHANGES = {"image": {"image": IMAGE}, "mask": {"image": IMAGE, "mask": MASK}, "guidance": {"image_guidance": 3.5}}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_every_control_reaches_the_task(changes):
    before, after = vars(values()), vars(values(**changes))
    assert {name: after[name] for name in after if after[name] != before[name]} == changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": "../../etc/passwd"}, "no such image"),
        ({"image": 3}, "no such image"),
        ({"image": IMAGE, "mask": ["x"]}, "no such image"),
        ({"mask": MASK}, "needs the first image"),
        ({"image_guidance": float("nan")}, "guidance of the first image"),
        ({"image_guidance": 31}, "guidance of the first image"),
    ],
)
def test_what_can_not_be_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        values(**changes)


def test_a_model_that_takes_none_is_not_told_of_the_hidden_controls():
    card = find("miniature-modelscope")
    said = {"prompt": "a bear", "model": card.name, "seed": 7, "image": IMAGE, "mask": MASK}
    task = forms.text_to_video(asdict(card.defaults) | said)
    assert task == TextToVideo.for_model(card, "a bear", 7)


def test_a_drawn_mask_is_kept_a_cleared_one_is_none_and_without_strokes_it_stays(backend):
    read = lambda *mask_and_strokes: first_image.settings(backend, ME, IMAGE, *mask_and_strokes, 9.0)  # noqa: E731
    assert read(MASK, None) == {"image": IMAGE, "mask": MASK, "image_guidance": 9.0}
    assert read(MASK, "")["mask"] == ""
    kept = read(MASK, address(png()))["mask"]
    assert np.asarray(Image.open(io.BytesIO(backend.assets.image(kept, ME)))).min() == 255
    with pytest.raises(ValueError, match="no such image"):
        backend.assets.image(kept, OTHER)
    assert first_image.settings(backend, ME, "", "", address(png()), 9.0)["mask"] == ""  # its image was removed


@pytest.mark.parametrize(
    "strokes", [first_image.PNG + "%%%", first_image.PNG + "é", address(b"words"), address(png()[:60]), first_image.PNG]
)
def test_a_mask_that_is_none_is_refused_in_words(backend, strokes):
    with pytest.raises(ValueError, match="Draw it again|no picture|damaged"):
        first_image.keep_drawn(backend, ME, strokes)


@pytest.mark.parametrize(
    "told", [3, None, ["x"], "javascript:alert(1)", first_image.PNG + "A" * first_image.LARGEST, "data:text/html,x"]
)
def test_what_no_browser_of_ours_would_tell_is_refused(told):
    with pytest.raises(ValueError, match="did not arrive whole"):
        first_image.drawn(gr.EventData(None, {"mask": told}))
    assert first_image.drawn(gr.EventData(None, {"mask": ""})) == ""


def test_an_upload_is_checked_and_shown_and_another_visitor_has_none(backend, demo, tmp_path):
    take, _ = handler(demo, "take", "ui.first_image")
    (tmp_path / "a.png").write_bytes(png("RGB", (1200, 600), 90))
    updates = take(ME, str(tmp_path / "a.png"))
    (name,) = [value for value in updates.values() if isinstance(value, str) and len(value) == 32 and value != ME]
    show, _ = handler(demo, "show", "ui.first_image")
    shown = by_id(show(ME, name, ""))
    assert 'canvas width="512" height="256"' in shown["mask"] and "data-mask" not in shown["mask"]
    assert shown["image-remove"].visible
    gone = by_id(show(OTHER, name, ""))  # a video's settings were used again, but its image is another visitor's
    assert gone["mask"] == "" and not gone["image-remove"].visible
    (tmp_path / "b.png").write_text("<svg onload=alert(1)>")
    assert "no picture" in by_id(take(ME, str(tmp_path / "b.png")))["image-message"].value


def test_a_kept_mask_is_laid_on_its_image():
    assert f'data-mask="{address(png())}"' in first_image.drawn_over(png("RGB"), png())


def test_the_settings_of_a_video_bring_its_image_and_mask_back(demo, tmp_path):
    restore, _ = handler(demo, "restore", "ui.restore")
    film = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)

    def restored(task):
        video.write(film, tmp_path / "a.mp4", 8, to_json(task))
        return restore(ME, str(tmp_path / "a.mp4"))

    task = TextToVideo.for_model(find("makeavid-sd"), "a dancer", 7, image=IMAGE, mask=MASK, image_guidance=4.0)
    for updates in (restored(task), restored(Finish.for_video(task, "c" * 32, 2, 2))):
        assert IMAGE in updates.values() and MASK in updates.values()
        assert by_id(updates)["first-image"].visible and by_id(updates)["image-guidance"].value == 4.0
    updates = restored(TextToVideo.for_model(find("miniature-modelscope"), "a bear", 7))
    assert not by_id(updates)["first-image"].visible and IMAGE not in updates.values()


def test_a_first_frame_of_the_library_chooses_a_model_that_takes_one(demo):
    begin_with, _ = handler(demo, "begin_with", "ui.text_to_video")
    updates = by_id(begin_with((IMAGE, 1.0), "miniature-modelscope"))
    assert MODELS[updates["model"]].image_model is not None and updates["first-image"].visible
    assert "model" not in by_id(begin_with((IMAGE, 1.0), updates["model"]))


def test_the_words_of_the_models_makers_are_on_the_page():
    card = html.model_card(find("makeavid-sd"), None)
    for words in (
        "18,000 videos of 120 frames",
        "24 drawn from each",
        "80 epochs",
        "obscene",
        "disinformation",
        "gore",
    ):
        assert words in card


def test_the_first_frame_of_a_finished_video_is_kept_for_its_owner(backend):
    job = backend.jobs.submit(TextToVideo.for_model(find("miniature-modelscope"), "a bear", 7, frames=8, steps=1), ME)
    *_, end = [event for event in backend.jobs.events(job, ME) if event]
    name = backend.assets.keep_frame(job, ME)
    picture = np.asarray(Image.open(io.BytesIO(backend.assets.image(name, ME))).convert("RGB"))
    assert np.abs(picture.astype(int) - video.read(end.video)[0]).max() <= 2
    with pytest.raises(ValueError, match="no such job"):
        backend.assets.keep_frame(job, OTHER)
