"""Attacks that want what belongs to somebody else: its files, its jobs, its name."""

import hmac
import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from scripts.attack.arena import Arena
from scripts.attack.report import IDENTIFIER, Case, Skip, fault
from scripts.attack.target import OwnApp, Target

PLAYED = (
    ".mp4",
    ".webm",
    ".gif",
    ".jpg",
    ".zip",
    "-keypoints.json",
    "poses.json",
)  # what a page shows and lets its owner save
ROUTES = ("/gradio_api/file=%s", "/gradio_api/file/%s", "/file=%s", "/static/%s", "/assets/%s", "/svelte/%s", "/%s")


def served(arena: Arena) -> Iterator[Case]:
    """Of all files among the data only what pages play is served, and none of it under an id of anything."""
    app = arena.own
    if app is None:
        yield Skip("the files of an app that is not ours are not known")
        return
    assert arena.victim.files
    ids = _ids(app)
    files = sorted(file for file in app.data.rglob("*") if file.is_file())
    known = [
        *files,
        Path("/etc/passwd"),
        app.folder / "app.log",
    ]
    for file in known:
        name = file.relative_to(app.folder) if file.is_relative_to(app.folder) else file
        for number, way in enumerate(_ways(app, file)):
            title = f"{name} by {way.replace(str(app.folder), '')[:80]}"
            title = re.sub("[0-9a-f]{32,}", "*", title)  # the same at every run, so that it can be repeated
            if not arena.short or number < 2:
                yield Case(title, lambda file=file, way=way: _kept_back(app, file, way, ids))
    for folder in {file.parent for file in files}:
        yield Case(
            f"folder {re.sub('[0-9a-f]{32,}', '*', folder.name)}", lambda folder=folder: _no_listing(app, folder)
        )


def _ways(app: OwnApp, file: Path) -> list[str]:
    absolute = str(file)
    relative = str(file.relative_to(app.folder)) if file.is_relative_to(app.folder) else absolute.lstrip("/")
    served = str(app.data / "videos")
    climbing = f"{served}/../../{relative}"
    names = [
        absolute,
        climbing,
        f"//{absolute}",
        absolute.replace("/", "/./", 1),
        urllib.parse.quote(absolute, safe=""),
    ]
    names += [climbing.replace("..", "%2e%2e"), f"file://{absolute}", relative, f"{absolute}%00.mp4"]
    names += [f"{up}{relative}" for up in ("../", "../../")] + [relative.removeprefix("data/public/")]
    names += [relative.replace("data/", up, 1) for up in ("", "../", "../../")]
    return [route % name for route in ROUTES[:1] for name in names] + [route % absolute for route in ROUTES[1:]]


def _kept_back(app: OwnApp, file: Path, way: str, ids: dict[str, str]) -> str | None:
    said = app.http.get(way)
    if said.status_code != 200 or not said.content or said.content != file.read_bytes():
        return None
    if not file.name.endswith(PLAYED):
        return f"is served | GET {way}"
    named = next((ids[one] for one in IDENTIFIER.findall(str(file)) if one in ids), None)
    return f"is served under the id of {named} | GET {way}" if named else None


def _no_listing(app: OwnApp, folder: Path) -> str | None:
    said = app.http.get(f"/gradio_api/file={folder}")
    return f"is listed: {said.text[:120]!r}" if said.status_code == 200 else None


def _ids(app: OwnApp) -> dict[str, str]:
    """Every id that opens something, as the app's own table and folders tell, and what it is."""
    found = {folder.name: f"a folder in {folder.parent.name}" for folder in app.data.glob("*/*") if folder.is_dir()}
    for row in app.table():
        found |= {row["id"]: "a job", row["owner"]: "an owner"}
    for file in app.data.glob("*/*/*.json"):
        for one in IDENTIFIER.findall(file.read_text(errors="replace")):
            found.setdefault(one, f"something in {file.name}")
    return {one: what for one, what in found.items() if IDENTIFIER.fullmatch(one)}


