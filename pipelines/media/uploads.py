"""Clips that visitors upload, read as frames [F, H, W, 3] uint8, as sound, or as a file that every browser plays."""

import math
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipelines.media import video
from pipelines.media.measuring import PREVIEW_FPS, Clip, Measured, measure_opened
from pipelines.media.opening import KINDS, SAVE_AGAIN, SOUND_DECODERS, THREADS, Upload, opened, read
from pipelines.messages import said
from pipelines.settings import Settings

SPILL = 0.1  # seconds of sound beyond what is used, which a change of tempo takes for its last moments
MAX_COUNT = 10_000  # frames, and frames from one to the next
MAX_BYTES = 512 * 2**20  # of decoded frames
PREVIEW_HEIGHT = 720  # pixels
PREVIEW_RATE = 10**6  # bytes a second, at most
SOUND_RATE = 40_000  # likewise
MOVING_PICTURES = (KINDS["webp_anim"], KINDS["apng"])  # in which ffmpeg seeks to frames that it can't begin with
MAX_COMMENT = 2**18  # bytes that are read of what a file says about itself; a task takes a few thousand


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
    with opened(path, settings) as upload:
        measured = measured or measure_opened(upload)
        choice = choose(measured.clip, start, end, frames, stride)
        return _decoded(upload, measured, choice.first, choice.frames, choice.fps, side)


def pace(clip: Clip, fps: float, start: float = 0.0, frames: int = 16) -> tuple[int, int]:
    """The first frame of `clip` that is used, and how many are, where it is read at `fps` frames a second from `start`
    on: `frames` of them, or as many as there are. Raises ValueError as `choose` does."""
    first = choose(clip, start, None, 1).first
    wanted = _count(said("number of frames"), frames)
    return first, max(1, min(wanted, math.floor((clip.frames - first) / clip.fps * fps + 1e-6)))


def paced(
    path: str | Path,
    settings: Settings,
    fps: float,
    start: float = 0.0,
    frames: int = 16,
    side: int = 1024,
    measured: Measured | None = None,
) -> np.ndarray:
    """As `frames`, at any rate: those that are seen at `start` and every 1 / `fps` seconds after it."""
    with opened(path, settings) as upload:
        measured = measured or measure_opened(upload)
        first, count = pace(measured.clip, fps, start, frames)
        return _decoded(upload, measured, first, count, fps, side)


def _decoded(upload: Upload, measured: Measured, first: int, count: int, fps: float, side: int) -> np.ndarray:
    """`count` frames [F, H, W, 3] from the `first` on, `fps` of them a second. Raises ValueError as `frames` does."""
    if not 1 <= _number("side", side) <= upload.settings.upload_side:
        raise ValueError(said("The longest side must be from 1 to {most} pixels.", most=upload.settings.upload_side))
    clip = measured.clip
    shrink = min(1.0, side / max(clip.width, clip.height))
    width, height = max(1, round(clip.width * shrink)), max(1, round(clip.height * shrink))
    each = height * width * 3
    if count * each > MAX_BYTES:
        raise ValueError(
            said(
                "{frames} frames of {width}x{height} take {needed} MB of memory, and {room} can be "
                "had. Choose {most} frames or fewer, or a smaller size.",
                frames=count,
                width=width,
                height=height,
                needed=count * each // 2**20,
                room=MAX_BYTES // 2**20,
                most=MAX_BYTES // each,
            )
        )
    pixels = read(
        upload,
        *_steady(measured, first, fps, width, height),
        ["-frames:v", str(count), "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"],
    )
    found = len(pixels) // each
    if found < count:
        raise ValueError(
            said(
                "The clip is damaged: of the {frames} chosen frames only {found} can be read. Choose "
                "another part of it. {advice}",
                frames=count,
                found=found,
                advice=SAVE_AGAIN,
            )
        )
    return np.frombuffer(pixels, np.uint8).reshape(count, height, width, 3)


def normalise(path: str | Path, out: Path, settings: Settings, measured: Measured | None = None) -> None:
    """Writes the upload `path` as the MP4 file `out`, which every browser plays: whole or not at all.

    H.264, yuv420p, header first, upright, without sound and without what the file says about itself; at most 720
    pixels high and 60 frames a second; its time 0 is that of the clip. Raises ValueError as `inspect` does.
    """
    with opened(path, settings) as upload:
        measured = measured or measure_opened(upload)
        clip = measured.clip
        shrink = min(1.0, PREVIEW_HEIGHT / clip.height)
        width, height = (max(2, 2 * round(length * shrink / 2)) for length in (clip.width, clip.height))
        with video.whole(out) as temporary:
            read(
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
    with opened(path, settings) as upload, tempfile.TemporaryDirectory(prefix="marionette-") as folder:
        if upload.demuxer != "mov":
            raise ValueError(
                said("This is a {kind} file, and only MP4 files tell how they were made.", kind=KINDS[upload.demuxer])
            )
        comment = Path(folder) / "comment"
        # To a file, for whose size there is a limit that the system keeps.
        read(upload, [], ["-map_chapters", "-1", "-f", "ffmetadata", f"file:{comment}"], written=1)
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
    with opened(path, settings) as upload:
        measured = measured or measure_opened(upload)
        if not measured.clip.sound:
            raise ValueError(said("The clip has no sound."))
        filters, tempo = ["aresample=48000:async=1"], _tempo(seconds / length)
        if tempo:  # it leaves the time at which the sound begins as it is
            filters += [f"atrim=end={seconds + SPILL:.6f}", f"apad=pad_dur={SPILL}", *tempo]
            later = f"max(STARTPTS,0)*{length / seconds:.6f}"  # it is no number where all is silent
            filters += [f"asetpts='{later}+NB_CONSUMED_SAMPLES'"]
        filters += ["aresample=async=1:first_pts=0", f"atrim=end={length:.6f}"]
        filters += [f"apad=whole_dur={length:.6f}", f"atrim=end={length:.6f}"]
        with video.whole(out) as temporary:
            read(
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
    before = ["-max_pixels", str(measured.most)]
    if measured.clip.kind in MOVING_PICTURES:
        before += ["-itsoffset", f"{-moment:.6f}"]
    else:
        before += ["-ss", f"{moment:.6f}", "-noaccurate_seek"]
    before += measured.pixels.before
    return before, ["-map", "0:V:0", "-vf", ",".join(filters), "-fps_mode", "cfr", "-r", str(rate)]


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(said("The {name} must be a number, not {value}.", name=name, value=repr(str(value)[:40])))
    return value


def _count(name: str, value: object) -> int:
    count = _number(name, value)
    if not 1 <= count <= MAX_COUNT or count % 1:
        raise ValueError(said("The {name} must be a whole number from 1 to {most}.", name=name, most=MAX_COUNT))
    return int(count)
