"""Drawings by OpenPose and DWPose, hands and faces too, are read whole: at any size, compressed, of several people."""

import json

import cv2
import drawn_poses
import numpy as np
import pytest
from test_blazepose import scene
from test_skeleton import one, through_a_file

from pipelines.catalog import find_motion
from pipelines.media import video
from pipelines.models.manager import ModelManager
from pipelines.pose_tasks import FindPoses
from pipelines.poses import keypoints, openpose_json, rainbow, search, tracking
from pipelines.poses.keypoints import Poses
from pipelines.settings import Settings
from scripts.miniature.scoring import finish


def motion(name: str, width: int, height: int) -> Poses:
    """Every fifth frame of a built-in motion."""
    poses = tracking.track(openpose_json.read(find_motion(name)))
    return keypoints.place(poses.frames(range(0, len(poses.joints), 5)), width, height)


def through_jpeg(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.imdecode(cv2.imencode(".jpg", frame, [1, 75])[1], 1) for frame in frames])


def smaller(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


@pytest.mark.parametrize("compressed", ["not at all", "jpeg", "h264"])
def test_bodies_are_read_whole_under_hands_and_faces(tmp_path, compressed):
    drawn = motion("wave", 512, 512)
    frames = drawn_poses.draw(drawn, "openpose")
    if compressed == "jpeg":
        frames = through_jpeg(frames)
    elif compressed == "h264":
        frames = through_a_file(frames, tmp_path)
    read = rainbow.read(frames, 8.0)
    assert drawn_poses.found(read, drawn).mean() >= 0.95
    assert read.joints.shape[1] == 1
    assert rainbow.unread(frames, read) == []


@pytest.mark.parametrize("name, width, height, least", [("duet", 512, 512, 0.95), ("bow", 432, 768, 0.9)])
def test_dwposes_drawings_are_read_too(name, width, height, least):
    drawn = motion(name, width, height)
    read = rainbow.read(drawn_poses.draw(drawn, "dwpose"), 8.0)
    assert drawn_poses.found(read, drawn).mean() >= least
    assert read.joints.shape[1] == drawn.joints.shape[1]


def test_a_drawing_that_was_made_smaller_is_read(tmp_path):
    drawn = motion("wave", 512, 512)
    frames = through_a_file(smaller(drawn_poses.draw(drawn), 256, 256), tmp_path)
    assert drawn_poses.found(rainbow.read(frames, 8.0), motion("wave", 256, 256)).mean() >= 0.85


@pytest.mark.parametrize("joint", [3, 9, 12])
def test_a_hand_over_a_joint_does_not_swallow_it(joint):
    """A hand on the elbow of the other arm, or on a knee."""
    drawn = motion("wave", 512, 512).frames([0])
    frames = drawn_poses.draw(drawn, hands=False, faces=False)
    x, y = drawn.joints[0, 0, joint, :2].astype(int)
    for away in range(-12, 13, 6):
        cv2.circle(frames[0], (x + away, y - 2), 5, (0, 0, 255), -1)
    read = rainbow.read(frames, 8.0)
    assert np.hypot(*(read.joints[0, 0, joint] - drawn.joints[0, 0, joint])[:2]) < 0.05 * drawn_poses.height_of(drawn)


def test_the_knuckles_of_four_hands_hide_no_knee():
    """Each of their 84 points is drawn as a knee is, and they stand above it in the picture."""
    frames = smaller(drawn_poses.draw(motion("duet", 1024, 1024)), 768, 768)
    read = rainbow.read(frames, 8.0)
    assert drawn_poses.found(read, motion("duet", 768, 768)).mean() >= 0.98
    assert rainbow.unread(frames, read) == []


@pytest.mark.parametrize("grown", [1, 3])
def test_a_dot_counts_more_than_the_end_of_a_thick_stick(grown):
    """In small pictures sticks are thick: the neck's, short between a face and its dot, is wider than long."""
    drawn = motion("wave", 256, 256)
    frames = drawn_poses.draw(drawn)
    frames = np.stack([cv2.resize(frame, None, fx=grown, fy=grown, interpolation=cv2.INTER_CUBIC) for frame in frames])
    read, wanted = rainbow.read(frames, 8.0), motion("wave", 256 * grown, 256 * grown)
    for joint in (keypoints.NECK, keypoints.RIGHT_SHOULDER, keypoints.LEFT_SHOULDER):
        apart = np.hypot(*(read.joints[:, 0, joint] - wanted.joints[:, 0, joint])[:, :2].T)
        assert apart.max() < 0.05 * drawn_poses.height_of(wanted)


def test_what_is_told_by_its_surroundings_is_less_sure():
    drawn = motion("wave", 512, 512)
    plain = rainbow.read(drawn_poses.draw(drawn, hands=False, faces=False), 8.0)
    covered = rainbow.read(drawn_poses.draw(drawn), 8.0)
    assert plain.joints[:, 0, 0, 2].min() == rainbow.DOT > covered.joints[:, 0, 0, 2].max() > 0


def test_bodies_alone_are_read_through_a_codec(tmp_path):
    poses = keypoints.place(one(), 512, 512)
    read = rainbow.read(through_a_file(drawn_poses.draw(poses, hands=False, faces=False), tmp_path), 8.0)
    assert read.joints.shape[1] == 1
    both = read.seen & poses.seen
    assert both.sum() > 0.9 * poses.seen.sum()
    errors = np.hypot(*(read.joints - poses.joints)[both][:, :2].T)
    assert np.median(errors) < 2 and np.percentile(errors, 95) < 8


def test_joints_that_were_not_drawn_are_not_invented():
    poses = keypoints.place(one(), 512, 512)
    poses.joints[:, 0, [3, 4, 12, 13]] = 0
    read = rainbow.read(drawn_poses.draw(poses, hands=False, faces=False), 8.0)
    assert not read.joints[..., [3, 4, 12, 13], 2].any()


def test_two_people_are_read_apart():
    joints = np.concatenate([one(x=70, height=110).joints, one(x=190, height=110).joints], axis=1)
    both = keypoints.place(Poses(joints, 256, 256, 8.0), 768, 768)
    read = tracking.track(rainbow.read(drawn_poses.draw(both), 8.0))
    assert read.joints.shape[1] == 2
    found = sorted((read.joints[:, person] for person in range(2)), key=lambda each: each[0, 0, 0])
    for each, drawn in zip(found, np.moveaxis(both.joints, 1, 0), strict=True):
        seen = each[..., 2] > 0
        assert seen.mean() > 0.85 and np.median(np.hypot(*(each - drawn)[seen][:, :2].T)) < 4


def test_limbs_that_are_not_read_are_told():
    drawn = motion("duet", 512, 512)
    frames, one_of_two = drawn_poses.draw(drawn), Poses(drawn.joints[:, :1], 512, 512, 8.0)
    assert rainbow.unread(frames, drawn) == []
    missed = rainbow.unread(frames, one_of_two)
    assert missed == list(range(len(frames)))
    assert f"in {len(missed)} of {len(frames)} frames" in rainbow.tell_unread(missed, len(frames))
    assert rainbow.tell_unread([], 8) is None


def test_who_is_there_for_a_moment_only_is_nobody(tmp_path):
    """As scraps of a hand, once taken for somebody small."""
    poses = keypoints.place(one(16, x=70), 512, 512)
    ghost = poses.joints * (0.4, 0.4, 1) + (300, 20, 0)
    ghost[:7], ghost[8:] = 0, 0
    both = Poses(np.concatenate([poses.joints, ghost.astype(np.float32)], axis=1), 512, 512, 8.0)
    video.write(drawn_poses.draw(both, hands=False, faces=False), tmp_path / "clip.mp4", 8.0)
    models = ModelManager({}, Settings(data=tmp_path, cache=tmp_path, device="cpu", hub=False))
    found = finish(search.search(FindPoses.of(clip="0" * 32), models, tmp_path / "clip.mp4"))
    assert found.facts["people"] == 1 and all(len(frame["people"]) == 1 for frame in json.loads(found.text))


def test_where_nobody_is_the_advice_is_for_what_was_chosen(tmp_path):
    video.write(np.repeat(scene(320, 240)[None], 4, axis=0), tmp_path / "clip.mp4", 8.0)
    models = ModelManager({}, Settings(data=tmp_path, cache=tmp_path, device="cpu", hub=False))
    for detector, advice in (("auto", "from head to foot"), ("miniature-openpose", "choose BlazePose")):
        with pytest.raises(ValueError, match=f"Nobody was found in any of the 4 frames.*{advice}"):
            finish(search.search(FindPoses.of(clip="0" * 32, detector=detector), models, tmp_path / "clip.mp4"))


def test_no_skeleton_to_read_is_a_sentence():
    with pytest.raises(ValueError, match="No skeletons in OpenPose's colours"):
        rainbow.read(np.zeros((2, 64, 64, 3), np.uint8), 8.0)
