"""The tab that edits a clip: tune on it once, then edit it with other words as often as you like."""

from dataclasses import asdict

import gradio as gr

from pipelines.cards import ModelCard
from pipelines.catalog import find, offered
from pipelines.events import Failed
from pipelines.messages import said
from pipelines.serving.backend import Backend, Tuning
from pipelines.serving.job import Job
from pipelines.tasks import Edit
from ui import controls, edit_html, estimates, finish, forms, hints, html, hub, shortcuts, tune_clip, visitor, why
from ui.follower import QUIET, Hold, Stage, View, ends, forgets, halting, progress
from ui.informing import INFORMING, or_nothing
from ui.languages import PROMPTS, say, tell
from ui.media import CLICKS, export, scroll_to
from ui.player import Film, film, films, player
from ui.refill import Form

LEARNED = say(
    '<div class="message stopped" role="status"><b>The model has learned the clip.</b> '
    "Change some of the words below, and press Edit.</div>"
)
PUBLISHED = {name: card for name, card in offered("edit").items() if card.tuning is None}
_TO_EDIT = """() => {  // where the page has just said that it goes on there
  if (!document.querySelector('#learned')?.offsetHeight) return;
  document.querySelector('#retell')?.scrollIntoView({block: 'start'});
  if (document.activeElement === document.body) {
    document.querySelector('#edit-prompt textarea')?.focus({preventScroll: true});
  }
}"""

_TO_LINE = scroll_to("#edit-line")
_TO_PANEL = """() => {  // once it is there
  let tries = 50;
  const go = () => {
    const panel = document.querySelector('#retell');
    if (panel?.offsetHeight) panel.scrollIntoView({block: 'start'});
    else if (tries--) setTimeout(go, 100);
  };
  go();
}"""


class EditTab:
    """The tab: tune on a clip, choose a tuned model, edit."""

    def __init__(
        self,
        backend: Backend,
        owner: gr.BrowserState,
        this: gr.Tab,
        arrived: gr.events.Dependency,
        given: gr.State,
    ):
        """Builds the tab `this`, which is open. After `arrived` it is known who `owner` is.

        `given` is where the library puts a video that is to be the clip.
        """
        self.backend = backend
        self.chosen = gr.State("")  # the tuned model that is worked with
        self.changed = gr.State(0)  # counts up whenever a tuned model was renamed, deleted or resumed
        self.wanted = gr.State()  # an edit whose settings are to be used again
        gr.HTML(say("<h2>1. Learn a clip (tune)</h2>"), elem_classes="step")
        self.bench = tune_clip.Bench(backend, owner, arrived, self.changed, given)
        gr.HTML(say("<h2>2. Choose a tuned model</h2>"), elem_classes="step")
        self.shelf = gr.HTML(elem_id="tunings", js_on_load=CLICKS)
        self.panel = Panel(backend, owner, arrived, self.chosen, self.changed, self.wanted, self.shelf)
        hub.keeping(backend, owner, self.chosen)
        seen = {"fn": self.list_tuned, "inputs": [owner, self.chosen], "outputs": self.shelf, **QUIET}
        tuned = self.bench.shown
        learned = tuned.change(self.go_on, tuned, [self.chosen, self.panel.learned], **QUIET).then(**seen)
        learned.then(None, js=f"() => setTimeout({_TO_EDIT}, 300)", **QUIET)
        gr.on([this.select, self.changed.change, self.chosen.change], **seen)

    def go_on(self, identifier: str) -> dict:
        """Something was tuned: it is chosen, and the page says so where it goes on."""
        learned = gr.HTML(visible=bool(identifier))
        return {self.chosen: identifier or gr.skip(), self.panel.learned: learned}

    def list_tuned(self, visitor_id: str, identifier: str) -> str:
        tunings = self.backend.tunings
        return edit_html.tunings(tunings.of(visitor_id), tunings.built_in(), PUBLISHED, identifier)

    def fill(self, task: Edit) -> dict:
        """The updates that fill in what `task` says, by the model that made it."""
        return {self.chosen: task.told_by, self.wanted: asdict(task)}

    @property
    def form(self) -> Form:
        """For those who fill the tab from elsewhere."""
        return Form("edit-clip", [self.chosen, self.wanted], self.fill)


