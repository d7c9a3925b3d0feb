"""The status corner: what the machine runs on, who waits, and which models hold its memory."""

import os
from collections.abc import Mapping, Sequence
from html import escape

import gradio as gr

from pipelines.catalog import CATALOG
from pipelines.detectors import DETECTORS
from pipelines.messages import said
from pipelines.serving.backend import Backend, Status, Worker
from pipelines.settings import Settings
from ui.follower import QUIET
from ui.languages import say, tell

KINDS = {
    "text-to-video": said("text to video"),
    "pose-to-video": said("pose to video"),
    "edit": said("edits of clips"),
}
SECONDS = 3.0  # from one look to the next, while the corner is open


def corner(backend: Backend, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
    """Builds the corner where it is called. It looks only while somebody has it open, and wakes nothing.

    On the original Space nobody can unload what others are about to use.
    """
    with gr.Accordion(say("This machine"), open=False, elem_id="status") as panel:
        now = gr.HTML(elem_id="status-now")
        unload = None
        if not settings.is_original(environment):
            unload = gr.Button(say("Unload now"), size="md", interactive=False, elem_id="unload")
            gr.HTML(
                say('<p class="hint">Frees the memory of models that no job uses. They load again when needed.</p>')
            )
        timer = gr.Timer(SECONDS, active=False)

    def look() -> dict:
        seen = backend.machine.status()
        idle = any(not one.in_use for one in seen.loaded)
        return {now: drawn(seen)} | ({unload: gr.Button(interactive=idle)} if unload else {})

    def free() -> dict:
        backend.machine.unload()
        return look()

    quiet = QUIET | {"queue": False}
    shown = [now, unload] if unload else [now]
    panel.expand(look, None, shown, **quiet).then(lambda: gr.Timer(active=True), None, timer, **quiet)
    panel.collapse(lambda: gr.Timer(active=False), None, timer, **quiet)
    timer.tick(look, None, shown, **quiet)
    if unload:
        unload.click(free, None, shown, **quiet)


def drawn(status: Status) -> str:
    rows = [(tell("Device"), escape(tell(status.device))), (tell("Queue"), _queue(status))]
    if len(status.workers) > 1 or any(one.drained for one in status.workers):
        rows[:1] = [
            (tell("Device {number}", number=number), f"{escape(tell(one.device))}{_at(one)}")
            for number, one in enumerate(status.workers, 1)
        ]
    rows += [
        (tell("Models in memory"), _models(status)),
        *((tell("Data"), escape(tell(note))) for note in status.notes),
    ]
    return f'<dl class="status">{"".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows)}</dl>'


def _at(worker: Worker) -> str:
    """What one is at, after a colon; nothing of one that is waited for."""
    if worker.drained:
        return ": " + (tell("at work, and takes no further job") if worker.busy else tell("takes no job"))
    if not worker.ready:
        return ""
    return ": " + (tell("at work") if worker.busy else tell("idle"))


def _queue(status: Status) -> str:
    made = tell("{count} videos are being made", count=status.running)
    if status.running < 2:
        made = tell("One video is being made") if status.running else tell("Nothing is being made")
    waits = tell("{count} wait", count=status.waiting)
    if status.waiting < 2:
        waits = tell("1 waits") if status.waiting else tell("none waits")
    return tell("{made}, {waits}", made=made, waits=waits)


def _models(status: Status) -> str:
    if not status.loaded:
        return tell("None. A video loads what it needs.")
    rows = "".join(
        f"<li><span>{escape(_titles(one.models))}{tell(', in use') if one.in_use else ''}</span> "
        f"<b>{_size(one.bytes)}</b></li>"
        for one in status.loaded
        if one.bytes
    )
    total = sum(one.bytes for one in status.loaded)
    return f"{tell('{size} in all', size=_size(total))}<ul>{rows}</ul>"


def _titles(models: Sequence[str]) -> str:
    """What several models are called; models of one title differ in what they are for."""
    uses: dict[str, list[str]] = {}
    for model in models:
        card = CATALOG.get(model) or DETECTORS.get(model)
        used = uses.setdefault(tell(card.title) if card else model, [])
        if model in CATALOG:
            used.append(tell(KINDS[CATALOG[model].kind]))
    return tell(" and ").join(f"{title}: {', '.join(used)}" if used else title for title, used in uses.items())


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
