"""The clip that a video begins with and changes, for models that can do so."""

from dataclasses import dataclass

import gradio as gr

from pipelines.cards import ModelCard
from pipelines.messages import said
from pipelines.serving.backend import Backend
from pipelines.tasks import TextToVideo
from ui import controls, edit_html, html, visitor
from ui.controls import Controls
from ui.follower import QUIET
from ui.forms import FROM_A_CLIP
from ui.languages import say, tell
from ui.media import CLIPS, READING
from ui.player import films, player

WORDS = say(
    '<p class="hint">The video changes this clip as the prompt says. Of every picture the middle is used, at the size '
    "and the frame rate of the video; a shorter clip makes a shorter video.</p>"
)


@dataclass(frozen=True)
class ChangedClip:
    """The controls, and what they hold."""

    panel: gr.Column
    clip: gr.State  # the name under which it is kept, or ""
    settings: Controls

    @property
    def named(self) -> Controls:
        """Those that a task is made of, by the names of the settings."""
        return {"clip": self.clip, **self.settings}

    @property
    def controls(self) -> list[gr.components.Component | gr.Column]:
        """Those that `fill` sets."""
        return [self.panel, *self.named.values()]

    def fill(self, card: ModelCard, values: dict) -> dict:
        """The updates that show what `values` say for `card`; a clip that they don't speak of stays, as all of it."""
        chosen = {self.clip: values["clip"]} if "clip" in values else {}
        takes = "clip" in card.takes
        updates = controls.updates(TextToVideo, self.settings, card, values) if "clip" in values else {}
        return {self.panel: gr.Column(visible=takes), **chosen, **updates}


def build(backend: Backend, owner: gr.BrowserState, card: ModelCard) -> ChangedClip:
    """Builds the controls where it is called, as `card` takes them."""
    clip = gr.State("")
    with gr.Column(visible="clip" in card.takes, elem_id="changed-clip", elem_classes="given") as panel:
        gr.HTML(say("<h3>Change a clip (optional)</h3>"))
        gr.HTML(WORDS)
        with gr.Row(elem_classes="given-files"):
            upload = gr.UploadButton(say("Upload clip"), file_types=CLIPS, size="md", elem_id="changed-clip-upload")
            remove = gr.Button(say("Remove"), size="md", visible=False, elem_id="changed-clip-remove")
        message = gr.HTML(visible=False, elem_id="changed-clip-message")
        with gr.Column(visible=False, elem_id="changed-clip-chosen") as there:
            source = player(say("The clip"), elem_id="changed-clip-video")
            about = gr.HTML()
            made = controls.controls(TextToVideo, FROM_A_CLIP[::-1], None)

    def take_clip(visitor_id: str, path: str) -> dict:
        visitor_id = visitor.known(visitor_id)
        try:
            kept = backend.assets.keep_clip(path, visitor_id)
        except (ValueError, OSError) as error:
            return {message: gr.HTML(html.failure(str(error), said("This clip can't be used.")), visible=True)}
        return {owner: visitor_id, clip: kept.name, made["clip_start"]: 0, message: gr.HTML(visible=False)}

    def show_clip(visitor_id: str, name: str) -> dict:
        """Whoever uses settings again may have lost the clip since, and of somebody else's video never had it."""
        kept = None
        try:
            kept = backend.assets.clip(name, visitor_id) if name else None
        except ValueError:
            gr.Warning(tell("The clip of this video is not here any more. Upload it again."), title=tell("Note"))
        shown = {there: gr.Column(visible=kept is not None), remove: gr.Button(visible=kept is not None)}
        if kept is None:
            return {clip: "", **shown}
        size = kept.clip.seconds, kept.clip.width, kept.clip.height, kept.clip.fps, kept.clip.cut
        return {
            **{clip: name, source: films(backend.assets.address(kept.preview)), about: edit_html.about_clip(*size)},
            **shown,
        }

    upload.upload(take_clip, [owner, upload], [owner, clip, made["clip_start"], message], **QUIET, **READING)
    remove.click(lambda: "", None, clip, **QUIET)
    shown = [clip, source, about, there, remove]
    clip.change(show_clip, [owner, clip], shown, trigger_mode="always_last", **QUIET)
    return ChangedClip(panel, clip, made)
