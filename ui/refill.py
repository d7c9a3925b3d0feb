"""The settings of a video go back to the tab that they came from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from pipelines.messages import said
from pipelines.tasks import Finish, Grid, Task, TextToVideo


@dataclass(frozen=True)
class Form:
    """A tab's controls, for those who fill them from elsewhere."""

    tab: str  # its id
    controls: list[gr.components.Component]
    fill: Callable[[Any], dict]  # the updates that set every control to what a task, of the kind of the tab, says


class Forms:
    """The forms of all tabs, by the kind of task that each makes."""

    def __init__(self, tabs: gr.Tabs, forms: Mapping[type, Form]):
        self._tabs, self._forms = tabs, forms
        self.controls = [tabs, *dict.fromkeys(control for form in forms.values() for control in form.controls)]

    def fill(self, task: Task) -> dict:
        """The updates of `controls` that show what `task` says, or that which it finishes.

        Raises ValueError where no tab makes such a task.
        """
        if isinstance(task, Finish):
            assert task.of is not None
            task = task.of.checked()
        form = self._forms.get(TextToVideo if isinstance(task, Grid) else type(task))
        if form is None:
            raise ValueError(
                said("This is the part of a clip that a model was tuned on. Upload it where clips are edited.")
            )
        return form.fill(task) | {self._tabs: gr.Tabs(selected=form.tab)}
