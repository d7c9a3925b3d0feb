"""The text-to-video tab: its controls, what they do to each other, and one click followed through."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import gradio as gr

from pipelines.backend import Backend
from pipelines.catalog import CATALOG, SCHEDULERS, ModelCard, Range, find
from pipelines.events import Failed, Result
from pipelines.jobs import Job
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo
from ui import forms, pieces, stream, visitor

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

_EXAMPLE_CLICKS = """
element.addEventListener('click', event => {
  const card = event.target.closest('[data-example]');
  if (card) trigger('click', {example: Number(card.dataset.example)});
});
"""
_TO_PROMPT = "() => document.querySelector('#prompt').scrollIntoView({block: 'center'})"
_TO_STAGE = "() => document.querySelector('#stage').scrollIntoView({block: 'nearest'})"
_FRAMES_LABEL = """(frames, fps) => frames && fps
  ? {__type__: 'update', label: `Frames: ${frames} = ${(frames / fps).toFixed(1)} s`}
  : {__type__: 'update', label: 'Frames'}"""
_SAVE_GIF = "file => { if (file) setTimeout(() => document.querySelector('#gif-file').click()) }"


@dataclass(frozen=True)
class Form:
    """The tab's controls, for those who fill them from elsewhere."""

    controls: list[gr.components.Component]
    fill: Callable[[TextToVideo], dict]  # the updates that set every control to what a task says