class Panel(Stage):
    """The last step: the model that was chosen edits the clip with other words."""

    KINDS = (Edit,)

    def __init__(
        self,
        backend: Backend,
        owner: gr.BrowserState,
        arrived: gr.events.Dependency,
        chosen: gr.State,
        changed: gr.State,
        wanted: gr.State,
        shelf: gr.HTML,
    ):
        """Builds itself where it is called. The model is `chosen` on the `shelf`, or with the edit that is `wanted`."""
        super().__init__(backend, owner, chosen)
        self.chosen, self.changed = chosen, changed
        first = next(iter(offered("edit").values()))
        with gr.Column(visible=False, elem_id="retell") as self.panel:
            self.heading = gr.HTML(elem_classes="step")
            self.learned = gr.HTML(LEARNED, visible=False, elem_id="learned")
            with gr.Row(elem_classes="bench"):
                with gr.Column():
                    self._build_question(first)
                    self._build_management()
                with gr.Column():
                    self._build_stage()
        self._connect_panel(wanted, shelf)
        self._connect_jobs(arrived)

    def _build_question(self, first: ModelCard) -> None:
        self.prompt = gr.Textbox(
            label=say("Edit"),
            info=PROMPTS,
            placeholder=say("The caption with other words. One video a line."),
            lines=3,
            max_lines=8,
            elem_id="edit-prompt",
        )
        self.ideas = gr.HTML(visible=False, elem_id="edit-ideas", js_on_load=CLICKS)
        self.hints = gr.HTML()
        self.problem = gr.HTML(visible=False, elem_id="edit-problem")
        forgets(self.problem, self.prompt.change)
        with gr.Row(elem_classes="acts"):
            self.retell = gr.Button(say("Edit"), variant="primary", size="lg", elem_id="edit")
            self.hold = Hold("edit")
            self.halt = gr.Button(say("Stop"), variant="stop", size="lg", visible=False, elem_id="stop-edit")
        self.ahead = estimates.Ahead(self.backend, "edit-ahead")
        with gr.Accordion(say("Fine settings of the edit"), open=False, elem_id="fine-edit"):
            names = ("strength", "guidance", "steps", "scheduler", "negative_prompt", "sound", "seed")
            self.controls = controls.controls(Edit, names, first, "edit-")
            self.controls |= shortcuts.build(Edit, first, "edit-")

    def _build_management(self) -> None:
        with gr.Accordion(say("This tuned model"), open=False, elem_id="manage") as self.managing:
            self.name = gr.Textbox(label=say("Name"), max_lines=1, elem_id="tuned-name")
            with gr.Row():
                self.rename = gr.Button(say("Rename"), size="md", elem_id="rename")
                self.resume = gr.Button(say("Resume tuning"), size="md", visible=False, elem_id="resume")
                self.export = gr.Button(say("Export"), size="md", elem_id="export")
                self.delete = gr.Button(say("Delete"), size="md", elem_id="delete-tuned")
            self.really = gr.Button(
                say("Delete for good"), size="md", variant="stop", visible=False, elem_id="really-tuned"
            )
            self.archive = gr.File(label=say("The tuned model"), visible=False, elem_id="archive")

    def _build_stage(self) -> None:
        self.message = gr.HTML(visible=False, elem_id="edit-message")
        self.about = gr.HTML(elem_id="edit-model")
        self.video = player(say("The edit"), elem_id="edit-result")
        self.line = gr.HTML(elem_id="edit-line")
        self.waiting = gr.HTML(elem_id="edit-waiting", js_on_load=CLICKS)
        with gr.Column(visible=False) as self.told:
            with gr.Row(elem_id="edit-downloads"):
                self.mp4 = gr.DownloadButton(say("Download MP4"), size="md", elem_id="edit-mp4")
                export(say("Download GIF"), "gif", self.backend, self.owner, self.shown, "edit-gif")
            self.finish = finish.Finishing(self.backend, self.owner, self.shown, "finish-edit")
            why.section(why.EDIT, "edit-why")
            with gr.Accordion(say("How it was made"), open=False, elem_id="edit-facts"):
                self.facts = gr.JSON(show_label=False, container=False)
        self.table = gr.HTML(elem_id="edits", js_on_load=CLICKS)

    # The model that was chosen -------------------------------------------------------------------------------------

    def tuning_of(self, identifier: str, visitor_id: str) -> Tuning:
        for tuning in self.backend.tunings.offered(visitor_id):
            if tuning.job.id == identifier:
                return tuning
        raise ValueError(said("The tuned model of this video is not here."))

    def tuned(self, identifier: str, visitor_id: str) -> Tuning | ModelCard:
        return PUBLISHED.get(identifier) or self.tuning_of(identifier, visitor_id)

    def made(self, identifier: str, visitor_id: str) -> list[Job]:
        jobs = self.backend.jobs.finished(visitor_id, kind="edit")
        return [job for job in jobs if isinstance(job.task, Edit) and job.task.told_by == identifier]

    def open(self, visitor_id: str, identifier: str, again: dict | None) -> dict:
        """Shows the panel for the chosen model, with the settings of an edit that is wanted `again`."""
        if again is None or (again["tuned"] or again["model"]) != identifier:
            again = {}
        if identifier in PUBLISHED:
            return self._open_published(visitor_id, PUBLISHED[identifier], again)
        try:
            tuning = self.tuning_of(identifier, visitor_id)
        except ValueError as error:
            if identifier:
                gone = tell("{sentence} Tune on the clip once more.", sentence=str(error))
                gr.Warning(gone, title=tell("Note"))
            return {self.panel: gr.Column(visible=False)}
        begin = tuning.ideas[0] if tuning.ideas else tuning.job.task.prompt
        settings = {"sound": False, "prompt": begin} | again
        card, title = find(tuning.job.task.model), edit_html.title_of(tuning)
        return self._filled(visitor_id, identifier, title, card, settings) | {
            self.about: "",
            self.ideas: gr.HTML(edit_html.idea(tuning) if tuning.built_in else "", visible=tuning.built_in),
            self.controls["sound"]: gr.Checkbox(settings["sound"], visible=tuning.sound),
            self.managing: gr.Accordion(visible=not tuning.built_in),
            self.name: tuning.job.title,
            self.resume: gr.Button(visible=isinstance(tuning.job.end, Failed)),
            self.really: gr.Button(visible=False),
            self.archive: gr.File(visible=False),
        }

    def _open_published(self, visitor_id: str, card: ModelCard, again: dict) -> dict:
        """It has no clip here, so there is no motion of one to be kept, and nothing to be managed."""
        settings = {"prompt": f"{card.title}."} | again
        return self._filled(visitor_id, card.name, card.title, card, settings) | {
            self.about: html.model_card(card, self.backend.machine.availability(card.name)),
            self.ideas: gr.HTML(visible=False),
            self.managing: gr.Accordion(visible=False),
        }

    def _filled(self, visitor_id: str, identifier: str, title: str, card: ModelCard, settings: dict) -> dict:
        """What is the same for both; `settings` are those that are not the model's own."""
        jobs = self.made(identifier, visitor_id)
        return {
            self.panel: gr.Column(visible=True),
            self.heading: _heading(title),
            self.prompt: settings["prompt"],
            self.problem: gr.HTML(visible=False),
            **controls.updates(Edit, self.controls, card, settings),
            **self.updates(visitor_id, None, jobs[0].id if jobs else "", identifier),
        }

    def show(self, visitor_id: str, followed: object, _: object, identifier: str, event: gr.EventData) -> dict:
        """An edit was chosen in the table."""
        return self.updates(visitor_id, followed, event.job, identifier)

    def take_idea(self, visitor_id: str, identifier: str, event: gr.EventData) -> str:
        """The prompt that was pressed. Raises ValueError for one that there is not."""
        ideas = self.backend.tunings.get(identifier, visitor_id).ideas
        if str(event.example) not in map(str, range(len(ideas))):
            raise ValueError(said("There is no such example."))
        return ideas[int(event.example)]

    def card_of(self, visitor_id: str, identifier: str) -> ModelCard:
        """The model that was chosen, or from which it was tuned."""
        found = self.tuned(identifier, visitor_id)
        return found if isinstance(found, ModelCard) else find(found.job.task.model)

    def hint(self, visitor_id: str, identifier: str, prompts: str) -> str:
        return hints.of(self.backend, self.card_of(visitor_id, identifier).name, prompts)

    def values(self, data: dict) -> dict[str, object]:
        """What the controls say, by the names of the settings."""
        return {name: data[control] for name, control in (self.controls | {"prompt": self.prompt}).items()}

    def foresee(self, data: dict) -> dict:
        """Tells how long the edits will take."""
        chosen = data[self.chosen], data[self.owner]
        return self.ahead.foresee(lambda: forms.edits(self.values(data), self.tuned(*chosen)))

    def manage(self, act: str, visitor_id: str, identifier: str, count: int, title: str) -> dict:
        """One of the buttons of a tuned model was pressed."""
        try:
            match act:
                case "rename":
                    self.backend.tunings.rename(identifier, visitor_id, title)
                case "resume":
                    self.backend.tunings.resume(identifier, visitor_id, visitor.ADDRESS.get())
                case "delete":
                    self.backend.jobs.delete(identifier, visitor_id)
                case "export":
                    exported = self.backend.assets.address(self.backend.tunings.export(identifier, visitor_id))
                    return {self.archive: gr.File(exported, visible=True)}
        except (ValueError, OSError) as error:
            return {self.problem: gr.HTML(html.failure(str(error), said("That did not work.")), visible=True)}
        if act == "rename":
            return {self.changed: count + 1, self.heading: _heading(title)}
        left = "" if act == "delete" else identifier
        return {self.changed: count + 1, self.chosen: left, self.really: gr.Button(visible=False)}

    def _connect_panel(self, wanted: gr.State, shelf: gr.HTML) -> None:
        filled = [self.panel, self.heading, self.prompt, self.problem, *self.controls.values()]
        filled += [self.about, self.ideas, self.managing, self.name, self.resume, self.really, self.archive]
        forgets(self.problem, *self.controls.values())
        pick = shelf.click(_picked, None, self.chosen, **QUIET)
        gr.on([shelf.click, self.retell.click], lambda: gr.HTML(visible=False), None, self.learned, **QUIET)
        opened = gr.on(
            [self.chosen.change, wanted.change],
            self.open,
            [self.owner, self.chosen, wanted],
            [*filled, *self.all_outputs],
            **QUIET,
        )
        pick.then(None, js=_TO_PANEL)
        self.ideas.click(self.take_idea, [self.owner, self.chosen], self.prompt, **QUIET)
        shortcuts.choose(Edit, self.controls, self.card_of, [self.owner, self.chosen])
        latest = INFORMING | {"trigger_mode": "always_last"}
        self.prompt.change(or_nothing(self.hint), [self.owner, self.chosen, self.prompt], self.hints, **latest)
        foreseen = {self.owner, self.chosen, self.prompt, *self.controls.values(), self.shown}
        self.ahead.asks(self.foresee, foreseen, [opened])
        self.delete.click(lambda: gr.Button(visible=True), None, self.really, **QUIET)
        managed = [self.changed, self.chosen, self.heading, self.really, self.archive, self.problem]
        buttons = {"rename": self.rename, "resume": self.resume, "delete": self.really, "export": self.export}
        for act, button in buttons.items():
            given = [self.owner, self.chosen, self.changed, self.name]
            button.click(lambda *values, act=act: self.manage(act, *values), given, managed, **QUIET)

    # One click, followed through -----------------------------------------------------------------------------------

    def belongs(self, job: Job, visitor_id: str, identifier: object = None) -> bool:
        return isinstance(job.task, Edit) and job.task.told_by == identifier

    @property
    def outputs(self) -> list[gr.components.Component]:
        return [
            *(self.message, self.line, self.waiting, self.halt, self.video, self.told, self.mp4, self.facts),
            *(self.table, *self.hold.buttons),
        ]

    def state(self, view: View) -> dict:
        made, (identifier,) = view.shown, view.about
        address = self.backend.assets.address(made.result.video) if made else None
        return {
            **ends(self.message, view),
            **progress(self.line, self.waiting, view),
            self.halt: halting(view),
            **self.hold.state(view),
            self.video: films(self._clip(identifier, view.owner), film(address, made.task.prompt if made else "")),
            self.told: gr.Column(visible=made is not None),
            self.mp4: gr.DownloadButton(value=address),
            self.facts: html.rounded(made.result.facts) if made else None,
            self.table: edit_html.edits(self.made(identifier, view.owner), made.id if made else ""),
        }

    def _clip(self, identifier: str, visitor_id: str) -> Film | None:
        """What the chosen model was tuned on; a published model has no clip here."""
        try:
            tuning = self.backend.tunings.get(identifier, visitor_id)
        except ValueError:
            return None
        assets = self.backend.assets
        address = assets.built_in(tuning.video) if tuning.built_in else assets.address(tuning.video)
        return film(address, part="clip")

    def press(self, data: dict) -> dict:
        """Edit was pressed."""
        visitor_id, identifier = data[self.owner], data[self.chosen]
        jobs: list[str] = []
        problem = gr.HTML(visible=False)
        try:
            for task in forms.edits(self.values(data), self.tuned(identifier, visitor_id)):
                jobs.append(self.backend.jobs.submit(task, visitor_id, visitor.ADDRESS.get()))
        except ValueError as error:
            problem = gr.HTML(html.failure(str(error)), visible=True)
        following = data[self.followed], data[self.shown], identifier
        return {self.problem: problem, **self.updates(visitor_id, *following, new=jobs)}

    def arrive(self, visitor_id: str) -> str | dict:
        """The page was opened: the model is chosen whose edits wait or run."""
        going = [one.task for one in self.backend.jobs.unfinished(visitor_id) if isinstance(one.task, Edit)]
        return going[0].told_by if going else gr.skip()

    def _connect_jobs(self, arrived: gr.events.Dependency) -> None:
        following = {"outputs": [self.problem, *self.all_outputs], "concurrency_limit": None, **QUIET}
        form = {*self.asked, self.prompt, *self.controls.values()}
        gr.on([self.retell.click, self.prompt.submit], self.press, form, **following)
        self.retell.click(None, js=_TO_LINE, queue=False, **QUIET)  # on a phone it may be out of sight
        arrived.then(self.arrive, self.owner, self.chosen, **QUIET)
        self.connect(self.halt, self.hold, self.waiting, self.ahead)
        self.table.click(self.show, self.asked, self.all_outputs, concurrency_limit=None, **QUIET)


def _picked(event: gr.EventData) -> str:
    return event.job


def _heading(title: str) -> str:
    return f"<h2>{tell('3. Edit with “{name}”', name=html.escape(title))}</h2>"
