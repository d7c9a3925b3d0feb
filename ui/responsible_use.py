"""The section of the page with what to keep to, as it stands beside the code."""

import gradio as gr

from ui.languages import RESPONSIBLE_USE, say


def section() -> None:
    """Builds the section where it is called."""
    with gr.Accordion(say("Responsible use"), open=False, elem_id="responsible-use"):
        gr.Markdown(say(RESPONSIBLE_USE), elem_id="responsible-use-text")
