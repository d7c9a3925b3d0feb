"""The tab that edits a clip: tune on it once, then tell it again in other words as often as you like."""

from collections.abc import Iterator
from dataclasses import asdict

import gradio as gr

from pipelines.catalog import SCHEDULERS, ModelCard, find, offered
from pipelines.events import Failed, Result
from pipelines.serving.backend import Backend, Tuning
from pipelines.serving.jobs import Job
from pipelines.tasks import Edit
from ui import edit_html, estimates, finish, forms, html, hub, shortcuts, stream, tune_clip, visitor, why
from ui.languages import ENGLISH_ONLY, say
from ui.media import CLICKS, in_step, player, slider
from ui.refill import Form

PUBLISHED = {name: card for name, card in offered("edit").items() if card.tuning is None}
_IN_STEP = in_step("before", "after")


def tab(backend: Backend, owner: gr.BrowserState, this: gr.Tab, arrived: gr.events.Dependency, given: gr.State) -> Form:
    """Builds the tab `this`, which is open. After `arrived` it is known who `owner` is.

    `given` is where the library puts a video that is to be the clip.
    """
    chosen = gr.State("")  # the tuned model that is worked with
    changed = gr.State(0)  # counts up whenever a tuned model was renamed, deleted or resumed
    wanted = gr.State()  # an edit whose settings are to be used again
    gr.HTML(say("<h2>1. Tune on a clip</h2>"), elem_classes="step")
    tuned = tune_clip.bench(backend, owner, arrived, changed, given)
    gr.HTML(say("<h2>2. Choose a tuned model</h2>"), elem_classes="step")
    shelf = gr.HTML(elem_id="tunings", js_on_load=CLICKS)
    _editing(backend, owner, arrived, chosen, changed, wanted, shelf)
    hub.keeping(backend, owner, chosen)

    def list_tuned(visitor_id: str, identifier: str) -> str:
        return edit_html.tunings(backend.tunings(visitor_id), PUBLISHED, identifier)

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    seen = {"fn": list_tuned, "inputs": [owner, chosen], "outputs": shelf, **quiet}
    gr.on([this.select, tuned.change, chosen.change, changed.change], **seen)
    tuned.change(lambda identifier: identifier, tuned, chosen, **quiet)  # what has just been tuned is wanted next
    return Form("edit-clip", [chosen, wanted], lambda task: {chosen: task.told_by, wanted: asdict(task)})


