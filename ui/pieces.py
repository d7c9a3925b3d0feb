"""The pieces of the page that are drawn rather than filled in: plain functions from data to HTML."""

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pipelines.catalog import SCHEDULERS, ModelCard
from pipelines.jobs import Job
from pipelines.tasks import TextToVideo
from ui.stream import WAITING, Moment, describe
from ui.words import unknown_words

TOKENS = 77  # what CLIP reads, its start and end included
LAMPS = 24
HEADER = """
<header class="masthead">
  <svg viewBox="0 0 40 40" width="40" height="40" aria-hidden="true">
    <g fill="none" stroke="currentColor" stroke-width="1.2" stroke-linecap="round" stroke-linejoin="round">
      <path d="M8 5.5 32 8.5M20.4 3.5 19.6 10.5" stroke-width="2.4"/>
      <path d="M9 5.8 10 21M31 8.4 30 18M20 8v7" opacity=".75"/>
      <path d="M10 21 20 22.5 30 18M20 22v7M20 29l-5 8M20 29l6 7" stroke-width="2.4"/>
    </g>
    <circle cx="20" cy="17.5" r="3.6" fill="currentColor"/>
  </svg>
  <div><h1>Marionette</h1><p>Write one line. Watch it come to life.</p></div>
</header>
"""


def scene(state: str, moment: Moment | None = None) -> str:
    """What stands on the stage in the state "closed", "open" (the video shows) or "working"."""
    preview = moment.preview if moment else None
    if state == "closed":
        inside = (
            '<div class="playbill"><p class="playbill-title">Your first scene is written</p>'
            "<p>Press <b>Generate</b> to raise the curtain.</p></div>"
        )
    elif preview:
        data = base64.b64encode(preview.image).decode()
        inside = f'<img class="forming" alt="The video as it forms" src="data:image/webp;base64,{data}">'
    else:
        inside = '<div class="spotlight"></div>'
    return (
        f'<div class="scene {state}"><div class="backdrop">{inside if state == "working" else ""}</div>'
        '<div class="curtain left"></div><div class="curtain right"></div><div class="valance"></div>'
        f"{inside if state == 'closed' else ''}</div>"
    )


def footlights(moment: Moment) -> str:
    """The row of lamps that lights up as a stage of the job goes on, and a line that says how far it is."""
    progress = moment.progress
    going = progress is not None and progress.stage != WAITING and progress.total > 0
    fraction = min(progress.step / progress.total, 1) if going else 0
    lamps = "".join(f'<i class="{"lit" if lamp < round(fraction * LAMPS) else "unlit"}"></i>' for lamp in range(LAMPS))
    return (
        f'<div class="footlights"><div class="lamps" role="progressbar" aria-label="Progress" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{100 * fraction:.0f}">{lamps}</div>'
        f"<p>{escape(describe(progress)) if progress else 'Getting ready'}</p></div>"
    )


def caption(task: TextToVideo) -> str:
    """What has been made, in one line under it."""
    return (
        f'<p class="caption" role="status">{task.frames} frames · {task.seconds:.1f} s · '
        f"{task.width}×{task.height} · {task.steps} steps of {SCHEDULERS[task.scheduler]} · seed {task.seed}</p>"
    )


def failure(message: str) -> str:
    return (
        '<div class="message failed" role="alert"><b>No video this time.</b>'
        f"<p>{escape(message).replace(chr(10), '<br>')}</p></div>"
    )


def stopped(message: str) -> str:
    return f'<div class="message stopped" role="status"><b>{escape(message)}</b> Nothing was made or kept.</div>'


def prompt_hints(prompt: str, card: ModelCard, tokens: tuple[int, str] | None) -> str:
    """What there is to say of a prompt while it is typed: its length, what is cut off, words that are new to `card`."""
    hints = []
    if tokens is not None and prompt.strip():
        count, cut = tokens
        if cut:
            hints.append(
                f'<p class="hint warning">Too long: the model reads the first {TOKENS} tokens of {count}. '
                f"It will not see “{escape(_shorten(cut, 200))}”.</p>"
            )
        else:
            hints.append(f'<p class="hint count">{count} of {TOKENS} tokens</p>')
    if card.vocabulary and (new := unknown_words(prompt, card.vocabulary)):
        named = ", ".join(f"“{escape(_shorten(word, 24))}”" for word in new[:4])
        kinds = "".join(
            f"<li><span>{escape(kind)}</span> {escape(', '.join(words))}</li>"
            for kind, words in card.vocabulary.items()
        )
        hints.append(
            f'<div class="hint kind"><p>{named}{" and more" if len(new) > 4 else ""}: the paper theatre never learned '
            f"{'it' if len(new) == 1 else 'them'}. It will play something all the same.</p>"
            f"<details><summary>The paper theatre knows</summary><ul>{kinds}</ul></details></div>"
        )
    return f'<div class="hints" aria-live="polite">{"".join(hints)}</div>'


