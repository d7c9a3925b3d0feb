"""The text-to-video tab: its controls, what they do to each other, and one click followed through."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import gradio as gr

from pipelines.catalog import CATALOG, SCHEDULERS, ModelCard, Range, find, offered
from pipelines.events import Failed, Result
from pipelines.serving.backend import Backend
from pipelines.serving.jobs import Job
from pipelines.settings import Settings
from pipelines.tasks import Grid, Task, TextToVideo
from ui import estimates, finish, first_image, forms, html, matrix, shortcuts, stream, visitor, why
from ui.languages import ENGLISH_ONLY, say
from ui.media import CLICKS, export, player, slider, step
from ui.refill import Form

PICTURES = Path(__file__).resolve().parent.parent / "assets" / "examples"
FIRST_PROMPT = "A robot in blue waving on the beach"


@dataclass(frozen=True)
class Example:
    """A task to begin with, so that one click sets every control."""

    pictures: str  # assets/examples/{pictures}.webp, moving, and .png, still; it does without where there are none
    expect: str
    task: TextToVideo


def _example(pictures: str, expect: str, prompt: str, seed: int, **settings: object) -> Example:
    return Example(pictures, expect, TextToVideo.for_model(find("miniature-modelscope"), prompt, seed, **settings))


EXAMPLES = (
    _example("robot", "2 seconds, the usual settings", FIRST_PROMPT, 7),
    _example("bear", "Fewer steps: ready sooner", "A bear wearing green dances in the snow", 21, steps=15),
    _example("astronaut", "3 seconds", "An astronaut in orange jumping on the moon", 5, frames=24),
    _example("person", "DDIM, the plainest sampler", "A person in red bows in the forest", 12, scheduler="ddim"),
    _example("android", "Stronger guidance", "A robot in yellow kicks a leg up in the desert", 3, guidance=4.0),
    _example(
        "woman", "UniPC, and played faster", "A woman in purple walking in the city", 40, fps=12, scheduler="unipc"
    ),
)

TO_PROMPT = "() => document.querySelector('#prompt').scrollIntoView({block: 'center'})"
_TO_STAGE = "() => document.querySelector('#stage').scrollIntoView({block: 'nearest'})"
FRAMES_LABEL = f"""(frames, fps) => ({{__type__: 'update', label: '{say("Frames")}' + (
  frames && fps ? `: ${{frames}} = ${{(frames / fps).toFixed(1)}} s` : '')}})"""


def tab(
    backend: Backend, settings: Settings, owner: gr.BrowserState, arrived: gr.events.Dependency, begun: gr.State
) -> Form:
    """Builds the tab inside the Blocks that is open. After `arrived` it is known who `owner` is.

    `begun` is where the library puts a first image, as (its name, the time at which it was put there).
    """
    first = find(settings.model)
    job = gr.State()  # the jobs this visitor follows
    shown = gr.State()  # the job whose video is on the stage

    with gr.Row(elem_id="theatre"):
        with gr.Column(elem_id="ask"):
            prompt = gr.Textbox(
                FIRST_PROMPT,
                label=say("What should the video show?"),
                info=ENGLISH_ONLY,
                lines=3,
                max_lines=8,
                elem_id="prompt",
                placeholder=say("Somebody, somewhere, doing something"),
            )
            hints = gr.HTML(html.prompt_hints("", first, None), elem_id="hints")
            begin = first_image.build(backend, owner, first)
            generate = gr.Button(say("Generate"), variant="primary", size="lg", elem_id="generate")
            stop = gr.Button(say("Stop"), variant="stop", size="lg", elem_id="stop", visible=False)
            ahead = gr.HTML(estimates.line(backend, [TextToVideo.for_model(first, "a clip", 0)]), elem_id="ahead")

        with gr.Column(elem_id="show"):
            message = gr.HTML(visible=False, elem_id="message")
            with gr.Column(elem_id="stage"):
                scene = gr.HTML(html.scene("closed"), elem_id="scene")
                video = player(say("Your video"), elem_id="video", visible=False)
            line = gr.HTML(elem_id="line")
            with gr.Column(visible=False, elem_id="result") as result:
                caption = gr.HTML(elem_id="caption")
                with gr.Row(elem_id="downloads"):
                    mp4 = gr.DownloadButton(say("Download MP4"), size="md", elem_id="mp4")
                    export(say("Download GIF"), "gif", backend, owner, shown, "gif")
                finish.piece(backend, owner, shown, "finish")
                why.section(why.TEXT_TO_VIDEO, "why")
                with gr.Accordion(say("How it was made"), open=False, elem_id="facts"):
                    facts = gr.JSON(show_label=False, container=False)

        with gr.Column(elem_id="settings"):
            model = gr.Dropdown(
                [(say(card.title), name) for name, card in offered("text-to-video").items()],
                value=first.name,
                label=say("Model"),
                info=say("What draws the video; its own best settings are filled in"),
                filterable=False,
                elem_id="model",
            )
            about = gr.HTML(_about(backend, first), elem_id="about")
            with gr.Accordion(say("Fine settings"), open=False, elem_id="fine"):
                controls = sampling(first)
                faster = shortcuts.build(first)
                several = matrix.build()

    gr.HTML(say("<h2>Or begin with one of these</h2>"), elem_id="examples-title")
    examples = gr.HTML(
        say("|".join(one.expect for one in EXAMPLES)),
        html_template=html.examples(_thumbnails()),
        elem_id="examples",
        js_on_load=CLICKS,
    )
    seed, randomise, dice = controls.pop("seed"), controls.pop("randomise"), controls.pop("dice")
    fine = [controls[name] for name in forms.SETTINGS]
    form = [*begin.form, *several.form, prompt, model, *fine, seed, randomise, *faster.values()]

    # What the controls do to each other ---------------------------------------------------------------------------

    def choose_model(name: str) -> dict:
        card = find(name)
        defaults = asdict(card.defaults)
        return filled_in(controls, card, defaults) | begin.fill(card, defaults) | shortcuts.fill(faster, card, {})

    def fill(task: Task) -> dict:
        if not isinstance(task, TextToVideo | Grid):
            raise ValueError("These are settings of another tab. Use them there, with the clip that they belong to.")
        of = task.of if isinstance(task, Grid) else task
        card, values = find(task.model), asdict(of)
        chosen = {prompt: task.prompt, model: task.model, seed: task.seed, randomise: False}
        chosen |= several.fill(task) | begin.fill(card, values) | shortcuts.fill(faster, card, values)
        return chosen | filled_in(controls, card.with_lora(of.lora), values)

    def begin_with(given: tuple[str, float], name: str) -> dict:
        """Chooses a model that takes a first image where the chosen one takes none."""
        chosen = {begin.image: given[0], begin.mask: ""}
        if "image" not in find(name).takes:
            name = next(name for name, card in offered("text-to-video").items() if "image" in card.takes)
            chosen |= {model: name, **choose_model(name)}
        return chosen

    def choose_example(event: gr.EventData) -> dict:
        return fill(EXAMPLES[int(event.example)].task)

    def hint(text: str, name: str, rows: bool) -> str:
        """On the longest of the prompts."""
        text = max(text.splitlines() or [""], key=len) if rows else text
        return html.prompt_hints(text, find(name), backend.tokens(name, text))

    def foresee(*values: object) -> str:
        given, (rows, seeds, prompts, *values, _) = shortcuts.split(values)
        if not rows:
            seeds, prompts = "", "a clip"
        return estimates.of(
            backend, lambda: forms.texts_to_videos(prompts, *values, seed=0, seeds=seeds, shortcuts=given)
        )

    quiet = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    model.input(choose_model, model, [*controls.values(), *begin.controls, *faster.values()], **quiet)
    shortcuts.choose(faster, find, [model], controls)
    filled = [prompt, model, seed, randomise, *several.form, *controls.values(), *begin.controls, *faster.values()]
    noticed = quiet | {"queue": True}  # only then gradio notices that a State has changed: here the first image
    begun.change(begin_with, [begun, model], [model, *controls.values(), *begin.controls, *faster.values()], **noticed)
    examples.click(choose_example, None, filled, **noticed).then(None, js=TO_PROMPT)
    # Without a trigger of its own, an event runs when the page opens and whenever one of its inputs changes.
    gr.on(None, lambda name: _about(backend, find(name)), model, about, **quiet)
    gr.on(None, hint, [prompt, model, several.on], hints, trigger_mode="always_last", **quiet)
    foreseen = [*several.form, prompt, model, *fine, shown, *faster.values()]
    gr.on(None, foresee, foreseen, ahead, trigger_mode="always_last", **quiet)
    frames, fps = controls["frames"], controls["fps"]
    gr.on(None, None, [frames, fps], frames, js=FRAMES_LABEL, **quiet)
    dice.click(lambda: (forms.new_seed(), False), None, [seed, randomise], **quiet)

    # One click, followed through ----------------------------------------------------------------------------------

    def idle() -> dict:
        return {generate: gr.Button(visible=True), stop: gr.Button(say("Stop"), visible=False, interactive=True)}

    def given_up(shown_job: str | None) -> dict:
        return {scene: html.scene("open" if shown_job else "closed"), line: "", **idle()}

    def finished(made: Job) -> dict:
        film = backend.address(made.end.video)
        return {
            shown: made.id,
            scene: html.scene("open"),
            video: gr.Video(film, visible=True),
            line: "",
            result: gr.Column(visible=True),
            caption: html.caption(made.task),
            mp4: gr.DownloadButton(value=film),
            facts: html.rounded(made.end.facts),
            **idle(),
        }

    def watch(waiting: list[str], visitor_id: str, shown_job: str | None) -> Iterator[dict]:
        """Shows how the jobs go, up to the end of the last. Whoever closes the page only stops watching."""
        yield {
            job: waiting,
            message: gr.HTML(visible=False),
            result: gr.Column(visible=False),
            scene: html.scene("working"),
            line: html.footlights(stream.Moment()),
            generate: gr.Button(visible=False),
            stop: gr.Button(visible=True),
        }
        for moment in stream.follow_all(backend, waiting, visitor_id):
            match moment:
                case None:
                    yield {line: gr.skip()}
                case stream.Moment(end=Result()):
                    yield finished(backend.get(waiting[-1], visitor_id))
                case stream.Moment(end=Failed(message=text, stopped=stopped)):
                    card = html.stopped(text) if stopped else html.failure(text)
                    yield {
                        message: gr.HTML(card, visible=True),
                        result: gr.Column(visible=bool(shown_job)),  # with the video that was there before
                        **given_up(shown_job),
                    }
                case _:
                    yield {scene: html.scene("working", moment), line: html.footlights(moment)}

    def run(visitor_id: str, shown_job: str | None, *values: object) -> Iterator[dict]:
        given, values = shortcuts.split(values)
        image, mask, strokes, guidance, rows, seeds, *values, seed_value, randomise_value = values
        visitor_id = visitor.known(visitor_id)
        seeding = {"seed": seed_value, "randomise": randomise_value, "shortcuts": given}
        try:
            seeding["first_image"] = first_image.settings(backend, visitor_id, image, mask, strokes, guidance)
            if rows:
                tasks = forms.texts_to_videos(*values, seeds=seeds, **seeding)
            else:
                tasks = [forms.text_to_video(*values, **seeding)]
            if len(tasks) > 1:
                waiting = backend.submit_grid(tasks, visitor_id, visitor.ADDRESS.get())
            else:
                waiting = [backend.submit(tasks[0], visitor_id, visitor.ADDRESS.get())]
        except ValueError as error:
            yield {message: gr.HTML(html.failure(str(error)), visible=True)}
            return
        yield {owner: visitor_id, seed: tasks[0].seed}
        yield from watch(waiting, visitor_id, shown_job)

    def go_on(visitor_id: str) -> Iterator[dict]:
        """The page was opened again: what this visitor had made is on the stage, and what is being made is watched."""
        yield {line: gr.skip()}  # gradio empties every output of a generator that yields nothing
        kinds = ("text-to-video", "grid")
        made = [one for kind in kinds for one in backend.finished(visitor_id, limit=1, kind=kind)]
        latest = sorted(made, key=lambda one: one.ended)[-1:]
        for one in latest:
            yield finished(one)
        unfinished = [one for one in backend.unfinished(visitor_id) if isinstance(one.task, TextToVideo | Grid)]
        for going in unfinished[-1:]:
            yield fill(going.task)
            before = going.task.jobs if isinstance(going.task, Grid) else ()
            waiting = [one.id for one in unfinished if one.id in before]
            yield from watch([*waiting, going.id], visitor_id, latest[0].id if latest else None)

    following = {
        "outputs": [
            *(owner, job, shown, message, scene, video, line, result, caption, mp4, facts, generate, stop),
            *filled,
        ],
        "show_progress": "hidden",
        "api_visibility": "private",
        "concurrency_limit": None,
    }
    ran = gr.on([generate.click, prompt.submit], run, [owner, shown, *form], **following)
    came = arrived.then(go_on, owner, **following)
    for followed in (ran, came):  # nobody follows any more: the page must not look as if
        followed.failure(given_up, shown, [scene, line, generate, stop], **quiet)

    generate.click(None, js=_TO_STAGE, **quiet)  # on a phone it may be out of sight

    def end(visitor_id: str, started: list[str] | None) -> gr.Button:
        for identifier in reversed(started or ()):  # the grid first: it is not to be made of what is left
            backend.cancel(identifier, visitor_id)
        return gr.Button(say("Stopping…"), interactive=False)

    stop.click(end, [owner, job], stop, **quiet)

    return Form("text-to-video", filled, fill)


def sampling(card: ModelCard, prefix: str = "") -> dict[str, gr.components.Component]:
    """The fine settings as `card` recommends them: forms.SETTINGS and the seed's three. Ids begin with `prefix`."""
    limits, defaults = card.limits, card.defaults
    controls = {
        "negative_prompt": gr.Textbox(
            defaults.negative_prompt,
            label=say("Leave out"),
            info=say("What the video should not show"),
            lines=1,
            max_lines=4,
            elem_id=f"{prefix}negative-prompt",
        ),
        "frames": slider(
            limits.frames,
            defaults.frames,
            label=say("Frames"),
            info=say("More pictures make a longer video, and take longer"),
            elem_id=f"{prefix}frames",
        ),
        "fps": (slider if limits.fps.step else _number)(
            limits.fps,
            defaults.fps,
            label=say("Frames a second"),
            info=say("How fast it plays"),
            elem_id=f"{prefix}fps",
        ),
    }
    with gr.Row():
        for side in ("width", "height"):
            controls[side] = gr.Number(
                getattr(defaults, side),
                label=say(side.title()),
                min_width=120,
                elem_id=f"{prefix}{side}",
                **_side(limits.side),
            )
    controls |= {
        "steps": slider(
            limits.steps,
            defaults.steps,
            label=say("Steps"),
            info=say("More takes longer and looks cleaner"),
            elem_id=f"{prefix}steps",
        ),
        "guidance": slider(
            limits.guidance,
            defaults.guidance,
            label=say("Guidance"),
            info=say("How strictly it keeps to your words; 1 or less turns guidance off"),
            elem_id=f"{prefix}guidance",
        ),
        "scheduler": gr.Dropdown(
            [(SCHEDULERS[name], name) for name in card.schedulers],
            value=defaults.scheduler,
            label=say("Sampler"),
            info=say("The way from noise to picture"),
            filterable=False,
            elem_id=f"{prefix}scheduler",
        ),
    }
    with gr.Row(elem_id=f"{prefix}seed-row"):
        controls["seed"] = gr.Number(
            7,
            label=say("Seed"),
            info=say("The same seed and settings make the same video"),
            precision=0,
            elem_id=f"{prefix}seed",
        )
        controls["dice"] = gr.Button(say("Roll the dice"), size="md", elem_id=f"{prefix}dice", min_width=110)
    controls["randomise"] = gr.Checkbox(
        True,
        label=say("A new seed each time"),
        info=say("The same words make another video every time"),
        elem_id=f"{prefix}randomise",
    )
    return controls


