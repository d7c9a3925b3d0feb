"""Finishing: what makes a finished video larger and smoother, one piece for every tab that shows one."""

import gradio as gr

from pipelines.serving.backend import Backend
from pipelines.serving.job import Job
from pipelines.tasks import Finish
from ui import controls, forms, html, visitor
from ui.follower import QUIET, Hold, Stage, View, ends, forgets, halting
from ui.informing import INFORMING
from ui.languages import say, tell
from ui.player import films, player


class Finishing(Stage):
    """What finishes the video of the job whose id `source` holds. `name` is the piece's own.

    The finished video is shown in place and kept in the library.
    """

    KINDS = (Finish,)

    def __init__(self, backend: Backend, owner: gr.BrowserState, source: gr.State, name: str):
        """Builds itself where it is called."""
        super().__init__(backend, owner, source)
        with gr.Accordion(say("Finish: larger and smoother"), open=False, elem_id=name, elem_classes="finish"):
            with gr.Row():
                self.size, self.smoothness = (
                    controls.control(Finish, setting, value=2, elem_id=f"{name}-{elem_id}")
                    for setting, elem_id in (("upscale", "size"), ("interpolate", "smoothness"))
                )
            self.becomes = gr.HTML(elem_id=f"{name}-becomes")
            self.problem = gr.HTML(visible=False, elem_id=f"{name}-problem")
            self.start = gr.Button(say("Finish"), variant="primary", elem_id=f"{name}-start")
            self.hold = Hold(name)
            self.halt = gr.Button(say("Stop"), variant="stop", visible=False, elem_id=f"{name}-stop")
            self.message = gr.HTML(visible=False, elem_id=f"{name}-message")
            self.line = gr.HTML(elem_id=f"{name}-line")
            with gr.Column(visible=False) as self.result:
                self.video = player(say("The finished video"), elem_id=f"{name}-video", elem_classes="finished")
                self.caption = gr.HTML(elem_id=f"{name}-caption")
                self.mp4 = gr.DownloadButton(say("Download the finished MP4"), size="md", elem_id=f"{name}-mp4")
        choice = [owner, source, self.size, self.smoothness]
        changes = [source.change, self.size.input, self.smoothness.input]
        forgets(self.problem, *changes)
        gr.on(changes, self.look, choice, self.becomes, **INFORMING)
        following = {"outputs": [self.problem, *self.all_outputs], "concurrency_limit": None, **QUIET}
        self.start.click(self.press, [*self.asked, self.size, self.smoothness], **following)
        source.change(self.arrive, [owner, source], **following)
        self.connect(self.halt, self.hold)

    def look(self, visitor_id: str, source: str | None, *choice: object) -> str:
        """What would come of it."""
        told = ""
        if source:
            try:
                job = self.backend.jobs.get(source, visitor_id)
                task = forms.finish(job, *choice)
                of = job.made.of if isinstance(job.made, Finish) else job.made
                told = f'<p class="caption">{html.finished(task.of_made(of))}</p>'
            except ValueError as error:
                told = f'<p class="hint warning">{html.escape(tell(str(error)))}</p>'
        return told

    def belongs(self, job: Job, visitor_id: str, source: object = None) -> bool:
        return isinstance(job.task, Finish) and job.task.source == self._origin(source, visitor_id)

    def _origin(self, source: object, visitor_id: str) -> object:
        """The video that `source` is finished from: itself, or what it was finished from."""
        try:
            task = self.backend.jobs.get(str(source), visitor_id).task
        except ValueError:  # deleted meanwhile
            return None
        return task.source if isinstance(task, Finish) else source

    @property
    def outputs(self) -> list[gr.components.Component]:
        buttons = self.mp4, self.start, self.halt, *self.hold.buttons
        return [self.message, self.line, self.result, self.video, self.caption, *buttons]

    def state(self, view: View) -> dict:
        made, going = view.shown, bool(view.going)
        film = self.backend.assets.address(made.result.video) if made else None
        return {
            **ends(self.message, view),
            self.line: html.footlights(view.moment) if view.unfinished else "",
            self.result: gr.Column(visible=made is not None and not going),
            self.video: films(film),
            self.caption: html.caption(made.made) if made else "",
            self.mp4: gr.DownloadButton(value=film),
            self.start: gr.Button(visible=not going),
            self.halt: halting(view),
            **self.hold.state(view),
        }

    def press(self, visitor_id: str, followed: object, shown: object, source: str | None, *choice: object) -> dict:
        """Finish was pressed."""
        try:
            task = forms.finish(self.backend.jobs.get(source or "", visitor_id), *choice)
            job = self.backend.jobs.submit(task, visitor_id, visitor.ADDRESS.get())
        except ValueError as error:
            return {self.problem: gr.HTML(html.failure(str(error)), visible=True)}
        return {self.problem: gr.HTML(visible=False), **self.updates(visitor_id, followed, shown, source, new=[job])}

    def arrive(self, visitor_id: str, source: str | None) -> dict:
        """Another video is shown: what was finished before belonged to another one."""
        return {self.problem: gr.HTML(visible=False), **self.updates(visitor_id, None, "", source)}