def model_card(card: ModelCard, missing: str | None) -> str:
    """What a person should know about a model before using it; `missing` says what is not on this machine yet."""
    badge = (
        f'<p class="badge missing"><b>Not here yet.</b> {escape(missing)}</p>'
        if missing
        else '<p class="badge here"><b>Ready on this machine</b></p>'
    )
    facts = (
        ("Needs", card.needs),
        ("Licence", card.licence),
        ("Limits", card.shortcomings),
        ("Not for", card.not_for),
    )
    rows = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f'<div class="model-card"><p>{escape(card.summary)}</p>{badge}<dl>{rows}</dl></div>'


@dataclass(frozen=True)
class Thumbnail:
    """One example as its card shows it."""

    prompt: str
    expect: str
    still: Path | None  # a picture for those who want no motion
    moving: Path | None


def examples(thumbnails: Sequence[Thumbnail]) -> str:
    cards = "".join(_example(index, thumbnail) for index, thumbnail in enumerate(thumbnails))
    return f'<div class="examples">{cards}</div>'


@dataclass(frozen=True)
class Card:
    """A finished video as the library shows it."""

    job: str
    task: TextToVideo
    model: str  # its title
    ended: float  # seconds since 1970
    poster: Path | None


def making(jobs: Sequence[Job]) -> str:
    """The jobs that wait or run, with how far they are."""
    if not jobs:
        return ""
    rows = "".join(
        f"<li><span><b>{escape(_shorten(job.task.prompt, 90))}</b>"
        f"<small>{escape(describe(job.progress)) if job.progress else 'Getting ready'}</small></span>"
        f'<button type="button" data-job="{job.id}" data-act="stop"{" disabled" if job.stopping else ""}>'
        f"{'Stopping…' if job.stopping else 'Stop'}</button></li>"
        for job in jobs
    )
    return f'<ul class="making" aria-label="Being made">{rows}</ul>'


def shelf(cards: Sequence[Card], searched: bool) -> str:
    """The finished videos, newest first."""
    if not cards:
        what = "No prompt of yours holds these words." if searched else "What you make is kept here."
        return f'<p class="nothing">{what}</p>'
    return f'<div class="shelf">{"".join(map(_on_shelf, cards))}</div>'


def about_video(card: Card) -> str:
    return (
        f"<h3>{escape(card.task.prompt)}</h3>{caption(card.task)}"
        f'<p class="caption">{escape(card.model)} · {_date(card.ended)}</p>'
    )


def _on_shelf(card: Card) -> str:
    picture = f'<img alt="" src="{_data(card.poster)}">' if card.poster else '<span class="no-picture"></span>'
    return (
        f'<button type="button" class="example" data-job="{card.job}" data-act="open">{picture}'
        f"<b>{escape(_shorten(card.task.prompt, 90))}</b>"
        f"<span>{escape(card.model)}<br>{card.task.seconds:.1f} s · {_date(card.ended)}</span></button>"
    )


def _date(seconds: float) -> str:
    return time.strftime("%d %b %Y, %H:%M", time.localtime(seconds))


def rounded(facts: dict) -> dict:
    """The facts as a person wants to read them: seconds and the like to three digits after the point."""
    return json.loads(json.dumps(facts), parse_float=lambda number: round(float(number), 3))


def _example(index: int, thumbnail: Thumbnail) -> str:
    if thumbnail.moving:
        source = (
            f'<source media="(prefers-reduced-motion: reduce)" srcset="{_data(thumbnail.still)}">'
            if thumbnail.still
            else ""
        )
        picture = f'<picture>{source}<img alt="" src="{_data(thumbnail.moving)}"></picture>'
    else:
        picture = f'<span class="no-picture tint-{index % 4}"></span>'
    return (
        f'<button type="button" class="example" data-example="{index}">{picture}'
        f"<b>{escape(thumbnail.prompt)}</b><span>{escape(thumbnail.expect)}</span></button>"
    )


def _data(picture: Path) -> str:
    kind = picture.suffix.lstrip(".").replace("jpg", "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
