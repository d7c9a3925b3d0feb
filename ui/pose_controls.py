"""The controls that say what the dancer follows: which part of the clip, who in it, and how it is laid out."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from pipelines.cards import ModelCard
from pipelines.catalog import find, offered
from pipelines.detectors import DETECTORS
from pipelines.pose_tasks import SIDES
from pipelines.serving.backend import Clip, Tuning
from pipelines.tasks import PoseToVideo
from ui import controls, forms, pose_html
from ui.edit_html import title_of
from ui.languages import say

PACE = 8  # frames a second that the models have learned from


def build(card: ModelCard) -> controls.Controls:
    """Builds forms.POSES, but for the `wardrobe`, where it is called."""

    def control(name: str, **rest: Any) -> controls.Control:
        return controls.control(PoseToVideo, name, card, "pose-", **rest)

    made = {"strength": control("strength")}
    with gr.Accordion(say("Part of the clip"), open=False, elem_id="pose-part"):
        with gr.Row():
            made["start"] = control("start", min_width=120)
            made["end"] = control("end", value=60, min_width=120)
        made["stride"] = control("stride", maximum=30)
        with gr.Row():
            for side in SIDES:
                made[side] = control(side, min_width=200)
        made["sound"] = control("sound", visible=False)
    with gr.Accordion(say("Person and skeletons"), open=False, elem_id="pose-who"):
        with gr.Row():
            made["detector"] = control("detector")
            made["person"] = gr.Dropdown(
                people(0), value=forms.EVERYBODY, label=say("Who is followed"), filterable=False, elem_id="pose-person",
                info=say("Person 1 is most in view"),
            )  # fmt: skip
        about = gr.HTML(pose_html.detector(next(iter(DETECTORS))), elem_id="detector-about")
        made["detector"].change(
            pose_html.detector, made["detector"], about, queue=False, api_visibility="private", show_progress="hidden"
        )
        for name in ("shown", "placing", "retarget", "smoothing", "gaps"):
            made[name] = control(name)
    return made


def wardrobe(tuned: Sequence[Tuning] = (), chosen: str = "") -> gr.Dropdown:
    """Whose looks the dancer can have: those that were `tuned`; hidden where none is the visitor's or chosen."""
    choices = [(say("As the model draws them"), ""), *((title_of(one), one.job.id) for one in tuned)]
    chosen = chosen if chosen in dict(choices).values() else ""
    return gr.Dropdown(
        choices, value=chosen, visible=bool(chosen) or any(not one.built_in for one in tuned), elem_id="pose-tuned",
        label=say("Appearance"), filterable=False,
        info=say("The person of a tuned clip dances. Use the words of its caption"),
    )  # fmt: skip


def people(count: int, chosen: object = None) -> list[tuple[I18nData, object]]:
    """Who can be chosen, where so many were found, and at least who is `chosen`."""
    count = max(count, chosen + 1 if isinstance(chosen, int) else 0)
    return [
        (say("Everybody whom the model can draw"), forms.EVERYBODY),
        *((say("Person {}", number + 1), number) for number in range(count)),
    ]


people(10)  # so that a browser learns the words for as many


def fitted(controls: dict[str, gr.components.Component], clip: Clip) -> dict:
    """Updates that fit the controls to a clip of these measures, all of it being used."""
    return {
        **_times(controls, clip, 0, clip.seconds),
        controls["stride"]: _stride(clip),
        controls["sound"]: gr.Checkbox(False, visible=clip.sound),
        controls["person"]: gr.Dropdown(people(0), value=forms.EVERYBODY),
        **{controls[side]: 0 for side in ("left", "right", "top", "bottom")},
    }


def _times(controls: dict[str, gr.components.Component], clip: Clip, start: float, end: float) -> dict:
    # Boxes and not sliders: gradio refuses a slider's value that is beyond its end, and every clip has another.
    info = f"{say('Seconds')}: 0–{clip.seconds:.4g}"
    return {
        controls["start"]: gr.Number(round(start, 4), info=info),
        controls["end"]: gr.Number(round(end, 4), info=info),
    }


def pace(clip: Clip, stride: float | None = None) -> float:
    """Frames a second at which a video moves as fast as the clip of which every `stride`-th frame is used, or nearly
    so where no model makes so many."""
    allowed = find(next(iter(offered("pose-to-video")))).limits.fps  # those of all are the same
    fps = clip.fps / (_stride(clip) if stride is None else max(1, stride))
    return round(min(max(fps, allowed.low), allowed.high), 4)


def _stride(clip: Clip) -> int:
    return min(30, max(1, round(clip.fps / PACE)))


def filled_in(controls: dict[str, gr.components.Component], clip: Clip, values: dict) -> dict:
    """Updates that set the controls to what a task says of a clip of these measures."""
    end = clip.seconds if values["end"] is None else min(values["end"], clip.seconds)
    person = forms.EVERYBODY if values["person"] is None else values["person"]
    special = ("start", "end", "person", "sound", "tuned")
    plain = {controls[name]: values[name] for name in forms.POSES if name not in special}
    return plain | {
        **_times(controls, clip, values["start"], end),
        controls["person"]: gr.Dropdown(people(0, values["person"]), value=person),
        controls["sound"]: gr.Checkbox(values["sound"], visible=clip.sound),
    }
