"""What a Space says of itself at the top of the page: that it is shared, or what a GPU would add. Elsewhere nothing."""

import os
from collections.abc import Mapping
from html import escape

import gradio as gr
from gradio.i18n import I18nData

from pipelines.catalog import find
from pipelines.serving.backend import Backend
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo
from ui.languages import say

FULL_SIZE = "modelscope-1.7b"


def notice(backend: Backend, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
    """Builds the notice where it is called, if there is something to be said."""
    shared = settings.is_original(environment)
    said = [*([_shared(settings)] if shared else []), *([_no_gpu(backend)] if _lacks_gpu(backend, environment) else [])]
    if said:
        with gr.Column(elem_id="space-notice"):
            for text in said:
                gr.HTML(f'<div class="notice" role="note"><p>{text}</p></div>')
            if shared:
                gr.DuplicateButton(say("Duplicate this Space"), variant="secondary", size="md", elem_id="duplicate")


def _shared(settings: Settings) -> I18nData:
    return say(
        "<b>This Space is shared.</b> Everybody waits in one line; of yours, up to {} may wait. Clips may have {} MB, "
        "of which {:g} seconds are read, and what you make is deleted after {:.0f} hours. A copy of your own is "
        "private, has wider limits and a line of its own, and runs on the hardware that you choose.",
        *(settings.queue_each, settings.upload_mb, settings.upload_seconds, settings.keep_days * 24),
    )


def _lacks_gpu(backend: Backend, environment: Mapping[str, str]) -> bool:
    return "SPACE_ID" in environment and not backend.machine.has_gpu()


def _no_gpu(backend: Backend) -> I18nData:
    card = find(FULL_SIZE)
    seconds = backend.machine.estimate(TextToVideo.for_model(card, "a clip", 0))
    assert seconds is not None, "the FLOPs of the full-size models were counted"
    minutes = seconds / 60
    if minutes < 90:
        return say(
            "<b>This Space has no GPU.</b> The paper theatre plays all the same. The full-size models want one: a "
            "video of {} would take about {:.0f} minutes here, and a minute or less on a GPU.",
            *(escape(card.title), minutes),
        )
    return say(
        "<b>This Space has no GPU.</b> The paper theatre plays all the same. The full-size models want one: a "
        "video of {} would take about {:.0f} hours here, and a minute or less on a GPU.",
        *(escape(card.title), minutes / 60),
    )
