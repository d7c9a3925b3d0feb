"""A clip's motion with a character's own proportions: lengths, directions, feet and ways."""

import numpy as np
import pytest
from test_keypoints import dancer

from pipelines.catalog import CATALOG, find
from pipelines.poses import retargeting
from pipelines.poses.keypoints import Poses
from pipelines.poses.retargeting import BONES, FLOOR, PARENTS, STATURE, retarget
from pipelines.tasks import PoseToVideo
from scripts.miniature.figures import BUILDS
from scripts.miniature.motion import perform, skeleton

BODIES = find("miniature-followyourpose").bodies
FPS = 8.0


def person(action: str, frames: int = 24, height: float = 300, x: float = 400) -> np.ndarray:
    """Joints [F, 18, 3] of somebody with legs half as long again as the paper person's."""
    joints = dancer(frames, x=x, height=height, action=action)
    hips = joints[:, (8, 11)].copy()
    for hip, (knee, ankle) in zip((0, 1), ((9, 10), (12, 13)), strict=True):
        joints[:, (knee, ankle), :2] = hips[:, hip, None, :2] + 1.5 * (
            joints[:, (knee, ankle), :2] - hips[:, hip, None, :2]
        )
    return joints


def clip(*people: np.ndarray, width: int = 800, height: int = 600) -> Poses:
    return Poses(np.stack(people, axis=1), width, height, FPS)


@pytest.mark.parametrize("character", BUILDS)
def test_the_catalog_knows_the_drawn_characters(character):
    """The bones as the paper theatre draws them when they lie in the picture."""
    build = BUILDS[character]
    joints = np.concatenate(
        [
            np.stack([skeleton(pose, build) for pose in perform(action, build, np.random.default_rng(0), seconds)[0]])
            for action in ("dancing", "waving", "jumping")
            for seconds in (np.arange(16) / 8,)
        ]
    )
    for joint, name in BONES.items():
        lengths = np.hypot(*(joints[:, joint] - joints[:, PARENTS[joint]]).T)
        close = 0.1 if name == "torso" else 0.04  # a torso that leans shows its hips apart
        if name != "ear":  # the far ear is drawn where it is hidden
            assert np.percentile(lengths, 80) == pytest.approx(getattr(BODIES[character], name), rel=close), name
    assert BODIES[character].ankle == build.ankle


@pytest.mark.parametrize("character", ["person", "bear"])
def test_bones_point_as_in_the_clip_and_are_as_long_as_the_characters(character):
    seen, body = person("dancing"), BODIES[character]
    carried = retarget(clip(seen), body, 256, 256)
    assert (carried.width, carried.height, carried.fps) == (256, 256, FPS)
    got = carried.joints[:, 0]
    for joint, parent in PARENTS.items():
        old, new = ((one[:, joint, :2] - one[:, parent, :2]) for one in (seen, got))
        lengths = np.hypot(*new.T)
        turned = (old * new).sum(axis=1) / np.hypot(*old.T) / np.maximum(lengths, 1e-6)
        assert turned.min() > 0.999
        wanted = getattr(body, BONES[joint]) * STATURE * 256
        assert np.percentile(lengths, 90) == pytest.approx(wanted, rel=0.15), BONES[joint]
        assert lengths.max() < 1.35 * wanted


def test_an_arm_towards_the_camera_stays_short():
    seen = person("waving")
    for joint in (3, 4):  # half of the time it points at the camera
        seen[12:, joint, :2] = seen[12:, 2, :2] + 0.3 * (seen[12:, joint, :2] - seen[12:, 2, :2])
    got = retarget(clip(seen), BODIES["person"], 256, 256).joints[:, 0]
    upper = np.hypot(*(got[:, 3] - got[:, 2])[:, :2].T)
    assert np.median(upper[12:]) < 0.45 * np.median(upper[:12])


def test_feet_stay_on_the_ground_and_leave_it_in_a_jump():
    body = BODIES["bear"]
    ground = FLOOR * 256 - body.ankle * STATURE * 256
    walk = retarget(clip(person("walking")), body, 256, 256).joints[:, 0, (10, 13), 1].max(axis=1)
    assert np.abs(walk - ground).max() < 0.03 * 256
    stand, leap = dancer(24, height=300, x=400, action="waving"), np.zeros(24)
    leap[10:14] = (0.12, 0.2, 0.2, 0.12)  # of the body's height
    stand[..., 1] -= 300 * leap[:, None]
    jump = retarget(clip(stand), body, 256, 256).joints[:, 0, (10, 13), 1].max(axis=1)
    assert np.abs(jump - ground)[leap == 0].max() < 0.03 * 256
    up = (ground - jump)[11:13] / (STATURE * 256)
    assert np.all((up > 0.12) & (up < 0.28))  # its own heights: as high for its size as the person's


def test_the_way_across_is_scaled_and_stays_on_the_canvas():
    short, far = person("waving", height=200), person("waving", height=200)
    short[..., 0] += np.linspace(-60, 60, 24)[:, None]
    far[..., 0] += np.linspace(-600, 600, 24)[:, None]
    body = BODIES["person"]
    small, large = (retarget(clip(one, width=1600), body, 256, 256).joints[:, 0] for one in (short, far))
    way = np.diff(small[:, 1, 0]).sum()
    # 120 pixels of somebody who would stand about 250 high, with such legs, in statures of the character.
    assert 0.3 * STATURE * 256 < way < 0.75 * STATURE * 256
    for joints in (small, large):
        assert joints[..., 0].min() >= 0 and joints[..., 0].max() <= 256
    assert np.all(np.diff(large[:, 1, 0]) > 0)


def test_what_is_missing_stays_missing_and_takes_with_it_what_hangs_on_it():
    seen = person("dancing")
    seen[5, 3] = 0  # an elbow
    seen[:, 12:14] = 0  # a lower leg
    seen[7] = 0
    got = retarget(clip(seen), BODIES["robot"], 128, 128).joints[:, 0]
    assert not got[5, 3].any() and not got[5, 4].any() and got[5, 2].any()
    assert not got[:, 12:14].any() and not got[7].any()
    assert np.isfinite(got).all()


def test_two_dancers_stay_two_and_apart():
    both = clip(person("dancing", x=250), person("waving", x=560, height=240))
    got = retarget(both, BODIES["person"], 256, 256)
    assert got.joints.shape == both.joints.shape and got.seen.all()
    assert (got.joints[:, 0, 1, 0] < got.joints[:, 1, 1, 0]).all()
    heights = [np.ptp(got.joints[:, one, :, 1], axis=1).mean() for one in (0, 1)]
    assert heights[1] < heights[0]


def test_a_face_alone_is_a_sentence():
    face = np.zeros((4, 18, 3), np.float32)
    face[:, 14:18] = (100, 100, 1)
    with pytest.raises(ValueError, match="No body is to be seen"):
        retarget(clip(face), BODIES["person"], 128, 128)


def test_only_models_with_bodies_of_their_own_carry_over():
    cards = [card for card in CATALOG.values() if card.kind == "pose-to-video"]
    for card in cards:
        task = PoseToVideo.for_model(card, "a bear dances", 1, motion="wave")
        assert task.retarget == (card.bodies is not None) == (card.name == "miniature-followyourpose")
        assert not PoseToVideo.for_model(card, "a bear dances", 1, motion="wave", retarget=False).retarget
    card = find("miniature-followyourpose")
    assert card.body_of("A red bear, dancing")[0] == "bear" and card.body_of("somebody")[0] == "person"
    assert retargeting.HUMAN.thigh > BODIES["bear"].thigh
