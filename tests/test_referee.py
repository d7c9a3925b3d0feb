"""The referee: right about drawn clips, also soiled ones, and not to be fooled."""

from dataclasses import astuple, replace

import cv2
import numpy as np
import pytest

from scripts.miniature.referee import FOLDER, Referee, flicker, still_parts
from scripts.miniature.world import Clip, Words, draw_clip, sample_words


@pytest.fixture(scope="module")
def referee() -> Referee:
    return Referee.load()


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    rng = np.random.default_rng(11)
    return [draw_clip(sample_words(rng, None), rng) for _ in range(40)]


def _blurred(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in frames])
    return np.clip(soft * rng.uniform(0.94, 1.06, 3) + rng.normal(0, 5, soft.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("soiled", [False, True])
def test_it_reads_all_four_words(referee: Referee, clips: list[Clip], soiled: bool) -> None:
    rng = np.random.default_rng(12)
    right = [
        np.array(astuple(referee.judge(_blurred(clip.frames, rng) if soiled else clip.frames).words))
        == astuple(clip.words)
        for clip in clips
    ]
    assert np.mean(right, axis=0).min() >= 0.97, np.mean(right, axis=0)


def test_changing_one_word_changes_that_verdict_alone(referee: Referee) -> None:
    words = Words("robot", "blue", "beach", "waving")
    for kind, other in {"character": "bear", "colour": "white", "place": "snow", "action": "bowing"}.items():
        asked = replace(words, **{kind: other})
        assert referee.judge(draw_clip(asked, np.random.default_rng(3)).frames).words == asked


@pytest.mark.parametrize("frames", [8, 24])
def test_shorter_and_longer_clips(referee: Referee, frames: int) -> None:
    rng = np.random.default_rng(13)
    clips = [draw_clip(sample_words(rng, None), rng, frames) for _ in range(12)]
    assert np.mean([referee.judge(clip.frames).words == clip.words for clip in clips]) > 0.9


def test_it_finds_the_dancer(referee: Referee, clips: list[Clip]) -> None:
    for clip in clips[:10]:
        found, drawn = referee.read(clip.frames)[2] > 0.5, clip.figure > 0
        assert (found & drawn).sum() / (found | drawn).sum() > 0.5, clip.words


def test_flicker_is_measured_beside_the_dancer(referee: Referee, clips: list[Clip]) -> None:
    rng = np.random.default_rng(14)
    for clip in clips[:5]:
        verdict = referee.judge(clip.frames)
        assert verdict.flicker < 0.3 and verdict.motion > 1, clip.words
        trembling = clip.frames * rng.uniform(0.96, 1.04, (16, 1, 1, 1))  # the lights flicker
        assert referee.judge(trembling.astype(np.uint8)).flicker > 1


def test_flicker_counts_levels() -> None:
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    frames[1::2] = 6
    figure = np.zeros((4, 64, 64), bool)
    figure[:, 20:40, 20:40] = True
    still = still_parts(figure)
    assert flicker(frames, still) == 6 and not still[20:40, 20:40].any() and still[:10, :10].all()


def test_a_blank_clip_is_judged_without_confidence_in_a_colour(referee: Referee) -> None:
    verdict = referee.judge(np.full((16, 128, 128, 3), 200, np.uint8))
    assert verdict.flicker == 0 and verdict.confidence["colour"] < 0.9


def test_its_weights_are_small() -> None:
    assert (FOLDER / "referee.safetensors").stat().st_size < 1_000_000
