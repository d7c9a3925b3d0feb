"""From what the controls hold to a valid task, whoever filled them in: a person on the page, a client, an agent."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG, find
from pipelines.common_settings import MAX_SEED
from pipelines.messages import said
from pipelines.serving.backend import Tuning
from pipelines.serving.job import Job
from pipelines.task_settings import Kept, settings_of
from pipelines.tasks import Edit, Finish, PoseToVideo, TextToVideo, Tune
from pipelines.video_tasks import check_cells

FIRST_IMAGE = ("image", "image_guidance")
FROM_A_CLIP = ("clip_start", "clip_strength")  # beside the clip itself
EVERYBODY = "all"  # of the control that chooses a person


def asked(kind: type, *without: str) -> tuple[str, ...]:
    """The settings of `kind` that controls hold, in their declared order."""
    return tuple(
        name
        for name, setting in settings_of(kind).items()
        if setting.asked and not isinstance(setting, Kept) and name not in ("prompt", "seed", *without)
    )


SETTINGS = asked(TextToVideo, "image_guidance", *FROM_A_CLIP)  # how a video is sampled
POSES = (*asked(PoseToVideo, "motion", *SETTINGS), "tuned")  # what its dancer follows


def text_to_video(
    values: Mapping[str, object], randomise: bool = False, catalog: Mapping[str, ModelCard] = CATALOG
) -> TextToVideo:
    """The task that the controls describe; a new seed where `randomise`.

    `values` hold the prompt, the model, the seed and settings, by name; those of a first image, a reference and a clip
    count where the model takes one. Raises ValueError, in words for the person who set them, where the values make no
    possible task.
    """
    values = dict(values)
    prompt, card, seed = values.pop("prompt"), find(values.pop("model"), catalog), values.pop("seed")
    given = {"image": FIRST_IMAGE, "mask": ("mask",), "reference": ("reference",), "clip": ("clip", "clip_start")}
    given |= {"clip_strength": ("clip_strength",)}
    hidden = [name for taken, names in given.items() if taken not in card.takes for name in names]
    values = {name: value for name, value in values.items() if name not in hidden}
    if card.image_model is None:  # it draws no first image, so there is no guidance of one
        values.pop("image_guidance", None)
    return TextToVideo.for_model(card, prompt, new_seed() if randomise else seed, **values)


def texts_to_videos(
    values: Mapping[str, object],
    seeds: object,
    randomise: bool = False,
    catalog: Mapping[str, ModelCard] = CATALOG,
) -> list[TextToVideo]:
    """As `text_to_video`, but a video for every line of the prompt and every one of `seeds`, row after row.

    `seeds` is text, numbers with commas between them; where it is empty, the seed and `randomise` count.
    """
    lines = list(dict.fromkeys(_lines(values["prompt"])))
    numbers = list(dict.fromkeys(re.findall(r"[^\s,;]+", str(seeds))))
    if not all(re.fullmatch(r"\d{1,10}", number, re.ASCII) for number in numbers):
        raise ValueError(said("The seeds of a grid are whole numbers with commas between them, such as 7, 8, 9."))
    chosen = [int(number) for number in numbers] or [new_seed() if randomise else values["seed"]]
    if len(lines) * len(chosen) > 1:
        check_cells(len(lines), len(chosen))
    return [text_to_video({**values, "prompt": line, "seed": one}, catalog=catalog) for line in lines for one in chosen]


def tune(values: Mapping[str, object], catalog: Mapping[str, ModelCard] = CATALOG) -> Tune:
    """The tuning that the controls describe. Raises ValueError as above."""
    values = dict(values)
    prompt, card, seed = values.pop("prompt"), find(values.pop("model"), catalog), values.pop("seed")
    return Tune.for_model(card, prompt, seed, **values)


def edits(
    values: Mapping[str, object], tuned: Tuning | ModelCard, catalog: Mapping[str, ModelCard] = CATALOG
) -> list[Edit]:
    """An edit by `tuned`, a tuning or a model that is published as tuned, for every line of the prompt.

    Raises ValueError as above.
    """
    values = dict(values)
    prompts, seed = values.pop("prompt"), values.pop("seed")
    if isinstance(tuned, ModelCard):
        card, shape = tuned, asdict(tuned.defaults)
        shape = {name: shape[name] for name in ("frames", "width", "height", "fps")}
    else:
        model, frames, width, height = tuned.shape
        card = find(model, catalog)
        shape = {"frames": frames, "width": width, "height": height, "fps": tuned.facts["fps"], "tuned": tuned.job.id}
    return [Edit.for_model(card, line, seed, **values, **shape) for line in _lines(prompts)]


def poses_to_videos(
    values: Mapping[str, object], randomise: bool = False, catalog: Mapping[str, ModelCard] = CATALOG
) -> list[PoseToVideo]:
    """A video for every line of the prompt, all of the same seed. Raises ValueError as above."""
    values = dict(values)
    prompts, card, seed = values.pop("prompt"), find(values.pop("model"), catalog), values.pop("seed")
    if values["person"] == EVERYBODY:
        values["person"] = None
    if "reference" not in card.takes:
        values.pop("reference", None)
    seed = new_seed() if randomise else seed
    return [PoseToVideo.for_model(card, line, seed, **values) for line in _lines(prompts)]


def _lines(prompts: object) -> list[str]:
    """The lines that say something; where none does, one that is empty."""
    return [line for line in str(prompts).splitlines() if line.strip()] or [""]


def finish(job: Job, upscale: object = 1, interpolate: object = 1) -> Finish:
    """The task that finishes the video of `job`; one that was finished is finished anew from where it came from.

    Raises ValueError as above.
    """
    source, of = (job.task.source, job.task.of) if isinstance(job.task, Finish) else (job.id, job.task)
    return Finish.for_video(of, source, upscale, interpolate)


def new_seed() -> int:
    return secrets.randbelow(MAX_SEED + 1)
