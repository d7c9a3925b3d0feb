"""People as joints: tracked, chosen, mended, smoothed and placed."""

import numpy as np
import pytest

from pipelines.poses import keypoints, tracking
from pipelines.poses.keypoints import Poses
from scripts.miniature.figures import BUILDS
from scripts.miniature.motion import perform, skeleton


def dancer(frames: int = 16, x: float = 60, height: float = 80, action: str = "dancing") -> np.ndarray:
    """Joints [F, 18, 3] of a drawn dancer, all sure."""
    poses, _ = perform(action, BUILDS["person"], np.random.default_rng(4), np.arange(frames) / 8)
    joints = np.stack([skeleton(pose, BUILDS["person"]) for pose in poses]) * height + (x, 110)
    return np.concatenate([joints, np.ones((frames, 18, 1))], axis=-1).astype(np.float32)


def poses(*people: np.ndarray, width: int = 256, height: int = 128) -> Poses:
    return Poses(np.stack(people, axis=1), width, height, 8.0)


def test_a_missing_joint_and_nobody_count_as_unseen():
    one = poses(dancer())
    one.joints[3] = 0
    one.joints[5, 0, 7] = 0
    assert one.seen[3].sum() == 0 and one.seen[5].sum() == 17
    assert keypoints.absent(one) == [3]
    assert one.confidence[3] == 0 and one.confidence[5] == pytest.approx(17 / 18)


def test_the_foremost_are_followed_and_who_comes_after_one_of_them():
    first, second, later = dancer(x=60), dancer(x=120), dancer(x=180)
    first[9:], first[4], later[:10] = 0, 0, 0
    crowd = poses(first, second, later)
    alone = keypoints.foremost(crowd, 1).joints[:, 0]
    assert np.array_equal(alone[:9], first[:9]) and np.array_equal(alone[10:], later[10:])
    assert not alone[9].any() and not alone[4].any()  # away for a moment: nobody takes the place
    pair = keypoints.foremost(crowd, 2).joints
    assert np.array_equal(pair[:, 1], second) and np.array_equal(pair[:, 0], alone)
    assert np.array_equal(keypoints.foremost(poses(first), 2).joints, poses(first).joints)


def test_who_is_in_the_way_of_another_is_left_out():
    first, near, far = dancer(x=60), dancer(x=80), dancer(x=180)
    assert np.array_equal(keypoints.apart(poses(first, near, far)).joints, poses(first, far).joints)
    near[1:] = 0  # it counts while both are there
    assert keypoints.apart(poses(first, near)).joints.shape[1] == 1
    near[0], near[1:] = 0, dancer(15, x=180)
    assert keypoints.apart(poses(first, near)).joints.shape[1] == 2


def test_coco_has_the_same_joints_without_the_neck_and_back():
    joints = dancer(1)
    coco = keypoints.to_coco(joints)
    names = [keypoints.JOINTS[index] for index in keypoints.COCO]
    assert coco.shape == (1, 17, 3) and "neck" not in names and len(set(names)) == 17
    assert names[:7] == ["nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder"]
    again = keypoints.from_coco(coco)
    assert np.delete(again, 1, axis=1) == pytest.approx(np.delete(joints, 1, axis=1))
    assert again[0, 1, :2] == pytest.approx((joints[0, 2, :2] + joints[0, 5, :2]) / 2)
    coco[0, 5] = 0  # without a left shoulder there is no neck
    assert not keypoints.from_coco(coco)[0, 1].any()


def test_choosing_a_person():
    both = poses(dancer(x=60), dancer(x=190))
    assert keypoints.choose(both, None) is both
    assert np.array_equal(keypoints.choose(both, 1).joints, both.joints[:, 1:])
    for wrong in (2, -1, True, "0", 0.5):
        with pytest.raises(ValueError, match="2 people were found"):
            keypoints.choose(both, wrong)


def test_short_gaps_are_filled_straight_and_long_ones_left():
    still = dancer()
    away = still.copy()
    away[4:6, 7] = 0  # a wrist for two frames
    away[2:12, 10] = 0  # an ankle for ten
    away[:3, 0] = 0  # the nose from the beginning: there is nothing to fill it from
    filled = keypoints.fill_gaps(poses(away)).joints[:, 0]
    share = np.array([[1 / 3], [2 / 3]])
    assert filled[4:6, 7, :2] == pytest.approx(still[3, 7, :2] * (1 - share) + still[6, 7, :2] * share)
    assert (filled[4:6, 7, 2] == 0.5).all()
    assert not filled[2:12, 10].any() and not filled[:3, 0].any()
    untouched = away[..., 2] > 0
    assert np.array_equal(filled[untouched], away[untouched])


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_smoothing_takes_jitter_and_leaves_the_motion(strength):
    rng = np.random.default_rng(1)
    moving = Poses(np.repeat(dancer(24), 4, axis=0)[:, None], 256, 128, 30.0)
    kernel = np.ones(8) / 8  # a smooth path, at thirty frames a second
    path = np.apply_along_axis(lambda values: np.convolve(values, kernel, "same"), 0, moving.joints[..., :2])[8:-8]
    joints = np.concatenate([path, np.ones((*path.shape[:-1], 1))], axis=-1).astype(np.float32)
    noisy = joints.copy()
    noisy[..., :2] += rng.normal(0, 1.5, path.shape)
    noisy[20, 0, 4] = 0
    smoothed = keypoints.smooth(Poses(noisy, 256, 128, 30.0), strength).joints

    def jitter(each: np.ndarray) -> float:
        return float(np.abs(np.diff(np.delete(each[..., :2], 4, axis=2), 2, axis=0)).mean())

    assert jitter(smoothed) < 0.3 * jitter(noisy)
    errors = [np.abs(np.delete(each - joints, 4, axis=2)[..., :2]).mean() for each in (smoothed, noisy)]
    assert errors[0] < 0.75 * errors[1]
    assert not smoothed[20, 0, 4].any() and np.array_equal(smoothed[..., 2], noisy[..., 2])


