"""The pose-to-video tab: what the dancer follows is seen first, then it dances."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict

import gradio as gr

from pipelines.catalog import DETECTORS, find, find_motion, offered
from pipelines.events import Failed, Result
from pipelines.serving.backend import Backend, Kept, Tuning
from pipelines.serving.jobs import Job
from pipelines.tasks import PoseToVideo
from ui import edit_html, estimates, finish, forms, html, pose_controls, pose_html, shortcuts, stream, visitor, why
from ui.languages import ENGLISH_ONLY, say
from ui.media import CLICKS, READING, export, in_step, player
from ui.refill import Form
from ui.text_to_video import FRAMES_LABEL, filled_in, sampling
from ui.tune_clip import CLIPS

# A motion to begin with each, so that one click sets everything; the first is there on the first visit.
EXAMPLES = (
    ("dance, hands up", "An astronaut in orange dancing on the beach", 7),
    ("kick", "A robot in green kicking in the snow", 21),
    ("wave", "A bear in pink waving on the moon", 5),
)
LEADERS = ("pose-result", "pose-skeletons", "pose-source")
_TO_STAGE = "() => document.querySelector('#pose-show').scrollIntoView({block: 'nearest'})"
_TO_ASK = "() => document.querySelector('#pose-ask').scrollIntoView({block: 'nearest'})"


def tab(backend: Backend, owner: gr.BrowserState, this: gr.Tab, arrived: gr.events.Dependency, given: gr.State) -> Form:
    """Builds the tab `this`, which is open. After `arrived` it is known who `owner` is.

    `given` is where the library puts a video that is to be followed, as (its file, the time at which it was given).
    """
    first = next(iter(offered("pose-to-video").values()))
    motion, prompted, _ = EXAMPLES[0]
    clip = gr.State("")  # the upload that is followed; "" where it is a motion
    job, shown, seen = gr.State(), gr.State(), gr.State(False)
    wanted = gr.State()  # a task whose settings are to be used again, and when that was wished

    with gr.Row(elem_classes="bench", elem_id="pose-bench"):
        with gr.Column(elem_id="pose-ask"):
            chosen = gr.HTML(motion, html_template=pose_html.gallery(), elem_id="motions", js_on_load=CLICKS)
            file = gr.File(
                label=say("Or your own clip, skeleton video or keypoints"),
                file_types=[*CLIPS, ".json", ".zip"],
                elem_id="pose-clip",
                height=130,
            )
            with gr.Column(visible=False, elem_id="pose-clip-chosen") as there:
                source = player(say("The upload"), elem_id="pose-clip-video")
                about_clip = gr.HTML()
            prompt = gr.Textbox(
                prompted,
                label=say("Who dances, and where?"),
                info=ENGLISH_ONLY,
                placeholder=say("Who, wearing what, where. Several lines make several videos."),
                lines=2,
                max_lines=8,
                elem_id="pose-prompt",
            )
            hints = gr.HTML(elem_id="pose-hints")
            looks = pose_controls.wardrobe()
            generate = gr.Button(say("Generate"), variant="primary", size="lg", elem_id="pose-generate")
            stop = gr.Button(say("Stop"), variant="stop", size="lg", visible=False, elem_id="pose-stop")
            ahead = gr.HTML(elem_id="pose-ahead")
            message = gr.HTML(visible=False, elem_id="pose-message")
        with gr.Column(elem_id="pose-show"):
            with gr.Row(visible=False, elem_id="pose-players") as players:
                with gr.Column(visible=False, elem_id="pose-source-column") as of_source:
                    original = player(say("What it was found in"), elem_id="pose-source")
                    gr.HTML(say('<p class="caption">The clip</p>'))
                with gr.Column(visible=False, elem_id="pose-skeletons-column") as of_skeletons:
                    skeletons = player(say("What it follows"), elem_id="pose-skeletons")
                    gr.HTML(say('<p class="caption">What it follows</p>'))
                with gr.Column(elem_id="pose-result-column"):
                    video = player(say("Your video"), elem_id="pose-result")
                    told = gr.HTML(elem_id="pose-told")
            line = gr.HTML(elem_id="pose-line")
            with gr.Column(visible=False, elem_id="pose-details") as details:
                figures = gr.HTML(elem_id="pose-measures")
                with gr.Row(elem_id="pose-downloads"):
                    mp4 = gr.DownloadButton(say("MP4"), size="md", min_width=80, elem_id="pose-mp4")
                    export(say("GIF"), "gif", backend, owner, shown, "pose-gif")
                    export(say("WebM"), "webm", backend, owner, shown, "pose-webm")
                    save_skeletons = gr.DownloadButton(
                        say("Skeletons"), size="md", min_width=80, elem_id="pose-save-skeletons"
                    )
                    save_joints = gr.DownloadButton(
                        say("Keypoints"), size="md", min_width=80, elem_id="pose-save-keypoints"
                    )
                finish.piece(backend, owner, shown, "finish-pose")
                why.section(why.POSE_TO_VIDEO, "pose-why")
                with gr.Accordion(say("How it was made"), open=False, elem_id="pose-facts"):
                    facts = gr.JSON(show_label=False, container=False)
            with gr.Row(elem_id="pose-stage"):
                nobody = '<figure class="pose-preview"><div class="dark-stage"></div></figure>'
                figure = gr.HTML(nobody, elem_id="found")
                mist = gr.HTML(visible=False, elem_id="pose-forming")
            search = gr.HTML(elem_id="pose-search")
            quit_search = gr.Button(say("Stop looking"), size="md", visible=False, elem_id="pose-stop-search")
            poses = {"tuned": looks, **pose_controls.build()}
            with gr.Accordion(say("Fine settings of the video"), open=False, elem_id="fine-pose"):
                controls = sampling(first, "pose-")
                faster = shortcuts.build(first, "pose-")
        with gr.Column(elem_id="pose-settings"):
            model = gr.Dropdown(
                [(say(card.title), name) for name, card in offered("pose-to-video").items()],
                value=first.name,
                label=say("Model"),
                info=say("What draws the video; its own best settings are filled in"),
                filterable=False,
                elem_id="pose-model",
            )
            about = gr.HTML(html.model_card(first, backend.availability(first.name)), elem_id="pose-about")
    gr.HTML(say("<h2>Or begin with one of these</h2>"), elem_classes="step")
    examples = gr.HTML(
        say("|".join(f"Follows: {name}" for name, *_ in EXAMPLES)),
        html_template=html.examples(_thumbnails()),
        elem_id="pose-examples",
        js_on_load=CLICKS,
    )
    seed, randomise, dice = controls.pop("seed"), controls.pop("randomise"), controls.pop("dice")
    followed = [clip, chosen, *(poses[name] for name in forms.POSES), *(controls[name] for name in forms.SETTINGS)]
    form = [prompt, model, *followed, seed, randomise, *faster.values()]
    taken = [clip, chosen, file, there, source, about_clip, *poses.values(), controls["fps"], message]
    filled = list(dict.fromkeys([*taken, prompt, model, about, seed, randomise, *controls.values(), *faster.values()]))

    # What is followed ----------------------------------------------------------------------------------------------

    def follow_motion(name: str) -> dict:
        measured = backend.motion(name)
        return {
            **{clip: "", chosen: name, file: None, there: gr.Column(visible=False), message: gr.HTML(visible=False)},
            controls["fps"]: pose_controls.pace(measured),
            **pose_controls.fitted(poses, measured),
        }

    def take(visitor_id: str, path: str | None) -> dict:
        if path is None:
            return follow_motion(motion)
        visitor_id = visitor.known(visitor_id)
        try:
            kept = backend.keep_clip(path, visitor_id, poses=True)
        except (ValueError, OSError) as error:
            return {message: gr.HTML(html.failure(str(error), "This can't be followed."), visible=True)}
        return {
            **{owner: visitor_id, clip: kept.name, chosen: "", message: gr.HTML(visible=False)},
            controls["fps"]: pose_controls.pace(kept.clip),
            **pose_controls.fitted(poses, kept.clip),
            **_upload(kept),
        }

    def _upload(kept: Kept) -> dict:
        measured = kept.clip
        size = measured.seconds, measured.width, measured.height, measured.fps, measured.cut
        return {
            there: gr.Column(visible=True),
            source: backend.address(kept.preview),
            about_clip: edit_html.about_clip(*size),
        }

    def look(visitor_id: str, name: str, *values: object) -> Iterator[dict]:
        """Shows what the dancer would follow, looking for it where that takes a while."""
        visitor_id = visitor.known(visitor_id)
        found = None
        try:
            (task,) = forms.poses_to_videos("a dance", name, *values, seed=0)
            with closing(backend.preview_poses(task, visitor_id)) as events:
                while True:
                    try:
                        event = next(events)
                    except StopIteration as finished:
                        found = finished.value
                        break
                    if event is None or task.motion:
                        yield {search: gr.skip()}
                    else:
                        yield {search: pose_html.searching(event), quit_search: gr.Button(visible=True)}
        except (ValueError, OSError) as error:
            problem = html.failure(str(error), "There is nothing to follow yet.")
            yield {search: problem, quit_search: gr.Button(visible=False)}
            return
        if found is None:  # another search has begun, or somebody stopped this one
            yield {search: gr.skip()}
            return
        yield {
            **{figure: pose_html.pose_preview(found), search: "", seen: True, quit_search: gr.Button(visible=False)},
            poses["person"]: gr.Dropdown(pose_controls.people(found.facts.get("people", 0), task.person)),
        }

    def first_look(already: bool, *values: object) -> Iterator[dict]:
        yield {search: gr.skip()}  # gradio empties every output of a generator that yields nothing
        if not already:
            yield from look(*values)

    def look_again(asked: tuple | None, *values: object) -> Iterator[dict]:
        yield from first_look(asked is None, *values)

    def quit_looking(visitor_id: str) -> dict:
        backend.stop_pose_preview(visitor_id)
        return {
            search: html.stopped("Stopped.", "What was found before is shown."),
            quit_search: gr.Button(visible=False),
        }

    def keep_pace(visitor_id: str, name: str, motion_name: str, stride: float) -> float:
        measured = backend.clip(name, visitor_id).clip if name else backend.motion(motion_name)
        return pose_controls.pace(measured, stride)

    def refill(visitor_id: str, asked: tuple | None) -> dict:
        if asked is None:
            return {message: gr.skip()}
        values, _ = asked
        card = find(values["model"])
        if values["clip"]:
            try:
                kept = backend.clip(values["clip"], visitor_id)
            except ValueError as error:
                return {message: gr.HTML(html.failure(str(error), "What this video followed is gone."), visible=True)}
            measured, what = kept.clip, {clip: kept.name, chosen: "", **_upload(kept)}
        else:
            measured = backend.motion(values["motion"])
            what = {clip: "", chosen: values["motion"], file: None, there: gr.Column(visible=False)}
        tuned, gone = tuned_for(visitor_id, card.name), gr.HTML(visible=False)
        if values["tuned"] not in ("", *(one.job.id for one in tuned)):
            trouble = "The tuned model of this video is not here. Its dancer will look as the model draws it."
            gone = gr.HTML(html.failure(trouble, "Whose looks it had is gone."), visible=True)
        return {
            **what,
            **{prompt: values["prompt"], model: card.name, seed: values["seed"], randomise: False},
            **{about: _about(card.name), message: gone},
            looks: pose_controls.wardrobe(tuned, values["tuned"]),
            **pose_controls.filled_in(poses, measured, values),
            **filled_in(controls, card.with_lora(values["lora"]), values),
            **shortcuts.fill(faster, card, values),
        }

    def tuned_for(visitor_id: str, name: str) -> list[Tuning]:
        base = find(name).tuned_from
        return [one for one in backend.tunings(visitor_id) if one.job.task.model == base]

    def dress(visitor_id: str, name: str, chosen_looks: str) -> gr.Dropdown:
        return pose_controls.wardrobe(tuned_for(visitor_id, name), chosen_looks)

    def choose_motion(event: gr.EventData) -> dict:
        return follow_motion(event.motion)

    def choose_example(event: gr.EventData) -> dict:
        name, words, number = EXAMPLES[int(event.example)]
        plain = {poses["strength"]: 1.0, poses["placing"]: "fit", poses["smoothing"]: "light", poses["gaps"]: True}
        plain |= {poses["retarget"]: True}
        chosen_model = {
            model: first.name,
            about: _about(first.name),
            **filled_in(controls, first, asdict(first.defaults)),
            **shortcuts.fill(faster, first, {}),
        }
        rest = {prompt: words, seed: number, randomise: False, poses["detector"]: next(iter(DETECTORS)), looks: ""}
        return plain | chosen_model | rest | {poses["shown"]: "auto"} | follow_motion(name)

    def choose_model(name: str) -> dict:
        card = find(name)
        updates = filled_in(controls, card, asdict(card.defaults)) | shortcuts.fill(faster, card, {})
        return updates | {about: _about(name), controls["fps"]: gr.skip()}

    def _about(name: str) -> str:
        return html.model_card(find(name), backend.availability(name))

    def hint(prompts: str, name: str) -> str:
        """On the longest of the prompts."""
        longest = max(prompts.splitlines() or [""], key=len)
        return html.prompt_hints(longest, find(name), backend.tokens(name, longest))

    def foresee(*values: object) -> str:
        given, (*values, _) = shortcuts.split(values)
        return estimates.of(backend, lambda: forms.poses_to_videos(*values, seed=0, shortcuts=given))

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    looked = {
        **{
            "inputs": [owner, model, *followed],
            "outputs": [figure, search, seen, quit_search, poses["person"]],
            **quiet,
        },
        **{"concurrency_limit": None},
    }
    again = {"fn": look, "trigger_mode": "multiple", **looked}
    chosen.click(choose_motion, None, taken, **quiet).then(**again)
    gr.on(
        [file.upload, file.clear],
        take,
        [owner, file],
        [owner, *taken],
        show_progress_on=file,
        api_visibility="private",
        **READING,
    ).then(**again)
    from_library = given.change(
        lambda visitor_id, film: take(visitor_id, film[0]), [owner, given], [owner, *taken], **quiet, **READING
    )
    from_library.then(**again)
    wanted.change(refill, [owner, wanted], filled, **quiet).then(
        **again | {"fn": look_again, "inputs": [wanted, *again["inputs"]]}
    )
    examples.click(choose_example, None, filled, **quiet).then(None, js=_TO_ASK).then(**again)
    model.input(choose_model, model, [about, *controls.values(), *faster.values()], **quiet).then(**again)
    shortcuts.choose(faster, find, [model], controls)
    poses["stride"].release(keep_pace, [owner, clip, chosen, poses["stride"]], controls["fps"], **quiet)
    drawn = ("stride", "left", "right", "top", "bottom")
    gr.on([*(poses[name].release for name in drawn), controls["frames"].release], **again)
    decided = ("shown", "detector", "person", "gaps", "smoothing", "placing", "retarget")
    gr.on([poses[name].input for name in decided], **again)
    boxes = (poses["start"], poses["end"], controls["width"], controls["height"])
    gr.on([listen for box in boxes for listen in (box.submit, box.blur)], **again)
    gr.on([this.select, model.input], dress, [owner, model, looks], looks, **quiet)
    arrived.then(dress, [owner, model, looks], looks, **quiet)
    gr.on([this.select], first_look, [seen, *looked["inputs"]], looked["outputs"], concurrency_limit=None, **quiet)
    quit_search.click(quit_looking, owner, [search, quit_search], queue=False, **quiet)
    gr.on(None, hint, [prompt, model], hints, trigger_mode="always_last", queue=False, **quiet)
    foreseen = [prompt, model, *followed, shown, *faster.values()]
    gr.on(None, foresee, foreseen, ahead, trigger_mode="always_last", queue=False, **quiet)
    frames, fps = controls["frames"], controls["fps"]
    gr.on(None, None, [frames, fps], frames, js=FRAMES_LABEL, **quiet)
    dice.click(lambda: (forms.new_seed(), False), None, [seed, randomise], queue=False, **quiet)

    # One click, followed through -----------------------------------------------------------------------------------

    def idle() -> dict:
        return {
            **{generate: gr.Button(visible=True), stop: gr.Button(say("Stop"), visible=False, interactive=True)},
            **{line: "", mist: gr.HTML(visible=False)},
        }

    def given_up(shown_job: str | None) -> dict:
        there_is = bool(shown_job)
        return {players: gr.Row(visible=there_is), details: gr.Column(visible=there_is), **idle()}

    def finished(made: Job, visitor_id: str) -> dict:
        film, kept = backend.address(made.end.video), backend.companions(made.id, visitor_id)
        kept = {kind: backend.address(path) for kind, path in kept.items()}
        return {
            **{shown: made.id, players: gr.Row(visible=True), details: gr.Column(visible=True)},
            video: film,
            told: f'<p class="caption">{html.escape(made.task.prompt)}</p>',
            of_skeletons: gr.Column(visible="skeletons" in kept),
            skeletons: kept.get("skeletons"),
            of_source: gr.Column(visible="source" in kept),
            original: kept.get("source"),
            figures: pose_html.measures(made),
            mp4: gr.DownloadButton(value=film),
            save_skeletons: gr.DownloadButton(value=kept.get("skeletons"), visible="skeletons" in kept),
            save_joints: gr.DownloadButton(value=kept.get("keypoints"), visible="keypoints" in kept),
            facts: html.rounded(made.end.facts),
        }

    def run(visitor_id: str, shown_job: str | None, *values: object) -> Iterator[dict]:
        given, (*values, seed_value, randomise_value) = shortcuts.split(values)
        visitor_id = visitor.known(visitor_id)
        waiting: list[str] = []
        problem = gr.HTML(visible=False)
        try:
            for task in forms.poses_to_videos(*values, seed=seed_value, randomise=randomise_value, shortcuts=given):
                waiting.append(backend.submit(task, visitor_id, visitor.ADDRESS.get()))
                seed_value = task.seed
        except ValueError as error:
            problem = gr.HTML(html.failure(str(error)), visible=True)
        yield {owner: visitor_id, message: problem, seed: seed_value}
        if waiting:
            backend.stop_pose_preview(visitor_id)
            yield {search: "", quit_search: gr.Button(visible=False)}
            yield from watch(waiting, visitor_id, shown_job)

    def watch(waiting: list[str], visitor_id: str, shown_job: str | None) -> Iterator[dict]:
        """Shows how the jobs go, up to the end of the last. Whoever closes the page only stops watching."""
        yield {
            **{job: waiting, generate: gr.Button(visible=False), stop: gr.Button(visible=True)},
            **{players: gr.Row(visible=False), details: gr.Column(visible=False)},
        }
        for started in waiting:
            yield {line: html.footlights(stream.Moment())}
            for moment in stream.follow(backend, started, visitor_id):
                match moment:
                    case None:
                        yield {line: gr.skip()}
                    case stream.Moment(end=Result()):
                        shown_job = started
                        yield {**finished(backend.get(started, visitor_id), visitor_id), mist: gr.HTML(visible=False)}
                    case stream.Moment(end=Failed(message=text, stopped=stopped)):
                        card = html.stopped(text) if stopped else html.failure(text)
                        yield {message: gr.HTML(card, visible=True), mist: gr.HTML(visible=False)}
                    case stream.Moment(preview=None):
                        yield {line: html.footlights(moment)}
                    case _:
                        image = pose_html.forming(moment.preview.image)
                        yield {line: html.footlights(moment), mist: gr.HTML(image, visible=True)}
        yield given_up(shown_job)

    def go_on(visitor_id: str) -> Iterator[dict]:
        """The page was opened again: the latest video is shown, and what is being made is watched."""
        yield {line: gr.skip()}  # as above
        latest = backend.finished(visitor_id, limit=1, kind="pose-to-video")
        for made in latest:
            yield finished(made, visitor_id)
        going = [one for one in backend.unfinished(visitor_id) if isinstance(one.task, PoseToVideo)]
        if going:
            yield {wanted: (asdict(going[0].task), time.time())}
            yield from watch([one.id for one in going], visitor_id, latest[0].id if latest else None)

    def end(visitor_id: str, started: list[str] | None) -> gr.Button:
        for identifier in started or ():
            backend.cancel(identifier, visitor_id)
        return gr.Button(say("Stopping…"), interactive=False)

    outputs = [
        owner,
        job,
        shown,
        wanted,
        message,
        seed,
        line,
        generate,
        stop,
        search,
        quit_search,
        mist,
        players,
        details,
    ]
    outputs += [
        video,
        told,
        of_skeletons,
        skeletons,
        of_source,
        original,
        figures,
        mp4,
        save_skeletons,
        save_joints,
        facts,
    ]
    following = {"outputs": outputs, "concurrency_limit": None, **quiet}
    ran = generate.click(run, [owner, shown, *form], **following)
    came = arrived.then(go_on, owner, **following)
    for going in (ran, came):  # nobody follows any more: the page must not look as if
        going.failure(given_up, shown, [players, details, generate, stop, line, mist], queue=False, **quiet)
    video.change(None, js=in_step(*LEADERS), **quiet)
    generate.click(None, js=_TO_STAGE, queue=False, **quiet)  # on a phone it may be out of sight
    stop.click(end, [owner, job], stop, queue=False, **quiet)
    return Form("pose-to-video", [wanted], lambda task: {wanted: (asdict(task), time.time())})


def _thumbnails() -> list[html.Thumbnail]:
    return [
        html.Thumbnail(prompt, html.part(index), still=None, moving=find_motion(name).with_suffix(".gif"))
        for index, (name, prompt, _) in enumerate(EXAMPLES)
    ]