def tab(backend: Backend, settings: Settings, owner: gr.BrowserState, arrived: gr.events.Dependency) -> Form:
    """Builds the tab inside the Blocks that is open. After `arrived` it is known who `owner` is."""
    first = find(settings.model)
    job = gr.State()  # the job this visitor follows
    shown = gr.State()  # the job whose video is on the stage

    with gr.Row(elem_id="theatre"):
        with gr.Column(elem_id="ask"):
            prompt = gr.Textbox(
                FIRST_PROMPT,
                label="What should the video show?",
                lines=3,
                max_lines=8,
                elem_id="prompt",
                placeholder="Somebody, somewhere, doing something",
            )
            hints = gr.HTML(pieces.prompt_hints("", first, None), elem_id="hints")
            generate = gr.Button("Generate", variant="primary", size="lg", elem_id="generate")
            stop = gr.Button("Stop", variant="stop", size="lg", elem_id="stop", visible=False)

        with gr.Column(elem_id="show"):
            message = gr.HTML(visible=False, elem_id="message")
            with gr.Column(elem_id="stage"):
                scene = gr.HTML(pieces.scene("closed"), elem_id="scene")
                video = player("Your video", elem_id="video", visible=False)
            line = gr.HTML(elem_id="line")
            with gr.Column(visible=False, elem_id="result") as result:
                caption = gr.HTML(elem_id="caption")
                with gr.Row(elem_id="downloads"):
                    mp4 = gr.DownloadButton("Download MP4", size="md", elem_id="mp4")
                    gif = gr.Button("Download GIF", size="md", elem_id="gif")
                    gif_file = gr.DownloadButton(elem_id="gif-file")  # never seen: it saves what the other made
                with gr.Accordion("How it was made", open=False, elem_id="facts"):
                    facts = gr.JSON(show_label=False, container=False)

        with gr.Column(elem_id="settings"):
            model = gr.Dropdown(
                [(card.title, name) for name, card in CATALOG.items()],
                value=first.name,
                label="Model",
                filterable=False,
                elem_id="model",
            )
            about = gr.HTML(_about(backend, first), elem_id="about")
            with gr.Accordion("Fine settings", open=False, elem_id="fine"):
                controls = _controls(first)

    gr.HTML("<h2>Or begin with one of these</h2>", elem_id="examples-title")
    examples = gr.HTML(pieces.examples(_thumbnails()), elem_id="examples", js_on_load=_EXAMPLE_CLICKS)
    seed, randomise, dice = controls.pop("seed"), controls.pop("randomise"), controls.pop("dice")
    form = [prompt, model, *(controls[name] for name in forms.SETTINGS), seed, randomise]

    # What the controls do to each other ---------------------------------------------------------------------------

    def choose_model(name: str) -> dict:
        card = find(name)
        return _fill(controls, card, asdict(card.defaults))

    def fill(task: TextToVideo) -> dict:
        chosen = {prompt: task.prompt, model: task.model, seed: task.seed, randomise: False}
        return chosen | _fill(controls, find(task.model), asdict(task))

    def choose_example(event: gr.EventData) -> dict:
        return fill(EXAMPLES[event.example].task)

    def hint(text: str, name: str) -> str:
        return pieces.prompt_hints(text, find(name), backend.tokens(name, text))

    quiet = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    model.input(choose_model, model, [*controls.values()], **quiet)
    filled = [prompt, model, seed, randomise, *controls.values()]
    examples.click(choose_example, None, filled, **quiet).then(None, js=_TO_PROMPT)
    # Without a trigger of its own, an event runs when the page opens and whenever one of its inputs changes.
    gr.on(None, lambda name: _about(backend, find(name)), model, about, **quiet)
    gr.on(None, hint, [prompt, model], hints, trigger_mode="always_last", **quiet)
    frames, fps = controls["frames"], controls["fps"]
    gr.on(None, None, [frames, fps], frames, js=_FRAMES_LABEL, **quiet)
    dice.click(lambda: (forms.new_seed(), False), None, [seed, randomise], **quiet)

    # One click, followed through ----------------------------------------------------------------------------------

    def idle() -> dict:
        return {generate: gr.Button(visible=True), stop: gr.Button("Stop", visible=False, interactive=True)}

    def finished(made: Job) -> dict:
        return {
            shown: made.id,
            scene: pieces.scene("open"),
            video: gr.Video(str(made.end.video), visible=True),
            line: "",
            result: gr.Column(visible=True),
            caption: pieces.caption(made.task),
            mp4: gr.DownloadButton(value=str(made.end.video)),
            facts: pieces.rounded(made.end.facts),
            **idle(),
        }

    def watch(identifier: str, visitor_id: str, shown_job: str | None) -> Iterator[dict]:
        """Shows how the job goes, up to its end. Whoever closes the page only stops watching."""
        yield {
            job: identifier,
            message: gr.HTML(visible=False),
            result: gr.Column(visible=False),
            scene: pieces.scene("working"),
            line: pieces.footlights(stream.Moment()),
            generate: gr.Button(visible=False),
            stop: gr.Button(visible=True),
        }
        for moment in stream.follow(backend, identifier, visitor_id):
            match moment:
                case None:
                    yield {line: gr.skip()}
                case stream.Moment(end=Result()):
                    yield finished(backend.get(identifier, visitor_id))
                case stream.Moment(end=Failed(message=text, stopped=stopped)):
                    card = pieces.stopped(text) if stopped else pieces.failure(text)
                    yield {
                        message: gr.HTML(card, visible=True),
                        scene: pieces.scene("open" if shown_job else "closed"),
                        line: "",
                        result: gr.Column(visible=bool(shown_job)),  # with the video that was there before
                        **idle(),
                    }
                case _:
                    yield {scene: pieces.scene("working", moment), line: pieces.footlights(moment)}

    def run(visitor_id: str, shown_job: str | None, *values: object) -> Iterator[dict]:
        *values, seed_value, randomise_value = values
        visitor_id = visitor.known(visitor_id)
        try:
            task = forms.text_to_video(*values, seed=seed_value, randomise=randomise_value)
            started = backend.submit(task, visitor_id)
        except ValueError as error:
            yield {message: gr.HTML(pieces.failure(str(error)), visible=True)}
            return
        yield {owner: visitor_id, seed: task.seed}
        yield from watch(started, visitor_id, shown_job)

    def go_on(visitor_id: str) -> Iterator[dict]:
        """The page was opened again: what this visitor had made is on the stage, and what is being made is watched."""
        yield {line: gr.skip()}  # gradio empties every output of a generator that yields nothing
        latest = backend.finished(visitor_id, limit=1)
        for made in latest:
            yield finished(made)
        for going in backend.unfinished(visitor_id)[-1:]:
            yield fill(going.task)
            yield from watch(going.id, visitor_id, latest[0].id if latest else None)

    following = {
        "outputs": [
            *(owner, job, shown, message, scene, video, line, result, caption, mp4, facts, generate, stop),
            *filled,
        ],
        "show_progress": "hidden",
        "api_visibility": "private",
        "concurrency_limit": None,
    }
    gr.on([generate.click, prompt.submit], run, [owner, shown, *form], **following)
    arrived.then(go_on, owner, **following)

    generate.click(None, js=_TO_STAGE, **quiet)  # on a phone it may be out of sight

    def end(visitor_id: str, started: str | None) -> gr.Button:
        if started:
            backend.cancel(started, visitor_id)
        return gr.Button("Stopping…", interactive=False)

    stop.click(end, [owner, job], stop, **quiet)

    def make_gif(visitor_id: str, shown_job: str) -> dict:
        try:
            return {gif_file: str(backend.export(shown_job, visitor_id, "gif"))}
        except (ValueError, OSError) as error:
            return {gif_file: None, message: gr.HTML(pieces.failure(str(error)), visible=True)}

    gif.click(
        make_gif,
        [owner, shown],
        [gif_file, message],
        show_progress_on=gif,
        concurrency_limit=4,
        api_visibility="private",
    ).then(None, gif_file, js=_SAVE_GIF)
    return Form(filled, fill)


