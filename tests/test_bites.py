"""What small changes to the code would break unseen by the tests of their own modules (scripts/mutants.py)."""

import math
import subprocess
from contextlib import suppress
from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest
import tiny

from pipelines.catalog import CATALOG
from pipelines.media import uploads, video
from pipelines.models.memory import remembered
from pipelines.poses import keypoints, openpose, pose_sequence
from pipelines.poses.keypoints import Poses
from pipelines.serving import tidy, zerogpu
from pipelines.serving.owners import Owners
from pipelines.settings import Settings
from pipelines.tasks import PoseToVideo, TextToVideo, Tune
from ui import visitor


def test_memory_counts_are_remembered_by_size_and_by_network():
    counted = []

    @remembered
    def count(network, frames):
        counted.append((network, frames))
        return len(counted)

    small, alike, wide = tiny.unet(), tiny.unet(seed=3), tiny.unet(block_out_channels=(16, 64))
    assert count(small, 4) == 1 and count(small, 8) == 2 and count(wide, 4) == 3
    assert count(alike, 4) == 1 and len(counted) == 3  # another object of the same layout


# Poses


def test_sure_joints_count_more_in_smoothing():
    """A joint that is hardly seen in a wrong place between two sure ones moves them little, and is moved much."""
    joints = np.zeros((5, 1, 18, 3), np.float32)
    joints[..., 2] = 1
    joints[2, 0, 4] = (30, 0, 0.02)
    doubtful = keypoints.smooth(Poses(joints, 64, 64, 8.0), "strong").joints[:, 0, 4, 0]
    joints[2, 0, 4, 2] = 1
    sure = keypoints.smooth(Poses(joints, 64, 64, 8.0), "strong").joints[:, 0, 4, 0]
    assert doubtful.max() < 0.1 * sure.max() and sure[2] > 3
    joints[..., :2], joints[2, 0, 4] = 20, 0  # missing
    assert keypoints.smooth(Poses(joints, 64, 64, 8.0), "strong").joints[[0, 1, 3, 4], 0, 4, 0] == pytest.approx(20)
    joints[2, 0, 4] = (20, 20, 0.5)  # however sure: what stands still stays where it is
    assert keypoints.smooth(Poses(joints, 64, 64, 8.0), "strong").joints[:, 0, 4, 0] == pytest.approx(20)


def test_the_detector_finds_a_peak_to_a_third_of_a_pixel(monkeypatch):
    """Of two joints of a limb drawn in the maps, cell c's middle being pixel (c + 0.5) CELL - 0.5 of the picture."""
    cells = {first_or_second: index for index, first_or_second in enumerate(openpose.LIMBS[0][:2])}
    places = [(6.0, 5.0), (6.0, 11.0)]
    grid = np.stack(np.meshgrid(np.arange(16), np.arange(20)), -1).astype(np.float32)  # (20, 16, 2)
    heatmaps, fields = np.zeros((19, 20, 16), np.float32), np.zeros((38, 20, 16), np.float32)
    for joint, index in cells.items():
        heatmaps[joint] = np.exp(-((grid - places[index]) ** 2).sum(-1) / 4)
    fields[2 * openpose.LIMBS[0][2] + 1, 4:13, 5:8] = 1
    monkeypatch.setattr(openpose, "LEAST_JOINTS", 2)
    monkeypatch.setattr(openpose, "LEAST_SCORE", 0.1)
    (person,) = openpose.decode(fields, heatmaps)
    for joint, index in cells.items():
        wanted = (np.array(places[index]) + 0.5) * openpose.CELL - 0.5
        assert person[joint, :2] == pytest.approx(wanted, abs=0.3)


