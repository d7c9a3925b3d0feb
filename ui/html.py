"""The pieces of the page that are drawn rather than filled in: plain functions from data to HTML.

The file is long because all tabs and the library share these, and their look.
"""

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG, SCHEDULERS
from pipelines.messages import Message, said
from pipelines.readings import Reading, Vocabulary, read
from pipelines.serving.job import Job
from pipelines.tasks import Finish, Grid, Task, Tune
from ui.language_choice import CHOICE
from ui.languages import say, tell
from ui.stream import WAITING, Moment, describe, where_paused
from ui.words import chosen_words, in_english, unknown_words

FIRST_SCENE = say(
    '<p class="playbill-title">Your first prompt is ready</p><p>Press <b>Generate</b> to raise the curtain.</p>'
)
NOT_FOUND = say(
    '<p class="nothing">None of your prompts has these words.<br><button type="button" class="offer"'
    ' data-job="" data-act="all">Show all videos</button></p>'
)
NO_FAVOURITES = say('<p class="nothing">No favourites yet. Press the star of a video to keep it here.</p>')
NOTHING_YET = say(
    '<p class="nothing">Your videos appear here.<br><button type="button" class="offer" data-job="" '
    'data-act="begin">Make your first video</button></p>'
)
_CARD = f'<div class="model-card"><p>{{}}</p>{{}}<dl>{"<dt>{}</dt><dd>{}</dd>" * 4}</dl></div>'
LAMPS = 24
MONTHS = (
    *(said("Jan"), said("Feb"), said("Mar"), said("Apr"), said("May"), said("Jun")),
    *(said("Jul"), said("Aug"), said("Sep"), said("Oct"), said("Nov"), said("Dec")),
)
# A template: its texts are the lines of HEADLINES, in the reader's language.
HEADER = r"""
<header class="masthead">
  <svg viewBox="0 0 40 40" width="40" height="40" aria-hidden="true">
    <g fill="none" stroke="currentColor" stroke-width="1.2" stroke-linecap="round" stroke-linejoin="round">
      <path d="M8 5.5 32 8.5M20.4 3.5 19.6 10.5" stroke-width="2.4"/>
      <path d="M9 5.8 10 21M31 8.4 30 18M20 8v7" opacity=".75"/>
      <path d="M10 21 20 22.5 30 18M20 22v7M20 29l-5 8M20 29l6 7" stroke-width="2.4"/>
    </g>
    <circle cx="20" cy="17.5" r="3.6" fill="currentColor"/>
  </svg>
  <div><h1>Marionette</h1><p>${value.split(/\n/)[0]}</p></div>
  LANGUAGES
</header>
<div class="drop-hint" hidden>${value.split(/\n/)[1]}</div>
""".replace("LANGUAGES", CHOICE)
HEADLINES = say("Write one line. Watch it come to life.\nDrop a video made here to restore its settings.")


def scene(state: str, moment: Moment | None = None) -> str:
    """What stands on the stage in the state "closed", "open" (the video shows) or "working"."""
    preview = moment.preview if moment else None
    if state == "closed":
        inside = f'<div class="playbill">{FIRST_SCENE}</div>'
    elif preview:
        data = base64.b64encode(preview.image).decode()
        alt = tell("The video as it forms")
        inside = f'<img class="forming" alt="{alt}" src="data:image/webp;base64,{data}">'
    else:
        inside = '<div class="spotlight"></div>'
    return (
        f'<div class="scene {state}"><div class="backdrop">{inside if state == "working" else ""}</div>'
        '<div class="curtain left"></div><div class="curtain right"></div><div class="valance"></div>'
        f"{inside if state == 'closed' else ''}</div>"
    )


def footlights(moment: Moment) -> str:
    """The row of lamps that lights up as all the jobs go on, and a line that says how far they are."""
    progress = moment.progress
    going = progress is not None and progress.stage != WAITING and progress.total > 0
    fraction = min(progress.step / progress.total, 1) if progress is not None and going else 0
    if progress is not None and progress.done is not None:
        fraction = progress.done
    number, total = moment.of
    fraction = (number - 1 + fraction) / total
    which = f"{tell('{number} of {total}', number=number, total=total)} · " if total > 1 else ""
    told = describe(progress) if progress else tell("Getting ready")
    if moment.paused:
        told = where_paused(progress)
    lamps = "".join(f'<i class="{"lit" if lamp < round(fraction * LAMPS) else "unlit"}"></i>' for lamp in range(LAMPS))
    return (
        f'<div class="footlights"><div class="lamps" role="progressbar" aria-label="{tell("Progress")}" '
        f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{100 * fraction:.0f}">{lamps}</div>'
        f"<p>{which}{escape(told)}</p></div>"
    )


