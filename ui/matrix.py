"""Several prompts, several seeds, or both in one click: every video by itself, and a grid of them all."""

from dataclasses import dataclass

import gradio as gr

from pipelines.tasks import Grid, Task
from pipelines.video_tasks import CELLS
from ui.languages import say


@dataclass(frozen=True)
class Matrix:
    """The controls, and what they hold."""

    on: gr.Checkbox
    seeds: gr.Textbox

    @property
    def form(self) -> list[gr.components.Component]:
        """Those that tasks are made of, and that `fill` sets."""
        return [self.on, self.seeds]

    def fill(self, task: Task) -> dict:
        """The updates that show what `task` says."""
        grid = isinstance(task, Grid)
        seeds = ", ".join(map(str, task.seeds)) if grid else ""
        return {self.on: grid, self.seeds: gr.Textbox(seeds, visible=grid)}


def build() -> Matrix:
    """Builds the controls where it is called."""
    on = gr.Checkbox(
        label=say("Grid of several videos"),
        info=say("One video for every line of the prompt and every seed, {} at most", CELLS),
        elem_id="grid",
    )
    seeds = gr.Textbox(
        label=say("Seeds of the grid"),
        info=say("One column each. Empty: the seed above"),
        placeholder="7, 8, 9",
        max_lines=1,
        visible=False,
        elem_id="grid-seeds",
    )
    on.input(
        lambda chosen: gr.Textbox(visible=chosen),
        on,
        seeds,
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )
    return Matrix(on, seeds)
