"""The drawn world: what the miniature models and every test of them rely on."""

import functools
import itertools
from dataclasses import astuple

import cv2
import numpy as np
import pytest

from scripts.miniature.captions import NOUNS, PLACE_PHRASES, VERBS, VOCABULARY, caption
from scripts.miniature.motion import L_ANKLE, L_HIP, L_WRIST, MIRROR, NECK, R_ANKLE, R_HIP, R_WRIST
from scripts.miniature.world import ACTIONS, CHARACTERS, COLOURS, PLACES, Words, draw_clip, held_out, sample_words

ALL = [Words(*four) for four in itertools.product(CHARACTERS, COLOURS, PLACES, ACTIONS)]


@functools.cache
def _clips(action: str, count: int = 12) -> list[np.ndarray]:
    """Keypoints [F,18,2] of random clips of an action, in lengths from neck to floor when standing tallest."""
    found = []
    for seed in range(count):
        words = Words(CHARACTERS[seed % 4], "red", PLACES[seed % 6], action)
        points = draw_clip(words, np.random.default_rng(seed)).keypoints[..., :2]
        found.append(points / (points[:, [R_ANKLE, L_ANKLE], 1].max(axis=1) - points[:, NECK, 1]).max())
    return found


def test_the_same_generator_draws_the_same_clip() -> None:
    words = Words("bear", "green", "snow", "jumping")
    first, second, other = (draw_clip(words, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.frames, second.frames) and np.array_equal(first.keypoints, second.keypoints)
    assert not np.array_equal(first.frames, other.frames)


@pytest.mark.parametrize(("frames", "size"), [(16, 128), (5, 64)])
def test_shapes_and_types(frames: int, size: int) -> None:
    clip = draw_clip(Words("robot", "pink", "moon", "kicking"), np.random.default_rng(0), frames, size)
    assert clip.frames.shape == (frames, size, size, 3) and clip.frames.dtype == np.uint8
    assert clip.keypoints.shape == (frames, 18, 3) and clip.keypoints.dtype == np.float32
    assert clip.figure.shape == (frames, size, size) and set(np.unique(clip.figure)) == {0, 255}


def test_the_dancer_stays_inside_the_frame() -> None:
    rng = np.random.default_rng(1)
    for _ in range(120):
        clip = draw_clip(sample_words(rng, None), rng)
        assert clip.keypoints[..., :2].min() > 2 and clip.keypoints[..., :2].max() < 126, clip.words
        assert not clip.figure[:, [0, -1]].any() and not clip.figure[:, :, [0, -1]].any(), clip.words


def test_joints_lie_on_the_figure() -> None:
    rng = np.random.default_rng(2)
    for _ in range(60):
        clip = draw_clip(sample_words(rng, None), rng)
        near = np.stack([cv2.dilate(mask, np.ones((5, 5))) for mask in clip.figure])
        x, y = np.round(clip.keypoints[..., :2]).astype(int).transpose(2, 0, 1)
        assert near[np.arange(16)[:, None], y, x].all(), clip.words


def test_the_backdrop_is_perfectly_still() -> None:
    rng = np.random.default_rng(3)
    for place in PLACES:
        clip = draw_clip(Words("astronaut", "blue", place, "dancing"), rng)
        shaded = [cv2.dilate(mask, np.ones((29, 29))) for mask in clip.figure]  # the dancer and the shadow
        touched = np.any(shaded, axis=0)
        assert not touched.all()
        assert (clip.frames == clip.frames[0])[:, ~touched].all(), place


def test_every_colour_is_a_large_area_and_the_nearest_of_the_palette() -> None:
    palette = np.array(list(COLOURS.values()), float)
    rng = np.random.default_rng(4)
    for character, colour, action in itertools.product(CHARACTERS, COLOURS, ACTIONS):
        clip = draw_clip(Words(character, colour, PLACES[rng.integers(6)], action), rng)
        for frame, mask in zip(clip.frames[::8], clip.figure[::8], strict=True):
            distance = np.abs(frame[mask > 0][:, None].astype(float) - palette).sum(axis=-1)
            close = np.bincount(distance.argmin(axis=1)[distance.min(axis=1) < 40], minlength=8)
            assert close.argmax() == list(COLOURS).index(colour) and close.max() >= 120, (clip.words, close)


def test_held_out_combinations_keep_every_pair_in_training() -> None:
    kept = [words for words in ALL if not held_out(words)]
    assert 0.10 < 1 - len(kept) / len(ALL) < 0.14
    for i, j in itertools.combinations(range(4), 2):
        assert {(astuple(w)[i], astuple(w)[j]) for w in kept} == {(astuple(w)[i], astuple(w)[j]) for w in ALL}


def test_sampling_respects_the_split() -> None:
    rng = np.random.default_rng(5)
    assert not any(held_out(sample_words(rng)) for _ in range(100))
    assert all(held_out(sample_words(rng, True)) for _ in range(20))
    assert any(held_out(sample_words(rng, None)) for _ in range(100))


def test_captions_name_all_four_words() -> None:
    rng = np.random.default_rng(6)
    for words in ALL:
        text = caption(words, rng).lower().rstrip(".")
        colours = {words.colour, "violet"} if words.colour == "purple" else {words.colour}
        assert any(f" {noun} " in f" {text} " for noun in NOUNS[words.character]), text
        assert colours & set(text.split()), text
        assert any(place in text for place in PLACE_PHRASES[words.place]), text
        assert any(form in text for forms in VERBS[words.action] for form in forms), text
        assert " a orange" not in text and " a astronaut" not in text and " a android" not in text
    assert VOCABULARY["action"] == ACTIONS


def test_walking_crosses_the_stage_and_little_else_does() -> None:
    travel = {action: [np.ptp(p[:, [R_HIP, L_HIP], 0].mean(axis=1)) for p in _clips(action)] for action in ACTIONS}
    assert min(travel["walking"]) > 0.4
    assert max(max(travel[action]) for action in ACTIONS if action != "walking") < 0.3


def test_only_jumping_lifts_both_feet_at_once() -> None:
    lift = {action: [np.ptp(p[:, [R_ANKLE, L_ANKLE], 1].max(axis=1)) for p in _clips(action)] for action in ACTIONS}
    assert min(lift["jumping"]) > 0.12
    assert max(max(lift[action]) for action in ACTIONS if action != "jumping") < 0.06


def test_bowing_brings_the_neck_down_beside_the_hips() -> None:
    fold = {
        action: [(p[:, [R_HIP, L_HIP], 1].mean(axis=1) - p[:, NECK, 1]).min() for p in _clips(action)]
        for action in ACTIONS
    }
    assert max(fold["bowing"]) < 0.3 < min(min(fold[action]) for action in ACTIONS if action != "bowing")


def test_kicking_swings_one_foot_far_to_the_side() -> None:
    for p in _clips("kicking"):
        legs = np.abs(p[:, [R_ANKLE, L_ANKLE], 0] - p[:, [R_HIP, L_HIP], 0])
        assert legs.max() > 0.25 and legs.max(axis=0).min() < 0.2


def test_waving_moves_one_raised_hand_and_dancing_moves_both() -> None:
    for p in _clips("waving"):
        above = (p[:, [R_WRIST, L_WRIST], 1] < p[:, [NECK], 1]).mean(axis=0)
        assert above.max() > 0.7 and above.min() == 0
    for p in _clips("dancing"):
        assert np.ptp(p[:, [R_WRIST, L_WRIST]], axis=0).sum(axis=-1).min() > 0.15


def test_planted_feet_do_not_slide() -> None:
    for p in _clips("walking"):
        floor = p[:, [R_ANKLE, L_ANKLE], 1].max()
        down = p[:, [R_ANKLE, L_ANKLE], 1] > floor - 0.002
        slide = np.abs(np.diff(p[:, [R_ANKLE, L_ANKLE], 0], axis=0))[down[1:] & down[:-1]]
        assert np.median(slide) < 0.005


def test_mirroring_swaps_sides() -> None:
    assert [MIRROR[i] for i in MIRROR] == list(range(18)) and MIRROR[R_WRIST] == L_WRIST
