"""What is drawn in the tab that edits a clip: plain functions from data to HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from statistics import fmean
from typing import Any

from pipelines.cards import ModelCard
from pipelines.catalog import ASSETS
from pipelines.messages import Message, said
from pipelines.serving.backend import Tuning
from pipelines.serving.job import Job
from pipelines.task_settings import Choice, settings_of
from pipelines.tasks import Edit, Tune
from ui.html import calm_picture, data_of, model_title, moving, shorten
from ui.languages import say, tell
from ui.public import picture

SAMPLE = ASSETS / "examples" / "bear.webp"  # a clip of the app's own, to begin with
SAMPLE_CLIP = say(
    '<button type="button" class="sample" data-example="0">{}<b>Try it with this clip</b></button>',
    calm_picture(picture(SAMPLE), "", picture(SAMPLE.with_suffix(".png"))),
)
WIDTH, HEIGHT = 600, 150  # of the plot, in its own units
EVERY = said("every {number}th frame")  # English has its ordinals
SETTINGS = {  # of an edit -> what a person reads
    "strength": said("strength"),
    "guidance": said("guidance"),
    "steps": said("steps"),
    "scheduler": said("sampler"),
    "lora": said("speed"),
    "precision": said("precision"),
    "caching": said("deep features shared"),
    "guided_from": said("guided from"),
    "guided_until": said("guided until"),
    "negative_prompt": said("left out"),
    "seed": said("seed"),
}


def about_clip(seconds: float, width: int, height: int, fps: float, cut: bool) -> str:
    told = tell(
        "{seconds:.1f} s · {width}×{height} · {fps:.4g} frames a second.",
        **{"seconds": seconds, "width": width, "height": height, "fps": fps},
    )
    more = f" {tell('The file is longer; this is the part that is read.')}" if cut else ""
    return f'<p class="caption">{told}{more}</p>'


def look(picture: bytes, choice, width: int, height: int) -> str:
    """The frames that will be used, moving, and in words which they are. `choice` is an uploads.Choice."""
    every = tell("every frame")
    if choice.stride > 1:
        every = tell(Message(f"every {_ordinal(choice.stride)} frame", EVERY, {"number": choice.stride}))
    short = ""
    if choice.frames < choice.wanted:
        told = tell("The chosen part holds {frames} frames, not {wanted}.", frames=choice.frames, wanted=choice.wanted)
        short = f'<p class="hint warning">{told}</p>'
    told = tell(
        "{frames} frames, {every}, {seconds:.1f} s at {fps:.3g} a second, {width}×{height}",
        **{"frames": choice.frames, "every": every, "seconds": choice.frames / choice.fps, "fps": choice.fps},
        **{"width": width, "height": height},
    )
    alt = tell("The part of the clip that will be used")
    return f'<figure class="look">{moving(picture, alt)}<figcaption>{told}</figcaption></figure>{short}'


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

    done, now = len(values), smooth[-1]
    name = tell("Loss over {done} steps, now {now:.3f}", done=done, now=now)
    told = tell("Loss {now:.4f} after {done} of {steps} steps", now=now, done=done, steps=steps)
    return (
        f'<figure class="losses"><svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{name}">'
        f'<polyline class="each" points="{line(values)}"/><polyline class="mean" points="{line(smooth)}"/></svg>'
        f"<figcaption>{told}</figcaption></figure>"
    )


def sample(picture: bytes) -> str:
    """What a tuning makes of its own clip, moving."""
    told = tell("A rough sample of the tuning: the clip by its own caption")
    alt = tell("A sample of the tuning")
    return f'<figure class="look">{moving(picture, alt)}<figcaption>{told}</figcaption></figure>'


def tunings(
    found: Sequence[Tuning], built_in: Sequence[Tuning], published: Mapping[str, ModelCard], chosen: str
) -> str:
    """Cards of the visitor's tuned models, of those that are built in, and of those that are published as tuned."""
    none = tell("You have no tuned models yet. Tune on a clip above, or try one of these.")
    own = [_tuned(tuning, chosen) for tuning in found]
    others = [_tuned(tuning, chosen) for tuning in built_in]
    cards = [_published(card, chosen) for card in published.values()]
    shelves = {tell("Yours"): own, tell("Built in"): others, tell("Published tuned models"): cards}
    told = "" if own else f'<p class="hint">{none}</p>'
    return f'{told}<div class="shelves">{"".join(_shelf(*one) for one in shelves.items())}</div>'


