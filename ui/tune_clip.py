"""The first step of editing a clip: an upload, what it shows, which part of it, and the tuning."""

from collections.abc import Iterator

import gradio as gr

from pipelines.catalog import ModelCard, Range, find, offered
from pipelines.events import Failed, Preview, Result
from pipelines.serving.backend import Backend
from pipelines.tasks import TRAINED, Tune
from ui import edit_html, estimates, forms, html, stream, visitor
from ui.languages import ENGLISH_ONLY, say
from ui.media import READING, player, slider

CLIPS = [".mp4", ".mov", ".m4v", ".webm", ".mkv", ".gif"]
SAMPLE = say("Sample now")


def bench(
    backend: Backend, owner: gr.BrowserState, arrived: gr.events.Dependency, changed: gr.State, given: gr.State
) -> gr.State:
    """Builds the step where it is called. Returns the state that holds the latest tuning's job, once it is over.

    A tuning that is under way is followed after `arrived`, and whenever `changed` says that one may have been resumed.
    `given` holds a video of the library that is to be the clip, as (its file, the time at which it was given).
    """
    first = next(iter(offered("edit").values()))
    clip = gr.State("")
    job = gr.State()
    tuned = gr.State("")

    with gr.Row(elem_classes="bench"):
        with gr.Column():
            file = gr.File(
                label=say("A clip: MP4, MOV, WebM, MKV or GIF"), file_types=CLIPS, elem_id="clip", height=130
            )
            with gr.Column(visible=False, elem_id="clip-chosen") as there:
                source = player(say("The clip"), elem_id="clip-video")
                about = gr.HTML()
            prompt = gr.Textbox(
                label=say("What does the clip show?"),
                info=ENGLISH_ONLY,
                placeholder=say("Who, wearing what, does what, where: a person in red dances on the beach"),
                lines=2,
                elem_id="clip-caption",
            )
            hints = gr.HTML()
            tune = gr.Button(say("Tune"), variant="primary", size="lg", elem_id="tune")
            with gr.Row(visible=False) as running:
                draw = gr.Button(SAMPLE, size="lg", elem_id="sample-tuning")
                stop = gr.Button(say("Stop and keep"), variant="stop", size="lg", elem_id="stop-tuning")
            ahead = gr.HTML(elem_id="tune-ahead")
        with gr.Column():
            message = gr.HTML(visible=False)
            line = gr.HTML()
            plot = gr.HTML(elem_id="losses")
            sample = gr.HTML(elem_id="sample")
            strip = gr.HTML(elem_id="used")
            with gr.Accordion(say("Which part of it, and how it is cut"), open=False, elem_id="part"):
                with gr.Row():
                    start = gr.Slider(
                        0,
                        60,
                        0,
                        step=0.05,
                        label=say("From (s)"),
                        info=say("Where it begins"),
                        buttons=[],
                        elem_id="part-start",
                    )
                    end = gr.Slider(
                        0,
                        60,
                        60,
                        step=0.05,
                        label=say("To (s)"),
                        info=say("Where it ends"),
                        buttons=[],
                        elem_id="part-end",
                    )
                with gr.Row():
                    stride = gr.Slider(
                        1, 30, 1, step=1, label=say("Every n-th frame"), buttons=[], elem_id="part-stride",
                        info=say("Larger steps cover more of the clip in as many frames"),
                    )  # fmt: skip
                    frames = slider(
                        _used(first), first.defaults.frames, label=say("Frames, at most"), elem_id="part-frames",
                        info=say("Every edit has as many; more take longer"),
                    )  # fmt: skip
                with gr.Row():
                    places = say("Where the picture is cut to shape: 0 left, 1 right"), say("0 top, 1 bottom")
                    across = gr.Slider(0, 1, 0.5, step=0.01, label=say("Across"), info=places[0], buttons=[])
                    down = gr.Slider(0, 1, 0.5, step=0.01, label=say("Down"), info=places[1], buttons=[])
            model = gr.Dropdown(
                [(say(card.title), name) for name, card in offered("edit").items() if card.tuning],
                value=first.name,
                label=say("Base model"),
                info=say("What it knows, your edits can show"),
                filterable=False,
                elem_id="base",
            )
            card_html = gr.HTML(html.model_card(first, backend.availability(first.name)), elem_id="base-about")
            with gr.Accordion(say("Fine settings of the tuning"), open=False, elem_id="fine-tuning"):
                with gr.Row():
                    width = gr.Number(
                        first.defaults.width,
                        label=say("Width"),
                        info=say("Pixels, of every edit too"),
                        precision=0,
                        elem_id="tune-width",
                    )
                    height = gr.Number(
                        first.defaults.height,
                        label=say("Height"),
                        info=say("Pixels, of every edit too"),
                        precision=0,
                        elem_id="tune-height",
                    )
                steps = gr.Slider(
                    1, 2000, first.tuning.steps, step=1, label=say("Steps"), buttons=[], elem_id="tune-steps",
                    info=say("More keep closer to the clip"),
                )  # fmt: skip
                rate = gr.Number(
                    first.tuning.learning_rate,
                    label=say("Learning rate"),
                    elem_id="tune-rate",
                    info=say("How much each step changes, 0.000001 to 0.01; too much spoils the pictures"),
                )
                trained = gr.Radio(
                    [(say(text), name) for name, text in TRAINED.items()], value="all", label=say("What is trained"),
                    elem_id="trained", info=say("More of the network keeps closer to the clip's motion"),
                )  # fmt: skip
                seed = gr.Number(
                    33, label=say("Seed"), info=say("The same seed and settings tune in the same way"), precision=0,
                    elem_id="tune-seed",
                )  # fmt: skip

    part = [start, end, stride, frames, across, down, width, height]
    form = [prompt, model, clip, *part, steps, rate, trained, seed]

    def take(visitor_id: str, path: str | None) -> dict:
        visitor_id = visitor.known(visitor_id)
        if path is None:
            return {clip: "", there: gr.Column(visible=False), strip: ""}
        try:
            kept = backend.keep_clip(path, visitor_id)
        except (ValueError, OSError) as error:
            return {
                **{clip: "", there: gr.Column(visible=False), strip: ""},
                message: gr.HTML(html.failure(str(error), "This clip can't be used."), visible=True),
            }
        measured = kept.clip
        return {
            owner: visitor_id,
            clip: kept.name,
            there: gr.Column(visible=True),
            source: backend.address(kept.preview),
            about: edit_html.about_clip(measured.seconds, measured.width, measured.height, measured.fps, measured.cut),
            start: gr.Slider(maximum=measured.seconds, value=0),
            end: gr.Slider(maximum=measured.seconds, value=measured.seconds),
            stride: min(30, max(1, round(measured.fps / 8))),  # the models have seen 8 frames a second
            message: gr.HTML(visible=False),
        }

    def draw_part(visitor_id: str, name: str, model_name: str, *values: object) -> dict:
        if not name:
            return {strip: ""}
        try:
            task = forms.tune("a clip", model_name, name, *values, 1, 1e-5, "all", 0)
            picture, choice = backend.look(task, visitor_id)
        except (ValueError, OSError) as error:
            return {strip: html.failure(str(error), "This part can't be used.")}
        return {strip: edit_html.look(picture, choice, task.width, task.height)}

    def foresee(name: str, *values: object) -> str:
        *values, _ = values
        return estimates.of(backend, lambda: [forms.tune("a clip", name, "0" * 32, *values)])

    def choose_base(name: str) -> dict:
        card = find(name)
        return {
            frames: gr.Slider(minimum=_used(card).low, maximum=_used(card).high, value=card.defaults.frames),
            width: card.defaults.width,
            height: card.defaults.height,
            steps: card.tuning.steps,
            rate: card.tuning.learning_rate,
            card_html: html.model_card(card, backend.availability(name)),
        }

    def idle() -> dict:
        return {
            **{tune: gr.Button(visible=True), running: gr.Row(visible=False)},
            **{draw: gr.Button(SAMPLE, interactive=True), stop: gr.Button(say("Stop and keep"), interactive=True)},
        }

    def watch(identifier: str, visitor_id: str, total: int) -> Iterator[dict]:
        yield {
            job: identifier,
            message: gr.HTML(visible=False),
            line: html.footlights(stream.Moment()),
            plot: edit_html.losses((), total),
            sample: "",
            tune: gr.Button(visible=False),
            running: gr.Row(visible=True),
        }
        shown = None
        for moment in stream.follow(backend, identifier, visitor_id):
            drawn = edit_html.losses(moment.losses.values, total) if moment and moment.losses else gr.skip()
            match moment:
                case None:
                    yield {line: gr.skip()}
                case stream.Moment(end=Result()):
                    yield {line: "", plot: drawn, tuned: identifier, **idle()}
                case stream.Moment(end=Failed(message=text, stopped=stopped)):
                    kept = any(tuning.job.id == identifier for tuning in backend.tunings(visitor_id))
                    what = "What was tuned so far is kept: use it, or resume it." if kept else "Nothing was tuned yet."
                    card = html.stopped(text, what) if stopped else html.failure(text, "The tuning ended early.")
                    yield {
                        message: gr.HTML(card, visible=True),
                        **{line: "", plot: drawn, tuned: identifier if kept else gr.skip()},
                        **idle(),
                    }
                case stream.Moment(preview=Preview(image=picture) as preview) if preview is not shown:
                    shown = preview
                    yield {sample: edit_html.sample(picture), draw: gr.Button(SAMPLE, interactive=True)}
                case _:
                    yield {line: html.footlights(moment), plot: drawn}

    def run(visitor_id: str, *values: object) -> Iterator[dict]:
        visitor_id = visitor.known(visitor_id)
        try:
            task = forms.tune(*values)
            started = backend.submit(task, visitor_id, visitor.ADDRESS.get())
        except ValueError as error:
            yield {message: gr.HTML(html.failure(str(error), "Nothing was tuned."), visible=True)}
            return
        yield {owner: visitor_id}
        yield from watch(started, visitor_id, task.steps)

    def go_on(visitor_id: str) -> Iterator[dict]:
        yield {line: gr.skip()}  # gradio empties every output of a generator that yields nothing
        going = [one for one in backend.unfinished(visitor_id) if isinstance(one.task, Tune)]
        for one in going[:1]:
            yield {prompt: one.task.prompt}
            yield from watch(one.id, visitor_id, one.task.steps)

    def end_tuning(visitor_id: str, started: str | None) -> gr.Button:
        if started:
            backend.cancel(started, visitor_id)
        return gr.Button(say("Stopping…"), interactive=False)

    def ask(visitor_id: str, started: str | None) -> gr.Button:
        if started:
            backend.sample(started, visitor_id)
        return gr.Button(say("Drawing after the next step…"), interactive=False)

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    looked = {"fn": draw_part, "inputs": [owner, clip, model, *part], "outputs": [strip], **quiet, **READING}
    taken = [owner, clip, there, source, about, start, end, stride, message, strip]
    gr.on(
        [file.upload, file.clear],
        take,
        [owner, file],
        taken,
        api_visibility="private",
        show_progress_on=file,
        **READING,
    ).then(**looked)
    from_library = given.change(
        lambda visitor_id, video: take(visitor_id, video[0]), [owner, given], taken, **quiet, **READING
    )
    from_library.then(**looked)
    gr.on([control.release for control in (start, end, stride, frames, across, down)], **looked)
    gr.on([width.change, height.change], **looked, trigger_mode="always_last")
    gr.on(
        [prompt.change, model.change],
        lambda text, name: html.prompt_hints(text, find(name), backend.tokens(name, text)),
        [prompt, model],
        hints,
        trigger_mode="always_last",
        queue=False,
        **quiet,
    )
    foreseen = [model, *part, steps, rate, trained, seed, tuned]
    gr.on(None, foresee, foreseen, ahead, trigger_mode="always_last", queue=False, **quiet)
    model.input(choose_base, model, [frames, width, height, steps, rate, card_html], **quiet)
    outputs = [owner, job, prompt, message, line, plot, sample, tune, running, draw, stop, tuned]
    following = {"outputs": outputs, "concurrency_limit": None, **quiet}
    tune.click(run, [owner, *form], **following)
    arrived.then(go_on, owner, **following)
    changed.change(go_on, owner, **following)
    stop.click(end_tuning, [owner, job], stop, queue=False, **quiet)
    draw.click(ask, [owner, job], draw, queue=False, **quiet)
    return tuned


def _used(card: ModelCard) -> Range:
    return Range(max(card.limits.frames.low, 8), card.limits.frames.high)
