"""The drawn world at 256x256: what the theatre's models and every score of them rely on."""

import functools
import itertools

import cv2
import numpy as np
import pytest

from scripts.miniature.motion import L_ANKLE, L_HIP, L_WRIST, NECK, R_ANKLE, R_HIP, R_WRIST
from scripts.miniature.world import ACTIONS, CHARACTERS, COLOURS, PLACES, Words, sample_words
from scripts.theatre.figures import INK, sample_build
from scripts.theatre.world import SIZE, Scene, draw_backdrop, draw_clip, stage


@functools.cache
def _scenes(action: str, count: int = 12) -> list[Scene]:
    words = [Words(CHARACTERS[seed % 4], "red", PLACES[seed % 6], action) for seed in range(count)]
    return [stage(each, np.random.default_rng(seed)) for seed, each in enumerate(words)]


def _motions(action: str) -> list[np.ndarray]:
    """Joints [F,18,2] in lengths from neck to floor when standing tallest."""
    points = [scene.joints for scene in _scenes(action)]
    return [p / (p[:, [R_ANKLE, L_ANKLE], 1].max(axis=1) - p[:, NECK, 1]).max() for p in points]


def test_the_same_generator_draws_the_same_clip() -> None:
    words = Words("bear", "green", "snow", "jumping")
    first, second, other = (draw_clip(words, np.random.default_rng(seed), 4) for seed in (3, 3, 4))
    assert np.array_equal(first.frames, second.frames) and np.array_equal(first.keypoints, second.keypoints)
    assert not np.array_equal(first.frames, other.frames)


@pytest.mark.parametrize(("frames", "size"), [(3, SIZE), (2, 64)])
def test_shapes_and_types(frames: int, size: int) -> None:
    clip = draw_clip(Words("robot", "pink", "moon", "kicking"), np.random.default_rng(0), frames, size)
    assert clip.frames.shape == (frames, size, size, 3) and clip.frames.dtype == np.uint8
    assert clip.keypoints.shape == (frames, 18, 3) and clip.keypoints.dtype == np.float32
    assert clip.figure.shape == (frames, size, size) and set(np.unique(clip.figure)) == {0, 255}


def test_a_frame_alone_is_the_frame_of_the_clip() -> None:
    words = Words("person", "blue", "city", "waving")
    clip, scene = draw_clip(words, np.random.default_rng(6), 6), stage(words, np.random.default_rng(6), 6)
    image, mask = scene.draw(4)
    assert np.array_equal(image, clip.frames[4]) and np.array_equal(mask, clip.figure[4])


def test_the_whole_dancer_stays_inside_the_frame() -> None:
    for scene in itertools.chain.from_iterable(_scenes(action) for action in ACTIONS):
        assert scene.joints.min() > 3 and scene.joints.max() < SIZE - 3, scene.words
        for frame in (
            int(scene.joints[..., 1].min(axis=1).argmin()),
            int(np.ptp(scene.joints[..., 0], axis=1).argmax()),
        ):
            mask = scene.draw(frame)[1]
            assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any(), scene.words


def test_joints_lie_on_the_figure() -> None:
    for scene in itertools.chain.from_iterable(_scenes(action)[:4] for action in ACTIONS):
        for frame in (0, 9):
            near = cv2.dilate(scene.draw(frame)[1], np.ones((5, 5)))
            x, y = np.round(scene.joints[frame]).astype(int).T
            assert near[y, x].all(), scene.words


def test_dancers_are_large_and_vary() -> None:
    heights = [scene.height / SIZE for action in ("waving", "dancing") for scene in _scenes(action)]
    assert 0.5 < min(heights) < 0.68 and 0.75 < max(heights) < 0.9


def test_proportions_reach_from_doll_to_human() -> None:
    rng = np.random.default_rng(7)
    heads = np.array([2 * sample_build("person", rng)[0].ear for _ in range(100)])  # heads a body height, about
    assert heads.max() > 0.23 and heads.min() < 0.18
    for character in CHARACTERS:
        for build, human in (sample_build(character, rng) for _ in range(10)):
            stands = build.ankle + build.leg + build.torso + build.head + build.ear
            assert 0.9 < stands < 1.05 and 0 <= human <= 1, character


