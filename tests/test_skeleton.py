"""Skeletons: drawn in FollowYourPose's colours, and recognised in videos."""

import json

import drawn_poses
import numpy as np
import pytest
from test_keypoints import dancer

from pipelines import catalog
from pipelines.media import video
from pipelines.poses import keypoints, openpose_json, skeleton, tracking
from pipelines.poses.keypoints import Poses
from scripts.miniature.world import Words, draw_clip


def one(frames: int = 8, side: int = 256, x: float = 128, height: float = 160) -> Poses:
    joints = dancer(frames, x=0, height=height) + (x, 0.85 * side - 110, 0)
    return Poses(joints[:, None], side, side, 8.0)


def through_a_file(frames: np.ndarray, path) -> np.ndarray:
    video.write(frames, path / "clip.mp4", 8)
    return video.read(path / "clip.mp4")


def colour_at(frames: np.ndarray, poses: Poses, first: int, second: int) -> set[tuple[int, ...]]:
    """The colours half way between two joints, in all frames."""
    middles = poses.joints[:, 0, (first, second), :2].mean(axis=1).round().astype(int)
    return {tuple(frame[y, x].tolist()) for frame, (x, y) in zip(frames, middles, strict=True)}


def test_limbs_have_the_colours_of_training():
    poses = one()
    frames = skeleton.draw(poses)
    assert frames.shape == (8, 256, 256, 3) and frames.dtype == np.uint8
    names = {name: number for number, name in enumerate(keypoints.JOINTS)}
    for side, colour in (("right", (0, 128, 255)), ("left", (0, 255, 0))):
        for first, second in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")):
            assert colour in colour_at(frames, poses, names[f"{side} {first}"], names[f"{side} {second}"])
    orange = (255, 153, 51)
    assert orange in colour_at(frames, poses, names["right hip"], names["left hip"])
    assert orange in colour_at(frames, poses, names["right shoulder"], names["left shoulder"])
    assert (frames.max(axis=-1) == 0).mean() > 0.85


