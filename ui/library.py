"""The library tab: what is being made and what has been made, to find, play, take home, make again or delete."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import gradio as gr

from pipelines.events import Result
from pipelines.serving.backend import Backend
from pipelines.serving.job import Job
from pipelines.tasks import Grid
from ui import bundle, compare, finish, html
from ui.follower import QUIET, act_on_job
from ui.languages import say, tell
from ui.media import CLICKS, export, scroll_to
from ui.player import films, player
from ui.refill import Forms
from ui.text_to_video import TO_PROMPT

PAGE = 24  # videos that one look shows; more on demand
KINDS = {"mp4": "Save MP4", "gif": "Save GIF", "webm": "Save WebM"}

_TO_IMAGE = "() => setTimeout(() => document.querySelector('#first-image')?.scrollIntoView({block: 'center'}), 300)"
_SAVE = """address => {
  const link = document.createElement('a');
  Object.assign(link, {href: (window.gradio_config?.root ?? '') + address, download: ''});
  document.body.append(link);
  link.click();
  link.remove();
}"""
_COPY = """() => {
  const address = document.querySelector('#chosen-video video')?.src;
  if (window.isSecureContext) navigator.clipboard.writeText(address); else window.prompt('', address);
}"""
_TO_CHOSEN = scroll_to("#chosen")


def tab(
    backend: Backend,
    owner: gr.BrowserState,
    this: gr.Tab,
    tabs: gr.Tabs,
    forms: Forms,
    given: dict[str, gr.State],
    begun: gr.State,
    is_open: bool,
) -> tuple[gr.UploadButton, finish.Finishing]:
    """Builds the tab `this`, which is open.

    `forms` are where the settings of a video go to be used again, `given` where a video goes as the clip of a tab, and
    `begun` where its first frame goes for a new video to begin with. Where the app `is_open` to everybody, a video has
    a link to share.

    Returns the button that takes a video to restore its settings, and what finishes the chosen video.
    """
    chosen = gr.State()  # the job that is looked at
    pages = gr.State(1)
    compared = gr.State([])  # the jobs that are looked at side by side
    picked = gr.State([])  # the jobs that are deleted or saved together
    opened = gr.State(0.0)  # when a video was last chosen

    making = gr.HTML(elem_id="making", js_on_load=CLICKS)
    with gr.Row(elem_id="library-tools"):
        search = gr.Textbox(
            label=say("Search your videos"), placeholder=say("Words of the prompt"), max_lines=1, elem_id="search"
        )
        favourites = gr.Checkbox(label=say("Favourites only"), container=False, elem_id="favourites")
        restore = gr.UploadButton(
            say("Restore settings from a video"), file_types=["video"], size="md", elem_id="restore", scale=0
        )
    with gr.Row(visible=False, elem_id="picked") as together_bar:
        count = gr.HTML(elem_id="picked-count")
        save_all = gr.Button(say("Download as ZIP"), size="md", elem_id="picked-zip")
        delete_all = gr.Button(say("Delete these"), size="md", elem_id="picked-delete")
        really_all = gr.Button(
            say("Really delete these"), size="md", variant="stop", visible=False, elem_id="picked-really"
        )
        release = gr.Button(say("Select none"), size="md", elem_id="picked-none")
        archive = gr.HTML(elem_id="picked-address", elem_classes="unseen")  # where the ZIP file is
    with gr.Column(visible=False, elem_id="chosen") as panel:
        with gr.Row():
            video = player(say("The chosen video"), elem_id="chosen-video")
            with gr.Column():
                about = gr.HTML(elem_id="chosen-about")
                use = gr.Button(say("Use these settings"), variant="primary", elem_id="use-settings")
                with gr.Row():
                    as_clip = {
                        "edit-clip": gr.Button(say("Use as input clip"), min_width=120, elem_id="use-clip"),
                        "pose-to-video": gr.Button(say("Follow its poses"), min_width=120, elem_id="use-poses"),
                    }
                use_frame = gr.Button(say("Use as first image"), elem_id="use-frame")
                with gr.Row(elem_id="library-downloads"):
                    for kind, title in KINDS.items():
                        export(say(title), kind, backend, owner, chosen, f"library-{kind}")
                share = gr.Button(say("Copy a link to share"), size="md", visible=is_open, elem_id="share")
                with gr.Row():
                    delete = gr.Button(say("Delete"), size="md", elem_id="delete")
                    really = gr.Button(
                        say("Delete for good"), size="md", variant="stop", visible=False, elem_id="really"
                    )
                finishing = finish.Finishing(backend, owner, chosen, "finish-chosen")
                with gr.Accordion(say("How it was made"), open=False, elem_id="chosen-facts"):
                    facts = gr.JSON(show_label=False, container=False)
    compare.panel(backend, owner, compared)
    shelf = gr.HTML(elem_id="shelf", js_on_load=CLICKS)
    more = gr.Button(say("Show more"), visible=False, elem_id="more")
    timer = gr.Timer(2.0, active=False)

    def look(visitor_id: str, words: str, liked: bool, number: int, together: list[str], selected: list[str]) -> dict:
        """What there is now: the jobs that have not ended, and the newest videos."""
        found = backend.jobs.finished(visitor_id, words, limit=number * PAGE + 1, favourites=bool(liked))
        return {
            making: html.making(backend.jobs.unfinished(visitor_id)),
            shelf: html.shelf(
                _cards(found[: number * PAGE], visitor_id, together, selected), bool(words.strip()), bool(liked)
            ),
            more: gr.Button(visible=len(found) > number * PAGE),
        }

    def _cards(
        jobs: Sequence[Job], visitor_id: str, together: Sequence[str], selected: Sequence[str]
    ) -> list[html.Card]:
        laid = (*backend.jobs.finished(visitor_id, limit=PAGE, kind="grid"), *backend.jobs.unfinished(visitor_id))
        grids = [job.task for job in laid if isinstance(job.task, Grid)]
        places = {
            job: tell("{number} of {total}", number=at, total=len(grid.jobs))
            for grid in grids
            for at, job in enumerate(grid.jobs, 1)
        }
        cards = []
        for job, apart in zip(jobs, compare.apart([job.task for job in jobs]), strict=True):
            told = " · ".join(filter(None, (places.get(job.id), apart)))
            marks = job.id in together, job.id in selected, job.favourite
            cards.append(_card(job, visitor_id, backend.assets.address(job.result.video), told, *marks))
        return cards

    def _card(job: Job, visitor_id: str, *rest: Any) -> html.Card:
        try:
            poster = backend.jobs.poster(job.id, visitor_id)
        except (ValueError, OSError):  # deleted by hand, or damaged: it can still be deleted here
            poster = None
        return html.Card(job.id, job.task, html.title(job), job.ended or 0.0, poster, *rest)

    def act(visitor_id: str, together: list[str], selected: list[str], event: gr.EventData) -> dict:
        if event.act == "begin":
            return {tabs: gr.Tabs(selected="text-to-video")}
        if event.act == "all":
            return {search: "", favourites: False}
        if act_on_job(backend, visitor_id, event):
            return {chosen: gr.skip()}
        job = backend.jobs.get(event.job, visitor_id)
        if not isinstance(job.end, Result):
            return {chosen: gr.skip()}
        if event.act == "compare":
            return {compared: compare.toggled(together, job.id)}
        if event.act == "favour":
            backend.jobs.favour(job.id, visitor_id, not job.favourite)
            return {chosen: gr.skip()}
        if event.act == "pick":
            return {picked: _picked(selected, job.id)}
        return {
            **{chosen: job.id, opened: time.time()},
            panel: gr.Column(visible=True),
            video: films(backend.assets.address(job.end.video)),
            about: html.about_video(_card(job, visitor_id)),
            facts: html.rounded(job.end.facts),
            really: gr.Button(visible=False),
        }

    def use_settings(visitor_id: str, identifier: str) -> dict:
        return forms.fill(backend.jobs.get(identifier, visitor_id).task.checked())

    def use_as_clip(tab_id: str, visitor_id: str, identifier: str) -> dict:
        path = backend.jobs.export(identifier, visitor_id, "mp4")
        return {given[tab_id]: (str(path), time.time()), tabs: gr.Tabs(selected=tab_id)}

    def use_first_frame(visitor_id: str, identifier: str) -> dict:
        name = backend.assets.keep_frame(identifier, visitor_id)
        return {begun: (name, time.time()), tabs: gr.Tabs(selected="text-to-video")}

    def remove(visitor_id: str, identifier: str, together: list[str]) -> dict:
        backend.jobs.delete(identifier, visitor_id)
        rest = [one for one in together if one != identifier]
        return {chosen: None, panel: gr.Column(visible=False), video: films(), compared: rest}

    def show_picked(selected: list[str]) -> dict:
        told = f'<p class="caption" role="status">{tell("{count} selected", count=len(selected))}</p>'
        return {together_bar: gr.Row(visible=bool(selected)), count: told, really_all: gr.Button(visible=False)}

    def save_picked(visitor_id: str, selected: list[str]) -> str:
        exports = (backend.jobs.export(one, visitor_id, "mp4") for one in selected[: bundle.MOST])
        return bundle.address([address for film in exports if (address := backend.assets.address(film)) is not None])

    def remove_picked(visitor_id: str, identifier: str | None, together: list[str], selected: list[str]) -> dict:
        for one in selected:
            with suppress(ValueError):  # deleted in another tab, or of somebody else
                backend.jobs.delete(one, visitor_id)
        updates = {picked: [], compared: [one for one in together if one not in selected]}
        closed = {chosen: None, panel: gr.Column(visible=False), video: films()}
        return updates | closed if identifier in selected else updates

    seen = {"fn": look, "outputs": [making, shelf, more], **QUIET}
    seen["inputs"] = [owner, search, favourites, pages, compared, picked]
    this.select(lambda: gr.Timer(active=True), None, timer, **QUIET).then(**seen)
    timer.tick(**seen)
    # What is not shown any more is not selected: nobody deletes what they don't see.
    gr.on([search.change, favourites.change], lambda: (1, []), None, [pages, picked], **QUIET).then(**seen)
    more.click(lambda number: number + 1, pages, pages, **QUIET).then(**seen)
    compared.change(**seen)
    picked.change(show_picked, picked, [together_bar, count, really_all], **QUIET).then(**seen)
    acted = [chosen, opened, panel, video, about, facts, really, compared, tabs, search]
    acted += [favourites, picked]
    gr.on([shelf.click, making.click], act, [owner, compared, picked], acted, **QUIET).then(**seen)
    opened.change(None, js=_TO_CHOSEN)
    use.click(use_settings, [owner, chosen], forms.controls, **QUIET).success(None, js=TO_PROMPT)
    for tab_id, button in as_clip.items():
        button.click(
            lambda *values, tab_id=tab_id: use_as_clip(tab_id, *values),
            [owner, chosen],
            [given[tab_id], tabs],
            **QUIET,
        )
    use_frame.click(use_first_frame, [owner, chosen], [begun, tabs], **QUIET).success(None, js=_TO_IMAGE)
    delete.click(lambda: gr.Button(visible=True), None, really, **QUIET)
    really.click(remove, [owner, chosen, compared], [chosen, panel, video, compared], **QUIET).then(**seen)
    save_all.click(save_picked, [owner, picked], archive, **QUIET).success(None, archive, js=_SAVE)
    delete_all.click(lambda: gr.Button(visible=True), None, really_all, **QUIET)
    gone = [picked, compared, chosen, panel, video]
    really_all.click(remove_picked, [owner, chosen, compared, picked], gone, **QUIET).then(**seen)
    release.click(list, None, picked, **QUIET)
    share.click(_copied, js=_COPY, **QUIET)
    return restore, finishing


def _picked(selected: Sequence[str], job: str) -> list[str]:
    """`selected` without `job`, or with it where there is room."""
    if job in selected:
        return [one for one in selected if one != job]
    if len(selected) >= bundle.MOST:
        gr.Warning(tell("{most} videos can be selected at once.", most=bundle.MOST), title=tell("Note"))
        return list(selected)
    return [*selected, job]


def _copied() -> None:
    gr.Success(tell("Whoever has the link can watch this video until it is deleted."), title=tell("The link is copied"))