def test_the_backdrop_is_perfectly_still_and_flat() -> None:
    for place in PLACES:
        scene = stage(Words("astronaut", "blue", place, "dancing"), np.random.default_rng(3))
        images, masks = zip(*(scene.draw(frame) for frame in (0, 5, 10)), strict=True)
        touched = np.any([cv2.dilate(mask, np.ones((61, 61))) for mask in masks], axis=0)
        assert not touched.all()
        assert all(np.array_equal(image[~touched], images[0][~touched]) for image in images), place
        colours, counts = np.unique(
            draw_backdrop(place, np.random.default_rng(0), SIZE).reshape(-1, 3), axis=0, return_counts=True
        )
        assert np.sort(counts)[-8:].sum() > 0.93 * SIZE**2, place  # few colours, no gradients


def test_every_part_is_outlined() -> None:
    """Walking from the backdrop into the dancer, ink comes before any other colour."""
    for character in CHARACTERS:
        image, mask = stage(Words(character, "yellow", "beach", "waving"), np.random.default_rng(2)).draw(8)
        rim = (mask > 0) & (cv2.erode(mask, np.ones((3, 3))) == 0)
        inked = np.abs(image[rim].astype(int) - INK).max(axis=1) < 110  # half of it may be backdrop: smooth edges
        assert inked.mean() > 0.95, (character, inked.mean())


def test_every_colour_is_a_large_area_and_the_nearest_of_the_palette() -> None:
    palette = np.array(list(COLOURS.values()), float)
    for number, (character, colour) in enumerate(itertools.product(CHARACTERS, COLOURS)):
        words = Words(character, colour, PLACES[number % 6], ACTIONS[number % 5])
        image, mask = stage(words, np.random.default_rng(number)).draw(4)
        distance = np.abs(image[mask > 0][:, None].astype(float) - palette).sum(axis=-1)
        close = np.bincount(distance.argmin(axis=1)[distance.min(axis=1) < 40], minlength=8)
        assert close.argmax() == list(COLOURS).index(colour) and close.max() >= 450, (words, close)


def test_the_two_eyes_stand_apart_in_the_face() -> None:
    """A face reads: between the eyes lies another colour than in them."""
    for character in CHARACTERS:
        for seed in range(4):
            scene = stage(Words(character, "red", "desert", "dancing"), np.random.default_rng(seed))
            image = scene.draw(0)[0].astype(int)
            eyes = np.round(scene.joints[0, [14, 15]]).astype(int)
            between = np.round(eyes.mean(axis=0)).astype(int)
            assert np.hypot(*(eyes[1] - eyes[0])) >= 6, character
            inside = image[eyes[:, 1], eyes[:, 0]]
            assert np.abs(inside - image[between[1], between[0]]).max(axis=1).min() > 40, character


def test_drawing_leaves_the_backdrop_alone() -> None:
    scene = stage(sample_words(np.random.default_rng(8)), np.random.default_rng(8))
    before = scene.backdrop.copy()
    scene.draw(0)
    assert np.array_equal(scene.backdrop, before)


def test_walking_crosses_the_stage_and_little_else_does() -> None:
    travel = {action: [np.ptp(p[:, [R_HIP, L_HIP], 0].mean(axis=1)) for p in _motions(action)] for action in ACTIONS}
    assert min(travel["walking"]) > 0.4
    assert max(max(travel[action]) for action in ACTIONS if action != "walking") < 0.3


def test_only_jumping_lifts_both_feet_at_once() -> None:
    lift = {action: [np.ptp(p[:, [R_ANKLE, L_ANKLE], 1].max(axis=1)) for p in _motions(action)] for action in ACTIONS}
    assert min(lift["jumping"]) > 0.12
    assert max(max(lift[action]) for action in ACTIONS if action != "jumping") < 0.06


def test_bowing_brings_the_neck_down_beside_the_hips() -> None:
    fold = {
        action: [(p[:, [R_HIP, L_HIP], 1].mean(axis=1) - p[:, NECK, 1]).min() for p in _motions(action)]
        for action in ACTIONS
    }
    assert max(fold["bowing"]) < 0.3 < min(min(fold[action]) for action in ACTIONS if action != "bowing")


def test_kicking_swings_one_foot_far_to_the_side() -> None:
    for p in _motions("kicking"):
        legs = np.abs(p[:, [R_ANKLE, L_ANKLE], 0] - p[:, [R_HIP, L_HIP], 0])
        assert legs.max() > 0.25 and legs.max(axis=0).min() < 0.2


def test_waving_moves_one_raised_hand_and_dancing_moves_both() -> None:
    for p in _motions("waving"):
        above = (p[:, [R_WRIST, L_WRIST], 1] < p[:, [NECK], 1]).mean(axis=0)
        assert above.max() > 0.7 and above.min() == 0
    for p in _motions("dancing"):
        assert np.ptp(p[:, [R_WRIST, L_WRIST]], axis=0).sum(axis=-1).min() > 0.15
