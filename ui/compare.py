"""Two or three videos of the library side by side and in step, with only those settings in which they differ."""

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import gradio as gr

from pipelines.events import Result
from pipelines.messages import Message, said
from pipelines.serving.backend import Backend
from pipelines.serving.job import Job
from pipelines.task_settings import Choice, Kept, Setting, settings_of
from pipelines.tasks import KINDS as task_kinds
from pipelines.tasks import Finish, Grid, Task, kind_of
from ui import html
from ui.follower import QUIET
from ui.languages import say, tell
from ui.player import Film, films, player
from ui.pose_html import motion_title

MOST = 3
_TO_PANEL = "() => document.querySelector('#compare video')?.scrollIntoView({block: 'center'})"
KINDS = {
    "text-to-video": said("Text to video"),
    "pose-to-video": said("Pose to video"),
    "edit": said("Edit of a clip"),
    "grid": said("A grid"),
}
DECLARED: dict[str, Setting] = {}  # of all kinds of task
for _kind in task_kinds.values():
    DECLARED = settings_of(_kind) | DECLARED


def _label(setting: Setting) -> Message:
    label = said(setting.label)
    return said("{name} ({unit})", name=label, unit=setting.unit) if setting.unit else label


_LABELS = [(name, one) for kind in task_kinds.values() for name, one in settings_of(kind).items()]
# In the order in which they are shown -> what a person reads: the plainer, where kinds of task call it differently.
SETTINGS = {"kind": said("Made by"), "prompt": said("Prompt"), "model": said("Model")} | {
    name: min((_label(one) for it, one in _LABELS if it == name), key=len) for name in DECLARED
}
APART = 3  # settings that a card of the library tells beside the seed
_ON_CARD = ("kind", "prompt", "model", "seed")  # what stands there anyway
_TELLING = (
    "motion",
    "clip",
    "tuned",
    "image",
    "reference",
    "upscale",
    "interpolate",
)  # also where not every video has it


def panel(backend: Backend, owner: gr.BrowserState, compared: gr.State) -> None:
    """Builds, where it is called, what shows the jobs whose ids `compared` holds: of those, the `owner`'s own."""
    with gr.Column(visible=False, elem_id="compare") as all_of_it:
        heading = gr.HTML()
        shown = player(say("The videos compared"), elem_id="compare-films")
        table = gr.HTML(elem_id="compare-settings")
        leave = gr.Button(say("End the comparison"), size="md", elem_id="compare-end")

    def show(visitor_id: str, identifiers: list[str]) -> dict:
        jobs = own(backend, visitor_id, identifiers)
        side_by_side = len(jobs) > 1
        return {
            all_of_it: gr.Column(visible=bool(jobs)),
            heading: _heading(jobs),
            shown: films(*(_film(number, job) for number, job in enumerate(jobs, 1))) if side_by_side else films(),
            table: differences([job.made for job in jobs]) if side_by_side else "",
        }

    def _film(number: int, job: Job) -> Film | None:
        address = backend.assets.address(job.result.video)
        return None if address is None else Film(address, f"{number}. {html.title(job)}")

    changed = compared.change(show, [owner, compared], [all_of_it, heading, shown, table], **QUIET)
    changed.then(None, js=_TO_PANEL)
    leave.click(list, None, compared, **QUIET)


def toggled(identifiers: Sequence[str], job: str) -> list[str]:
    """`identifiers` without `job`, or with it; then the first has to go where there are too many."""
    if job in identifiers:
        return [one for one in identifiers if one != job]
    return [*identifiers, job][-MOST:]


def own(backend: Backend, owner: str, identifiers: Sequence[str]) -> list[Job]:
    """The finished ones of the jobs of these ids, and of those only what belongs to the `owner` and is still there."""
    jobs = []
    for identifier in identifiers[:MOST]:
        try:
            job = backend.jobs.get(identifier, owner)
        except ValueError:
            continue
        if isinstance(job.end, Result) and job.end.video.exists():
            jobs.append(job)
    return jobs


