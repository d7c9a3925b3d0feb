"""Videos side by side in one: a row for each prompt, a column for each seed, both written beside them; no model."""

import json
import math
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.errors import Refusal
from pipelines.events import LAYING, Progress, Result
from pipelines.media import video
from pipelines.messages import said
from pipelines.settings import Settings
from pipelines.tasks import Grid, to_json

SIDE = 1280  # pixels that the videos have together, across and down, at most
READABLE = 256  # pixels: smaller videos grow, by whole times, up to that
GAP, LINES = 8, 3  # pixels between the videos; lines that a prompt may take
PAPER, INK, FAINT = (18, 12, 20), (247, 244, 246), (169, 152, 165)  # the house, and what is written on it


def make(
    task: Grid, path: Path, settings: Settings, videos: Sequence[Path | str]
) -> Generator[Progress | Result, None, None]:
    """Writes the grid of `videos`, row after row, to `path`; the Result comes last.

    Where there is no video, a word says why. A video that is shorter than the grid stays on its last frame. Raises
    ValueError where there is no video at all.
    """
    started = time.perf_counter()
    if not any(isinstance(one, Path) for one in videos):
        raise Refusal(said("None of the videos of this grid was made, so there is nothing to lay side by side."))
    columns, frames = len(task.seeds), task.of.frames
    width, height = _size(task.of.width, task.of.height, columns, len(task.prompts))
    yield Progress(LAYING, 0, frames)
    films = [_film(one, width, height) for one in videos]
    plate, places = _plate(task, width, height)
    path.parent.mkdir(parents=True, exist_ok=True)
    description = to_json(task)
    with video.writing(path, frames, plate.shape[1], plate.shape[0], task.of.fps, description) as write:
        for number in range(frames):
            for film, (left, top) in zip(films, places, strict=True):
                plate[top : top + height, left : left + width] = film[min(number, len(film) - 1)]
            write(plate)
            yield Progress(LAYING, number + 1, frames)
    facts = {"task": json.loads(description), "seconds": time.perf_counter() - started}
    facts |= {"frames": frames, "width": plate.shape[1], "height": plate.shape[0], "fps": task.of.fps}
    made = ["made" if isinstance(one, Path) else one for one in videos]
    facts["videos"] = [
        {"prompt": prompt, "seed": seed, "video": made[row * columns + column]}
        for row, prompt in enumerate(task.prompts)
        for column, seed in enumerate(task.seeds)
    ]
    yield Result(path, facts)


def _size(width: int, height: int, columns: int, rows: int) -> tuple[int, int]:
    """Width and height of each video in the grid, even numbers."""
    scale = min(SIDE / (columns * width), SIDE / (rows * height), max(1, READABLE // width))
    scale = math.floor(scale) if scale >= 1 else scale
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    return width, height


def _film(source: Path | str, width: int, height: int) -> np.ndarray:
    """The frames [F, height, width, 3] uint8 of the video `source`, or one frame that says the word `source`."""
    if isinstance(source, str):
        sheet = Image.new("RGB", (width, height), PAPER)
        font = _font(height // 10)
        ImageDraw.Draw(sheet).text((width / 2, height / 2), source, FAINT, font, anchor="mm")
        return np.asarray(sheet)[None]
    how = cv2.INTER_AREA if width < (frames := video.read(source)).shape[2] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])


def _plate(task: Grid, width: int, height: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The grid [H, W, 3] uint8 without its videos, and the left upper corner of each of them."""
    columns = len(task.seeds)
    across = columns * width + (columns - 1) * GAP
    font = _font(16)
    line = math.ceil(sum(font.getmetrics()) * 1.2)
    rows = [_wrapped(_writable(prompt, row), across - 2 * GAP, font) for row, prompt in enumerate(task.prompts, 1)]
    down = line + 2 * GAP + sum(len(lines) * line + height + 2 * GAP for lines in rows)
    sheet = Image.new("RGB", (across, down), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, seed in enumerate(task.seeds):
        pen.text((column * (width + GAP) + width / 2, GAP + line / 2), f"seed {seed}", FAINT, font, anchor="mm")
    places, top = [], line + 2 * GAP
    for lines in rows:
        for text in lines:
            pen.text((GAP, top + line / 2), text, INK, font, anchor="lm")
            top += line
        top += GAP
        places += [(column * (width + GAP), top) for column in range(columns)]
        top += height + GAP
    return np.array(sheet), places


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The one that Pillow brings along: none need be on the machine."""
    font = ImageFont.load_default(max(10, size))
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def _writable(prompt: str, row: int) -> str:
    """The prompt, or its number where the font has no such letters."""
    try:
        prompt.encode("latin-1")
    except UnicodeEncodeError:
        return f"Prompt {row}"
    return prompt


def _wrapped(text: str, room: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """`text` in lines of `room` pixels; what does not fit into LINES of them is left out."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= room or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"{lines[LINES - 1]}…"]
    return [_cut(one, room, font) for one in lines]


def _cut(line: str, room: int, font: ImageFont.FreeTypeFont) -> str:
    while font.getlength(line) > room:
        line = line[:-2].rstrip() + "…"
    return line
