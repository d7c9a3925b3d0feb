"""The pose-to-video tab: what the dancer follows is seen first, then it dances.

It is longer than others because what is followed and what is made of it are set by the same controls.
"""

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, replace

import gradio as gr

from pipelines.catalog import find, find_motion, offered
from pipelines.messages import said
from pipelines.serving.backend import Backend, Kept, Tuning
from pipelines.task_settings import settings_of
from pipelines.tasks import PoseToVideo, Task
from ui import (
    controls,
    edit_html,
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
from ui.follower import QUIET, Hold, Stage, View, ends, forgets, halting, progress
from ui.languages import PROMPTS, say
from ui.media import CLICKS, CLIPS, READING, export, scroll_to
from ui.player import film, films, player
from ui.refill import Form
from ui.text_to_video import FRAMES_LABEL, sampling

# A motion to begin with each, so that one click sets everything; the first is there on the first visit.
EXAMPLES = (
    ("dance, hands up", "An astronaut in orange dancing on the beach", 7),
    ("kick", "A robot in green kicking in the snow", 21),
    ("wave", "A bear in pink waving on the moon", 5),
)
# What an example leaves as it is by default.
PLAIN = ("shown", "detector", "gaps", "smoothing", "placing", "retarget", "strength", "tuned")
_TO_FOUND = scroll_to("#found")
_TO_STAGE = scroll_to("#pose-show")
_TO_ASK = "() => document.querySelector('#pose-ask').scrollIntoView({block: 'nearest'})"


class PoseToVideoTab(Stage):
    """The tab: what is followed, its controls, and what its stage shows."""

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
        self.clip = gr.State("")  # the upload that is followed; "" where it is a motion
        self.seen = gr.State(False)  # whether skeletons were shown
        self.wanted = gr.State()  # a task whose settings are to be used again, and when that was wished
        self.unedited = gr.State()  # the values of the task whose skeletons were edited
        with gr.Row(elem_classes="bench", elem_id="pose-bench"):
            with gr.Column(elem_id="pose-ask"):
                self._build_question()
            with gr.Column(elem_id="pose-show"):
                self._build_stage()
                self._build_skeletons()
            with gr.Column(elem_id="pose-settings"):
                self.model = gr.Dropdown(
                    [(say(card.title), name) for name, card in offered("pose-to-video").items()],
                    value=self.first.name,
                    label=say("Model"),
                    info=say("Fills in its own best settings"),
                    filterable=False,
                    elem_id="pose-model",
                )
                self.about = gr.HTML(self._about(self.first.name), elem_id="pose-about")
        gr.HTML(say("<h2>Examples</h2>"), elem_classes="step")
        self.examples = gr.HTML(
            say("|".join(f"Follows: {name}" for name, *_ in EXAMPLES)),
            html_template=html.examples(_thumbnails()),
            elem_id="pose-examples",
            js_on_load=CLICKS,
        )
        self.taken = [
            *(self.clip, self.chosen, self.file, self.there, self.source, self.about_clip),
            *(*self.poses.values(), self.controls["fps"], self.problem, self.undo_edits, self.unedited),
        ]
        filled = [self.prompt, self.model, self.about, self.seed, self.randomise, *self.controls.values()]
        filled += self.reference.controls
        self.filled = list(dict.fromkeys([*self.taken, *filled]))
        self._connect_controls(this, arrived, given)
        self._connect_jobs(arrived)

    def _build_question(self) -> None:
        motion, prompted, _ = EXAMPLES[0]
        gr.HTML(say("<h2>Choose a motion</h2>"), elem_id="motions-title")
        gallery = {"html_template": pose_html.gallery(), "label": pose_html.gallery_words()}
        self.chosen = gr.HTML(motion, elem_id="motions", js_on_load=CLICKS, **gallery)
        self.file = gr.File(
            label=say("Or upload a clip, a skeleton video or keypoints"),
            file_types=[*CLIPS, ".json", ".zip"],
            elem_id="pose-clip",
            height=110,
        )
        with gr.Column(visible=False, elem_id="pose-clip-chosen") as self.there:
            self.source = player(say("The upload"), elem_id="pose-clip-video")
            self.about_clip = gr.HTML()
        self.prompt = gr.Textbox(
            prompted,
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
        self.ahead = gr.HTML(elem_id="pose-ahead")
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

    def _build_skeletons(self) -> None:
        with gr.Row(elem_id="pose-stage"):
            nobody = '<figure class="pose-preview"><div class="pose-screen"></div></figure>'
            self.figure = gr.HTML(nobody, elem_id="found")
            self.mist = gr.HTML(visible=False, elem_id="pose-forming")
        self.edited = gr.File(visible="hidden", file_types=[".json"], elem_id="pose-edited")  # assets/poses.js
        self.undo_edits = gr.Button(say("Undo the edits of the skeletons"), visible=False, elem_id="pose-undo-edits")
        self.search = gr.HTML(elem_id="pose-search")
        self.quit_search = gr.Button(say("Stop looking"), size="md", visible=False, elem_id="pose-stop-search")
        self.poses |= pose_controls.build(self.first)
        with gr.Accordion(say("Fine settings of the video"), open=False, elem_id="fine-pose"):
            self.controls = sampling(PoseToVideo, self.first, "pose-")
        self.seed, self.randomise, self.dice = (self.controls.pop(name) for name in ("seed", "randomise", "dice"))

    def _about(self, name: str) -> str:
        return html.model_card(find(name), self.backend.machine.availability(name))

    # What is followed ----------------------------------------------------------------------------------------------

    def follow_motion(self, name: str) -> dict:
        measured = self.backend.assets.motion(name)
        return {
            **{self.clip: "", self.chosen: name, self.file: None, self.there: gr.Column(visible=False)},
            **{self.problem: gr.HTML(visible=False), self.controls["fps"]: pose_controls.pace(measured)},
            **self._no_edits(),
            **pose_controls.fitted(self.poses, measured),
        }

    def take(self, visitor_id: str, path: str | None) -> dict:
        if path is None:
            return self.follow_motion(EXAMPLES[0][0])
        visitor_id = visitor.known(visitor_id)
        try:
            kept = self.backend.assets.keep_clip(path, visitor_id, poses=True)
        except (ValueError, OSError) as error:
            problem = html.failure(str(error), said("This can't be followed."))
            return {self.file: None, self.problem: gr.HTML(problem, visible=True)}
        return {
            **{self.owner: visitor_id, self.clip: kept.name, self.chosen: "", self.problem: gr.HTML(visible=False)},
            self.controls["fps"]: pose_controls.pace(kept.clip),
            **self._no_edits(),
            **pose_controls.fitted(self.poses, kept.clip),
            **self._upload(kept),
        }

    def take_video(self, visitor_id: str, given: tuple[str, float]) -> dict:
        """As `take`, of a video of the library."""
        return self.take(visitor_id, given[0])

    def take_edits(self, data: dict) -> dict:
        """The skeletons as they were edited in the preview are followed as they are."""
        before = self.values(data) | {"prompt": data[self.prompt], "seed": data[self.seed]}
        updates = self.take(data[self.owner], data[self.edited])
        if self.clip not in updates:
            return updates
        as_they_are = {"stride": 1, "gaps": False, "smoothing": "none", "placing": "fit", "retarget": False}
        first = data[self.unedited] or before
        measured = self.backend.assets.clip(updates[self.clip], updates[self.owner]).clip
        return updates | {
            self.controls["fps"]: pose_controls.pace(measured, 1),
            **{self.poses[name]: value for name, value in as_they_are.items()},
            **{self.unedited: first, self.undo_edits: gr.Button(visible=True), self.file: None},
        }

    def _no_edits(self) -> dict:
        return {self.undo_edits: gr.Button(visible=False), self.unedited: None}

    def forget_edits(self, data: dict) -> dict:
        """What was followed before the skeletons were edited is followed again."""
        values = data[self.unedited] | {"prompt": data[self.prompt] or "a dance", "seed": data[self.seed]}
        try:
            (task, *_) = forms.poses_to_videos(values)
        except ValueError as error:
            return {self.problem: gr.HTML(html.failure(str(error)), visible=True)}
        return self.fill(replace(task, prompt=data[self.prompt]))

    def _upload(self, kept: Kept) -> dict:
        measured = kept.clip
        size = measured.seconds, measured.width, measured.height, measured.fps, measured.cut
        return {
            self.there: gr.Column(visible=True),
            self.source: films(self.backend.assets.address(kept.preview)),
            self.about_clip: edit_html.about_clip(*size),
        }

    def look(self, data: dict) -> Iterator[dict]:
        """Shows what the dancer would follow, looking for it where that takes a while."""
        visitor_id, found = visitor.known(data[self.owner]), None
        try:
            (task,) = forms.poses_to_videos(self.values(data) | {"prompt": "a dance", "seed": 0})
            with closing(self.backend.previews.poses(task, visitor_id)) as events:
                while True:
                    try:
                        event = next(events)
                    except StopIteration as finished:
                        found = finished.value
                        break
                    if event is None or task.motion:
                        yield {self.search: gr.skip()}
                    else:
                        yield {self.search: pose_html.searching(event), self.quit_search: gr.Button(visible=True)}
        except (ValueError, OSError) as error:
            problem = html.failure(str(error), said("There is nothing to follow yet."))
            yield {self.search: problem, self.quit_search: gr.Button(visible=False)}
            return
        if found is None:  # another search has begun, or somebody stopped this one
            yield {self.search: gr.skip()}
            return
        people = pose_controls.people(found.facts.get("people", 0), task.person)
        yield {
            **{self.figure: pose_html.pose_preview(found), self.search: "", self.seen: True},
            **{self.quit_search: gr.Button(visible=False), self.poses["person"]: gr.Dropdown(people)},
        }

    def first_look(self, data: dict) -> Iterator[dict]:
        """As `look`, where nothing was shown yet."""
        yield {self.search: gr.skip()}  # gradio empties every output of a generator that yields nothing
        if not data[self.seen]:
            yield from self.look(data)

    def look_again(self, data: dict) -> Iterator[dict]:
        """As `look`, once settings were filled in again."""
        yield {self.search: gr.skip()}  # as above
        if data[self.wanted] is not None:
            yield from self.look(data)

    def quit_looking(self, visitor_id: str) -> dict:
        self.backend.previews.stop(visitor_id)
        return {
            self.search: html.stopped(said("Stopped."), said("What was found before is shown.")),
            self.quit_search: gr.Button(visible=False),
        }

    def keep_pace(self, visitor_id: str, name: str, motion: str, stride: float) -> float:
        measured = self.backend.assets.clip(name, visitor_id).clip if name else self.backend.assets.motion(motion)
        return pose_controls.pace(measured, stride)

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
            **{self.prompt: values["prompt"], self.model: card.name, self.seed: values["seed"], self.randomise: False},
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

    def choose_motion(self, event: gr.EventData) -> dict:
        return self.follow_motion(event.motion)

    def choose_example(self, event: gr.EventData) -> dict:
        name, words, number = EXAMPLES[int(event.example)]
        plain = {name: one.default for name, one in settings_of(PoseToVideo).items() if name in PLAIN}
        return {
            **{self.poses[name]: value for name, value in plain.items()},
            **{self.model: self.first.name, self.about: self._about(self.first.name)},
            **controls.updates(PoseToVideo, self.controls, self.first, asdict(self.first.defaults)),
            **self.reference.fill(self.first, {"reference": ""}),
            **{self.prompt: words, self.seed: number, self.randomise: False},
            **self.follow_motion(name),
        }

    def choose_model(self, name: str) -> dict:
        card = find(name)
        values = controls.updates(PoseToVideo, self.controls, card, asdict(card.defaults))
        values |= self.reference.fill(card, {})
        return values | {self.about: self._about(name), self.controls["fps"]: gr.skip()}

    def hint(self, prompts: str, name: str) -> str:
        return hints.of(self.backend, name, prompts)

    @property
    def named(self) -> dict[str, gr.components.Component]:
        """The controls that the video follows from, by the names of the settings."""
        followed = {"model": self.model, "clip": self.clip, "motion": self.chosen, "reference": self.reference.kept}
        return followed | self.poses | self.controls

    def values(self, data: dict) -> dict[str, object]:
        """What the controls say, by the names of the settings; the prompt and the seed are to be added."""
        return {name: data[control] for name, control in self.named.items()}

    def foresee(self, data: dict) -> str:
        """How long the videos will take."""
        values = self.values(data) | {"prompt": data[self.prompt], "seed": 0}
        return estimates.of(self.backend, lambda: forms.poses_to_videos(values))

    def _connect_controls(self, this: gr.Tab, arrived: gr.events.Dependency, given: gr.State) -> None:
        poses, there, model, owner = self.poses, self.controls, self.model, self.owner
        looked = {"inputs": {owner, *self.named.values()}, "concurrency_limit": None, **QUIET}
        looked["outputs"] = [self.figure, self.search, self.seen, self.quit_search, poses["person"]]
        again = {"fn": self.look, "trigger_mode": "multiple", **looked}
        takes = {"outputs": [owner, *self.taken], "api_visibility": "private", **READING}
        chosen = self.chosen.click(self.choose_motion, None, self.taken, **QUIET)
        uploaded = [self.file.upload, self.file.clear]
        taken = gr.on(uploaded, self.take, [owner, self.file], show_progress_on=self.file, **takes)
        for one in (chosen, taken):
            one.then(None, js=_TO_FOUND, **QUIET)
            one.then(**again)
        edits = {owner, self.edited, self.unedited, self.prompt, self.seed, *self.named.values()}
        self.edited.upload(self.take_edits, edits, show_progress="hidden", **takes).then(**again)
        self.undo_edits.click(
            self.forget_edits, {self.unedited, self.prompt, self.seed}, [self.wanted, self.problem], **QUIET
        )
        given.change(self.take_video, [owner, given], show_progress="hidden", **takes).then(**again)
        refilled = self.wanted.change(self.refill, [owner, self.wanted], self.filled, **QUIET)
        refilled.then(**again | {"fn": self.look_again, "inputs": {self.wanted, *looked["inputs"]}})
        shown = self.examples.click(self.choose_example, None, self.filled, **QUIET)
        shown.then(None, js=_TO_ASK).then(**again)
        chosen = [self.about, *there.values(), *self.reference.controls]
        model.input(self.choose_model, model, chosen, **QUIET).then(**again)
        shortcuts.choose(PoseToVideo, there, find, [model])
        kept_pace = [owner, self.clip, self.chosen, poses["stride"]]
        poses["stride"].release(self.keep_pace, kept_pace, there["fps"], **QUIET)
        drawn = ("stride", "left", "right", "top", "bottom")
        gr.on([*(poses[name].release for name in drawn), there["frames"].release], **again)
        decided = ("shown", "detector", "person", "gaps", "smoothing", "placing", "retarget")
        gr.on([poses[name].input for name in decided], **again)
        boxes = (poses["start"], poses["end"], there["width"], there["height"])
        gr.on([listen for box in boxes for listen in (box.submit, box.blur)], **again)
        dressed = {"fn": self.dress, "inputs": [owner, model, poses["tuned"]], "outputs": poses["tuned"], **QUIET}
        gr.on([this.select, model.input], **dressed)
        arrived.then(**dressed)
        gr.on([this.select], **looked | {"fn": self.first_look, "inputs": {self.seen, *looked["inputs"]}})
        quiet = QUIET | {"queue": False}
        self.quit_search.click(self.quit_looking, owner, [self.search, self.quit_search], **quiet)
        latest = quiet | {"trigger_mode": "always_last"}
        gr.on(None, self.hint, [self.prompt, model], self.hints, **latest)
        gr.on(None, self.foresee, {self.prompt, *self.named.values(), self.shown}, self.ahead, **latest)
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
        """The updates that fill in what `task` says; what it follows is then looked for."""
        return {self.wanted: (asdict(task), time.time())}

    def _connect_jobs(self, arrived: gr.events.Dependency) -> None:
        following = {"concurrency_limit": None, **QUIET}
        form = {*self.asked, self.prompt, self.seed, self.randomise, *self.named.values()}
        pressed = [self.owner, self.problem, self.seed, self.search, self.quit_search, *self.all_outputs]
        gr.on([self.generate.click, self.prompt.submit], self.press, form, pressed, **following)
        arrived.then(self.arrive, self.owner, [self.wanted, *self.all_outputs], **following)
        self.connect(self.halt, self.hold, self.waiting)
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
