"""What the miniatures are trained on, cached on disk: drawn clips, and later their latents."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from .world import Words, draw_clip, sample_words

FRAMES, SIZE = 16, 128


def draw_clips(folder: Path, count: int, seed: int) -> None:
    """Draws `count` training clips into `folder`, unless they are there.

    frames.npy uint8 [N,16,128,128,3]; figures.npy uint8 [N,16,128,16], the dancers' masks, eight pixels a byte;
    keypoints.npy float32 [N,16,18,3]; words.json, the four words of every clip.
    """
    words_file = folder / "words.json"  # written last: it says that the others are whole
    if words_file.exists() and len(json.loads(words_file.read_text())) == count:
        return
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    frames = open_memmap(folder / "frames.npy", "w+", np.uint8, (count, FRAMES, SIZE, SIZE, 3))
    figures = open_memmap(folder / "figures.npy", "w+", np.uint8, (count, FRAMES, SIZE, SIZE // 8))
    keypoints = open_memmap(folder / "keypoints.npy", "w+", np.float32, (count, FRAMES, 18, 3))
    words = []
    for index in tqdm(range(count), "drawing", mininterval=5):
        rng = np.random.default_rng((seed, index))
        clip = draw_clip(sample_words(rng), rng)
        frames[index], keypoints[index] = clip.frames, clip.keypoints
        figures[index] = np.packbits(clip.figure > 0, axis=-1)
        words.append(asdict(clip.words))
    words_file.write_text(json.dumps(words))


def load_words(folder: Path) -> list[Words]:
    return [Words(**words) for words in json.loads((folder / "words.json").read_text())]


def crops(folder: Path, count: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random square cut-outs of drawn frames, most of them around the dancer.

    Returns images float32 [count,3,size,size] in [-1,1], and the dancer's mask float32 [count,1,size,size].
    """
    frames, figures = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("frames", "figures"))
    keypoints = np.load(folder / "keypoints.npy", mmap_mode="r")
    images, masks = [], []
    for _ in range(count):
        clip, frame = rng.integers(len(frames)), rng.integers(FRAMES)
        corner = rng.integers(0, SIZE - size + 1, 2)  # x, y
        if rng.random() < 0.7:
            joint = keypoints[clip, frame, rng.integers(18), :2]
            corner = np.clip(joint - rng.uniform(0.2, 0.8, 2) * size, 0, SIZE - size).astype(int)
        x, y = corner // 8 * 8  # the grid on which latents lie
        images.append(frames[clip, frame, y : y + size, x : x + size])
        masks.append(np.unpackbits(figures[clip, frame], axis=-1)[y : y + size, x : x + size])
    images = np.stack(images).transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    return images, np.stack(masks)[:, None].astype(np.float32)


def encode_clips(folder: Path, encode: Callable[[np.ndarray], np.ndarray]) -> None:
    """Writes latents.npy float16 [N,16,2,4,16,16] (mean and standard deviation), resuming where it stopped."""
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    target = folder / "latents.npy"
    if not target.exists():
        open_memmap(target, "w+", np.float16, (len(frames), FRAMES, 2, 4, SIZE // 8, SIZE // 8))
    latents = np.load(target, mmap_mode="r+")
    for index in tqdm(range(encoded(folder), len(frames)), "encoding", mininterval=5):
        latents[index] = encode(frames[index])
        (folder / "latents.tmp").write_text(str(index + 1))
        (folder / "latents.tmp").rename(folder / "latents.count")


def encoded(folder: Path) -> int:
    """How many clips `encode_clips` has done."""
    count = folder / "latents.count"
    return int(count.read_text()) if count.exists() else 0
