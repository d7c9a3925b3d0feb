"""What is said beside a prompt while it is typed."""

from pipelines.catalog import find
from pipelines.readings import read
from pipelines.serving.backend import Backend
from ui import html


def of(backend: Backend, model: object, prompts: object, rows: bool = True) -> str:
    """The hints on the longest of the lines of `prompts`, a prompt each; on all of it where it is one (not `rows`).

    Raises ValueError where there is no such model."""
    text, card = str(prompts or "").encode(errors="replace").decode(), find(model)  # half a pair can't be read
    prompt = max(text.splitlines() or [""], key=len) if rows else text
    reading = read(prompt, card.vocabulary)
    read_as = reading.text if reading else prompt
    return html.prompt_hints(prompt, card, backend.machine.tokens(card.name, read_as))