def _shelf(heading: str, cards: Sequence[str]) -> str:
    return f'<div><p class="others">{heading}</p><div class="shelf">{"".join(cards)}</div></div>' if cards else ""


def idea(tuning: Tuning) -> str:
    """What the clip of a built-in model shows, and prompts to try with it."""
    told = tell("The clip shows “{caption}”.", caption=escape(tuning.job.task.prompt))
    chips = "".join(
        f'<button type="button" class="chip" data-example="{number}">{escape(prompt)}</button>'
        for number, prompt in enumerate(tuning.ideas)
    )
    return f'<p class="hint">{told} {tell("Try one of these:")}</p><div class="chips"><div>{chips}</div></div>'


def title_of(tuning: Tuning) -> str:
    return tuning.job.title or tuning.job.task.prompt


def _published(card: ModelCard, chosen: str) -> str:
    return (
        f'<button type="button" class="example" aria-pressed="{str(card.name == chosen).lower()}" '
        f'data-job="{card.name}"><b>{escape(tell(card.title))}</b><span>{escape(tell(card.summary))}</span></button>'
    )


def _tuned(tuning: Tuning, chosen: str) -> str:
    task, done = tuning.job.task, len(tuning.facts["losses"])
    assert isinstance(task, Tune)
    steps = tell("{done} steps", done=done)
    if done != task.steps:
        steps = tell("stopped after {done} of {steps} steps", done=done, steps=task.steps)
    picture = '<span class="no-picture"></span>'
    if tuning.poster:
        picture = f'<img alt="" src="{data_of(tuning.poster)}">'
        if tuning.built_in:
            picture = moving(tuning.poster.read_bytes(), "")
    caption = f"“{escape(shorten(task.prompt, 80))}”<br>" if tuning.job.title else ""
    return (
        f'<button type="button" class="example" aria-pressed="{str(tuning.job.id == chosen).lower()}" '
        f'data-job="{tuning.job.id}">{picture}<b>{escape(shorten(title_of(tuning), 90))}</b>'
        f"<span>{caption}{escape(model_title(task.model))} · {steps}</span></button>"
    )


def edits(jobs: Sequence[Job], shown: str) -> str:
    """A table of the edits of one tuned model: their prompts, and only the settings in which they differ."""
    if not jobs:
        return ""
    settings = [asdict(job.task) for job in jobs]
    differ = [name for name in SETTINGS if len({str(values[name]) for values in settings}) > 1]
    head = "".join(f"<th>{tell(SETTINGS[name])}</th>" for name in differ)
    rows = "".join(
        f'<tr aria-selected="{str(job.id == shown).lower()}"><td><button type="button" data-job="{job.id}">'
        f"{escape(shorten(job.task.prompt, 120))}</button></td>"
        f"{''.join(f'<td>{_value(name, values[name])}</td>' for name in differ)}</tr>"
        for job, values in zip(jobs, settings, strict=True)
    )
    all_same = tell("All with the same settings.")
    same = "" if differ or len(jobs) == 1 else f'<p class="hint">{all_same}</p>'
    return (
        f'<table class="edits"><thead><tr><th>{tell("Edit")}</th>{head}</tr></thead><tbody>{rows}</tbody></table>{same}'
    )


def _value(name: str, value: Any) -> str:
    setting = settings_of(Edit)[name]
    if isinstance(setting, Choice):
        return escape(tell(setting.choices.get(value, value) or setting.nothing))
    return escape(f"{value:g}" if isinstance(value, int | float) else value)


def _ordinal(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"
