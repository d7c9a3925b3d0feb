"""The same actions for programs: named endpoints with typed arguments, for gradio_client, for curl and for agents."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypedDict

import gradio as gr
from gradio.data_classes import FileData, FileDataDict
from gradio.utils import get_function_description, get_upload_folder

from pipelines.catalog import DETECTORS, SCHEDULERS, find, offered
from pipelines.events import Failed, Progress, Result
from pipelines.serving.backend import Backend
from pipelines.settings import Settings
from pipelines.tasks import (
    PLACEMENTS,
    PRECISIONS,
    SHOWN,
    SMOOTHING,
    TIMES,
    TRAINED,
    Edit,
    FindPoses,
    Grid,
    PoseToVideo,
    Task,
    TextToVideo,
    Tune,
    check_cells,
)
from ui import forms, stream, visitor


class Upload(TypedDict):
    """What gradio_client's handle_file() sends."""

    path: str


Answer = tuple[FileDataDict | None, dict[str, Any]]  # gradio reads here what every turn of a generator yields


def endpoints(backend: Backend, settings: Settings) -> None:
    """Publishes an endpoint for each kind of task, and /stop, in the Blocks that is open."""
    tunable = {name: card for name, card in offered("edit").items() if card.tuning}

    def text_to_video(
        prompt: str,
        model: Literal[tuple(offered("text-to-video"))] = settings.model,
        negative_prompt: str | None = None,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        scheduler: Literal[tuple(SCHEDULERS)] | None = None,
        lora: str | None = None,
        precision: Literal[tuple(PRECISIONS)] | None = None,
        caching: int | None = None,
        guided_from: float | None = None,
        guided_until: float | None = None,
        image: Upload | None = None,
        mask: Upload | None = None,
        image_guidance: float | None = None,
        seed: int | None = None,
        visitor_id: str | None = None,
    ) -> Answer:
        """Makes a video of a prompt. Until it is done, it tells (None, how far it is and both ids).

        Parameters:
            prompt: What the video should show, in English.
            model: Which model makes it. What is left out below is what this model's makers recommend.
            negative_prompt: What it should not show.
            frames: How many pictures it has.
            width: Pixels.
            height: Pixels.
            fps: Pictures a second.
            steps: Denoising steps; more takes longer and looks cleaner.
            guidance: How strictly it keeps to the prompt; 1 or less turns guidance off.
            scheduler: The sampler.
            lora: What needs few steps, of those that the model has: "mcm-anime". Left out, none.
            precision: "fast" computes in bfloat16 where the processor is quicker with it.
            caching: Deep features are computed in every so many steps; 1 is exact.
            guided_from: From where guidance counts, as a share of the way from noise to the video.
            guided_until: Up to where it counts.
            image: The first image, for a model that takes one: {"path": what /gradio_api/upload answers}.
            mask: White where the first image is not to be followed: likewise.
            image_guidance: As guidance, of the first image where the model is to draw it itself.
            seed: The same seed and settings make the same video. Left out, it is drawn at random.
            visitor_id: Whose job it is: 32 hexadecimal digits, kept secret. Left out, a new one is made and told.

        Returns:
            The MP4 file, and the facts of its making: settings, seed, seconds.
        """
        given = _given(
            negative_prompt=negative_prompt, frames=frames, width=width, height=height, fps=fps, steps=steps,
            guidance=guidance, scheduler=scheduler, image_guidance=image_guidance,
            lora=lora, precision=precision, caching=caching, guided_from=guided_from, guided_until=guided_until,
        )  # fmt: skip

        def task(owner: str) -> Task:
            for part, file in _given(image=image, mask=mask).items():
                given[part] = backend.keep_image(_uploaded(file), owner, mask=part == "mask")
            return TextToVideo.for_model(find(model), prompt, _seed(seed), **given)

        yield from _run(backend, visitor_id, task)

    def grid(
        prompts: list[str],
        seeds: list[int] | None = None,
        model: Literal[tuple(offered("text-to-video"))] = settings.model,
        negative_prompt: str | None = None,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        scheduler: Literal[tuple(SCHEDULERS)] | None = None,
        lora: str | None = None,
        precision: Literal[tuple(PRECISIONS)] | None = None,
        caching: int | None = None,
        guided_from: float | None = None,
        guided_until: float | None = None,
        visitor_id: str | None = None,
    ) -> Answer:
        """Makes a video of every prompt with every seed, and one more in which they lie side by side, with labels.

        Until it is done, it tells (None, how far the last one is and both ids).

        Parameters:
            prompts: What the videos should show, in English: a row of the grid each.
            seeds: Whole numbers: a column of the grid each. Left out, one is drawn at random.
            model: Which model makes them. What is left out below is what this model's makers recommend.
            negative_prompt: What they should not show.
            frames: How many pictures each of them has.
            width: Pixels.
            height: Pixels.
            fps: Pictures a second.
            steps: Denoising steps; more takes longer and looks cleaner.
            guidance: How strictly they keep to the prompt; 1 or less turns guidance off.
            scheduler: The sampler.
            lora: What needs few steps, of those that the model has: "mcm-anime". Left out, none.
            precision: "fast" computes in bfloat16 where the processor is quicker with it.
            caching: Deep features are computed in every so many steps; 1 is exact.
            guided_from: From where guidance counts, as a share of the way from noise to the video.
            guided_until: Up to where it counts.
            visitor_id: Whose jobs they are: 32 hexadecimal digits, kept secret. Left out, a new one is made and told.

        Returns:
            The MP4 file of the grid, and its facts. Their "jobs" are those of the videos, row after row.
        """
        given = _given(
            negative_prompt=negative_prompt, frames=frames, width=width, height=height, fps=fps, steps=steps,
            guidance=guidance, scheduler=scheduler,
            lora=lora, precision=precision, caching=caching, guided_from=guided_from, guided_until=guided_until,
        )  # fmt: skip

        def tasks(owner: str) -> list[Task]:
            rows, columns = prompts, [forms.new_seed()] if seeds is None else seeds
            if not isinstance(rows, list) or not isinstance(columns, list):
                raise ValueError("The prompts and the seeds of a grid are lists.")
            check_cells(len(rows), len(columns))
            return [TextToVideo.for_model(find(model), row, one, **given) for row in rows for one in columns]

        yield from _run(backend, visitor_id, tasks)

    def pose_to_video(
        prompt: str,
        motion: str | None = None,
        clip: Upload | None = None,
        model: Literal[tuple(offered("pose-to-video"))] = next(iter(offered("pose-to-video"))),
        shown: Literal[tuple(SHOWN)] | None = None,
        detector: Literal[tuple(DETECTORS)] | None = None,
        start: float | None = None,
        end: float | None = None,
        stride: int | None = None,
        person: int | None = None,
        gaps: bool | None = None,
        smoothing: Literal[tuple(SMOOTHING)] | None = None,
        placing: Literal[tuple(PLACEMENTS)] | None = None,
        retarget: bool | None = None,
        strength: float | None = None,
        tuned: str | None = None,
        left: float | None = None,
        right: float | None = None,
        top: float | None = None,
        bottom: float | None = None,
        sound: bool | None = None,
        negative_prompt: str | None = None,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        scheduler: Literal[tuple(SCHEDULERS)] | None = None,
        lora: str | None = None,
        precision: Literal[tuple(PRECISIONS)] | None = None,
        caching: int | None = None,
        guided_from: float | None = None,
        guided_until: float | None = None,
        seed: int | None = None,
        visitor_id: str | None = None,
    ) -> Answer:
        """Makes a video of a prompt whose dancer follows the poses of a clip or of a built-in motion.

        Until it is done, it tells (None, how far it is and both ids).

        Parameters:
            prompt: Who dances, wearing what, and where, in English.
            motion: A built-in motion, such as "wave". Either this or a clip.
            clip: A clip of people or skeletons, or OpenPose's JSON in a ZIP: {"path": what /gradio_api/upload answers}.
            model: Which model makes it. What is left out below is what this model's makers recommend.
            shown: What the clip shows; "auto" finds out.
            detector: What looks for people's joints in the clip.
            start: Seconds: where the part of the clip that is used begins.
            end: Seconds: where it ends.
            stride: From one used frame to the next.
            person: 0 is whoever is most to be seen, 1 the next. Left out, everybody.
            gaps: Whether joints that are away for a moment are filled in.
            smoothing: How much the joints are smoothed over time.
            placing: How the skeletons are laid on the canvas.
            retarget: Whether a character with a body of its own, such as a bear, keeps its proportions.
            strength: Of the poses: 0 leaves them out, 1 is as published.
            tuned: The "job" that /tune told, for who is in that clip to dance; with the visitor_id told beside it.
            left: How much of the clip's picture is cut off at the left, as a share of its width.
            right: Likewise at the right.
            top: Likewise at the top, as a share of its height.
            bottom: Likewise at the bottom.
            sound: Whether the clip's sound is kept.
            negative_prompt: What it should not show.
            frames: How many pictures it has, at most.
            width: Pixels.
            height: Pixels.
            fps: Pictures a second.
            steps: Denoising steps; more takes longer and looks cleaner.
            guidance: How strictly it keeps to the prompt; 1 or less turns guidance off.
            scheduler: The sampler.
            lora: What needs few steps, of those that the model has: "mcm-anime". Left out, none.
            precision: "fast" computes in bfloat16 where the processor is quicker with it.
            caching: Deep features are computed in every so many steps; 1 is exact.
            guided_from: From where guidance counts, as a share of the way from noise to the video.
            guided_until: Up to where it counts.
            seed: The same seed and settings make the same video. Left out, it is drawn at random.
            visitor_id: Whose job it is: 32 hexadecimal digits, kept secret. Left out, a new one is made and told.

        Returns:
            The MP4 file, and the facts of its making: settings, seed, poses, seconds.
        """
        given = _given(
            motion=motion, shown=shown, detector=detector, start=start, end=end, stride=stride, person=person,
            gaps=gaps, smoothing=smoothing, placing=placing, retarget=retarget, strength=strength, left=left,
            right=right, top=top, bottom=bottom, sound=sound, tuned=tuned, negative_prompt=negative_prompt,
            frames=frames, width=width, height=height, fps=fps, steps=steps, guidance=guidance, scheduler=scheduler,
            lora=lora, precision=precision, caching=caching, guided_from=guided_from, guided_until=guided_until,
        )  # fmt: skip

        def task(owner: str) -> Task:
            if clip is not None:
                given["clip"] = backend.keep_clip(_uploaded(clip), owner, poses=True).name
            return PoseToVideo.for_model(find(model), prompt, _seed(seed), **given)

        yield from _run(backend, visitor_id, task)

    def poses(
        clip: Upload,
        detector: Literal[tuple(DETECTORS)] | None = None,
        start: float | None = None,
        end: float | None = None,
        stride: int | None = None,
        visitor_id: str | None = None,
    ) -> Answer:
        """Finds the people in a clip. Until it is done, it tells (None, how far it is).

        Parameters:
            clip: A clip of people or drawn figures: {"path": what /gradio_api/upload answers}.
            detector: What looks for people's joints; "auto" takes what is surer.
            start: Seconds: where the part of the clip that is searched begins.
            end: Seconds: where it ends.
            stride: From one searched frame to the next.
            visitor_id: Whose clip it is: 32 hexadecimal digits, kept secret. Left out, a new one is made and told.

        Returns:
            The JSON file, a list of frames with "canvas_width", "canvas_height" and "people", each of whom has the 18
            joints of OpenPose in "pose_keypoints_2d"; and the facts: what found them, how many people, how sure it is.
        """
        try:
            owner = visitor.known(visitor_id)
            kept = backend.keep_clip(_uploaded(clip), owner, poses=True).name
            task = FindPoses.of(kept, detector, start=start, end=end, stride=stride)
            so_far: dict[str, Any] = {"visitor_id": owner}
            with closing(backend.find_poses(task, owner)) as events:
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
        folder = Path(get_upload_folder()) / secrets.token_hex(16)  # where gradio serves and, in time, deletes files
        folder.mkdir(parents=True)
        (folder / "poses.json").write_text(found.text)
        file = FileData(path=str(folder / "poses.json"), mime_type="application/json", orig_name="poses.json")
        yield file.model_dump(), found.facts | {"visitor_id": owner}

    def tune(
        clip: Upload,
        prompt: str,
        model: Literal[tuple(tunable)] = next(iter(tunable)),
        start: float | None = None,
        end: float | None = None,
        stride: int | None = None,
        frames: int | None = None,
        across: float | None = None,
        down: float | None = None,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        learning_rate: float | None = None,
        trained: Literal[tuple(TRAINED)] | None = None,
        seed: int = 33,
        visitor_id: str | None = None,
    ) -> Answer:
        """Tunes a model on one clip, which /edit then tells again in other words.

        Until it is done, it tells (None, how far it is and both ids). What is stopped is kept as far as it came.

        Parameters:
            clip: An MP4, MOV, WebM, MKV or GIF: {"path": what /gradio_api/upload answers to a POST of the file}.
            prompt: What the clip shows: who, wearing what, doing what, where.
            model: The Stable Diffusion that it starts from.
            start: Seconds: where the part of the clip that is used begins.
            end: Seconds: where it ends.
            stride: From one used frame to the next.
            frames: How many are used, at most.
            across: Where the picture is cut to shape, from 0 (left) to 1 (right).
            down: Likewise, from 0 (top) to 1 (bottom).
            width: Pixels.
            height: Pixels.
            steps: Tuning steps; more keep closer to the clip.
            learning_rate: From 0.000001 to 0.01.
            trained: What the tuning changes.
            seed: The same seed and settings tune in the same way.
            visitor_id: Whose job it is: 32 hexadecimal digits, kept secret. Left out, a new one is made and told.

        Returns:
            The frames that it was tuned on as an MP4 file, and the facts. Their "job" is what /edit wants as `tuned`.
        """
        given = _given(
            start=start, end=end, stride=stride, frames=frames, across=across, down=down, width=width, height=height,
            steps=steps, learning_rate=learning_rate, trained=trained,
        )  # fmt: skip

        def task(owner: str) -> Task:
            kept = backend.keep_clip(_uploaded(clip), owner)
            return Tune.for_model(find(model), prompt, seed, clip=kept.name, **given)

        yield from _run(backend, visitor_id, task)

    def edit(
        tuned: str,
        prompt: str,
        visitor_id: str,
        negative_prompt: str | None = None,
        strength: float | None = None,
        guidance: float | None = None,
        steps: int | None = None,
        scheduler: Literal[tuple(SCHEDULERS)] | None = None,
        lora: str | None = None,
        precision: Literal[tuple(PRECISIONS)] | None = None,
        caching: int | None = None,
        guided_from: float | None = None,
        guided_until: float | None = None,
        sound: bool | None = None,
        seed: int = 0,
    ) -> Answer:
        """Tells a clip again in other words, with a model that /tune tuned on it.

        Until it is done, it tells (None, how far it is and both ids).

        Parameters:
            tuned: The "job" that /tune told.
            prompt: What the clip should show now.
            visitor_id: The one that /tune told.
            negative_prompt: What it should not show.
            strength: 0 keeps the clip's own motion and layout, 1 begins from plain noise.
            guidance: How strictly it keeps to the prompt; 1 or less turns guidance off.
            steps: Denoising steps; more takes longer and looks cleaner.
            scheduler: The sampler.
            lora: What needs few steps, of those that the model has: "mcm-anime". Left out, none.
            precision: "fast" computes in bfloat16 where the processor is quicker with it.
            caching: Deep features are computed in every so many steps; 1 is exact.
            guided_from: From where guidance counts, as a share of the way from noise to the video.
            guided_until: Up to where it counts.
            sound: Whether the clip's sound is kept.
            seed: Plays a part where the strength is not 0.

        Returns:
            The MP4 file, and the facts of its making: settings, seconds.
        """
        given = _given(
            negative_prompt=negative_prompt, strength=strength, guidance=guidance, steps=steps, scheduler=scheduler,
            sound=sound,
            lora=lora, precision=precision, caching=caching, guided_from=guided_from, guided_until=guided_until,
        )  # fmt: skip

        def task(owner: str) -> Task:
            for tuning in backend.tunings(owner):
                if tuning.job.id == tuned:
                    model, frames, width, height = tuning.shape
                    shape = {"frames": frames, "width": width, "height": height, "fps": tuning.facts["fps"]}
                    return Edit.for_model(find(model), prompt, seed, tuned=tuned, **shape, **given)
            raise ValueError("There is no such tuned model. Call /tune first, with the same visitor_id.")

        yield from _run(backend, visitor_id, task)

    def finish(job: str, visitor_id: str, upscale: Literal[TIMES] = 2, interpolate: Literal[TIMES] = 1) -> Answer:
        """Makes a video larger, smoother or both, without a model.

        Until it is done, it tells (None, how far it is and both ids).

        Parameters:
            job: The "job" that made the video, as it was told.
            visitor_id: The one that was told beside it.
            upscale: How many times as wide and as high it becomes.
            interpolate: How many frames come of one.

        Returns:
            The MP4 file, and the facts of its making: settings, which frames are new, seconds.
        """
        yield from _run(backend, visitor_id, lambda owner: forms.finish(backend.get(job, owner), upscale, interpolate))

    def stop(job: str, visitor_id: str) -> None:
        """Stops a job, and with a grid all of its videos. A running one ends within one denoising step.

        Parameters:
            job: The id that the job told with its progress.
            visitor_id: The one that it told beside it.
        """
        try:
            task = backend.get(job, visitor_id).task
            for one in (job, *(task.jobs if isinstance(task, Grid) else ())):
                backend.cancel(one, visitor_id)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    for action in (text_to_video, grid, pose_to_video, poses, tune, edit, finish):
        _publish(action, concurrency_limit=None)
    _publish(stop, queue=False)


