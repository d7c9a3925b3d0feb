"""The same actions for programs: named endpoints with typed arguments, for gradio_client, for curl and for agents."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from inspect import Parameter, Signature, getdoc, signature
from pathlib import Path
from typing import Any, Literal, TypedDict, get_type_hints

import gradio as gr
from gradio.data_classes import FileData, FileDataDict
from gradio.utils import get_function_description, get_upload_folder

from pipelines.catalog import find, offered
from pipelines.events import Failed, Progress, Result
from pipelines.pose_tasks import FindPoses
from pipelines.serving.backend import Backend
from pipelines.settings import Settings
from pipelines.task_settings import Choice, Kept, OneOf, Setting, settings_of
from pipelines.tasks import Edit, Finish, Grid, PoseToVideo, Task, TextToVideo, Tune
from pipelines.video_tasks import TIMES, check_cells
from ui import forms, public, stream, visitor


class Upload(TypedDict):
    """What gradio_client's handle_file() sends."""

    path: str


Answer = tuple[FileDataDict | None, dict[str, Any]]  # gradio reads here what every turn of a generator yields
_VISITOR = "Whose job it is: 32 hexadecimal digits, kept secret. Left out, a new one is made and told."
_PROGRESS = "Until it is done, it tells (None, how far it is, the ids of the job and the visitor)."


