"""The whole path of a dance clip: does the dancer follow, how fast are people found, and does LiteRT find the same?

    python -m scripts.benchmark dance                                  # built-in motions, clips of the repository
    python -m scripts.benchmark dance CLIP... --sheet outside/sheet.png
    python -m scripts.benchmark dance CLIP... --litert FOLDER          # with the unpacked wheel of MediaPipe 0.10.21

A clip goes the way that a visitor's goes: detection by "auto", tracking, the dancer's own proportions, the built-in
model with its defaults. The dancer's joints in the result, as the detector of drawn figures reads them, are held
against the skeletons that drove it.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import cv2
import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment

from pipelines.catalog import CATALOG, find, motions
from pipelines.media import measuring, uploads, video
from pipelines.models.manager import ModelManager
from pipelines.pose_tasks import FindPoses
from pipelines.poses import blazepose, detection
from pipelines.poses.blazepose import BlazePose
from pipelines.poses.keypoints import Poses
from pipelines.poses.pose_sequence import SIDE, PoseSequence
from pipelines.poses.search import search
from pipelines.settings import Settings
from pipelines.systems import followyourpose
from pipelines.tasks import PoseToVideo
from scripts.convert_blazepose import PARTS
from scripts.miniature.scoring import finish

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL, PROMPT, SEED = "miniature-followyourpose", "a person in red dancing on the beach", 7
OWN = (  # whose licence lets their pictures stand in the repository: motions, and clips that the app itself drew
    "wave",
    "kick",
    *(str(ROOT / "assets" / "examples" / f"{name}.mp4") for name in ("woman", "bear")),
)
REACH = 0.1  # of the body's height: a joint that is nearer is where it should be
ENOUGH = 8  # joints of a person whose height is told by them
HD = 1280, 720
LEAST, MOST = 40, 96  # frames of a clip whose detection is timed
REPEATS = 12
COLUMNS, CELL = 6, 128  # of a contact sheet: frames of a clip, and pixels of one


@dataclass(frozen=True)
class Danced:
    name: str
    sequence: PoseSequence
    frames: np.ndarray  # the result, uint8 [F, H, W, 3]
    right: int  # joints that are where they should be
    there: int  # joints of the skeletons
    seconds: float

    @property
    def share(self) -> float:
        return self.right / max(self.there, 1)

    def __str__(self) -> str:
        facts = self.sequence.facts["poses"]
        dancers = self.sequence.poses.joints.shape[1]
        return (
            f"PCK {REACH:g}: {self.share:.1%} ({self.right} of {self.there} joints of {dancers} in {facts['frames']} "
            f"frames; {facts['origin']}; {self.seconds:.1f} s)"
        )


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Lets the dancer follow each of the clips, which are files or names of motions, and returns the table."""
    models = ModelManager(CATALOG, Settings(device=options.device))
    rows = [("machine", f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"), ("model", f"{MODEL}, seed {SEED}")]
    asked = {name: value for name in ("frames", "steps") if (value := getattr(options, name)) is not None}
    danced = []
    for clip in options.clips or OWN:
        danced.append(dance(clip, models, **asked))
        rows.append((danced[-1].name, str(danced[-1])))
    rows.append(("mean of these", f"PCK {REACH:g}: {np.mean([one.share for one in danced]):.1%}"))
    for clip in options.clips:
        if clip not in motions():
            rows += _of_detection(Path(clip), models, options.litert)
    if options.sheet:
        Image.fromarray(sheet(danced)).save(options.sheet)
        rows.append(("contact sheet", str(options.sheet)))
    return rows


def dance(clip: str, models: ModelManager, **settings: int) -> Danced:
    """The dancer follows a clip or, by its name, a motion, with these `settings` in place of defaults.

    Raises ValueError as followyourpose.generate does, and where a clip's skeletons have no joints.
    """
    motion = clip in motions()
    settings |= {"motion": clip} if motion else {"clip": "0" * 32}
    task = PoseToVideo.for_model(find(MODEL), PROMPT, SEED, **settings)
    kept: list[PoseSequence] = []
    began = time.perf_counter()
    frames, _ = finish(followyourpose.generate(task, models, None if motion else Path(clip), follow=kept.append))
    seconds, (sequence,) = time.perf_counter() - began, kept
    if sequence.poses is None:
        raise ValueError(f"{clip} shows skeletons, whose joints are not known: there is nothing to compare with.")
    found, _ = finish(detection.find(frames, task.fps, detection.DRAWN, models))
    right = hits(found, sequence.poses)
    return Danced(Path(clip).stem, sequence, frames, int((right == 1).sum()), int((right >= 0).sum()), seconds)


def hits(found: Poses, wanted: Poses) -> np.ndarray:
    """Of each joint of `wanted`: 1 if it was found within REACH of its body's height, 0 if not, -1 where it is missing
    or outside the picture. [F, P, 18]

    In each frame everybody wanted is compared with one of those found there, in the way in which most joints are right.
    A body's height is the median over the frames of how far its joints are apart from top to bottom.
    """
    x, y = wanted.joints[..., 0], wanted.joints[..., 1]
    drawn = wanted.seen & (x > -0.5) & (y > -0.5) & (x < wanted.width - 0.5) & (y < wanted.height - 0.5)
    near = REACH * np.array([_height(person) for person in wanted.joints.transpose(1, 0, 2, 3)])  # [P]
    right = np.where(drawn, 0, -1)
    for number, (mine, theirs) in enumerate(zip(wanted.joints, found.joints, strict=True)):
        apart = np.hypot(*(mine[:, None] - theirs)[..., :2].transpose(3, 0, 1, 2))  # (P, Q, 18)
        hit = (apart < near[:, None, None]) & (theirs[..., 2] > 0) & drawn[number][:, None]
        for one, other in zip(*linear_sum_assignment(hit.sum(axis=2), maximize=True), strict=True):
            right[number, one] += hit[one, other]
    return right


def _height(person: np.ndarray) -> float:
    """Of a person [F, 18, 3], in pixels; 0 where too little is to be seen of them."""
    tall = [np.ptp(pose[pose[:, 2] > 0, 1]) for pose in person if (pose[:, 2] > 0).sum() >= ENOUGH]
    return float(np.median(tall)) if tall else 0.0


# Detection


class Clock:
    """Seconds since it was made, and seconds of processors that this process and its children took since then."""

    def __init__(self) -> None:
        self.began, self.worked = time.perf_counter(), sum(os.times()[:4])

    def a_frame(self, frames: int) -> str:
        seconds, worked = time.perf_counter() - self.began, sum(os.times()[:4]) - self.worked
        return f"{frames / seconds:.1f} frames/s, {1000 * worked / frames:.0f} ms of one core a frame"


def _of_detection(clip: Path, models: ModelManager, litert: Path | None) -> Iterator[tuple[str, str]]:
    settings = models.settings
    measured = measuring.measure(clip, settings)
    count = min(measured.clip.frames, MOST)
    with TemporaryDirectory(prefix="marionette-") as folder:
        large = Path(folder) / "720p.mp4"
        frames = uploads.frames(clip, settings, frames=count, side=min(max(HD), settings.upload_side))
        video.write(at_720p(frames), large, measured.clip.fps)
        whole = FindPoses.of(clip="0" * 32)
        finish(search(FindPoses.of(clip="0" * 32, end=0.5), models, large))  # to load the networks
        clock = Clock()
        finish(search(whole, models, large))
        told = [("from the file to the tracks", clock.a_frame(count))]
        frames = uploads.frames(large, settings, frames=count, side=SIDE)
    fps = measured.clip.fps
    with models.lease("blazepose/detector") as detector, models.lease("blazepose/landmarks") as landmarks:
        networks, clock = BlazePose(detector, landmarks), Clock()
        finish(blazepose.find(frames, fps, networks))
        told.append(("people in frames in memory", clock.a_frame(count)))
        usual = torch.get_num_threads()
        torch.set_num_threads(1)  # as each of the two threads has it
        regions = networks.regions(frames[0], closely=True)
        for what, work in (
            ("one person in one frame, one thread", lambda: networks.people(frames[0], regions[:1])),
            ("one look at a frame, one thread", lambda: networks.regions(frames[0])),
        ):
            clock = Clock()
            for _ in range(REPEATS):
                work()
            told.append((what, clock.a_frame(REPEATS)))
        torch.set_num_threads(usual)
        for what, value in told if count >= LEAST else ():
            yield f"{clip.stem}, 720p: {what}", value
        yield from ((f"{clip.stem}: {what}", value) for what, value in _beside_litert(frames, fps, networks, litert))


def at_720p(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [F, H, W, 3] as [F, 720, 1280, 3], with black beside."""
    (wide, high), (_, height, width, _) = HD, frames.shape
    scale = min(wide / width, high / height)
    size = round(width * scale), round(height * scale)
    large = np.zeros((len(frames), high, wide, 3), np.uint8)
    left, top = (wide - size[0]) // 2, (high - size[1]) // 2
    for frame, place in zip(frames, large, strict=True):
        place[top : top + size[1], left : left + size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return large


class LiteRT(BlazePose):
    """What the published files say by LiteRT, which is no requirement of the app."""

    def __init__(self, wheel: Path) -> None:
        """Raises ModuleNotFoundError without LiteRT, and ValueError without the files in the unpacked wheel."""
        from ai_edge_litert.interpreter import Interpreter

        networks = [Interpreter(str(wheel / name), num_threads=1) for name, *_ in PARTS.values()]
        for network in networks:
            network.allocate_tensors()
        super().__init__(*networks)

    def _ask(self, network, pictures: torch.Tensor, scale) -> tuple[torch.Tensor, torch.Tensor]:
        place, names = network.get_input_details()[0]["index"], ("Identity", "Identity_1")
        outputs = {each["name"]: each["index"] for each in network.get_output_details()}
        found = []
        for picture in pictures:
            network.set_tensor(place, scale(picture[None].float()).numpy())
            network.invoke()
            found.append([torch.from_numpy(network.get_tensor(outputs[name]).copy()) for name in names])
        first, second = (torch.cat(each) for each in zip(*found, strict=True))
        if network is self._detector:
            return first, second.flatten(1)
        return first.reshape(len(first), -1, 5), second.flatten()


def _beside_litert(
    frames: np.ndarray, fps: float, networks: BlazePose, wheel: Path | None
) -> Iterator[tuple[str, str]]:
    if wheel is None:
        return
    try:
        other = LiteRT(wheel)
    except ModuleNotFoundError:
        yield "agreement with LiteRT", "not measured: ai-edge-litert is not installed"
        return

    def alone(any_networks: BlazePose) -> list[np.ndarray]:
        people = [any_networks.people(frame, any_networks.regions(frame)) for frame in frames]
        return [np.array([one.joints for one in each]).reshape(-1, 18, 3) for each in people]

    mine, theirs = finish(blazepose.find(frames, fps, networks)), finish(blazepose.find(frames, fps, other))
    single = alone(other)
    yield "agreement with LiteRT, followed by both", agreement(mine, theirs)
    yield "agreement with LiteRT, each frame by itself", agreement(alone(networks), single)
    yield "followed, against LiteRT frame by frame", agreement(mine, single)
    yield "LiteRT followed, against LiteRT frame by frame", agreement(theirs, single)


def agreement(mine: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> str:
    """Of the joints that both see of `theirs`, people [P, 18, 3] of each frame, how many are within REACH of the
    body's height in that frame; each is compared with whoever of `mine` is nearest."""
    near, both, missed = 0, 0, 0
    for ours, others in zip(mine, theirs, strict=True):
        for person in others:
            seen = person[:, 2] > 0
            if seen.sum() < ENOUGH:
                continue
            there = seen & (ours[..., 2] > 0)  # (P, 18)
            apart = np.where(there, np.hypot(*(ours - person)[..., :2].transpose(2, 0, 1)), 0)
            means = apart.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
            means[~there.any(axis=1)] = np.inf
            if not np.isfinite(means).any():
                missed += seen.sum()
                continue
            best = means.argmin()
            near += (apart[best][there[best]] < REACH * np.ptp(person[seen, 1])).sum()
            both += there[best].sum()
            missed += (seen & ~there[best]).sum()
    return f"{near / max(both, 1):.1%} of {both} joints; {missed} more are seen by the other only"


# A look at it


def sheet(danced: Sequence[Danced]) -> np.ndarray:
    """The source, where there is one, the skeletons and the result of each, a few frames: uint8 [H, W, 3]."""
    rows = []
    for one in danced:
        at = np.linspace(0, len(one.frames) - 1, COLUMNS).round().astype(int)
        shown = [films for films in (one.sequence.source, one.sequence.pictures, one.frames) if films is not None]
        rows += [np.hstack([_cell(frames[number]) for number in at]) for frames in shown]
        rows.append(np.full((4, COLUMNS * CELL, 3), 255, np.uint8))
    return np.vstack(rows[:-1])


def _cell(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    size = max(1, round(CELL * width / max(width, height))), max(1, round(CELL * height / max(width, height)))
    cell = np.full((CELL, CELL, 3), 255, np.uint8)
    top, left = (CELL - size[1]) // 2, (CELL - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return cell
