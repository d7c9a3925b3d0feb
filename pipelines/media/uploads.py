"""Clips that visitors upload: checked, measured, and read as frames [F, H, W, 3] uint8. Nothing here trusts the file.

Its first bytes decide what it is, before anything else reads it; its name decides nothing. ffmpeg gets the open file as
its standard input, with one demuxer, a few decoders, limits that the system keeps, and no protocol that could open
another file: a playlist or a reference inside a clip leads nowhere.
"""

import math
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.media import colour, ffmpeg, limited, video
from pipelines.messages import said
from pipelines.settings import Settings

KINDS = {"mov": "MP4 or MOV", "matroska": "WebM or MKV", "gif": "GIF"}  # demuxer -> what people call its files
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # QuickTime files older than MP4 begin with the others
STILLS = (b"heic", b"heix", b"mif1", b"avif")  # the brands of pictures in the same boxes
CODECS = {  # ffmpeg's name -> what people call it
    **{"h264": "H.264", "hevc": "HEVC", "vp8": "VP8", "vp9": "VP9", "av1": "AV1", "gif": "GIF"},
    **{"mpeg4": "MPEG-4", "mjpeg": "Motion JPEG", "prores": "ProRes"},
}
DECODERS = ",".join(
    [*CODECS, *colour.ALPHA_DECODERS.values(), "libdav1d", "libaom-av1"]
)  # "av1" alone wants a graphics card
SOUND_DECODERS = "aac,mp3,mp3float,opus,libopus,vorbis,flac,alac,ac3,eac3,pcm_s16le,pcm_s24le,pcm_f32le"
THREADS = 2
MAX_FPS = 1000
MAX_COUNT = 10_000  # frames, and frames from one to the next
MAX_BYTES = 512 * 2**20  # of decoded frames
PIXELS = 135_000_000  # that a slow machine decodes and shrinks in a second: a minute of 3840x2160 at 30 fps takes two
DEARER = {"gif": 16}  # times a pixel counts: a few bytes make many frames of one, and people's are small
ROUNDED = 64  # pixels by which codecs round a side up
PREVIEW_HEIGHT, PREVIEW_FPS = 720, 60
PREVIEW_RATE = 10**6  # bytes a second, at most
SOUND_RATE = 40_000  # likewise
MAX_COMMENT = 2**18  # bytes that are read of what a file says about itself; a task takes a few thousand
SMALLER = said("Cut it shorter, or save it smaller (1280x720 is plenty).")
SAVE_AGAIN = said("If it plays elsewhere, save it again there as an MP4 (H.264) and upload that.")


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
    sound: bool
    cut: bool  # whether the file goes on after `seconds`


@dataclass(frozen=True)
class Choice:
    """Which frames of a clip are used."""

    first: int  # counted from 0
    stride: int  # from one used frame to the next
    frames: int  # used
    wanted: int  # asked for: more than `frames` where the chosen part holds fewer
    fps: float  # of the used frames, for a video that moves as fast as the clip

    @property
    def indices(self) -> range:
        """Their numbers in the clip, all below its number of frames."""
        return range(self.first, self.first + self.frames * self.stride, self.stride)


@dataclass(frozen=True)
class _Upload:
    """An open file whose first bytes are those of a video, and what may be spent on it."""

    file: BinaryIO
    demuxer: str
    settings: Settings


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
    with _opened(path, settings) as upload:
        return _measure(upload)


def choose(clip: Clip, start: float = 0.0, end: float | None = None, frames: int = 16, stride: int = 1) -> Choice:
    """Which frames of `clip` are used: `frames` of them, every `stride`-th one, between two times in seconds.

    The part begins with the frame that is seen at `start`, and ends before `end` (None: at the end of the clip). Where
    it holds fewer frames, all of them are used and the choice says so; nothing past the end is ever named. Raises
    ValueError where a value is of the wrong type, not finite or out of its limits.
    """
    start = _number(said("start"), start)
    if not 0 <= start < clip.seconds:
        if clip.cut:
            raise ValueError(
                said(
                    "The start must be from 0 to less than {seconds:.6g} seconds: of a longer clip no more is read. "
                    "Cut the clip, or set MARIONETTE_UPLOAD_SECONDS higher where the app runs.",
                    seconds=clip.seconds,
                )
            )
        raise ValueError(
            said(
                "The start must be from 0 to less than {seconds:.6g} seconds, the length of the clip.",
                seconds=clip.seconds,
            )
        )
    end = clip.seconds if end is None else _number(said("end"), end)
    if not start < end < math.inf:
        raise ValueError(said("The end must be a time in seconds after the start, {start:.6g}.", start=start))
    wanted, stride = _count(said("number of frames"), frames), _count(said("stride"), stride)
    # Times that people type are not exactly those of frames: a millionth of a frame makes no difference.
    first = min(math.floor(start * clip.fps + 1e-6), clip.frames - 1)
    stop = max(min(math.ceil(min(end, clip.seconds) * clip.fps - 1e-6), clip.frames), first + 1)
    used = min(wanted, len(range(first, stop, stride)))
    return Choice(first, stride, used, wanted, clip.fps / stride)


