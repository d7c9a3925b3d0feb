"""Files that mean harm: 45 videos, 20 GIFs, 50 images and 25 videos with settings that somebody forged."""

import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image

from scripts.attack.corpus import CLIP, EITHER, IMAGE, REFUSED, RESTORE, Input
from scripts.attack.honest_files import H264, TONE, carrying, described, image, video

PASSWD = b"/etc/passwd"


def inputs() -> Iterator[Input]:
    for name, (make, right) in (VIDEOS | GIFS).items():
        yield Input(name, CLIP, make, right)
    for name, (make, right) in IMAGES.items():
        yield Input(name, IMAGE, make, right)
    for number, comment in enumerate(FORGED):
        yield Input(f"forged{number}.mp4", RESTORE, partial(carrying, comment), REFUSED)


def _cut(make: Callable[[], bytes], share: float) -> bytes:
    content = make()
    return content[: int(len(content) * share)]


def _flipped(make: Callable[[], bytes], seed: int, flips: int = 40) -> bytes:
    """The file with `flips` of its bytes changed, the first 32 excepted."""
    content, draw = bytearray(make()), random.Random(seed)
    for _ in range(flips):
        content[draw.randrange(32, len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def _plain() -> bytes:
    return video(".mp4", *H264, "-movflags", "+faststart")


def _matroska() -> bytes:
    return video(".mkv", *H264)


def _patched(old: bytes, new: bytes, after: int = 0) -> bytes:
    """A plain MP4 file in which `new` stands `after` bytes behind every `old`."""
    content = bytearray(_plain())
    at = content.find(old)
    while at >= 0:
        content[at + after : at + after + len(new)] = new
        at = content.find(old, at + len(old) + after)
    return bytes(content)


def _box(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", len(content) + 8 if size is None else size) + kind + content


FTYP = _box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41")
PLAYLIST = b"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


def _nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = _box(b"moov", content)
    return FTYP + content


VIDEOS = {
    **{f"cut-{share}.mp4": (partial(_cut, _plain, share / 100), EITHER) for share in (2, 10, 30, 60, 90, 99)},
    **{f"cut-{share}.mkv": (partial(_cut, _matroska, share / 100), EITHER) for share in (2, 20, 70)},
    **{f"flipped-{seed}.mp4": (partial(_flipped, _plain, seed), EITHER) for seed in range(6)},
    **{f"flipped-{seed}.mkv": (partial(_flipped, _matroska, seed), EITHER) for seed in range(4)},
    "header-only.mp4": (lambda: FTYP, REFUSED),
    "noise.mp4": (lambda: FTYP + random.Random(1).randbytes(60_000), REFUSED),
    "huge-box.mp4": (lambda: FTYP + _box(b"moov", b"\0" * 64, 0xFFFFFFF0), REFUSED),
    "long-box.mp4": (lambda: FTYP + struct.pack(">I4sQ", 1, b"moov", 2**62) + b"\0" * 64, REFUSED),
    "nested.mp4": (partial(_nested, 20_000), REFUSED),
    "playlist.mp4": (lambda: PLAYLIST, REFUSED),
    "playlist-behind.mp4": (lambda: FTYP + PLAYLIST, REFUSED),
    "concat.mp4": (lambda: b"ffconcat version 1.0\nfile '/etc/passwd'\n", REFUSED),
    "reference.mov": (lambda: FTYP + _box(b"moov", _box(b"rmra", _box(b"rmda", _box(b"rdrf", PASSWD)))), REFUSED),
    "alias.mp4": (partial(_patched, b"url ", b"/etc/passwd"[:4], 8), EITHER),
    "giant-sides.mp4": (partial(_patched, b"avc1", struct.pack(">HH", 65535, 65535), 28), EITHER),
    "no-timescale.mp4": (partial(_patched, b"mdhd", struct.pack(">I", 0), 16), EITHER),
    "eternal.mp4": (partial(_patched, b"stts", struct.pack(">II", 24, 0x7FFFFFFF), 12), EITHER),
    "many-samples.mp4": (partial(_patched, b"stsz", struct.pack(">II", 1, 0x0FFFFFFF), 8), EITHER),
    "wild-offsets.mp4": (partial(_patched, b"stco", struct.pack(">II", 0x0FFFFFFF, 0xFFFFFFFF), 8), EITHER),
    "sound-only.mp4": (lambda: video(".mp4", *TONE, "-vn", "-map", "1:a", "-c:a", "aac"), REFUSED),
    "still.avif": (lambda: _box(b"ftyp", b"avif\0\0\0\0mif1avif") + b"\0" * 400, REFUSED),
    "transport.ts": (lambda: video(".ts", *H264), REFUSED),
    "old.avi": (lambda: video(".avi", "-c:v", "mpeg4"), REFUSED),
    "ebml-only.webm": (lambda: b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff" + b"\0" * 200, REFUSED),
    "wide.mp4": (lambda: video(".mp4", "-c:v", "mpeg4", size="8000x16", seconds=0.5), REFUSED),
    "many-frames.mp4": (lambda: video(".mp4", *H264, "-vf", "setpts=N/900/TB", "-r", "900", size="16x16",
                                      seconds=300), EITHER),
    "talkative.mp4": (lambda: video(".mp4", *H264, "-metadata", f"comment={'x' * 120_000}"), EITHER),
    "ten-streams.mkv": (lambda: video(".mkv", *["-map", "0"] * 10, *H264, size="16x16"), EITHER),
    "page.webm": (lambda: b"<html><script>alert(1)</script>", REFUSED),
    "program.mp4": (lambda: b"\x7fELF" + b"\0" * 9000, REFUSED),
}  # fmt: skip


def gif(side: int, frames: int, size: tuple[int, int] = (1, 1), at: tuple[int, int] = (0, 0), delay: int = 4) -> bytes:
    """A GIF that says it is `side` pixels wide and high, of `frames` tiny pictures: 23 bytes each."""
    tiny = b"\x21\xf9\x04\0" + struct.pack("<H", delay) + b"\0\0"
    tiny += b"\x2c" + struct.pack("<HHHH", *at, *size) + b"\0\x02\x02\x4c\x01\0"
    return b"GIF89a" + struct.pack("<HH", side, side) + b"\xf0\0\0\0\0\0\xff\xff\xff" + tiny * frames + b"\x3b"


GIFS = {
    **{f"screen-{side}x{count}.gif": (partial(gif, side, count), EITHER)
       for side, count in ((4096, 3000), (4096, 300), (4000, 6000), (2048, 3000), (1024, 20_000), (64, 60_000))},
    **{f"screen-{side}.gif": (partial(gif, side, 3), REFUSED) for side in (5000, 65535)},
    "no-screen.gif": (partial(gif, 0, 3), REFUSED),
    "one.gif": (partial(gif, 64, 1), EITHER),
    "outside.gif": (partial(gif, 64, 30, (64, 64), (60_000, 60_000)), EITHER),
    "giant-frame.gif": (partial(gif, 64, 30, (65535, 65535)), EITHER),
    "no-frame.gif": (partial(gif, 64, 0), REFUSED),
    "no-time.gif": (partial(gif, 64, 500, delay=0), EITHER),
    "all-time.gif": (partial(gif, 64, 500, delay=65535), EITHER),
    "cut.gif": (lambda: gif(128, 50)[:300], EITHER),
    "no-palette.gif": (lambda: b"GIF89a@\0@\0\0\0\0" + gif(64, 9)[19:], EITHER),
    "bad-codes.gif": (lambda: gif(64, 40).replace(b"\x02\x02\x4c\x01", b"\x0c\x02\xff\xff"), EITHER),
    "extensions.gif": (lambda: gif(64, 0)[:-1] + b"\x21\xfe\xff" + b"x" * 255 + (b"\xff" + b"y" * 255) * 9000, REFUSED),
    "head.gif": (lambda: b"GIF89a", REFUSED),
}  # fmt: skip


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int = 64, height: int = 64, bits: int = 8, colours: int = 2, data: bytes | None = None,
        extra: bytes = b"", end: bool = True) -> bytes:  # fmt: skip
    """A PNG of whatever its header says; black, if `data` does not say otherwise."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colours, 1)
    if data is None:
        row = bytes(1 + (width * channels * bits + 7) // 8)
        packer = zlib.compressobj(9)
        data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    body = b"\x89PNG\r\n\x1a\n" + header + extra + _chunk(b"IDAT", data)
    return body + _chunk(b"IEND", b"") if end else body


def _bomb(megabytes: int) -> bytes:
    return zlib.compress(b"A" * megabytes * 2**20, 9)


def _text(kind: bytes, megabytes: int, times: int = 1) -> bytes:
    before = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\x01\0\0\0", b"iCCP": b"k\0\0"}[kind]
    return png(extra=_chunk(kind, before + _bomb(megabytes)) * times)


def _scans(side: int, times: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: every one goes over the whole picture."""
    plain = image("RGB", ".jpg", size=(side, side), progressive=True)
    scan = plain[plain.rindex(b"\xff\xda") : -2]
    return plain[:-2] + scan * times + b"\xff\xd9"


def _sides(width: int, height: int) -> bytes:
    """A JPEG that says it has other sides."""
    content = bytearray(image("RGB", ".jpg"))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def _exif(content: bytes) -> bytes:
    plain = image("RGB", ".jpg")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 8) + b"Exif\0\0" + content + plain[2:]


def _saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 20, 30)).save(file, kind, **options)
    return file.getvalue()