def endpoints(backend: Backend, settings: Settings) -> None:
    """Publishes an endpoint for each kind of task, and /stop, /pause and /resume, in the Blocks that is open."""
    texts, posed = offered("text-to-video"), offered("pose-to-video")
    tunable = {name: card for name, card in offered("edit").items() if card.tuning}

    def kept(owner: str, **uploads: Upload | None) -> dict[str, Any]:
        """Those of the uploads that were not left out: the names under which they are kept."""
        names = {}
        for name, file in _given(**uploads).items():
            if name == "clip":
                names[name] = backend.assets.keep_clip(_uploaded(file), owner).name
            else:
                names[name] = backend.assets.keep_image(_uploaded(file), owner, mask=name == "mask")
        return names

    def text_to_video(
        owner: str,
        prompt: str,
        model: str = settings.model,
        image: Upload | None = None,
        mask: Upload | None = None,
        reference: Upload | None = None,
        clip: Upload | None = None,
        **given: Any,
    ) -> Task:
        """Makes a video of a prompt.

        Parameters:
            prompt: What the video should show, in English.
            model: Which model makes it. What is left out below is what this model's makers recommend.
            image: The first image, for a model that takes one: {"path": what /gradio_api/upload answers}.
            mask: White where the first image, or the clip, is drawn anew: likewise.
            reference: Who or what is to appear, for a model that takes such an image: likewise.
            clip: A clip to be changed, for a model that begins with one: likewise.

        Returns:
            The MP4 file, and the facts of its making: settings, seed, seconds.
        """
        files = kept(owner, image=image, mask=mask, reference=reference, clip=clip)
        return TextToVideo.for_model(find(model), prompt, **files, **given)

    def grid(
        owner: str,
        prompts: list[str],
        seeds: list[int] | None = None,
        model: str = settings.model,
        image: Upload | None = None,
        mask: Upload | None = None,
        reference: Upload | None = None,
        clip: Upload | None = None,
        **given: Any,
    ) -> list[TextToVideo]:
        """Makes a video of every prompt with every seed, and one more in which they lie side by side, with labels.

        Parameters:
            prompts: What the videos should show, in English: a row of the grid each.
            seeds: Whole numbers: a column of the grid each. Left out, one is drawn at random.
            model: Which model makes them. What is left out below is what this model's makers recommend.
            image: The first image of all, for a model that takes one: {"path": what /gradio_api/upload answers}.
            mask: White where the first image, or the clip, is drawn anew: likewise.
            reference: Who or what is to appear in all, for a model that takes such an image: likewise.
            clip: A clip that all change, for a model that begins with one: likewise.

        Returns:
            The MP4 file of the grid, and its facts. Their "jobs" are those of the videos, row after row.
        """
        columns = [given["seed"]] if seeds is None else seeds
        if not isinstance(prompts, list) or not isinstance(columns, list):
            raise ValueError("The prompts and the seeds of a grid are lists.")
        check_cells(len(prompts), len(columns))
        given |= kept(owner, image=image, mask=mask, reference=reference, clip=clip)
        return [TextToVideo.for_model(find(model), row, **given | {"seed": one}) for row in prompts for one in columns]

    def pose_to_video(
        owner: str,
        prompt: str,
        motion: str | None = None,
        clip: Upload | None = None,
        model: str = next(iter(posed)),
        tuned: str | None = None,
        reference: Upload | None = None,
        **given: Any,
    ) -> Task:
        """Makes a video of a prompt whose dancer follows the poses of a clip or of a built-in motion.

        Parameters:
            prompt: Who dances, wearing what, and where, in English.
            motion: A built-in motion, such as "wave". Either this or a clip.
            clip: A clip of people or skeletons, or OpenPose's JSON in a ZIP: {"path": what /gradio_api/upload answers}.
            model: Which model makes it. What is left out below is what this model's makers recommend.
            tuned: The "job" that /tune told, for who is in that clip to dance; with the visitor_id told beside it.
            reference: Who dances, for a model that takes such an image: {"path": what /gradio_api/upload answers}.

        Returns:
            The MP4 file, and the facts of its making: settings, seed, poses, seconds.
        """
        given |= _given(motion=motion, tuned=tuned) | kept(owner, reference=reference)
        if clip is not None:
            given["clip"] = backend.assets.keep_clip(_uploaded(clip), owner, poses=True).name
        return PoseToVideo.for_model(find(model), prompt, **given)

    def tune(owner: str, clip: Upload, prompt: str, model: str = next(iter(tunable)), **given: Any) -> Task:
        """Tunes a model on one clip, which /edit then edits with other words.

        What is stopped is kept as far as it came.

        Parameters:
            clip: A video or moving picture: {"path": what /gradio_api/upload answers to a POST of the file}.
            prompt: What the clip shows: who, wearing what, doing what, where.
            model: The Stable Diffusion that it starts from.

        Returns:
            The frames that it was tuned on as an MP4 file, and the facts. Their "job" is what /edit wants as `tuned`.
        """
        card = find(model)
        return Tune.for_model(card, prompt, **kept(owner, clip=clip), **given)

    def edit(owner: str, tuned: str, prompt: str, **given: Any) -> Task:
        """Edits a clip with other words, with a model that /tune tuned on it.

        Parameters:
            tuned: The "job" that /tune told, or "kicking-person", which is built in.
            prompt: What the clip should show now.

        Returns:
            The MP4 file, and the facts of its making: settings, seconds.
        """
        for tuning in backend.tunings.offered(owner):
            if tuning.job.id == tuned:
                model, frames, width, height = tuning.shape
                shape = {"frames": frames, "width": width, "height": height, "fps": tuning.facts["fps"]}
                return Edit.for_model(find(model), prompt, tuned=tuned, **shape, **given)
        raise ValueError("There is no such tuned model. Call /tune first, with the same visitor_id.")

    def finish(owner: str, job: str, upscale: int = 2, **given: Any) -> Task:
        """Makes a video larger, smoother or both, without a model.

        Parameters:
            job: The "job" that made the video, as it was told.
            upscale: How many times as wide and high it becomes.

        Returns:
            The MP4 file, and the facts of its making: settings, which frames are new, seconds.
        """
        return forms.finish(backend.jobs.get(job, owner), upscale=upscale, **given)

    def poses(owner: str, clip: Upload, **given: Any) -> FindPoses:
        """Finds the people in a clip.

        Parameters:
            clip: A clip of people or drawn figures: {"path": what /gradio_api/upload answers}.

        Returns:
            The JSON file, a list of frames with "canvas_width", "canvas_height" and "people", each of whom has the 18
            joints of OpenPose in "pose_keypoints_2d"; and the facts: what found them, how many people, how sure it is.
        """
        return FindPoses.of(clip=backend.assets.keep_clip(_uploaded(clip), owner, poses=True).name, **given)

    def stop(job: str, visitor_id: str) -> None:
        """Stops a job, and with a grid all of its videos. A running one ends within one denoising step.

        Parameters:
            job: The id that the job told with its progress.
            visitor_id: The one that it told beside it.
        """
        _for_all(backend, job, visitor_id, backend.jobs.cancel)

    def pause(job: str, visitor_id: str) -> None:
        """Pauses a job, and with a grid all of its videos. A running one stops within one denoising step.

        Parameters:
            job: The id that the job told with its progress.
            visitor_id: The one that it told beside it.
        """
        _for_all(backend, job, visitor_id, backend.jobs.pause)

    def resume(job: str, visitor_id: str) -> None:
        """Queues a paused job once more, and with a grid all of its videos. It goes on from its last denoising step.

        Parameters:
            job: The id that the job told with its progress.
            visitor_id: The one that it told beside it.
        """
        queue = partial(backend.jobs.resume, address=visitor.ADDRESS.get())
        _for_all(backend, job, visitor_id, queue, grid_first=False)

    run, find_people = partial(_run, backend), partial(_find, backend)
    for endpoint in (
        _endpoint(text_to_video, TextToVideo, run, model=texts),
        _endpoint(grid, TextToVideo, run, model=texts),
        _endpoint(pose_to_video, PoseToVideo, run, model=posed),
        _endpoint(poses, FindPoses, find_people),
        _endpoint(tune, Tune, run, model=tunable),
        _endpoint(edit, Edit, run, known="The one that /tune told."),
        _endpoint(finish, Finish, run, known="The one that was told beside the job.", upscale=TIMES),
    ):
        _publish(endpoint, concurrency_limit=None)
    for action in (stop, pause, resume):
        _publish(action, queue=False)


