"""Long videos in windows: which frames a network sees at once where a video has more than it can see. Standard library
only."""

import math

OVERLAP = 1 / 3  # of a window, at least, that the next one sees too


def windows(frames: int, length: int) -> list[range]:
    """The fewest windows of `length` frames that cover `frames`, evenly spaced, each sharing a third of its frames or
    more with the next. One, of all frames, where these are no more than `length` or where that is 0, for any number."""
    if not length or frames <= length:
        return [range(frames)]
    shared = min(max(1, math.ceil(length * OVERLAP)), length - 1)
    count = math.ceil((frames - shared) / (length - shared))
    starts = [round(number * (frames - length) / (count - 1)) for number in range(count)]
    return [range(start, start + length) for start in starts]


def latent_frames(frames: int, step: int) -> int:
    """Of so many frames, where a VAE makes one frame of latents of the first, and one of every `step` after it."""
    return (frames - 1) // step + 1


def seen(frames: int, length: int, step: int = 1) -> int:
    """How many frames a network computes for a video of `frames`: what windows share counts in each of them. Windows
    are of latents, of which each stands for `step` frames, as in `latent_frames`."""
    parts = windows(latent_frames(frames, step), latent_frames(length, step))
    return sum(step * (len(part) - 1) + 1 for part in parts)
