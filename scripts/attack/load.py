"""Attacks by number: sessions, jobs, visitors that are none, and lines in the log."""

import re
import secrets
import sys
import time
from collections.abc import Iterator

import httpx

from scripts.attack.arena import SHARED, Arena
from scripts.attack.report import Case, Skip, fault
from scripts.attack.target import QUICK, OwnApp, Target

EACH = int(SHARED["MARIONETTE_QUEUE_EACH"])
LEFT_MB = 60  # that the second half of all sessions, or jobs, may leave behind
FORGED_LINE = "2026-01-01 00:00:00,000 ERROR forged: the disk is broken"


def sessions(arena: Arena) -> Iterator[Case]:
    """Sessions that nobody comes back to leave nothing behind: memory is flat once the app is warm."""
    app = arena.own
    if app is None:
        yield Skip("the memory of an app that is not ours can't be seen")
        return
    count = arena.many(5000, 240)
    event = next(one for one in app.events() if one["api_name"].startswith("hint"))
    values = ["a robot", *[None] * (len(event["inputs"]) - 1)]
    yield Case(f"{count} sessions", lambda: _flat(app, count, lambda: app.run(event["id"], values)), patience=1200)


def cancelled(arena: Arena) -> Iterator[Case]:
    """Jobs that are asked for and stopped leave nothing behind."""
    app = arena.own
    if app is None:
        yield Skip("the memory of an app that is not ours can't be seen")
        return
    app.video(secrets.token_hex(16))  # the model is there

    def once() -> None:
        told = app.began("d" * 32, steps=20)
        app.run("stop", [told["job"], told["visitor_id"]])

    count = arena.many(1000, 24)
    yield Case(f"{count} jobs", lambda: _flat(app, count, once), patience=1200)
    yield Case("all have ended", lambda: _drained(app))


def _flat(app: OwnApp, count: int, act) -> str | None:
    """What the second half of `count` acts leaves behind."""
    began = app.megabytes()
    for number in range(count):
        if number == count // 2:
            half = app.megabytes()
        act()
    ended = app.megabytes()
    print(f"memory: {began:.0f} MB, {half:.0f} after a half, {ended:.0f} after {count}", file=sys.stderr)
    grown = ended - half
    if grown > LEFT_MB:
        return f"{grown:.0f} MB more after the second {count - count // 2}, and {LEFT_MB} are allowed"
    return None


def _drained(app: OwnApp, seconds: float = 60) -> str | None:
    began = time.monotonic()
    while True:
        waiting = [row["id"] for row in app.table() if row["state"] in ("queued", "running", "interrupted")]
        if not waiting:
            return None
        if time.monotonic() - began > seconds:
            return f"{len(waiting)} jobs still wait or run"
        time.sleep(0.5)


def fresh_ids(arena: Arena) -> Iterator[Case]:
    """One address with a new id for every job keeps an honest newcomer waiting no longer than one visitor could."""
    app = arena.app
    crowd = Target(app.url, transport=httpx.HTTPTransport(local_address="127.0.0.66"))
    begun: list[dict] = []

    def fill() -> None:
        for number in range(arena.many(210, int(SHARED["MARIONETTE_QUEUE"]) + 4)):
            crowd.http.headers["x-forwarded-for"] = f"203.0.113.{number}"  # believed by nobody
            try:
                begun.append(crowd.began(secrets.token_hex(16), steps=40, seed=number))
            except ValueError:
                continue

    fill()
    yield Case("a newcomer asks", lambda: _admitted(app, len(begun)), patience=60)
    yield Case("a second newcomer asks", lambda: _admitted(app, len(begun), "127.0.0.68"), patience=60)
    for told in begun:
        crowd.run("stop", [told["job"], told["visitor_id"]])
    crowd.close()


def _admitted(app: Target, waiting: int, address: str = "127.0.0.67") -> str | None:
    honest = Target(app.url, transport=httpx.HTTPTransport(local_address=address))
    answer = honest.call("text_to_video", until=lambda told: told.get("stage") == "Waiting" or "step" in told, **QUICK)
    try:
        if answer.failed or answer.status != 200:
            return f"is refused while {waiting} jobs of one address wait: {answer.said or answer.text[:200]}"
        told = answer.json()[1]
        honest.run("stop", [told["job"], told["visitor_id"]])
        if told.get("stage") == "Waiting" and told["step"] - 1 > EACH:
            return (
                f"is put behind {told['step'] - 1} jobs of one address, and {EACH} is what one visitor may have waiting"
            )
    finally:
        honest.close()
    return None


def logs(arena: Arena) -> Iterator[Case]:
    """Nobody fills the log, or writes lines into it that the app did not say."""
    app = arena.own
    if app is None:
        yield Skip("the log of an app that is not ours can't be read")
        return
    before, count = _logged(app), arena.many(400, 20)
    event = next(one for one in app.events() if one["api_name"].startswith("hint"))
    seen = len(app.log)

    def flood() -> str | None:
        for number in range(count):
            long = f"\n{FORGED_LINE} {number}\n\x1b[31m" + "\ud800x" * 20_000
            app.run(event["id"], [long, [long], {"a": long}][: len(event["inputs"])])
            app.run(f"x%0a{FORGED_LINE.replace(' ', '%20')}", [long], session=long[:3000])
            app.call("stop", job=long, visitor_id=long)
        grown = _logged(app) - before
        allowed = 6000 * 3 * count
        return (
            f"{grown} bytes were logged for {3 * count} calls, and {allowed} are allowed" if grown > allowed else None
        )

    yield Case("a flood", flood, patience=600)
    yield Case("forged lines", lambda: _forged(app.log[seen:]))
    yield Case("control characters", lambda: _coloured(app.log[seen:]))
    yield Case("long lines", lambda: _long(app.log[seen:]))
    yield Case("what visitors wrote", lambda: _private(arena))


def _logged(app: OwnApp) -> int:
    return sum(file.stat().st_size for file in [app.folder / "app.log", *app.data.glob("*.log*")])


def _forged(log: str) -> str | None:
    lines = [line for line in log.splitlines() if line.startswith(FORGED_LINE[:30])]
    return f"{len(lines)} lines stand in the log as if the app had said them" if lines else None


def _coloured(log: str) -> str | None:
    found = re.search(r"[\x00-\x08\x0b-\x1f\x7f].{0,40}", log)
    return f"stand in the log: {found[0]!r}" if found else None


def _long(log: str) -> str | None:
    longest = max(map(len, log.splitlines()), default=0)
    return f"{longest} characters in one line, and 10000 are allowed" if longest > 10_000 else None


def _private(arena: Arena) -> str | None:
    """Prompts, ids of visitors and names of their files are nobody's business."""
    app = arena.own
    prompt, owner = "a xylophone in blue", "e" * 32
    try:
        app.video(owner, prompt=prompt, scheduler="ddim", frames=10**6)
    except ValueError:
        pass
    event = app.event_of("clip", "upload", 2)
    app.join(event, [owner, {"path": "/nowhere/my-holiday.mp4", "meta": {"_type": "gradio.FileData"}}])
    found = [one for one in (prompt, owner, "my-holiday") if one in app.log]
    return f"stand in the log: {found}" if found else fault(app.run("stop", ["0" * 32, owner]))
