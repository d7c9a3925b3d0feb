"""Help in place: every control says in a line what it does to the video, and known limits have an answer."""

import gradio as gr
import pytest

from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from ui import page, why
from ui.languages import say

CONTROLS = (gr.Textbox, gr.Number, gr.Slider, gr.Checkbox, gr.CheckboxGroup, gr.Radio, gr.Dropdown)
WITHOUT = {  # control -> why it needs no such line
    "search": "changes no video",
    "favourites": "changes no video",
    "tuned-name": "changes no video",
    "repository": "changes no video",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("help")
    settings = Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    yield page.build(backend, settings)
    backend.close()


def controls(demo):
    """Those that a person sees; gradio makes others for the parameters of endpoints, which are in no part of it."""
    return [one for one in demo.blocks.values() if isinstance(one, CONTROLS) and one.parent is not None and one.render]


def test_every_control_says_what_it_does_to_the_video(demo):
    assert len(controls(demo)) > 50
    lacking = {one.elem_id or one.label for one in controls(demo) if not one.info}
    assert lacking - WITHOUT.keys() == set()
    for one in controls(demo):
        assert one.label, one
        assert one.info is None or len(one.info.key) <= 110, f"{one.label}: more than a line"


def test_no_exception_stands_for_a_control_that_has_help_or_is_gone(demo):
    there = {one.elem_id: one for one in controls(demo)}
    assert all(there[name].info is None for name in WITHOUT if name != "repository")  # on Spaces only


def test_every_tab_answers_why_its_videos_look_as_they_do(demo):
    sections = {one.elem_id: one for one in demo.blocks.values() if "why" in (getattr(one, "elem_classes", None) or ())}
    assert set(sections) == {"why", "pose-why", "edit-why"}
    said = {name: [child.value for child in one.children] for name, one in sections.items()}
    answers = {"edit-why": why.EDIT, "pose-why": why.POSE_TO_VIDEO, "why": why.TEXT_TO_VIDEO}
    assert said == {name: [str(say(one)) for one in some] for name, some in answers.items()}
    limits = ("watermark", "Faces and hands", "can't be read", "16 or 24 frames", "cut paper", "figure is small")
    text = "\n".join((*why.TEXT_TO_VIDEO, *why.POSE_TO_VIDEO))
    assert all(limit in text for limit in limits)
    assert not any(section.open for section in sections.values())
