"""The referee: says which words a clip shows, and how still its still parts are. It shares no weights with a generator.

Colour and place are measured on pixels, against the palette and against drawn backdrops. Character and action are read
by a small network of its own, trained on drawn clips that are blurred, tinted and soiled as a generator's might be; it
also finds the dancer. Train it with `python -m scripts.miniature.referee --train`.
"""

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from .data import load_words
from .figures import RGB
from .scenery import draw_scenery
from .world import ACTIONS, CHARACTERS, COLOURS, PLACES, Clip, Words, draw_clip, sample_words

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "miniature" / "referee"
SIZE = 64  # the network looks at frames of 64 x 64
_REACH = 12  # pixels of 128: farther from the dancer its shadow never falls

# What a dancer shows besides its clothes: skin, hair, trousers, metal, fur, suit, helmet, visor (figures.py).
_NOT_CLOTHES = (
    (246, 208, 176), (226, 172, 132), (190, 130, 92), (146, 98, 72), (112, 66, 42), (52, 40, 44), (58, 62, 84),
    (122, 142, 164), (102, 119, 138), (72, 86, 106), (214, 250, 240), (140, 92, 60), (116, 76, 50), (224, 190, 148),
    (178, 184, 196), (150, 155, 165), (216, 220, 228), (42, 54, 88), (132, 166, 206), (112, 118, 136))  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    words: Words  # what the clip shows
    confidence: dict[str, float]  # by kind of word, 0 to 1
    flicker: float  # levels of 255 by which the still parts change from frame to frame
    motion: float  # the same for the parts that the dancer passes