def _publish(action: Callable, **rest: object) -> None:
    """Makes `action` an endpoint whose parameters are called what its docstring says of them."""
    published = gr.api(action, api_name=action.__name__, **rest)
    _, told, _ = get_function_description(action)
    inputs = gr.context.Context.root_block.fns[published["id"]].inputs
    for component, name in zip(inputs, signature(action).parameters, strict=True):
        component.label = told[name]


def _run(backend: Backend, visitor_id: object, task: Callable[[str], Task | list[Task]]) -> Iterator[tuple]:
    """Has the job done that `task` makes for its owner, or the grid of several, and tells how it goes, as an Answer."""
    try:
        owner = visitor.known(visitor_id)
        wanted = task(owner)
        if isinstance(wanted, list):
            job = backend.submit_grid(wanted, owner, visitor.ADDRESS.get())[-1]
        else:
            job = backend.submit(wanted, owner, visitor.ADDRESS.get())
    except (ValueError, OSError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    ids: dict[str, Any] = {"job": job, "visitor_id": owner}
    if isinstance(wanted, list):
        ids["jobs"] = list(backend.get(job, owner).task.jobs)
    so_far: dict[str, Any] = ids
    for moment in stream.follow(backend, job, owner):
        match moment:
            case None:
                yield None, so_far  # so that gradio notices a client that has gone
            case stream.Moment(end=Result(video=path, facts=facts)):
                yield FileData(path=backend.address(path), mime_type="video/mp4").model_dump(), facts | ids
            case stream.Moment(end=Failed(message=message)):
                raise gr.Error(message, print_exception=False)
            case stream.Moment(progress=Progress() as progress):
                so_far = ids | asdict(progress)
                yield None, so_far


def _given(**settings: object) -> dict[str, object]:
    """Those that were not left out."""
    return {name: value for name, value in settings.items() if value is not None}


def _seed(given: object) -> object:
    return forms.new_seed() if given is None else given


def _uploaded(file: object) -> Path:
    """The file that a client uploaded. Raises ValueError for any other: no client may name a file of this machine."""
    path = file.get("path") if isinstance(file, dict) else None
    if isinstance(path, str) and "\0" not in path:
        found = Path(path).resolve()
        if found.is_relative_to(Path(get_upload_folder()).resolve()) and found.is_file():
            return found
    raise ValueError("There is no such upload. Upload the clip first: gradio_client's handle_file() does it.")
