"""Video files: frames [F, H, W, 3] uint8 to H.264 and back, with a comment in the file's own tag.

Only files made here are read here, with a time limit and no protocol but plain files and pipes; uploads.py reads
those of strangers.
"""

import io
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.errors import VideoError
from pipelines.media import ffmpeg
from pipelines.messages import said

TIMEOUT = 120.0  # seconds for one run of ffmpeg; a minute of video takes two or three
FILES_ONLY = ("-protocol_whitelist", "file,pipe")
ERRORS = ("-v", "error", "-xerror")
FLAT = 1  # levels that a colour may differ by in a video that shows nothing
BLACK = 16  # a video without one value above this shows nothing
EXPORTS = {  # kind -> how ffmpeg makes it
    "gif": [  # endlessly repeating, with colours chosen for it
        "-filter_complex",
        "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=sierra2_4a:diff_mode=rectangle",
        *("-loop", "0", "-f", "gif"),
    ],
    "webm": ["-c:v", "libvpx-vp9", "-crf", "28", "-b:v", "0", "-row-mt", "1", "-f", "webm"],
}
SHIFT = 16  # levels by which a frame's mean colour may change on its way through the file


@dataclass(frozen=True)
class Info:
    """What a file says about its video."""

    width: int
    height: int
    fps: float
    codec: str  # "h264 (High)"
    pixels: str  # "yuv420p"


