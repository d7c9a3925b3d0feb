"""Why a video looks as it does: short, honest answers on what these models are known to do badly."""

from collections.abc import Sequence

import gradio as gr

from ui.languages import say

_WORDS = (
    "**It shows something else than I wrote.** Models read the first 77 tokens and know the words that they learned "
    "with. Say who, wearing what, does what, and where; more guidance keeps closer to it, too much burns the colours."
)
_FACES = (
    "**Faces and hands are smeared.** The model works on a picture eight times smaller on each side, where a small "
    "face has no room. Let the figure fill the picture, or choose a larger size."
)
_LETTERS = "**Writing can't be read.** None of these models has learned to write. Leave words and signs out."
_PAPER = (
    "**It looks like cut paper.** The built-in models have seen nothing but drawn paper dancers, 128 pixels wide. The "
    "other models draw what they learned from photographs and films, and want a GPU."
)
_FLICKER = (
    "**It flickers.** Every frame is decoded by itself. More steps calm it; Finish draws frames in between, which "
    "makes it smoother."
)
TEXT_TO_VIDEO = (
    _PAPER,
    "**There is a watermark across it.** ModelScope learned from clips of a picture agency that carried one, and so it "
    "draws one. Writing “watermark” under Leave out helps a little; Zeroscope was trained further on clips without.",
    _WORDS,
    "**It falls apart, or nothing moves.** Each model learned from clips of 16 or 24 frames. With many more the "
    "picture dissolves, with very few there is no motion. The numbers that a model comes with are its best.",
    _FACES,
    _LETTERS,
    _FLICKER,
)
POSE_TO_VIDEO = (
    _PAPER,
    "**It does not follow.** It follows the skeletons that are shown, not the clip: where they miss an arm, so does "
    "the dancer, and where nobody was found the video is free. Another detector, part or person may help.",
    "**People run into each other.** Where skeletons overlap the model can't tell whose limb is whose. Follow one "
    "person.",
    "**The figure is small.** It is as large as its skeleton on the canvas. “As large as the skeletons can be” fills "
    "the picture.",
    _WORDS,
    _FACES,
    _FLICKER,
)
EDIT = (
    "**Hardly anything changed.** At strength 0 the video begins with the clip's own noise and keeps its layout. Raise "
    "the strength or the guidance, and change only the words that are to change.",
    "**The clip's motion is lost.** Lower the strength to 0, or tune for more steps: too few have not learned the "
    "motion yet.",
    "**It is the clip once more, in dull colours.** It was tuned for too many steps and has learned the clip by heart. "
    "Tune for fewer.",
    _PAPER,
    _FACES,
    _LETTERS,
)


def section(answers: Sequence[str], name: str) -> None:
    """Builds the section of this name, with these answers, where it is called."""
    with gr.Accordion(say("Why does it look like this?"), open=False, elem_id=name, elem_classes="why"):
        for answer in answers:
            gr.Markdown(say(answer))
