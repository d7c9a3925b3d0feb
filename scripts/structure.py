"""Draws docs/structure.svg, the layers of the code and what imports what: `python -m scripts.structure`."""

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "structure.svg"
# From the top down: each layer imports only from those below it (tests/test_layers.py keeps this).
LAYERS = {
    "app.py": "builds the page over a backend, and launches it",
    "ui": "the page: gradio only",
    "pipelines/__main__.py": "the command line",
    "pipelines/serving": "jobs, storage, executors",
    "pipelines/systems": "the denoising loop, one published system a file",
    "pipelines/poses": "detection, keypoints, skeletons",
    "pipelines/models": "the manager, loading, networks",
    "pipelines/media": "files in and out, ffmpeg",
    "pipelines": "plain data: settings, catalog, task settings, tasks, events, errors",
}
WIDTH, MARGIN, LINE, LEFT = 1000, 16, 18, 210  # pixels
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1d1a20 } .name { font-weight: 600; font-size: 15px }
  .about { fill: #6b6570 } .module { font-family: ui-monospace, monospace; font-size: 12px }
  rect { fill: #fbf7f2; stroke: #b9aeb5 } .arrow { stroke: #a3324a; fill: none } .head { fill: #a3324a }
"""


def modules(layer: str) -> list[Path]:
    """The Python files of a layer; of `pipelines` itself only those on top."""
    if layer.endswith(".py"):
        return [ROOT / layer]
    found = (ROOT / layer).glob("*.py") if layer == "pipelines" else (ROOT / layer).rglob("*.py")
    return sorted(file for file in found if file.name not in ("__init__.py", "__main__.py"))


def layer_of(module: str) -> str | None:
    """The layer that the module of this dotted name stands in; None where it is not ours."""
    parts = module.split(".")
    for depth in (2, 1):
        if "/".join(parts[:depth]) in LAYERS:
            return "/".join(parts[:depth])
    return None


def imports(layer: str) -> set[str]:
    """The other layers that `layer` imports from."""
    found = set()
    for file in modules(layer):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {layer_of(f"{node.module}.{alias.name}") for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {layer_of(alias.name) for alias in node.names}
    return {one for one in found if one not in (None, layer)}


def wrapped(names: list[str], width: int = 88) -> list[str]:
    """`names` in lines of at most `width` characters."""
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + len(name) > width:
            lines.append("")
        lines[-1] += name + "  "
    return lines


def drawn() -> str:
    """The picture as SVG: a box a layer, an arrow for every layer that it imports from."""
    boxes, arrows, places, y = [], [], {}, MARGIN
    for layer, about in LAYERS.items():
        folder = ROOT / layer
        names = [
            file.relative_to(folder if folder.is_dir() else ROOT).with_suffix("").as_posix() for file in modules(layer)
        ]
        lines = wrapped(names)
        height = 40 + LINE * len(lines)
        places[layer] = (y, y + height)
        boxes.append(f'<rect x="{LEFT}" y="{y}" width="{WIDTH - LEFT - MARGIN}" height="{height}" rx="6"/>')
        boxes.append(f'<text class="name" x="{LEFT + 12}" y="{y + 23}">{escape(layer)}</text>')
        boxes.append(f'<text class="about" x="{LEFT + 215}" y="{y + 23}">{escape(about)}</text>')
        for row, line in enumerate(lines):
            boxes.append(f'<text class="module" x="{LEFT + 12}" y="{y + 45 + LINE * row}">{escape(line)}</text>')
        y += height + MARGIN
    order = list(LAYERS)
    for layer in order:
        for below in sorted(imports(layer), key=order.index):
            start, end = places[layer][1] - 12, places[below][0] + 12
            # The further down an arrow goes, the further out it runs; its end moves a little for each origin.
            out = LEFT - 22 * (order.index(below) - order.index(layer)) - 4 * order.index(layer)
            end += 4 * order.index(layer)
            arrows.append(f'<path class="arrow" d="M{LEFT} {start} C{out} {start} {out} {end} {LEFT - 6} {end}"/>')
            arrows.append(f'<path class="head" d="M{LEFT} {end} l-8 -4 v8 z"/>')
    body = "\n".join((*arrows, *boxes))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">'
    return f"{head}\n<title>The layers of Marionette</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(), "utf-8")
    print(PICTURE)
