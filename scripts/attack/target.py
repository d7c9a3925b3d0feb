"""The app under attack: one of our own in a process and a folder of its own, or any that runs somewhere."""

import html
import json
import math
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from scripts.attack.report import Answer, slowness

PATIENT = 240.0  # seconds after which an answer is not waited for any more
ROOT = Path(__file__).resolve().parent.parent.parent
TOO_BUSY = "When localhost is not accessible"  # says gradio where its own page takes longer than three seconds
READY = "To create a public link"
SETTLED_SECONDS = 2.0
START_SECONDS = 180.0  # on a machine that is busy
QUICK = {"prompt": "a robot in blue", "steps": 1, "frames": 8, "seed": 7}  # the cheapest video there is


class Target:
    """An app that answers at `url`, asked as pages and programs ask it. May be used from several threads."""

    def __init__(self, url: str, **options: Any):
        self.url = url.rstrip("/")
        # A connection for every request: one that is kept breaks where the app answers before it has read all.
        options.setdefault("limits", httpx.Limits(max_keepalive_connections=0))
        self.http = httpx.Client(base_url=self.url, timeout=300, trust_env=False, **options)
        self._config: dict[str, Any] | None = None

    def close(self) -> None:
        self.http.close()

    def ask(self, method: str, path: str, **rest: Any) -> Answer:
        """Any request. An answer that does not come is one of status 0."""
        shown = f"{method} {path} {_short(rest)}"
        began = time.monotonic()
        try:
            said = self.http.request(method, path, **rest)
        except (httpx.HTTPError, UnicodeError, ValueError) as error:
            return Answer(shown, 0, f"{type(error).__name__}: {error}", time.monotonic() - began)
        return Answer(shown, said.status_code, said.text, time.monotonic() - began)

    def post(self, path: str, body: object, **rest: Any) -> Answer:
        """JSON as a hostile client writes it: with NaN, and with lone surrogates."""
        content = json.dumps(body)
        shown = f"POST {path} {_short(content)}"
        headers = {"content-type": "application/json"} | rest.pop("headers", {})
        answer = self.ask("POST", path, content=content.encode(), headers=headers, **rest)
        return Answer(shown, answer.status, answer.text, answer.seconds)

    @property
    def config(self) -> dict[str, Any]:
        if self._config is None:
            self._config = self.http.get("/config").raise_for_status().json()
        return self._config

    def events(self) -> Iterator[dict[str, Any]]:
        """The events of the page that the server handles, hidden ones too."""
        return (event for event in self.config["dependencies"] if event["backend_fn"])

    def event_of(self, element: str, kind: str, inputs: int | None = None) -> int:
        """The number of what the element of the page called `element` does when `kind` happens to it."""
        ids = {one["id"] for one in self.config["components"] if one["props"].get("elem_id") == element}
        for event in self.events():
            if any(target in ids and what == kind for target, what in event["targets"]):
                if inputs is None or len(event["inputs"]) == inputs:
                    return event["id"]
        raise LookupError(f"The page has no {element} with {kind}.")

    def run(self, event: int | str, values: object, session: str | None = None, **rest: Any) -> Answer:
        """Calls an event directly, past the queue: the first thing that it answers."""
        body = {"data": values, "session_hash": session or secrets.token_hex(5)}
        if isinstance(event, int):
            body["fn_index"] = event
        return self.post(f"/gradio_api/run/{event if isinstance(event, str) else 'x'}", body, **rest)

    def act(self, event: int, values: object, session: str | None = None, enough: float = math.inf) -> Answer:
        """Calls an event in the way that is open to it: through the queue, or directly where it has none.

        What still goes on after `enough` seconds was taken on, and is not waited for.
        """
        queued = next(one["queue"] for one in self.config["dependencies"] if one["id"] == event)
        return self.join(event, values, session, enough=enough) if queued else self.run(event, values, session)

    def join(
        self,
        event: int,
        values: object,
        session: str | None = None,
        seconds: float = PATIENT,
        enough: float = math.inf,
    ) -> Answer:
        """Calls an event as the page does, and waits for its end, or as `act` says."""
        session = session or secrets.token_hex(5)
        body = {"data": values, "fn_index": event, "session_hash": session, "event_data": None, "trigger_id": None}
        joined = self.post("/gradio_api/queue/join", body)
        if joined.status != 200:
            return joined
        began = time.monotonic()
        try:
            with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
                for line in stream.iter_lines():
                    if time.monotonic() - began > seconds:
                        break
                    if not line.startswith("data:"):
                        continue
                    message = json.loads(line[5:])
                    if message["msg"] == "process_generating" and time.monotonic() - began > enough:
                        return Answer(joined.asked, 200, json.dumps(message["output"]), time.monotonic() - began)
                    if message["msg"] in ("process_completed", "unexpected_error"):
                        return _ended(joined.asked, message, time.monotonic() - began)
        except httpx.HTTPError as error:
            return Answer(joined.asked, 0, f"{type(error).__name__}: {error}", time.monotonic() - began)
        return Answer(joined.asked, 0, f"no end after {seconds:.0f} s", time.monotonic() - began)

    def call(
        self, name: str, seconds: float = PATIENT, until: Callable[[dict], bool] | None = None, **values: Any
    ) -> Answer:
        """Calls a published endpoint and waits for its end, or for a progress of which `until` is true."""
        joined = self.post(f"/gradio_api/call/v2/{name}", values)
        if joined.status != 200:
            return joined
        began = time.monotonic()
        event = ""
        try:
            path = f"/gradio_api/call/{name}/{joined.json()['event_id']}"
            with self.http.stream("GET", path) as stream:
                for line in stream.iter_lines():
                    if time.monotonic() - began > seconds:
                        break
                    if line.startswith("event:"):
                        event = line[6:].strip()
                    elif line.startswith("data:"):
                        text = line[5:].strip()
                        spent = time.monotonic() - began
                        if event == "complete":
                            return Answer(joined.asked, 200, text, spent)
                        if event == "error":
                            return Answer(joined.asked, 200, text, spent, True, _error(json.loads(text)))
                        if event == "generating" and until is not None and until(json.loads(text)[1]):
                            return Answer(joined.asked, 200, text, spent)
        except httpx.HTTPError as error:
            return Answer(joined.asked, 0, f"{type(error).__name__}: {error}", time.monotonic() - began)
        return Answer(joined.asked, 0, f"no end after {seconds:.0f} s", time.monotonic() - began)

    def upload(self, content: bytes, name: str, **rest: Any) -> str:
        """What the app calls an upload. Raises httpx.HTTPError where it refuses."""
        said = self.http.post("/gradio_api/upload", files={"files": (name, content)}, **rest)
        said.raise_for_status()
        return said.json()[0]

    def began(self, owner: str, **values: Any) -> dict[str, Any]:
        """Asks for a video and returns what is told of it first: its ids. Raises ValueError where it is refused."""
        answer = self.call("text_to_video", until=lambda told: "job" in told, **QUICK | values, visitor_id=owner)
        if answer.failed or answer.status != 200:
            raise ValueError(answer.said or answer.text)
        return answer.json()[1]

    def video(self, owner: str, **values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Has a video made; its file and its facts. Raises ValueError where it is not made."""
        answer = self.call("text_to_video", **QUICK | values, visitor_id=owner)
        if answer.failed or answer.status != 200:
            raise ValueError(answer.said or answer.text)
        return tuple(answer.json())

    def library(self, owner: object) -> set[str]:
        """The jobs whose videos the library shows to `owner`."""
        return self._shelves(owner)[1]

    def unfinished(self, owner: object) -> set[str]:
        """The jobs that the library shows to `owner` as being made."""
        return self._shelves(owner)[0]

    def _shelves(self, owner: object) -> list[set[str]]:
        look = next(event for event in self.events() if event["api_name"].startswith("look") and self._searches(event))
        answer = self.act(look["id"], [owner, "", False, 1, [], []])
        if answer.failed or answer.status != 200:
            return [set(), set()]
        return [set(re.findall('data-job="([0-9a-zA-Z_-]+)"', str(part))) for part in answer.json()["data"][:2]]

    def _searches(self, event: dict[str, Any]) -> bool:
        names = {one["id"]: one["props"].get("elem_id") for one in self.config["components"]}
        return "search" in (names.get(one) for one in event["inputs"])

    def file(self, path: str, **rest: Any) -> Answer:
        return self.ask("GET", f"/gradio_api/file={path}", **rest)


class OwnApp(Target):
    """An app that we started, with all that can be seen of it from its own machine: only to measure, not to attack."""

    def __init__(self, folder: Path, process: subprocess.Popen, url: str):
        super().__init__(url)
        self.folder, self.process = folder, process

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "app.log").read_text(errors="replace")

    @property
    def paths(self) -> tuple[str, ...]:
        """Folders of the server that nobody outside is to hear of."""
        return (str(self.folder), str(ROOT))

    def table(self) -> list[dict[str, Any]]:
        """The rows of its table of jobs, from a copy: the app keeps the table itself locked."""
        with tempfile.TemporaryDirectory() as folder:
            for file in self.data.glob("jobs.db*"):
                shutil.copy(file, folder)
            with closing(sqlite3.connect(Path(folder) / "jobs.db")) as rows:
                rows.row_factory = sqlite3.Row
                return [dict(row) for row in rows.execute("SELECT * FROM jobs")]

    def megabytes(self) -> float:
        """Of memory, its own and that of the processes that it started."""
        return sum(_resident(one) for one in [self.process.pid, *self.children()]) / 2**20

    def children(self) -> list[int]:
        """The processes that it started: its workers, and what reads uploads."""
        return children(self.process.pid)

    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self, how: int = signal.SIGTERM, seconds: float = 60) -> float:
        """Ends it; how many seconds that took."""
        began = time.monotonic()
        self.process.send_signal(how)
        self.process.wait(seconds)
        return time.monotonic() - began


def environment(folder: Path, port: int, **variables: str) -> dict[str, str]:
    """The variables of an app whose data are in `folder`, and none of ours."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MARIONETTE_", "GRADIO_"))}
    return ours | {
        "MARIONETTE_DATA": str(folder / "data"),
        "MARIONETTE_HUB": "0",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "TMPDIR": str(folder / "tmp"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "PYTHONUNBUFFERED": "1",
        **variables,
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def spawn(
    folder: Path,
    command: list[str] | None = None,
    root: Path = ROOT,
    prepare: Callable[[], None] | None = None,
    variables: Mapping[str, str] | None = None,
) -> OwnApp:
    """Starts an app and waits for nothing."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    port = free_port()
    with open(folder / "app.log", "ab") as log:
        process = subprocess.Popen(
            command or [sys.executable, "app.py"],
            cwd=root,
            env=environment(folder, port, **variables or {}),
            stdout=log,
            stderr=log,
            preexec_fn=prepare,
        )
    return OwnApp(folder, process, f"http://127.0.0.1:{port}")


@contextmanager
def running(folder: Path, **rest: Any) -> Iterator[OwnApp]:
    """An app that answers, as long as the context lasts. Raises OSError with what it said where it ends at once."""
    app = started(folder, **rest)
    try:
        yield app
    finally:
        app.close()
        if app.alive():
            app.process.terminate()
            try:
                app.process.wait(30)
            except subprocess.TimeoutExpired:
                app.process.kill()
                app.process.wait()


def started(folder: Path, **rest: Any) -> OwnApp:
    """An app that answers. Raises OSError with what it said where it ends at once."""
    for last in (False, False, True):
        app = spawn(folder, **rest)
        try:
            wait_for(app)
            return app
        except OSError:
            app.close()
            if app.alive():
                app.process.kill()
                app.process.wait()
            if last or TOO_BUSY not in app.log:
                raise
            (folder / "app.log").unlink()
    raise AssertionError("the last try raises")


def wait_for(app: OwnApp, seconds: float = START_SECONDS) -> None:
    """Waits for the page. Raises OSError with what the app said where it ends or where that takes too long."""
    began, answered = time.monotonic(), None
    while True:
        if not app.alive():
            raise OSError(f"the app ended before its page was there: {app.log[-600:]}")
        try:
            app.http.get("/gradio_api/startup-events", timeout=5)
            answered = answered or time.monotonic()
            # Gradio then asks for its own page, and gives up where that takes too long.
            if READY in app.log or time.monotonic() - answered > SETTLED_SECONDS * slowness():
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() - began > seconds:
            raise OSError(f"no page after {seconds:.0f} s: {app.log[-600:]}")
        time.sleep(0.1)


def _ended(asked: str, message: dict[str, Any], seconds: float) -> Answer:
    """What the end of an event tells. The page's own messages of what went wrong count as failures too."""
    text = json.dumps(message.get("output", message), ensure_ascii=False)
    if message["msg"] == "unexpected_error":
        return Answer(asked, 200, text, seconds, True, message.get("message"))
    if not message["success"]:
        return Answer(asked, 200, text, seconds, True, _error(message["output"]))
    refused = re.search(r'class=\\"message failed\\".*?<p>(.*?)</p>', text)
    if refused:
        return Answer(asked, 200, text, seconds, True, html.unescape(refused[1]))
    return Answer(asked, 200, text, seconds)


def _error(output: object) -> str | None:
    if isinstance(output, dict):
        return output.get("error")
    return output if isinstance(output, str) else None


def _short(what: object) -> str:
    text = what if isinstance(what, str) else str(what or "")
    return text if len(text) < 600 else f"{text[:500]}… ({len(text)} characters)"


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def children(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(one) for one in task.read_text().split()]
        except OSError:
            pass
    return [*found, *(deeper for one in found for deeper in children(one))]
