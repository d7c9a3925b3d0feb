"""The image that a video begins with, for models that take one, and the mask that is drawn on it."""

import base64
import binascii
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from pipelines.cards import ModelCard
from pipelines.messages import said
from pipelines.serving.backend import Backend
from pipelines.tasks import TextToVideo
from ui import controls, html, visitor
from ui.follower import QUIET
from ui.languages import say, tell
from ui.media import PICTURES, READING

PNG = "data:image/png;base64,"
FIRST = said("The first image")
LARGEST = 2_000_000  # letters of a drawn mask; a few ten thousand are usual
WORDS = say(
    '<p class="hint">The video begins with this image. Paint over what may change; in a mask from a '
    "file, that is white. Without an image, the model draws its own.</p>"
)

# The mask is drawn in the browser: what is painted is opaque. It is told after each stroke, white on black.
DRAW = """
const tool = name => element.querySelector(`[data-tool="${name}"]`);
const sheet = () => element.querySelector('canvas');
let last = null;
const tell = () => {
  const canvas = sheet();
  const told = document.createElement('canvas');
  Object.assign(told, {width: canvas.width, height: canvas.height});
  const pen = told.getContext('2d');
  pen.drawImage(canvas, 0, 0);
  pen.globalCompositeOperation = 'source-in';
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, told.width, told.height);
  pen.globalCompositeOperation = 'destination-over';
  pen.fillStyle = '#000';
  pen.fillRect(0, 0, told.width, told.height);
  trigger('click', {mask: told.toDataURL('image/png')});
};
const paint = event => {
  const canvas = sheet(), seen = canvas.getBoundingClientRect();
  const scale = canvas.width / seen.width;
  const [x, y] = [(event.clientX - seen.left) * scale, (event.clientY - seen.top) * scale];
  const pen = canvas.getContext('2d');
  pen.globalCompositeOperation = tool('erase').checked ? 'destination-out' : 'source-over';
  Object.assign(pen, {lineCap: 'round', lineJoin: 'round', strokeStyle: '#c01f4c'});
  pen.lineWidth = tool('size').value * scale;
  pen.beginPath();
  pen.moveTo(...(last || [x, y]));
  pen.lineTo(x, y);
  pen.stroke();
  last = [x, y];
};
element.addEventListener('pointerdown', event => {
  if (!event.target.closest('canvas') || event.button) return;
  event.target.setPointerCapture(event.pointerId);
  event.preventDefault();
  paint(event);
});
element.addEventListener('pointermove', event => { if (last) paint(event); });
for (const end of ['pointerup', 'pointercancel']) {
  element.addEventListener(end, () => { if (last) { last = null; tell(); } });
}
element.addEventListener('click', event => {
  const canvas = sheet();
  if (!event.target.closest('[data-tool="clear"]') || !canvas) return;
  canvas.getContext('2d').clearRect(0, 0, canvas.width, canvas.height);
  trigger('click', {mask: ''});
});
const unroll = () => {  // a mask that was kept is laid on the new sheet
  const canvas = sheet();
  if (!canvas || canvas.dataset.unrolled) return;
  canvas.dataset.unrolled = 'yes';
  if (!canvas.dataset.mask) return;
  const kept = new Image();
  kept.onload = () => {
    const pen = canvas.getContext('2d');
    pen.drawImage(kept, 0, 0, canvas.width, canvas.height);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      pixels.data.set([192, 31, 76, pixels.data[at] < 192 ? 0 : 255], at);
    }
    pen.putImageData(pixels, 0, 0);
  };
  kept.src = canvas.dataset.mask;
};
new MutationObserver(unroll).observe(element, {childList: true, subtree: true});
unroll();
"""


@dataclass(frozen=True)
class FirstImage:
    """The controls, and what they hold."""

    choice: gr.Checkbox  # whether the video begins with an image: a model is chosen that takes one, or takes none
    panel: gr.Column
    image: gr.State  # the name under which it is kept, or ""
    mask: gr.State  # likewise
    strokes: gr.State  # the mask as it is drawn now, as an address; "" where all was cleared, None before any stroke
    guidance: gr.Slider

    @property
    def controls(self) -> list[gr.components.Component | gr.Column]:
        """Those that `fill` sets."""
        return [self.choice, self.panel, self.image, self.mask, self.guidance]

    @property
    def form(self) -> list[gr.components.Component]:
        """Those that a task is made of, in the order of `settings`."""
        return [self.image, self.mask, self.strokes, self.guidance]

    def fill(self, card: ModelCard, values: dict) -> dict:
        """The updates that show what `values` say for `card`; an image that they don't speak of stays."""
        guidance = values.get("image_guidance")
        guidance = values["guidance"] if guidance is None else guidance
        return {
            self.choice: "image" in card.takes,
            self.panel: gr.Column(visible="image" in card.takes),
            **controls.update(TextToVideo, "image_guidance", self.guidance, card, guidance),
            **{getattr(self, name): values[name] for name in ("image", "mask") if name in values},
        }


def settings(
    backend: Backend, owner: str, image: str, mask: str, strokes: str | None, guidance: object
) -> dict[str, object]:
    """What the controls say, for forms.text_to_video; a mask that was drawn is kept. Raises ValueError for no mask."""
    if strokes is not None:
        mask = keep_drawn(backend, owner, strokes) if strokes and image else ""
    return {"image": image, "mask": mask, "image_guidance": guidance}


