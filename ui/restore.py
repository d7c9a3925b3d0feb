"""The settings of a video, back from the file itself: dropped anywhere on the page, or chosen with a button."""

from pathlib import Path

import gradio as gr

from pipelines.serving.backend import Backend
from ui.languages import tell
from ui.refill import Forms
from ui.text_to_video import TO_PROMPT


def takers(backend: Backend, owner: gr.BrowserState, forms: Forms, button: gr.UploadButton) -> None:
    """Lets `button` take a video, and builds what takes one that is dropped (assets/drop.js)."""
    with gr.Column(elem_id="dropped", elem_classes="unseen"):
        dropped = gr.UploadButton(elem_classes="unseen")

    def restore(visitor_id: str, file: str) -> dict:
        filled = forms.fill(backend.assets.task_of(Path(file), visitor_id))
        gr.Success(tell("This video's settings are filled in."), title=tell("Restored"))
        return filled

    for taker in (dropped, button):
        taker.upload(
            restore,
            [owner, taker],
            forms.controls,
            show_progress="hidden",
            api_visibility="private",
            concurrency_limit=4,
            concurrency_id="restore",
        ).success(None, js=TO_PROMPT)
