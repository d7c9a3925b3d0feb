"""Why a video looks as it does: short, honest answers on what these models are known to do badly."""

from collections.abc import Sequence

import gradio as gr

from ui.languages import say

_WORDS = (
    "**It does not show what I wrote.** Models read the first 77 tokens only. Say who, wearing what,"
    " does what, and where. More guidance follows the prompt more closely; too much burns the "
    "colours."
)
_FACES = (
    "**Faces and hands are smeared.** The model works on a frame that is eight times smaller on each"
    " side, too small for a face in the distance. Let the figure fill the frame, or choose a larger "
    "size."
)
_LETTERS = "**Text can't be read.** None of these models can write. Leave words and signs out."
_PAPER = (
    "**It looks like cut paper.** The built-in models are trained on drawn paper dancers only. The "
    "full-size models are trained on real footage, and need a GPU."
)
_FLICKER = (
    "**It flickers.** Frames are decoded one by one. More steps help, and so does Finish, which adds frames in between."
)
TEXT_TO_VIDEO = (
    _PAPER,
    (
        "**There is a watermark across it.** ModelScope was trained on watermarked clips. Writing "
        "“watermark” under Leave out helps a little; Zeroscope draws none."
    ),
    _WORDS,
    (
        "**It falls apart, or nothing moves.** Models are trained on clips of 16 or 24 frames. Many more"
        " fall apart, very few do not move. The default works best."
    ),
    _FACES,
    _LETTERS,
    _FLICKER,
)
POSE_TO_VIDEO = (
    _PAPER,
    (
        "**It does not follow the clip.** It follows the skeletons. Where they miss an arm, so does the "
        "dancer; where nobody was found, anything may happen. Try another detector, another part of the "
        "clip or another person."
    ),
    ("**People merge.** Where skeletons overlap, the model can't tell whose limb is whose. Follow one person."),
    ("**The figure is small.** It is as large as its skeleton. Choose “Make the skeletons as large as possible”."),
    _WORDS,
    _FACES,
    _FLICKER,
)
EDIT = (
    "**Hardly anything changed.** At strength 0 the edit keeps the clip's layout. Raise the strength"
    " or the guidance, and change only the words you want changed.",
    "**The clip's motion is lost.** Lower the strength to 0, or tune for more steps.",
    (
        "**It is the same clip in dull colours.** It was tuned for too many steps and has memorised the "
        "clip. Tune for fewer."
    ),
    _PAPER,
    _FACES,
    _LETTERS,
)


def section(answers: Sequence[str], name: str) -> None:
    """Builds the section of this name, with these answers, where it is called."""
    with gr.Accordion(say("Why does it look like this?"), open=False, elem_id=name, elem_classes="why"):
        for answer in answers:
            gr.Markdown(say(answer))