def player(label: str, **rest: object) -> gr.Video:
    """A video that plays by itself, again and again."""
    plain = {"show_label": False, "container": False, "interactive": False, "buttons": []}
    return gr.Video(label=label, autoplay=True, loop=True, **plain, **rest)


def _controls(card: ModelCard) -> dict[str, gr.components.Component]:
    """The fine settings, set to what `card` recommends; forms.SETTINGS and the seed's three."""
    limits, defaults = card.limits, card.defaults
    controls = {
        "negative_prompt": gr.Textbox(
            defaults.negative_prompt,
            label="Leave out",
            info="What the video should not show",
            lines=1,
            max_lines=4,
            elem_id="negative-prompt",
        ),
        "frames": _slider(limits.frames, defaults.frames, label="Frames", elem_id="frames"),
        "fps": _slider(limits.fps, defaults.fps, label="Frames a second", info="How fast it plays", elem_id="fps"),
    }
    with gr.Row():
        for side in ("width", "height"):
            controls[side] = gr.Number(
                getattr(defaults, side), label=side.title(), min_width=120, elem_id=side, **_side(limits.side)
            )
    controls |= {
        "steps": _slider(
            limits.steps, defaults.steps, label="Steps", info="More takes longer and looks cleaner", elem_id="steps"
        ),
        "guidance": _slider(
            limits.guidance,
            defaults.guidance,
            label="Guidance",
            info="How strictly it keeps to your words; 1 or less turns guidance off",
            elem_id="guidance",
        ),
        "scheduler": gr.Dropdown(
            [(title, name) for name, title in SCHEDULERS.items()],
            value=defaults.scheduler,
            label="Sampler",
            info="The way from noise to picture",
            filterable=False,
            elem_id="scheduler",
        ),
    }
    with gr.Row(elem_id="seed-row"):
        controls["seed"] = gr.Number(
            7, label="Seed", info="The same seed and settings make the same video", precision=0, elem_id="seed"
        )
        controls["dice"] = gr.Button("Roll the dice", size="md", elem_id="dice", min_width=110)
    controls["randomise"] = gr.Checkbox(True, label="A new seed each time", elem_id="randomise")
    return controls


def _slider(allowed: Range, value: float, **rest: object) -> gr.Slider:
    return gr.Slider(allowed.low, allowed.high, value, step=allowed.step or 0.5, buttons=[], **rest)


def _side(allowed: Range) -> dict:
    """How a size is asked for; one that can't be changed says so. Its limits are checked with the task."""
    if allowed.low == allowed.high:
        return {"info": f"{allowed.low:g} pixels, always", "interactive": False}
    return {"info": f"{allowed.low:g} to {allowed.high:g} pixels, by {allowed.step:g}", "interactive": True}


def _fill(controls: dict[str, gr.components.Component], card: ModelCard, values: dict) -> dict:
    """Updates that give `controls` the limits of `card`, and `values`."""
    limits = card.limits
    ranges = {"frames": limits.frames, "fps": limits.fps, "steps": limits.steps, "guidance": limits.guidance}
    updates = {
        controls[name]: gr.Slider(minimum=allowed.low, maximum=allowed.high, value=values[name])
        for name, allowed in ranges.items()
    }
    for side in ("width", "height"):
        updates[controls[side]] = gr.Number(values[side], **_side(limits.side))
    return updates | {controls[name]: values[name] for name in ("negative_prompt", "scheduler")}


def _about(backend: Backend, card: ModelCard) -> str:
    return pieces.model_card(card, backend.availability(card.name))


def _thumbnails() -> list[pieces.Thumbnail]:
    def picture(name: str) -> Path | None:
        return PICTURES / name if (PICTURES / name).exists() else None

    return [
        pieces.Thumbnail(
            example.task.prompt,
            example.expect,
            still=picture(f"{example.pictures}.png"),
            moving=picture(f"{example.pictures}.webp"),
        )
        for example in EXAMPLES
    ]
