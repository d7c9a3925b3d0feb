"""What is said beside a prompt while it is typed."""

from pipelines.catalog import find
from pipelines.readings import read
from pipelines.serving.backend import Backend
from ui import html


def of(backend: Backend, model: str, prompts: str, rows: bool = True) -> str:
    """The hints on the longest of the lines of `prompts`, a prompt each; on all of it where it is one (not `rows`)."""
    prompt = max(prompts.splitlines() or [""], key=len) if rows else prompts
    card = find(model)
    reading = read(prompt, card.vocabulary)
    read_as = reading.text if reading else prompt
    return html.prompt_hints(prompt, card, backend.machine.tokens(model, read_as))
