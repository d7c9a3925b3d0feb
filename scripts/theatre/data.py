"""What the models are trained on, cached on disk: stills for the autoencoder, and small clips with their latents.

Whole frames of clips are not kept: they are 12 GB, and drawing one again takes 5 ms.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from scripts.miniature.world import Words, sample_words

from .world import SIZE, Scene, stage

FRAMES = 16
FACTOR = 16  # pixels a latent
CHANNELS = 12  # of the latents
SMALL = 64  # what the referee looks at
CELLS = SIZE // FACTOR

Each = Callable[[Callable, Iterable[int]], Iterator]  # `map`, or that of a pool of processes


def training_scene(seed: int, index: int) -> Scene:
    """One clip of the training set, always the same."""
    rng = np.random.default_rng((seed, index))
    return stage(sample_words(rng), rng, FRAMES)


def draw_stills(folder: Path, count: int, seed: int, each: Each = map) -> None:
    """Draws `count` frames of as many clips into `folder`, unless they are there.

    stills.npy uint8 [N,256,256,3]; masks.npy uint8 [N,256,32], the dancers' masks, eight pixels a byte; figures.npy
    and words.json as `draw_clips` writes them, for clips of one frame.
    """
    if _drawn(folder, count):
        return
    stills = open_memmap(folder / "stills.npy", "w+", np.uint8, (count, SIZE, SIZE, 3))
    masks = open_memmap(folder / "masks.npy", "w+", np.uint8, (count, SIZE, SIZE // 8))
    figures = open_memmap(folder / "figures.npy", "w+", np.uint8, (count, 1, 32, 32))
    words = []
    drawing = tqdm(each(partial(_still, seed), range(count)), "drawing stills", count, mininterval=10)
    for index, (still, mask, scene_words) in enumerate(drawing):
        stills[index] = still
        masks[index] = np.packbits(mask > 0, axis=-1)
        figures[index] = cv2.resize(mask, (32, 32), interpolation=cv2.INTER_AREA)
        words.append(scene_words)
    _write(folder / "words.json", json.dumps(words))


def _still(seed: int, index: int) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    rng = np.random.default_rng((seed, 1, index))
    scene = stage(sample_words(rng), rng)
    return *scene.draw(int(rng.integers(FRAMES))), asdict(scene.words)


def crops(folder: Path, count: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random square cut-outs of stills, most of them around the dancer.

    Returns images float32 [count,3,size,size] in [-1,1], and the dancer's mask float32 [count,1,size,size].
    """
    stills, packed = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("stills", "masks"))
    images, masks = [], []
    for still in rng.integers(len(stills), size=count):
        mask = np.unpackbits(packed[still], axis=-1)
        corner = rng.integers(0, SIZE - size + 1, 2)  # y, x
        if rng.random() < 0.75:
            inside = np.argwhere(mask[::4, ::4])
            point = 4 * inside[rng.integers(len(inside))]
            corner = np.clip(point - rng.uniform(0.2, 0.8, 2) * size, 0, SIZE - size).astype(int)
        y, x = corner // FACTOR * FACTOR  # the grid on which latents lie
        cut = np.s_[y : y + size, x : x + size]
        flip = rng.choice((-1, 1))
        images.append(stills[still][cut][:, ::flip])
        masks.append(mask[cut][:, ::flip])
    images = np.stack(images).transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    return images, np.stack(masks)[:, None].astype(np.float32)


def draw_clips(folder: Path, count: int, seed: int, each: Each = map) -> None:
    """Draws `count` training clips into `folder`, unless they are there.

    small.npy uint8 [N,16,64,64,3]; figures.npy uint8 [N,16,32,32], how much of each cell the dancer covers, 255 for
    all; keypoints.npy float32 [N,16,18,3]; words.json, the four words of every clip.
    """
    if _drawn(folder, count):
        return
    small = open_memmap(folder / "small.npy", "w+", np.uint8, (count, FRAMES, SMALL, SMALL, 3))
    figures = open_memmap(folder / "figures.npy", "w+", np.uint8, (count, FRAMES, 32, 32))
    keypoints = open_memmap(folder / "keypoints.npy", "w+", np.float32, (count, FRAMES, 18, 3))
    words = []
    drawing = tqdm(each(partial(_small_clip, seed), range(count)), "drawing clips", count, mininterval=10)
    for index, (frames, masks, joints, scene_words) in enumerate(drawing):
        small[index], figures[index], keypoints[index] = frames, masks, joints
        words.append(scene_words)
    _write(folder / "words.json", json.dumps(words))


def _small_clip(seed: int, index: int) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray, dict[str, str]]:
    scene = training_scene(seed, index)
    drawn = [scene.draw(frame) for frame in range(FRAMES)]
    frames = [cv2.resize(image, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for image, _ in drawn]
    masks = [cv2.resize(mask, (32, 32), interpolation=cv2.INTER_AREA) for _, mask in drawn]
    return frames, masks, scene.keypoints(), asdict(scene.words)


def whole_clip(seed: int, index: int) -> np.ndarray:
    """The frames of a training clip, uint8 [1,16,256,256,3]."""
    scene = training_scene(seed, index)
    return np.stack([scene.draw(frame)[0] for frame in range(FRAMES)])[None]


def _drawn(folder: Path, count: int) -> bool:
    """Whether `count` clips lie in `folder`; makes the folder if not. The words are written last."""
    if (folder / "words.json").exists() and len(load_words(folder)) == count:
        return True
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    return False


def load_words(folder: Path) -> list[Words]:
    return [Words(**words) for words in json.loads((folder / "words.json").read_text())]


def encode(
    folder: Path, count: int, clips: Iterable[np.ndarray], posterior: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Writes latents.npy float16 [N,F,2,12,16,16], mean and standard deviation, for clips up to the number `count`.

    `clips` are those from the number `encoded` on, a few at a time: frames uint8 [n,F,256,256,3]. `posterior` encodes
    frames [n*F,256,256,3]. What was encoded when it was stopped is kept.
    """
    target = folder / "latents.npy"
    if not target.exists():
        frames = np.load(folder / "figures.npy", mmap_mode="r").shape[:2]
        open_memmap(target, "w+", np.float16, (*frames, 2, CHANNELS, CELLS, CELLS))
    latents = np.load(target, mmap_mode="r+")
    done = encoded(folder)
    with tqdm(total=count, initial=done, desc=f"encoding {folder.name}", mininterval=10) as bar:
        for few in clips:
            found = posterior(few.reshape(-1, *few.shape[2:]))
            latents[done : done + len(few)] = found.reshape(*few.shape[:2], *found.shape[1:])
            done += len(few)
            _write(folder / "latents.count", str(done))
            bar.update(len(few))


def encoded(folder: Path) -> int:
    """How many clips `encode` has done."""
    count = folder / "latents.count"
    return int(count.read_text()) if count.exists() else 0


def _write(file: Path, text: str) -> None:
    """At once: a file that is there is whole."""
    file.with_suffix(".tmp").write_text(text)
    file.with_suffix(".tmp").rename(file)
