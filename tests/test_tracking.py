"""Who is who: people who cross, hide each other, leave and come back."""

import numpy as np
import pytest
from test_keypoints import dancer, poses

from pipelines.poses import tracking
from pipelines.poses.keypoints import Poses

FPS = 8.0


def crossing(speed: float, heights: tuple[float, float], hidden: int, seed: int) -> tuple[np.ndarray, Poses]:
    """Two who walk past each other: where their necks are [F, 2], and what a detector sees of them, in any order.

    `speed` is in heights a second; for `hidden` frames who is behind is not seen.
    """
    rng = np.random.default_rng(seed)
    frames, step = 24, speed * heights[0] / FPS
    middle, way = 256, np.arange(24) - 11.5
    people = []
    for height, direction in zip(heights, (1, -1), strict=True):
        joints = dancer(frames, x=0, height=height, action="walking")
        joints[..., 0] += middle + (direction * step * way)[:, None]
        joints[..., :2] += rng.normal(0, 0.01 * height, joints[..., :2].shape)  # no detector is exact
        people.append(joints)
    necks = np.stack([joints[:, 1, 0] for joints in people], axis=1)
    seen = np.stack(people, axis=1)
    seen[12 - hidden // 2 : 12 - hidden // 2 + hidden, 1] = 0
    for frame in seen:
        rng.shuffle(frame)
    return necks, Poses(seen, 512, 256, FPS)


@pytest.mark.parametrize("hidden", [0, 4])
@pytest.mark.parametrize("heights", [(80, 80), (80, 55)])
@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_who_crosses_stays_the_same(speed, heights, hidden):
    necks, seen = crossing(speed, heights, hidden, seed=round(10 * speed) + hidden)
    tracked = tracking.track(seen)
    assert tracked.joints.shape[1] == 2
    found = tracked.joints[:, :, 1]  # (F, 2, 3)
    if abs(found[0, 0, 0] - necks[0, 0]) > 1:
        necks = necks[:, ::-1]
    # At the moment of meeting two of one height can't be told apart, nor need they be.
    apart = np.abs(necks[:, 0] - necks[:, 1]) > 0.15 * min(heights)
    there = (found[..., 2] > 0) & apart[:, None]
    assert there.sum() >= 2 * apart.sum() - hidden
    assert np.abs(found[..., 0] - necks)[there].max() < 1


@pytest.mark.parametrize("fps", [24.0, 30.0])
@pytest.mark.parametrize("pace, other", [(250, -75), (300, -300), (50, -50), (75, -250)])
def test_who_hides_somebody_of_the_same_height_stays_who_they_are(fps, pace, other):
    """For many frames one is seen where both should be; in pixels a second."""
    rng = np.random.default_rng(0)
    times = (np.arange(round(3 * fps)) - 1.5 * fps) / fps
    people = np.stack([dancer(len(times), x=320, height=160) for _ in range(2)], axis=1)
    people[..., 0] += (times[:, None] * (pace, other))[..., None]
    people[..., :2] += rng.normal(0, 1.5, people[..., :2].shape)
    necks = people[:, :, 1, 0].copy()
    hidden = np.abs(necks[:, 0] - necks[:, 1]) < 30
    people[hidden, 1] = 0
    people[hidden, 0] *= rng.random((hidden.sum(), 18, 1)) > 0.4
    for frame in people:
        rng.shuffle(frame)
    found = tracking.track(Poses(people.astype(np.float32), 640, 256, fps)).joints[:, :, 1]
    if abs(found[0, 0, 0] - necks[0, 0]) > 1:
        necks = necks[:, ::-1]
    there = (found[..., 2] > 0) & ~hidden[:, None]
    assert there.sum() == 2 * (~hidden).sum() and np.abs(found[..., 0] - necks)[there].max() < 1


def test_who_meets_and_turns_back_is_known_by_the_clothes():
    """By their paths they might as well have walked on: only what they wear tells."""
    way = np.abs(np.arange(24) - 11.5) * 10 + 6
    red, blue = dancer(24, x=0, action="walking"), dancer(24, x=0, action="walking")
    red[..., 0] += 256 - way[:, None]
    blue[..., 0] += 256 + way[:, None]
    seen = Poses(np.stack([red, blue], axis=1), 512, 256, FPS)
    seen.joints[10:14] = 0  # behind a pillar, where they turn
    frames = np.zeros((24, 256, 512, 3), np.uint8)
    for frame, people in zip(frames, seen.joints, strict=True):
        for person, colour in zip(people, ((255, 0, 0), (0, 0, 255)), strict=True):
            if person[1, 2]:
                (left, top), (right, bottom) = (
                    person[:, :2].min(0).astype(int) - 4,
                    person[:, :2].max(0).astype(int) + 4,
                )
                frame[top:bottom, left:right] = colour
    seen.joints[12:] = seen.joints[12:, ::-1]
    paths = tracking.track(seen, tracking.looks(frames, seen)).joints[..., 1, 0]
    for path, person in zip(paths.T, (red, blue), strict=True):
        there = path > 0
        assert np.abs(path - person[:, 1, 0])[there].max() < 1 and there.sum() == 20


def test_people_keep_their_places_however_they_come():
    rng = np.random.default_rng(0)
    left, right, small = dancer(x=60), dancer(x=190, action="waving"), dancer(x=120, height=25, action="jumping")
    mixed = poses(left, right, small)
    for frame in mixed.joints:
        rng.shuffle(frame)
    tracked = tracking.track(mixed)
    assert tracked.joints.shape == (16, 3, 18, 3)
    found = [tracked.joints[:, person] for person in range(3)]
    assert {tuple(each[0, 0]) for each in found[:2]} == {tuple(left[0, 0]), tuple(right[0, 0])}
    assert np.array_equal(found[2], small)  # the smallest comes last
    for each in found:
        assert any(np.array_equal(each, person) for person in (left, right, small))


def test_somebody_who_leaves_and_comes_back_is_the_same():
    away = dancer()
    away[5:9] = 0
    tracked = tracking.track(poses(away))
    assert tracked.joints.shape[1] == 1 and np.array_equal(tracked.joints[:, 0], away)


def test_somebody_far_away_is_somebody_else():
    first, second = dancer(x=50), dancer(x=200)
    first[8:], second[:8] = 0, 0
    assert tracking.track(poses(first, second)).joints.shape[1] == 2


def test_who_is_seen_for_a_moment_beside_another_is_nobody():
    long, brief = dancer(x=60), dancer(x=180)
    brief[2:] = 0
    assert tracking.lasting(poses(long, brief)).joints.shape[1] == 1
    longer = dancer(x=180)
    longer[3:] = 0
    assert tracking.lasting(poses(long, longer)).joints.shape[1] == 2
    long[:2] = 0  # then whoever is there before is somebody
    assert tracking.lasting(poses(long, brief)).joints.shape[1] == 2
    assert tracking.lasting(poses(dancer(1))).joints.shape[1] == 1
    assert tracking.lasting(Poses(np.zeros((4, 0, 18, 3), np.float32), 8, 8, FPS)).joints.shape[1] == 0
