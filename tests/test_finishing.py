"""Interpolation and upscaling on clips of the paper theatre, whose true frames in between can be drawn."""

import cv2
import numpy as np
import pytest

from pipelines.systems import finishing
from scripts.miniature import world

CLIPS = [
    (world.Words(world.CHARACTERS[number % 4], colour, world.PLACES[number % 6], world.ACTIONS[number % 6]), number)
    for number, colour in enumerate([*world.COLOURS, "red", "blue", "green", "white"])
]


def psnr(one, other):
    return 10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9))


@pytest.fixture(scope="module")
def gains():
    """Action -> by how many dB of PSNR the new frames are nearer to the true ones than mixed neighbours are."""
    patch = pytest.MonkeyPatch()
    patch.setattr(world, "FPS", 16)
    found = {}
    for words, seed in CLIPS:
        clip = world.draw_clip(words, np.random.default_rng(seed), frames=13).frames
        given, truth = clip[::2], clip[1::2]
        made = np.stack(list(finishing.interpolate(given, 2))[1::2])
        mixed = (given[:-1].astype(float) + given[1:]) / 2
        found.setdefault(words.action, []).append(psnr(made, truth) - psnr(mixed, truth))
    patch.undo()
    return found


@pytest.mark.parametrize("action", world.ACTIONS)
def test_new_frames_are_nearer_to_the_truth_than_mixed_ones_for_every_action(gains, action):
    assert len(gains[action]) == 2 and np.mean(gains[action]) > 0


def test_new_frames_are_much_nearer_to_the_truth_on_the_whole(gains):
    assert np.mean([gain for both in gains.values() for gain in both]) > 2


def textured(height=48, width=64):
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_given_frames_are_kept_and_the_new_ones_lie_between_them_at_even_times(factor):
    """A picture that moves by 8 pixels a frame: after half the time by 4."""
    wide = textured(width=120)
    given = [wide[:, 8 * step : 8 * step + 64] for step in range(3)]
    made = list(finishing.interpolate(iter(given), factor))
    assert len(made) == 2 * factor + 1
    assert all(np.array_equal(one, other) for one, other in zip(made[::factor], given, strict=True))
    for number, frame in enumerate(made):
        shift = 8 * number // factor
        true = wide[:, shift : shift + 64]
        assert psnr(frame[:, 12:-12], true[:, 12:-12]) > 30


def test_no_more_than_two_frames_are_asked_for_ahead():
    asked = []

    def source():
        for number in range(50):
            asked.append(number)
            yield np.full((32, 32, 3), number, np.uint8)

    made = finishing.interpolate(source(), 4)
    next(made), next(made)
    assert len(asked) == 2


@pytest.mark.parametrize("side, step", [(16, 6), (24, 8), (32, 12)])
def test_what_is_uncovered_is_not_smeared(side, step):
    """A square crosses a still picture: away from its way nothing changes, and on its way there is no ghost."""
    ground = cv2.GaussianBlur(textured(96, 128), (0, 0), 6) // 2
    square = textured(side, side) // 2 + 128
    first, last, true = (ground.copy() for _ in range(3))
    for picture, left in ((first, 30), (last, 30 + step), (true, 30 + step // 2)):
        picture[32 : 32 + side, left : left + side] = square
    (made,) = finishing.between(first, last, [0.5])
    assert np.abs(made[:16].astype(int) - ground[:16]).max() <= 2
    mixed = (first.astype(float) + last) / 2
    assert psnr(made, true) > psnr(mixed, true) + 4


@pytest.mark.parametrize(
    "one, other",
    [
        (np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)),  # a cut
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)),
        (np.zeros((8, 40, 3), np.uint8), textured(8, 40)),
        (textured(100, 20), textured(100, 20)[::-1]),
    ],
)
def test_pictures_in_which_no_motion_can_be_found_are_mixed(one, other):
    (made,) = finishing.between(one, other, [0.5])
    assert made.dtype == np.uint8 and made.shape == one.shape
    low, high = np.minimum(one, other).min(), np.maximum(one, other).max()
    assert made.min() >= low and made.max() <= high


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("words, seed", CLIPS[:3])
def test_upscaling_keeps_the_picture_and_is_sharper_than_bilinear(factor, words, seed):
    frame = world.draw_clip(words, np.random.default_rng(seed), frames=1).frames[0]
    large = finishing.upscale(frame, factor)
    plain = cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    assert large.shape == plain.shape and large.dtype == np.uint8
    assert psnr(cv2.resize(large, frame.shape[1::-1], interpolation=cv2.INTER_AREA), frame) > 40
    assert cv2.Laplacian(large, cv2.CV_64F).var() > 1.5 * cv2.Laplacian(plain, cv2.CV_64F).var()


def test_upscaling_leaves_no_seams_beside_edges():
    edge = np.full((16, 16, 3), 60, np.uint8)
    edge[:, 8:] = 180
    large = finishing.upscale(edge, 4)
    assert large.min() == 60 and large.max() == 180
    assert finishing.upscale(edge, 1) is edge
