"""What a click will take, said beside its button before it is pressed; nothing where that is not known."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from pipelines.serving.backend import Backend
from pipelines.tasks import Task, Tune
from ui.informing import INFORMING
from ui.languages import drawn, tell
from ui.stream import about

LONG = 90.0  # seconds: from here on it is worth saying what a GPU would do


class Ahead:
    """The line beside a button. It remembers what a click would make, and is told anew whenever the page asks how
    things stand: the queue moves on, and the machine turns out to be faster or slower."""

    def __init__(self, backend: Backend, elem_id: str, opening: Sequence[Task] = ()):
        """Builds itself where it is called; `opening` is what a click makes before anything is changed."""
        self.backend = backend
        self.line = gr.HTML(drawn(lambda: line(backend, opening)) if opening else None, elem_id=elem_id)
        self.tasks = gr.State(())  # what a click would make, or () where that is not known

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `foresee` updates."""
        return [self.line, self.tasks]

    def asks(
        self, foresee: Callable[[dict], dict], controls: set[Any], fillers: Sequence[gr.events.Dependency]
    ) -> None:
        """Has the page ask `foresee` when it opens, whenever one of the `controls` changes, and after the `fillers`,
        events that set controls: one that is out of sight, in a section that is closed, does not tell that it
        changed."""
        asked: dict[str, Any] = {"inputs": controls, "outputs": self.outputs, "trigger_mode": "always_last"}
        asked |= INFORMING
        gr.on(None, foresee, **asked)
        for filler in fillers:
            filler.then(foresee, **asked)

    def foresee(self, tasks: Callable[[], Sequence[Task]]) -> dict:
        """The updates for what `tasks` makes of the controls; the line is empty while they make no possible task."""
        try:
            found = tuple(tasks())
        except ValueError:
            found = ()
        return {self.line: line(self.backend, found) if found else "", self.tasks: found}

    def again(self, tasks: object) -> dict:
        """The update of the line for `tasks`, as they were foreseen, to how things stand now."""
        return {self.line: line(self.backend, tasks)} if isinstance(tasks, tuple) and tasks else {}


def line(backend: Backend, tasks: Sequence[Task]) -> str:
    """How long `tasks`, one after another, will take here, or for how long they ask for a GPU."""
    first, count = tasks[0], len(tasks)
    lent, one = backend.machine.lent(first), backend.machine.estimate(first)
    if lent is not None:
        words = tell("asks for {seconds} s of a GPU.", seconds=lent)
        if count > 1:
            words = tell("asks for {seconds} s of a GPU, once for each.", seconds=lent)
        elif isinstance(first, Tune):
            words = tell("asks for {seconds} s of a GPU at a time, until the tuning is done.", seconds=lent)
    elif one is None:
        return ""
    else:
        all_of_it = count * one + backend.machine.seconds_to_load(first)
        ahead, time = backend.machine.seconds_ahead(), about(all_of_it)
        words = tell("{time} on this machine.", time=time)
        if ahead is not None and ahead >= 1:
            before = about(ahead)
            words = tell("{time} on this machine, after {before} for what is made before.", time=time, before=before)
        on_gpu = backend.machine.estimate_on_gpu(first)
        if all_of_it > LONG and on_gpu is not None:
            words += " " + tell("It has no GPU: one would do it in {time}.", time=about(count * on_gpu))
    if count > 1:
        words = tell("{count} videos: {words}", count=count, words=words)
    return f'<p class="hint ahead">{words[0].upper()}{words[1:]}</p>'