def caption(task: Task) -> str:
    """What has been made, in one line under it."""
    if isinstance(task, Finish):
        told = tell("Finished: {what}", what=finished(task))
        return f'<p class="caption" role="status">{told}</p>'
    if isinstance(task, Grid):
        seeds = ", ".join(map(str, task.seeds))
        rows = tell("1 row of prompts")
        if len(task.prompts) > 1:
            rows = tell("{count} rows of prompts", count=len(task.prompts))
        told = tell(
            "A grid of {count} videos · {rows} · columns of the seeds {seeds}",
            count=len(task.jobs),
            rows=rows,
            seeds=seeds,
        )
        return f'<p class="caption" role="status">{told}</p>'
    assert not isinstance(task, Tune), "a tuning makes no video"
    told = tell(
        "{frames} frames · {seconds:.1f} s · {width}×{height} · {steps} steps of {sampler} · seed {seed}",
        **{name: getattr(task, name) for name in ("frames", "seconds", "width", "height", "steps", "seed")},
        sampler=SCHEDULERS[task.scheduler],
    )
    return f'<p class="caption" role="status">{told}</p>'


def finished(task: Finish) -> str:
    """What `task` makes, in a few words."""
    assert task.of is not None, "the page finishes only what was made here"
    frames, width, height, fps = task.shape(task.of.frames, task.of.width, task.of.height, task.of.fps)
    told = tell(
        "{frames} frames · {fps:.4g} a second · {width}×{height}", frames=frames, fps=fps, width=width, height=height
    )
    shares = {2: said("every other frame interpolated"), 4: said("three of four frames interpolated")}
    return f"{told} · {tell(shares[task.interpolate])}" if task.interpolate in shares else told


def failure(message: str, head: str = said("No video this time.")) -> str:
    told = escape(tell(message)).replace("\n", "<br>")
    return f'<div class="message failed" role="alert"><b>{tell(head)}</b><p>{told}</p></div>'


def stopped(message: str, what: str = said("That video was not made.")) -> str:
    return f'<div class="message stopped" role="status"><b>{escape(tell(message))}</b> {tell(what)}</div>'


def prompt_hints(prompt: str, card: ModelCard, tokens: tuple[int, str] | None) -> str:
    """What there is to say of a prompt while it is typed: its length, what is cut off, words that are new to `card`."""
    hints = []
    if tokens is not None and prompt.strip():
        count, cut = tokens
        if cut:
            told = tell(
                "Too long: the model reads the first {most} tokens of {count}. It will not see “{rest}”.",
                most=card.max_tokens,
                count=count,
                rest=escape(shorten(cut, 200)),
            )
            hints.append(f'<p class="hint warning">{told}</p>')
        else:
            told = tell("{count} of {most} tokens", count=count, most=card.max_tokens)
            hints.append(f'<p class="hint count">{told}</p>')
    reading = read(prompt, card.vocabulary)
    if reading is not None:
        told = tell("Read as: {prompt}", prompt=reading.text)
        hints.append(f'<p class="hint">{told}</p>')
    if card.vocabulary and (new := _new_words(prompt, reading, card.vocabulary)):
        named = ", ".join(f"“{escape(shorten(word, 24))}”" for word in new[:4])
        if len(new) == 1:
            told = tell(
                "{words}: the paper theatre never learned it. It will play something all the same.", words=named
            )
        elif len(new) <= 4:
            told = tell(
                "{words}: the paper theatre never learned them. It will play something all the same.", words=named
            )
        else:
            told = tell(
                "{words} and more: the paper theatre never learned them. It will play something all the same.",
                words=named,
            )
        kinds = "".join(
            f"<li><span>{escape(tell(kind))}</span> {escape(tell(', ').join(map(tell, words)))}</li>"
            for kind, words in card.vocabulary.items()
        )
        hints.append(
            f'<div class="hint kind"><p>{told}</p>'
            f"<details><summary>{tell('The paper theatre knows')}</summary><ul>{kinds}</ul></details></div>"
        )
    return f'<div class="hints" aria-live="polite">{"".join(hints)}</div>'


def _new_words(prompt: str, reading: Reading | None, vocabulary: Vocabulary) -> Sequence[str]:
    return reading.unknown if reading is not None else unknown_words(prompt, vocabulary)


