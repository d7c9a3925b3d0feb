"""The reference image, for models that show who or what is in it: the same on every tab that has such a model."""

import base64
from dataclasses import dataclass

import gradio as gr

from pipelines.cards import ModelCard
from pipelines.messages import said
from pipelines.serving.backend import Backend
from ui import html, visitor
from ui.follower import QUIET
from ui.languages import say, tell
from ui.media import PICTURES, READING

WORDS = say(
    '<p class="hint">Who or what is in this image appears in the video. A plain, white ground works best; say in the '
    "prompt what it is.</p>"
)


@dataclass(frozen=True)
class Reference:
    """The controls, and what they hold."""

    panel: gr.Column
    kept: gr.State  # the name under which the image is kept, or ""

    @property
    def controls(self) -> list[gr.components.Component | gr.Column]:
        """Those that `fill` sets."""
        return [self.panel, self.kept]

    def fill(self, card: ModelCard, values: dict) -> dict:
        """The updates that show what `values` say for `card`; an image that they don't speak of stays."""
        chosen = {self.kept: values["reference"]} if "reference" in values else {}
        return {self.panel: gr.Column(visible="reference" in card.takes), **chosen}


def build(backend: Backend, owner: gr.BrowserState, card: ModelCard, prefix: str = "") -> Reference:
    """Builds the controls where it is called, as `card` takes them. Their ids begin with `prefix`."""
    kept = gr.State("")
    with gr.Column(visible="reference" in card.takes, elem_id=f"{prefix}reference", elem_classes="given") as panel:
        gr.HTML(say("<h3>Reference image (optional)</h3>"))
        gr.HTML(WORDS)
        with gr.Row(elem_classes="given-files"):
            upload = gr.UploadButton(
                say("Upload image"), file_types=PICTURES, size="md", elem_id=f"{prefix}reference-upload"
            )
            remove = gr.Button(say("Remove"), size="md", visible=False, elem_id=f"{prefix}reference-remove")
        message = gr.HTML(visible=False, elem_id=f"{prefix}reference-message")
        picture = gr.HTML(visible=False, elem_id=f"{prefix}reference-picture")

    def take_reference(visitor_id: str, path: str) -> dict:
        visitor_id = visitor.known(visitor_id)
        try:
            name = backend.assets.keep_image(path, visitor_id)
        except (ValueError, OSError) as error:
            return {message: gr.HTML(html.failure(str(error), said("This image can't be used.")), visible=True)}
        return {owner: visitor_id, kept: name, message: gr.HTML(visible=False)}

    def show_reference(visitor_id: str, name: str) -> dict:
        """Whoever uses settings again may have lost the image since, and of somebody else's video never had it."""
        shown = ""
        try:
            shown = drawn(backend.assets.image(name, visitor_id)) if name else ""
        except ValueError:
            gone = tell("The reference image of this video is not here any more. Upload it again.")
            gr.Warning(gone, title=tell("Note"))
            name = ""
        return {
            kept: name,
            picture: gr.HTML(shown, visible=bool(shown)),
            remove: gr.Button(visible=bool(shown)),
        }

    upload.upload(take_reference, [owner, upload], [owner, kept, message], **QUIET, **READING)
    remove.click(lambda: "", None, kept, **QUIET)
    kept.change(show_reference, [owner, kept], [kept, picture, remove], trigger_mode="always_last", **QUIET)
    return Reference(panel, kept)


def drawn(picture: bytes) -> str:
    """A PNG within the page."""
    alt, source = tell("The reference image"), base64.b64encode(picture).decode()
    return f'<div class="sheet"><img alt="{alt}" src="data:image/png;base64,{source}"></div>'