def differences(tasks: Sequence[Task]) -> str:
    """A table of the settings that are not the same in all of `tasks`."""
    settings = [_settings(task) for task in tasks]
    rows = ""
    for name, title in SETTINGS.items():
        values = [one.get(name) for one in settings]
        # What only some of the tabs ask for tells those videos apart, but not them from the others.
        asked = values if name in _TELLING else [one[name] for one in settings if name in one]
        if any(value != asked[0] for value in asked):
            texts = _texts(name, values)
            cells = (escape(text) if name in one else "–" for text, one in zip(texts, settings, strict=True))
            cells = "".join(f"<td>{text}</td>" for text in cells)
            rows += f'<tr><th scope="row">{tell(title)}</th>{cells}</tr>'
    if not rows:
        return f'<p class="hint">{tell("All of them have the same settings.")}</p>'
    heads = "".join(f'<th scope="col">{number}</th>' for number in range(1, len(tasks) + 1))
    return (
        f'<div class="edits"><table><caption>{tell("In which they differ")}</caption>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def apart(tasks: Sequence[Task]) -> list[str]:
    """For each of `tasks`, its seed and up to APART settings in which others of the same kind and prompt differ."""
    settings, told = [_settings(task) for task in tasks], []
    for one in settings:
        others = [other for other in settings if (other["kind"], other["prompt"]) == (one["kind"], one["prompt"])]
        names = (
            name
            for name in SETTINGS
            if name in one and name not in _ON_CARD and not isinstance(DECLARED.get(name), Kept)
        )
        differ = [name for name in names if any(other.get(name) != one[name] for other in others)]
        words = [f"{tell(SETTINGS[name])} {_text(name, one[name])}" for name in differ[:APART]]
        seed = (
            tell("Seeds {seeds}", seeds=one["seed"]) if one["kind"] == "grid" else tell("Seed {seed}", seed=one["seed"])
        )
        told.append(" · ".join([seed, *words]))
    return told


def _heading(jobs: Sequence[Job]) -> str:
    if len(jobs) == 1:
        prompt = escape(html.shorten(jobs[0].task.prompt, 90))
        told = tell("“{prompt}” is chosen. Press Compare at one or two more.", prompt=prompt)
        return f'<h2>{tell("Compare")}</h2><p class="hint">{told}</p>'
    return f"<h2>{tell('Side by side')}</h2>"


def _settings(task: Task) -> dict:
    """What can be told of `task` by name; of a finished video, also what was finished."""
    if isinstance(task, Finish):
        assert task.of is not None
        return _settings(task.of) | {"upscale": task.upscale, "interpolate": task.interpolate}
    if isinstance(task, Grid):
        return _settings(task.of) | {"kind": "grid", "prompt": task.prompt, "seed": ", ".join(map(str, task.seeds))}
    return {"kind": kind_of(task), **asdict(task)}


def _texts(name: str, values: Sequence[object]) -> list[str]:
    if isinstance(DECLARED.get(name), Kept):  # names that mean nothing to a person: it matters only which are the same
        letters = dict(zip(dict.fromkeys(value for value in values if value), "ABC", strict=False))
        return [letters.get(value, tell("none")) for value in values]
    return [_text(name, value) for value in values]


def _text(name: str, value: Any) -> str:
    match name, value:
        case "person", int():
            return tell("Person {number}", number=value + 1)
        case "person", None:
            return tell("Everybody")
        case _, None | "":
            return "–"
        case "kind", _:
            return tell(KINDS[value])
        case "motion", _:
            return tell(motion_title(value))
        case (("upscale" | "interpolate"), _):
            return f"{value}×"
        case "model", _:
            return html.model_title(value)
        case _, bool():
            return tell("Yes") if value else tell("No")
        case _, int() | float():
            return f"{value:.10g}"
    setting = DECLARED.get(name)
    return tell(setting.choices.get(value, value)) if isinstance(setting, Choice) else value