def _number(allowed: Range, value: float, **rest: object) -> gr.Number:
    """A box for any number; what is allowed is checked with the task."""
    return gr.Number(value, **rest)


def _side(allowed: Range) -> dict:
    """How a size is asked for; one that can't be changed says so. Its limits are checked with the task."""
    if allowed.low == allowed.high:
        return {"info": say("{:g} pixels, always", allowed.low), "interactive": False}
    info = say("{:g} to {:g} pixels, by {:g}", allowed.low, allowed.high, allowed.step)
    return {"info": info, "interactive": True}


for _card in CATALOG.values():  # so that a browser learns the words for every model
    _side(_card.limits.side)


def filled_in(controls: dict[str, gr.components.Component], card: ModelCard, values: dict) -> dict:
    """Updates that give `controls` the limits of `card`, and `values`."""
    limits = card.limits
    ranges = {"frames": limits.frames, "fps": limits.fps, "steps": limits.steps, "guidance": limits.guidance}
    updates = {
        controls[name]: gr.Slider(minimum=allowed.low, maximum=allowed.high, step=step(allowed), value=values[name])
        if isinstance(controls[name], gr.Slider)
        else values[name]
        for name, allowed in ranges.items()
    }
    for side in ("width", "height"):
        updates[controls[side]] = gr.Number(values[side], **_side(limits.side))
    updates |= {controls["scheduler"]: shortcuts.samplers(card, values["scheduler"])}
    return updates | {controls["negative_prompt"]: values["negative_prompt"]}


def _about(backend: Backend, card: ModelCard) -> str:
    return html.model_card(card, backend.availability(card.name))


def _thumbnails() -> list[html.Thumbnail]:
    def picture(name: str) -> Path | None:
        return PICTURES / name if (PICTURES / name).exists() else None

    return [
        html.Thumbnail(
            example.task.prompt,
            html.part(index),
            still=picture(f"{example.pictures}.png"),
            moving=picture(f"{example.pictures}.webp"),
        )
        for index, example in enumerate(EXAMPLES)
    ]
