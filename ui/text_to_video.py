"""The text-to-video tab: its controls, what they do to each other, and one click followed through.

The file is long because the tab is one class, and the examples that it opens with stand before it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import gradio as gr

from pipelines.cards import ModelCard
from pipelines.catalog import ASSETS, find, offered
from pipelines.messages import said
from pipelines.serving.backend import Backend
from pipelines.serving.job import Job
from pipelines.settings import Settings
from pipelines.tasks import Grid, Task, TextToVideo
from ui import (
    controls,
    estimates,
    finish,
    first_image,
    forms,
    given,
    hints,
    html,
    matrix,
    public,
    shortcuts,
    visitor,
    why,
)
from ui.follower import QUIET, Hold, Stage, View, ends, forgets, halting, progress
from ui.informing import INFORMING, or_nothing
from ui.languages import PROMPTS, drawn, say
from ui.media import ARROWS, CLICKS, export, scroll_to
from ui.model_list import ModelList
from ui.player import films, player
from ui.refill import Form
from ui.words import with_word

PICTURES = ASSETS / "examples"
# The first video of a visitor, chosen by eye (scripts/candidates.py). Choose anew when the built-in models change.
FIRST_PROMPT, FIRST_SEED = "A bear wearing green dances in the snow", 21


@dataclass(frozen=True)
class Example:
    """A task to begin with, so that one click sets every control."""

    pictures: str  # assets/examples/{pictures}.webp, moving, .png, still, and .mp4, its video; it does without them
    expect: str
    task: TextToVideo

    def film(self, backend: Backend) -> str | None:
        """The address of its video, made before (scripts/pictures.py); None where there is none."""
        file = PICTURES / f"{self.pictures}.mp4"
        return backend.assets.built_in(file) if file.exists() else None

    def picture(self, kind: str) -> str | None:
        """Where a browser finds its picture; None where there is none."""
        file = PICTURES / f"{self.pictures}.{kind}"
        return public.picture(file) if file.exists() else None


def _example(pictures: str, expect: str, prompt: str, seed: int, **settings: object) -> Example:
    return Example(pictures, expect, TextToVideo.for_model(find("miniature-modelscope"), prompt, seed, **settings))


EXAMPLES = (
    _example("robot", "2 seconds", "A robot in blue waving on the beach", 7),
    _example("bear", "Ready sooner", FIRST_PROMPT, FIRST_SEED, steps=15),
    _example("astronaut", "3 seconds", "An astronaut in orange jumping on the moon", 5, frames=24),
    _example("person", "Another sampler", "A person in red bows in the forest", 12, scheduler="ddim"),
    _example("android", "Closer to the prompt", "A robot in yellow kicks a leg up in the desert", 3, guidance=4.0),
    _example("woman", "Plays faster", "A woman in purple walking in the city", 40, fps=12, scheduler="unipc"),
)

ON_STAGE = 2  # the number of the example that plays before a visitor has made anything
EXAMPLE_NOTE = say('<p class="caption"><b>An example</b>, made before. Press Generate to make your own.</p>')
TO_PROMPT = """() => setTimeout(() => {  // of the tab that is open by then
  const prompts = [...document.querySelectorAll('#prompt, #pose-prompt, #edit-prompt, #clip-caption')];
  prompts.reverse().find((one) => one.offsetHeight)?.scrollIntoView({block: 'center'});
}, 300)"""
_TO_STAGE = scroll_to("#stage", "#line")
FRAMES_LABEL = f"""(frames, fps) => ({{__type__: 'update', label: '{say("Frames")}' + (
  frames && fps ? `: ${{frames}} = ${{(frames / fps).toFixed(1)}} s` : '')}})"""


class TextToVideoTab(Stage):
    """The tab: its controls, and what its stage shows."""

    KINDS = (TextToVideo, Grid)

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        owner: gr.BrowserState,
        arrived: gr.events.Dependency,
        begun: gr.State,
    ):
        """Builds the tab inside the Blocks that is open. After `arrived` it is known who `owner` is.

        `begun` is where the library puts a first image, as (its name, the time at which it was put there).
        """
        self.example = gr.State()  # the number of the example on the stage, while it shows no video of the visitor's
        super().__init__(backend, owner, self.example)
        first = _opening(settings.model)
        self.first_example = ON_STAGE if EXAMPLES[ON_STAGE].task.model == first.name else None
        self.picked = gr.State(True)  # whether the seed was chosen for the visitor: a video is made of it first
        with gr.Row(elem_id="theatre"):
            with gr.Column(elem_id="ask"):
                self._build_question(first)
            with gr.Column(elem_id="show"):
                self._build_stage()
            with gr.Column(elem_id="settings"):
                self._build_settings(first)
        gr.HTML(say("<h2>Examples</h2>"), elem_id="examples-title")
        self.examples = gr.HTML(
            say("|".join(one.expect for one in EXAMPLES)),
            html_template=html.examples(_thumbnails()),
            elem_id="examples",
            js_on_load=CLICKS,
        )
        self.filled = [
            *(self.prompt, *self.models.form, self.seed, self.randomise),
            *self.several.form,
            *self.controls.values(),
            *self.given.controls,
            *self.ahead.outputs,
        ]
        self._connect_controls(begun)
        self._connect_jobs(arrived)

    def _build_question(self, first: ModelCard) -> None:
        self.prompt = gr.Textbox(
            FIRST_PROMPT,
            label=say("What should the video show?"),
            info=PROMPTS,
            lines=3,
            max_lines=8,
            elem_id="prompt",
            placeholder=say("Who, wearing what, doing what, where"),
        )
        self.chips = gr.HTML(
            drawn(lambda: html.chips(FIRST_PROMPT, first)), elem_id="chips", js_on_load=CLICKS + ARROWS
        )
        self.hints = gr.HTML(html.prompt_hints("", first, None), elem_id="hints")
        self.given = given.build(self.backend, self.owner, first)
        self.image = self.given.image
        self.problem = gr.HTML(visible=False, elem_id="problem")
        forgets(self.problem, self.prompt.change)
        with gr.Row(elem_classes="acts"):
            self.generate = gr.Button(say("Generate"), variant="primary", size="lg", elem_id="generate")
            self.hold = Hold("text")
            self.halt = gr.Button(say("Stop"), variant="stop", size="lg", elem_id="stop", visible=False)
        opening = [TextToVideo.for_model(first, "a clip", 0)]
        self.ahead = estimates.Ahead(self.backend, "ahead", opening)

    def _build_stage(self) -> None:
        self.message = gr.HTML(visible=False, elem_id="message")
        with gr.Column(elem_id="stage"):
            self.scene = gr.HTML(html.scene("closed"), elem_id="scene")
            self.video = player(say("Your video"), elem_id="video", visible=False)
        self.note = gr.HTML(EXAMPLE_NOTE, visible=False, elem_id="example-note")
        self.line = gr.HTML(elem_id="line")
        self.waiting = gr.HTML(elem_id="waiting", js_on_load=CLICKS)
        with gr.Column(visible=False, elem_id="result") as self.result:
            self.caption = gr.HTML(elem_id="caption")
            with gr.Row(elem_id="downloads"):
                self.mp4 = gr.DownloadButton(say("Download MP4"), size="md", elem_id="mp4")
                export(say("Download GIF"), "gif", self.backend, self.owner, self.shown, "gif")
            self.finish = finish.Finishing(self.backend, self.owner, self.shown, "finish")
            why.section(why.TEXT_TO_VIDEO, "why")
            with gr.Accordion(say("How it was made"), open=False, elem_id="facts"):
                self.facts = gr.JSON(show_label=False, container=False)

    def _build_settings(self, first: ModelCard) -> None:
        self.models = ModelList(offered("text-to-video").values(), first, "model")
        self.model = self.models.control
        self.about = gr.HTML(_about(self.backend, first), elem_id="about")
        with gr.Accordion(say("Fine settings"), open=False, elem_id="fine"):
            self.controls = sampling(TextToVideo, first)
            self.several = matrix.build()
        self.seed, self.randomise, self.dice = (self.controls.pop(name) for name in ("seed", "randomise", "dice"))

    # What the controls do to each other ---------------------------------------------------------------------------

    def choose_model(self, name: str, filled: str = "") -> dict:
        """The updates that fill in its own settings, unless they were `filled` in for it last."""
        if name == filled:
            return {self.models.filled: name}
        card = find(name)
        values = asdict(card.defaults)
        updates = controls.updates(TextToVideo, self.controls, card, values) | self.given.fill(card, values)
        return updates | {self.models.filled: name}

    def fill(self, task: Task) -> dict:
        """The updates that show what `task` says. Raises ValueError for one that another tab makes."""
        if not isinstance(task, TextToVideo | Grid):
            raise ValueError(
                said("These are settings of another tab. Use them there, with the clip that they belong to.")
            )
        of = task.of if isinstance(task, Grid) else task
        card, values = find(task.model), asdict(of)
        chosen = {self.prompt: task.prompt, self.seed: task.seed, self.randomise: False}
        return (
            chosen
            | self.models.shows(task.model)
            | self.several.fill(task)
            | controls.updates(TextToVideo, self.controls, card, values)
            | self.given.fill(card, values)
            | self.ahead.foresee(lambda: [of] * (len(task.jobs) if isinstance(task, Grid) else 1))
        )

    def begin_with(self, frame: tuple[str, float], name: str) -> dict:
        """Chooses a model that takes a first image where the chosen one takes none."""
        return {**self.choose_image(True, name), self.image.image: frame[0], self.image.mask: ""}

    def choose_image(self, wanted: bool, name: str) -> dict:
        """Chooses the first model that takes a first image, or that takes none, where the chosen one is no such."""
        if ("image" in find(name).takes) != wanted:
            name = next(name for name, card in offered("text-to-video").items() if ("image" in card.takes) == wanted)
            return {self.model: name, **self.choose_model(name)}
        return {self.image.choice: wanted}

    def choose_example(self, visitor_id: str, followed: object, event: gr.EventData) -> dict:
        """Fills the form with an example and plays its video. Raises ValueError for one that there is not."""
        if str(event.example) not in map(str, range(len(EXAMPLES))):
            raise ValueError(said("There is no such example."))
        number = int(event.example)
        filled = self.fill(EXAMPLES[number].task) | {self.randomise: True, self.picked: True, self.example: number}
        return filled | self.updates(visitor_id, followed, "", number)

    def hint(self, text: str, name: str, rows: bool) -> str:
        return hints.of(self.backend, name, text, rows)

    def say_word(self, text: str, name: str, event: gr.EventData) -> str:
        """The prompt, its last line where there are several, with a word that was pressed. Raises ValueError for one
        that the model does not list."""
        *before, last = str(text or "").split("\n")
        return "\n".join([*before, with_word(last, str(event.kind), str(event.word), find(name).vocabulary or {})])

    def values(self, data: dict) -> dict[str, object]:
        """What the controls say, by the names of the settings."""
        named = self.controls | self.given.named | {"prompt": self.prompt, "model": self.model, "seed": self.seed}
        return {name: data[control] for name, control in named.items()}

    def foresee(self, data: dict) -> dict:
        """Tells how long the video will take, or all of a grid."""

        def tasks() -> list[TextToVideo]:
            values = self.given.clip.foreseen(self.values(data))
            if data[self.several.on]:
                return forms.texts_to_videos(values, data[self.several.seeds])
            return [forms.text_to_video(values | {"prompt": "a clip", "seed": 0})]

        return self.ahead.foresee(tasks)

    def _connect_controls(self, begun: gr.State) -> None:
        quiet = QUIET | {"queue": False}
        settable = [self.model, self.seed, *self.several.form, *self.controls.values(), *self.given.form]
        forgets(self.problem, *settable, self.dice.click, self.given.clip.sheet.click)
        forgets(self.message, self.model)
        choosing = [self.models.filled, *self.controls.values(), *self.given.controls]
        changed = [
            self.model.input(self.choose_model, self.models.form, choosing, **quiet),
            self.image.choice.input(
                self.choose_image, [self.image.choice, self.model], [self.model, *choosing], **quiet
            ),
        ]
        shortcuts.choose(TextToVideo, self.controls, find, [self.model])
        # Only an event of the queue has gradio notice that a State has changed: here the first image.
        changed.append(begun.change(self.begin_with, [begun, self.model], [self.model, *choosing], **QUIET))
        played = list(dict.fromkeys([*self.filled, self.picked, self.example, *self.all_outputs]))
        chosen = {"fn": self.choose_example, "inputs": [self.owner, self.followed], "outputs": played, **QUIET}
        self.examples.click(**chosen).then(None, js=_TO_STAGE)
        self.randomise.input(lambda: False, None, self.picked, **quiet)  # who wants new seeds gets one at once
        # Without a trigger of its own, an event runs when the page opens and whenever one of its inputs changes.
        gr.on(None, or_nothing(lambda name: _about(self.backend, find(name))), self.model, self.about, **INFORMING)
        hinted, latest = [self.prompt, self.model, self.several.on], INFORMING | {"trigger_mode": "always_last"}
        gr.on(None, or_nothing(self.hint), hinted, self.hints, **latest)
        foreseen = {*self.several.form, self.prompt, self.model, self.seed, *self.controls.values(), self.shown}
        foreseen |= {*self.given.named.values()}
        self.ahead.asks(self.foresee, foreseen, changed)
        gr.on(
            [self.prompt.change, self.model.change],
            or_nothing(lambda text, name: html.chips(str(text or "").split("\n")[-1], find(name))),
            [self.prompt, self.model],
            self.chips,
            **latest,
        )
        self.chips.click(self.say_word, [self.prompt, self.model], self.prompt, **quiet)
        frames, fps = self.controls["frames"], self.controls["fps"]
        gr.on(None, None, [frames, fps], frames, js=FRAMES_LABEL, **quiet)
        self.dice.click(lambda: (forms.new_seed(), False), None, [self.seed, self.randomise], **quiet)
        self.seed.input(lambda: False, None, self.randomise, **quiet)  # who types a seed wants that one

    # One click, followed through ----------------------------------------------------------------------------------

    @property
    def outputs(self) -> list[gr.components.Component]:
        return [
            *(self.message, self.scene, self.video, self.note, self.line, self.waiting, self.result, self.caption),
            *(self.mp4, self.facts, self.halt, *self.hold.buttons),
        ]

    def state(self, view: View) -> dict:
        made, going = view.shown, bool(view.going)
        film = self.backend.assets.address(made.result.video) if made else None
        ready = False
        if made is None and not view.unfinished and view.about[0] is not None:
            ready, film = True, EXAMPLES[view.about[0]].film(self.backend)
        state = "open" if film and not going else "working" if view.unfinished else "closed"
        return {
            **ends(self.message, view),
            self.scene: html.scene(state, view.moment),
            self.video: gr.HTML(films(film), visible=film is not None),
            self.note: gr.HTML(visible=ready and film is not None),
            **progress(self.line, self.waiting, view),
            self.result: gr.Column(visible=made is not None and not going),
            self.caption: html.caption(made.made) if made else "",
            self.mp4: gr.DownloadButton(value=film if made else None),
            self.facts: html.rounded(made.result.facts) if made else None,
            self.halt: halting(view),
            **self.hold.state(view),
        }

    def press(self, data: dict) -> dict:
        """Generate was pressed."""
        visitor_id = visitor.known(data[self.owner])
        values, randomise = self.values(data), data[self.randomise] and not data[self.picked]
        image, mask, strokes, guidance = (data[control] for control in self.image.form)
        try:
            values |= first_image.settings(self.backend, visitor_id, image, mask, strokes, guidance)
            values = self.given.clip.painted(
                self.backend, visitor_id, values, data[self.given.clip.mask], data[self.given.clip.strokes]
            )
            if data[self.several.on]:
                tasks = forms.texts_to_videos(values, data[self.several.seeds], randomise)
            else:
                tasks = [forms.text_to_video(values, randomise)]
            jobs = self._submit(tasks, visitor_id)
        except ValueError as error:
            return {self.problem: gr.HTML(html.failure(str(error)), visible=True)}
        return {
            **{self.owner: visitor_id, self.seed: tasks[0].seed, self.picked: False},
            self.problem: gr.HTML(visible=False),
            **self.updates(visitor_id, data[self.followed], data[self.shown], data[self.example], new=jobs),
        }

    def _submit(self, tasks: list[TextToVideo], visitor_id: str) -> list[str]:
        if len(tasks) > 1:
            return self.backend.jobs.submit_grid(tasks, visitor_id, visitor.ADDRESS.get())
        return [self.backend.jobs.submit(tasks[0], visitor_id, visitor.ADDRESS.get())]

    def arrive(self, visitor_id: str) -> dict:
        """The page was opened: what is being made is shown, or what was made last, with its settings."""
        kinds = ("text-to-video", "grid")
        made = [one for kind in kinds for one in self.backend.jobs.finished(visitor_id, limit=1, kind=kind)]
        latest = sorted(made, key=lambda one: one.ended or 0.0)[-1:]
        going = self.unfinished(visitor_id)
        example = None if going or latest else self.first_example
        updates = {self.example: example, self.picked: not (going or latest)}
        updates |= self.updates(visitor_id, None, latest[0].id if latest else "", example)
        for one in [_whole(going)] if going else latest:
            with suppress(ValueError):  # of a model that is not offered any more
                updates |= self.fill(one.task.checked()) | {self.randomise: True}
        return updates

    def _connect_jobs(self, arrived: gr.events.Dependency) -> None:
        form = {*self.given.form, *self.several.form, self.prompt, self.model, self.seed, self.randomise}
        form |= {self.picked, *self.asked, *self.controls.values()}
        pressed = [self.owner, self.seed, self.picked, self.problem, *self.all_outputs]
        following = {"concurrency_limit": None, **QUIET}
        gr.on([self.generate.click, self.prompt.submit], self.press, form, pressed, **following)
        opened = list(dict.fromkeys([*self.all_outputs, *self.filled, self.example, self.picked]))
        arrived.then(self.arrive, self.owner, opened, **following)
        self.connect(self.halt, self.hold, self.waiting, self.ahead)
        self.generate.click(None, js=_TO_STAGE, **QUIET)  # on a phone it may be out of sight

    @property
    def form(self) -> Form:
        """For those who fill the tab from elsewhere."""
        return Form("text-to-video", self.filled, self.fill)


def sampling(kind: type, card: ModelCard, prefix: str = "") -> controls.Controls:
    """The fine settings as `card` recommends them: forms.SETTINGS and the seed's three. Ids begin with `prefix`."""
    made = controls.controls(kind, ("negative_prompt", "frames", "fps"), card, prefix)
    with gr.Row():
        for side in ("width", "height"):
            made[side] = controls.control(kind, side, card, prefix, min_width=120)
    made |= controls.controls(kind, ("steps", "guidance", "scheduler"), card, prefix)
    with gr.Row(elem_id=f"{prefix}seed-row"):
        made["seed"] = controls.control(kind, "seed", card, prefix, value=FIRST_SEED)
        made["dice"] = gr.Button(say("New seed"), size="md", elem_id=f"{prefix}dice", min_width=110)
    made["randomise"] = gr.Checkbox(
        True,
        label=say("A new seed each time"),
        info=say("Another video each time"),
        elem_id=f"{prefix}randomise",
    )
    return made | shortcuts.build(kind, card, prefix)


def _whole(going: Sequence[Job]) -> Job:
    """The first of the jobs; of a grid's videos the grid."""
    return next((job for job in going if isinstance(job.task, Grid) and going[0].id in job.task.jobs), going[0])


def _about(backend: Backend, card: ModelCard) -> str:
    return html.model_card(card, backend.machine.availability(card.name))


def _opening(name: str) -> ModelCard:
    """The model that the page opens with. Raises ValueError, in words for whoever set it, where there is none."""
    models = offered("text-to-video")
    if name not in models:
        raise ValueError(f"MARIONETTE_MODEL is {name[:80]!r}, which makes no videos of texts: {', '.join(models)} do.")
    return models[name]


def _thumbnails() -> list[html.Thumbnail]:
    return [
        html.Thumbnail(example.task.prompt, html.part(index), example.picture("png"), example.picture("webp"))
        for index, example in enumerate(EXAMPLES)
    ]
