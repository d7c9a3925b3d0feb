"""A hundred files as people have them: 20 videos, 15 GIFs, 30 images, 25 keypoints and 10 videos made by the app."""

import io
import json
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import imageio_ffmpeg
from PIL import Image, ImageDraw

from pipelines.catalog import CATALOG
from pipelines.tasks import TextToVideo, to_json
from scripts.attack.corpus import ACCEPTED, CLIP, IMAGE, POSES, RESTORE, Input

STANDING = (  # OpenPose's 18 joints of somebody who stands, as shares of the picture
    *((0.50, 0.20), (0.50, 0.32), (0.42, 0.32), (0.38, 0.45), (0.36, 0.58), (0.58, 0.32), (0.62, 0.45), (0.64, 0.58)),
    *((0.45, 0.58), (0.44, 0.75), (0.44, 0.92), (0.55, 0.58), (0.56, 0.75), (0.56, 0.92)),
    *((0.48, 0.18), (0.52, 0.18), (0.46, 0.19), (0.54, 0.19)),
)


def inputs() -> Iterator[Input]:
    for name, arguments in VIDEOS.items():
        yield Input(name, CLIP, partial(video, Path(name).suffix, *arguments), ACCEPTED)
    for number in range(15):
        yield Input(f"gif{number}.gif", CLIP, partial(gif, number), ACCEPTED)
    for name, (mode, options) in IMAGES.items():
        yield Input(name, IMAGE, partial(image, mode, Path(name).suffix, **options), ACCEPTED)
    for name, make in KEYPOINTS.items():
        yield Input(name, POSES, make, ACCEPTED)
    for number, prompt in enumerate(PROMPTS):
        yield Input(f"made{number}.mp4", RESTORE, partial(made, prompt, number), ACCEPTED)


def video(suffix: str, *arguments: str, size: str = "96x64", seconds: float = 2) -> bytes:
    """A test picture that moves, encoded with ffmpeg's `arguments` into a file of `suffix`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"out{suffix}"
        source = ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate=12:duration={seconds}")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, *arguments, str(file)]
        subprocess.run(command, check=True, capture_output=True)
        return file.read_bytes()


H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=2", "-shortest")
VIDEOS = {  # name -> ffmpeg's arguments
    "plain.mp4": H264,
    "late-header.mov": (*H264, "-f", "mov"),
    "fast.mp4": (*H264, "-movflags", "+faststart"),
    "fragments.mp4": (*H264, "-movflags", "frag_keyframe+empty_moov"),
    "sound.mp4": (*TONE, *H264, "-c:a", "aac"),
    "upright.mp4": (*H264, "-vf", "transpose=1"),
    "odd-aspect.mp4": (*H264, "-vf", "setsar=4/3"),
    "high.mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p"),
    "ten-bits.mp4": ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"),
    "hevc.mp4": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p"),
    "mpeg4.mp4": ("-c:v", "mpeg4"),
    "mjpeg.mov": ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    "prores.mov": ("-c:v", "prores_ks"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "h264.mkv": H264,
    "vp9-sound.webm": (*TONE, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"),
    "slow.mp4": (*H264, "-r", "5"),
    "sixty.mp4": (*H264, "-r", "60"),
    "cut-in.mp4": (*H264, "-ss", "0.5"),
}


def gif(number: int) -> bytes:
    """A square that wanders, with one of several sizes, paces, palettes, and with or without transparency."""
    size = (64 + 16 * (number % 5), 48 + 16 * (number % 4))
    mode = ("P", "RGB", "RGBA")[number % 3]
    frames = []
    for step in range(4 + number):
        picture = Image.new("RGBA", size, (240, 230, 200, 0 if number % 3 == 2 else 255))
        ImageDraw.Draw(picture).rectangle([4 * step, 8, 4 * step + 14, 30], fill=(180, 30 + 10 * number, 40, 255))
        frames.append(picture.convert(mode))
    file = io.BytesIO()
    frames[0].save(
        file, "GIF", save_all=True, append_images=frames[1:], duration=40 + 20 * number, loop=0, disposal=number % 3
    )
    return file.getvalue()


IMAGES = {  # name -> mode, options of PIL
    **{f"grey-{mode.replace(';', '')}.png": (mode, {}) for mode in ("1", "L", "LA", "I;16")},
    **{f"colours-{mode}.png": (mode, {}) for mode in ("P", "RGB", "RGBA")},
    **{f"small-{side}.png": ("RGB", {"size": (side, side)}) for side in (16, 64)},
    "wide.png": ("RGB", {"size": (600, 90)}),
    "high.png": ("RGB", {"size": (90, 600)}),
    "tight.png": ("RGB", {"compress_level": 9}),
    **{f"plain-{mode}.jpg": (mode, {}) for mode in ("L", "RGB", "CMYK")},
    **{f"turned-{turn}.jpg": ("RGB", {"turn": turn}) for turn in (1, 3, 6, 8)},
    "progressive.jpg": ("RGB", {"progressive": True}),
    "coarse.jpg": ("RGB", {"quality": 5}),
    "fine.jpeg": ("RGB", {"quality": 98, "subsampling": 0}),
    "lossy.webp": ("RGB", {"quality": 60}),
    "lossless.webp": ("RGB", {"lossless": True}),
    "transparent.webp": ("RGBA", {}),
    "large.webp": ("RGB", {"size": (1200, 800)}),
    **{f"plain-{mode}.bmp": (mode, {}) for mode in ("1", "L", "P", "RGB")},
}


def image(mode: str, suffix: str, size: tuple[int, int] = (160, 120), turn: int = 0, **options: object) -> bytes:
    width, height = size
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    ImageDraw.Draw(picture).ellipse([width // 4, height // 4, width // 2, height // 2], fill=(200, 40, 60))
    picture = picture.convert("L").convert(mode) if mode in ("I;16", "LA") else picture.convert(mode)
    if turn:
        exif = Image.Exif()
        exif[0x0112] = turn
        options["exif"] = exif
    file = io.BytesIO()
    picture.save(file, {".jpg": "JPEG", ".jpeg": "JPEG"}.get(suffix, suffix[1:].upper()), **options)
    return file.getvalue()


def frame(step: int = 0, joints: int = 18, share: bool = False, size: tuple[int, int] = (512, 512), **more) -> dict:
    """A frame of OpenPose's JSON with one person of 18, 25 (BODY_25) or 17 (COCO) joints."""
    points = [(x + 0.01 * (step % 8), y) for x, y in STANDING]
    if joints == 25:
        points = [*points[:8], (0.5, 0.58), *points[8:], *[(0.5, 0.95)] * 6]
    elif joints == 17:
        points = points[:17]
    wide, high = (1, 1) if share else size
    values = [value for x, y in points for value in (round(x * wide, 3), round(y * high, 3), 1)]
    canvas = {"canvas_width": size[0], "canvas_height": size[1]}
    return {"version": 1.3, **canvas, "people": [{"person_id": [0], "pose_keypoints_2d": values}], **more}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def _json(content: object, **options: object) -> bytes:
    return json.dumps(content, **options).encode()


