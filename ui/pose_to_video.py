"""The pose-to-video tab: what the dancer follows is seen first (pose_choice.py), then it dances."""

import time
from contextlib import suppress
from dataclasses import asdict

import gradio as gr

from pipelines.catalog import find, find_motion, offered
from pipelines.messages import said
from pipelines.serving.backend import Backend, Tuning
from pipelines.task_settings import settings_of
from pipelines.tasks import PoseToVideo, Task
from ui import (
    controls,
    estimates,
    finish,
    forms,
    hints,
    html,
    pose_controls,
    pose_html,
    reference,
    shortcuts,
    visitor,
    why,
)
from ui.follower import QUIET, Hold, View, ends, forgets, halting, progress
from ui.informing import INFORMING, or_nothing
from ui.languages import PROMPTS, say
from ui.media import CLICKS, export, scroll_to
from ui.model_list import ModelList
from ui.player import film, films, player
from ui.pose_choice import FIRST, Following
from ui.refill import Form
from ui.text_to_video import FRAMES_LABEL, sampling

# A motion to begin with each, so that one click sets everything; the first is there on the first visit.
EXAMPLES = (
    (FIRST, "An astronaut in orange dancing on the beach", 7),
    ("kick", "A robot in green kicking in the snow", 21),
    ("wave", "A bear in pink waving on the moon", 5),
)
# What an example leaves as it is by default.
PLAIN = ("shown", "detector", "gaps", "smoothing", "placing", "retarget", "strength", "tuned")
_TO_STAGE = scroll_to("#pose-show")
_TO_ASK = "() => document.querySelector('#pose-ask').scrollIntoView({block: 'nearest'})"