def write(frames: np.ndarray, path: Path, fps: float, comment: str = "", sound: Path | None = None) -> None:
    """Writes `frames` [F, H, W, 3] uint8 to the MP4 file `path`, whole or not at all, with the `sound` of an M4A file.

    H.264 high profile, yuv420p, header first, BT.709. That format takes even sizes only: an odd width or height grows
    by one pixel, a copy of the last column or row. The file is decoded again before it gets its name. Raises ValueError
    for frames that make no video, those of one colour included, and VideoError where the file can't be written.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"A video is made of frames [F, H, W, 3] uint8, not {list(frames.shape)} {frames.dtype}.")
    if frames.max() <= BLACK:
        raise ValueError(said("The video came out black, so it was not kept. Try another seed or a lower guidance."))
    if (np.ptp(frames, axis=(0, 1, 2)) <= FLAT).all():
        raise ValueError(said("The video came out as one plain colour, so it was not kept. Try another seed."))
    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    count, height, width, _ = frames.shape
    with whole(path) as temporary:
        _ffmpeg(_encoding(temporary, count, width, height, fps, comment, sound), data=frames.tobytes())
        written = read(temporary)
        if written.shape != frames.shape:
            raise VideoError(
                said(
                    "The file holds {written} instead of {wanted} values.",
                    written=list(written.shape),
                    wanted=list(frames.shape),
                )
            )
        shift = np.abs(written.mean(axis=(1, 2)) - frames.mean(axis=(1, 2))).max()  # of [F, 3]
        if shift > SHIFT:
            raise VideoError(said("The file shows other colours than the video: {shift:.0f} levels off.", shift=shift))


@contextmanager
def writing(
    path: Path, frames: int, width: int, height: int, fps: float, comment: str = "", sound: Path | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yields what takes the next frame [H, W, 3] uint8 of the MP4 file `path`; otherwise as `write`.

    Few frames are held at a time, however many there are. Of the file it is checked that it holds `frames` of them.
    """
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    width, height = width + width % 2, height + height % 2
    with whole(path) as temporary:
        arguments = _encoding(temporary, frames, width, height, fps, comment, sound)
        try:
            with ffmpeg.feeding([*FILES_ONLY, *ERRORS, *arguments], seconds=TIMEOUT) as give:
                yield lambda frame: give(np.pad(frame, odd, mode="edge").tobytes())
        except subprocess.CalledProcessError as error:
            raise VideoError(_complaint(error.returncode, error.stderr)) from error
        counted = _ffmpeg(["-i", _file(temporary), "-vf", "scale=2:2", "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"])
        if len(counted) != 4 * frames:
            raise VideoError(
                said("The file holds {count} frames instead of {frames}.", count=len(counted) // 4, frames=frames)
            )


def _encoding(
    path: Path, frames: int, width: int, height: int, fps: float, comment: str, sound: Path | None
) -> list[str]:
    """Arguments with which ffmpeg makes the MP4 file `path` of the pixels at its standard input."""
    colours = "color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
    return [
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", str(fps), "-i", "pipe:0"),
        *(("-i", _file(sound), "-c:a", "copy", "-t", f"{frames / fps:.6f}") if sound else ()),
        *("-vf", f"scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd,format=yuv420p,setparams={colours}"),
        *("-c:v", "libx264", "-profile:v", "high", "-crf", "17", "-movflags", "+faststart"),
        *("-metadata", f"comment={comment}", "-f", "mp4", _file(path)),
    ]


def read(path: Path) -> np.ndarray:
    """The frames [F, H, W, 3] uint8 of the video `path`. Raises VideoError where it can't be decoded."""
    info = probe(path)
    pixels = _ffmpeg(["-i", _file(path), "-map", "0:v:0", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"])
    return np.frombuffer(pixels, np.uint8).reshape(-1, info.height, info.width, 3)


def read_comment(path: Path) -> str:
    """The comment that the video `path` was written with; "" if it has none."""
    return comment_in(_ffmpeg(["-i", _file(path), "-f", "ffmetadata", "pipe:1"]).decode())


def comment_in(text: str) -> str:
    """The comment in `text`, which ffmpeg wrote as "ffmetadata"; "" if there is none."""
    # One "key=value" a line, with a backslash before each = ; # \ and line end that belongs to the key or the value.
    entries = re.finditer(r"^((?:\\.|[^\\\n=])*)=((?:\\.|[^\\\n])*)$", text, re.DOTALL | re.MULTILINE)
    values = {entry[1]: re.sub(r"\\(.)", r"\1", entry[2], flags=re.DOTALL) for entry in entries}
    return values.get("comment", "")


def export(video: Path, path: Path) -> None:
    """Writes the MP4 file `video` once more as `path`, in the format of its suffix: one of EXPORTS."""
    with whole(path) as temporary:
        _ffmpeg(["-i", _file(video), *EXPORTS[path.suffix[1:]], _file(temporary)])


def poster(video: Path, path: Path, height: int = 256) -> None:
    """Writes one telling frame of the MP4 file `video` as the JPEG `path`, at most `height` pixels high."""
    choice = f"thumbnail,scale=-2:'min({height},ih)'"
    with whole(path) as temporary:
        _ffmpeg(["-i", _file(video), "-vf", choice, "-frames:v", "1", "-f", "mjpeg", _file(temporary)])


def first_frame(video: Path, path: Path) -> None:
    """Writes the first frame of the MP4 file `video` as the PNG `path`."""
    with whole(path) as temporary:
        _ffmpeg(["-i", _file(video), "-frames:v", "1", "-c:v", "png", "-f", "image2pipe", _file(temporary)])


def animation(frames: np.ndarray, fps: float) -> bytes:
    """`frames` [F, H, W, 3] uint8 as a WebP picture that moves without end: small, and a little coarse."""
    first, *rest = map(Image.fromarray, frames)
    file = io.BytesIO()
    options = {"save_all": True, "append_images": rest, "duration": round(1000 / fps), "loop": 0}
    first.save(file, "WEBP", quality=60, method=0, **options)
    return file.getvalue()


def probe(path: Path) -> Info:
    """What the header of the video `path` says. Raises VideoError where it is no video."""
    told = _run(["-v", "info", "-i", _file(path)]).stderr.decode(errors="replace")  # "fails": no output was asked for
    stream = re.search(r"Video: (\w+(?: \([\w :.]+\))?).*?, (\w+)\(?.*?, (\d+)x(\d+).*?, ([\d.]+) fps", told)
    if stream is None:
        raise VideoError(said("{name} is not a video that can be read.", name=path.name))
    codec, pixels, width, height, fps = stream.groups()
    return Info(int(width), int(height), float(fps), codec, pixels)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to: when all went well the file there, safe on the disk, becomes `path`; else nothing is left."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _file(path: Path) -> str:
    return f"file:{path.absolute()}"  # so that no name is taken for an option or a protocol


def _ffmpeg(*arguments: Sequence[str], data: bytes = b"") -> bytes:
    """What ffmpeg writes to its standard output. Raises VideoError with its first complaint where it fails."""
    done = _run([*ERRORS, *(argument for group in arguments for argument in group)], data)
    if done.returncode:
        raise VideoError(_complaint(done.returncode, done.stderr))
    return done.stdout


def _complaint(code: int, written: bytes) -> str:
    complaint = re.search(r"^(?:\[.*?\] ?)*(.+)$", written.decode(errors="replace"), re.MULTILINE)
    return said("ffmpeg failed: {reason}", reason=complaint[1] if complaint else f"exit code {code}")


def _run(arguments: list[str], data: bytes = b"") -> subprocess.CompletedProcess:
    try:
        return ffmpeg.run([*FILES_ONLY, *arguments], data, seconds=TIMEOUT)
    except subprocess.TimeoutExpired as error:  # it has been killed by then
        raise VideoError(
            said("ffmpeg took longer than {seconds:.0f} seconds and was stopped.", seconds=TIMEOUT)
        ) from error
