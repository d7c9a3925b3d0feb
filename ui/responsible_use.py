"""The section of the page with what to keep to, as it stands beside the code."""

import re
from pathlib import Path

import gradio as gr

from ui.languages import say

PAPER = Path(__file__).resolve().parent.parent / "RESPONSIBLE_USE.md"


def section() -> None:
    """Builds the section where it is called."""
    with gr.Accordion(say("Responsible use"), open=False, elem_id="responsible-use"):
        gr.Markdown(re.sub("^# .*\n+", "", PAPER.read_text("utf-8")), elem_id="responsible-use-text")
