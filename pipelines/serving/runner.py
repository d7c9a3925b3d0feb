"""One task carried out, from its inputs to its file: what the backend's worker and the command line share."""

import json
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.catalog import CLIP
from pipelines.detectors import AUTO, DETECTORS
from pipelines.errors import log_error
from pipelines.events import LONGEST, Losses, Preview, Progress, Result
from pipelines.media import clips, video
from pipelines.messages import said
from pipelines.readings import worded
from pipelines.serving import clip_storage
from pipelines.settings import Settings
from pipelines.systems.engine import find_engine
from pipelines.tasks import Edit, MadeByModel, PoseToVideo, Tune, to_json

if TYPE_CHECKING:  # torch comes with the manager, and waits for the first job
    import numpy as np

    from pipelines.models.manager import ModelManager
    from pipelines.poses.keypoints import Poses
    from pipelines.poses.pose_sequence import PoseSequence

LOADING = said("Loading the model")
WRITING = said("Writing the file")
MEASURING = said("Looking at the poses")
MEASURING_SECONDS = 30.0  # that a figure is worth waiting for

Generated = Generator[Progress | Preview | Losses, None, tuple["np.ndarray", dict[str, Any], "PoseSequence | None"]]


def make(
    task: MadeByModel,
    models: "ModelManager",
    path: Path,
    run: Callable[..., Generated] | None = None,
    companions: bool = False,
    **inputs: Any,
) -> Generator[Progress | Preview | Losses | Result, None, None]:
    """Runs `task` and writes the video to `path`; the Result comes last. Closing it early releases the models.

    `inputs` are the files that its system works on, and what else its `generate` takes; `run` is `generated`, or runs
    that elsewhere. With `companions`, what a video of poses followed is written beside it. Raises ValueError where the
    task or the weights are at fault and MemoryError where the device is too small.
    """
    started = time.perf_counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(task, Tune):
        inputs["source"] = path  # the frames that it tunes on, written before
    description = to_json(task)
    with _sound(task, path.parent, models.settings, inputs) as (sound, tempo):
        read_as = worded(task, models.card(task.model).vocabulary)
        frames, facts, sequence = yield from (run or generated)(read_as, models, **inputs)
        yield Progress(WRITING, 0, 1)
        if not isinstance(task, Tune):
            video.write(frames, path, task.fps, description, sound)
            facts |= {"frames": len(frames)}  # fewer than were asked for, where a clip is short
    if companions and isinstance(task, PoseToVideo) and sequence is not None:
        from pipelines.poses import pose_sequence  # and with it OpenCV, which waits for the first job

        pose_sequence.keep(sequence, path, task.fps)
    facts |= {"sound_tempo": tempo} if abs(tempo - 1) > 1e-3 else {}
    facts |= {"read_as": read_as.prompt} if read_as.prompt != task.prompt else {}
    yield Result(path, facts | {"task": json.loads(description), "seconds": time.perf_counter() - started})


