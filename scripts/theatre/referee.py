"""The referee of the theatre at 256x256: the miniatures' network, retrained, with this world's colours and backdrops.

Measure it with `python -m scripts.theatre.referee`; `scripts/train_theatre.py` trains it.
"""

import argparse
from pathlib import Path

import numpy as np

from scripts.miniature import referee

from .training.checkpoints import restore
from .world import draw_backdrop, draw_clip

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "theatre"

# What a dancer shows besides its clothes: ink, skin, hair, trousers, shoes, steel, screen, fur, suit, helmet, visor.
_NOT_CLOTHES = (
    (38, 32, 48), (250, 214, 182), (230, 176, 136), (194, 134, 96), (148, 98, 72), (150, 88, 48), (62, 46, 52),
    (84, 52, 44), (50, 40, 46), (72, 80, 118), (58, 64, 94), (128, 70, 62), (176, 196, 212), (150, 166, 180),
    (104, 124, 148), (46, 56, 88), (156, 246, 232), (156, 104, 68), (131, 87, 57), (238, 208, 166), (198, 204, 216),
    (166, 171, 181), (236, 238, 244), (44, 60, 104), (150, 190, 232), (122, 128, 150))  # fmt: skip


class Referee(referee.Referee):
    """Judges clips of 8 to 24 frames at 8 frames a second."""

    not_clothes = _NOT_CLOTHES

    @classmethod
    def load(cls, folder: Path = FOLDER) -> "Referee":
        reader = referee.Reader()
        restore(folder, "referee", reader)
        return cls(reader)

    def backdrops(self) -> np.ndarray:
        return referee.backdrops(draw_backdrop, 80)


class Lessons(referee.Lessons):
    """The training clips of data.draw_clips, which are kept at the size that the network looks at."""

    @staticmethod
    def look(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("small", "figures"))


def sharpness(frames: np.ndarray) -> float:
    """Mean absolute difference of neighbouring pixels of uint8 [F,H,W,3], in levels of 255."""
    across, down = (np.abs(np.diff(frames.astype(np.int16), axis=axis)).mean() for axis in (2, 1))
    return float(across + down)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--clips", type=int, default=300, help="freshly drawn clips to examine it on")
    arguments = parser.parse_args()
    judge = Referee.load(arguments.folder)
    for name, shares in referee.examine(judge, arguments.clips, draw=draw_clip).items():
        print(name, "  ".join(f"{kind} {share:.2%}" for kind, share in shares.items()))


if __name__ == "__main__":
    main()
