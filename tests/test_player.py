"""The player without a browser: what it is told of a video."""

import struct
from pathlib import Path

import numpy as np
import pytest

from pipelines.media import video
from ui.player import TEMPLATE, Film, films, frames_of

CLIP = Path(__file__).parent / "data" / "bear.mp4"  # 16 frames


@pytest.mark.parametrize(("frames", "fps"), [(1, 8), (7, 8), (31, 16), (24, 12.5)])
def test_frames_and_their_rate_are_read_from_the_file(tmp_path, frames, fps):
    video.write(np.random.default_rng(0).integers(0, 255, (frames, 32, 32, 3), np.uint8), tmp_path / "a.mp4", fps)
    told = frames_of((tmp_path / "a.mp4").read_bytes())
    assert told["frames"] == frames and told["rate"] == pytest.approx(fps, rel=1e-3)


def test_what_is_no_video_is_shown_without_frames(tmp_path):
    whole = CLIP.read_bytes()
    assert frames_of(whole)["frames"] == 16
    for odd in (b"", b"nothing", b"hdlr vide", whole[: whole.index(b"stts") + 10], b"mdhd hdlr vide stts"):
        assert frames_of(odd) == {}
    endless = whole.replace(b"stts" + bytes(4) + struct.pack(">I", 1), b"stts" + bytes(4) + b"\xff" * 4)
    assert endless != whole and frames_of(endless) == {}
    assert "frames" not in films(str(tmp_path / "gone.mp4"))[0]


def test_the_browser_gets_addresses_and_names_as_data_and_a_template_that_stands_still():
    (one, other) = films(Film(str(CLIP), "<b>a</b>"), None, str(CLIP))
    assert one["name"] == "<b>a</b>" and one["file"]["path"] == str(CLIP) and other["frames"] == 16
    assert films() == films(None) == []
    assert "${" not in TEMPLATE and "{{" not in TEMPLATE  # gradio would put values into it, as HTML
