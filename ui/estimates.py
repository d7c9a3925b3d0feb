"""What a click will take, said beside its button before it is pressed; nothing where that is not known."""

from collections.abc import Callable, Sequence

from pipelines.serving.backend import Backend
from pipelines.tasks import Task, Tune
from ui.stream import about

LONG = 90.0  # seconds: from here on it is worth saying what a GPU would do


def of(backend: Backend, tasks: Callable[[], Sequence[Task]]) -> str:
    """`line` for what `tasks` makes of the controls; nothing while they make no possible task."""
    try:
        return line(backend, tasks())
    except ValueError:
        return ""


def line(backend: Backend, tasks: Sequence[Task]) -> str:
    """How long `tasks`, one after another, will take here, or for how long they ask for a GPU."""
    first, count = tasks[0], len(tasks)
    lent, one = backend.machine.lent(first), backend.machine.estimate(first)
    each = f"{count} videos: " if count > 1 else ""
    if lent is not None:
        words = f"{each}asks for {lent} s of a GPU{', once for each' if each else ''}."
        if isinstance(first, Tune):
            words = f"Asks for {lent} s of a GPU at a time, until the tuning is done."
    elif one is None:
        return ""
    else:
        ahead = backend.machine.seconds_ahead()
        after = f", after {about(ahead)} for what is made before" if ahead is not None and ahead >= 1 else ""
        words = f"{each}{about(count * one)} on this machine{after}."
        on_gpu = backend.machine.estimate_on_gpu(first)
        if count * one > LONG and on_gpu is not None:
            words += f" It has no GPU: one would do it in {about(count * on_gpu)}."
    return f'<p class="hint ahead">{words[0].upper()}{words[1:]}</p>'
