"""What the scripts share that judge generated videos: with the detector of joints, and by how alike frames are."""

import argparse
import json
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.models.manager import ModelManager
from pipelines.poses import detection, tracking


def add_options(parser: argparse.ArgumentParser, count: int, out: str) -> None:
    parser.add_argument("--count", type=int, default=count, help="of clips to judge")
    parser.add_argument("--shard", default="0/1", help="I/N: judge every Nth from the Ith on")
    parser.add_argument("--out", type=Path, default=Path(out), help="what is in this folder is not done again")


def score(
    judge: Callable[[int], Iterable[dict]], table: Callable[[list[dict]], str], options: argparse.Namespace
) -> None:
    """Writes what `judge(index)` yields for each index to the folder OUT, and prints the table of all that lies there.

    Several processes can share the work, each with a shard of its own.
    """
    shard, shards = map(int, options.shard.split("/"))
    options.out.mkdir(parents=True, exist_ok=True)

    def records() -> list[dict]:
        files = sorted(options.out.glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    done = {row["index"] for row in records()}
    with (options.out / f"{shard}.jsonl").open("a") as file:
        for index in tqdm([one for one in range(shard, options.count, shards) if one not in done], mininterval=10):
            rows = [{"index": index, **row} for row in judge(index)]
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
    print(table(records()))


def finish(events: Generator) -> Any:
    """What the generator returns."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def joints(frames: np.ndarray, models: ModelManager) -> np.ndarray:
    """What the built-in detector finds of the dancer, [F,18,3]: zeros where that is nobody."""
    try:
        poses, _ = finish(detection.extract(frames, 8, "miniature-openpose", models))
        return tracking.track(poses).joints[:, 0]
    except ValueError:
        return np.zeros((len(frames), 18, 3))


def hits(found: np.ndarray, wanted: np.ndarray, figures: np.ndarray) -> np.ndarray:
    """Of each joint: 1 if found within a tenth of the figure's height, 0 if not, NaN where it was not to be seen.

    found and wanted [F,18,3]; figures [F,H,W], above 0 where the dancer is: the height is the median of all frames.
    """
    rows = [np.flatnonzero(figure.any(axis=1)) for figure in figures]
    height = np.median([row[-1] - row[0] + 1 for row in rows])
    right = np.hypot(*(found - wanted)[..., :2].transpose(2, 0, 1)) <= 0.1 * height
    return np.where(wanted[..., 2] > 0, right & (found[..., 2] > 0), np.nan)


def consistency(frames: np.ndarray) -> float:
    """The mean correlation of each frame's pixels with the next one's."""
    return float(np.diagonal(_correlations(frames), 1).mean())


def likeness(frames: np.ndarray) -> float:
    """The mean correlation of each frame's pixels with those of every other."""
    return float(_correlations(frames)[np.triu_indices(len(frames), 1)].mean())


def _correlations(frames: np.ndarray) -> np.ndarray:
    """Of each frame's pixels with each other's, [F,F]."""
    flat = frames.reshape(len(frames), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return flat @ flat.T
