"""Metrics: videos whose flicker and motion are known, and the figures of a tiny CLIP against sums by hand."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import huggingface_hub.constants
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from test_keypoints import dancer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from pipelines.catalog import CATALOG, CLIP
from pipelines.models.manager import ModelManager
from pipelines.poses.keypoints import Poses, stack, to_coco
from pipelines.settings import Settings
from pipelines.systems.metrics import (
    SIGMAS,
    clip_available,
    clip_score,
    embed_frames,
    embed_prompt,
    frame_consistency,
    measure,
    measure_with_clip,
    motion_magnitude,
    pose_accuracy,
    similarity,
    temporal_flicker,
)

REPOSITORY = Path(__file__).parent.parent
PROMPT = "A red bear dances in the snow."


def texture(height: int, width: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def travelling(step: int, side: int = 96, size: tuple[int, int] = (256, 256), frames: int = 5) -> np.ndarray:
    """A textured square that moves `step` pixels a frame to the right, before a textured background."""
    video = np.stack([texture(*size, seed=0)] * frames)
    square = texture(side, side, seed=1)
    for number, frame in enumerate(video):
        left = size[1] // 4 + step * number
        frame[size[0] // 4 : size[0] // 4 + side, left : left + side] = square
    return video


def blinking(*levels: int) -> np.ndarray:
    return np.stack([np.full((32, 48, 3), level, np.uint8) for level in levels])


def random_video(frames: int = 4, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (frames, height, width, 3), np.uint8)


# Flicker


def test_flicker_is_the_share_of_full_scale_by_which_brightness_changes():
    assert temporal_flicker(blinking(100, 151, 100, 151)) == pytest.approx(51 / 255, abs=1e-12)
    assert temporal_flicker(blinking(0, 255, 0)) == 1
    assert temporal_flicker(blinking(10, 10, 40, 40)) == pytest.approx(10 / 255, abs=1e-12)  # one change in three


def test_flicker_is_one_minus_the_score_of_vbench():
    frames = random_video().astype(float)
    errors = [np.abs(before - after).mean() for before, after in zip(frames, frames[1:], strict=False)]
    score = (255 - np.mean(errors)) / 255
    assert temporal_flicker(random_video()) == pytest.approx(1 - score, abs=1e-12)


def test_flicker_knows_neither_direction_nor_place_nor_level():
    frames = random_video() // 2
    flicker = temporal_flicker(frames)
    for other in (frames[::-1], frames[:, ::-1], frames[:, :, ::-1], frames[..., ::-1], 255 - frames, frames + 100):
        assert temporal_flicker(np.ascontiguousarray(other)) == pytest.approx(flicker, abs=1e-12)


# Motion


@pytest.mark.parametrize("step", [1, 3, 8])
def test_motion_is_how_far_the_square_moves_in_a_frame(step):
    assert motion_magnitude(travelling(step)) == pytest.approx(step, abs=0.1)


def test_motion_is_the_same_in_every_direction():
    video = travelling(3)
    turned = (video[::-1], video[:, ::-1], video[:, :, ::-1], video.transpose(0, 2, 1, 3))
    for other in turned:
        assert motion_magnitude(np.ascontiguousarray(other)) == pytest.approx(3, abs=0.1)


def test_motion_is_told_at_one_scale_whatever_the_size():
    video = travelling(3)
    larger, smaller = (
        np.stack([cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for frame in video])
        for factor in (3, 0.5)
    )
    assert motion_magnitude(larger) == pytest.approx(3, abs=0.1)
    assert motion_magnitude(smaller) == pytest.approx(3, abs=0.3)
    assert motion_magnitude(travelling(3, side=48, size=(128, 192))) == pytest.approx(6, abs=0.2)


def test_motion_averages_over_pairs_of_frames():
    video = travelling(4)
    halting = np.repeat(video, 2, axis=0)  # it moves in 4 of 9 pairs
    assert motion_magnitude(halting) == pytest.approx(motion_magnitude(video) * 4 / 9, rel=1e-6)


def test_what_moves_counts_even_where_most_stands_still():
    assert motion_magnitude(travelling(3, side=64)) == pytest.approx(3, abs=0.1)  # a sixteenth of the picture


def test_brightness_that_changes_evenly_is_no_motion_and_noise_in_plain_areas_hardly_any():
    assert motion_magnitude(blinking(100, 151, 100)) == 0
    noise = np.random.default_rng(0).normal(90, 2, (3, 256, 256, 3)).round().astype(np.uint8)
    assert motion_magnitude(noise) < 0.1


# Both


def test_a_still_video_has_neither_flicker_nor_motion():
    still = np.stack([texture(96, 128, seed=3)] * 4)
    assert measure(still) == {"flicker": 0, "motion": 0}
    assert (temporal_flicker(still), motion_magnitude(still)) == (0, 0)


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (64, 64)])
def test_one_frame_and_tiny_frames_have_figures(size):
    video = random_video(3, *size)
    assert measure(video[:1]) == {"flicker": 0, "motion": 0}
    figures = measure(video)
    assert 0 < figures["flicker"] <= 1 and 0 <= figures["motion"] < float("inf")


def test_measuring_leaves_the_frames_as_they_are():
    video = travelling(3)
    video.flags.writeable = False
    assert measure(video) == {"flicker": round(temporal_flicker(video), 4), "motion": round(motion_magnitude(video), 2)}


# CLIP's figures


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 32, "patch_size": 8}
    text = tiny.text_encoder().config.to_dict()
    return tiny.randomised(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)))


@pytest.fixture(scope="module")
def image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def features(output) -> np.ndarray:
    """transformers 5 returns them within an output since some version, and before as they are."""
    return getattr(output, "pooler_output", output).double().numpy()


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(-1) / np.sqrt((left**2).sum(-1) * (right**2).sum(-1))


@torch.no_grad()
def test_the_figures_of_clip_are_those_computed_by_hand(clip, image_processor):
    frames, tokenizer = random_video(11), tiny.tokenizer()  # more than one batch, and the last is not full
    pixels = image_processor(images=list(frames), return_tensors="pt").pixel_values
    images = features(clip.get_image_features(pixels))
    text = features(clip.get_text_features(tokenizer([PROMPT], return_tensors="pt").input_ids))

    expected_score = 100 * np.mean([cosines(image, text[0]) for image in images])
    expected_consistency = 100 * np.mean([cosines(images[i], images[i + 1]) for i in range(10)])
    assert abs(expected_score) > 0.5 and expected_consistency < 99.9  # or the next lines would say little

    embeddings = embed_frames(frames, clip, image_processor)
    assert embeddings.shape == (11, 16) and embeddings.dtype == np.float32
    assert clip_score(embeddings, embed_prompt(PROMPT, clip, tokenizer)) == pytest.approx(expected_score, abs=1e-3)
    assert frame_consistency(embeddings) == pytest.approx(expected_consistency, abs=1e-3)
    assert measure_with_clip(frames, PROMPT, clip, tokenizer, image_processor) == pytest.approx(
        {"clip_score": expected_score, "frame_consistency": expected_consistency}, abs=0.006
    )


@torch.no_grad()
def test_the_score_is_what_clip_itself_calls_the_logit_of_the_image_at_a_scale_of_100(clip, image_processor):
    frames, tokens = random_video(3), tiny.tokenizer()([PROMPT], return_tensors="pt").input_ids
    pixels = image_processor(images=list(frames), return_tensors="pt").pixel_values
    logits = clip(input_ids=tokens, pixel_values=pixels).logits_per_image / clip.logit_scale.exp() * 100
    score = clip_score(embed_frames(frames, clip, image_processor), embed_prompt(PROMPT, clip, tiny.tokenizer()))
    assert score == pytest.approx(logits.mean().item(), abs=1e-3)


def test_embeddings_have_length_one(clip, image_processor):
    lengths = np.linalg.norm(embed_frames(random_video(), clip, image_processor), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    assert np.linalg.norm(embed_prompt(PROMPT, clip, tiny.tokenizer())) == pytest.approx(1, abs=1e-6)


def test_consistency_looks_at_consecutive_frames_only():
    here, there = np.eye(2, dtype=np.float32)
    assert frame_consistency(np.stack([here, here, there, there])) == pytest.approx(200 / 3)
    assert frame_consistency(np.stack([here, there, here, there])) == 0
    assert frame_consistency(np.stack([here, -here])) == -100


def test_frames_that_repeat_are_wholly_consistent_and_so_is_one_frame(clip, image_processor):
    frame = random_video(1)
    repeated = embed_frames(np.repeat(frame, 3, axis=0), clip, image_processor)
    assert frame_consistency(repeated) == pytest.approx(100, abs=1e-3)
    assert frame_consistency(repeated[:1]) == 100
    one = measure_with_clip(frame, PROMPT, clip, tiny.tokenizer(), image_processor)
    assert one["frame_consistency"] == 100 and -100 <= one["clip_score"] <= 100


def test_a_prompt_is_read_up_to_the_77_tokens_that_clip_knows(clip):
    long, other = "snow " * 100, "snow " * 99 + "bear"
    vector = embed_prompt(long, clip, tiny.tokenizer())
    assert np.array_equal(vector, embed_prompt(other, clip, tiny.tokenizer()))
    assert not np.allclose(vector, embed_prompt("snow", clip, tiny.tokenizer()), atol=1e-3)


# CLIP's weights


@pytest.fixture
def no_hub_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def settings(tmp_path, no_hub_cache) -> Settings:
    return Settings(cache=tmp_path / "cache", device="cpu")


@pytest.fixture
def published(tmp_path, clip, image_processor) -> Path:
    """The tiny CLIP as the real one lies on the Hub, old names of tensors included."""
    folder = tmp_path / "published"
    for part in (clip, image_processor, tiny.tokenizer()):
        part.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    for tower in ("text_model", "vision_model"):
        weights[f"{tower}.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(weights, folder / "model.safetensors")
    return folder


def test_clip_is_at_hand_only_where_all_of_it_is(settings, published):
    assert not clip_available(settings)
    shutil.copytree(published, settings.cache / "clip")
    assert clip_available(settings)
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"):
        os.rename(settings.cache / "clip" / name, settings.cache / name)
        assert not clip_available(settings), name
        os.rename(settings.cache / name, settings.cache / "clip" / name)
    assert clip_available(settings)


def test_clip_in_the_hubs_cache_counts_in_the_pinned_revision_only(settings, published, no_hub_cache):
    snapshots = no_hub_cache / f"models--{CLIP.location.replace('/', '--')}" / "snapshots"
    shutil.copytree(published, snapshots / ("0" * 40))
    assert not clip_available(settings)
    shutil.copytree(published, snapshots / CLIP.revision)
    assert clip_available(settings)


def test_the_manager_leases_clip_and_it_measures_as_the_saved_one(settings, published, clip, image_processor):
    shutil.copytree(published, settings.cache / "clip")
    models = ModelManager(CATALOG, settings)
    with (
        models.lease(f"{CLIP.location}/model") as model,
        models.lease(f"{CLIP.location}/tokenizer") as tokenizer,
        models.lease(f"{CLIP.location}/image_processor") as processor,
    ):
        assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
        figures = measure_with_clip(random_video(), PROMPT, model, tokenizer, processor)
    assert figures == measure_with_clip(random_video(), PROMPT, clip, tiny.tokenizer(), image_processor)


def test_clip_that_is_not_there_is_not_downloaded_and_a_sentence_says_what_to_do(settings):
    assert settings.hub
    models = ModelManager(CATALOG, settings)
    for part in ("model", "tokenizer", "image_processor"):
        with pytest.raises(ValueError, match=f"{CLIP.location} is not on this machine. Download its revision"):
            with models.lease(f"{CLIP.location}/{part}"):
                pass


def test_damaged_weights_of_clip_are_refused(settings, published):
    folder = Path(shutil.copytree(published, settings.cache / "clip"))
    os.truncate(folder / "model.safetensors", 1000)
    with pytest.raises(ValueError, match="damaged"), ModelManager(CATALOG, settings).lease(f"{CLIP.location}/model"):
        pass


def test_importing_the_metrics_and_measuring_need_no_torch():
    code = (
        "import sys, numpy, pipelines.systems.metrics as m; m.measure(numpy.zeros((2, 8, 8, 3), 'uint8'));"
        "print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.split()) == (0, []), run.stderr


# Pose accuracy


def people(frames: int = 4, count: int = 1, shift: float = 0.0) -> Poses:
    """Dancers 100 pixels high, side by side, each joint moved by `shift` to the right."""
    bodies = [dancer(1, x=120 * (number + 1) + shift) for number in range(count)]
    return stack([np.concatenate(bodies)] * frames, 600, 300, 8.0)


def test_who_stands_where_they_should_is_right_and_who_stands_elsewhere_is_not():
    assert pose_accuracy(people(), people()) == pytest.approx(100)
    assert pose_accuracy(people(count=3), people(count=3)) == pytest.approx(100)
    assert pose_accuracy(people(shift=300), people()) == 0
    nearer = [pose_accuracy(people(shift=shift), people()) for shift in (0, 2, 4, 8, 16)]
    assert nearer == sorted(nearer, reverse=True) and len(set(nearer)) > 3
    nobody = stack([np.zeros((0, 18, 3), np.float32)] * 4, 600, 300, 8.0)
    assert pose_accuracy(nobody, people()) == 0 == pose_accuracy(people(), nobody)
    assert pose_accuracy(nobody, nobody) == 100


def test_half_found_is_half_right_and_one_too_many_costs_precision():
    wanted = people(frames=4)
    half = replace(wanted, joints=wanted.joints * (np.arange(4) < 2)[:, None, None, None])
    assert pose_accuracy(half, wanted) == pytest.approx(100 * 51 / 101)  # the recalls from 0 to 0.5
    crowded = people(frames=4, count=2)
    crowded.joints[:, 1, :, 2] = 0.5  # the others are less sure than who is right: no recall needs them
    assert pose_accuracy(crowded, wanted) == pytest.approx(100)
    crowded.joints[:, 0, :, 2] = 0.2
    assert pose_accuracy(crowded, wanted) == pytest.approx(50)


def test_similarity_is_the_formula_and_joints_that_are_away_do_not_count():
    wanted, found = (to_coco(people(1, shift=shift).joints[0]) for shift in (0, 3))
    width, height = np.ptp(wanted[0, :, :2], axis=0)
    by_hand = np.exp(-9 / (2 * 0.53 * width * height * (2 * SIGMAS) ** 2)).mean()
    assert similarity(found, wanted) == pytest.approx(by_hand)
    lost = found.copy()
    lost[0, 16] = 0  # an ankle that was not found
    assert similarity(lost, wanted) < similarity(found, wanted)
    wanted[0, 16] = 0  # and need not be
    assert similarity(lost, wanted) == pytest.approx(similarity(found, wanted), rel=0.05)


def test_joints_beside_the_picture_are_not_asked_for():
    wanted = people(1)
    outside = replace(wanted, joints=np.concatenate([wanted.joints, people(1, shift=2000).joints], axis=1))
    assert pose_accuracy(people(1), outside) == pytest.approx(100)
