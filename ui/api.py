"""The same actions for programs: named endpoints with typed arguments, for gradio_client and for agents."""

from dataclasses import asdict
from typing import Any, Literal

import gradio as gr
from gradio.data_classes import FileData, FileDataDict

from pipelines.backend import Backend
from pipelines.catalog import CATALOG, SCHEDULERS, find
from pipelines.events import Failed, Progress, Result
from pipelines.settings import Settings
from ui import forms, stream, visitor


def endpoints(backend: Backend, settings: Settings) -> None:
    """Publishes /text_to_video and /stop in the Blocks that is open."""

    def text_to_video(
        prompt: str,
        model: Literal[tuple(CATALOG)] = settings.model,
        negative_prompt: str | None = None,
        frames: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        scheduler: Literal[tuple(SCHEDULERS)] | None = None,
        seed: int | None = None,
        visitor_id: str | None = None,
    ) -> tuple[FileDataDict | None, dict[str, Any]]:  # gradio reads here what every turn of the generator yields
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
            seed: The same seed and settings make the same video. Left out, it is drawn at random.
            visitor_id: Whose job it is: 32 hexadecimal digits, kept secret. Left out, a new one is made and told.

        Returns:
            The MP4 file, and the facts of its making: settings, seed, seconds.
        """
        given = (negative_prompt, frames, width, height, fps, steps, guidance, scheduler)
        try:
            defaults = asdict(find(model).defaults)
            values = [
                defaults[name] if value is None else value for name, value in zip(forms.SETTINGS, given, strict=True)
            ]
            task = forms.text_to_video(prompt, model, *values, seed=seed, randomise=seed is None)
            owner = visitor.known(visitor_id)
            job = backend.submit(task, owner)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        ids = {"job": job, "visitor_id": owner}
        so_far: dict[str, Any] = ids
        for moment in stream.follow(backend, job, owner):
            match moment:
                case None:
                    yield None, so_far  # so that gradio notices a client that has gone
                case stream.Moment(end=Result(video=path, facts=facts)):
                    yield FileData(path=str(path.resolve()), mime_type="video/mp4").model_dump(), facts | ids
                case stream.Moment(end=Failed(message=message)):
                    raise gr.Error(message, print_exception=False)
                case stream.Moment(progress=Progress() as progress):
                    so_far = ids | asdict(progress)
                    yield None, so_far

    def stop(job: str, visitor_id: str) -> None:
        """Stops a job. A running one ends within one denoising step; one that has ended stays as it is.

        Parameters:
            job: The id that /text_to_video told with its progress.
            visitor_id: The one that it told beside it.
        """
        try:
            backend.cancel(job, visitor_id)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.api(text_to_video, api_name="text_to_video", concurrency_limit=None)
    gr.api(stop, api_name="stop", queue=False)