def _for_all(
    backend: Backend, job: str, visitor_id: str, act: Callable[[str, str], None], grid_first: bool = True
) -> None:
    """Calls `act` with the job and, where that is a grid, with its videos, last or first."""
    try:
        task = backend.jobs.get(job, visitor_id).task
        jobs = [job, *reversed(task.jobs)] if isinstance(task, Grid) else [job]
        for one in jobs if grid_first else reversed(jobs):
            act(one, visitor_id)
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _endpoint(
    action: Callable[..., Any],
    kind: type,
    run: Callable[..., Iterator[Answer]],
    known: str = "",
    **choices: Iterable[str | int],
) -> Callable[..., Iterator[Answer]]:
    """`action` as gradio publishes it: with a parameter for each declared setting of `kind` in place of **given, and
    with a visitor_id in place of the owner. It makes a task, which `run` then carries out.

    `known` says which visitor_id is meant, where one must have been told before; `choices` what some of the parameters
    of `action` may be.
    """
    own = [one for name, one in signature(action).parameters.items() if name not in ("owner", "given")]
    hints, names = get_type_hints(kind), [one.name for one in own]
    declared = {
        name: setting
        for name, setting in settings_of(kind).items()
        if setting.asked and not isinstance(setting, Kept) and name not in (*names, "prompt")  # a grid has prompts
    }
    needed = [one.name for one in own if one.default is Parameter.empty]
    own = [one.replace(annotation=Literal[tuple(choices[one.name])]) if one.name in choices else one for one in own]
    parameters = [one.replace(kind=Parameter.POSITIONAL_OR_KEYWORD) for one in own]
    parameters += [_parameter(name, _hint(setting, hints[name])) for name, setting in declared.items()]
    if known:
        place = sum(one.default is Parameter.empty for one in own)
        parameters.insert(place, Parameter("visitor_id", Parameter.POSITIONAL_OR_KEYWORD, annotation=str))
    else:
        parameters.append(_parameter("visitor_id", str))
    told = {name: f"{setting.label}. {setting.help}" for name, setting in declared.items()}
    told["visitor_id"] = known or _VISITOR

    def endpoint(*values: object) -> Iterator[Answer]:
        given = _given(**dict(zip((one.name for one in parameters), values, strict=True)))
        visitor_id = given.pop("visitor_id", None)
        if missing := [name for name in needed if name not in given]:
            raise gr.Error(f"What is needed was left out: {', '.join(missing)}.", print_exception=False)
        if "seed" in declared and "seed" not in given:
            seed = declared["seed"].default
            given["seed"] = forms.new_seed() if seed is None else seed

        def task(owner: str) -> Any:
            return action(owner, **given)

        yield from run(visitor_id, task)

    before, _, after = (getdoc(action) or "").partition("\nReturns:")
    lines = "".join(f"\n    {name}: {text}" for name, text in told.items())
    before = before.rstrip().replace("\n\nParameters:", f" {_PROGRESS}\n\nParameters:", 1)
    endpoint.__doc__ = f"{before}{lines}\n\nReturns:{after}"
    endpoint.__name__ = action.__name__
    endpoint.__signature__ = Signature(parameters, return_annotation=Answer)
    endpoint.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": Answer}
    return endpoint