def keep_drawn(backend: Backend, owner: str, strokes: str) -> str:
    """Keeps a mask that comes as the address of a PNG, and returns its name. Raises ValueError where it is none."""
    try:
        picture = base64.b64decode(strokes.removeprefix(PNG), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(said("The mask did not arrive whole. Draw it again.")) from error
    with tempfile.TemporaryDirectory(prefix="marionette-") as folder:
        file = Path(folder) / "mask.png"
        file.write_bytes(picture)
        return backend.assets.keep_image(file, owner, mask=True)


def drawn(event: gr.EventData) -> str:
    """The mask that a browser tells. Raises ValueError where that can't be one."""
    told = event.mask
    if not isinstance(told, str) or len(told) > LARGEST or (told and not told.startswith(PNG)):
        raise ValueError(said("The mask did not arrive whole. Draw it again."))
    return told


def build(backend: Backend, owner: gr.BrowserState, card: ModelCard) -> FirstImage:
    """Builds the controls where it is called; they are to be seen where `card` takes a first image."""
    image, mask, strokes = gr.State(""), gr.State(""), gr.State()
    choice = gr.Checkbox(
        "image" in card.takes,
        label=say("Begin with a first image"),
        info=say("Your picture comes to life; a model that can do so is chosen"),
        elem_id="begin-with-image",
    )
    with gr.Column(visible="image" in card.takes, elem_id="first-image", elem_classes="given") as panel:
        gr.HTML(say("<h3>First image (optional)</h3>"))
        gr.HTML(WORDS)
        with gr.Row(elem_classes="given-files"):
            upload = gr.UploadButton(say("Upload image"), file_types=PICTURES, size="md", elem_id="image-upload")
            upload_mask = gr.UploadButton(
                say("Upload mask"), file_types=PICTURES, size="md", visible=False, elem_id="mask-upload"
            )
            remove = gr.Button(say("Remove"), size="md", visible=False, elem_id="image-remove")
        message = gr.HTML(visible=False, elem_id="image-message")
        sheet = gr.HTML(elem_id="mask", js_on_load=DRAW)
        guidance = controls.control(TextToVideo, "image_guidance", card, value=card.defaults.guidance)

    def take(visitor_id: str, path: str) -> dict:
        visitor_id = visitor.known(visitor_id)
        try:
            name = backend.assets.keep_image(path, visitor_id)
        except (ValueError, OSError) as error:
            return refused(error, said("This image can't be used."))
        return {owner: visitor_id, image: name, mask: "", message: gr.HTML(visible=False)}

    def take_mask(visitor_id: str, path: str) -> dict:
        try:
            return {mask: backend.assets.keep_image(path, visitor_id, mask=True), message: gr.HTML(visible=False)}
        except (ValueError, OSError) as error:
            return refused(error, said("This mask can't be used."))

    def refused(error: Exception, head: str) -> dict:
        return {message: gr.HTML(html.failure(str(error), head), visible=True)}

    def show(visitor_id: str, name: str, mask_name: str) -> dict:
        """Whoever uses settings again may have lost the image since, and of somebody else's video never had it."""
        try:
            picture, laid = (backend.assets.image(one, visitor_id) if one else b"" for one in (name, mask_name))
        except ValueError:
            gone = tell("The first image of this video, or its mask, is not here any more. Upload it again.")
            gr.Warning(gone, title=tell("Note"))
            name, picture, laid = "", b"", b""
        there = bool(name)
        return {
            **{image: name, mask: mask_name if there else "", strokes: None},
            sheet: drawn_over(picture, laid) if there else "",
            **{button: gr.Button(visible=there) for button in (upload_mask, remove)},
        }

    upload.upload(take, [owner, upload], [owner, image, mask, message], **QUIET, **READING)
    upload_mask.upload(take_mask, [owner, upload_mask], [mask, message], **QUIET, **READING)
    remove.click(lambda: ("", ""), None, [image, mask], **QUIET)
    gr.on(
        [image.change, mask.change],
        show,
        [owner, image, mask],
        [image, mask, strokes, sheet, upload_mask, remove],
        trigger_mode="always_last",
        **QUIET,
    )
    sheet.click(drawn, None, strokes, queue=False, **QUIET)
    return FirstImage(choice, panel, image, mask, strokes, guidance)


def drawn_over(image: bytes, mask: bytes, what: str = FIRST) -> str:
    """An image, PNG, to be painted over, with the mask, PNG or nothing, that is on it already. `what` it is, in
    English."""
    width, height = (int.from_bytes(image[at : at + 4], "big") for at in (16, 20))
    source, laid = (base64.b64encode(picture).decode() for picture in (image, mask))
    kept = f' data-mask="data:image/png;base64,{laid}"' if mask else ""
    return (
        f'<div class="sheet"><img alt="{tell(what)}" src="data:image/png;base64,{source}">'
        f'<canvas width="{width}" height="{height}" aria-label="{tell("Mask: paint over what need not stay")}"{kept}>'
        '</canvas></div><div class="sheet-tools">'
        f'<label>{tell("Brush")} <input type="range" min="4" max="80" value="28" data-tool="size"></label>'
        f'<label><input type="checkbox" data-tool="erase"> {tell("Erase")}</label>'
        f'<button type="button" data-tool="clear">{tell("Clear the mask")}</button></div>'
    )