def _bitmap(width: int, height: int, compression: int = 0, bits: int = 24) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header + b"\0" * 400


def _moving(kind: str, frames: int) -> bytes:
    first, *rest = [Image.new("RGB", (64, 64), (n % 255, 0, 0)) for n in range(frames)]
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=rest)
    return file.getvalue()


ENDLESS = b"II*\0\x08\0\0\0" + struct.pack("<H", 0xFFFF) + struct.pack("<HHII", 0x0112, 2, 0xFFFFFFF, 8) * 3000
IMAGES = {
    **{f"bomb-{side}.png": (partial(png, side, side, 1, 0), REFUSED) for side in (8192, 20_000)},
    "bomb-4096.png": (partial(png, 4096, 4096, 16, 6), EITHER),
    "claims.png": (partial(png, 2**31 - 1, 2**31 - 1, 8, 2, zlib.compress(b"\0" * 99)), REFUSED),
    "claims-zero.png": (partial(png, 0, 0, 8, 2, zlib.compress(b"\0")), REFUSED),
    "short-data.png": (partial(png, 512, 512, 8, 2, zlib.compress(b"\0" * 99)), EITHER),
    "long-data.png": (partial(png, 64, 64, 8, 2, _bomb(100)), EITHER),
    "odd-bits.png": (partial(png, 64, 64, 7, 2, zlib.compress(b"\0" * 99)), REFUSED),
    "odd-colours.png": (partial(png, 64, 64, 8, 9, zlib.compress(b"\0" * 99)), REFUSED),
    "no-palette.png": (partial(png, 64, 64, 8, 3), EITHER),
    "no-end.png": (partial(png, end=False), EITHER),
    "no-data.png": (lambda: png()[:33], REFUSED),
    "noise-data.png": (partial(png, data=random.Random(3).randbytes(5000)), REFUSED),
    "text-60.png": (partial(_text, b"zTXt", 60), EITHER),
    "text-120.png": (partial(_text, b"zTXt", 120), EITHER),
    "texts.png": (partial(_text, b"zTXt", 1, 150), EITHER),
    "itext.png": (partial(_text, b"iTXt", 60), EITHER),
    "profile.png": (partial(_text, b"iCCP", 60), EITHER),
    "chunks.png": (lambda: png(extra=_chunk(b"prVt", b"") * 200_000), EITHER),
    "claimed-chunk.png": (lambda: png()[:33] + b"\x7f\xff\xff\xffzTXtk\0\0", REFUSED),
    "wrong-sum.png": (lambda: png()[:-20] + b"\0\0\0\0" + png()[-16:], EITHER),
    "moving.png": (partial(_moving, "PNG", 200), EITHER),
    **{f"scans-{side}x{times}.jpg": (partial(_scans, side, times), EITHER)
       for side, times in ((4096, 60), (4096, 400), (1024, 2000))},
    "sides.jpg": (partial(_sides, 65535, 65535), REFUSED),
    "sides-zero.jpg": (partial(_sides, 0, 0), REFUSED),
    "sides-4096.jpg": (partial(_sides, 4096, 4096), EITHER),
    "cut.jpg": (lambda: image("RGB", ".jpg", size=(800, 600))[:2000], EITHER),
    "restarts.jpg": (lambda: image("RGB", ".jpg")[:-2] + b"\xff\xd0\xff\xd1" * 50_000, EITHER),
    "exif-endless.jpg": (partial(_exif, ENDLESS), EITHER),
    "exif-noise.jpg": (partial(_exif, random.Random(4).randbytes(3000)), EITHER),
    "exif-turn.jpg": (partial(_exif, b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIII", 0x0112, 3, 1, 99, 0)), EITHER),
    **{f"other.{kind.lower()}": (partial(_saved, kind), REFUSED)
       for kind in ("TIFF", "ICO", "PCX", "SGI", "TGA", "PPM")},
    "post.eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n", REFUSED),
    "layers.psd": (lambda: b"8BPS\0\1" + b"\0" * 200, REFUSED),
    "draws.svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', REFUSED),
    "moving.webp": (partial(_moving, "WEBP", 100), EITHER),
    "cut.webp": (lambda: image("RGB", ".webp", size=(600, 400))[:200], EITHER),
    "claims.webp": (lambda: b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6 + b"\0" * 99, REFUSED),
    "claims.bmp": (partial(_bitmap, 2**31 - 1, 2**31 - 1), REFUSED),
    "negative.bmp": (partial(_bitmap, -64, -64), REFUSED),
    "packed.bmp": (partial(_bitmap, 4096, 4096, 1, 8), EITHER),
    "odd-packing.bmp": (partial(_bitmap, 64, 64, 77), REFUSED),
    "empty-head.png": (lambda: b"\x89PNG\r\n\x1a\n", REFUSED),
}  # fmt: skip


_DEEP = "[" * 60_000 + "]" * 60_000
FORGED = (
    "null",
    "[]",
    '"text"',
    "{}",
    "{",
    _DEEP,
    '{"task": ' + _DEEP + "}",
    '{"task": "text-to-video"}',
    '{"task": ["text-to-video"], "model": 1, "prompt": 1, "seed": 1}',
    '{"task": {"a": 1}}',
    described("a robot", task="delete-everything"),
    described("a robot", model="../../../../etc"),
    described("a robot", model=["miniature-modelscope"]),
    described("a robot", model={"a": 1}),
    described("", steps=10),
    described(["a", "robot"]),
    described("a robot", seed="1e999"),
    described("a robot").replace('"seed": 0', '"seed": 1e999'),
    described("a robot").replace('"seed": 0', '"seed": NaN'),
    described("a robot").replace('"seed": 0', f'"seed": {"9" * 6000}'),
    described("a robot", steps=10**9),
    described("a robot", frames=-1),
    described("a robot", os="system"),
    json.dumps({"task": "grid", "of": {"task": "grid"}, "prompt": 3, "seeds": {}, "jobs": None}),
    json.dumps({"task": "finish", "of": json.loads(described("a robot")), "source": {"$ne": ""}, "upscale": []}),
)  # fmt: skip