def _parameter(name: str, hint: Any) -> Parameter:
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=hint | None)


def _hint(setting: Setting, hint: Any) -> Any:
    match setting:
        case Choice(choices=choices):
            return Literal[tuple(choices)]
        case OneOf(numbers=numbers):
            return Literal[numbers]
    return hint


def _publish(action: Callable, **rest: object) -> None:
    """Makes `action` an endpoint whose parameters are called what its docstring says of them."""
    published = gr.api(action, api_name=action.__name__, **rest)
    _, told, _ = get_function_description(action)
    inputs = gr.context.Context.root_block.fns[published["id"]].inputs
    for component, name in zip(inputs, signature(action).parameters, strict=True):
        component.label = told[name]


def _find(backend: Backend, visitor_id: object, task: Callable[[str], FindPoses]) -> Iterator[Answer]:
    """Has the people found that `task` wants found for its owner, and tells how it goes, as an Answer."""
    try:
        owner = visitor.known(visitor_id)
        so_far: dict[str, Any] = {"visitor_id": owner}
        with closing(backend.previews.find(task(owner), owner)) as events:
            while True:
                try:
                    event = next(events)
                except StopIteration as finished:
                    found = finished.value
                    break
                so_far = so_far if event is None else so_far | asdict(event)
                yield None, so_far
    except (ValueError, OSError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    if found is None:
        raise gr.Error("Stopped by another search of the same visitor.", print_exception=False)
    folder = Path(get_upload_folder()) / f"{public.MADE}{secrets.token_hex(16)}"  # gradio deletes it in time
    folder.mkdir(parents=True)
    (folder / "poses.json").write_text(found.text)
    file = FileData(path=str(folder / "poses.json"), mime_type="application/json", orig_name="poses.json")
    yield file.model_dump(), found.facts | {"visitor_id": owner}


def _run(backend: Backend, visitor_id: object, task: Callable[[str], Task | list[TextToVideo]]) -> Iterator[Answer]:
    """Has the job done that `task` makes for its owner, or the grid of several, and tells how it goes, as an Answer."""
    try:
        owner = visitor.known(visitor_id)
        wanted = task(owner)
        if isinstance(wanted, list):
            job = backend.jobs.submit_grid(wanted, owner, visitor.ADDRESS.get())[-1]
        else:
            job = backend.jobs.submit(wanted, owner, visitor.ADDRESS.get())
    except (ValueError, OSError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    ids: dict[str, Any] = {"job": job, "visitor_id": owner}
    if isinstance(wanted, list):
        laid = backend.jobs.get(job, owner).task
        assert isinstance(laid, Grid)
        ids["jobs"] = list(laid.jobs)
    so_far: dict[str, Any] = ids
    for moment in stream.follow(backend, job, owner):
        match moment:
            case None:
                yield None, so_far  # so that gradio notices a client that has gone
            case stream.Moment(end=Result(video=path, facts=facts)):
                yield FileData(path=backend.assets.address(path), mime_type="video/mp4").model_dump(), facts | ids
            case stream.Moment(end=Failed(message=message)):
                raise gr.Error(message, print_exception=False)
            case stream.Moment(progress=Progress() as progress):
                so_far = ids | asdict(progress)
                yield None, so_far


def _given(**settings: object) -> dict[str, object]:
    """Those that were not left out."""
    return {name: value for name, value in settings.items() if value is not None}


def _uploaded(file: object) -> Path:
    """The file that a client uploaded. Raises ValueError for any other: no client may name a file of this machine."""
    path = file.get("path") if isinstance(file, dict) else None
    if isinstance(path, str) and "\0" not in path:
        found = Path(path).resolve()
        if found.is_relative_to(Path(get_upload_folder()).resolve()) and found.is_file():
            return found
    raise ValueError("There is no such upload. Upload the clip first: gradio_client's handle_file() does it.")