def test_no_smoothing_changes_nothing_and_other_words_are_refused():
    one = poses(dancer())
    assert np.array_equal(keypoints.smooth(one, "none").joints, one.joints)
    with pytest.raises(ValueError, match="none, light, strong"):
        keypoints.smooth(one, "very")


@pytest.mark.parametrize("canvas", [(128, 128), (512, 512), (96, 200)])
@pytest.mark.parametrize("how", ["fit", "fill"])
def test_nothing_is_cut_off(how, canvas):
    for person in (dancer(x=40), dancer(x=230, action="walking"), dancer(height=20)):
        placed = keypoints.place(poses(person), *canvas, how)
        assert (placed.width, placed.height) == canvas and keypoints.outside(placed) == 0
        before, after = person[..., :2], placed.joints[:, 0, :, :2]
        scale = np.ptp(after[..., 1]) / np.ptp(before[..., 1])
        assert after - after[0, 0] == pytest.approx((before - before[0, 0]) * scale, abs=0.01)  # nothing is distorted


def test_filling_makes_a_small_dancer_large_and_sets_him_in_the_middle():
    placed = keypoints.place(poses(dancer(x=30, height=20)), 512, 512, "fill")
    left, top, right, bottom = keypoints.box(placed)
    assert bottom - top == pytest.approx(0.84 * 512, rel=0.02) or right - left == pytest.approx(0.84 * 512, rel=0.02)
    assert (left + right) / 2 == pytest.approx(255.5, abs=1) and (top + bottom) / 2 == pytest.approx(255.5, abs=1)


def test_a_point_stays_where_it_is_in_the_picture():
    """The middle of the picture comes to the middle of the canvas, its corner to where the black begins."""
    person = np.zeros((1, 1, 18, 3), np.float32)
    person[0, 0, :3] = (127.5, 63.5, 1), (0, 0, 1), (255, 127, 1)
    placed = keypoints.place(Poses(person, 256, 128, 8.0), 128, 128, "fit").joints[0, 0]
    assert placed[0, :2] == pytest.approx((63.5, 63.5))
    assert placed[1, :2] == pytest.approx((-0.25, 31.75)) and placed[2, :2] == pytest.approx((127.25, 95.25))
    cropped = keypoints.place(Poses(person, 256, 128, 8.0), 128, 128, "crop")
    assert cropped.joints[0, 0, 1, :2] == pytest.approx((-64, 0))
    assert keypoints.outside(cropped) == 2


def test_what_is_cut_off_takes_its_joints_along():
    one = poses(dancer(1, x=60))
    one.joints[0, 0, 4, :2], one.joints[0, 0, 7, :2] = (99.4, 60), (99.6, 60)
    cut = keypoints.crop(one, right=156)  # 100 pixels are left
    assert cut.seen[0, 0, 4] and not cut.seen[0, 0, 7] and (cut.width, cut.height) == (100, 128)


def test_cutting_a_picture():
    cut = keypoints.crop(poses(dancer(x=60), dancer(x=190)), left=100, top=10, right=6)
    assert (cut.width, cut.height) == (150, 118)
    assert tracking.track(cut).joints.shape[1] == 1  # who stood at the left is gone
    assert cut.joints[0, 1, 0, :2] == pytest.approx(dancer(x=190)[0, 0, :2] - (100, 10))
    for wrong in ({"left": -1}, {"left": 200, "right": 56}, {"top": 128}):
        with pytest.raises(ValueError, match="Cut off less"):
            keypoints.crop(poses(dancer()), **wrong)


def test_what_is_told_of_frames_without_anybody():
    one = poses(dancer())
    assert keypoints.tell_absent(one) is None
    one.joints[[2, 3, 4, 9]] = 0
    assert "of the 16 frames: 3–5, 10." in keypoints.tell_absent(one)


def test_nobody_at_all_is_a_sentence():
    nobody = Poses(np.zeros((4, 0, 18, 3), np.float32), 64, 64, 8.0)
    assert tracking.track(nobody).joints.shape == (4, 0, 18, 3)
    with pytest.raises(ValueError, match="Nobody was found"):
        keypoints.place(nobody, 128, 128)


def test_thirty_people_are_tracked():
    rng = np.random.default_rng(3)
    crowd = [dancer(8, x=30 + 60 * (each % 10), height=40) + (0, 50 * (each // 10), 0) for each in range(30)]
    mixed = poses(*crowd, width=640, height=360)
    for frame in mixed.joints:
        rng.shuffle(frame)
    tracked = tracking.track(mixed)
    assert tracked.joints.shape[1] == 30
    assert {person.tobytes() for person in np.moveaxis(tracked.joints, 1, 0)} == {
        person.astype(np.float32).tobytes() for person in crowd
    }
