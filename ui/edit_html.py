"""What is drawn in the tab that edits a clip: plain functions from data to HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from statistics import fmean
from typing import Any

from pipelines.catalog import CATALOG, SCHEDULERS, ModelCard
from pipelines.serving.backend import Tuning
from pipelines.serving.job import Job
from pipelines.tasks import Tune
from ui.html import data_of, moving, shorten
from ui.languages import say

OTHERS = say('<p class="others">Published tuned models</p>')
NOTHING = say(
    '<p class="nothing">You have no tuned models yet. Upload a clip above, say what it shows, and '
    'press Tune.</p><p class="others">Published tuned models</p>'
)
WIDTH, HEIGHT = 600, 150  # of the plot, in its own units
SETTINGS = {  # of an edit -> what a person reads
    "strength": "strength",
    "guidance": "guidance",
    "steps": "steps",
    "scheduler": "sampler",
    "lora": "speed",
    "precision": "precision",
    "caching": "deep features shared",
    "guided_from": "guided from",
    "guided_until": "guided until",
    "negative_prompt": "left out",
    "seed": "seed",
}


def about_clip(seconds: float, width: int, height: int, fps: float, cut: bool) -> str:
    more = " The file is longer; this is the part that is read." if cut else ""
    return f'<p class="caption">{seconds:.1f} s · {width}×{height} · {fps:.4g} frames a second.{more}</p>'


def look(picture: bytes, choice, width: int, height: int) -> str:
    """The frames that will be used, moving, and in words which they are. `choice` is an uploads.Choice."""
    every = "every frame" if choice.stride == 1 else f"every {_ordinal(choice.stride)} frame"
    short = ""
    if choice.frames < choice.wanted:
        short = f'<p class="hint warning">The chosen part holds {choice.frames} frames, not {choice.wanted}.</p>'
    return (
        f'<figure class="look">{moving(picture, "The part of the clip that will be used")}'
        f"<figcaption>{choice.frames} frames, {every}, {choice.frames / choice.fps:.1f} s at {choice.fps:.3g} a "
        f"second, {width}×{height}</figcaption></figure>{short}"
    )


def losses(values: Sequence[float], steps: int) -> str:
    """The loss of every step so far as a faint line, and its running mean as a strong one."""
    if not values:
        return '<div class="losses empty"></div>'
    smooth = [fmean(values[max(0, end - 20) : end]) for end in range(1, len(values) + 1)]
    top = 1.1 * max(max(smooth), sorted(values)[int(0.98 * (len(values) - 1))])

    def line(points: Sequence[float]) -> str:
        every = max(1, len(points) // 300)
        return " ".join(
            f"{index / max(steps - 1, 1) * WIDTH:.1f},{HEIGHT - min(value / top, 1) * HEIGHT:.1f}"
            for index, value in enumerate(points)
            if index % every == 0 or index == len(points) - 1
        )

    return (
        f'<figure class="losses"><svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Loss over {len(values)} steps, now {smooth[-1]:.3f}">'
        f'<polyline class="each" points="{line(values)}"/><polyline class="mean" points="{line(smooth)}"/></svg>'
        f"<figcaption>Loss {smooth[-1]:.4f} after {len(values)} of {steps} steps</figcaption></figure>"
    )


def sample(picture: bytes) -> str:
    """What a tuning makes of its own clip, moving."""
    return (
        f'<figure class="look">{moving(picture, "A sample of the tuning")}'
        "<figcaption>A rough sample of the tuning: the clip by its own caption</figcaption></figure>"
    )


def tunings(found: Sequence[Tuning], published: Mapping[str, ModelCard], chosen: str) -> str:
    """Cards of the visitor's tuned models, and of those that are published as tuned."""
    own = f'<div class="shelf">{"".join(_tuned(tuning, chosen) for tuning in found)}</div>{OTHERS}'
    cards = "".join(_published(card, chosen) for card in published.values())
    return f'{own if found else NOTHING}<div class="shelf">{cards}</div>'


def title_of(tuning: Tuning) -> str:
    return tuning.job.title or tuning.job.task.prompt


def _published(card: ModelCard, chosen: str) -> str:
    return (
        f'<button type="button" class="example" aria-pressed="{str(card.name == chosen).lower()}" '
        f'data-job="{card.name}"><b>{escape(card.title)}</b><span>{escape(card.summary)}</span></button>'
    )


def _tuned(tuning: Tuning, chosen: str) -> str:
    task, done = tuning.job.task, len(tuning.facts["losses"])
    assert isinstance(task, Tune)
    steps = f"{done} steps" if done == task.steps else f"stopped after {done} of {task.steps} steps"
    base = CATALOG[task.model].title if task.model in CATALOG else task.model
    picture = f'<img alt="" src="{data_of(tuning.poster)}">' if tuning.poster else '<span class="no-picture"></span>'
    caption = f"“{escape(shorten(task.prompt, 80))}”<br>" if tuning.job.title else ""
    return (
        f'<button type="button" class="example" aria-pressed="{str(tuning.job.id == chosen).lower()}" '
        f'data-job="{tuning.job.id}">{picture}<b>{escape(shorten(title_of(tuning), 90))}</b>'
        f"<span>{caption}{escape(base)} · {steps}</span></button>"
    )


def edits(jobs: Sequence[Job], shown: str) -> str:
    """A table of the edits of one tuned model: their prompts, and only the settings in which they differ."""
    if not jobs:
        return ""
    settings = [asdict(job.task) for job in jobs]
    differ = [name for name in SETTINGS if len({str(values[name]) for values in settings}) > 1]
    head = "".join(f"<th>{SETTINGS[name]}</th>" for name in differ)
    rows = "".join(
        f'<tr aria-selected="{str(job.id == shown).lower()}"><td><button type="button" data-job="{job.id}">'
        f"{escape(shorten(job.task.prompt, 120))}</button></td>"
        f"{''.join(f'<td>{_value(name, values[name])}</td>' for name in differ)}</tr>"
        for job, values in zip(jobs, settings, strict=True)
    )
    same = "" if differ or len(jobs) == 1 else '<p class="hint">All with the same settings.</p>'
    return f'<table class="edits"><thead><tr><th>Edit</th>{head}</tr></thead><tbody>{rows}</tbody></table>{same}'


def _value(name: str, value: Any) -> str:
    return escape(
        f"{value:g}" if isinstance(value, int | float) else SCHEDULERS[value] if value in SCHEDULERS else value
    )


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"
