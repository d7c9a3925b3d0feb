"""Where an attack takes place: the app that all share, folders for apps of its own, and how much is tried."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from scripts.attack import target
from scripts.attack.target import OwnApp, Target

Thing = TypeVar("Thing")
# Small limits, so that few requests reach them.
SHARED = {"MARIONETTE_QUEUE": "24", "MARIONETTE_QUEUE_EACH": "6", "MARIONETTE_UPLOAD_MB": "30"}


class Arena:
    """`app` is the app under attack. Attacks that end, damage or restart one start their own with `start`."""

    def __init__(self, folder: Path, app: Target, short: bool):
        self.folder, self.app, self.short = folder, app, short

    def many(self, full: Thing, short: Thing) -> Thing:
        """How much, by the form of the attack."""
        return short if self.short else full

    def some(self, things: Sequence[Thing], short: int) -> list[Thing]:
        """All of the `things`, or in the short form `short` of them: always the same ones, from all over."""
        return random.Random(7).sample(list(things), short) if self.short and short < len(things) else list(things)

    @property
    def own(self) -> OwnApp | None:
        """The app where it is one of ours, whose process and folder can be looked at."""
        return self.app if isinstance(self.app, OwnApp) else None

    @property
    def paths(self) -> tuple[str, ...]:
        """Folders of the server, as far as they are known."""
        return self.own.paths if self.own else ()

    @contextmanager
    def start(
        self,
        name: str,
        variables: Mapping[str, str] | None = None,
        root: Path = target.ROOT,
        command: list[str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> Iterator[OwnApp]:
        """An app of the attack's own, with its data under `name`: the same at every start with that name."""
        folder = self.folder / name
        with target.running(folder, variables=variables, root=root, command=command, prepare=prepare) as app:
            yield app

    @cached_property
    def victim(self) -> "Victim":
        """Somebody with a few things in the app, made when the first attack wants to steal them."""
        return Victim(self)


class Victim:
    """A visitor whose things an attacker is after. Knows its own secrets, as no attacker does."""

    def __init__(self, arena: Arena):
        from scripts.attack import honest_files

        app = arena.app
        self.owner = "5e" * 16
        self.files: list[dict[str, Any]] = []  # what the app answered: FileData of videos
        self.facts: list[dict[str, Any]] = []
        clip = honest_files.video(".mp4", *honest_files.H264, size="128x128")
        picture = honest_files.image("RGB", ".png", size=(128, 128))
        self.video = self._made(app.video(self.owner))
        uploaded = {"path": app.upload(picture, "mine.png")}
        self._made(app.video(self.owner, image=uploaded, model="miniature-tempofunk"))
        if arena.short:
            self._keep(app, clip)
            return
        tuning = {"clip": {"path": app.upload(clip, "mine.mp4")}, "prompt": "a robot dances", "steps": 2, "frames": 8}
        tuned = self._made(self._done(app, "tune", tuning))
        self._made(self._done(app, "edit", {"tuned": tuned["job"], "prompt": "a bear dances", "steps": 2}))
        pair = {"prompts": ["a robot", "a bear"], "seeds": [7], "steps": 1, "frames": 8}
        self._made(self._done(app, "grid", pair))
        self._made(self._done(app, "finish", {"job": self.video["job"]}))
        poses = {"clip": {"path": app.upload(honest_files.KEYPOINTS["list.json"](), "mine.json")}}
        self._made(self._done(app, "pose_to_video", poses | {"prompt": "a bear", "steps": 1, "frames": 8}))

    def _keep(self, app: Target, clip: bytes) -> None:
        """Leaves a clip on the page, as for a tuning."""
        path = app.upload(clip, "mine.mp4")
        app.join(app.event_of("clip", "upload", 2), [self.owner, {"path": path, "meta": {"_type": "gradio.FileData"}}])

    def _done(self, app: Target, name: str, values: dict[str, Any]) -> tuple[dict, dict]:
        answer = app.call(name, **values, visitor_id=self.owner)
        if answer.failed or answer.status != 200:
            raise ValueError(f"/{name}: {answer.said or answer.text}")
        return tuple(answer.json())

    def _made(self, done: tuple[dict, dict]) -> dict[str, Any]:
        self.files.append(done[0])
        self.facts.append(done[1])
        return done[1]
