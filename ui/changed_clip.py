"""The clip that a video changes, for models that can do so: as a whole, or where a mask is painted on it."""

from dataclasses import dataclass

import gradio as gr

from pipelines.cards import ModelCard
from pipelines.catalog import find
from pipelines.messages import said
from pipelines.serving.backend import Backend
from pipelines.tasks import NOBODY, TextToVideo
from ui import controls, edit_html, first_image, html, visitor
from ui.controls import Controls
from ui.follower import QUIET
from ui.forms import FROM_A_CLIP
from ui.languages import say, tell
from ui.media import CLIPS, PICTURES, READING
from ui.player import films, player

WORDS = say(
    '<p class="hint">The video changes this clip as the prompt says. Of every picture the middle is used, at the size '
    "and the frame rate of the video; a shorter clip makes a shorter video.</p>"
)
PAINT = say(
    '<p class="hint">Paint over what is drawn anew, in all pictures of the clip; the rest stays. In a mask from a '
    "file, that is white.</p>"
)
PICTURE = said("The first picture of the clip")


@dataclass(frozen=True)
class ChangedClip:
    """The controls, and what they hold."""

    panel: gr.Column
    clip: gr.State  # the name under which it is kept, or ""
    painting: gr.Column  # for models that keep what no mask covers
    mask: gr.State  # the name under which it is kept, or ""
    strokes: gr.State  # the mask as it is drawn now: see FirstImage
    sheet: gr.HTML  # on which it is drawn; a stroke is a click
    settings: Controls

    @property
    def named(self) -> Controls:
        """Those that a task is made of, by the names of the settings."""
        return {"clip": self.clip, **self.settings}

    @property
    def controls(self) -> list[gr.components.Component | gr.Column]:
        """Those that `fill` sets."""
        return [self.panel, self.painting, self.mask, *self.named.values()]

    def masked(self, values: dict) -> bool:
        """Whether what `values` say needs a mask of the clip."""
        return bool(values.get("clip")) and find(values["model"]).redraws

    def foreseen(self, values: dict) -> dict:
        """`values`, with a mask in its place where one has yet to be painted."""
        return values | {"mask": NOBODY} if self.masked(values) else values

    def painted(self, backend: Backend, owner: str, values: dict, mask: str, strokes: str | None) -> dict:
        """`values` with the mask of the clip where they need one, and without any where there is nothing to mask; one
        that was drawn is kept. Raises ValueError where that is none."""
        if not self.masked(values):
            return values if "image" in find(values["model"]).takes else values | {"mask": ""}
        if strokes is not None:
            mask = first_image.keep_drawn(backend, owner, strokes) if strokes else ""
        return values | {"mask": mask}

    def fill(self, card: ModelCard, values: dict) -> dict:
        """The updates that show what `values` say for `card`; a clip that they don't speak of stays, as all of it."""
        chosen = {self.clip: values["clip"]} if "clip" in values else {}
        takes = "clip" in card.takes
        updates = controls.updates(TextToVideo, self.settings, card, values) if "clip" in values else {}
        if "mask" in values:
            chosen[self.mask] = values["mask"] if values.get("clip") else ""
        return {
            self.panel: gr.Column(visible=takes),
            self.painting: gr.Column(visible="mask" in card.takes),
            self.settings["clip_strength"]: gr.Slider(visible="clip_strength" in card.takes),
            **chosen,
            **updates,
        }


def build(backend: Backend, owner: gr.BrowserState, card: ModelCard) -> ChangedClip:
    """Builds the controls where it is called, as `card` takes them."""
    clip, mask, strokes = gr.State(""), gr.State(""), gr.State()
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
            with gr.Column(visible="mask" in card.takes, elem_id="changed-clip-painting") as painting:
                gr.HTML(PAINT)
                sheet = gr.HTML(elem_id="changed-clip-mask", js_on_load=first_image.DRAW)
                upload_mask = gr.UploadButton(
                    say("Upload mask"), file_types=PICTURES, size="md", elem_id="changed-clip-mask-upload"
                )
            made = controls.controls(TextToVideo, FROM_A_CLIP[::-1], card if "clip" in card.takes else None)

    def take_clip(visitor_id: str, path: str) -> dict:
        visitor_id = visitor.known(visitor_id)
        try:
            kept = backend.assets.keep_clip(path, visitor_id)
        except (ValueError, OSError) as error:
            return {message: gr.HTML(html.failure(str(error), said("This clip can't be used.")), visible=True)}
        return {owner: visitor_id, clip: kept.name, made["clip_start"]: 0, message: gr.HTML(visible=False)}

    def take_clip_mask(visitor_id: str, path: str) -> dict:
        try:
            return {mask: backend.assets.keep_image(path, visitor_id, mask=True), message: gr.HTML(visible=False)}
        except (ValueError, OSError) as error:
            return {message: gr.HTML(html.failure(str(error), said("This mask can't be used.")), visible=True)}

    def show_painting(visitor_id: str, name: str, mask_name: str) -> dict:
        """The first picture of the clip, with its mask; without one of its own it has none."""
        try:
            picture = backend.assets.first_picture(name, visitor_id) if name else b""
            laid = backend.assets.image(mask_name, visitor_id) if name and mask_name else b""
        except ValueError:
            return {mask: "", strokes: None, sheet: ""}
        return {
            **{mask: mask_name if name else "", strokes: None},
            sheet: first_image.drawn_over(picture, laid, PICTURE) if picture else "",
        }

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
    upload_mask.upload(take_clip_mask, [owner, upload_mask], [mask, message], **QUIET, **READING)
    laid_on = [owner, clip, mask], [mask, strokes, sheet]
    gr.on([clip.change, mask.change], show_painting, *laid_on, trigger_mode="always_last", **QUIET)
    sheet.click(first_image.drawn, None, strokes, queue=False, **QUIET)
    return ChangedClip(panel, clip, painting, mask, strokes, sheet, made)
