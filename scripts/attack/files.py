"""Attacks with files: the corpus uploaded as the page does it, and files that are named instead of uploaded."""

import json
import os
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from scripts.attack import corpus, honest_files
from scripts.attack.arena import Arena
from scripts.attack.corpus import CLIP, IMAGE, POSES, RESTORE, Input
from scripts.attack.report import PATIENCE, Answer, Case, Skip, fault, slowness
from scripts.attack.target import PATIENT, Target

ELEMENTS = {CLIP: "clip", POSES: "pose-clip", IMAGE: "image-upload", RESTORE: "restore"}
KEPT_MB, PEAK_MB = 300, 700  # that the whole corpus may leave behind, and take for a moment, in the app's own process


def offered(app: Target, place: str, file: object, owner: str = "a" * 32, seconds: float = PATIENT) -> Answer:
    """Gives the page at `place` a file that the app knows as `file`."""
    event = app.event_of(ELEMENTS[place], "upload")
    return app.join(event, [owner, file], seconds=seconds)


def data(path: object, **more: object) -> dict[str, Any]:
    """What the page sends for a file that it has uploaded."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}} | more


def honest(arena: Arena) -> Iterator[Case]:
    """Everything that people have is taken, while an adversary is about."""
    for one in arena.some(corpus.honest(), 10):
        yield Case(f"{one.place}/{one.name}", lambda one=one: _accepted(arena, one))


def _accepted(arena: Arena, one: Input) -> str | None:
    answer = offered(arena.app, one.place, data(arena.app.upload(one.make(), one.name), orig_name=one.name))
    if answer.failed or answer.status != 200:
        return f"was refused: {answer.said or answer.text[:200]!r}"
    return None


def hostile(arena: Arena) -> Iterator[Case]:
    """Nothing that was made to do harm does any: it is refused in a sentence, or read in time and in little memory."""
    if arena.own:
        Path(f"/proc/{arena.own.process.pid}/clear_refs").write_text("5")  # the peak counts from here
    before, peak = _kept(arena), _peak(arena)
    for one in arena.some(corpus.hostile(), 24):
        yield Case(f"{one.place}/{one.name}", lambda one=one: _harmless(arena, one), patience=PATIENCE + 10)
    if arena.own:
        yield Case("memory that stays", lambda: _over("stay", _kept(arena) - before, KEPT_MB))
        yield Case("memory at its peak", lambda: _over("were taken", _peak(arena) - peak, PEAK_MB))


def _harmless(arena: Arena, one: Input) -> str | None:
    content = one.make()
    began = time.monotonic()
    try:
        path = arena.app.upload(content, one.name)
    except httpx.HTTPStatusError as error:
        said = error.response
        return fault(Answer(f"upload of {one.name}", said.status_code, said.text, 0.0), arena.paths)
    answer = offered(arena.app, one.place, data(path, orig_name=one.name))
    if answer.status == 0:
        _wait_for_readers(arena)
        return f"kept the reader busy for {time.monotonic() - began:.0f} s or more"
    fell = fault(answer, arena.paths, foreseen=True)
    if fell is None and one.right == corpus.REFUSED and not answer.failed:
        fell = "was taken for an honest file"
    if fell is None and answer.seconds > PATIENCE * slowness():
        fell = f"took {answer.seconds:.1f} s"
    return fell


def _wait_for_readers(arena: Arena) -> None:
    """Until what was begun has ended, so that the next case is not blamed for it."""
    plain = honest_files.image("RGB", ".png"), honest_files.video(".mp4", *honest_files.H264)
    for place, content in zip((IMAGE, CLIP), plain, strict=True):
        offered(arena.app, place, data(arena.app.upload(content, f"plain-{place}")))


def _kept(arena: Arena) -> float:
    return arena.own.megabytes() if arena.own else 0.0


def _peak(arena: Arena) -> float:
    """MB that the app's own process has taken at most."""
    if not arena.own:
        return 0.0
    status = Path(f"/proc/{arena.own.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _over(what: str, megabytes: float, allowed: float) -> str | None:
    return f"{megabytes:.0f} MB {what}, and {allowed:.0f} are allowed" if megabytes > allowed else None


def forged(arena: Arena) -> Iterator[Case]:
    """No client may name a file of the server, of another visitor or of the network instead of uploading one."""
    marks = {"/etc/passwd": "root:x:0", "/proc/self/environ": "MARIONETTE_"}
    files = ["/etc/passwd", "/proc/self/environ", "/dev/zero"]
    if arena.own:
        files += [str(arena.own.data / "secret"), str(arena.own.data / "jobs.db"), *_others(arena)]
        marks[str(arena.own.data / "secret")] = (arena.own.data / "secret").read_text()[:32]
    elif not arena.short:
        yield Skip("the other visitors' own files: this app's folders are not known")
    ways: list[tuple[str, str, object]] = [  # place, name of the case, what is said to be a file
        *(
            (place, f"{place}/{name}/{os.path.basename(file)}", forgery)
            for file in files
            for name, forgery in _forgeries(arena, file).items()
            for place in (*ELEMENTS, "endpoint")
        ),
        *((place, f"{place}/{name}", value) for name, value in ODD_FILES.items() for place in (*ELEMENTS, "endpoint")),
    ]
    for place, title, forgery in arena.some(ways, 30):
        yield Case(title, lambda place=place, forgery=forgery: _named(arena, place, forgery, marks))


def _others(arena: Arena) -> list[str]:
    """A video and an upload of somebody else."""
    assert arena.victim.files
    found = [*sorted(arena.own.data.rglob("*.mp4"))[:2], *sorted(arena.own.data.rglob("*.png"))[:1]]
    return [str(one) for one in found]


def _forgeries(arena: Arena, file: str) -> dict[str, object]:
    """Ways to name `file`."""
    mine = arena.app.upload(honest_files.image("RGB", ".png"), "mine.png")
    folder = os.path.dirname(mine)
    quoted = urllib.parse.quote(file, safe="")
    climbing = "../" * 12 + file.lstrip("/")
    ways: dict[str, object] = {
        "plain": data(file),
        "no-meta": {"path": file},
        "scheme": data(f"file://{file}"),
        "url": data(None, url=f"file://{file}"),
        "route": data(mine, url=f"{arena.app.url}/gradio_api/file={file}"),
        "climbing": data(f"{folder}/{climbing}"),
        "encoded": data(quoted),
        "encoded-climbing": data(f"{folder}/{urllib.parse.quote('../' * 12, safe='')}{file.lstrip('/')}"),
        "zero": data(f"{mine}\0{file}"),
        "behind-zero": data(f"{file}\0.mp4"),
        "list": [data(file)],
        "listed": data([file]),
        "text": file,
        "stream": data(file, is_stream=True),
        "network": data(f"{arena.app.url}/gradio_api/file={file}"),
    }
    if arena.own:
        link = next(arena.own.folder.rglob("mine.png")).with_name(f"link-{file.replace('/', '-')}.mp4")
        link.symlink_to(file)
        ways["link"] = data(f"{folder}/{link.name}")
    return ways


ODD_FILES = {
    "null-path": data(None),
    "empty": data(""),
    "dot": data("."),
    "root": data("/"),
    "number": data(7),
    "object": data({"path": "/etc/passwd"}),
    "surrogate": data("\ud800.mp4"),
    "long": data("a" * 100_000),
    "control": data("\x1b[31m\n.mp4"),
    "device": data("/dev/stdin"),
    "meta": {"path": "x", "meta": {"_type": ["gradio.FileData"]}},
    "internal": data(None, url="http://169.254.169.254/latest/meta-data"),
    "loopback": data("http://127.0.0.1:1/x.mp4"),
    "nested": data(data(data("/etc/passwd"))),
}


def _named(arena: Arena, place: str, forgery: object, marks: dict[str, str]) -> str | None:
    if place == "endpoint":
        values = {"prompt": "a robot", "frames": 8, "steps": 1, "clip": forgery}
        answer = arena.app.call("pose_to_video", until=lambda told: "job" in told, **values)
    else:
        answer = offered(arena.app, place, forgery)
    shown = next((path for path, content in marks.items() if content in answer.text), None)
    if shown:
        return f"shows the content of {shown} | {answer.asked[:300]}"
    fell = fault(answer, arena.paths)
    if fell is None and answer.status == 200 and not answer.failed and _taken(answer):
        return f"was taken | {answer.asked[:400]} -> {answer.text[:160]}"
    return fell


def _taken(answer: Answer) -> bool:
    """Whether the answer shows or keeps something: a file, an id, a job."""
    try:
        told = json.dumps(answer.json())
    except ValueError:
        told = answer.text
    return '"path"' in told or '"job"' in told or "Restored" in told or "preview" in told