def model_card(card: ModelCard, missing: str | None) -> str:
    """What a person should know about a model before using it; `missing` says what is not on this machine yet."""
    badge = say('<p class="badge here"><b>Ready</b></p>')
    if missing:
        badge = say(
            '<p class="badge missing"><b>Not downloaded.</b> {}</p>',
            missing if isinstance(missing, Message) else escape(missing),
        )
    texts = (card.summary, card.needs, card.licence, card.shortcomings, card.not_for)
    summary, *facts = (say(escape(text, quote=False)) for text in texts)
    names = (say("Needs"), say("Licence"), say("Limits"), say("Not for"))
    rows = [part for row in zip(names, facts, strict=True) for part in row]
    return str(say(_CARD, summary, badge, *rows))


@dataclass(frozen=True)
class Thumbnail:
    """One example as its card shows it."""

    prompt: str
    expect: str
    still: str | None = None  # where a browser finds a picture for those who want no motion
    moving: str | None = None


def part(index: int) -> str:
    """In a template: this one of the texts with | between them that are its value, in the reader's language."""
    return f"${{value.split(/\\|/)[{index}]}}"


def examples(thumbnails: Sequence[Thumbnail]) -> str:
    cards = "".join(_example(index, thumbnail) for index, thumbnail in enumerate(thumbnails))
    return f'<div class="examples">{cards}</div>'


@dataclass(frozen=True)
class Card:
    """A finished video as the library shows it."""

    job: str
    task: Task  # as it came out
    model: str  # its title
    ended: float  # seconds since 1970
    poster: Path | None
    film: str | None = None  # where the web server finds it
    told: str = ""  # what tells it from others like it
    compared: bool = False
    picked: bool = False
    favourite: bool = False


def making(jobs: Sequence[Job], movable: bool = False) -> str:
    """The jobs that have not ended, with how far they are; where `movable`, those that wait can change places."""
    if not jobs:
        return ""
    waiting = [job for job in jobs if job.waits] if movable else []
    head = f'<p class="caption">{tell("{count} waiting", count=len(waiting))}</p>' if waiting else ""
    rows = "".join(_made_now(job, waiting) for job in jobs)
    return f'{head}<ul class="making" aria-label="{tell("Being made")}">{rows}</ul>'


def _made_now(job: Job, movable: Sequence[Job]) -> str:
    prompt = escape(shorten(job.task.prompt, 90))

    def button(act: str, name: str, shown: str, disabled: bool) -> str:
        return (
            f'<button type="button" data-job="{job.id}" data-act="{act}" aria-label="{name}: {prompt}"'
            f"{' disabled' if disabled else ''}>{shown}</button>"
        )

    buttons = ""
    if job in movable:
        buttons += button("up", tell("Move up"), "↑", movable[0] is job)
        buttons += button("down", tell("Move down"), "↓", movable[-1] is job)
    if job.paused:
        buttons += button("resume", resume := tell("Resume"), resume, False)
    else:
        buttons += button("pause", pause := tell("Pausing…") if job.pausing else tell("Pause"), pause, job.pausing)
    stop = tell("Stopping…") if job.stopping else tell("Remove") if job in movable or job.paused else tell("Stop")
    buttons += button("stop", stop, stop, job.stopping)
    told = describe(job.progress) if job.progress else tell("Getting ready")
    if job.paused:
        told = where_paused(job.progress)
    return f"<li><span><b>{prompt}</b><small>{escape(told)}</small></span>{buttons}</li>"


def chips(prompt: str, card: ModelCard) -> str:
    """The words that a model knows, as buttons that compose a prompt in English; nothing for a model without a
    vocabulary."""
    if card.vocabulary is None:
        return ""
    chosen = chosen_words(in_english(prompt, card.vocabulary), card.vocabulary)
    rows = "".join(  # Tab reaches one of each kind, the arrows the others (ui/media.py)
        f'<div role="group" aria-label="{escape(tell(kind))}">'
        + "".join(
            f'<button type="button" class="chip" data-kind="{escape(kind)}" data-word="{escape(word)}" '
            f'tabindex="{0 if word == chosen.get(kind, words[0]) else -1}" '
            f'aria-pressed="{str(chosen.get(kind) == word).lower()}">{escape(tell(word))}</button>'
            for word in words
        )
        + "</div>"
        for kind, words in card.vocabulary.items()
    )
    return f'<div class="chips">{rows}</div>'


