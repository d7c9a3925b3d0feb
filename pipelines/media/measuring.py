"""What is measured of a clip that somebody uploaded: size, rate, length, codec, colours. Most of it is not decoded."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from pipelines.media import colour
from pipelines.media.opening import (
    CODECS,
    KINDS,
    ROUNDED,
    SAVE_AGAIN,
    SMALLER,
    SOUND_CODECS,
    Upload,
    check_side,
    opened,
    read,
    run,
)
from pipelines.messages import said
from pipelines.settings import Settings

MAX_FPS = 1000
PREVIEW_FPS = 60  # at most, of what a browser is shown of it
PIXELS = 135_000_000  # that a slow machine decodes and shrinks in a second: a minute of 3840x2160 at 30 fps takes two
# Times a pixel counts: a few bytes make many frames of these, and people's are small.
DEARER = {"gif": 16, "webp_anim": 16, "apng": 16}


@dataclass(frozen=True)
class Clip:
    """What was measured of an upload: the part that is read, as frames at a constant rate, counted from 0."""

    width: int  # pixels, upright and square as it is to be seen
    height: int
    fps: float  # how fast pictures follow each other where they do; a frame that stays longer counts several times
    seconds: float  # at most the setting upload_seconds
    frames: int  # fps * seconds
    codec: str  # "H.264"
    kind: str  # "MP4 or MOV"
    sound: bool  # that can be read
    cut: bool  # whether the file goes on after `seconds`


@dataclass(frozen=True)
class Measured:
    """All that reading an upload needs to know of it. Who keeps it need not measure the same file again."""

    clip: Clip
    start: Fraction  # seconds from the beginning of the file to that of the clip
    pixels: colour.Pixels
    most: int  # pixels of a frame: a clip may grow midway, but not beyond what all its frames may have together


def inspect(path: str | Path, settings: Settings) -> Clip:
    """Measures the upload `path`: counts its compressed frames, and decodes the first of them only.

    Raises ValueError, in words for the person who uploaded it, where it is no clip that can be used.
    """
    return measure(path, settings).clip


def measure(path: str | Path, settings: Settings) -> Measured:
    """As `inspect`, with what `frames`, `sound` and `normalise` need to know beside that. Two runs of ffmpeg."""
    with opened(path, settings) as upload:
        return measure_opened(upload)


def measure_opened(upload: Upload) -> Measured:
    """Reads the file once without decoding, then decodes the first frame: only that tells the size truly."""
    limit, side = upload.settings.upload_seconds, upload.settings.upload_side
    listing = read(
        upload,
        [],
        # Of moving pictures the first, which may be laid over nothing, need not count as one to begin with.
        ["-map", "0:V:0", "-c", "copy", *(["-copyinkf"] if upload.demuxer in DEARER else [])],
        ["-t", str(limit + 1), "-frames:v", str(math.ceil((limit + 1) * MAX_FPS))],
        ["-f", "framecrc", "pipe:1"],
    ).decode("ascii", "replace")
    told = dict(re.findall(r"^#(\w+) 0: (\S+)$", listing, re.MULTILINE))
    if told["codec_id"] not in CODECS:
        raise ValueError(
            said(
                "The clip's codec ({codec}) is not read here. {advice}",
                codec=told["codec_id"],
                advice=SAVE_AGAIN,
            )
        )
    width, height = map(int, told["dimensions"].split("x"))
    check_side(width, height, side)
    # Stream, decoding time, time, duration, size, checksum, flags: 2 if it is incomplete, 4 if it is not to be seen.
    packets = re.findall(r"^0, +\S+, +(-?\d+), +(\d+), +\d+, \w+(?:, F=0x(\w+))?", listing, re.MULTILINE)
    shown = {int(time): int(duration) for time, duration, flags in packets if not int(flags or "1", 16) & 6}
    if not shown:
        raise ValueError(said("There is no picture in the clip. {advice}", advice=SAVE_AGAIN))
    tick, times = Fraction(told["tb"]), sorted(shown)
    last = shown[times[-1]]
    fps = _rate(times, last, tick)
    if fps > MAX_FPS * 1.01:
        raise ValueError(
            said(
                "The clip has {fps:.0f} frames a second, and {most} are allowed. {advice}",
                fps=float(fps),
                most=MAX_FPS,
                advice=SAVE_AGAIN,
            )
        )
    seconds = (times[-1] - times[0]) * tick + (last * tick or 1 / fps)

    done = run(
        upload,
        ["-v", "info"],
        ["-map", "0:V:0", "-frames:v", "1", "-map", "0:a:0?", "-c:a", "copy", "-f", "framecrc", "pipe:1"],
    )
    first = done.stdout.decode("ascii", "replace")
    size = re.search(r"^#dimensions 0: (\d+)x(\d+)\n#sar 0: (\d+)/(\d+)$.*^0,", first, re.MULTILINE | re.DOTALL)
    if size is None:
        raise ValueError(said("The clip is damaged: not one frame can be read. {advice}", advice=SAVE_AGAIN))
    coded_width, coded_height, wide, high = map(int, size.groups())
    width, height = coded_width, coded_height
    if wide and high:  # pixels that are not square
        width = max(1, round(width * wide / high))
    check_side(width, height, side)
    # Those that are decoded, or those that are shrunk where frames that stay longer are repeated.
    work = max(len(packets), math.ceil(min(seconds, limit) * min(fps, PREVIEW_FPS)))
    most = int(PIXELS * upload.settings.upload_work_seconds / DEARER.get(upload.demuxer, 1)) // work
    if (coded_width + ROUNDED) * (coded_height + ROUNDED) > most:
        raise ValueError(
            said(
                "The clip has {work} frames of {width}x{height}, and reading them takes too long. {advice}",
                work=work,
                width=coded_width,
                height=coded_height,
                advice=SMALLER,
            )
        )
    sound = re.search(r"^#codec_id 1: (\w+)$", first, re.MULTILINE)
    clip = Clip(
        width=width,
        height=height,
        fps=float(fps),
        seconds=float(min(seconds, limit)),
        frames=max(1, round(min(seconds, limit) * fps)),
        codec=CODECS[told["codec_id"]],
        kind=KINDS[upload.demuxer],
        sound=sound is not None and sound[1] in SOUND_CODECS,
        cut=seconds > limit,
    )
    told = colour.pixels(done.stderr.decode("utf-8", "replace"))
    if told.unreadable:
        raise ValueError(
            said(
                "The clip's colours are Dolby Vision's own (profile 5), which are not read here. {advice}",
                advice=SAVE_AGAIN,
            )
        )
    return Measured(clip, times[0] * tick, told, min(most, (side + ROUNDED) ** 2))


def _rate(times: list[int], last: int, tick: Fraction) -> Fraction:
    """How many frames a second there are in a clip whose frames begin at `times`, in ticks; the last one lasts `last`.

    Pauses and stutter do not count. Times are rounded to ticks: of the rates that they allow, 30 or 29.97 is meant.
    """
    gaps = sorted(later - time for time, later in pairwise(times)) or [last]
    median = gaps[len(gaps) // 2]
    if not median:
        return Fraction(25)
    ordinary = [gap for gap in gaps if median <= 2 * gap <= 3 * median]
    rate = len(ordinary) / (sum(ordinary) * tick)
    for meant in (Fraction(round(rate)), Fraction(round(rate * 1001 / 1000) * 1000, 1001)):
        if meant and abs(len(ordinary) / meant - len(ordinary) / rate) <= tick:
            return meant
    return rate
