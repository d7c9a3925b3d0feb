"""The player of the page: one component wherever a video is shown.

It plays, repeats, goes frame by frame, slower and faster, and shows several videos in step, side by side or with a
wipe. Its template stands still; assets/player.js fills it in, with properties of elements and never with HTML.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.i18n import I18nData

from ui.languages import say

HEAD = 2**20  # bytes at the beginning of a video that may describe its frames
HANDS_OVER = "(window.players ??= []).push({element, props, watch}); window.takePlayers?.();"
_ICONS = {
    "toggle": '<path class="play" d="M7 4.5v15l12-7.5z"/><path class="pause" d="M6 5h4v14H6zM14 5h4v14h-4z"/>',
    "back": '<path d="M5 5h2.5v14H5zM19 5v14L8.5 12z"/>',
    "on": '<path d="M16.5 5H19v14h-2.5zM5 5v14l10.5-7z"/>',
    "repeat": '<path d="M17 2.5 21.5 7 17 11.5V8.5H7v4H4v-7h13zM7 12.5v3h10v-4h3v7H7v3L2.5 17z"/>',
    "sound": '<path d="M4 9v6h4l5 4.5v-15L8 9z"/><path class="heard" d="M15 8.5v7a4 4 0 0 0 0-7z"/>',
    "side": '<path d="M3 5h8v14H3zM13 5h8v14h-8z"/>',
    "wipe": '<path d="M3 5h8.5v14H3z"/><path d="M13.5 5H21v14h-7.5v-1.5h6v-11h-6z"/>',
    "full": '<path d="M4 4h6v2.5H6.5V10H4zM14 4h6v6h-2.5V6.5H14zM4 14h2.5v3.5H10V20H4zM17.5 14H20v6h-6v-2.5h3.5z"/>',
}


def _button(does: str) -> str:
    icon = f'<svg viewBox="0 0 24 24" aria-hidden="true">{_ICONS[does]}</svg>'
    return f'<button type="button" data-do="{does}">{icon}</button>'


TEMPLATE = (
    '<div class="player" role="group" hidden><div class="films"></div><div class="controls">'
    '<div class="strip"><canvas aria-hidden="true"></canvas><input type="range" min="1" max="1" value="1"></div>'
    f'<div class="buttons">{_button("back")}{_button("toggle")}{_button("on")}<span class="moment"></span>'
    f'<span class="views" hidden>{_button("side")}{_button("wipe")}</span>'
    f'<span class="rest">{_button("sound")}{_button("repeat")}<select></select>{_button("full")}</span>'
    "</div></div></div>"
)


@dataclass(frozen=True)
class Film:
    """A video with what stands under it."""

    address: str  # where the web server finds it: see Assets.address
    name: str = ""
    part: str = ""  # where it has no name, what it is: "clip" or "skeletons"


def player(label: I18nData, **options: Any) -> gr.HTML:
    """Builds a player by the name of `label`. Its value is what `films` returns."""
    words = say(
        "{}|Play|Pause|One frame back|One frame on|Repeat|Sound|Side by side|Wipe|Full screen|Speed|Position|"
        "Divider|Frame %1 of %2, at %3 seconds|{}|{}",
        *(label, say("The clip"), say("The skeletons")),
    )
    fixed = {"html_template": TEMPLATE, "js_on_load": HANDS_OVER, "apply_default_css": False}
    return gr.HTML(label=words, **fixed, **options)


def films(*shown: Film | str | None) -> list[dict[str, Any]]:
    """The value of a player that shows these, in step where they are several; None stands for none.

    The last is heard.
    """
    found = [Film(one) if isinstance(one, str) else one for one in shown if one is not None]
    return [
        {"file": FileData(path=film.address).model_dump(), "name": film.name, "part": film.part} | _frames(film.address)
        for film in found
    ]


def film(address: str | None, name: str = "", part: str = "") -> Film | None:
    """A video that may not be there."""
    return Film(address, name, part) if address else None


def _frames(address: str) -> dict[str, float]:
    """How many frames a video has, and how many a second; nothing where it does not tell."""
    try:
        file = Path(address)
        return dict(_told(file, file.stat().st_mtime_ns))
    except (OSError, ValueError):
        return {}


@lru_cache(1000)
def _told(file: Path, changed: int) -> dict[str, float]:
    with file.open("rb") as opened:
        return frames_of(opened.read(HEAD))


def frames_of(head: bytes) -> dict[str, float]:
    """The number of "frames" of the first video track in `head`, how an MP4 file begins, and their "rate" a second;
    nothing where it has none, or tells that later.

    The boxes mdhd (units of time a second), hdlr (the kind of track) and stts (how long each frame is), in this order:
    ISO/IEC 14496-12, 8.4 and 8.6.
    """
    handler = head.find(b"vide", max(head.find(b"hdlr"), 0))
    header, times = head.rfind(b"mdhd", 0, handler), head.find(b"stts", handler)
    if min(handler, header, times) < 0:
        return {}
    try:
        (scale,) = struct.unpack_from(">I", head, header + (24 if head[header + 4] else 16))
        (runs,) = struct.unpack_from(">I", head, times + 8)
        pairs = [struct.unpack_from(">II", head, times + 12 + 8 * run) for run in range(runs)]
    except (IndexError, struct.error):
        return {}
    frames, units = sum(count for count, _ in pairs), sum(count * each for count, each in pairs)
    return {"frames": frames, "rate": frames * scale / units} if frames and units else {}
