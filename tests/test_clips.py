"""Clips that visitors keep here: whose they are, which part is used, how it is cut."""

import numpy as np
import pytest

from pipelines.catalog import find
from pipelines.media import clips, ffmpeg, uploads, video
from pipelines.serving.clip_storage import Clips
from pipelines.settings import Settings
from pipelines.tasks import NOBODY, TextToVideo, Tune

CARD = find("miniature-sd")


@pytest.fixture
def settings(tmp_path):
    return Settings(data=tmp_path / "data", cache=tmp_path / "cache", hub=False)


def wide_clip(path, frames=12, width=96, height=48):
    """A clip whose left third is red, its middle green and its right blue, each brighter in every frame."""
    pictures = np.zeros((frames, height, width, 3), np.uint8)
    for third, channel in enumerate(range(3)):
        level = np.linspace(120, 250, frames).astype(np.uint8)[:, None, None]
        pictures[:, :, third * width // 3 : (third + 1) * width // 3, channel] = level
    video.write(pictures, path, 12)
    return path


def task(clip, **settings):
    return Tune.for_model(CARD, "three colours", 0, clip=clip, **settings)


def test_a_kept_clip_is_there_again_for_its_owner_and_for_nobody_else(settings, tmp_path):
    kept = Clips(settings).keep(wide_clip(tmp_path / "clip.mp4"), "me")
    again = Clips(settings).get(kept.name, "me")
    assert again == kept and again.clip.frames == 12
    assert video.probe(again.preview).codec.startswith("h264")
    for name, owner in ((kept.name, "you"), ("0" * 32, "me")):
        with pytest.raises(ValueError, match="no such clip"):
            Clips(settings).get(name, owner)


def test_what_is_no_clip_leaves_nothing_behind(settings, tmp_path):
    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(ValueError, match="not a video"):
        Clips(settings).keep(tmp_path / "text.mp4", "me")
    assert not list((settings.data / "clips").glob("*"))


@pytest.mark.parametrize(("across", "channel"), [(0.0, 0), (0.5, 1), (1.0, 2)])
def test_a_wide_clip_is_cut_where_one_says_and_never_squashed(settings, tmp_path, across, channel):
    kept = Clips(settings).keep(wide_clip(tmp_path / "clip.mp4", width=144), "me")
    frames, fps = clips.read(task(kept.name, across=across), kept.file, settings)
    assert frames.shape == (12, 128, 128, 3) and fps == 12
    middle = frames[-1, 40:90, 44:84].reshape(-1, 3).mean(0)
    assert middle.argmax() == channel and np.sort(middle)[1] < 60


def test_trim_and_stride_choose_the_frames_and_how_fast_they_are(settings, tmp_path):
    kept = Clips(settings).keep(wide_clip(tmp_path / "clip.mp4", frames=24), "me")
    whole, _ = clips.read(task(kept.name, frames=24), kept.file, settings)
    part, fps = clips.read(task(kept.name, start=0.5, end=1.5, stride=3), kept.file, settings)
    assert fps == 4
    assert np.array_equal(part, whole[6:18:3])


@pytest.mark.parametrize(("fps", "start"), [(12, 0.0), (5, 0.0), (5, 0.5), (20, 0.25)])
def test_a_clip_that_is_changed_is_read_at_the_rate_of_the_video(settings, tmp_path, fps, start):
    """Its red third grows brighter frame by frame, so that each tells its time."""
    path = wide_clip(tmp_path / "clip.mp4", frames=24)
    asked = TextToVideo.for_model(
        find("wan-2.1-1.3b"), "red", 0, clip=NOBODY, fps=fps, clip_start=start, frames=5, width=128, height=128
    )
    every = uploads.frames(path, settings, frames=24)[:, :, :16, 0].mean((1, 2))
    frames = clips.read_changed(asked, path, settings)
    assert frames.shape == (5, 128, 128, 3) and frames[:, :, 50:80].mean((0, 1, 2)).argmax() == 1  # its middle
    found = uploads.paced(path, settings, fps, start, 5)[:, :, :16, 0].mean((1, 2))
    wanted = [every[int((start + number / fps) * 12 + 0.5 + 1e-6)] for number in range(5)]
    assert found == pytest.approx(wanted, abs=1.5)


def test_of_a_clip_that_ends_too_soon_as_many_frames_are_read_as_there_are(settings, tmp_path):
    path = wide_clip(tmp_path / "clip.mp4", frames=24)  # two seconds
    for fps, start, count in ((6, 0.0, 12), (6, 1.5, 3), (24, 1.5, 12), (1, 1.9, 1)):
        assert len(uploads.paced(path, settings, fps, start, 100)) == count
    with pytest.raises(ValueError, match="less than 2 seconds"):
        uploads.paced(path, settings, 6, 2.0, 100)


def with_sound(path, tone=440):
    """Two seconds of a picture that moves, and a tone in the second of them."""
    silent = wide_clip(path.with_name("silent.mp4"), frames=24)
    late = f"sine=frequency={tone}:duration=1:sample_rate=48000,adelay=1000:all=1"
    done = ffmpeg.run(
        ["-i", str(silent), "-f", "lavfi", "-i", late, "-c:v", "copy", "-c:a", "aac", "-y", str(path)], seconds=30
    )
    assert done.returncode == 0, done.stderr
    return path


def loudness(path):
    done = ffmpeg.run(["-i", str(path), "-map", "0:a:0", "-f", "s16le", "-ac", "1", "pipe:1"], seconds=30)
    return np.frombuffer(done.stdout, np.int16).astype(float)


def test_the_sound_of_the_used_part_is_cut_out_and_goes_into_a_video(settings, tmp_path):
    clip = with_sound(tmp_path / "clip.mp4")
    for start, loud in ((0.0, False), (1.1, True)):
        uploads.sound(clip, tmp_path / "sound.m4a", settings, start, 0.8)
        video.write(np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8), tmp_path / "out.mp4", 10,
                    sound=tmp_path / "sound.m4a")  # fmt: skip
        heard = loudness(tmp_path / "out.mp4")
        assert len(heard) / 48000 == pytest.approx(0.8, abs=0.06)
        assert (np.abs(heard[4000:-4000]).mean() > 1000) == loud
        assert len(video.read(tmp_path / "out.mp4")) == 8


def test_a_silent_clip_has_no_sound_to_keep(settings, tmp_path):
    with pytest.raises(ValueError, match="no sound"):
        uploads.sound(wide_clip(tmp_path / "clip.mp4"), tmp_path / "sound.m4a", settings, 0, 1)
    assert not (tmp_path / "sound.m4a").exists()