def frames(
    path: str | Path,
    settings: Settings,
    start: float = 0.0,
    end: float | None = None,
    frames: int = 16,
    stride: int = 1,
    side: int = 1024,
    measured: Measured | None = None,
) -> np.ndarray:
    """The frames [F, H, W, 3] uint8 of the upload `path` that `choose` names, F being `choose(…).frames`.

    One run of ffmpeg where `measured`, what was measured of it, is given.

    They are upright, with square pixels, shrunk so that the longer of H and W is at most `side`. A frame that comes
    late or is missing (variable frame rate) is stood for by the one before it. Raises ValueError as `inspect` and
    `choose` do, where the frames would take more than 512 MB, and where the file is damaged in the chosen part.
    """
    if not 1 <= _number("side", side) <= settings.upload_side:
        raise ValueError(said("The longest side must be from 1 to {most} pixels.", most=settings.upload_side))
    with _opened(path, settings) as upload:
        measured = measured or _measure(upload)
        clip = measured.clip
        choice = choose(clip, start, end, frames, stride)
        shrink = min(1.0, side / max(clip.width, clip.height))
        width, height = max(1, round(clip.width * shrink)), max(1, round(clip.height * shrink))
        each = height * width * 3
        if choice.frames * each > MAX_BYTES:
            raise ValueError(
                said(
                    "{frames} frames of {width}x{height} take {needed} MB of memory, and {room} can be "
                    "had. Choose {most} frames or fewer, or a smaller size.",
                    frames=choice.frames,
                    width=width,
                    height=height,
                    needed=choice.frames * each // 2**20,
                    room=MAX_BYTES // 2**20,
                    most=MAX_BYTES // each,
                )
            )
        pixels = _read(
            upload,
            *_steady(measured, choice.first, choice.fps, width, height),
            ["-frames:v", str(choice.frames), "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"],
        )
    found = len(pixels) // each
    if found < choice.frames:
        raise ValueError(
            said(
                "The clip is damaged: of the {frames} chosen frames only {found} can be read. Choose "
                "another part of it. {advice}",
                frames=choice.frames,
                found=found,
                advice=SAVE_AGAIN,
            )
        )
    return np.frombuffer(pixels, np.uint8).reshape(choice.frames, height, width, 3)


