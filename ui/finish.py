"""Finishing: what makes a finished video larger and smoother, one piece for every tab that shows one."""

from collections.abc import Iterator

import gradio as gr
from gradio.i18n import I18nData

from pipelines.events import Failed, Result
from pipelines.serving.backend import Backend
from pipelines.tasks import TIMES, Finish
from ui import forms, html, stream, visitor
from ui.languages import say
from ui.media import player


def piece(backend: Backend, owner: gr.BrowserState, job: gr.State, name: str) -> None:
    """Builds, where it is called, what finishes the video of the job whose id `job` holds. `name` is the piece's own.

    The finished video is shown in place and kept in the library. Where `job` comes to hold one that is being finished
    already, that is followed.
    """
    going = gr.State()  # the job that finishes

    with gr.Accordion(say("Finish: larger and smoother"), open=False, elem_id=name, elem_classes="finish"):
        with gr.Row():
            size = _times(say("Size"), say("How many times as wide and as high"), f"{name}-size")
            smoothness = _times(say("Smoothness"), say("How many frames come of one"), f"{name}-smoothness")
        becomes = gr.HTML(elem_id=f"{name}-becomes")
        start = gr.Button(say("Finish"), variant="primary", elem_id=f"{name}-start")
        stop = gr.Button(say("Stop"), variant="stop", visible=False, elem_id=f"{name}-stop")
        message = gr.HTML(visible=False, elem_id=f"{name}-message")
        line = gr.HTML(elem_id=f"{name}-line")
        with gr.Column(visible=False) as result:
            video = player(say("The finished video"), elem_id=f"{name}-video", elem_classes="finished")
            caption = gr.HTML(elem_id=f"{name}-caption")
            mp4 = gr.DownloadButton(say("Download the finished MP4"), size="md", elem_id=f"{name}-mp4")

    def look(visitor_id: str, identifier: str | None, *choice: object) -> str:
        if not identifier:
            return ""
        try:
            task = forms.finish(backend.jobs.get(identifier, visitor_id), *choice)
            return f'<p class="caption">{html.finished(task)}</p>'
        except ValueError as error:
            return f'<p class="hint warning">{html.escape(str(error))}</p>'

    def idle() -> dict:
        return {line: "", start: gr.Button(visible=True), stop: gr.Button(say("Stop"), visible=False, interactive=True)}

    def watch(identifier: str, visitor_id: str) -> Iterator[dict]:
        yield {
            **{going: identifier, message: gr.HTML(visible=False), result: gr.Column(visible=False)},
            **{
                line: html.footlights(stream.Moment()),
                start: gr.Button(visible=False),
                stop: gr.Button(visible=True),
            },
        }
        for moment in stream.follow(backend, identifier, visitor_id):
            match moment:
                case None:
                    yield {line: gr.skip()}
                case stream.Moment(end=Result(video=path)):
                    made = backend.jobs.get(identifier, visitor_id)
                    film = backend.assets.address(path)
                    yield {
                        **{result: gr.Column(visible=True), video: film, mp4: gr.DownloadButton(value=film)},
                        **{caption: html.caption(made.task), **idle()},
                    }
                case stream.Moment(end=Failed(message=text, stopped=stopped)):
                    card = html.stopped(text) if stopped else html.failure(text)
                    yield {message: gr.HTML(card, visible=True), **idle()}
                case _:
                    yield {line: html.footlights(moment)}

    def run(visitor_id: str, identifier: str | None, *choice: object) -> Iterator[dict]:
        try:
            task = forms.finish(backend.jobs.get(identifier or "", visitor_id), *choice)
            started = backend.jobs.submit(task, visitor_id, visitor.ADDRESS.get())
        except ValueError as error:
            yield {message: gr.HTML(html.failure(str(error)), visible=True)}
            return
        yield from watch(started, visitor_id)

    def arrive(visitor_id: str, identifier: str | None) -> Iterator[dict]:
        """Another video is shown: what was finished before belonged to another one."""
        yield {result: gr.Column(visible=False), video: None, message: gr.HTML(visible=False), **idle()}
        for other in backend.jobs.unfinished(visitor_id):
            if isinstance(other.task, Finish) and other.task.source == identifier:
                yield from watch(other.id, visitor_id)

    def end(visitor_id: str, started: str | None) -> gr.Button:
        if started:
            backend.jobs.cancel(started, visitor_id)
        return gr.Button(say("Stopping…"), interactive=False)

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    following = {"outputs": [going, message, line, result, video, caption, mp4, start, stop], **quiet}
    seen = {"inputs": [owner, job, size, smoothness], "outputs": becomes, "queue": False, **quiet}
    gr.on([job.change, size.input, smoothness.input], look, **seen)
    ran = start.click(run, [owner, job, size, smoothness], **following, concurrency_limit=None)
    came = job.change(arrive, [owner, job], **following, concurrency_limit=None, cancels=ran)
    for followed in (ran, came):  # nobody follows any more: the page must not look as if
        followed.failure(idle, None, [line, start, stop], queue=False, **quiet)
    stop.click(end, [owner, going], stop, queue=False, **quiet)


def _times(label: I18nData, info: I18nData, name: str) -> gr.Radio:
    return gr.Radio([(f"{times}×", times) for times in TIMES], value=2, label=label, info=info, elem_id=name)