class PoseToVideoTab(Following):
    """The tab: its controls, and what its stage shows."""

    KINDS = (PoseToVideo,)

    def __init__(
        self,
        backend: Backend,
        owner: gr.BrowserState,
        this: gr.Tab,
        arrived: gr.events.Dependency,
        given: gr.State,
    ):
        """Builds the tab `this`, which is open. After `arrived` it is known who `owner` is.

        `given` is where the library puts a video that is to be followed, as (its file, the time at which it was given).
        """
        super().__init__(backend, owner)
        self.first = next(iter(offered("pose-to-video").values()))
        with gr.Row(elem_classes="bench", elem_id="pose-bench"):
            with gr.Column(elem_id="pose-ask"):
                self._build_question()
            with gr.Column(elem_id="pose-show"):
                self._build_stage()
                self._build_settings()
            with gr.Column(elem_id="pose-settings"):
                self.models = ModelList(offered("pose-to-video").values(), self.first, "pose-model")
                self.model = self.models.control
                self.about = gr.HTML(self._about(self.first.name), elem_id="pose-about")
        gr.HTML(say("<h2>Examples</h2>"), elem_classes="step")
        self.examples = gr.HTML(
            say("|".join(f"Follows: {name}" for name, *_ in EXAMPLES)),
            html_template=html.examples(_thumbnails()),
            elem_id="pose-examples",
            js_on_load=CLICKS,
        )
        filled = [self.prompt, *self.models.form, self.about, self.seed, self.randomise, *self.controls.values()]
        filled += self.reference.controls
        self.filled = list(dict.fromkeys([*self.taken, *filled]))
        self._connect_controls(this, arrived, given)
        self._connect_jobs(arrived)

    def _build_question(self) -> None:
        self.build_choice()
        self.prompt = gr.Textbox(
            EXAMPLES[0][1],
            label=say("Who dances, and where?"),
            info=PROMPTS,
            placeholder=say("Who, wearing what, where. One video a line."),
            lines=2,
            max_lines=8,
            elem_id="pose-prompt",
        )
        self.hints = gr.HTML(elem_id="pose-hints")
        self.reference = reference.build(self.backend, self.owner, self.first, "pose-")
        looks = pose_controls.wardrobe()
        self.problem = gr.HTML(visible=False, elem_id="pose-problem")
        forgets(self.problem, self.prompt.change)
        with gr.Row(elem_classes="acts"):
            self.generate = gr.Button(say("Generate"), variant="primary", size="lg", elem_id="pose-generate")
            self.hold = Hold("pose")
            self.halt = gr.Button(say("Stop"), variant="stop", size="lg", visible=False, elem_id="pose-stop")
        self.ahead = estimates.Ahead(self.backend, "pose-ahead")
        self.message = gr.HTML(visible=False, elem_id="pose-message")
        self.poses = {"tuned": looks}

    def _build_stage(self) -> None:
        self.video = player(say("Your video"), elem_id="pose-result")
        self.line = gr.HTML(elem_id="pose-line")
        self.waiting = gr.HTML(elem_id="pose-waiting", js_on_load=CLICKS)
        with gr.Column(visible=False, elem_id="pose-details") as self.details:
            self.figures = gr.HTML(elem_id="pose-measures")
            with gr.Row(elem_id="pose-downloads"):
                small = {"size": "md", "min_width": 80}
                self.mp4 = gr.DownloadButton(say("MP4"), elem_id="pose-mp4", **small)
                export(say("GIF"), "gif", self.backend, self.owner, self.shown, "pose-gif")
                export(say("WebM"), "webm", self.backend, self.owner, self.shown, "pose-webm")
                self.save_skeletons = gr.DownloadButton(say("Skeletons"), elem_id="pose-save-skeletons", **small)
                self.save_joints = gr.DownloadButton(say("Keypoints"), elem_id="pose-save-keypoints", **small)
            self.finish = finish.Finishing(self.backend, self.owner, self.shown, "finish-pose")
            why.section(why.POSE_TO_VIDEO, "pose-why")
            with gr.Accordion(say("How it was made"), open=False, elem_id="pose-facts"):
                self.facts = gr.JSON(show_label=False, container=False)

    def _build_settings(self) -> None:
        self.build_skeletons()
        self.poses |= pose_controls.build(self.first)
        with gr.Accordion(say("Fine settings of the video"), open=False, elem_id="fine-pose"):
            self.controls = sampling(PoseToVideo, self.first, "pose-")
        self.seed, self.randomise, self.dice = (self.controls.pop(name) for name in ("seed", "randomise", "dice"))

    def _about(self, name: str) -> str:
        return html.model_card(find(name), self.backend.machine.availability(name))

    # What the controls do to each other ---------------------------------------------------------------------------

    def refill(self, visitor_id: str, asked: tuple | None) -> dict:
        """The settings of a task that was asked for."""
        if asked is None:
            return {self.problem: gr.skip()}
        values, _ = asked
        card = find(values["model"])
        if values["clip"]:
            try:
                kept = self.backend.assets.clip(values["clip"], visitor_id)
            except ValueError as error:
                gone = html.failure(str(error), said("What this video followed is gone."))
                return {self.problem: gr.HTML(gone, visible=True)}
            measured, what = kept.clip, {self.clip: kept.name, self.chosen: "", **self._upload(kept)}
        else:
            measured = self.backend.assets.motion(values["motion"])
            what = {self.clip: "", self.chosen: values["motion"], self.file: None, self.there: gr.Column(visible=False)}
        tuned, gone = self.tuned_for(visitor_id, card.name), gr.HTML(visible=False)
        if values["tuned"] not in ("", *(one.job.id for one in tuned)):
            trouble = said("The tuned model of this video is not here. Its dancer will look as the model draws it.")
            gone = gr.HTML(html.failure(trouble, said("Whose looks it had is gone.")), visible=True)
        return {
            **what,
            **{self.prompt: values["prompt"], self.seed: values["seed"], self.randomise: False},
            **self.models.shows(card.name),
            **{self.about: self._about(card.name), self.problem: gone},
            **self._no_edits(),
            self.poses["tuned"]: pose_controls.wardrobe(tuned, values["tuned"]),
            **pose_controls.filled_in(self.poses, measured, values),
            **controls.updates(PoseToVideo, self.controls, card, values),
            **self.reference.fill(card, values),
        }

    def tuned_for(self, visitor_id: str, name: str) -> list[Tuning]:
        base = find(name).tuned_from
        return [one for one in self.backend.tunings.offered(visitor_id) if one.job.task.model == base]

    def dress(self, visitor_id: str, name: str, looks: str) -> gr.Dropdown:
        return pose_controls.wardrobe(self.tuned_for(visitor_id, name), looks)

    def choose_example(self, event: gr.EventData) -> dict:
        name, words, number = EXAMPLES[int(event.example)]
        plain = {name: one.default for name, one in settings_of(PoseToVideo).items() if name in PLAIN}
        return {
            **{self.poses[name]: value for name, value in plain.items()},
            **self.models.shows(self.first.name),
            self.about: self._about(self.first.name),
            **controls.updates(PoseToVideo, self.controls, self.first, asdict(self.first.defaults)),
            **self.reference.fill(self.first, {"reference": ""}),
            **{self.prompt: words, self.seed: number, self.randomise: False},
            **self.follow_motion(name),
        }

    def choose_model(self, name: str, filled: str = "") -> dict:
        """The updates that fill in its own settings, unless they were `filled` in for it last."""
        if name == filled:
            return {self.models.filled: name}
        card = find(name)
        values = controls.updates(PoseToVideo, self.controls, card, asdict(card.defaults))
        values |= self.reference.fill(card, {})
        return values | {self.about: self._about(name), self.controls["fps"]: gr.skip(), self.models.filled: name}

    def hint(self, prompts: str, name: str) -> str:
        return hints.of(self.backend, name, prompts)

    @property
    def named(self) -> dict[str, gr.components.Component]:
        followed = {"model": self.model, "clip": self.clip, "motion": self.chosen, "reference": self.reference.kept}
        return followed | self.poses | self.controls

    def foresee(self, data: dict) -> dict:
        """Tells how long the videos will take."""
        values = self.values(data) | {"prompt": data[self.prompt], "seed": 0}
        return self.ahead.foresee(lambda: forms.poses_to_videos(values))

    def _connect_controls(self, this: gr.Tab, arrived: gr.events.Dependency, given: gr.State) -> None:
        forgets(self.problem, self.seed, *self.named.values(), self.dice.click)
        forgets(self.message, self.model)
        self.connect_choice(this, given)
        there, model, owner, again = self.controls, self.model, self.owner, self.looks_again
        refilled = self.wanted.change(self.refill, [owner, self.wanted], self.filled, **QUIET)
        refilled.then(**again | {"fn": self.look_again, "inputs": {self.wanted, *again["inputs"]}})
        shown = self.examples.click(self.choose_example, None, self.filled, **QUIET)
        shown.then(None, js=_TO_ASK).then(**again)
        chosen = [self.about, self.models.filled, *there.values(), *self.reference.controls]
        changed = model.input(self.choose_model, self.models.form, chosen, **QUIET)
        changed.then(**again)
        shortcuts.choose(PoseToVideo, there, find, [model])
        tuned = self.poses["tuned"]
        dressed = {"fn": self.dress, "inputs": [owner, model, tuned], "outputs": tuned, **QUIET}
        gr.on([this.select, model.input], **dressed)
        arrived.then(**dressed)
        quiet = QUIET | {"queue": False}
        latest = INFORMING | {"trigger_mode": "always_last"}
        gr.on(None, or_nothing(self.hint), [self.prompt, model], self.hints, **latest)
        foreseen = {self.prompt, *self.named.values(), self.shown}
        self.ahead.asks(self.foresee, foreseen, [refilled, shown, changed])
        frames, fps = there["frames"], there["fps"]
        gr.on(None, None, [frames, fps], frames, js=FRAMES_LABEL, **quiet)
        self.dice.click(lambda: (forms.new_seed(), False), None, [self.seed, self.randomise], **quiet)
        self.seed.input(lambda: False, None, self.randomise, **quiet)  # who types a seed wants that one

    # One click, followed through -----------------------------------------------------------------------------------

    @property
    def outputs(self) -> list[gr.components.Component]:
        return [
            *(self.message, self.line, self.waiting, self.halt, self.mist, self.video, self.details, self.figures),
            *(self.mp4, self.save_skeletons, self.save_joints, self.facts, *self.hold.buttons),
        ]

    def state(self, view: View) -> dict:
        made, going = view.shown, bool(view.going)
        preview = view.moment.preview if going or made is None else None
        kept = self.backend.jobs.companions(made.id, view.owner) if made else {}
        kept = {kind: self.backend.assets.address(path) for kind, path in kept.items()}
        address = self.backend.assets.address(made.result.video) if made else None
        clip, skeletons = film(kept.get("source"), part="clip"), film(kept.get("skeletons"), part="skeletons")
        there = made is not None and not going
        return {
            **ends(self.message, view),
            **progress(self.line, self.waiting, view),
            self.halt: halting(view),
            **self.hold.state(view),
            self.mist: gr.HTML(pose_html.forming(preview.image) if preview else "", visible=preview is not None),
            self.video: films(clip, skeletons, film(address, made.task.prompt)) if made and there else films(),
            self.details: gr.Column(visible=there),
            self.figures: pose_html.measures(made) if made else "",
            self.mp4: gr.DownloadButton(value=address),
            self.save_skeletons: gr.DownloadButton(value=kept.get("skeletons"), visible="skeletons" in kept),
            self.save_joints: gr.DownloadButton(value=kept.get("keypoints"), visible="keypoints" in kept),
            self.facts: html.rounded(made.result.facts) if made else None,
        }

    def press(self, data: dict) -> dict:
        """Generate was pressed."""
        visitor_id, seed = visitor.known(data[self.owner]), data[self.seed]
        values = self.values(data) | {"prompt": data[self.prompt], "seed": seed}
        jobs: list[str] = []
        problem = gr.HTML(visible=False)
        try:
            for task in forms.poses_to_videos(values, data[self.randomise]):
                jobs.append(self.backend.jobs.submit(task, visitor_id, visitor.ADDRESS.get()))
                seed = task.seed
        except ValueError as error:
            problem = gr.HTML(html.failure(str(error)), visible=True)
        if not jobs:
            return {self.problem: problem}
        self.backend.previews.stop(visitor_id)
        return {
            **{self.owner: visitor_id, self.problem: problem, self.seed: seed},
            **{self.search: "", self.quit_search: gr.Button(visible=False)},
            **self.updates(visitor_id, data[self.followed], data[self.shown], new=jobs),
        }

    def arrive(self, visitor_id: str) -> dict:
        """The page was opened: what is being made is shown, or what was made last, with its settings."""
        latest = self.backend.jobs.finished(visitor_id, limit=1, kind="pose-to-video")
        going = self.unfinished(visitor_id)
        updates = self.updates(visitor_id, shown=latest[0].id if latest else "")
        for one in (going or latest)[:1]:
            with suppress(ValueError):  # of a model that is not offered any more
                updates |= self.fill(one.task.checked())
        return updates

    def fill(self, task: Task) -> dict:
        return {self.wanted: (asdict(task), time.time())}

    def _connect_jobs(self, arrived: gr.events.Dependency) -> None:
        following = {"concurrency_limit": None, **QUIET}
        form = {*self.asked, self.prompt, self.seed, self.randomise, *self.named.values()}
        pressed = [self.owner, self.problem, self.seed, self.search, self.quit_search, *self.all_outputs]
        gr.on([self.generate.click, self.prompt.submit], self.press, form, pressed, **following)
        arrived.then(self.arrive, self.owner, [self.wanted, *self.all_outputs], **following)
        self.connect(self.halt, self.hold, self.waiting, self.ahead)
        self.generate.click(None, js=_TO_STAGE, queue=False, **QUIET)  # on a phone it may be out of sight

    @property
    def form(self) -> Form:
        """For those who fill the tab from elsewhere."""
        return Form("pose-to-video", [self.wanted], self.fill)


def _thumbnails() -> list[html.Thumbnail]:
    pictures = [pose_html.motion_picture(find_motion(name)) for name, *_ in EXAMPLES]
    return [
        html.Thumbnail(prompt, html.part(index), rests, moves)
        for index, ((_, prompt, _), (moves, rests)) in enumerate(zip(EXAMPLES, pictures, strict=True))
    ]