def _editing(
    backend: Backend,
    owner: gr.BrowserState,
    arrived: gr.events.Dependency,
    chosen: gr.State,
    changed: gr.State,
    wanted: gr.State,
    shelf: gr.HTML,
) -> None:
    """The second step: the model chosen on the `shelf`, told again in other words."""
    first = next(iter(offered("edit").values()))
    job, shown = gr.State(), gr.State("")

    with gr.Column(visible=False, elem_id="retell") as panel:
        heading = gr.HTML(elem_classes="step")
        with gr.Row(elem_classes="bench"):
            with gr.Column():
                prompt = gr.Textbox(
                    label=say("Tell it again"),
                    info=ENGLISH_ONLY,
                    placeholder=say("The caption with other words. Several lines make several videos."),
                    lines=3,
                    max_lines=8,
                    elem_id="edit-prompt",
                )
                hints = gr.HTML()
                retell = gr.Button(say("Tell it again"), variant="primary", size="lg", elem_id="edit")
                stop = gr.Button(say("Stop"), variant="stop", size="lg", visible=False, elem_id="stop-edit")
                ahead = gr.HTML(elem_id="edit-ahead")
                with gr.Accordion(say("Fine settings of the edit"), open=False, elem_id="fine-edit"):
                    strength = gr.Slider(
                        0, 1, 0, step=0.05, label=say("Strength"), buttons=[], elem_id="edit-strength",
                        info=say("0 keeps the clip's own motion and layout, 1 begins from plain noise"),
                    )  # fmt: skip
                    guidance = slider(
                        first.limits.guidance, first.defaults.guidance, label=say("Guidance"), elem_id="edit-guidance",
                        info=say("How strictly it keeps to your words"),
                    )  # fmt: skip
                    steps = slider(
                        first.limits.steps, first.defaults.steps, label=say("Steps"), elem_id="edit-steps",
                        info=say("More takes longer and looks cleaner"),
                    )  # fmt: skip
                    scheduler = gr.Dropdown(
                        [(SCHEDULERS[name], name) for name in first.schedulers],
                        value=first.defaults.scheduler,
                        label=say("Sampler"),
                        info=say("The way from noise to picture"),
                        filterable=False,
                        elem_id="edit-scheduler",
                    )
                    negative = gr.Textbox(
                        label=say("Leave out"), info=say("What the video should not show"), elem_id="edit-negative"
                    )
                    sound = gr.Checkbox(
                        label=say("Keep the clip's sound"),
                        info=say("The video then sounds like the clip"),
                        elem_id="edit-sound",
                    )
                    faster = shortcuts.build(first, "edit-")
                    seed = gr.Number(
                        0, label=say("Seed"), precision=0, info=say("Plays a part where the strength is not 0"),
                        elem_id="edit-seed",
                    )  # fmt: skip
                with gr.Accordion(say("This tuned model"), open=False, elem_id="manage") as managing:
                    name = gr.Textbox(label=say("Name"), max_lines=1, elem_id="tuned-name")
                    with gr.Row():
                        rename = gr.Button(say("Rename"), size="md", elem_id="rename")
                        resume = gr.Button(say("Resume tuning"), size="md", visible=False, elem_id="resume")
                        export = gr.Button(say("Export"), size="md", elem_id="export")
                        delete = gr.Button(say("Delete"), size="md", elem_id="delete-tuned")
                    really = gr.Button(
                        say("Really delete"), size="md", variant="stop", visible=False, elem_id="really-tuned"
                    )
                    archive = gr.File(label=say("The tuned model"), visible=False, elem_id="archive")
            with gr.Column():
                message = gr.HTML(visible=False)
                about = gr.HTML(elem_id="edit-model")
                with gr.Row(elem_id="side-by-side"):
                    with gr.Column() as of_clip:
                        gr.HTML(say('<p class="caption">The clip</p>'))
                        before = player(say("The clip"), elem_id="before")
                    with gr.Column():
                        after_caption = gr.HTML(say('<p class="caption">Told again</p>'))
                        after = player(say("Told again"), elem_id="after")
                line = gr.HTML()
                with gr.Column(visible=False) as told:
                    finish.piece(backend, owner, shown, "finish-edit")
                    why.section(why.EDIT, "edit-why")
                table = gr.HTML(elem_id="edits", js_on_load=CLICKS)

    settings = [negative, strength, guidance, steps, scheduler, sound, seed]

    def tuning_of(identifier: str, visitor_id: str) -> Tuning:
        for tuning in backend.tunings(visitor_id):
            if tuning.job.id == identifier:
                return tuning
        raise ValueError("The tuned model of this video is not here.")

    def tuned(identifier: str, visitor_id: str) -> Tuning | ModelCard:
        return PUBLISHED.get(identifier) or tuning_of(identifier, visitor_id)

    def made(identifier: str, visitor_id: str) -> list[Job]:
        jobs = backend.finished(visitor_id)
        return [job for job in jobs if isinstance(job.task, Edit) and job.task.told_by == identifier]

    def open_panel(visitor_id: str, identifier: str, again: dict | None) -> dict:
        if again is None or (again["tuned"] or again["model"]) != identifier:
            again = {}
        if identifier in PUBLISHED:
            return open_published(visitor_id, PUBLISHED[identifier], again)
        try:
            tuning = tuning_of(identifier, visitor_id)
        except ValueError as error:
            if identifier:
                gr.Warning(f"{error} Tune on the clip once more.")
            return {panel: gr.Column(visible=False)}
        settings = {"strength": 0.0, "sound": False, "prompt": tuning.job.task.prompt} | again
        return fill_panel(visitor_id, identifier, edit_html.title_of(tuning), find(tuning.job.task.model), settings) | {
            **{of_clip: gr.Column(visible=True), before: backend.address(tuning.video), about: ""},
            strength: gr.Slider(visible=True, value=settings["strength"]),
            sound: gr.Checkbox(settings["sound"], visible=tuning.sound),
            managing: gr.Accordion(visible=True),
            name: tuning.job.title,
            resume: gr.Button(visible=isinstance(tuning.job.end, Failed)),
            really: gr.Button(visible=False),
            archive: gr.File(visible=False),
        }

    def open_published(visitor_id: str, card: ModelCard, again: dict) -> dict:
        """It has no clip here, so there is no motion of one to be kept, and nothing to be managed."""
        settings = {"prompt": f"{card.title}."} | again
        return fill_panel(visitor_id, card.name, card.title, card, settings) | {
            **{of_clip: gr.Column(visible=False), before: None},
            about: html.model_card(card, backend.availability(card.name)),
            strength: gr.Slider(value=0, visible="strength" in card.takes),
            sound: gr.Checkbox(False, visible="sound" in card.takes),
            managing: gr.Accordion(visible=False),
        }

    def fill_panel(visitor_id: str, identifier: str, title: str, card: ModelCard, settings: dict) -> dict:
        """What is the same for both; `settings` are those that are not the model's own."""
        wanted = card.with_lora(settings.get("lora", ""))
        again = asdict(wanted.defaults) | {"seed": 0} | settings
        jobs = made(identifier, visitor_id)
        return {
            panel: gr.Column(visible=True),
            heading: f"<h2>3. Tell “{html.escape(title)}” again</h2>",
            prompt: again["prompt"],
            shown: jobs[0].id if jobs else "",
            after: backend.address(jobs[0].end.video) if jobs else None,
            after_caption: _told(jobs[0].task if jobs else None),
            table: edit_html.edits(jobs, jobs[0].id if jobs else ""),
            guidance: gr.Slider(maximum=card.limits.guidance.high, value=again["guidance"]),
            steps: gr.Slider(maximum=card.limits.steps.high, value=again["steps"]),
            scheduler: shortcuts.samplers(wanted, again["scheduler"]),
            **shortcuts.fill(faster, card, settings),
            **{negative: again["negative_prompt"], seed: again["seed"], message: gr.HTML(visible=False)},
        }

    def show(visitor_id: str, identifier: str, event: gr.EventData) -> dict:
        try:
            job_ = backend.get(event.job, visitor_id)
        except ValueError as error:
            return {message: gr.HTML(html.failure(str(error)), visible=True)}
        return {
            shown: job_.id,
            after: backend.address(job_.end.video),
            after_caption: _told(job_.task),
            table: edit_html.edits(made(identifier, visitor_id), job_.id),
        }

    def card_of(visitor_id: str, identifier: str) -> ModelCard:
        found = tuned(identifier, visitor_id)
        return found if isinstance(found, ModelCard) else find(found.job.task.model)

    def hint(visitor_id: str, identifier: str, prompts: str) -> str:
        """On the longest of the prompts."""
        try:
            name = card_of(visitor_id, identifier).name
        except ValueError:
            return ""
        longest = max(prompts.splitlines() or [""], key=len)
        return html.prompt_hints(longest, find(name), backend.tokens(name, longest))

    def foresee(visitor_id: str, identifier: str, prompts: str, *values: object) -> str:
        given, (*values, _) = shortcuts.split(values)
        return estimates.of(
            backend, lambda: forms.edits(prompts, tuned(identifier, visitor_id), *values, shortcuts=given)
        )

    def idle() -> dict:
        return {retell: gr.Button(visible=True), stop: gr.Button(say("Stop"), visible=False, interactive=True)}

    def run(visitor_id: str, identifier: str, prompts: str, *values: object) -> Iterator[dict]:
        waiting: list[str] = []
        given, values = shortcuts.split(values)
        try:
            for task in forms.edits(prompts, tuned(identifier, visitor_id), *values, shortcuts=given):
                waiting.append(backend.submit(task, visitor_id, visitor.ADDRESS.get()))
        except ValueError as error:
            yield {message: gr.HTML(html.failure(str(error)), visible=True)}
            if not waiting:
                return
        else:
            yield {message: gr.HTML(visible=False)}
        yield from watch(waiting, visitor_id, identifier)

    def watch(waiting: list[str], visitor_id: str, identifier: str) -> Iterator[dict]:
        yield {job: waiting, retell: gr.Button(visible=False), stop: gr.Button(visible=True)}
        for started in waiting:
            for moment in stream.follow(backend, started, visitor_id):
                match moment:
                    case None:
                        yield {line: gr.skip()}
                    case stream.Moment(end=Result(video=path)):
                        jobs = made(identifier, visitor_id)
                        yield {
                            **{after: backend.address(path), shown: started, line: ""},
                            after_caption: _told(backend.get(started, visitor_id).task),
                            table: edit_html.edits(jobs, started),
                        }
                    case stream.Moment(end=Failed(message=text, stopped=stopped)):
                        card = html.stopped(text) if stopped else html.failure(text)
                        yield {message: gr.HTML(card, visible=True), line: ""}
                    case _:
                        yield {line: html.footlights(moment)}
        yield idle()

    def go_on(visitor_id: str) -> Iterator[dict]:
        """The page was opened again: the edits that wait or run are watched."""
        yield {line: gr.skip()}  # gradio empties every output of a generator that yields nothing
        going = [one for one in backend.unfinished(visitor_id) if isinstance(one.task, Edit)]
        if going:
            yield {chosen: going[0].task.told_by}
            yield from watch([one.id for one in going], visitor_id, going[0].task.told_by)

    def end_edit(visitor_id: str, started: list[str] | None) -> gr.Button:
        for identifier in started or ():
            backend.cancel(identifier, visitor_id)
        return gr.Button(say("Stopping…"), interactive=False)

    def manage(act: str, visitor_id: str, identifier: str, count: int, title: str) -> dict:
        try:
            match act:
                case "rename":
                    backend.rename(identifier, visitor_id, title)
                case "resume":
                    backend.resume(identifier, visitor_id, visitor.ADDRESS.get())
                case "delete":
                    backend.delete(identifier, visitor_id)
                case "export":
                    exported = backend.address(backend.export_tuned(identifier, visitor_id))
                    return {archive: gr.File(exported, visible=True)}
        except (ValueError, OSError) as error:
            return {message: gr.HTML(html.failure(str(error), "That did not work."), visible=True)}
        if act == "rename":
            return {changed: count + 1, heading: f"<h2>3. Tell “{html.escape(title)}” again</h2>"}
        return {changed: count + 1, chosen: "" if act == "delete" else identifier, really: gr.Button(visible=False)}

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    pick = shelf.click(_picked, None, chosen, **quiet)
    filled = [
        panel,
        heading,
        prompt,
        *settings,
        *faster.values(),
        before,
        after,
        after_caption,
        shown,
        table,
        name,
        resume,
    ]
    opened = gr.on(
        [chosen.change, wanted.change],
        open_panel,
        [owner, chosen, wanted],
        [*filled, of_clip, about, managing, really, archive, message],
        **quiet,
    )
    opened.then(None, js=_IN_STEP)
    shortcuts.choose(faster, card_of, [owner, chosen], {"steps": steps, "guidance": guidance, "scheduler": scheduler})
    shown.change(lambda identifier: gr.Column(visible=bool(identifier)), shown, told, queue=False, **quiet)
    pick.then(None, js="() => document.querySelector('#retell')?.scrollIntoView({block: 'nearest'})")
    table.click(show, [owner, chosen], [shown, after, after_caption, table, message], **quiet).then(None, js=_IN_STEP)
    outputs = [chosen, job, message, line, after, after_caption, shown, table, retell, stop]
    following = {"outputs": outputs, "concurrency_limit": None, **quiet}
    retell.click(run, [owner, chosen, prompt, *settings, *faster.values()], **following).then(None, js=_IN_STEP)
    arrived.then(go_on, owner, **following).then(None, js=_IN_STEP)
    prompt.change(hint, [owner, chosen, prompt], hints, trigger_mode="always_last", queue=False, **quiet)
    foreseen = [owner, chosen, prompt, *settings, shown, *faster.values()]
    gr.on(None, foresee, foreseen, ahead, trigger_mode="always_last", queue=False, **quiet)
    stop.click(end_edit, [owner, job], stop, queue=False, **quiet)
    delete.click(lambda: gr.Button(visible=True), None, really, **quiet)
    for act, button in {"rename": rename, "resume": resume, "delete": really, "export": export}.items():
        button.click(
            lambda *values, act=act: manage(act, *values),
            [owner, chosen, changed, name],
            [changed, chosen, heading, really, archive, message],
            **quiet,
        )


def _picked(event: gr.EventData) -> str:
    return event.job


def _told(task: Edit | None) -> str:
    return f'<p class="caption">{html.escape(task.prompt) if task else "Told again"}</p>'
