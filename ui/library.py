"""The library tab: what is being made and what has been made, to find, play, take home, make again or delete."""

import time

import gradio as gr

from pipelines.events import Result
from pipelines.serving.backend import Backend
from pipelines.serving.job import Job
from ui import compare, finish, html
from ui.languages import say
from ui.media import CLICKS, export
from ui.player import films, player
from ui.refill import Forms

PAGE = 24  # videos that one look shows; more on demand
KINDS = {"mp4": "Save MP4", "gif": "Save GIF", "webm": "Save WebM"}

_TO_IMAGE = "() => setTimeout(() => document.querySelector('#first-image')?.scrollIntoView({block: 'center'}), 300)"
_TO_CHOSEN = "() => document.querySelector('#chosen')?.scrollIntoView({block: 'nearest'})"


def tab(
    backend: Backend,
    owner: gr.BrowserState,
    this: gr.Tab,
    tabs: gr.Tabs,
    forms: Forms,
    given: dict[str, gr.State],
    begun: gr.State,
) -> gr.UploadButton:
    """Builds the tab `this`, which is open.

    `forms` are where the settings of a video go to be used again, `given` where a video goes as the clip of a tab, and
    `begun` where its first frame goes for a new video to begin with.

    Returns the button that takes a video to restore its settings.
    """
    chosen = gr.State()  # the job that is looked at
    pages = gr.State(1)
    compared = gr.State([])  # the jobs that are looked at side by side
    opened = gr.State(0.0)  # when a video was last chosen

    making = gr.HTML(elem_id="making", js_on_load=CLICKS)
    with gr.Row(elem_id="library-tools"):
        search = gr.Textbox(
            label=say("Search your videos"), placeholder=say("Words of the prompt"), max_lines=1, elem_id="search"
        )
        restore = gr.UploadButton(
            say("Restore settings from a video"), file_types=["video"], size="md", elem_id="restore", scale=0
        )
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
                use_frame = gr.Button(say("Begin a video with its first frame"), elem_id="use-frame")
                with gr.Row(elem_id="library-downloads"):
                    for kind, title in KINDS.items():
                        export(say(title), kind, backend, owner, chosen, f"library-{kind}")
                with gr.Row():
                    delete = gr.Button(say("Delete"), size="md", elem_id="delete")
                    really = gr.Button(say("Really delete"), size="md", variant="stop", visible=False, elem_id="really")
                finish.Finishing(backend, owner, chosen, "finish-chosen")
                with gr.Accordion(say("How it was made"), open=False, elem_id="chosen-facts"):
                    facts = gr.JSON(show_label=False, container=False)
    compare.panel(backend, owner, compared)
    shelf = gr.HTML(elem_id="shelf", js_on_load=CLICKS)
    more = gr.Button(say("Show more"), visible=False, elem_id="more")
    timer = gr.Timer(2.0, active=False)

    def look(visitor_id: str, words: str, number: int, together: list[str]) -> dict:
        """What there is now: the jobs that wait or run, and the newest videos."""
        found = backend.jobs.finished(visitor_id, words, limit=number * PAGE + 1)
        cards = [_card(job, visitor_id) for job in found[: number * PAGE]]
        return {
            making: html.making(backend.jobs.unfinished(visitor_id)),
            shelf: html.shelf(cards, searched=bool(words.strip()), compared=together),
            more: gr.Button(visible=len(found) > number * PAGE),
        }

    def _card(job: Job, visitor_id: str) -> html.Card:
        try:
            poster = backend.jobs.poster(job.id, visitor_id)
        except (ValueError, OSError):  # deleted by hand, or damaged: it can still be deleted here
            poster = None
        return html.Card(job.id, job.task, html.title(job), job.ended, poster)

    def act(visitor_id: str, together: list[str], event: gr.EventData) -> dict:
        if event.act == "begin":
            return {tabs: gr.Tabs(selected="text-to-video")}
        if event.act == "all":
            return {search: ""}
        if event.act == "stop":
            backend.jobs.cancel(event.job, visitor_id)
            return {chosen: gr.skip()}
        job = backend.jobs.get(event.job, visitor_id)
        if not isinstance(job.end, Result):
            return {chosen: gr.skip()}
        if event.act == "compare":
            return {compared: compare.toggled(together, job.id)}
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

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    seen = {"fn": look, "inputs": [owner, search, pages, compared], "outputs": [making, shelf, more], **quiet}
    this.select(lambda: gr.Timer(active=True), None, timer, **quiet).then(**seen)
    timer.tick(**seen)
    search.change(lambda: 1, None, pages, **quiet).then(**seen)
    more.click(lambda number: number + 1, pages, pages, **quiet).then(**seen)
    compared.change(**seen)
    acted = [chosen, opened, panel, video, about, facts, really, compared, tabs, search]
    gr.on([shelf.click, making.click], act, [owner, compared], acted, **quiet).then(**seen)
    opened.change(None, js=_TO_CHOSEN)
    use.click(use_settings, [owner, chosen], forms.controls, **quiet)
    for tab_id, button in as_clip.items():
        button.click(
            lambda *values, tab_id=tab_id: use_as_clip(tab_id, *values),
            [owner, chosen],
            [given[tab_id], tabs],
            **quiet,
        )
    use_frame.click(use_first_frame, [owner, chosen], [begun, tabs], **quiet).success(None, js=_TO_IMAGE)
    delete.click(lambda: gr.Button(visible=True), None, really, **quiet)
    really.click(remove, [owner, chosen, compared], [chosen, panel, video, compared], **quiet).then(**seen)
    return restore
