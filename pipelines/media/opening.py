"""Videos that strangers upload, opened and read by ffmpeg. Nothing here trusts the file.

Its first bytes decide what it is, before anything else reads it; its name decides nothing. ffmpeg gets the open file as
its standard input, with one demuxer, a few decoders, limits that the system keeps, and no protocol that could open
another file: a playlist or a reference inside a clip leads nowhere.
"""

import math
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.media import colour, ffmpeg, limited
from pipelines.messages import said
from pipelines.settings import Settings

KINDS = {  # demuxer -> what people call its files
    **{"mov": "MP4 or MOV", "matroska": "WebM or MKV", "gif": "GIF"},
    **{"webp_anim": "WebP", "apng": "APNG"},
}
HEAD = 2**16  # bytes at a file's beginning that may decide what it is
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # QuickTime files older than MP4 begin with the others
STILLS = (b"heic", b"heix", b"mif1", b"avif")  # the brands of pictures in the same boxes
CODECS = {  # ffmpeg's name -> what people call it
    **{"h264": "H.264", "hevc": "HEVC", "vp8": "VP8", "vp9": "VP9", "av1": "AV1", "gif": "GIF"},
    **{"mpeg4": "MPEG-4", "mjpeg": "Motion JPEG", "prores": "ProRes", "qtrle": "QuickTime Animation"},
    **{"webp_anim": "WebP", "apng": "APNG"},
}
# "av1" alone wants a graphics card.
DECODERS = ",".join([*CODECS, *colour.ALPHA_DECODERS.values(), "libdav1d", "libaom-av1"])
SOUND_CODECS = {  # ffmpeg's name -> its decoders; cameras store plain samples in all of these ways
    **{name: (name,) for name in ("aac", "vorbis", "flac", "alac", "ac3", "eac3", "adpcm_ima_qt", "adpcm_ima_wav")},
    **{f"pcm_{kind}": (f"pcm_{kind}",) for kind in ("u8", "s8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be")},
    **{f"pcm_{kind}": (f"pcm_{kind}",) for kind in ("f32le", "f32be", "f64le", "f64be", "mulaw", "alaw")},
    **{"mp3": ("mp3", "mp3float"), "mp2": ("mp2", "mp2float"), "opus": ("opus", "libopus")},
    **{"amr_nb": ("amrnb",), "amr_wb": ("amrwb",), "adpcm_ms": ("adpcm_ms",)},
}
SOUND_DECODERS = ",".join(decoder for decoders in SOUND_CODECS.values() for decoder in decoders)
THREADS = 2
ROUNDED = 64  # pixels by which codecs round a side up
SMALLER = said("Cut it shorter, or save it smaller (1280x720 is plenty).")
SAVE_AGAIN = said("If it plays elsewhere, save it again there as an MP4 (H.264) and upload that.")


@dataclass(frozen=True)
class Upload:
    """An open file whose first bytes are those of a video, and what may be spent on it."""

    file: BinaryIO
    demuxer: str
    settings: Settings


@contextmanager
def opened(path: str | Path, settings: Settings) -> Iterator[Upload]:
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
        head = file.read(HEAD)
        demuxer = _sniff(head)
        if demuxer is None and _is_picture(head):
            raise ValueError(
                said(
                    "This is a single picture, and has no motion. Upload an {kind}, {other}, GIF, animated WebP or "
                    "APNG file; to begin a video with the picture, choose “Begin with a first image” in Text to video.",
                    kind=KINDS["mov"],
                    other=KINDS["matroska"],
                )
            )
        if demuxer is None:
            raise ValueError(
                said(
                    "This is not a video that can be used. Upload an {kind}, {other}, GIF, animated WebP or APNG file.",
                    kind=KINDS["mov"],
                    other=KINDS["matroska"],
                )
            )
        yield Upload(file, demuxer, settings)


def _sniff(head: bytes) -> str | None:
    """The demuxer for a file that begins with these bytes: HEAD of them, or all."""
    if head[4:8] in BOXES and not (head[4:8] == b"ftyp" and head[8:12] in STILLS):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith(b"RIFF") and head[8:16] == b"WEBPVP8X" and head[20:21] and head[20] & 2:
        return "webp_anim"
    if head.startswith(b"\x89PNG\r\n\x1a\n") and _moves(head):
        return "apng"
    return None


def _is_picture(head: bytes) -> bool:
    """Whether a file that is no video is a picture: PNG, JPEG, WebP, BMP, HEIC or AVIF."""
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (head.startswith(b"BM") and not any(head[6:10])):
        return True
    return (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or (head[4:8] == b"ftyp" and head[8:12] in STILLS)


def _moves(png: bytes) -> bool:
    """Whether the chunk that animations have comes before the pixels, as it must."""
    at = 8
    while at + 8 <= len(png) and (kind := png[at + 4 : at + 8]) != b"IDAT":
        if kind == b"acTL":
            return True
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return False


def check_side(width: int, height: int, side: int) -> None:
    """Raises ValueError where one of the sides of a picture, in pixels, is longer than `side`."""
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


def read(upload: Upload, before: list[str], *after: list[str], written: int = 0, decoders: str = DECODERS) -> bytes:
    """What ffmpeg writes to its standard output, as `run`."""
    return run(upload, before, *after, written=written, decoders=decoders).stdout


def run(
    upload: Upload, before: list[str], *after: list[str], written: int = 0, decoders: str = DECODERS
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
        if "Unknown input format" in complaints:
            raise ValueError(
                said(
                    "The ffmpeg of this machine is too old to read a file of this kind ({kind}). {advice}",
                    kind=KINDS[upload.demuxer],
                    advice=SAVE_AGAIN,
                )
            )
        if "matches no streams" in complaints:
            raise ValueError(said("There is no moving picture in this file. Upload a video."))
        size = re.search(r"Picture size (\d+)x(\d+) (?:exceeds|is invalid)", complaints)
        if size:
            check_side(int(size[1]), int(size[2]), settings.upload_side)
        raise ValueError(said("The file is damaged, or no video after all. {advice}", advice=SAVE_AGAIN))
    return done