def normalise(path: str | Path, out: Path, settings: Settings, measured: Measured | None = None) -> None:
    """Writes the upload `path` as the MP4 file `out`, which every browser plays: whole or not at all.

    H.264, yuv420p, header first, upright, without sound and without what the file says about itself; at most 720
    pixels high and 60 frames a second; its time 0 is that of the clip. Raises ValueError as `inspect` does.
    """
    with _opened(path, settings) as upload:
        measured = measured or _measure(upload)
        clip = measured.clip
        shrink = min(1.0, PREVIEW_HEIGHT / clip.height)
        width, height = (max(2, 2 * round(length * shrink / 2)) for length in (clip.width, clip.height))
        with video.whole(out) as temporary:
            _read(
                upload,
                *_steady(measured, 0, min(clip.fps, PREVIEW_FPS), width, height),
                ["-t", f"{clip.seconds:.6f}", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast"],
                ["-crf", "23", "-maxrate", str(8 * PREVIEW_RATE), "-bufsize", str(16 * PREVIEW_RATE)],
                ["-threads", str(THREADS), "-map_metadata", "-1", "-map_chapters", "-1", "-movflags", "+faststart"],
                ["-f", "mp4", f"file:{temporary.absolute()}"],
                written=math.ceil(clip.seconds + 2) * 2 * PREVIEW_RATE,
            )
            try:
                video.probe(temporary)
            except video.VideoError as error:
                raise ValueError(said("The clip is damaged. {advice}", advice=SAVE_AGAIN)) from error


def read_comment(path: str | Path, settings: Settings) -> str:
    """The comment in the MP4 file `path`, as `video.write` leaves one; "" if there is none, or only a giant's.

    Nothing of its pictures is decoded but what tells their kind. Raises ValueError where it is no such file.
    """
    with _opened(path, settings) as upload, tempfile.TemporaryDirectory(prefix="marionette-") as folder:
        if upload.demuxer != "mov":
            raise ValueError(
                said("This is a {kind} file, and only MP4 files tell how they were made.", kind=KINDS[upload.demuxer])
            )
        comment = Path(folder) / "comment"
        # To a file, for whose size there is a limit that the system keeps.
        _read(upload, [], ["-map_chapters", "-1", "-f", "ffmetadata", f"file:{comment}"], written=1)
        with comment.open("rb") as file:
            return video.comment_in(file.read(MAX_COMMENT).decode("utf-8", "replace"))


def sound(
    path: str | Path,
    out: Path,
    settings: Settings,
    start: float,
    seconds: float,
    length: float | None = None,
    measured: Measured | None = None,
) -> None:
    """Writes the sound of the upload `path` from `start` on, `seconds` of it, as the M4A file `out` (AAC).

    It is stretched to `length` seconds, if that is another time, and exactly so long: where there is no sound, be it
    that it begins late, there is silence. Raises ValueError as `inspect` does, and where there is no sound that can be
    read.
    """
    length = seconds if length is None else length
    with _opened(path, settings) as upload:
        measured = measured or _measure(upload)
        if not measured.clip.sound:
            raise ValueError(said("The clip has no sound."))
        filters = ["aresample=48000:async=1:first_pts=0", f"atrim=end={seconds:.6f}", *_tempo(seconds / length)]
        filters += [f"apad=whole_dur={length:.6f}", f"atrim=end={length:.6f}"]
        with video.whole(out) as temporary:
            _read(
                upload,
                ["-ss", f"{float(measured.start) + start:.6f}"],
                ["-map", "0:a:0", "-af", ",".join(filters), "-ac", "2", "-c:a", "aac", "-b:a", "160k"],
                ["-map_metadata", "-1", "-map_chapters", "-1", "-f", "mp4", f"file:{temporary.absolute()}"],
                written=math.ceil(length + 2) * SOUND_RATE,
                decoders=SOUND_DECODERS,
            )


def _tempo(times: float) -> list[str]:
    """Filters that play sound so many times as fast, at the same pitch. One of them halves the speed at most."""
    filters = []
    while times < 0.5:
        filters.append("atempo=0.5")
        times /= 0.5
    while times > 2:
        filters.append("atempo=2")
        times /= 2
    return [*filters, f"atempo={times:.6f}"] if abs(times - 1) > 1e-3 or filters else []


@contextmanager
def _opened(path: str | Path, settings: Settings) -> Iterator[_Upload]:
    """Opens an upload and looks at its first bytes. Links, folders and devices are refused, and never waited for."""
    try:
        file = limited.open_file(path)
    except (OSError, ValueError) as error:  # ValueError: no file has such a name
        raise ValueError(said("The uploaded file can't be opened. Upload it again.")) from error
    if file is None:
        raise ValueError(
            said("That is not an ordinary file. Upload a video file itself, not a link to one or a folder.")
        )
    with file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ValueError(said("The file is empty. Upload it again."))
        if size > settings.upload_mb * 10**6:
            raise ValueError(
                said(
                    "The file has {size} MB, and {most} are allowed. {advice}",
                    size=math.ceil(size / 10**6),
                    most=settings.upload_mb,
                    advice=SMALLER,
                )
            )
        demuxer = _sniff(file.read(12))
        if demuxer is None:
            raise ValueError(
                said(
                    "This is not a video that can be used. Upload an {kind}, {other} or GIF file.",
                    kind=KINDS["mov"],
                    other=KINDS["matroska"],
                )
            )
        yield _Upload(file, demuxer, settings)


def _sniff(head: bytes) -> str | None:
    """The demuxer for a file that begins with these 12 bytes."""
    if head[4:8] in BOXES and not (head[4:8] == b"ftyp" and head[8:12] in STILLS):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return None


def _measure(upload: _Upload) -> Measured:
    """Reads the file once without decoding, then decodes the first frame: only that tells the size truly."""
    limit, side = upload.settings.upload_seconds, upload.settings.upload_side
    listing = _read(
        upload,
        [],
        ["-map", "0:V:0", "-c", "copy", "-t", str(limit + 1), "-frames:v", str(math.ceil((limit + 1) * MAX_FPS))],
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
    _check_side(width, height, side)
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

    done = _run(
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
    _check_side(width, height, side)
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
    clip = Clip(
        width=width,
        height=height,
        fps=float(fps),
        seconds=float(min(seconds, limit)),
        frames=max(1, round(min(seconds, limit) * fps)),
        codec=CODECS[told["codec_id"]],
        kind=KINDS[upload.demuxer],
        sound="#media_type 1: audio" in first,
        cut=seconds > limit,
    )
    told = colour.pixels(done.stderr.decode("utf-8", "replace"))
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


def _check_side(width: int, height: int, side: int) -> None:
    if max(width, height) > side:
        raise ValueError(
            said(
                "The clip has {width}x{height} pixels, and a side may have {side}. Save it smaller "
                "(1280x720 is plenty).",
                width=width,
                height=height,
                side=side,
            )
        )


def _steady(measured: Measured, first: int, fps: float, width: int, height: int) -> tuple[list[str], list[str]]:
    """Options before and after the input for frames of `width` x `height` at exactly `fps`, beginning with `first`.

    The frame for a moment is the last that begins before that moment and half a frame, as timestamps are rounded.
    ffmpeg counts time from where it was told to seek to, and begins to decode at the key frame before that.
    """
    clip = measured.clip
    moment = float(measured.start) + (first + 0.5) / clip.fps
    rate = Fraction(fps).limit_denominator(10**6)
    shape = clip.width / clip.height  # a picture that changes its shape midway gets bars; it is not distorted
    w = f"max(1,if(lt(dar,{0.98 * shape}),{height}*dar,{width}))"
    h = f"max(1,if(gt(dar,{1.02 * shape}),{width}/dar,{height}))"
    filters = [
        *(f"fps=fps={rate}:round=up", "trim=start=0", "tpad=stop=1:stop_mode=clone", *measured.pixels.first),
        *(f"scale=w='{w}':h='{h}':flags=area+accurate_rnd+full_chroma_int", *measured.pixels.last),
        *(f"pad={width}:{height}:-1:-1", "setsar=1"),
    ]
    before = ["-max_pixels", str(measured.most), "-ss", f"{moment:.6f}", "-noaccurate_seek"]
    before += measured.pixels.before
    return before, ["-map", "0:V:0", "-vf", ",".join(filters), "-fps_mode", "cfr", "-r", str(rate)]


def _read(upload: _Upload, before: list[str], *after: list[str], written: int = 0, decoders: str = DECODERS) -> bytes:
    """What ffmpeg writes to its standard output, as `_run`."""
    return _run(upload, before, *after, written=written, decoders=decoders).stdout


def _run(
    upload: _Upload, before: list[str], *after: list[str], written: int = 0, decoders: str = DECODERS
) -> subprocess.CompletedProcess:
    """Runs ffmpeg with the options `before` the input and `after` it.

    `written` is how many bytes a file that it writes may have. Raises ValueError where it fails.
    """
    settings = upload.settings
    arguments = [
        *("-v", "error", "-protocol_whitelist", "fd", "-format_whitelist", upload.demuxer),
        *("-codec_whitelist", decoders, "-max_pixels", str((settings.upload_side + ROUNDED) ** 2)),
        *("-threads", str(THREADS), "-filter_threads", "1", *before, "-f", upload.demuxer, "-i", "fd:"),
        *(argument for group in after for argument in group),
    ]
    limits = {
        "RLIMIT_AS": settings.upload_memory_mb * 2**20,
        "RLIMIT_CPU": math.ceil(settings.upload_work_seconds * THREADS),  # should nobody be left to stop it
        "RLIMIT_FSIZE": max(written, 16 * ffmpeg.MAX_LOG),
        "RLIMIT_CORE": 0,
    }
    too_long = said(
        "The clip takes longer than {seconds:.10g} seconds to read. {advice}",
        seconds=settings.upload_work_seconds,
        advice=SMALLER,
    )
    try:
        done = ffmpeg.run(arguments, upload.file, seconds=settings.upload_work_seconds, limits=limits)
    except subprocess.TimeoutExpired as error:
        raise ValueError(too_long) from error
    if done.returncode in limited.STOPPED:
        raise ValueError(too_long)
    complaints = done.stderr.decode("utf-8", "replace")
    if re.search("Cannot allocate memory|Resource temporarily unavailable", complaints):  # ffmpeg goes on all the same
        raise ValueError(
            said(
                "The clip takes more than {most} MB of memory to read. Save it smaller (1280x720 is plenty).",
                most=settings.upload_memory_mb,
            )
        )
    if done.returncode or not (done.stdout or written):
        if "matches no streams" in complaints:
            raise ValueError(said("There is no moving picture in this file. Upload a video."))
        size = re.search(r"Picture size (\d+)x(\d+) (?:exceeds|is invalid)", complaints)
        if size:
            _check_side(int(size[1]), int(size[2]), settings.upload_side)
        raise ValueError(said("The file is damaged, or no video after all. {advice}", advice=SAVE_AGAIN))
    return done


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(said("The {name} must be a number, not {value}.", name=name, value=repr(str(value)[:40])))
    return value


def _count(name: str, value: object) -> int:
    count = _number(name, value)
    if not 1 <= count <= MAX_COUNT or count % 1:
        raise ValueError(said("The {name} must be a whole number from 1 to {most}.", name=name, most=MAX_COUNT))
    return int(count)
