"""The benchmark of the dance path: what counts as right, and one motion from end to end."""

import argparse

import numpy as np
import pytest
from PIL import Image

from pipelines.catalog import find_motion
from pipelines.poses import keypoints, openpose_json
from pipelines.poses.keypoints import Poses
from scripts.benchmark import dance


@pytest.fixture
def duet() -> Poses:
    """Two people, whole, in 4 frames."""
    poses = openpose_json.read(find_motion("duet"))
    return keypoints.place(poses.frames(range(0, 16, 4)), 128, 128)


def moved(poses: Poses, joint: int, right: float) -> Poses:
    joints = poses.joints.copy()
    joints[:, 0, joint, 0] += right
    return Poses(joints, poses.width, poses.height, poses.fps)


def test_joints_are_right_within_a_tenth_of_the_body(duet):
    tall = float(np.median([np.ptp(pose[pose[:, 2] > 0, 1]) for pose in duet.joints[:, 0]]))
    assert (dance.hits(duet, duet) == 1).sum() == (dance.hits(duet, duet) >= 0).sum() > 100
    assert (dance.hits(moved(duet, 10, 0.09 * tall), duet) == 0).sum() == 0
    far = dance.hits(moved(duet, 10, 0.11 * tall), duet)
    assert (far[:, 0, 10] == 0).all() and (far == 0).sum() == 4


def test_who_is_found_in_another_order_is_the_same_and_what_is_not_found_is_wrong(duet):
    turned = Poses(duet.joints[:, ::-1], 128, 128, duet.fps)
    assert (dance.hits(turned, duet) != 0).all()
    alone = dance.hits(Poses(duet.joints[:, :1], 128, 128, duet.fps), duet)
    assert (alone[:, 0] != 0).all() and (alone[:, 1] <= 0).all() and (alone[:, 1] == 0).any()
    assert (dance.hits(Poses(np.zeros((4, 0, 18, 3)), 128, 128, 8.0), duet) <= 0).all()


def test_joints_outside_the_picture_or_missing_do_not_count(duet):
    wanted = moved(duet, 4, 1000.0)
    wanted.joints[:, 1, 7] = 0
    right = dance.hits(duet, wanted)
    assert (right[:, 0, 4] == -1).all() and (right[:, 1, 7] == -1).all()


def test_agreement_is_told_of_joints_that_both_see(duet):
    ours = moved(duet, 3, 60.0)
    ours.joints[:, 0, 4] = 0
    both = int(duet.seen.sum()) - 4
    assert dance.agreement(duet.joints, duet.joints).startswith(f"100.0% of {both + 4} joints; 0 more")
    said = dance.agreement(ours.joints, duet.joints)
    assert said == f"{(both - 4) / both:.1%} of {both} joints; 4 more are seen by the other only"


def test_a_clip_at_720p_keeps_its_shape():
    frames = np.full((2, 100, 50, 3), 200, np.uint8)
    large = dance.at_720p(frames)
    assert large.shape == (2, 720, 1280, 3) and (large[0, :, 640] == 200).all()
    assert ((large[0, 0] > 0).any(axis=-1)).sum() == 360


def test_a_motion_goes_all_the_way(tmp_path):
    options = {"clips": ["wave"], "sheet": tmp_path / "sheet.png", "litert": None, "device": "cpu"}
    rows = dict(dance.benchmark(argparse.Namespace(**options, frames=8, steps=2)))
    assert "PCK 0.1" in rows["wave"] and "in 8 frames; a built-in motion" in rows["wave"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (dance.COLUMNS * dance.CELL, 2 * dance.CELL)  # skeletons and result
