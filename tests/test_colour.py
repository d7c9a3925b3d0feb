"""Colour, transparency and sound of clips as cameras and editors make them; all made here."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_uploads import ffmpeg

from pipelines.media import colour, images, measuring, uploads
from pipelines.media.colour import Pixels
from pipelines.settings import Settings

SETTINGS = Settings()
PATCHES = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (255, 255, 255))
SIDE = 96


def patches() -> bytes:
    """Three frames, with a patch of each colour beside the other."""
    frame = np.repeat(np.array(PATCHES, np.uint8)[None], SIDE, axis=1).repeat(SIDE, axis=0)  # (SIDE, 5 * SIDE, 3)
    return np.repeat(frame[None], 3, axis=0).tobytes()


def encoded(path: Path, filters: str, *options: str) -> Path:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{5 * SIDE}x{SIDE}", "-framerate", "8", "-i", "pipe:0"]
    ffmpeg(*raw, "-vf", filters, *options, path, data=patches())
    return path


def middles(path: Path) -> np.ndarray:
    frame = uploads.frames(path, SETTINGS, frames=1)[0].astype(int)
    return frame[SIDE // 2, SIDE // 2 :: SIDE]  # (5, 3)


@pytest.mark.parametrize("matrix, tag", [("bt709", "bt709"), ("bt601", "smpte170m")])
@pytest.mark.parametrize("range_", ["tv", "pc"])
def test_matrices_and_ranges_are_read_as_they_are_marked(tmp_path, matrix, tag, range_):
    filters = f"scale=out_color_matrix={matrix}:out_range={range_},format=yuv420p"
    marks = ["-colorspace", tag, "-color_range", range_]
    path = encoded(tmp_path / "clip.mp4", filters, "-c:v", "libx264", "-crf", "4", *marks)
    assert np.abs(middles(path) - PATCHES).max() <= 6


@pytest.mark.parametrize("unmarked", [None, "color_trc", "colorspace"])
@pytest.mark.parametrize("primaries, matrix", [("bt2020", "bt2020nc"), ("smpte432", "bt2020nc")])
def test_wide_primaries_in_standard_range(tmp_path, primaries, matrix, unmarked):
    """Read as BT.709, green would be 125 off."""
    filters = "scale=out_color_matrix=bt709:out_range=tv,format=yuv444p,"
    filters += "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv,"
    filters += f"zscale=p={primaries}:m={matrix},format=yuv444p"
    filters += f",setparams={unmarked}=unknown" if unmarked else ""
    path = encoded(tmp_path / "clip.mp4", filters, "-c:v", "libx264", "-crf", "4")
    assert np.abs(middles(path) - PATCHES).max() <= 35


def test_a_matrix_alone_says_nothing_of_primaries(tmp_path):
    filters = "scale=out_color_matrix=bt2020,format=yuv420p,setparams=colorspace=bt2020nc:color_primaries=unknown"
    path = encoded(tmp_path / "clip.mp4", f"{filters}:color_trc=unknown", "-c:v", "libx264", "-crf", "4")
    assert np.abs(middles(path) - PATCHES).max() <= 6


@pytest.mark.parametrize("height, matrix", [(SIDE, "bt601"), (720, "bt709")])
def test_what_is_not_marked_is_told_by_its_size(tmp_path, height, matrix):
    filters = f"scale=-2:{height}:flags=neighbor:out_color_matrix={matrix},format=yuv420p,"
    filters += "setparams=colorspace=unknown:color_primaries=unknown:color_trc=unknown"
    path = encoded(tmp_path / "clip.mp4", filters, "-c:v", "libx264", "-crf", "4")
    frame = uploads.frames(path, SETTINGS, frames=1, side=5 * SIDE)[0].astype(int)
    assert np.abs(frame[SIDE // 2, SIDE // 2 :: SIDE] - PATCHES).max() <= 6


HEVC = ("-c:v", "libx265", "-crf", "4", "-x265-params", "log-level=error")


def wide(path: Path, transfer: str, unmarked: tuple[str, ...] = (), *options: str, matrix: str = "bt2020nc") -> Path:
    """The patches as phones record them in that transfer; marks called `unmarked` are left out."""
    filters = "scale=out_color_matrix=bt709:out_range=tv,format=yuv444p,"
    filters += "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv,"
    filters += "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt2020,"
    filters += f"zscale=t={transfer}:m={matrix}:r=limited:npl=100,format=yuv420p10le"
    filters += "".join(f",setparams={name}=unknown" for name in unmarked)
    return encoded(path, filters, *(options or HEVC))


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
@pytest.mark.parametrize("unmarked", [(), ("colorspace",), ("color_primaries",), ("colorspace", "color_primaries")])
def test_high_dynamic_range_looks_like_its_standard_master(tmp_path, transfer, unmarked):
    """HLG and PQ: unmapped, the primaries would be up to 150 of 255 off."""
    assert np.abs(middles(wide(tmp_path / "clip.mp4", transfer, unmarked)) - PATCHES).max() <= 45


@pytest.mark.parametrize("side", [475, 383])
@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
def test_ictcp_looks_like_its_standard_master(tmp_path, transfer, side):
    path = wide(tmp_path / "clip.mp4", transfer, (), *HEVC[:-1], f"{HEVC[-1]}:colormatrix=14", matrix="ictcp")
    frame = uploads.frames(path, SETTINGS, frames=1, side=side)[0].astype(int)
    assert np.abs(frame[frame.shape[0] // 2, side // 10 :: side // 5][:5] - PATCHES).max() <= 45


def test_dolby_visions_own_colours_are_refused_in_words(tmp_path):
    """Read as usual colours they would be green and purple. The file says so in a box beside the codec's."""
    path = wide(tmp_path / "clip.mp4", "smpte2084", (), *HEVC, "-tag:v", "hvc1")
    data = path.read_bytes()
    dolby = bytes([1, 0, 5 << 1, 5 << 3 | 0b101]) + bytes(20)  # version 1.0, profile 5, level 5, without another layer
    before, size = data.index(b"hvcC") - 4, 8 + len(dolby)
    data = bytearray(data[:before] + struct.pack(">I", size) + b"dvcC" + dolby + data[before:])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1"):
        at = data.rindex(kind, 0, before) - 4
        data[at : at + 4] = struct.pack(">I", struct.unpack_from(">I", data, at)[0] + size)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="Dolby Vision's own.*save it again"):
        measuring.inspect(path, SETTINGS)


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
@pytest.mark.parametrize("side", [475, 383])
def test_high_dynamic_range_is_read_at_any_size(tmp_path, transfer, side):
    path = wide(tmp_path / "clip.mp4", transfer)
    frame = uploads.frames(path, SETTINGS, frames=1, side=side)[0].astype(int)
    assert frame.shape[0] % 2 and frame.shape[1] == side
    colours = frame[frame.shape[0] // 2, side // 10 :: side // 5][:5]
    assert np.abs(colours - PATCHES).max() <= 45


def test_a_file_may_say_what_its_frames_do_not(tmp_path):
    silent = ["-bsf:v", "h264_metadata=colour_primaries=2:matrix_coefficients=2:transfer_characteristics=2"]
    path = wide(tmp_path / "clip.mp4", "smpte2084", (), "-c:v", "libx264", "-crf", "4")
    ffmpeg("-i", path, "-c", "copy", *silent, tmp_path / "silent.mp4")
    assert np.abs(middles(tmp_path / "silent.mp4") - PATCHES).max() <= 45


TRANSPARENT = {  # where the frame is transparent, magenta lies hidden
    "vp9.webm": ["-pix_fmt", "yuva420p", "-c:v", "libvpx-vp9"],
    "vp8.webm": ["-pix_fmt", "yuva420p", "-c:v", "libvpx", "-auto-alt-ref", "0"],
    "hevc.mov": [
        "-pix_fmt",
        "yuva420p",
        "-c:v",
        "libx265",
        "-x265-params",
        "log-level=error:alpha=1",
        "-tag:v",
        "hvc1",
    ],
    "prores.mov": ["-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"],
    "animation.mov": ["-c:v", "qtrle", "-pix_fmt", "argb"],
    "moving.webp": ["-c:v", "libwebp_anim", "-lossless", "1", "-pix_fmt", "bgra"],
    "moving.apng": ["-c:v", "apng", "-pix_fmt", "rgba"],
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_white_lies_behind_what_is_transparent(tmp_path, name):
    frame = np.full((SIDE, SIDE, 4), (255, 0, 255, 0), np.uint8)
    frame[SIDE // 4 : 3 * SIDE // 4, SIDE // 4 : 3 * SIDE // 4] = (40, 160, 60, 255)
    frames = np.repeat(frame[None], 3, axis=0)
    frames[range(3), -1, range(3)] = (0, 0, 0, 255)  # else a WebP of them would be a picture that does not move
    raw = ["-f", "rawvideo", "-pix_fmt", "rgba", "-s", f"{SIDE}x{SIDE}", "-framerate", "8", "-i", "pipe:0"]
    ffmpeg(*raw, *TRANSPARENT[name], tmp_path / name, data=frames.tobytes())
    read = uploads.frames(tmp_path / name, SETTINGS, frames=2).astype(int)
    assert np.abs(read[:, 5, 5] - 255).max() <= 4
    assert np.abs(read[:, SIDE // 2, SIDE // 2] - (40, 160, 60)).max() <= 12


def test_pictures_too(tmp_path):
    pixels = np.full((8, 8, 4), (255, 0, 255, 0), np.uint8)
    pixels[4:] = (40, 160, 60, 255)
    pixels[2] = (0, 0, 0, 128)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = np.array(images.read(tmp_path / "a.png", SETTINGS))
    assert (read[0] == 255).all() and (read[5] == (40, 160, 60)).all() and np.abs(read[2].astype(int) - 127).max() <= 1


def test_what_ffmpeg_says_decides():
    line = "  Stream #0:1[0x1](und): Video: hevc (Main 10), yuv420p10le(tv, bt2020nc/bt2020/arib-std-b67), 64x64"
    assert colour.pixels(line) == Pixels(wide=True, primaries=True)
    decoded = line.replace("bt2020nc/bt2020/arib-std-b67", "bt2020nc/unknown/arib-std-b67")
    told = colour.pixels(f"{line}\nOutput #0, framecrc, to 'pipe:1':\n  Metadata:\n    encoder\n{decoded}")
    assert told == Pixels(wide=True, primaries=True, marks="color_primaries=bt2020")
    cover = "  Stream #0:0: Video: png, rgba(pc), 64x64 (attached pic)\n"
    assert colour.pixels(cover + "  Stream #0:1: Video: h264, yuv420p, 64x64") == Pixels()
    assert colour.pixels("") == Pixels()


# Sound


def heard(path: Path) -> tuple[float, float | None, float | None]:
    """How long the sound is, and when it begins and ends to be heard: seconds, None where it is silent."""
    wave = np.frombuffer(ffmpeg("-i", path, "-ac", "1", "-ar", "8000", "-f", "s16le", "-"), np.int16)
    loud = np.flatnonzero(np.abs(wave.astype(int)) > 500) / 8000
    return len(wave) / 8000, *((float(loud[0]), float(loud[-1])) if len(loud) else (None, None))


@pytest.fixture
def late(tmp_path) -> Path:
    """Two seconds of picture; the sound begins half a second late and lasts 1.2."""
    path = tmp_path / "late.mp4"
    picture, tone = ["-f", "lavfi", "-i", "testsrc=s=64x64:r=10:d=2"], ["-f", "lavfi", "-i", "sine=f=440:d=1.2"]
    ffmpeg(*picture, "-itsoffset", "0.5", *tone, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", path)
    return path


@pytest.mark.parametrize(
    "start, seconds, length, wanted",
    [
        (0, 2, None, (2, 0.5, 1.7)),
        (0.25, 1, None, (1, 0.25, 1)),
        (0, 2, 4, (4, 1, 3.4)),
        (0, 2, 0.25, (0.25, 0.06, 0.21)),
        (0, 1.5, 15, (15, 4.8, 15)),
        (1.8, 0.2, 1, (1, None, None)),
        (1.5, 0.5, None, (0.5, 0, 0.2)),
    ],
)
def test_sound_keeps_its_place_and_is_as_long_as_the_picture(late, tmp_path, start, seconds, length, wanted):
    uploads.sound(late, tmp_path / "sound.m4a", SETTINGS, start, seconds, length)
    allowed = 0.06 * max(1, (length or seconds) / seconds / 2)
    for is_, should in zip(heard(tmp_path / "sound.m4a"), wanted, strict=True):
        assert is_ == pytest.approx(should, abs=allowed)


@pytest.mark.parametrize("codec", ["pcm_s16be", "pcm_s24be", "pcm_u8", "pcm_mulaw", "adpcm_ima_qt"])
def test_plain_samples_as_cameras_store_them_are_heard(late, tmp_path, codec):
    clip = tmp_path / "camera.mov"
    ffmpeg("-i", late, "-c:v", "copy", "-c:a", codec, clip)
    assert measuring.inspect(clip, SETTINGS).sound
    uploads.sound(clip, tmp_path / "sound.m4a", SETTINGS, 0, 2)
    assert heard(tmp_path / "sound.m4a") == pytest.approx((2, 0.5, 1.7), abs=0.06)


def test_a_sound_that_cant_be_read_counts_as_none(late, tmp_path):
    ffmpeg("-i", late, "-c:v", "copy", "-c:a", "wavpack", tmp_path / "clip.mkv")
    assert not measuring.inspect(tmp_path / "clip.mkv", SETTINGS).sound


def test_a_start_beyond_what_is_read_names_the_limit(tmp_path):
    path = tmp_path / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64:r=10:d=4", "-c:v", "libx264", path)
    with pytest.raises(ValueError, match="less than 2 seconds: of a longer clip.*MARIONETTE_UPLOAD_SECONDS"):
        uploads.frames(path, Settings(upload_seconds=2.0), start=3)
    with pytest.raises(ValueError, match="the length of the clip") as told:
        uploads.frames(path, SETTINGS, start=5)
    assert not re.search("MARIONETTE", str(told.value))