def _many(count: int, **more: object) -> list[dict]:
    return [frame(step, **more) for step in range(count)]


def _zip(count: int, name: str = "frame_{:012d}_keypoints.json", method: int = zipfile.ZIP_DEFLATED, **more) -> bytes:
    return zipped({name.format(step): _json(frame(step, **more)) for step in range(count)}, method)


def _crowd(people: int) -> bytes:
    """Several people side by side."""
    frames = _many(8)
    for one in frames:
        (person,) = one["people"]
        beside = [
            {"pose_keypoints_2d": [v + 60 * n if i % 3 == 0 else v for i, v in enumerate(person["pose_keypoints_2d"])]}
            for n in range(people)
        ]
        one["people"] = beside
    return _json(frames)


KEYPOINTS = {
    "one.json": lambda: _json(frame()),
    "list.json": lambda: _json(_many(16)),
    "pretty.json": lambda: _json(_many(8), indent=4),
    "body25.json": lambda: _json(_many(16, joints=25)),
    "coco.json": lambda: _json(_many(16, joints=17)),
    "shares.json": lambda: _json(_many(16, share=True)),
    "bom.json": lambda: b"\xef\xbb\xbf" + _json(_many(8)),
    "with-fps.json": lambda: _json(_many(16, fps=24)),
    "wide.json": lambda: _json(_many(16, size=(1280, 720))),
    "tall.json": lambda: _json(_many(16, size=(480, 854))),
    "hundreds.json": lambda: _json(_many(300)),
    "two-people.json": lambda: _crowd(2),
    "five-people.json": lambda: _crowd(5),
    "empty-frames.json": lambda: _json([*_many(8), *[frame() | {"people": []}] * 4, *_many(4)]),
    "no-body.json": lambda: _json([*_many(8), frame() | {"people": [{"pose_keypoints_2d": None}]}]),
    "hands.json": lambda: _json([one | {"hands": []} for one in _many(8)]),
    "missing-joints.json": lambda: _json([one | {"people": [{"pose_keypoints_2d": _gaps(one)}]} for one in _many(8)]),
    "plain.zip": lambda: _zip(16),
    "stored.zip": lambda: _zip(16, method=zipfile.ZIP_STORED),
    "numbered.zip": lambda: _zip(12, "pose{}.json"),
    "folder.zip": lambda: _zip(12, "out/json/{:04d}.json"),
    "body25.zip": lambda: _zip(12, joints=25),
    "macos.zip": lambda: zipped({f"{n}.json": _json(frame(n)) for n in range(8)} | {"__MACOSX/._0.json": b"\0"}),
    "with-readme.zip": lambda: zipped({f"{n}.json": _json(frame(n)) for n in range(8)} | {"README.txt": b"mine"}),
    "long.zip": lambda: _zip(200),
}


def _gaps(one: dict) -> list[float]:
    values = list(one["people"][0]["pose_keypoints_2d"])
    values[12:15] = [0, 0, 0]
    return values


PROMPTS = (
    *(
        "a robot in blue waves on the beach",
        "une danseuse en rouge à l'Opéra",
        "一个机器人在海滩上",
        "a bear; x=1 # \\",
    ),
    *(
        'she said "jump"',
        "a <b>robot</b> & a bear",
        "line\none",
        "ü" * 200,
        "an astronaut 🚀 on the moon",
        "a bear, a bear",
    ),
)


def described(prompt: object, **changes: object) -> str:
    """The settings of a video as the app writes them into its files, with changes that it would not make."""
    card = CATALOG["miniature-modelscope"]
    values = json.loads(to_json(TextToVideo.for_model(card, "a robot", 0)))
    return json.dumps(values | {"prompt": prompt} | changes, ensure_ascii=False)


def made(prompt: str, seed: int) -> bytes:
    """A video with the settings of another in it."""
    return carrying(described(prompt.replace("\n", " "), seed=seed))


def carrying(comment: str) -> bytes:
    """A small MP4 file with a `comment`."""
    return video(".mp4", *H264, "-metadata", f"comment={comment}", size="32x32", seconds=1)
