"""The endpoints of api.py as tools for agents, by the Model Context Protocol."""

from importlib.util import find_spec
from typing import Any

from pipelines.settings import Settings


def tools(settings: Settings) -> dict[str, Any]:
    """What `Blocks.launch` needs to offer the tools, or not to. Raises ValueError where they can't be offered."""
    if settings.mcp and find_spec("mcp") is None:
        raise ValueError('MARIONETTE_MCP needs a library that is not here: pip install "gradio[mcp]".')
    # gradio's server calls the endpoints over a connection of its own, on which nobody has signed in.
    if settings.mcp and (settings.password or settings.admitted):
        raise ValueError(
            "MARIONETTE_MCP does not go with MARIONETTE_PASSWORD or MARIONETTE_ADMITTED: agents can't be asked. "
            "A private Space asks them for a token of its owner instead."
        )
    return {"mcp_server": settings.mcp}
