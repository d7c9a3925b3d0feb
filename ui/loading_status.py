"""gradio's page, which tells its components less often how the events are doing.

gradio notes a status for each output of an event, and once the event has ended for each input too, though no input
shows it. Whenever an event begins, goes on or ends, the page looks up every component that it has noted and tells it
again. The forms of this page are the inputs of many events: twelve thousand times for fifteen letters that are typed.
"""

import re
from pathlib import Path

import gradio as gr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SCRIPTS = Path(gr.__file__).parent / "templates" / "frontend" / "assets"
INPUTS_TOO = re.compile(r"return (\w+)\.concat\(\w+\)\.map\(")  # outputs and inputs, in `resolve_args`


def routes() -> list[Route]:
    """The route of the one script of gradio's that is answered otherwise; none where gradio has none like it."""
    found = [(file, file.read_text("utf-8")) for file in SCRIPTS.glob("statustracker-*.js")]
    return [_route(file, script) for file, script in found if len(INPUTS_TOO.findall(script)) == 1]


def _route(file: Path, script: str) -> Route:
    changed = INPUTS_TOO.sub(r"return \1.map(", script)

    def answer(request: Request) -> Response:
        return Response(changed, media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})

    return Route(f"/assets/{file.name}", answer)