def shared(arena: Arena) -> Iterator[Case]:
    """A video that is shared gives nothing away that opens anything."""
    assert arena.victim.files
    app = arena.app
    for file, facts in zip(arena.victim.files, arena.victim.facts, strict=True):
        kind = facts["task"]["task"] + ("-with-image" if facts["task"].get("image") else "")
        content = app.http.get(file["url"]).content
        found = sorted({one.decode() for one in re.findall(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", content)})
        yield Case(f"{kind}: ids in the file", lambda found=found: f"holds {', '.join(found)}" if found else None)
        for one in found:
            for name, path in _opened_by(arena, one).items():
                yield Case(f"{kind}: {name}", lambda path=path: _opens(app, path))
            yield Case(f"{kind}: as a visitor", lambda one=one: _is_owner(app, one))
        yield Case(f"{kind}: the path in its address", lambda url=file["url"]: _private(arena, url))


def _opened_by(arena: Arena, one: str) -> dict[str, str]:
    """Files that the id `one` may lead to, as the app's source tells."""
    data = str(arena.own.data) if arena.own else "data"
    names = """
        clips/%s/clip.json clips/%s/upload clips/%s/preview.mp4 images/%s/image.png images/%s/image.json
        videos/%s/tuned/tuned.json videos/%s/tuned/tuned.safetensors videos/%s/a-robot-dances-33.mp4
        videos/%s/a-robot-dances-33.json videos/%s/a-robot-7.mp4
    """.split()
    return {name: f"{data}/{name % one}" for name in names}


def _opens(app: Target, path: str) -> str | None:
    said = app.file(path)
    return f"opens {path}: {said.text[:80]!r}" if said.status == 200 else None


def _is_owner(app: Target, one: str) -> str | None:
    found = app.library(one)
    return f"is an owner, of {len(found)} videos" if found else None


def _private(arena: Arena, url: str) -> str | None:
    """An address tells neither where the server keeps its data nor an id."""
    path = next((path for path in arena.paths if path in urllib.parse.unquote(url)), None)
    if path:
        return f"names the server's folder {path}: {url}"
    ids = _ids(arena.own) if arena.own else {}
    named = next((ids[one] for one in IDENTIFIER.findall(url) if one in ids), None)
    return f"names the id of {named}: {url}" if named else None


def told(arena: Arena) -> Iterator[Case]:
    """No answer to an honest request tells where on the server things are."""
    app = arena.app
    owner = arena.victim.owner
    pages = {"the page": "/", "config": "/config", "info": "/gradio_api/info", "openapi": "/gradio_api/openapi.json"}
    for name, path in pages.items():
        yield Case(name, lambda path=path: _names_folder(arena, app.http.get(path).text))
    yield Case("upload", lambda: _names_folder(arena, app.upload(b"x", "x.mp4")))
    yield Case("a video", lambda: _names_folder(arena, json.dumps(arena.victim.files)))
    yield Case("facts", lambda: _names_folder(arena, json.dumps(arena.victim.facts)))
    for event in app.events():
        if event["api_name"].startswith(("look", "list", "arrive", "go_on")):
            inputs = [owner, *[None] * (len(event["inputs"]) - 1)]
            title = f"{event['api_name']}#{event['id']}"
            yield Case(
                title, lambda event=event["id"], inputs=inputs: _names_folder(arena, app.act(event, inputs).text)
            )


def _names_folder(arena: Arena, text: str) -> str | None:
    text = urllib.parse.unquote(text).replace("\\/", "/")
    for path in arena.paths:
        if path in text:
            at = text.index(path)
            return f"tells {text[max(0, at - 40) : at + len(path) + 60]!r}"
    return None


def strangers(arena: Arena) -> Iterator[Case]:
    """To a stranger, somebody else's job is what a job that never was is: the same words, the same status."""
    app, job = arena.app, arena.victim.video["job"]
    mine, unknown = "b" * 32, "c" * 32
    calls = {
        "stop": {"job": job, "visitor_id": mine},
        "finish": {"job": job, "visitor_id": mine},
        "edit": {"tuned": job, "prompt": "a robot", "visitor_id": mine},
        "pose_to_video": {"prompt": "a robot", "motion": "wave", "tuned": job, "visitor_id": mine},
    }
    for name, values in calls.items():
        yield Case(name, lambda name=name, values=values: _same(app, name, values, job, unknown))
    yield Case("their owner has them", lambda: None if _mine(arena) else "the library does not show its owner's videos")
    for owner in (
        None,
        "",
        [],
        ["x"],
        {"$ne": ""},
        True,
        0,
        "%",
        "_" * 32,
        "' OR 1=1 --",
        arena.victim.owner.upper(),
        "*",
    ):
        yield Case(f"library of {owner!r}", lambda owner=owner: _nothing_shown(app, owner))
    things = (job, *filter(None, (facts["task"].get("image") for facts in arena.victim.facts)))
    for event in arena.some(list(app.events()), 40):
        if len(event["inputs"]) >= 2 and not event["api_name"].startswith(("look", "foresee", "hint")):
            for number, thing in enumerate(things):
                values = [mine, thing, *[None] * (len(event["inputs"]) - 2)]
                title = f"{event['api_name']}#{event['id']} with id {number} of somebody else"
                yield Case(title, lambda event=event["id"], values=values: _shows_nothing(arena, event, values))


def _same(app: Target, name: str, values: dict, job: str, unknown: str) -> str | None:
    """Whether the answer is the one for a job that there is not."""
    absent = {key: unknown if value == job else value for key, value in values.items()}
    one, other = (app.call(name, until=lambda told: True, **some) for some in (values, absent))
    if not one.failed:
        return f"was done: {one.text[:160]}"
    told = [re.sub(r"[0-9a-f]{8,}", "", answer.said or "") for answer in (one, other)]
    return f"tells that there is one: {told[0]!r} and {told[1]!r}" if told[0] != told[1] else fault(one)


def _mine(arena: Arena) -> bool:
    """Whether what nobody else is to see is there at all."""
    return arena.victim.video["job"] in arena.app.library(arena.victim.owner)


def _nothing_shown(app: Target, owner: object) -> str | None:
    found = app.library(owner)
    return f"shows {len(found)} videos of somebody" if found else None


def _shows_nothing(arena: Arena, event: int, values: list[object]) -> str | None:
    answer = arena.app.act(event, values)
    for file in arena.victim.files:
        if file["url"] in answer.text or file["path"] in answer.text:
            return f"shows the video | {answer.asked}"
    return fault(answer, arena.paths)


def signed_in(arena: Arena) -> Iterator[Case]:
    """Nobody computes the id of somebody who signs in, from what is published and their public number."""
    try:
        from tests.stand_in_provider import Provider
    except ImportError as error:
        yield Skip(f"signing in needs gradio[oauth] and joserfc ({error})")
        return
    provider = Provider("somebody")
    try:
        with arena.start("signed-in", provider.variables("somebody")) as app:
            owner = _arrival(app)
            config = app.http.get("/config").text
            published = sorted(
                {*re.findall(r'"([0-9A-Za-z_\-+/=]{16,128})"', config), app.url, "marionette-visitor", ""}
            )
            subject = "id-of-somebody"
            yield Case("made of what /config tells", lambda: _computed(owner, subject, published))
            yield Case("claimed without a sign-in", lambda: _claimed(app, owner))
            yield Case("in the page's source", lambda: "holds the id" if owner in app.http.get("/").text else None)
    finally:
        provider.close()


def _arrival(app: OwnApp) -> str:
    """Signs in as browsers do; the id that the app then gives."""
    import httpx

    with httpx.Client(base_url=app.url, follow_redirects=True, timeout=60, trust_env=False) as browser:

        def kept(response: httpx.Response) -> None:
            for cookie in browser.cookies.jar:
                cookie.secure = False  # browsers trust 127.0.0.1 without https

        browser.event_hooks = {"response": [kept]}
        browser.get("/login/huggingface", params={"_target_url": "/"})
        event = next(one for one in app.events() if one["api_name"] in ("arrive", "known"))
        said = browser.post("/gradio_api/run/x", json={"data": [""], "fn_index": event["id"]})
        return said.json()["data"][0]


def _computed(owner: str, subject: str, keys: list[str]) -> str | None:
    """The app's own ways to make an id, with every key that an attacker finds."""
    for key in keys:
        for text in (f"user {subject}", subject):
            whole = hmac.digest(key.encode(), text.encode(), "sha256").hex()
            first = whole[:16]
            halves = first + hmac.digest(key.encode(), f"proof {first}".encode(), "sha256").hex()[:16]
            if owner in (whole[:32], whole, halves):
                return f"is computed with the key {key[:8]}… of /config"
    return None


def _claimed(app: OwnApp, owner: str) -> str | None:
    """A browser that nobody has signed in with, and that says it is somebody."""
    event = next(one for one in app.events() if one["api_name"] in ("arrive", "known"))
    answer = app.run(event["id"], [owner])
    return "is given to who only says it" if owner in answer.text else None
