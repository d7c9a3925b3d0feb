"""The first step of editing a clip: an upload, what it shows, which part of it, and the tuning."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from pipelines.cards import ModelCard
from pipelines.catalog import find, offered
from pipelines.messages import said
from pipelines.serving.backend import Backend
from pipelines.serving.job import Job
from pipelines.tasks import NOBODY, Tune
from ui import controls, edit_html, estimates, forms, hints, html, visitor
from ui.follower import QUIET, Hold, Stage, View, forgets
from ui.informing import INFORMING, LOOKING, or_nothing
from ui.languages import PROMPTS, say
from ui.media import CLICKS, CLIPS, READING
from ui.model_list import ModelList
from ui.player import films, player

SAMPLE = say("Sample now")
SAMPLE_CLIP = edit_html.SAMPLE.with_suffix(".mp4")  # to begin with: it says itself what it shows
_BASED = ("frames", "width", "height", "steps", "learning_rate")  # settings that follow the base model


class Bench(Stage):
    """The first step. Its `shown` is the latest tuning, once there is something of it."""

    KINDS = (Tune,)

    def __init__(
        self,
        backend: Backend,
        owner: gr.BrowserState,
        arrived: gr.events.Dependency,
        changed: gr.State,
        given: gr.State,
    ):
        """Builds the step where it is called.

        A tuning that is under way is shown after `arrived`, and whenever `changed` says that one may have been resumed.
        `given` holds a video of the library that is to be the clip, as (its file, the time at which it was given).
        """
        self.awaited = gr.State("")  # the latest sample when another was asked for
        super().__init__(backend, owner, self.awaited)
        self.clip = gr.State("")
        self.controls: dict[str, gr.components.Component] = {}
        self._build(next(iter(offered("edit").values())))
        self._connect_controls(given)
        self._connect_jobs(arrived, changed)

    def _build(self, first: ModelCard) -> None:
        seconds = {"as_": gr.Slider, "minimum": 0, "maximum": 60, "step": 0.05}

        def control(name: str, elem_id: str, **rest: Any) -> None:
            self.controls[name] = controls.control(Tune, name, first, elem_id=elem_id, **rest)

        with gr.Row(elem_classes="bench"):
            with gr.Column():
                self.file = gr.File(
                    label=say("A clip: MP4, MOV, WebM, MKV, GIF, WebP or APNG"),
                    file_types=CLIPS,
                    elem_id="clip",
                    height=130,
                )
                self.try_sample = gr.HTML(edit_html.SAMPLE_CLIP, elem_id="try-sample", js_on_load=CLICKS)
                with gr.Column(visible=False, elem_id="clip-chosen") as self.there:
                    self.source = player(say("The clip"), elem_id="clip-video")
                    self.about = gr.HTML()
                self.prompt = gr.Textbox(
                    label=say("What does the clip show?"),
                    info=PROMPTS,
                    placeholder=say("Who, wearing what, does what, where: a person in red dances on the beach"),
                    lines=2,
                    elem_id="clip-caption",
                )
                self.hints = gr.HTML()
                self.problem = gr.HTML(visible=False, elem_id="tune-problem")
                forgets(self.problem, self.prompt.change)
                self.tune = gr.Button(say("Tune"), variant="primary", size="lg", elem_id="tune")
                with gr.Row(visible=False) as self.running:
                    self.draw = gr.Button(SAMPLE, size="lg", elem_id="sample-tuning")
                    self.hold = Hold("tuning")
                    self.halt = gr.Button(say("Stop and keep"), variant="stop", size="lg", elem_id="stop-tuning")
                self.ahead = estimates.Ahead(self.backend, "tune-ahead")
            with gr.Column():
                self.message = gr.HTML(visible=False, elem_id="tune-message")
                self.line = gr.HTML(elem_id="tune-line")
                self.plot = gr.HTML(elem_id="losses")
                self.sample = gr.HTML(elem_id="sample")
                self.strip = gr.HTML(elem_id="used")
                with gr.Accordion(say("Part of the clip, and crop"), open=False, elem_id="part"):
                    with gr.Row():
                        control("start", "part-start", **seconds)
                        control("end", "part-end", **seconds | {"value": 60})
                    with gr.Row():
                        control("stride", "part-stride", maximum=30)
                        control("frames", "part-frames")
                    with gr.Row():
                        control("across", "part-across")
                        control("down", "part-down")
                bases = [card for card in offered("edit").values() if card.tuning]
                self.models = ModelList(bases, first, "base", "Base model", "Edits can show what this model knows")
                self.model = self.models.control
                self.card_html = gr.HTML(
                    html.model_card(first, self.backend.machine.availability(first.name)), elem_id="base-about"
                )
                with gr.Accordion(say("Fine settings of the tuning"), open=False, elem_id="fine-tuning"):
                    with gr.Row():
                        control("width", "tune-width")
                        control("height", "tune-height")
                    for name in ("steps", "learning_rate", "trained", "seed"):
                        control(name, f"tune-{name.replace('_', '-')}")

    # The clip, and which part of it --------------------------------------------------------------------------------

    def take(self, visitor_id: str, path: str | None) -> dict:
        visitor_id = visitor.known(visitor_id)
        nothing = {self.clip: "", self.there: gr.Column(visible=False), self.strip: ""}
        if path is None:
            return nothing | {self.problem: gr.HTML(visible=False)}
        try:
            kept = self.backend.assets.keep_clip(path, visitor_id)
        except (ValueError, OSError) as error:
            return nothing | {
                self.problem: gr.HTML(html.failure(str(error), said("This clip can't be used.")), visible=True)
            }
        measured = kept.clip
        size = measured.seconds, measured.width, measured.height, measured.fps, measured.cut
        return {
            **{self.owner: visitor_id, self.clip: kept.name, self.there: gr.Column(visible=True)},
            **{self.source: films(self.backend.assets.address(kept.preview)), self.about: edit_html.about_clip(*size)},
            self.controls["start"]: gr.Slider(maximum=measured.seconds, value=0),
            self.controls["end"]: gr.Slider(maximum=measured.seconds, value=measured.seconds),
            self.controls["stride"]: min(30, max(1, round(measured.fps / 8))),  # the models have seen 8 a second
            self.problem: gr.HTML(visible=False),
            **self._caption(Path(path), visitor_id),
        }

    def _caption(self, path: Path, visitor_id: str) -> dict:
        """The update that says what the clip shows, where Marionette has made it."""
        try:
            return {self.prompt: self.backend.assets.task_of(path, visitor_id).prompt}
        except ValueError:
            return {}

    def take_sample(self, visitor_id: str) -> dict:
        """As `take`, of the clip that comes with the app."""
        return self.take(visitor_id, str(SAMPLE_CLIP))

    def take_video(self, visitor_id: str, given: tuple[str, float]) -> dict:
        """As `take`, of a video of the library."""
        return self.take(visitor_id, given[0])

    def values(self, data: dict) -> dict[str, object]:
        """What the controls say, by the names of the settings; the prompt is to be added."""
        named = self.controls | {"model": self.model, "clip": self.clip}
        return {name: data[control] for name, control in named.items()}

    def draw_part(self, data: dict) -> dict:
        """The frames that would be used."""
        if not data[self.clip]:
            return {self.strip: ""}
        try:
            task = forms.tune(self.values(data) | {"prompt": "a clip"})
            picture, choice = self.backend.assets.look(task, data[self.owner])
        except (ValueError, OSError) as error:
            return {self.strip: html.failure(str(error), said("This part can't be used."))}
        return {self.strip: edit_html.look(picture, choice, task.width, task.height)}

    def foresee(self, data: dict) -> dict:
        """Tells how long the tuning will take."""
        values = self.values(data) | {"prompt": "a clip", "clip": NOBODY}
        return self.ahead.foresee(lambda: [forms.tune(values)])

    def choose_base(self, name: str, filled: str = "") -> dict:
        """The updates that fill in its own settings, unless they were `filled` in for it last."""
        if name == filled:
            return {self.models.filled: name}
        card = find(name)
        based = {name: self.controls[name] for name in _BASED}
        return controls.updates(Tune, based, card, {}) | {
            self.card_html: html.model_card(card, self.backend.machine.availability(name)),
            self.models.filled: name,
        }

    def hint(self, text: str, name: str) -> str:
        return hints.of(self.backend, name, text, rows=False)

    def _connect_controls(self, given: gr.State) -> None:
        there, owner = self.controls, self.owner
        forgets(self.problem, self.model, *there.values())
        forgets(self.message, self.model)
        seen = {owner, self.clip, self.model, *there.values()}
        looked = {"fn": self.draw_part, "inputs": seen, "outputs": [self.strip], **LOOKING, **READING}
        taken = [owner, self.clip, self.prompt, self.there, self.source, self.about, self.problem, self.strip]
        taken += [there[name] for name in ("start", "end", "stride")]
        takes = {"outputs": taken, "api_visibility": "private", **READING}
        uploaded = [self.file.upload, self.file.clear]
        gr.on(uploaded, self.take, [owner, self.file], show_progress_on=self.file, **takes).then(**looked)
        self.try_sample.click(self.take_sample, owner, show_progress="hidden", **takes).then(**looked)
        given.change(self.take_video, [owner, given], show_progress="hidden", **takes).then(**looked)
        parts = ("start", "end", "stride", "frames", "across", "down")
        gr.on([there[name].release for name in parts], **looked)
        gr.on([there[side].change for side in ("width", "height")], **looked, trigger_mode="always_last")
        latest = INFORMING | {"trigger_mode": "always_last"}
        hinted = [self.prompt, self.model]
        gr.on([self.prompt.change, self.model.change], or_nothing(self.hint), hinted, self.hints, **latest)
        based = [there[name] for name in _BASED]
        chosen = [*based, self.card_html, self.models.filled]
        changed = self.model.input(self.choose_base, self.models.form, chosen, **QUIET)
        self.ahead.asks(self.foresee, {self.model, self.clip, *there.values(), self.shown}, [changed])

    # One click, followed through -----------------------------------------------------------------------------------

    @property
    def outputs(self) -> list[gr.components.Component]:
        return [
            self.message,
            self.line,
            self.plot,
            self.sample,
            self.tune,
            self.try_sample,
            self.running,
            self.draw,
            self.halt,
            *self.hold.buttons,
        ]

    def state(self, view: View) -> dict:
        going, there = bool(view.going), bool(view.unfinished)
        job = view.unfinished[0] if there else view.shown
        total = job.task.steps if job is not None and isinstance(job.task, Tune) else 1
        preview = view.moment.preview
        asked = going and view.about == (_mark(view.going[0]),)
        return {
            **self._ends(view),
            self.line: html.footlights(view.moment) if there else "",
            self.plot: edit_html.losses(self._losses(view), total) if job else "",
            self.sample: edit_html.sample(preview.image) if preview else "",
            **{self.tune: gr.Button(visible=not going), self.try_sample: gr.HTML(visible=not going)},
            self.running: gr.Row(visible=there),
            self.draw: gr.Button(
                say("Drawn after the next step…") if asked else SAMPLE, interactive=going and not asked
            ),
            self.halt: gr.Button(
                say("Stopping…") if view.stopping else say("Stop and keep"), interactive=not view.stopping
            ),
            **self.hold.state(view),
        }

    def fruitful(self, job: Job, visitor_id: str) -> bool:
        return super().fruitful(job, visitor_id) or self._facts(job, visitor_id) is not None

    def _facts(self, job: Job, visitor_id: str) -> dict | None:
        try:
            return self.backend.tunings.get(job.id, visitor_id).facts
        except ValueError:  # nothing of it
            return None

    def _losses(self, view: View) -> Sequence[float]:
        if view.going or view.moment.losses:
            return view.moment.losses.values if view.moment.losses else ()
        job = view.paused[0] if view.paused else view.shown
        facts = self._facts(job, view.owner) if job else None
        return (facts or {}).get("losses", ())

    def _ends(self, view: View) -> dict:
        """How the last tuning ended, and what is to be done next."""
        if not view.failed:
            done = view.shown is not None and not view.unfinished
            card = html.stopped(said("The model has learned the clip."), said("Say below what it should show instead."))
            return {self.message: gr.HTML(card, visible=done)}
        last = view.failed[-1]
        what = said("Nothing was tuned yet.")
        if view.shown:
            what = said("What was tuned so far is kept: use it, or resume it.")
        card = (
            html.stopped(last.message, what)
            if last.stopped
            else html.failure(last.message, said("The tuning ended early."))
        )
        return {self.message: gr.HTML(card, visible=True)}

    def press(self, data: dict) -> dict:
        """Tune was pressed."""
        visitor_id = visitor.known(data[self.owner])
        try:
            task = forms.tune(self.values(data) | {"prompt": data[self.prompt]})
            job = self.backend.jobs.submit(task, visitor_id, visitor.ADDRESS.get())
        except ValueError as error:
            return {self.problem: gr.HTML(html.failure(str(error), said("Nothing was tuned.")), visible=True)}
        following = data[self.followed], "", ""
        return {
            **{self.owner: visitor_id, self.problem: gr.HTML(visible=False), self.awaited: ""},
            **self.updates(visitor_id, *following, new=[job]),
        }

    def arrive(self, visitor_id: str, followed: object, shown: object, awaited: object) -> dict:
        """The page was opened, or a tuning resumed: what is being tuned is shown."""
        going = self.unfinished(visitor_id)
        shown = "" if any(one.id == shown for one in going) else shown
        updates = self.updates(visitor_id, followed, shown, awaited)
        return updates | ({self.prompt: going[0].task.prompt} if going else {})

    def ask(self, visitor_id: str, followed: object, shown: object, awaited: object) -> dict:
        """A sample was asked for."""
        for job in self.backend.jobs.unfinished(visitor_id):
            if self.belongs(job, visitor_id):
                self.backend.tunings.sample(job.id, visitor_id)
                awaited = _mark(job)
        return {self.awaited: awaited, **self.updates(visitor_id, followed, shown, awaited)}

    def _connect_jobs(self, arrived: gr.events.Dependency, changed: gr.State) -> None:
        following = {"concurrency_limit": None, **QUIET}
        form = {*self.asked, self.prompt, self.model, self.clip, *self.controls.values()}
        pressed = [self.owner, self.problem, self.awaited, *self.all_outputs]
        self.tune.click(self.press, form, pressed, **following)
        opened = {"fn": self.arrive, "inputs": self.asked, "outputs": [self.prompt, *self.all_outputs], **following}
        arrived.then(**opened)
        changed.change(**opened)
        self.connect(self.halt, self.hold, foretold=self.ahead)
        self.draw.click(self.ask, self.asked, [self.awaited, *self.all_outputs], **following)


def _mark(job: Job) -> str:
    """What tells the latest sample of a tuning from others."""
    return hashlib.sha256(job.preview.image if job.preview else b"").hexdigest()