def shelf(cards: Sequence[Card], searched: bool, favourites: bool = False) -> str:
    """The finished videos, newest first: all, those that were `searched` for, or the `favourites`."""
    if not cards:
        return str(NOT_FOUND if searched else NO_FAVOURITES if favourites else NOTHING_YET)
    return f'<div class="shelf">{"".join(map(_on_shelf, cards))}</div>'


def about_video(card: Card) -> str:
    return (
        f"<h3>{escape(card.task.prompt)}</h3>{caption(card.task)}"
        f'<p class="caption">{escape(card.model)} · {_date(card.ended)}</p>'
    )


def title(job: Job) -> str:
    """What made the video of `job`."""
    model = model_title(job.task.model)
    if isinstance(job.task, Finish):
        return tell("{model}, finished", model=model)
    return tell("{model}, a grid", model=model) if isinstance(job.task, Grid) else model


def model_title(name: str) -> str:
    """What a person reads for the model `name`, which may not be in the catalog any more."""
    return tell(CATALOG[name].title) if name in CATALOG else name


def _on_shelf(card: Card) -> str:
    assert not isinstance(card.task, Tune), "a tuning makes no video"
    picture = f'<img alt="" src="{data_of(card.poster)}">' if card.poster else '<span class="no-picture"></span>'
    prompt = escape(shorten(card.task.prompt, 90))
    marks = "".join(
        _mark(card.job, prompt, *mark)
        for mark in (
            ("pick", tell("Select"), "☑" if card.picked else "☐", card.picked),
            ("favour", tell("Favourite"), "★" if card.favourite else "☆", card.favourite),
            ("compare", tell("Compare"), tell("Compare"), card.compared),
        )
    )
    film = f' data-film="{escape(card.film)}"' if card.film else ""
    return (
        f'<div class="on-shelf"{film}><button type="button" class="example" data-job="{card.job}" data-act="open">'
        f'<span class="poster">{picture}</span><b>{prompt}</b><span>{escape(card.told)}<br>{escape(card.model)}<br>'
        f'{card.task.seconds:.1f} s · {_date(card.ended)}</span></button><div class="marks">{marks}</div></div>'
    )


def _mark(job: str, prompt: str, act: str, name: str, shown: str, pressed: bool) -> str:
    return (
        f'<button type="button" class="{act}" data-job="{job}" data-act="{act}" '
        f'aria-pressed="{str(pressed).lower()}" aria-label="{name}: {prompt}" title="{name}">{shown}</button>'
    )


def _date(seconds: float) -> str:
    when = time.localtime(seconds)
    return tell(
        "{day:02d} {month} {year}, {time}",
        day=when.tm_mday,
        month=MONTHS[when.tm_mon - 1],
        year=when.tm_year,
        time=time.strftime("%H:%M", when),
    )


def rounded(facts: dict) -> dict:
    """The facts as a person wants to read them: seconds and the like to three digits after the point."""
    return json.loads(json.dumps(facts), parse_float=lambda number: round(float(number), 3))


def _example(index: int, thumbnail: Thumbnail) -> str:
    if thumbnail.moving:
        picture = calm_picture(thumbnail.moving, "", thumbnail.still or thumbnail.moving)
    else:
        picture = f'<span class="no-picture tint-{index % 4}"></span>'
    return (
        f'<button type="button" class="example" data-example="{index}">{picture}'
        f"<b>{escape(thumbnail.prompt)}</b><span>{escape(thumbnail.expect)}</span></button>"
    )


def moving(picture: bytes, alt: str) -> str:
    """An animated `picture`, WebP or GIF, within the page; for whoever wants less motion its first frame."""
    kind = "gif" if picture.startswith(b"GIF") else "webp"
    return calm_picture(f"data:image/{kind};base64,{base64.b64encode(picture).decode()}", alt, first_frame(picture))


def first_frame(picture: bytes) -> str:
    """That of an animated `picture`, as an address of its own."""
    first = BytesIO()
    Image.open(BytesIO(picture)).convert("RGB").save(first, "PNG")
    return f"data:image/png;base64,{base64.b64encode(first.getvalue()).decode()}"


def calm_picture(source: str, alt: str, still: str) -> str:
    """The picture at `source`, which moves; for whoever wants less motion the one at `still`."""
    return (
        f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">'
        f'<img alt="{escape(alt)}" src="{source}" loading="lazy"></picture>'
    )


def data_of(picture: Path) -> str:
    """The picture as an address of its own."""
    kind = picture.suffix.lstrip(".").replace("jpg", "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"


def shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
