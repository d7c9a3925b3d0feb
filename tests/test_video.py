"""Video files: what is written comes back, whole or not at all."""

import json
import os

import numpy as np
import pytest

from pipelines.media import video


def moving_bars(frames=16, height=64, width=96):
    """Colourful frames [F, H, W, 3] uint8, each different from the others."""
    f, y, x = np.mgrid[:frames, :height, :width]
    red, green, blue = (x * 2 + f * 8) % 256, y * 255 // height, 255 - f * 255 // max(frames - 1, 1)
    return np.stack([red, green, blue], -1).astype(np.uint8)


def boxes(path):
    """The names of the top-level boxes of an MP4 file, in order."""
    data, at, names = path.read_bytes(), 0, []
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def test_frames_come_back(tmp_path):
    frames = moving_bars()
    video.write(frames, tmp_path / "a.mp4", fps=8)
    back = video.read(tmp_path / "a.mp4")
    assert back.shape == frames.shape and back.dtype == np.uint8
    assert np.abs(back.astype(int) - frames).mean() < 4
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_browsers_can_play_it(tmp_path):
    video.write(moving_bars(), tmp_path / "a.mp4", fps=8)
    assert video.probe(tmp_path / "a.mp4") == video.Info(96, 64, 8.0, "h264 (High)", "yuv420p")
    names = boxes(tmp_path / "a.mp4")
    assert names.index("moov") < names.index("mdat")  # faststart


@pytest.mark.parametrize("height, width", [(63, 96), (64, 95), (63, 95), (1, 1)])
def test_odd_sizes_grow_by_a_copied_edge(tmp_path, height, width):
    frames = moving_bars(4, height, width) // 2 + 64
    video.write(frames, tmp_path / "odd.mp4", fps=8)
    back = video.read(tmp_path / "odd.mp4").astype(int)
    assert back.shape == (4, height + height % 2, width + width % 2, 3)
    assert np.abs(back[:, -1, -1] - frames[:, -1, -1]).max() < 24  # the added corner continues the picture


@pytest.mark.parametrize("frames", [1, 2, 33])
@pytest.mark.parametrize("fps", [1, 8, 30])
def test_frame_counts_and_rates(tmp_path, frames, fps):
    video.write(moving_bars(frames, 32, 32), tmp_path / "a.mp4", fps=fps)
    assert len(video.read(tmp_path / "a.mp4")) == frames
    assert video.probe(tmp_path / "a.mp4").fps == fps


@pytest.mark.parametrize(
    "comment",
    [
        "",
        'quotes " and \' and \\ and \\" and \\\\',
        "lines\nand\ntitle=a trap\n[STREAM]\ncomment=another\n",
        "a=b;c#d\\=e\\;f\\#g",
        "ends in a backslash\\",
        "ünïcödé, 漢字, 🤖, \u200b\u2028",
        "-i /dev/null %d %03d {} $HOME `id` ;",
        json.dumps({"prompt": 'a "robot" = blue;\n#1 🤖', "seed": 7}, ensure_ascii=False),
        "long " * 2000,
    ],
)
def test_comment_comes_back(tmp_path, comment):
    video.write(moving_bars(1, 16, 16), tmp_path / "a.mp4", fps=8, comment=comment)
    assert video.read_comment(tmp_path / "a.mp4") == comment


def test_names_are_only_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-y.mp4", "pipe:1.mp4", "a b%03d é.mp4", "concat:a|b.mp4"):
        path = tmp_path.relative_to(tmp_path) / name
        video.write(moving_bars(2, 16, 16), path, fps=8, comment=name)
        assert len(video.read(path)) == 2 and video.read_comment(path) == name


@pytest.mark.parametrize("level", [0, 10])
def test_black_is_refused(tmp_path, level):
    with pytest.raises(ValueError, match="black"):
        video.write(np.full((4, 32, 32, 3), level, np.uint8), tmp_path / "a.mp4", fps=8)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "frames", [np.zeros((4, 32, 32, 3)), np.zeros((4, 32, 32), np.uint8), np.zeros((0, 32, 32, 3), np.uint8)]
)
def test_only_frames_are_written(tmp_path, frames):
    with pytest.raises(ValueError, match="uint8"):
        video.write(frames, tmp_path / "a.mp4", fps=8)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(video.VideoError, match="frame"):
        video.write(moving_bars(2, 16, 16), path, fps=-1)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.mp4"]


def test_time_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "TIMEOUT", 0.001)
    with pytest.raises(video.VideoError, match="longer"):
        video.write(moving_bars(), tmp_path / "a.mp4", fps=8)
    assert os.listdir(tmp_path) == []


def test_what_is_no_video(tmp_path):
    video.write(moving_bars(), tmp_path / "a.mp4", fps=8)
    whole = (tmp_path / "a.mp4").read_bytes()
    for content in (b"", b"no video at all", whole[: len(whole) // 2], whole[:40]):
        (tmp_path / "b.mp4").write_bytes(content)
        with pytest.raises(video.VideoError):
            video.read(tmp_path / "b.mp4")
    with pytest.raises(video.VideoError):
        video.read(tmp_path / "missing.mp4")


def test_gif(tmp_path):
    from PIL import Image

    frames = moving_bars(8, 32, 48)
    video.write(frames, tmp_path / "a.mp4", fps=8)
    video.export(tmp_path / "a.mp4", tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size, image.info["loop"]) == (8, (48, 32), 0)
        assert image.info["duration"] in (120, 130)  # 1/8 s in hundredths
        first = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(first - frames[0]).mean() < 12
    assert sorted(os.listdir(tmp_path)) == ["a.gif", "a.mp4"]