def generated(task: MadeByModel, models: "ModelManager", **inputs: Any) -> Generated:
    """The part of `make` that wants the device: returns the frames, uint8 [F, H, W, 3], the facts so far and, where a
    dancer followed poses, those."""
    started = time.perf_counter()
    followed: list[PoseSequence] = []
    if isinstance(task, PoseToVideo):
        inputs["follow"] = followed.append
    generate = find_engine(models.card(task.model).system).generate[type(task)]
    frames, facts = yield from models.attempt(lambda: generate(task, models, **inputs))
    sequence = followed[-1] if followed else None
    if isinstance(task, PoseToVideo) and sequence is not None and sequence.poses is not None:
        facts |= yield from _pose_accuracy(frames, task, sequence.poses, models)
    facts |= {"device_seconds": time.perf_counter() - started}  # the measure of the next job like it
    facts = {"approximations": "none"} | facts | {"peak_memory_mb": models.peak_bytes() // 2**20}
    return frames, facts | _measures(frames, task, models), sequence


@contextmanager
def _sound(
    task: MadeByModel, folder: Path, settings: Settings, inputs: Mapping[str, Any]
) -> Iterator[tuple[Path | None, float]]:
    """The sound that the video of `task` is to have, an M4A file as long as the context lasts, None for none; and how
    many times as fast as in the clip it is played.

    Raises ValueError where it is to have one and there is none, before anything is made.
    """
    match task:
        case Edit(sound=True):
            yield inputs["tuned"] / clips.SOUND, 1.0
        case PoseToVideo(sound=True):
            if "clip" not in inputs:
                raise ValueError(clips.SILENT)
            with tempfile.TemporaryDirectory(dir=folder, suffix=".part") as draft:
                tempo = clip_storage.sound(
                    task, inputs["clip"], Path(draft) / clips.SOUND, settings, inputs.get("measured")
                )
                yield Path(draft) / clips.SOUND, tempo
        case _:
            yield None, 1.0


def _pose_accuracy(
    frames: "np.ndarray", task: PoseToVideo, wanted: "Poses", models: "ModelManager"
) -> Generator[Progress, None, dict[str, Any]]:
    """How well the people in the video stand where they should, as the detector that fits the video sees them, or as
    OpenPose does where that was asked for: a drawn dancer may follow a real person.

    Nothing where that would take too long: a detector that sees people everywhere, in what it does not know, is slow.
    """
    from pipelines.poses import detection
    from pipelines.systems import metrics

    try:
        weights = DETECTORS[task.detector].source
        detector = AUTO if weights is None or weights.is_folder else task.detector
        with closing(detection.find(frames, task.fps, detector, models, stage=MEASURING)) as events:
            while True:
                try:
                    event = next(events)
                except StopIteration as finished:
                    found, by = finished.value
                    break
                if (event.seconds_left or 0) > MEASURING_SECONDS:
                    return {}
                yield event
    except Exception as error:  # the video is made: no figure is worth losing it
        log_error(error, "The pose accuracy", [task.prompt], undone="the video has none")
        return {}
    return {"pose_accuracy": round(metrics.pose_accuracy(found, wanted), 1), "pose_accuracy_by": by}


def _measures(frames: "np.ndarray", task: MadeByModel, models: "ModelManager") -> dict[str, float]:
    """Flicker and motion of the video, and CLIP's figures where CLIP is on this machine and has room there."""
    from pipelines.systems import metrics  # and with it OpenCV, which waits for the first job too

    figures = metrics.measure(frames)
    if not metrics.clip_available(models.settings):
        return figures
    try:
        with (
            models.lease(f"{CLIP.location}/model", working_bytes=2**28) as model,
            models.lease(f"{CLIP.location}/tokenizer") as tokenizer,
            models.lease(f"{CLIP.location}/image_processor") as processor,
        ):
            figures |= metrics.measure_with_clip(frames, task.prompt, model, tokenizer, processor)
    except Exception as error:  # the video is made: no figure is worth losing it
        log_error(error, "The figures of CLIP", [task.prompt], undone="the video has none")
    return figures


class Pace:
    """How far a whole job is, and how long it will still take.

    By this stage's own pace and what the stages to come took in the job before, or else by an estimate. What it tells
    never goes backwards: where a job turns out to be slower, the bar and the countdown wait.
    """

    AFTER = 0.1  # what comes after a stage that is known by its own pace only, as a share of that stage
    MOST = 0.98  # share that is told to be done, before all is

    def __init__(self, past: Mapping[str, float], expected: float | None = None, loading: float = 0.0):
        """`past` are the `taken` of the last job of the same kind, `expected` the seconds of the whole job without the
        `loading` of its model."""
        self.taken: dict[str, float] = {}  # seconds, by stage; each lasts until the next begins
        self._past, self._expected, self._loading = past, expected, loading
        self._started = self._told = time.perf_counter()
        self._last = Progress("", 0, 0)
        self._began = (0.0, 0)  # the time and the step at which this stage began
        self._left: float | None = None  # what was told last
        self._done = 0.0

    @property
    def working(self) -> float:
        """The seconds so far without those in which models were loaded."""
        return sum(seconds for stage, seconds in self.taken.items() if stage != LOADING)

    @property
    def loading(self) -> float:
        """The other seconds so far: until there was anything to tell, too."""
        return self._told - self._started - self.working

    def end(self) -> None:
        """The job has ended: the last stage, too."""
        self._count(time.perf_counter())

    def estimate(self, event: Progress) -> Progress:
        """`event` with the seconds left and the share done of the whole job, as far as they can be told."""
        now = time.perf_counter()
        self._count(now)
        if event.stage != self._last.stage or event.step < self._last.step:
            self._began = now, event.step
        self._last = event
        self.taken.setdefault(event.stage, 0.0)
        left = self._remaining(event, now)
        if left is not None:
            self._left = left if self._left is None else min(self._left, left)
            elapsed = now - self._started
            self._done = max(self._done, min(self.MOST, elapsed / (elapsed + left) if elapsed else 0.0))
        return replace(event, seconds_left=self._left or None, done=self._done)  # 0 left: what comes is not known

    def _count(self, now: float) -> None:
        if self._last.stage:
            self.taken[self._last.stage] += now - self._told
        self._told = now

    def _remaining(self, event: Progress, now: float) -> float | None:
        began, first = self._began
        here = None  # seconds left of this stage, by its own pace
        if event.step > first:
            here = (now - began) / (event.step - first) * (event.total - event.step)
        loading = max(0.0, self._loading - self.loading) if LONGEST.isdisjoint(self.taken) else 0.0
        if event.stage == LOADING:
            loading = max(loading, here or 0.0)
        if self._past:
            later = sum(self._past[stage] for stage in self._past.keys() - self.taken.keys() if stage != LOADING)
            if event.stage == LOADING:
                return loading + later
            if here is None:
                here = max(0.0, self._past.get(event.stage, 0.0) - self.taken[event.stage])
            return here + later + loading
        if here is not None and event.stage != LOADING and not LONGEST.isdisjoint(self.taken):
            return here + self.AFTER * (now - began + here)
        if self._expected is None:
            return None
        return loading + max(0.0, self._expected - self.working)
