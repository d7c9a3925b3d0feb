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


def seen(frames: int, length: int) -> int:
    """How many frames a network computes for a video of `frames`: what windows share counts in each of them."""
    return sum(map(len, windows(frames, length)))
