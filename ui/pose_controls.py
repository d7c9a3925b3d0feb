"""The controls that say what the dancer follows: which part of the clip, who in it, and how it is laid out."""

from collections.abc import Sequence

import gradio as gr
from gradio.i18n import I18nData

from pipelines.catalog import DETECTORS
from pipelines.serving.backend import Clip, Tuning
from pipelines.tasks import PLACEMENTS, SHOWN
from ui import forms, pose_html
from ui.edit_html import title_of
from ui.languages import say

SMOOTHED = {"none": "Not at all", "light": "A little", "strong": "Strongly"}

PACE = 8  # frames a second that the models have learned from


def build() -> dict[str, gr.components.Component]:
    """Builds forms.POSES, but for the `wardrobe`, where it is called."""
    made: dict[str, gr.components.Component] = {}
    made["strength"] = gr.Slider(
        0, 1.5, 1, step=0.05, label=say("Pose strength"), buttons=[], elem_id="pose-strength",
        info=say("How closely the skeletons are followed: 1 as published, 0 not at all"),
    )  # fmt: skip
    with gr.Accordion(say("Which part of it"), open=False, elem_id="pose-part"):
        with gr.Row():
            made["start"] = gr.Number(0, label=say("From"), info=say("Seconds"), min_width=120, elem_id="pose-start")
            made["end"] = gr.Number(60, label=say("To"), info=say("Seconds"), min_width=120, elem_id="pose-end")
        made["stride"] = gr.Slider(
            1, 30, 1, step=1, label=say("Every n-th frame"), buttons=[], elem_id="pose-stride",
            info=say("Larger steps cover more of the clip in as many frames"),
        )  # fmt: skip
        gr.HTML(say('<p class="hint">Cut off at each side, as a share of the picture</p>'))
        with gr.Row():
            for side in ("left", "right", "top", "bottom"):
                made[side] = gr.Slider(
                    0, 0.9, 0, step=0.01, label=say(side.title()), buttons=[], min_width=200, elem_id=f"pose-{side}",
                    info=say("What is cut off there is not looked at"),
                )  # fmt: skip
        made["sound"] = gr.Checkbox(
            label=say("Keep the clip's sound"), info=say("The video then sounds like the part that it follows"),
            visible=False, elem_id="pose-sound",
        )  # fmt: skip
    with gr.Accordion(say("Who, and how the skeletons are drawn"), open=False, elem_id="pose-who"):
        with gr.Row():
            made["detector"] = gr.Dropdown(
                [(say(card.title), name) for name, card in DETECTORS.items()],
                value=next(iter(DETECTORS)), label=say("Detector"), filterable=False, elem_id="pose-detector",
                info=say("Finds people in a clip, and in the result to measure it"),
            )  # fmt: skip
            made["person"] = gr.Dropdown(
                people(0), value=forms.EVERYBODY, label=say("Who is followed"), filterable=False, elem_id="pose-person",
                info=say("Person 1 is most to be seen"),
            )  # fmt: skip
        about = gr.HTML(pose_html.detector(next(iter(DETECTORS))), elem_id="detector-about")
        made["detector"].change(
            pose_html.detector, made["detector"], about, queue=False, api_visibility="private", show_progress="hidden"
        )
        made["shown"] = gr.Radio(
            [(say(text), name) for name, text in SHOWN.items()], value="auto", label=say("What an upload shows"),
            elem_id="pose-shown", info=say("Whether people are looked for in it, or skeletons are read from it"),
        )  # fmt: skip
        made["placing"] = gr.Radio(
            [(say(text), name) for name, text in PLACEMENTS.items()], value="fit", label=say("On the canvas"),
            elem_id="pose-placing", info=say("How large the dancer becomes, and whether limbs may be cut off"),
        )  # fmt: skip
        made["retarget"] = gr.Checkbox(
            True, label=say("The character's own proportions"), elem_id="pose-retarget",
            info=say("A bear keeps its short legs; for models that draw figures of their own only"),
        )  # fmt: skip
        made["smoothing"] = gr.Radio(
            [(say(text), name) for name, text in SMOOTHED.items()], value="light", label=say("Jitter is smoothed"),
            elem_id="pose-smoothing", info=say("Calms trembling limbs; too much takes the snap out of a dance"),
        )  # fmt: skip
        made["gaps"] = gr.Checkbox(
            True, label=say("Fill in joints that are away for a moment"), elem_id="pose-gaps",
            info=say("A limb that was not found in a few frames does not vanish from the dancer"),
        )  # fmt: skip
    return made


def wardrobe(tuned: Sequence[Tuning] = (), chosen: str = "") -> gr.Dropdown:
    """Whose looks the dancer can have: those that were `tuned`; hidden where there are none."""
    choices = [(say("Nobody's: as the model draws it"), ""), *((title_of(one), one.job.id) for one in tuned)]
    return gr.Dropdown(
        choices, value=chosen if chosen in dict(choices).values() else "", visible=bool(tuned), elem_id="pose-tuned",
        label=say("Whose looks"), filterable=False,
        info=say("Who is in a clip that you tuned on then dances; call them what you called them there"),
    )  # fmt: skip


def people(count: int, chosen: object = None) -> list[tuple[I18nData, object]]:
    """Who can be chosen, where so many were found, and at least who is `chosen`."""
    count = max(count, chosen + 1 if isinstance(chosen, int) else 0)
    return [
        (say("Everybody"), forms.EVERYBODY),
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


def pace(clip: Clip, stride: object = None) -> float:
    """Frames a second at which a video moves as fast as the clip of which every `stride`-th frame is used."""
    return round(clip.fps / (_stride(clip) if stride is None else max(1, stride)), 4)


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
