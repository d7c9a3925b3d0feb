"""Uploads: hostile and odd files, all made here, end in a clear sentence or in the right frames."""

import json
import math
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time
import zlib
from functools import cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from pipelines.media import measuring, opening, uploads, video
from pipelines.settings import Settings

SETTINGS = Settings()
WIDTH, HEIGHT = 48, 32
SECRET = (255, 0, 255)  # the colour of the video that no upload may show
H264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p"]
TEXT = "the-secret-text"


def ffmpeg(*arguments, data=None, check=True):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *map(str, arguments)]
    source = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
    return subprocess.run(command, capture_output=True, check=check, timeout=60, **source).stdout


@cache
def encoders():
    return set(re.findall(r"^ V\S+ (\S+)", ffmpeg("-encoders").decode(), re.MULTILINE))


def bars(count, width=WIDTH, height=HEIGHT):
    """Frames [F, H, W, 3] uint8 that show their own number in seven upright bars, lowest bit first, and a dark rest."""
    bits = np.arange(count)[:, None] >> (np.arange(width) * 8 // width)[None] & 1  # [F, W]
    grey = np.where(bits, 220, 20).astype(np.uint8)
    return np.broadcast_to(grey[:, None, :, None], (count, height, width, 3))


def numbers(frames):
    """What `bars` wrote into frames of any size."""
    _, height, width, _ = frames.shape
    middle = frames[:, height // 2, [(2 * bit + 1) * width // 16 for bit in range(7)]].mean(-1)  # [F, 7]
    return ((middle > 120) << np.arange(7)).sum(-1).tolist()


def make(path, *options, count=30, fps=30, width=WIDTH, height=HEIGHT, before=()):
    """A video file of `bars`, H.264 unless `options` say otherwise."""
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", fps, "-i", "pipe:0"]
    options = options or H264
    if "-c:v" in options and options[options.index("-c:v") + 1] not in encoders():
        pytest.skip(f"this ffmpeg can't make {options}")
    ffmpeg(*before, *raw, *options, path, data=bars(count, width, height).tobytes())
    return path


def box(kind, data):
    return struct.pack(">I", 8 + len(data)) + kind + data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a good clip, and a secret video and text that no other file may lead to."""
    folder = tmp_path_factory.mktemp("uploads")
    make(folder / "good.mp4")
    ffmpeg("-f", "lavfi", "-i", "color=0xff00ff:s=48x32:d=1:r=30", *H264, folder / "secret.mp4")
    ffmpeg("-i", folder / "secret.mp4", "-c", "copy", folder / "secret.ts")
    (folder / "secret.txt").write_text(TEXT)
    return folder


def playlist(target):
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n".encode()


def reference(folder):
    """An MP4 file without frames of its own: it says that they lie in the secret video."""
    path = str(folder / "secret.mp4").encode()
    alias = bytes(10) + bytes([0]) + bytes(27) + bytes(12) + bytes([0]) + bytes(63) + bytes(16 + 4 + 16)
    alias += struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2) + b"\xff\xff\0\0" + bytes(60)
    data = (folder / "secret.mp4").read_bytes()

    def changed(data):
        whole, at = b"", 0
        while at < len(data):
            size, kind = struct.unpack_from(">I4s", data, at)
            inside = data[at + 8 : at + size]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
                inside = changed(inside)
            elif kind == b"dref":
                inside = inside[:8] + box(b"alis", bytes(4) + alias)
            whole += b"" if kind == b"mdat" else box(kind, inside)
            at += size
        return whole

    return changed(data)


def avi(folder):
    ffmpeg("-i", folder / "good.mp4", "-c:v", "mjpeg", folder / "made.avi")
    return (folder / "made.avi").read_bytes()


def tone(folder):
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", folder / "tone.m4a")
    return (folder / "tone.m4a").read_bytes()


def picture(size, options, suffix):
    def made(folder):
        path = folder / f"picture{size}.{suffix}"
        ffmpeg("-f", "lavfi", "-i", f"color=gray:s={size}:r=1", "-frames:v", 1, *options, path)
        return path.read_bytes()

    return made


@cache
def bomb(folder):
    """One grey frame that takes 384 MB and a megabyte of file."""
    return picture("8000x8000", [*H264, "-preset", "ultrafast"], "mp4")(folder)


def rare(folder):
    ffmpeg("-i", folder / "good.mp4", "-c:v", "ffv1", folder / "rare.mkv")
    return (folder / "rare.mkv").read_bytes()


def impatient(folder):
    """A clip that claims 90,000 frames a second."""
    make(folder / "fast.mp4", *H264, "-bf", "0", "-video_track_timescale", "90000", fps=90000)
    return (folder / "fast.mp4").read_bytes()


def noise(seed, size=4000):
    return random.Random(seed).randbytes(size)


def gif_canvas(width, height):
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    return head + b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"


def webp(size, moving, rest=b""):
    """The header of a WebP file with a canvas of that size."""
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    chunks = b"VP8X" + struct.pack("<I", 10) + bytes([2 * moving, 0, 0, 0]) + sides + rest
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def png(*chunks):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def png_canvas(width, height):
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


TWO_FRAMES = b"acTL", struct.pack(">II", 2, 0)
FIRST_FRAME = b"fcTL", struct.pack(">IIIIIHHBB", 0, 5000, 5000, 0, 0, 1, 10, 0, 0)
FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41")
ACCEPTED = "Upload an MP4 or MOV, WebM or MKV, GIF, animated WebP or APNG"
STILL = "single picture, and has no motion. Upload an MP4 or MOV, WebM or MKV, GIF, animated WebP or APNG.*first image"
DAMAGED = "damaged"

REFUSED = {  # name -> (content, or what makes it; what the sentence says)
    "playlist.m3u8": (lambda folder: playlist(f"file://{folder}/secret.ts"), ACCEPTED),
    "playlist.mp4": (lambda folder: playlist(f"file://{folder}/secret.ts"), ACCEPTED),
    "playlist with a relative name.mp4": (playlist("secret.ts"), ACCEPTED),
    "playlist after a GIF's header.gif": (lambda folder: b"GIF89a\n" + playlist(f"{folder}/secret.ts"), r"pixels"),
    "playlist after an MP4's header.mp4": (lambda folder: FTYP + playlist(f"{folder}/secret.ts"), DAMAGED),
    "playlist after an EBML header.mkv": (lambda folder: b"\x1aE\xdf\xa3" + playlist(f"{folder}/secret.ts"), DAMAGED),
    "playlist in an old box.mov": (box(b"free", playlist("secret.ts")), DAMAGED),
    "concat.mp4": (b"ffconcat version 1.0\nfile secret.mp4\n", ACCEPTED),
    "concat.txt": (b"ffconcat version 1.0\nfile 'secret.mp4'\n", ACCEPTED),
    "concat in an old box.mov": (box(b"wide", b"") + b"ffconcat version 1.0\nfile secret.mp4\n", DAMAGED),
    "reference to another file.mov": (reference, "no picture"),
    "subtitles.mp4": (b"1\n00:00:00,000 --> 00:00:01,000\nhello\n", ACCEPTED),
    "picture.svg": (lambda folder: f'<svg><image href="{folder}/secret.mp4"/></svg>'.encode(), ACCEPTED),
    "picture.mp4": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', ACCEPTED),
    "dash.mp4": (b'<?xml version="1.0"?><MPD><BaseURL>secret.mp4</BaseURL></MPD>', ACCEPTED),
    "script.py": (b"import os\nprint(os.environ)\n", ACCEPTED),
    "script.mp4": (b"#!/bin/sh\ncat secret.txt\n", ACCEPTED),
    "page.html": (b"<!doctype html><script>alert(1)</script>", ACCEPTED),
    "clip.avi": (avi, ACCEPTED),
    "transport.ts": (lambda folder: (folder / "secret.ts").read_bytes(), ACCEPTED),
    "weights.mp4": (b"\x80\x04\x95\x1a\0\0\0cposix\nsystem\n", ACCEPTED),
    "archive.mp4": (b"PK\x03\x04" + noise(1), ACCEPTED),
    "still.avif": (box(b"ftyp", b"avif\0\0\0\0mif1avif") + noise(2), STILL),
    "still.heic": (box(b"ftyp", b"heic\0\0\0\0mif1heic") + noise(3), STILL),
    "empty.mp4": (b"", "empty"),
    "one byte.mp4": (b"\0", ACCEPTED),
    "header only.mp4": (FTYP, DAMAGED),
    "header only.webm": (b"\x1aE\xdf\xa3", DAMAGED),
    "header only.gif": (b"GIF89a", DAMAGED),
    "noise.mp4": (FTYP + noise(4), DAMAGED),
    "noise in a box.mp4": (FTYP + box(b"moov", noise(5)), "no moving picture"),
    "noise.mkv": (b"\x1aE\xdf\xa3" + noise(6), DAMAGED),
    "noise.gif": (b"GIF87a" + noise(7), "pixels"),
    "sound only.m4a": (tone, "no moving picture"),
    "endless box.mp4": (b"\xff\xff\xff\xffftypisom" + bytes(2000), DAMAGED),
    "boxes in boxes.mp4": (FTYP + b"".join(struct.pack(">I", 80_000 - 8 * i) + b"moov" for i in range(9_999)), DAMAGED),
    "pixel bomb.mp4": (bomb, "8000x8000.*4096"),
    "long side.mp4": (picture("4800x16", H264, "mp4"), "4800x16.*4096"),
    "huge canvas.gif": (gif_canvas(65535, 65535), "65535x65535.*4096"),
    "large canvas.gif": (gif_canvas(5000, 5000), "5000x5000.*4096"),
    "unknown codec.mkv": (rare, "ffv1"),
    "still.png": (picture("48x32", ["-c:v", "png"], "png"), STILL),
    "still.webp": (picture("48x32", ["-c:v", "libwebp"], "webp"), STILL),
    "still with a header.webp": (webp((48, 32), False, noise(9)), STILL),
    "a word too late.png": (png(png_canvas(8, 8), (b"IDAT", noise(10, 64)), TWO_FRAMES), STILL),
    "endless chunk.png": (png(png_canvas(8, 8))[:-4] + b"\xff\xff\xff\xffzTXt" + noise(11), STILL),
    "header only.webp": (webp((48, 32), True), DAMAGED),
    "noise.webp": (webp((48, 32), True, noise(12)), DAMAGED),
    "noise.png": (png(png_canvas(48, 32), TWO_FRAMES) + noise(13), "damaged|2048 MB of memory"),
    "playlist after a WebP's header.webp": (lambda f: webp((9, 9), True) + playlist(f"{f}/secret.ts"), DAMAGED),
    "large canvas.webp": (webp((5000, 5000), True, b"ANIM" + struct.pack("<I", 6) + bytes(6)), "damaged|5000x5000"),
    "large canvas.png": (png(png_canvas(5000, 5000), TWO_FRAMES, FIRST_FRAME, (b"IDAT", b"x")), "5000x5000.*4096"),
    "frame bomb.mp4": (impatient, "90000 frames a second.*1000"),
}


PICTURES = {  # that move
    "a.gif": ["-c:v", "gif"],
    "a.webp": ["-c:v", "libwebp_anim", "-lossless", "1"],
    "a.apng": ["-c:v", "apng"],
}


def check_sentence(told):
    assert (
        (told[0].isupper() or told[0].isdigit()) and told.endswith(".") and "\n" not in told and 20 < len(told) < 250
    ), told
    assert not re.search(r"secret|/|<|\\|errno|ffmpeg|None", told.replace("1280x720", "")), told


@pytest.mark.parametrize("name", REFUSED)
def test_refused(folder, tmp_path, name):
    content, words = REFUSED[name]
    path = folder / name  # beside the secret
    path.write_bytes(content(folder) if callable(content) else content)
    started = time.monotonic()
    for refuse in (
        lambda: measuring.inspect(path, SETTINGS),
        lambda: uploads.frames(str(path), SETTINGS),
        lambda: uploads.normalise(path, tmp_path / "out.mp4", SETTINGS),
    ):
        with pytest.raises(ValueError, match=words) as refused:
            refuse()
        check_sentence(str(refused.value))
    assert os.listdir(tmp_path) == []
    assert time.monotonic() - started < 20


def test_the_traps_above_are_real(folder):
    """Without our precautions, the same ffmpeg opens the secret."""
    (folder / "trap.m3u8").write_bytes(playlist(f"file://{folder}/secret.ts"))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-i", folder / "trap.m3u8", "-f", "null", "-"]
    assert b"Opening 'file://" in subprocess.run(command, capture_output=True, timeout=60).stderr
    (folder / "trap.mp4").write_bytes(b"ffconcat version 1.0\nfile secret.mp4\n")
    (folder / "trap.mov").write_bytes(reference(folder))
    for name, options in {"trap.mp4": [], "trap.mov": ["-enable_drefs", 1, "-use_absolute_path", 1]}.items():
        pixels = ffmpeg(*options, "-i", folder / name, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1")
        assert np.abs(np.frombuffer(pixels, np.uint8).reshape(-1, 3) - np.array(SECRET)).max() < 12


def test_nobody_is_called(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/secret.ts"
        for name, content in {
            "call.m3u8": playlist(address),
            "call.mp4": FTYP + box(b"moov", playlist(address)),
            "call.gif": b"GIF89a" + playlist(address),
        }.items():
            (folder / name).write_bytes(content)
            with pytest.raises(ValueError):
                measuring.inspect(folder / name, SETTINGS)
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.skipif(os.name != "posix", reason="files of these kinds are POSIX's")
def test_only_ordinary_files_are_opened(folder, tmp_path):
    (tmp_path / "link.mp4").symlink_to(folder / "good.mp4")
    (tmp_path / "nowhere.mp4").symlink_to(folder / "missing.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        for name in ("link.mp4", "nowhere.mp4", "pipe.mp4", "folder.mp4", "socket", "/dev/zero"):
            with pytest.raises(ValueError, match="ordinary file") as refused:
                measuring.inspect(tmp_path / name, SETTINGS)
            check_sentence(str(refused.value))


@pytest.mark.parametrize("name", ["missing.mp4", "n" * 5000 + ".mp4", "nul\0.mp4", ""])
def test_names_that_no_file_has(tmp_path, name):
    with pytest.raises(ValueError, match="Upload"):
        measuring.inspect(f"{tmp_path}/{name}" if name else "", SETTINGS)


@pytest.mark.skipif(os.name != "posix", reason="Windows has fewer names")
def test_names_are_only_names(folder, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    content = (folder / "good.mp4").read_bytes()
    for name in (
        *("-i.mp4", "-", "pipe:0", "file:x.mp4", "concat:a|b.mp4", "http:", "a%03d.mp4", "x.m3u8", "../x.mp4"),
        *(
            "$(touch owned).mp4",
            "`touch owned`",
            "a'b\"c;touch owned",
            "<b>x",
            "\n\x1b[2J.mp4",
            "ü 漢字 🤖",
            "n" * 255,
        ),
    ):
        Path(name).write_bytes(content)
        assert measuring.inspect(name, SETTINGS).frames == 30
        assert numbers(uploads.frames(name, SETTINGS, frames=4)) == [0, 1, 2, 3]
        Path(name).unlink()
    assert os.listdir(work) == [] and not (tmp_path / "owned").exists()


def test_too_large_a_file_is_refused_unread(tmp_path):
    path = tmp_path / "large.mp4"
    path.write_bytes(FTYP)
    os.truncate(path, 200_000_001)  # a hole: it takes no space
    with pytest.raises(ValueError, match="201 MB, and 200 are allowed") as refused:
        measuring.inspect(path, SETTINGS)
    check_sentence(str(refused.value))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep the limit on memory")
def test_memory_is_bounded(folder):
    (folder / "bomb.mp4").write_bytes(bomb(folder))
    with pytest.raises(ValueError, match="8000x8000"):  # for its size: the memory for one frame was never asked for
        measuring.inspect(folder / "bomb.mp4", Settings(upload_memory_mb=320))
    (folder / "big.mp4").write_bytes(picture("4096x4096", [*H264, "-preset", "ultrafast"], "mp4")(folder))
    assert measuring.inspect(folder / "big.mp4", SETTINGS).width == 4096
    with pytest.raises(ValueError) as refused:
        measuring.inspect(folder / "big.mp4", Settings(upload_memory_mb=220, upload_work_seconds=8))
    check_sentence(str(refused.value))


def test_time_is_bounded(folder):
    started = time.monotonic()
    with pytest.raises(ValueError, match="longer than 0.01 seconds") as refused:
        measuring.inspect(folder / "good.mp4", Settings(upload_work_seconds=0.01))
    check_sentence(str(refused.value))
    assert time.monotonic() - started < 20


def gif(frames, side, hundredths=1):
    """A GIF of so many whole frames, 23 bytes each."""
    size = struct.pack("<HH", side, side)
    frame = b"!\xf9\x04\x00" + struct.pack("<H", hundredths) + b"\0\0," + bytes(4) + size + b"\0\x02\x02L\x01\0"
    return b"GIF89a" + size + b"\xf0\0\0" + b"\0\0\0\xff\xff\xff" + frame * frames + b";"


def test_more_pixels_than_there_is_time_for_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.gif"
    path.write_bytes(gif(3000, 4096))
    monkeypatch.setattr(uploads, "_steady", None)  # what decodes more than the first frame
    for refuse in (
        lambda: measuring.inspect(path, SETTINGS),
        lambda: uploads.frames(path, SETTINGS),
        lambda: uploads.normalise(path, tmp_path / "out.mp4", SETTINGS),
    ):
        with pytest.raises(ValueError, match="3000 frames of 4096x4096, and reading them takes too long") as refused:
            refuse()
        check_sentence(str(refused.value))
    path.write_bytes(gif(300, 4096))  # as many of a film would be read
    with pytest.raises(ValueError, match="reading them takes too long"):
        measuring.inspect(path, SETTINGS)
    path.write_bytes(gif(3000, 480))
    assert measuring.inspect(path, SETTINGS).frames == 3000


def test_frames_that_stay_for_long_count_as_often_as_they_are_drawn(tmp_path):
    """Two quick frames make a quick clip, in which the third is repeated for a minute."""
    path = tmp_path / "stays.gif"
    path.write_bytes(gif(4, 4096, 2)[:-1] + gif(1, 4096, 6000)[-24:])
    with pytest.raises(ValueError, match=r"\d{4} frames of 4096x4096"):
        measuring.inspect(path, SETTINGS)
    path.write_bytes(gif(4, 480, 2)[:-1] + gif(1, 480, 6000)[-24:])
    assert measuring.inspect(path, SETTINGS).frames == 3000


def test_a_clip_that_grows_midway_keeps_to_what_its_first_frame_was_allowed_for(tmp_path, monkeypatch):
    jpeg = ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]
    parts = [
        make(tmp_path / f"{side}.mjpeg", *jpeg, count=count, width=side, height=side)
        for side, count in ((64, 1), (512, 299))
    ]
    (tmp_path / "both.mjpeg").write_bytes(b"".join(part.read_bytes() for part in parts))
    ffmpeg("-r", 30, "-i", tmp_path / "both.mjpeg", "-c", "copy", tmp_path / "grows.mkv")
    assert uploads.frames(tmp_path / "grows.mkv", SETTINGS, frames=4).shape == (4, 64, 64, 3)
    monkeypatch.setattr(measuring, "PIXELS", 150**2 * 300 // 120)
    assert measuring.inspect(tmp_path / "grows.mkv", SETTINGS).frames == 300
    with pytest.raises(ValueError) as refused:
        uploads.frames(tmp_path / "grows.mkv", SETTINGS, frames=4)
    check_sentence(str(refused.value))


def test_decoded_frames_are_bounded(tmp_path):
    source = ["-f", "lavfi", "-i", "color=gray:s=1920x1080:r=30:d=4"]
    ffmpeg(*source, *H264, "-preset", "ultrafast", tmp_path / "long.mp4")
    with pytest.raises(ValueError, match="120 frames of 1920x1080 take 711 MB.*512.*86 frames") as refused:
        uploads.frames(tmp_path / "long.mp4", SETTINGS, frames=120, side=1920)
    check_sentence(str(refused.value))
    assert uploads.frames(tmp_path / "long.mp4", SETTINGS, frames=120, side=64).shape == (120, 36, 64, 3)


@pytest.mark.parametrize("name, options", [("a.mp4", H264), ("a.mkv", H264), *PICTURES.items()])
def test_truncated_files(tmp_path, name, options):
    faststart = ["-movflags", "+faststart", "-g", "5"] if name == "a.mp4" else []
    whole = make(tmp_path / name, *options, *faststart).read_bytes()
    counts = []
    for twelfth in (1, 4, 7, 10, 11, 12):
        (tmp_path / name).write_bytes(whole[: len(whole) * twelfth // 12])
        try:
            found = numbers(uploads.frames(tmp_path / name, SETTINGS, frames=30))
        except ValueError as error:
            check_sentence(str(error))
            counts.append(0)
        else:
            assert found[:-4] == list(range(len(found) - 4)) or len(found) < 4  # fewer, and the right ones
            assert found == sorted(found) and found[-1] <= len(found)  # what came last may miss its neighbours
            counts.append(len(found))
    assert counts == sorted(counts) and counts[0] < counts[-1] == 30


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", *PICTURES])
def test_flipped_bits(tmp_path, name):
    whole = make(tmp_path / name, *PICTURES.get(name, H264)).read_bytes()
    for seed in range(8):
        chance, broken = random.Random(seed), bytearray(whole)
        for _ in range(12):
            broken[chance.randrange(12, len(broken))] = chance.randrange(256)
        (tmp_path / name).write_bytes(broken)
        started = time.monotonic()
        try:
            frames = uploads.frames(tmp_path / name, SETTINGS, frames=8, side=48)
        except ValueError as error:
            check_sentence(str(error))
        else:
            assert len(frames) <= 8 and max(frames.shape[1:3]) <= 48 and frames.dtype == np.uint8
        assert time.monotonic() - started < 20


def test_a_damaged_part_is_told_and_the_rest_is_read(tmp_path):
    path = make(tmp_path / "a.mp4", *H264, "-g", "10", "-bf", "0", "-movflags", "+faststart")
    data = path.read_bytes()
    at = data.index(b"mdat") + 4
    sizes = [int(size) for size in re.findall(r"^0,.*?,.*?,.*?, +(\d+),", _packets(path), re.MULTILINE)]
    kept = at + sum(sizes[:20])
    path.write_bytes(data[:kept] + bytes(len(data) - kept))  # nothing but zeros from frame 20 on
    assert numbers(uploads.frames(path, SETTINGS, 0, 0.6, 18)) == list(range(18))
    with pytest.raises(ValueError, match="of the 30 chosen frames only 2") as refused:
        uploads.frames(path, SETTINGS, frames=30)
    check_sentence(str(refused.value))


def _packets(path):
    return ffmpeg("-i", path, "-c", "copy", "-f", "framecrc", "pipe:1").decode()


def copied(*options, before=(), source="good.mp4"):
    return lambda folder, path: ffmpeg(*before, "-i", folder / source, "-c", "copy", *options, path)


def encoded(*options, **more):
    return lambda folder, path: make(path, *options, **more)


def with_sound(*options):
    def made(folder, path):
        sound = ["-f", "lavfi", "-i", "sine=d=1.3"]
        ffmpeg(*sound, *options, "-i", folder / "good.mp4", "-c:v", "copy", "-map", "0:a", "-map", "1:v", path)

    return made


def with_cover(folder, path):
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", 1, folder / "cover.png")
    both = ["-i", folder / "cover.png", "-i", folder / "good.mp4", "-map", 0, "-map", 1]
    ffmpeg(*both, "-c", "copy", "-disposition:v:0", "attached_pic", path)


def with_attachment(folder, path):
    attached = ["-attach", folder / "secret.txt", "-metadata:s:t", "mimetype=text/plain"]
    ffmpeg("-i", folder / "good.mp4", *attached, "-c", "copy", path)


def with_metadata(folder, path):
    spoof = "x\n  Stream #0:0: Video: hevc, yuv420p, 9999x9999, 1 fps\r\x1b[2J\x07<script>alert(1)</script>"
    tags = [f"{key}={spoof}" for key in ("title", "comment", "artist", "\n#dimensions 0: 9x9\n")]
    ffmpeg("-i", folder / "good.mp4", "-c", "copy", *(word for tag in tags for word in ("-metadata", tag)), path)


RIGHT = {  # name -> (what makes it, what of the clip differs from good.mp4)
    "plain.mp4": (copied(), {}),
    "header first.mp4": (copied("-movflags", "+faststart"), {}),
    "fragments.mp4": (copied("-movflags", "frag_keyframe+empty_moov"), {}),
    "no header.mov": (lambda folder, path: path.write_bytes(_old(folder)), {}),
    "plain.mov": (copied(), {}),
    "plain.mkv": (copied(), {"kind": "WebM or MKV"}),
    "named wrongly.gif": (copied("-f", "matroska"), {"kind": "WebM or MKV"}),
    "named badly.m3u8": (copied("-f", "mp4"), {}),
    "key frames.mp4": (encoded(*H264, "-g", "7"), {}),
    "vp9.webm": (encoded("-c:v", "libvpx-vp9", "-b:v", "1M"), {"codec": "VP9", "kind": "WebM or MKV"}),
    "vp8.webm": (encoded("-c:v", "libvpx", "-b:v", "1M"), {"codec": "VP8", "kind": "WebM or MKV"}),
    "hevc.mp4": (encoded("-c:v", "libx265", "-x265-params", "log-level=none"), {"codec": "HEVC"}),
    "hevc of a phone.mov": (
        encoded(
            *("-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1"),
            **dict(width=96, height=64),
        ),
        {"codec": "HEVC", "width": 96, "height": 64},
    ),
    "av1.mp4": (encoded("-c:v", "libaom-av1", "-cpu-used", "8", "-g", "10"), {"codec": "AV1"}),
    "mpeg4.mp4": (encoded("-c:v", "mpeg4"), {"codec": "MPEG-4"}),
    "mjpeg.mov": (encoded("-c:v", "mjpeg"), {"codec": "Motion JPEG"}),
    "prores.mov": (encoded("-c:v", "prores_ks"), {"codec": "ProRes"}),
    "plain.gif": (encoded("-c:v", "gif", fps=10), {"codec": "GIF", "kind": "GIF", "fps": 10.0, "seconds": 3.0}),
    "animation.mov": (encoded("-c:v", "qtrle"), {"codec": "QuickTime Animation"}),
    "moving.webp": (
        encoded("-c:v", "libwebp_anim", "-lossless", "1", fps=25),
        {"codec": "WebP", "kind": "WebP", "fps": 25.0, "seconds": 1.2},
    ),
    "moving.png": (
        encoded("-c:v", "apng", "-f", "apng", fps=10),
        {"codec": "APNG", "kind": "APNG", "fps": 10.0, "seconds": 3.0},
    ),
    "odd size.gif": (
        encoded("-c:v", "gif", fps=25, width=61, height=33),
        {"codec": "GIF", "kind": "GIF", "fps": 25.0, "seconds": 1.2, "width": 61, "height": 33},
    ),
    "odd size.webm": (
        encoded("-c:v", "libvpx-vp9", "-b:v", "1M", width=51, height=37),
        {"codec": "VP9", "kind": "WebM or MKV", "width": 51, "height": 37},
    ),
    "sound.mp4": (with_sound(), {"sound": True}),
    "sound before the picture.mp4": (with_sound("-itsoffset", "0.4"), {"sound": True}),
    "late start.mkv": (copied("-output_ts_offset", "100"), {"kind": "WebM or MKV"}),
    "film.mp4": (encoded(fps="24000/1001"), {"fps": 24000 / 1001, "seconds": 30 * 1001 / 24000}),
    "slow motion.mp4": (encoded(fps=240), {"fps": 240.0, "seconds": 0.125}),
    "thousand.mp4": (encoded(fps=1000), {"fps": 1000.0, "seconds": 0.03}),
    "slide show.mp4": (encoded(fps=1), {"fps": 1.0, "seconds": 30.0}),
    "cover.mp4": (with_cover, {}),
    "attachment.mkv": (with_attachment, {"kind": "WebM or MKV"}),
    "metadata.mkv": (with_metadata, {"kind": "WebM or MKV"}),
    "metadata.mp4": (with_metadata, {}),
    "trailing junk.mp4": (lambda folder, path: path.write_bytes((folder / "good.mp4").read_bytes() + noise(8)), {}),
}


def _old(folder):
    """The good clip as files were before MP4: without ftyp, its frames where they were."""
    data = (folder / "good.mp4").read_bytes()
    size = int.from_bytes(data[:4], "big")
    return struct.pack(">I", size) + b"free" + data[8:]


@pytest.mark.parametrize("name", RIGHT)
def test_read_rightly(folder, tmp_path, name):
    made, differences = RIGHT[name]
    path = tmp_path / name
    made(folder, path)
    clip = measuring.inspect(path, SETTINGS)
    expected = dict(width=WIDTH, height=HEIGHT, fps=30.0, seconds=1.0, frames=30, codec="H.264")
    expected = measuring.Clip(**expected | dict(kind="MP4 or MOV", sound=False, cut=False) | differences)
    assert math.isclose(clip.fps, expected.fps, rel_tol=1e-4)
    assert math.isclose(clip.seconds, expected.seconds, abs_tol=0.002)
    assert clip == measuring.Clip(**vars(expected) | dict(fps=clip.fps, seconds=clip.seconds))
    start = 4 / clip.fps
    frames = uploads.frames(path, SETTINGS, start, None, 8, 3)
    assert frames.shape == (8, clip.height, clip.width, 3) and frames.dtype == np.uint8
    assert numbers(frames) == list(uploads.choose(clip, start, None, 8, 3).indices) == list(range(4, 26, 3))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.gif", "a.webp", "a.apng", "cut.mp4"])
def test_every_part_is_read_exactly(tmp_path, name):
    fps = 25 if name in PICTURES else "30000/1001"
    path = make(tmp_path / name, *PICTURES.get(name, [*H264, "-g", "12"]), count=90, fps=fps)
    offset = 0
    if name == "cut.mp4":  # as a phone cuts: what was before stays in the file, hidden
        ffmpeg("-ss", "0.7", "-i", path, "-c", "copy", tmp_path / "b.mp4")
        path, offset = tmp_path / "b.mp4", 21
    clip = measuring.inspect(path, SETTINGS)
    assert clip.frames == 90 - offset
    chance = random.Random(1)
    for _ in range(6):
        start, stride = chance.random() * clip.seconds * 0.9, chance.choice([1, 2, 3, 7])
        choice = uploads.choose(clip, start, None, 12, stride)
        found = numbers(uploads.frames(path, SETTINGS, start, None, 12, stride))
        assert found == [offset + index for index in choice.indices], (start, stride)


@pytest.mark.parametrize("disposal", [0, 1])
@pytest.mark.parametrize("blend", [0, 1])
def test_frames_of_an_apng_that_lie_over_others_are_whole(tmp_path, disposal, blend):
    first, *rest = map(Image.fromarray, bars(20))
    path, options = tmp_path / "a.png", {"duration": 50, "disposal": disposal, "blend": blend}
    first.save(path, save_all=True, append_images=rest, **options)
    assert measuring.inspect(path, SETTINGS).frames == 20
    assert numbers(uploads.frames(path, SETTINGS, 0.25, None, 10)) == list(range(5, 15))


def test_variable_frame_rate_keeps_its_times(tmp_path):
    """Ten frames at 30 a second, a pause of one second, ten at 30 a second, ten at 15."""
    times = [
        *(n / 30 for n in range(10)),
        *(1.3 + n / 30 for n in range(10)),
        *(1.3 + 10 / 30 + n / 15 for n in range(10)),
    ]
    steps = "+".join(f"eq(N,{n})*{moment:.6f}" for n, moment in enumerate(times))
    for name in ("a.mp4", "a.mkv"):
        path = make(tmp_path / name, "-vf", f"settb=1/90000,setpts='({steps})/TB'", "-fps_mode", "vfr", *H264)
        clip = measuring.inspect(path, SETTINGS)
        assert clip.fps == pytest.approx(30, abs=0.05) and clip.seconds == pytest.approx(2.3, abs=0.08)
        for start in (0, 0.5, 1.1, 1.4):
            choice = uploads.choose(clip, start, None, 60, 1)
            found = numbers(uploads.frames(path, SETTINGS, start, None, 60, 1))
            seen = [max(n for n, moment in enumerate(times) if moment <= (k + 0.5) / clip.fps) for k in choice.indices]
            assert found == seen


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_upright(folder, tmp_path, degrees):
    copied(before=["-display_rotation", degrees])(folder, tmp_path / "turned.mov")
    clip = measuring.inspect(tmp_path / "turned.mov", SETTINGS)
    upright = uploads.frames(tmp_path / "turned.mov", SETTINGS)
    assert upright.shape[1:3] == (clip.height, clip.width)
    assert (clip.width, clip.height) == ((WIDTH, HEIGHT) if degrees == 180 else (HEIGHT, WIDTH))
    assert numbers(np.rot90(upright, -degrees // 90, axes=(1, 2))) == list(range(16))
    uploads.normalise(tmp_path / "turned.mov", tmp_path / "out.mp4", SETTINGS)
    preview = video.read(tmp_path / "out.mp4")
    assert numbers(np.rot90(preview, -degrees // 90, axes=(1, 2))) == list(range(30))


def test_pixels_that_are_not_square_become_square(tmp_path):
    path = make(tmp_path / "wide.mp4", "-vf", "setsar=2", *H264)
    clip = measuring.inspect(path, SETTINGS)
    assert (clip.width, clip.height) == (2 * WIDTH, HEIGHT)
    frames = uploads.frames(path, SETTINGS, side=48)
    assert frames.shape[1:3] == (16, 48) and numbers(frames) == list(range(16))


def test_a_picture_that_changes_its_shape_midway_is_not_distorted(folder, tmp_path):
    plain = [*H264, "-bf", "0", "-f", "h264"]
    first = make(tmp_path / "a", *plain, width=96, height=64).read_bytes()
    second = make(tmp_path / "b", *plain, width=64, height=96).read_bytes()
    (tmp_path / "both").write_bytes(first + second)
    ffmpeg("-f", "h264", "-r", 30, "-i", tmp_path / "both", "-c", "copy", tmp_path / "turning.mp4")
    frames = uploads.frames(tmp_path / "turning.mp4", SETTINGS, frames=60)
    assert frames.shape == (60, 64, 96, 3)
    assert numbers(frames[:29]) == list(range(29))
    left, right = 96 // 2 - 64 * 64 // 96 // 2, 96 // 2 + 64 * 64 // 96 // 2
    assert numbers(frames[30:, :, left:right]) == list(range(30))
    assert frames[30:, :, : left - 1].max() < 10 and frames[30:, :, right + 1 :].max() < 10


@pytest.mark.parametrize("side, shape", [(48, (32, 48)), (1024, (32, 48)), (24, (16, 24)), (17, (11, 17)), (1, (1, 1))])
def test_frames_are_shrunk_and_never_grow(folder, side, shape):
    frames = uploads.frames(folder / "good.mp4", SETTINGS, frames=2, side=side)
    assert frames.shape == (2, *shape, 3)


@pytest.mark.parametrize("name, options", [("one.mp4", H264), ("one.gif", ["-c:v", "gif"])])
def test_a_single_frame_is_a_short_clip(tmp_path, name, options):
    path = make(tmp_path / name, *options, count=1, fps=10)
    clip = measuring.inspect(path, SETTINGS)
    assert (clip.frames, clip.cut) == (1, False) and clip.seconds > 0
    assert uploads.choose(clip, frames=16).frames == 1
    assert numbers(uploads.frames(path, SETTINGS, frames=16)) == [0]
    uploads.normalise(path, tmp_path / "out.mp4", SETTINGS)
    assert numbers(video.read(tmp_path / "out.mp4")) == [0]


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp"])
def test_a_single_picture_is_told_where_it_can_be_used(tmp_path, kind):
    """The file chooser offers some of these: PNG and WebP may move."""
    Image.new("RGB", (96, 64), "red").save(tmp_path / f"still.{kind}")
    with pytest.raises(ValueError, match=STILL):
        measuring.inspect(tmp_path / f"still.{kind}", SETTINGS)


def test_an_ffmpeg_that_does_not_know_a_kind_is_named(tmp_path, monkeypatch):
    path = make(tmp_path / "a.webp", *PICTURES["a.webp"])
    monkeypatch.setattr(opening, "_sniff", lambda head: "webp_of_tomorrow")
    monkeypatch.setitem(opening.KINDS, "webp_of_tomorrow", "WebP")
    with pytest.raises(ValueError, match=r"ffmpeg of this machine is too old .*\(WebP\)"):
        measuring.inspect(path, SETTINGS)


def test_of_long_clips_only_the_beginning_is_read(tmp_path):
    make(tmp_path / "second.mp4", *H264, "-g", "1000", count=1000, fps=1000)
    ffmpeg("-stream_loop", 64, "-i", tmp_path / "second.mp4", "-c", "copy", tmp_path / "bomb.mp4")  # 65,000 frames
    started = time.monotonic()
    clip = measuring.inspect(tmp_path / "bomb.mp4", SETTINGS)
    assert (clip.seconds, clip.frames, clip.fps, clip.cut) == (60.0, 60_000, pytest.approx(1000), True)
    found = numbers(uploads.frames(tmp_path / "bomb.mp4", SETTINGS, 0.7, None, 100, 1))
    assert found == [n % 128 for n in range(700, 800)]
    assert time.monotonic() - started < 30
    with pytest.raises(ValueError, match="less than 60 seconds"):
        uploads.frames(tmp_path / "bomb.mp4", SETTINGS, 61)
    short = Settings(upload_seconds=2)
    assert measuring.inspect(tmp_path / "bomb.mp4", short).frames == 2000


@pytest.mark.parametrize(
    "size, preview", [((1280, 720), (1280, 720)), ((1080, 1920), (404, 720)), ((51, 37), (52, 36))]
)
def test_previews_play_in_browsers(tmp_path, size, preview):
    width, height = size
    sound = ["-f", "lavfi", "-i", "sine=d=1", "-map", "0:v", "-map", "1:a", "-metadata", "comment=a secret place"]
    picture = f"testsrc=s={width}x{height}:r=120:d=0.5"
    ffmpeg(
        "-f", "lavfi", "-i", picture, *sound, *H264, "-pix_fmt", "yuv444p", "-preset", "ultrafast", tmp_path / "a.mkv"
    )
    out = tmp_path / "out.mp4"
    uploads.normalise(tmp_path / "a.mkv", out, SETTINGS)
    assert video.probe(out) == video.Info(*preview, 60.0, "h264 (High)", "yuv420p")
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat") and b"soun" not in data
    assert len(video.read(out)) == 30 and video.read_comment(out) == "" and b"secret" not in data
    assert sorted(os.listdir(tmp_path)) == ["a.mkv", "out.mp4"]


CLIP = measuring.Clip(640, 360, 30.0, 5.0, 150, "H.264", "MP4 or MOV", False, False)


@pytest.mark.parametrize(
    "asked, chosen",
    [
        ((), (0, 1, 16, 16)),
        ((0, None, 24, 4), (0, 4, 24, 24)),
        ((1.0, None, 24, 4), (30, 4, 24, 24)),
        ((1.0, 2.0, 24, 4), (30, 4, 8, 24)),
        ((0.1, 0.2, 16, 1), (3, 1, 3, 16)),
        ((0.05, None, 2, 1), (1, 1, 2, 2)),
        ((4.9, None, 16, 1), (147, 1, 3, 16)),
        ((4.999, None, 16, 10_000), (149, 10_000, 1, 16)),
        ((0, 1e300, 10_000, 1), (0, 1, 150, 10_000)),
        ((0, 10**400, 16.0, 2.0), (0, 2, 16, 16)),
        ((1.0, 1.0001, 16, 1), (30, 1, 1, 16)),
    ],
)
def test_choice(asked, chosen):
    choice = uploads.choose(CLIP, *asked)
    assert (choice.first, choice.stride, choice.frames, choice.wanted) == chosen
    assert choice.fps == 30 / choice.stride and len(choice.indices) == choice.frames


def test_no_choice_goes_past_the_end():
    chance = random.Random(2)
    for _ in range(2000):
        frames, fps = chance.randint(1, 300), chance.choice([1, 23.976, 29.97, 1000, 0.02])
        clip = measuring.Clip(8, 8, fps, frames / fps, frames, "GIF", "GIF", False, False)
        start = chance.random() * clip.seconds * 0.9999
        end = chance.choice([None, math.nextafter(start, math.inf), start + chance.random() * clip.seconds * 2])
        choice = uploads.choose(clip, start, end, chance.randint(1, 40), chance.randint(1, 40))
        assert 1 <= choice.frames <= choice.wanted
        assert 0 <= choice.indices[0] <= choice.indices[-1] < frames


@pytest.mark.parametrize("name", ["start", "end", "frames", "stride", "side"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -0.5, "1", True, [1], 1j, 10**400, "x" * 9000])
def test_senseless_values_are_refused(folder, name, value):
    if (name, value) == ("end", 10**400):
        return  # a late end is no mistake
    with pytest.raises(ValueError) as refused:
        uploads.frames(folder / "good.mp4", SETTINGS, **{name: value})
    told = str(refused.value)
    assert told.startswith("The ") and told.endswith(".") and len(told) < 160


@pytest.mark.parametrize(
    "values, words",
    [
        (dict(start=5.0), "less than 5 seconds"),
        (dict(start=2, end=2), "after the start, 2"),
        (dict(start=2, end=1), "after the start, 2"),
        (dict(frames=0), "number of frames"),
        (dict(frames=1.5), "whole number"),
        (dict(stride=0), "stride"),
        (dict(stride=10_001), "10000"),
        (dict(start=None), "start must be a number"),
    ],
)
def test_limits_of_a_choice(values, words):
    with pytest.raises(ValueError, match=words):
        uploads.choose(CLIP, **values)


# What a file says of its making


def test_the_comment_of_a_video_made_here_is_read(tmp_path):
    comment = json.dumps({"prompt": 'a "bear" = blue;\n#1 🤖', "seed": 7}, ensure_ascii=False)
    video.write(bars(8, 64, 64), tmp_path / "a.mp4", 8, comment)
    (tmp_path / "a.mp4").rename(tmp_path / "no name at all")
    assert uploads.read_comment(tmp_path / "no name at all", SETTINGS) == comment


def test_files_of_others_have_no_comment_or_their_own(folder, tmp_path):
    assert uploads.read_comment(folder / "good.mp4", SETTINGS) == ""
    copied("-metadata", "comment=<b>shot at the beach</b>")(folder, tmp_path / "a.mp4")
    assert uploads.read_comment(tmp_path / "a.mp4", SETTINGS) == "<b>shot at the beach</b>"
    encoded("-c:v", "gif")(folder, tmp_path / "a.gif")
    with pytest.raises(ValueError, match="This is a GIF file, and only MP4 files tell"):
        uploads.read_comment(tmp_path / "a.gif", SETTINGS)


@pytest.mark.parametrize("name", REFUSED)
def test_no_hostile_file_says_more_than_it_holds(folder, name):
    content, _ = REFUSED[name]
    path = folder / name
    path.write_bytes(content(folder) if callable(content) else content)
    started = time.monotonic()
    try:
        assert TEXT not in uploads.read_comment(path, SETTINGS)
    except ValueError as refused:
        check_sentence(str(refused))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("length", [5, 30_000_000])
def test_a_giant_comment_is_cut_or_refused(tmp_path, length):
    item = box(b"data", struct.pack(">II", 1, 0) + b"a" * length)
    handler = box(b"hdlr", struct.pack(">II4s4s9x", 0, 0, b"mdir", b"appl"))
    tags = box(b"meta", bytes(4) + handler + box(b"ilst", box(b"\xa9cmt", item)))
    (tmp_path / "a.mp4").write_bytes(FTYP + box(b"moov", box(b"udta", tags)))
    try:
        read = uploads.read_comment(tmp_path / "a.mp4", SETTINGS)
    except ValueError as refused:
        check_sentence(str(refused))
        read = ""
    assert read == "aaaaa" if length == 5 else len(read) <= uploads.MAX_COMMENT


def test_a_truncated_video_says_all_or_nothing(tmp_path):
    comment = json.dumps({"prompt": "a bear in the snow", "seed": 7})
    video.write(bars(8, 64, 64), tmp_path / "a.mp4", 8, comment)
    whole = (tmp_path / "a.mp4").read_bytes()
    for size in range(12, len(whole), len(whole) // 12):
        (tmp_path / "cut.mp4").write_bytes(whole[:size])
        try:
            assert uploads.read_comment(tmp_path / "cut.mp4", SETTINGS) in ("", comment)
        except ValueError as refused:
            check_sentence(str(refused))
