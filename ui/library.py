"""The library tab: what is being made and what has been made, to find, play, take home, make again or delete."""

import gradio as gr

from pipelines.backend import Backend
from pipelines.catalog import CATALOG
from pipelines.events import Result
from pipelines.jobs import Job
from ui import pieces
from ui.text_to_video import Form, player

PAGE = 24  # videos that one look shows; more on demand
KINDS = ("mp4", "gif", "webm")

# A click on a video or on a Stop button tells which job and what to do.
_CLICKS = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-job]');
  if (button) trigger('click', {job: button.dataset.job, act: button.dataset.act});
});
"""
_TO_CHOSEN = "() => document.querySelector('#chosen')?.scrollIntoView({block: 'nearest'})"
_SAVE = "file => { if (file) setTimeout(() => document.querySelector('#library-file').click()) }"


def tab(backend: Backend, owner: gr.BrowserState, this: gr.Tab, tabs: gr.Tabs, form: Form) -> None:
    """Builds the tab `this`, which is open. `form` is where the settings of a video go to be used again."""
    chosen = gr.State()  # the job that is looked at
    pages = gr.State(1)

    making = gr.HTML(elem_id="making", js_on_load=_CLICKS)
    search = gr.Textbox(
        label="Search your videos", placeholder="Words of the prompt", max_lines=1, elem_id="search", scale=0
    )
    with gr.Column(visible=False, elem_id="chosen") as panel:
        with gr.Row():
            video = player("The chosen video", elem_id="chosen-video")
            with gr.Column():
                about = gr.HTML(elem_id="chosen-about")
                message = gr.HTML(visible=False)
                use = gr.Button("Use these settings", variant="primary", elem_id="use-settings")
                with gr.Row(elem_id="library-downloads"):
                    downloads = [gr.Button(kind.upper(), size="md", elem_id=f"library-{kind}") for kind in KINDS]
                file = gr.DownloadButton(elem_id="library-file")  # never seen: it saves what the others made
                with gr.Row():
                    delete = gr.Button("Delete", size="md", elem_id="delete")
                    really = gr.Button("Really delete", size="md", variant="stop", visible=False, elem_id="really")
                with gr.Accordion("How it was made", open=False):
                    facts = gr.JSON(show_label=False, container=False)
    shelf = gr.HTML(elem_id="shelf", js_on_load=_CLICKS)
    more = gr.Button("Show more", visible=False, elem_id="more")
    timer = gr.Timer(2.0, active=False)

    def look(visitor_id: str, words: str, number: int) -> dict:
        """What there is now: the jobs that wait or run, and the newest videos."""
        found = backend.finished(visitor_id, words, limit=number * PAGE + 1)
        cards = [_card(job) for job in found[: number * PAGE]]
        return {
            making: pieces.making(backend.unfinished(visitor_id)),
            shelf: pieces.shelf(cards, searched=bool(words.strip())),
            more: gr.Button(visible=len(found) > number * PAGE),
        }

    def _card(job: Job) -> pieces.Card:
        try:
            poster = backend.poster(job.id, job.owner)
        except (ValueError, OSError):  # deleted by hand, or damaged: it can still be deleted here
            poster = None
        return pieces.Card(job.id, job.task, _title(job), job.ended, poster)

    def act(visitor_id: str, event: gr.EventData) -> dict:
        try:
            if event.act == "stop":
                backend.cancel(event.job, visitor_id)
                return {chosen: gr.skip()}
            job = backend.get(event.job, visitor_id)
        except ValueError as error:
            return {message: gr.HTML(pieces.failure(str(error)), visible=True)}
        if not isinstance(job.end, Result):
            return {chosen: gr.skip()}
        return {
            chosen: job.id,
            panel: gr.Column(visible=True),
            video: str(job.end.video) if job.end.video.exists() else None,
            about: pieces.about_video(_card(job)),
            facts: pieces.rounded(job.end.facts),
            really: gr.Button(visible=False),
            message: gr.HTML(visible=False),
        }

    def use_settings(visitor_id: str, identifier: str) -> dict:
        try:
            task = backend.get(identifier, visitor_id).task.checked()
        except ValueError as error:
            return {message: gr.HTML(pieces.failure(str(error)), visible=True)}
        return form.fill(task) | {tabs: gr.Tabs(selected="text-to-video")}

    def download(kind: str, visitor_id: str, identifier: str) -> dict:
        try:
            return {file: str(backend.export(identifier, visitor_id, kind))}
        except (ValueError, OSError) as error:
            return {file: None, message: gr.HTML(pieces.failure(str(error)), visible=True)}

    def remove(visitor_id: str, identifier: str) -> dict:
        try:
            backend.delete(identifier, visitor_id)
        except ValueError as error:
            return {message: gr.HTML(pieces.failure(str(error)), visible=True)}
        return {chosen: None, panel: gr.Column(visible=False), video: None}

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    seen = {"fn": look, "inputs": [owner, search, pages], "outputs": [making, shelf, more], **quiet}
    this.select(lambda: gr.Timer(active=True), None, timer, **quiet).then(**seen)
    timer.tick(**seen)
    search.change(lambda: 1, None, pages, **quiet).then(**seen)
    more.click(lambda number: number + 1, pages, pages, **quiet).then(**seen)
    opened = [chosen, panel, video, about, facts, really, message]
    gr.on([shelf.click, making.click], act, owner, opened, **quiet).then(**seen).then(None, js=_TO_CHOSEN)
    use.click(use_settings, [owner, chosen], [*form.controls, tabs, message], **quiet)
    for kind, button in zip(KINDS, downloads, strict=True):
        button.click(
            lambda visitor_id, identifier, kind=kind: download(kind, visitor_id, identifier),
            [owner, chosen],
            [file, message],
            show_progress_on=button,
            api_visibility="private",
            concurrency_limit=4,
        ).then(None, file, js=_SAVE)
    delete.click(lambda: gr.Button(visible=True), None, really, **quiet)
    really.click(remove, [owner, chosen], [chosen, panel, video, message], **quiet).then(**seen)


def _title(job: Job) -> str:
    return CATALOG[job.task.model].title if job.task.model in CATALOG else job.task.model
