"""From what the controls hold to a valid task, whoever filled them in: a person on the page, a client, an agent."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict

from pipelines.catalog import CATALOG, ModelCard, find
from pipelines.serving.backend import Tuning
from pipelines.serving.jobs import Job
from pipelines.tasks import MAX_SEED, Edit, Finish, PoseToVideo, TextToVideo, Tune, check_cells

TUNING = (
    *("start", "end", "stride", "frames", "across", "down", "width", "height"),
    *("steps", "learning_rate", "trained", "seed"),
)
EDITING = ("negative_prompt", "strength", "guidance", "steps", "scheduler", "sound", "seed")
EVERYBODY = "all"  # of the control that chooses a person
POSES = (
    *("shown", "detector", "start", "end", "stride", "left", "right", "top", "bottom"),
    *("person", "gaps", "smoothing", "placing", "retarget", "strength", "sound", "tuned"),
)
SETTINGS = ("negative_prompt", "frames", "width", "height", "fps", "steps", "guidance", "scheduler")


def text_to_video(
    prompt: object,
    model: object,
    *settings: object,
    seed: object,
    randomise: bool = False,
    first_image: Mapping[str, object] | None = None,
    shortcuts: Mapping[str, object] | None = None,
    catalog: Mapping[str, ModelCard] = CATALOG,
) -> TextToVideo:
    """The task that the controls describe; `settings` in the order of SETTINGS, a new seed where `randomise`.

    `first_image` has the settings of the first image, which count where the model takes one; `shortcuts` those that
    are off by default (tasks.SHORTCUTS). Raises ValueError, in
    words for the person who set them, where the values make no possible task.
    """
    if randomise:
        seed = new_seed()
    card, values = find(model, catalog), dict(zip(SETTINGS, settings, strict=True)) | dict(shortcuts or {})
    if "image" in card.takes:
        values |= first_image or {}
    if card.image_model is None:  # it draws no first image, so there is no guidance of one
        values.pop("image_guidance", None)
    return TextToVideo.for_model(card, prompt, seed, **values)


def texts_to_videos(
    prompts: object,
    *rest: object,
    seed: object,
    seeds: object,
    randomise: bool = False,
    first_image: Mapping[str, object] | None = None,
    shortcuts: Mapping[str, object] | None = None,
    catalog: Mapping[str, ModelCard] = CATALOG,
) -> list[TextToVideo]:
    """As `text_to_video`, but a video for every line of `prompts` and every one of `seeds`, row after row.

    `seeds` is text, numbers with commas between them; where it is empty, `seed` and `randomise` count.
    """
    lines = list(dict.fromkeys(_lines(prompts)))
    numbers = list(dict.fromkeys(re.findall(r"[^\s,;]+", str(seeds))))
    if not all(re.fullmatch(r"\d{1,10}", number, re.ASCII) for number in numbers):
        raise ValueError("The seeds of a grid are whole numbers with commas between them, such as 7, 8, 9.")
    chosen = [int(number) for number in numbers] or [new_seed() if randomise else seed]
    if len(lines) * len(chosen) > 1:
        check_cells(len(lines), len(chosen))
    return [
        text_to_video(line, *rest, seed=one, first_image=first_image, shortcuts=shortcuts, catalog=catalog)
        for line in lines
        for one in chosen
    ]


def tune(
    prompt: object, model: object, clip: object, *settings: object, catalog: Mapping[str, ModelCard] = CATALOG
) -> Tune:
    """The tuning that the controls describe; `settings` in the order of TUNING. Raises ValueError as above."""
    values = dict(zip(TUNING, settings, strict=True))
    return Tune.for_model(find(model, catalog), prompt, values.pop("seed"), clip=clip, **values)


def edits(
    prompts: object,
    tuned: Tuning | ModelCard,
    *settings: object,
    shortcuts: Mapping[str, object] | None = None,
    catalog: Mapping[str, ModelCard] = CATALOG,
) -> list[Edit]:
    """An edit by `tuned`, a tuning or a model that is published as tuned, for every line of `prompts`; `settings` in
    the order of EDITING. Raises ValueError as above."""
    values = dict(zip(EDITING, settings, strict=True)) | dict(shortcuts or {})
    seed = values.pop("seed")
    if isinstance(tuned, ModelCard):
        card, shape = tuned, asdict(tuned.defaults)
        shape = {name: shape[name] for name in ("frames", "width", "height", "fps")}
    else:
        model, frames, width, height = tuned.shape
        card = find(model, catalog)
        shape = {"frames": frames, "width": width, "height": height, "fps": tuned.facts["fps"], "tuned": tuned.job.id}
    return [Edit.for_model(card, line, seed, **values, **shape) for line in _lines(prompts)]


def poses_to_videos(
    prompts: object,
    model: object,
    clip: object,
    motion: object,
    *settings: object,
    seed: object,
    randomise: bool = False,
    shortcuts: Mapping[str, object] | None = None,
    catalog: Mapping[str, ModelCard] = CATALOG,
) -> list[PoseToVideo]:
    """A video for every line of `prompts`, all of the same seed; `settings` in the order of POSES, then of SETTINGS.

    Raises ValueError as above.
    """
    if randomise:
        seed = new_seed()
    values = (
        dict(zip((*POSES, *SETTINGS), settings, strict=True)) | {"clip": clip, "motion": motion} | dict(shortcuts or {})
    )
    if values["person"] == EVERYBODY:
        values["person"] = None
    return [PoseToVideo.for_model(find(model, catalog), line, seed, **values) for line in _lines(prompts)]


def _lines(prompts: object) -> list[str]:
    """The lines that say something; where none does, one that is empty."""
    return [line for line in str(prompts).splitlines() if line.strip()] or [""]


def finish(job: Job, upscale: object, interpolate: object) -> Finish:
    """The task that finishes the video of `job`; one that was finished is finished anew from where it came from.

    Raises ValueError as above.
    """
    source, of = (job.task.source, job.task.of) if isinstance(job.task, Finish) else (job.id, job.task)
    return Finish.for_video(of, source, upscale, interpolate)


def new_seed() -> int:
    return secrets.randbelow(MAX_SEED + 1)