@pytest.mark.parametrize("side, line", [(128, 2), (512, 8), (1080, 16)])
def test_lines_are_as_thick_as_in_training(side, line):
    """1.2% to 1.9% of the height; at 128 pixels two, as one would vanish in the adapter."""
    joints = np.zeros((1, 1, 18, 3), np.float32)
    joints[0, 0, 8], joints[0, 0, 9] = (side / 2, side * 0.2, 1), (side / 2, side * 0.8, 1)  # a thigh, upright
    row = skeleton.draw(Poses(joints, side, side, 8.0))[0, side // 2].max(axis=-1)
    assert (row > 127).sum() == pytest.approx(line, abs=1)


def test_missing_joints_and_those_outside_are_not_drawn_wrong():
    whole, gone = one(1), one(1)
    gone.joints[0, 0, 4] = 0  # a wrist: only the forearm is gone
    difference = (skeleton.draw(whole) != skeleton.draw(gone)).any(axis=-1)[0]
    x, y = whole.joints[0, 0, (3, 4), 0], whole.joints[0, 0, (3, 4), 1]
    rows, columns = np.nonzero(difference)
    assert len(rows) and rows.min() > y.min() - 6 and rows.max() < y.max() + 6
    assert columns.min() > x.min() - 6 and columns.max() < x.max() + 6
    far = one(1)
    far.joints[0, 0, 4, :2] = 1e9, -1e9
    assert skeleton.draw(far).shape == (1, 256, 256, 3)
    assert not skeleton.draw(Poses(np.zeros((2, 0, 18, 3), np.float32), 64, 64, 8.0)).any()


@pytest.mark.parametrize("side", [128, 512])
def test_videos_of_skeletons_are_recognised_after_a_codec(tmp_path, side):
    poses = keypoints.place(one(), side, side)
    assert skeleton.recognise(through_a_file(skeleton.draw(poses), tmp_path)) == "coco"


@pytest.mark.parametrize(
    "by, hands, faces", [("openpose", False, False), ("openpose", True, True), ("dwpose", True, True)]
)
@pytest.mark.parametrize("side", [128, 512])
def test_drawings_of_openpose_and_dwpose_are_recognised_after_a_codec(tmp_path, side, by, hands, faces):
    poses = keypoints.place(one(), side, side)
    assert skeleton.recognise(through_a_file(drawn_poses.draw(poses, by, hands, faces), tmp_path)) == "openpose"


def test_two_skeletons_are_recognised_too(tmp_path):
    both = Poses(np.concatenate([one(x=70, height=110).joints, one(x=190, height=110).joints], axis=1), 256, 256, 8.0)
    assert skeleton.recognise(through_a_file(skeleton.draw(both), tmp_path)) == "coco"
    assert skeleton.recognise(through_a_file(drawn_poses.draw(both, hands=False, faces=False), tmp_path)) == "openpose"


@pytest.mark.parametrize("place", ["moon", "city", "beach"])
@pytest.mark.parametrize("colour", ["blue", "green", "orange"])
def test_no_other_clip_is_taken_for_one(place, colour):
    clip = draw_clip(Words("person", colour, place, "dancing"), np.random.default_rng(1))
    assert skeleton.recognise(clip.frames) is None


def test_neither_black_nor_lights_in_the_dark_are_skeletons():
    rng = np.random.default_rng(0)
    black = np.zeros((8, 128, 128, 3), np.uint8)
    assert skeleton.recognise(black) is None
    assert skeleton.recognise(rng.integers(0, 30, black.shape).astype(np.uint8)) is None
    white, red, dancer = black.copy(), black.copy(), black.copy()
    white[:, 40:90, 60:64] = 255
    red[:, 40:90, 60:64] = (255, 0, 0)
    assert skeleton.recognise(white) is None and skeleton.recognise(red) is None
    clip = draw_clip(Words("person", "blue", "moon", "dancing"), rng)
    dancer[clip.figure[:8] > 0] = clip.frames[:8][clip.figure[:8] > 0]  # a real one before a black wall
    assert skeleton.recognise(dancer) is None


@pytest.mark.parametrize("how", keypoints.PLACEMENTS)
@pytest.mark.parametrize("size", [(320, 180), (90, 160), (1000, 600)])
def test_a_skeleton_video_is_placed_as_its_keypoints_are(how, size):
    """Drawn and then placed shows the same as placed and then drawn."""
    wide, high = size
    poses = keypoints.place(one(4), wide, high)
    placed = skeleton.place_frames(skeleton.draw(poses), 128, 128, how).astype(int)
    drawn = skeleton.draw(keypoints.place(poses, 128, 128, how)).astype(int)
    assert placed.shape == drawn.shape
    masks = [each.max(axis=-1) > 60 for each in (placed, drawn)]
    middles = [np.argwhere(mask).mean(axis=0) for mask in masks]
    assert middles[0] == pytest.approx(middles[1], abs=2.5 if how == "fill" else 1)
    spreads = [np.argwhere(mask).std(axis=0)[1:] for mask in masks]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.12, abs=1)


def test_the_library_of_motions():
    motions = catalog.motions()
    assert len(motions) >= 10 and catalog.find_motion("wave") == motions["wave"]
    with pytest.raises(ValueError, match="wave"):
        catalog.find_motion("../../settings")
    for name, file in motions.items():
        poses = openpose_json.read(file)
        assert 16 <= len(poses.joints) <= 40 and poses.fps == 8 and not keypoints.absent(poses), name
        assert keypoints.outside(poses) == 0 and poses.seen.mean() > 0.9, name
        assert np.abs(np.diff(poses.joints[..., :2], axis=0)).max() > 5, name  # it moves
        tracked = tracking.track(poses)
        assert tracked.joints.shape[1] == (2 if name == "duet" else 1), name
        shown = file.with_suffix(".gif")
        assert shown.read_bytes()[:6] == b"GIF89a" and shown.stat().st_size < 70_000, name
        assert len(json.loads(file.read_text())) == len(poses.joints)
