"""From what the controls hold to a valid task, whoever filled them in: a person on the page, a client, an agent."""

import secrets
from collections.abc import Mapping

from pipelines.catalog import CATALOG, ModelCard, find
from pipelines.tasks import MAX_SEED, TextToVideo

SETTINGS = ("negative_prompt", "frames", "width", "height", "fps", "steps", "guidance", "scheduler")


def text_to_video(
    prompt: object,
    model: object,
    *settings: object,
    seed: object,
    randomise: bool = False,
    catalog: Mapping[str, ModelCard] = CATALOG,
) -> TextToVideo:
    """The task that the controls describe; `settings` in the order of SETTINGS, a new seed where `randomise`.

    Raises ValueError, in words for the person who set them, where the values make no possible task.
    """
    if randomise:
        seed = new_seed()
    return TextToVideo.for_model(find(model, catalog), prompt, seed, **dict(zip(SETTINGS, settings, strict=True)))


def new_seed() -> int:
    return secrets.randbelow(MAX_SEED + 1)
