"""The page as a whole: its head, its tabs, and how it is launched."""

from pathlib import Path
from typing import Any

import gradio as gr

from pipelines.backend import Backend
from pipelines.settings import Settings
from ui import api, library, pieces, text_to_video, visitor
from ui.theme import theme

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def build(backend: Backend, settings: Settings) -> gr.Blocks:
    """The page over `backend`. Raises ValueError where `settings` name a model that there is not."""
    with gr.Blocks(title="Marionette", analytics_enabled=False, fill_width=True) as demo:
        gr.HTML(pieces.HEADER)
        owner = visitor.state(settings)
        arrived = demo.load(visitor.known, owner, owner, api_visibility="private", queue=False, show_progress="hidden")
        with gr.Tabs() as tabs:
            with gr.Tab("Text to video", id="text-to-video"):
                form = text_to_video.tab(backend, settings, owner, arrived)
            with gr.Tab("Library", id="library", elem_id="library") as shelf:
                library.tab(backend, owner, shelf, tabs, form)
        api.endpoints(backend, settings)
    return demo.queue(max_size=4 * (settings.queue + 2))  # every job has one listener or a few


def launch_options(settings: Settings) -> dict[str, Any]:
    """What `Blocks.launch` needs beside the page itself; finished videos are served from where they are."""
    return {
        "theme": theme(),
        "css_paths": ASSETS / "style.css",
        "favicon_path": ASSETS / "favicon.svg",
        "allowed_paths": [str((settings.data / "videos").resolve())],
        "footer_links": ["api", "settings"],
        "run_history": False,
        "ssr_mode": False,
    }
