"""The half of the pose-to-video tab that says what is followed: chosen or uploaded, looked for, shown and edited."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import gradio as gr

from pipelines.messages import said
from pipelines.serving.backend import Backend, Kept
from pipelines.tasks import Task
from ui import edit_html, forms, html, pose_controls, pose_html, visitor
from ui.controls import Controls
from ui.follower import QUIET, Stage
from ui.informing import LOOKING
from ui.languages import say
from ui.media import CLICKS, CLIPS, READING, scroll_to
from ui.player import films, player

FIRST = "dance, hands up"  # the motion that is chosen on the first visit
_TO_FOUND = scroll_to("#found")


class Following(Stage):
    """What the dancer follows: a built-in motion or an upload, and the skeletons that are found in it.

    The rest of the tab has the controls `prompt`, `seed`, `problem`, `poses`, those of the skeletons, and `controls`,
    those of the video.
    """

    prompt: gr.Textbox
    seed: gr.components.Component
    problem: gr.HTML
    poses: Controls
    controls: Controls

    def __init__(self, backend: Backend, owner: gr.BrowserState):
        """Builds what it remembers; the Blocks must be open."""
        super().__init__(backend, owner)
        self.clip = gr.State("")  # the upload that is followed; "" where it is a motion
        self.seen = gr.State(False)  # whether skeletons were shown
        self.wanted = gr.State()  # a task whose settings are to be used again, and when that was wished
        self.unedited = gr.State()  # the values of the task whose skeletons were edited

    @property
    @abstractmethod
    def named(self) -> dict[str, gr.components.Component]:
        """The controls that the video follows from, by the names of the settings."""

    @abstractmethod
    def fill(self, task: Task) -> dict:
        """The updates that fill in what `task` says; what it follows is then looked for."""

    def values(self, data: dict) -> dict[str, object]:
        """What the controls say, by the names of the settings; the prompt and the seed are to be added."""
        return {name: data[control] for name, control in self.named.items()}

    def build_choice(self) -> None:
        """Builds, where it is called, what chooses."""
        gr.HTML(say("<h2>Choose a motion</h2>"), elem_id="motions-title")
        gallery = {"html_template": pose_html.gallery(), "label": pose_html.gallery_words()}
        self.chosen = gr.HTML(FIRST, elem_id="motions", js_on_load=CLICKS, **gallery)
        self.file = gr.File(
            label=say("Or upload a clip, a skeleton video or keypoints"),
            file_types=[*CLIPS, ".json", ".zip"],
            elem_id="pose-clip",
            height=110,
        )
        with gr.Column(visible=False, elem_id="pose-clip-chosen") as self.there:
            self.source = player(say("The upload"), elem_id="pose-clip-video")
            self.about_clip = gr.HTML()

    def build_skeletons(self) -> None:
        """Builds, where it is called, what shows the skeletons, and beside them the video as it forms."""
        with gr.Row(elem_id="pose-stage"):
            nobody = '<figure class="pose-preview"><div class="pose-screen"></div></figure>'
            self.figure = gr.HTML(nobody, elem_id="found")
            self.mist = gr.HTML(visible=False, elem_id="pose-forming")
        self.edited = gr.File(visible="hidden", file_types=[".json"], elem_id="pose-edited")  # assets/poses.js
        self.undo_edits = gr.Button(say("Undo the edits of the skeletons"), visible=False, elem_id="pose-undo-edits")
        self.search = gr.HTML(elem_id="pose-search")
        self.quit_search = gr.Button(say("Stop looking"), size="md", visible=False, elem_id="pose-stop-search")

    @property
    def taken(self) -> list[gr.components.Component]:
        """What following something else updates."""
        return [
            *(self.clip, self.chosen, self.file, self.there, self.source, self.about_clip),
            *(*self.poses.values(), self.controls["fps"], self.problem, self.figure, self.undo_edits, self.unedited),
        ]

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
            return self.follow_motion(FIRST)
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
            self.figure: gr.skip(),
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
            self.figure: "",  # its skeletons are those of something else
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
            yield {self.figure: "", self.search: problem, self.quit_search: gr.Button(visible=False)}
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
            self.figure: "",
            self.search: html.stopped(said("Stopped."), said("Generate looks for the skeletons itself.")),
            self.quit_search: gr.Button(visible=False),
        }

    def keep_pace(self, visitor_id: str, name: str, motion: str, stride: float) -> float:
        measured = self.backend.assets.clip(name, visitor_id).clip if name else self.backend.assets.motion(motion)
        return pose_controls.pace(measured, stride)

    def choose_motion(self, event: gr.EventData) -> dict:
        return self.follow_motion(event.motion)

    @property
    def looks(self) -> dict:
        """How an event has the skeletons looked for anew."""
        outputs = [self.figure, self.search, self.seen, self.quit_search, self.poses["person"]]
        inputs = {self.owner, *self.named.values()}
        return {"fn": self.look, "inputs": inputs, "outputs": outputs, "concurrency_limit": None, **LOOKING}

    @property
    def looks_again(self) -> dict:
        """As `looks`, whatever is looked for already."""
        return self.looks | {"trigger_mode": "multiple"}

    def connect_choice(self, this: gr.Tab, given: gr.State) -> None:
        """Follows what is chosen, and what `given` gives; looks for skeletons where that, or how, has changed, and
        when the tab, `this`, is opened."""
        poses, there, owner = self.poses, self.controls, self.owner
        again, looks = self.looks_again, self.looks
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
        kept_pace = [owner, self.clip, self.chosen, poses["stride"]]
        poses["stride"].release(self.keep_pace, kept_pace, there["fps"], **QUIET)
        drawn = ("stride", "left", "right", "top", "bottom")
        gr.on([*(poses[name].release for name in drawn), there["frames"].release], **again)
        decided = ("shown", "detector", "person", "gaps", "smoothing", "placing", "retarget")
        gr.on([poses[name].input for name in decided], **again)
        boxes = (poses["start"], poses["end"], there["width"], there["height"])
        gr.on([listen for box in boxes for listen in (box.submit, box.blur)], **again)
        gr.on([this.select], **looks | {"fn": self.first_look, "inputs": {self.seen, *looks["inputs"]}})
        quits = [self.figure, self.search, self.quit_search]
        self.quit_search.click(self.quit_looking, owner, quits, queue=False, **QUIET)