class Referee:
    """Judges clips of 8 to 24 frames at 8 frames a second."""

    not_clothes = _NOT_CLOTHES

    def __init__(self, reader: "Reader") -> None:
        self.reader = reader.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: Path = FOLDER) -> "Referee":
        reader = Reader()
        weights = load_file(folder / "referee.safetensors")
        reader.load_state_dict({name: weight.float() for name, weight in weights.items()})
        return cls(reader)

    def judge(self, frames: np.ndarray) -> Verdict:
        """What the clip uint8 [F,H,W,3] shows. Characters and actions it can't tell get a low confidence."""
        character, action, presence = self.read(frames)
        figure = presence > 0.5
        place, place_confidence = measure_place(frames, figure, self.backdrops())
        colour, colour_confidence = measure_colour(frames, figure, self.not_clothes)
        still = still_parts(presence > 0.1)  # a thin hand that the network doubts is no still part
        return Verdict(
            Words(CHARACTERS[character.argmax()], colour, place, ACTIONS[action.argmax()]),
            {
                "character": float(character.max()),
                "colour": colour_confidence,
                "place": place_confidence,
                "action": float(action.max()),
            },
            flicker(frames, still),
            flicker(frames, ~still),
        )

    def backdrops(self) -> np.ndarray:
        """Drawn backdrops of every place, float32 [6,N,16,16,3]."""
        return backdrops(draw_scenery)

    def read(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probabilities of the characters [4], the actions [6], and of each pixel to be the dancer's [F,H,W]."""
        small = np.stack([cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for frame in frames])
        character, action, figure = self.reader(as_input(torch.from_numpy(small)[None]))
        size = frames.shape[2:0:-1]
        presence = [cv2.resize(mask, size, interpolation=cv2.INTER_LINEAR) for mask in figure[0].sigmoid().numpy()]
        return character[0].softmax(-1).numpy(), action[0].softmax(-1).numpy(), np.stack(presence)


# Pixels.


def still_parts(figure: np.ndarray) -> np.ndarray:
    """Where neither the dancer, bool [F,H,W], nor its shadow ever is: bool [H,W]."""
    around = np.ones((2 * _REACH * figure.shape[1] // 128 + 1,) * 2, np.uint8)
    return cv2.dilate(figure.any(axis=0).astype(np.uint8), around) == 0


def flicker(frames: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute change from frame to frame, in levels of 255, of uint8 [F,H,W,3] within bool [H,W]."""
    inside = frames[:, where].astype(np.int16)  # (F, pixels, 3)
    return float(np.abs(np.diff(inside, axis=0)).mean()) if inside.size else 0.0


def measure_colour(frames: np.ndarray, figure: np.ndarray, others: Sequence[RGB]) -> tuple[str, float]:
    """The palette colour that most of the dancer's pixels are nearest to, and its share of all coloured ones.

    `others` are the colours that the dancer shows besides those of the clothes.
    """
    palette = np.concatenate([_lab(np.array(list(COLOURS.values())) * shade) for shade in (1.0, 0.82)])  # (16, 3)
    references = np.concatenate([palette, _lab(np.array(others))])
    if not figure.any():
        return next(iter(COLOURS)), 0.0
    pixels = _lab(frames[figure])  # (pixels, 3)
    nearest = _squares(pixels, references).argmin(axis=1)
    counts = np.bincount(nearest[nearest < len(palette)] % len(COLOURS), minlength=len(COLOURS))
    return list(COLOURS)[counts.argmax()], float(counts.max() / max(counts.sum(), 1))


def measure_place(frames: np.ndarray, figure: np.ndarray, drawn: np.ndarray) -> tuple[str, float]:
    """The place with the backdrop of `drawn` nearest to the clip's, and how much farther the next is (0 to 1)."""
    visible = 1 - figure[..., None].astype(np.float32)  # (F, H, W, 1)
    seen = _shrink(visible.mean(axis=0))  # (16, 16): how often
    backdrop = _shrink((frames * visible).mean(axis=0)) / np.maximum(seen, 1e-3)[..., None]
    differences = np.minimum(np.abs(backdrop - drawn), 60).mean(axis=-1)  # (6, N, 16, 16)
    distances = (differences * seen).sum(axis=(2, 3)).min(axis=1)  # (6)
    first, second = np.sort(distances)[:2]
    return PLACES[distances.argmin()], float(1 - first / second)


@functools.cache
def backdrops(draw: Callable[[str, np.random.Generator, int], np.ndarray], count: int = 40) -> np.ndarray:
    """What `draw(place, rng, size)` draws of every place, float32 [6,count,16,16,3]."""
    return np.stack(
        [
            [_shrink(draw(place, np.random.default_rng(seed), 128).astype(np.float32)) for seed in range(count)]
            for place in PLACES
        ]
    )


def _shrink(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA)


def _lab(colours: np.ndarray) -> np.ndarray:
    """RGB [N,3] in levels to CIE Lab, lightness counting less: a generator gets it wrong before the hue."""
    lab = cv2.cvtColor(colours[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return lab * np.float32((0.7, 1, 1))


def _squares(pixels: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Squared distances [P,R] of vectors [P,3] to vectors [R,3], up to a constant for each of the first."""
    return (references**2).sum(axis=1) - 2 * pixels @ references.T


# The network.


def as_input(frames: Tensor) -> Tensor:
    """uint8 [B,F,64,64,3] to float [B,F,3,64,64] in [-1,1]."""
    return frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1


class Reader(nn.Module):
    """Clips [B,F,3,64,64] in [-1,1] to logits: of the character [B,4], the action [B,6], the dancer [B,F,32,32]."""

    def __init__(self) -> None:
        super().__init__()
        self.by_2 = _convolution(3, 16, 5)
        self.by_4 = _convolution(16, 32, 3)
        self.by_8 = _convolution(32, 64, 3)
        self.by_16 = _convolution(64, 64, 3)
        self.join = nn.Conv2d(32 + 64, 24, 1)
        self.figure = nn.Conv2d(24, 4, 3, padding=1)
        self.frame = nn.Linear(64 * 4 * 4, 96)
        self.before_after = nn.ModuleList(nn.Conv1d(96, 96, 3, padding=gap, dilation=gap) for gap in (1, 2))
        self.character = nn.Linear(96, len(CHARACTERS))
        self.action = nn.Linear(2 * 96, len(ACTIONS))

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, frames = clips.shape[:2]
        quarter = self.by_4(self.by_2(clips.flatten(0, 1)))  # (B*F, 32, 16, 16)
        eighth = self.by_8(quarter)  # (B*F, 64, 8, 8)
        joined = torch.cat([quarter, functional.interpolate(eighth, scale_factor=2)], dim=1)
        figure = functional.pixel_shuffle(self.figure(functional.silu(self.join(joined))), 2)  # (B*F, 1, 32, 32)
        frame = functional.silu(self.frame(self.by_16(eighth).flatten(1)))  # (B*F, 96)
        moments = frame.unflatten(0, (batch, frames)).transpose(1, 2)  # (B, 96, F)
        character = self.character(moments.mean(dim=2))
        for convolution in self.before_after:
            moments = moments + functional.silu(convolution(moments))
        action = self.action(torch.cat([moments.mean(dim=2), moments.amax(dim=2)], dim=1))
        return character, action, figure.unflatten(0, (batch, frames))[:, :, 0]


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Halves the sides."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2), nn.GroupNorm(8, outputs), nn.SiLU()
    )


# Its training.


class Lessons:
    """The drawn training clips of data.draw_clips, in memory at the size that the network looks at."""

    def __init__(self, folder: Path) -> None:
        self.frames, self.figures = self.look(folder)
        words = load_words(folder)
        self.characters = torch.tensor([CHARACTERS.index(each.character) for each in words])
        self.actions = torch.tensor([ACTIONS.index(each.action) for each in words])

    @staticmethod
    def look(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """Frames uint8 [N,16,64,64,3]; figures uint8 [N,16,32,32], 255 where the dancer covers the whole pixel."""
        frames, packed = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("frames", "figures"))
        small = np.empty((*frames.shape[:2], SIZE, SIZE, 3), np.uint8)
        figures = np.empty((*frames.shape[:2], 32, 32), np.uint8)
        for index in np.ndindex(*frames.shape[:2]):
            figure = np.unpackbits(packed[index], axis=-1) * np.uint8(255)
            small[index] = cv2.resize(frames[index], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            figures[index] = cv2.resize(figure, (32, 32), interpolation=cv2.INTER_AREA)
        return small, figures

    def batch(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clips of one random length [count,F,3,64,64], characters, actions, dancers [count,F,32,32] in [0,1]."""
        chosen, length = rng.integers(len(self.frames), size=count), int(rng.choice((8, 12, 16, 16)))
        clips = as_input(torch.from_numpy(self.frames[chosen, :length]))
        figures = torch.from_numpy(self.figures[chosen, :length]).float() / 255
        if rng.random() < 0.5:
            clips, figures = clips.flip(-1), figures.flip(-1)
        return clips, self.characters[chosen], self.actions[chosen], figures


def soil(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Does to clips [B,F,3,64,64] in [-1,1] what generators and codecs might: tints, blurs, blotches, noise, steps."""
    batch, frames = clips.shape[:2]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(batch, *shape, 1, 1, generator=generator) * (high - low) + low

    clips = ((clips + 1) / 2).clamp(1e-3, 1) ** uniform(0.75, 1.33, 1, 1)
    clips = (2 * clips - 1) * uniform(0.8, 1.15, 1, 3) + uniform(-0.1, 0.1, 1, 3)
    coarse = torch.randn(batch * frames, 3, 8, 8, generator=generator)
    blotches = functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear").view_as(clips)
    clips = clips + blotches * uniform(-0.1, 0.1, 1, 1).relu()
    flat = clips.flatten(0, 1)
    for index, kind in enumerate(torch.rand(batch, generator=generator).tolist()):
        own = slice(index * frames, (index + 1) * frames)
        if kind < 0.3:  # lose detail
            side = int(torch.randint(24, 56, (), generator=generator))
            small = functional.interpolate(flat[own], size=(side, side), mode="area")
            flat[own] = functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear")
        elif kind < 0.6:  # blur
            width = float(torch.rand((), generator=generator)) * 0.9 + 0.3
            taps = torch.exp(-0.5 * (torch.arange(-2, 3) / width) ** 2)
            taps = taps / taps.sum()
            kernel = (taps[:, None] * taps).expand(3, 1, 5, 5)
            flat[own] = functional.conv2d(flat[own], kernel, padding=2, groups=3)
        elif kind < 0.7:  # few levels
            flat[own] = (flat[own] * 8).round() / 8
    clips = flat.view_as(clips)
    return clips + torch.randn(clips.shape, generator=generator) * uniform(-0.1, 0.15, 1, 1).relu()


def train_referee(work: Path, folder: Path = FOLDER, steps: int = 2500, batch: int = 8, seed: int = 2026) -> None:
    """Trains the network on the clips in `work/clips` and writes referee.safetensors to `folder`.

    Goes on from `work/referee.pt` if that is there. About 8 minutes on one core.
    """
    torch.manual_seed(seed)
    reader = Reader().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(reader.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    parts = {"reader": reader, "optimizer": optimizer, "schedule": schedule}
    checkpoint, start = work / "referee.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        start = state["step"]
    lessons = Lessons(work / "clips") if start < steps else None
    rng, generator = np.random.default_rng((seed, start)), torch.Generator().manual_seed(seed + start)
    saved = time.monotonic()
    bar = tqdm(range(start, steps), "referee", initial=start, total=steps, mininterval=10)
    for step in bar:
        clips, *truth = lessons.batch(batch, rng)
        character, action, figure = reader(soil(clips, generator))
        loss = (
            functional.cross_entropy(character, truth[0])
            + functional.cross_entropy(action, truth[1])
            + functional.binary_cross_entropy_with_logits(figure, truth[2])
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if time.monotonic() - saved > 60 or step + 1 == steps:
            state = {name: part.state_dict() for name, part in parts.items()} | {"step": step + 1}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
            saved = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.half().contiguous() for name, weight in reader.state_dict().items()}
    save_file(weights, folder / "referee.safetensors")


def examine(
    referee: Referee, clips: int, seed: int = 1, draw: Callable[[Words, np.random.Generator], Clip] = draw_clip
) -> dict[str, dict[str, float]]:
    """Shares of right verdicts on freshly drawn clips, by what was done to them and by kind of word."""
    rng = np.random.default_rng(seed)
    right = {"clean": [], "blurred": []}
    for _ in tqdm(range(clips), "examining", mininterval=10):
        clip = draw(sample_words(rng, None), rng)
        sigma = clip.frames.shape[1] / 128
        blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in clip.frames])
        noisy = np.clip(blurred + rng.normal(0, 6, blurred.shape), 0, 255).astype(np.uint8)
        for name, frames in (("clean", clip.frames), ("blurred", noisy)):
            words = referee.judge(frames).words
            right[name].append(np.array(astuple(words)) == astuple(clip.words))
    kinds = ("character", "colour", "place", "action")
    return {name: dict(zip(kinds, np.mean(rows, axis=0).tolist(), strict=True)) for name, rows in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("training"))
    parser.add_argument("--clips", type=int, default=1000, help="fresh clips to examine it on")
    arguments = parser.parse_args()
    if arguments.train:
        train_referee(arguments.work)
    for name, shares in examine(Referee.load(), arguments.clips).items():
        print(name, "  ".join(f"{kind} {share:.2%}" for kind, share in shares.items()))


if __name__ == "__main__":
    main()