class Detector:
    """Finds nobody new: counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def extract(self, frames, fps, detector, models):
        self.calls += 1
        joints = np.zeros((len(frames), 1, 18, 3), np.float32)
        joints[:, 0, :, :2] = self.calls
        joints[..., 2] = 1
        return Poses(joints, frames.shape[2], frames.shape[1], fps), "miniature-openpose"
        yield


@pytest.mark.parametrize(
    "change",
    [{"left": 0.25}, {"right": 0.25}, {"top": 0.25}, {"bottom": 0.25}, {"stride": 2}, {"start": 0.5}, {"frames": 9}],
    ids=str,
)
def test_people_are_looked_for_anew_where_other_frames_or_another_part_are_used(tmp_path, monkeypatch, change):
    from pipelines.poses import detection

    detector = Detector()
    monkeypatch.setattr(detection, "extract", detector.extract)
    monkeypatch.setattr(detection, "used", lambda name: ())
    base = PoseToVideo.for_model(CATALOG["miniature-followyourpose"], "a robot", 1, clip="0" * 32)

    class Keys:
        def key(self, name):
            return name

    def found(task):
        return tiny.finish(pose_sequence._people(task, np.zeros((4, 8, 8, 3), np.uint8), 8.0, Keys(), tmp_path))[1][0]

    first, again = found(base), found(base)
    assert detector.calls == 1 and np.array_equal(first.joints, again.joints)
    found(replace(base, **change))
    assert detector.calls == 2


# Sound


def test_sound_is_cut_by_the_clips_own_clock(tmp_path):
    """A recorder's clip whose time begins at 5 seconds, and whose picture begins a second after its sound: its beep of
    half a second is where the picture has it."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    made = ["-itsoffset", "1", "-f", "lavfi", "-i", "testsrc=s=64x64:r=10:d=3"]
    beep = ["-f", "lavfi", "-i", "aevalsrc='0.5*sin(2000*t)*between(t,2.5,3)':s=48000:d=4"]
    options = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-output_ts_offset", "5"]
    subprocess.run([ffmpeg, "-v", "error", *made, *beep, *options, str(tmp_path / "clip.mkv")], check=True)
    clip = tmp_path / "clip.mkv"
    uploads.sound(clip, tmp_path / "sound.m4a", Settings(), 1.0, 2.0)
    wave = subprocess.run(
        [ffmpeg, "-v", "error", "-i", str(tmp_path / "sound.m4a"), "-ac", "1", "-ar", "8000", "-f", "s16le", "-"],
        check=True,
        capture_output=True,
    ).stdout
    loud = np.flatnonzero(np.abs(np.frombuffer(wave, np.int16).astype(int)) > 1000) / 8000
    assert loud[0] == pytest.approx(0.5, abs=0.08) and loud[-1] == pytest.approx(1.0, abs=0.08)


# Serving


def test_what_a_waiting_job_needs_is_held_however_old_it_is(tmp_path):
    folder, deleted = tmp_path / "clips", []
    for name in ("needed", "idle"):
        (folder / name).mkdir(parents=True)
        tidy.os.utime(folder / name, (1.0, 1.0))
    owners = {"needed": "somebody", "idle": "somebody"}
    things = tidy.uploads("clips", folder, owners, {"needed"}, 30, deleted.append)
    assert {thing.name: thing.held for thing in things} == {"needed": True, "idle": False}

    class Seen:
        def see(self, things):
            return dict.fromkeys(things, 10.0**9)

    keeper = tidy.Tidy(Settings(data=tmp_path), Seen(), lambda: things)
    for _ in range(3):
        keeper.round()
    assert set(deleted) == {"idle"}


def test_a_visitors_id_is_32_hexadecimal_digits_or_a_new_one():
    for bad in ("me", "A" * 32, "a" * 31, "a" * 33, "a" * 32 + "\n", "", None, 7, ["a" * 32]):
        assert visitor.known(bad) != bad and len(visitor.known(bad)) == 32
    assert visitor.known("a1" * 16) == "a1" * 16


def test_an_account_is_told_from_any_other_id(tmp_path):
    owners = Owners(Settings(data=tmp_path))
    mine = owners.account("subject")
    assert owners.is_account(mine) and not owners.is_account("1" * 32) and not owners.is_account(mine[:16] + "0" * 16)


def test_seconds_are_lent_with_a_margin():
    """A quarter more than is estimated: a job that takes a little longer than the last is not cut off."""
    executor = object.__new__(zerogpu.ZeroExecutor)  # its models are not needed
    task = TextToVideo.for_model(CATALOG["miniature-modelscope"], "a robot", 7)
    for estimated in (100.0, 41.3, 1.0):
        assert executor.lent(task, estimated) == max(zerogpu.LEAST, math.ceil(1.25 * estimated))
    assert 1.25 * 41.3 > zerogpu.LEAST  # the margin is seen


def test_a_lent_tuning_ends_itself_before_the_loan_does(monkeypatch):
    """The time for bringing back what was tuned is left."""
    clock, steps = [0.0], 1000
    monkeypatch.setattr(zerogpu.time, "monotonic", lambda: clock[0])

    def generated(task, models):
        with suppress(GeneratorExit):
            for number in range(steps):
                clock[0] += 1.0
                yield zerogpu.Losses((0.0,) * (number + 1))

    monkeypatch.setattr(zerogpu, "generated", generated)
    task = Tune.for_model(CATALOG["miniature-sd"], "a bear", 7, clip="0" * 32, steps=steps)
    list(zerogpu._lendable(None)(task, {}, zerogpu.PIECE))
    assert zerogpu.WORKED < clock[0] <= zerogpu.WORKED + 2 < zerogpu.PIECE


def test_frames_of_a_clip_are_those_of_their_moment(tmp_path):
    frames = np.repeat(np.arange(0, 240, 20, np.uint8), 64 * 64 * 3).reshape(12, 64, 64, 3)
    video.write(frames, tmp_path / "clip.mp4", 8)
    read = uploads.frames(tmp_path / "clip.mp4", Settings(), 0.5, None, 3, 2, 64)
    assert read.mean((1, 2, 3)) == pytest.approx([80, 120, 160], abs=6)
