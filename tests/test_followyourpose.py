"""FollowYourPose's own steps: skeletons brought to size, features once a job, strength, any number of branches."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny
import torch
from diffusers import AutoencoderKL

from pipelines.catalog import find_motion
from pipelines.events import Progress
from pipelines.media import video
from pipelines.models.folders import card_of_folder
from pipelines.models.manager import ModelManager
from pipelines.poses import keypoints, openpose_json, pose_sequence, rainbow, skeleton
from pipelines.settings import Settings
from pipelines.systems import followyourpose, tuneavideo
from pipelines.systems.diffusion import draw_noise
from pipelines.tasks import PoseToVideo
from scripts.miniature.world import Words, draw_clip

SCHEDULE = {**tiny.IMAGE_SCHEDULER, "num_train_timesteps": 1000}
SHAPE = (1, 4, 3, 8, 8)


def skeletons(frames=3, height=64, width=64):
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def texts(count):
    return torch.randn((count, 7, tiny.WIDTH), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(unet, features, guidance=7.5):
    states = texts(2 if guidance > 1 else 1)
    steps = followyourpose.sample(unet, states, draw_noise(SHAPE, seed=0), features, SCHEDULE, "ddim", 2, guidance)
    return list(steps)[-1].latents


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (64, 128)])
@pytest.mark.parametrize("source", [(48, 96), (301, 77), (64, 64), (64, 128), (1, 1)])
def test_skeletons_cover_the_size_and_stay_within_0_and_1(source, size):
    ready = followyourpose.prepare_skeletons(skeletons(2, *source), width=size[0], height=size[1])
    assert ready.shape == (1, 2, 3, size[1], size[0]) and ready.dtype == torch.float32
    assert 0 <= ready.min() and ready.max() <= 1


def test_pictures_of_the_right_size_are_left_as_they_are_and_wide_ones_cut_in_the_middle():
    pictures = skeletons(2, 64, 96)
    ready = followyourpose.prepare_skeletons(pictures, width=64, height=64)
    middle = torch.from_numpy(pictures[:, :, 16:80]).permute(0, 3, 1, 2)[None] / 255
    assert tiny.relative_error(ready, middle) < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_the_dancer_follows_as_strongly_as_wanted(guidance):
    unet = tiny.inflated_unet(pose=True)
    ready = followyourpose.prepare_skeletons(skeletons(), 64, 64)
    results = {s: run(unet, followyourpose.pose_features(unet, ready, s), guidance) for s in (0.0, 0.5, 1.0)}
    steps = tuneavideo.sample(
        unet, texts(2 if guidance > 1 else 1), draw_noise(SHAPE, seed=0), SCHEDULE, "ddim", 2, guidance
    )
    assert tiny.relative_error(results[0.0], list(steps)[-1].latents) < 1e-5
    assert (results[1.0] - results[0.0]).abs().mean() > (results[0.5] - results[0.0]).abs().mean() > 0


@torch.no_grad()
def test_features_are_computed_once_a_job():
    unet = tiny.inflated_unet(pose=True)
    calls = []
    unet.skeleton_adapter.conv_in.register_forward_hook(lambda *call: calls.append(1))
    run(unet, followyourpose.pose_features(unet, followyourpose.prepare_skeletons(skeletons(), 64, 64)))
    assert calls == [1]


# From a clip to a video

SIDE, FRAMES = 64, 8
WORDS = Words("person", "red", "beach", "waving")


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return card_of_folder(tiny.write_pose_model(tmp_path_factory.mktemp("pose") / "pose"))


@pytest.fixture
def models(card, tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    return ModelManager({card.name: card}, settings, device="cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A drawn clip of 10 frames whose dancer the built-in detector knows."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    video.write(draw_clip(WORDS, np.random.default_rng(1), frames=10).frames, path, 8)
    return path


def task(card, **settings):
    settings = {"frames": FRAMES, "width": SIDE, "height": SIDE, "steps": 2, **settings}
    if "motion" not in settings:
        settings["clip"] = "0" * 32
    return PoseToVideo.for_model(card, "an astronaut", 1, **settings)


def finish(generator):
    events, value = tiny.finish(generator)
    return value, events


def followed(models, task, clip=None):
    return finish(pose_sequence.skeletons(task, models, clip))[0]


def colours(pictures):
    """How many pixels each of FollowYourPose's colours has."""
    return [int((np.abs(pictures.astype(int) - colour).max(axis=-1) < 40).sum()) for colour in COLOURS]


COLOURS = (skeleton.ORANGE, skeleton.BLUE, skeleton.GREEN)


def test_a_clip_becomes_a_video_that_follows_its_poses(card, models, drawn):
    (frames, facts), events = finish(followyourpose.generate(task(card), models, drawn))
    assert frames.shape == (FRAMES, SIDE, SIDE, 3) and frames.dtype == np.uint8
    assert facts["poses"]["people"] >= 1 and facts["poses"]["confidence"] > 0.3
    assert facts["poses"]["frames_without_anybody"] == [] and "note" not in facts["poses"]
    assert facts["network_calls"] == 2 and facts["seconds_by_stage"].keys() >= {"Finding the poses", "Denoising"}
    stages = {event.stage for event in events if isinstance(event, Progress)}
    assert {"Reading the clip", "Finding people", "Reading the prompt", "Denoising", "Decoding"} <= stages


def test_every_setting_reaches_the_video_and_the_same_make_the_same(card, models):
    def frames(**settings):
        return finish(followyourpose.generate(task(card, motion="wave", **settings), models))[0][0]

    plain = frames()
    assert np.array_equal(frames(), plain)
    for change in ({"strength": 0.5}, {"placing": "fill"}, {"guidance": 1.0}, {"negative_prompt": "rain"}):
        assert not np.array_equal(frames(**change), plain), change


def test_of_a_short_clip_all_is_used_and_it_says_so(card, models, drawn):
    wanted = task(card, frames=16, stride=3)
    found = followed(models, wanted, drawn)
    assert len(found.pictures) == 4 and "has 4 frames and not 16" in found.facts["poses"]["note"]


def test_every_choice_reaches_the_skeletons(card, models, tmp_path):
    poses = openpose_json.read(find_motion("duet"))
    assert poses.joints.shape[1] == 2
    shaken = poses.joints.copy()
    shaken[..., :2] += np.random.default_rng(0).normal(0, 2, shaken[..., :2].shape)
    shaken[4, 0] = 0  # away for a moment
    openpose_json.write(replace(poses, joints=shaken), tmp_path / "duet.json")

    def pictures(**settings):
        settings = {"placing": "crop", "smoothing": "none", **settings}
        return followed(models, task(card, **settings), tmp_path / "duet.json").pictures

    plain = pictures()
    assert plain.shape == (FRAMES, SIDE, SIDE, 3) and min(colours(plain)) > 0
    for change in ({"smoothing": "strong"}, {"placing": "fill"}, {"person": 0}, {"gaps": False}, {"start": 0.5}):
        assert not np.array_equal(pictures(**change), plain), change
    assert np.array_equal(pictures(stride=2)[1], plain[2])
    assert len(pictures(end=0.5)) == round(0.5 * poses.fps)
    one, other = pictures(person=0), pictures(person=1)
    assert not np.array_equal(one, other) and sum(colours(one)) < sum(colours(plain))
    with pytest.raises(ValueError, match="no person 2: 2 people were found"):
        pictures(person=2)


def test_of_a_crowd_as_many_are_followed_as_the_model_draws(card, models, tmp_path):
    duet = openpose_json.read(find_motion("duet"))
    third = duet.joints[:, :1] + (0, 200, 0)  # below the first
    crowd = replace(duet, joints=np.concatenate([duet.joints, third.astype(np.float32)], axis=1))
    openpose_json.write(crowd, tmp_path / "crowd.json")
    everybody = followed(models, task(card), tmp_path / "crowd.json")
    assert everybody.poses.joints.shape[1] == 3 and "note" not in everybody.facts["poses"]
    models = ModelManager({card.name: replace(card, dancers=2)}, models.settings, device="cpu")
    pair = followed(models, task(card), tmp_path / "crowd.json")
    assert pair.poses.joints.shape[1] == 2 and pair.facts["poses"]["people"] == 3
    assert "Of 3 people" in pair.facts["poses"]["note"]
    last = followed(models, task(card, person=2), tmp_path / "crowd.json")
    assert last.poses.joints.shape[1] == 1 and "note" not in last.facts["poses"]


def test_a_motion_of_the_library_needs_no_clip(card, models):
    found = followed(models, task(card, motion="wave"))
    assert found.pictures.shape == (FRAMES, SIDE, SIDE, 3) and found.source is None
    assert found.poses.joints.shape[1] == 1 and found.facts["poses"]["origin"] == "a built-in motion"
    with pytest.raises(ValueError, match="start must be"):
        followed(models, task(card, motion="wave", start=1000.0))


def test_skeleton_videos_are_known_and_used_or_drawn_anew(card, models, tmp_path):
    poses = keypoints.place(openpose_json.read(find_motion("wave")), 256, 256)
    video.write(skeleton.draw(poses), tmp_path / "coco.mp4", 8)
    video.write(drawn_by_openpose(poses), tmp_path / "openpose.mp4", 8)
    as_it_is = followed(models, task(card), tmp_path / "coco.mp4")
    anew = followed(models, task(card, person=0), tmp_path / "openpose.mp4")
    assert as_it_is.poses is None and "as they are" in as_it_is.facts["poses"]["origin"]
    assert anew.facts["poses"]["people"] == 1 and "drawn anew" in anew.facts["poses"]["origin"]
    wanted = skeleton.draw(keypoints.place(poses, SIDE, SIDE))[:FRAMES]
    for pictures in (as_it_is.pictures, anew.pictures):
        near = cv2.dilate(wanted[3].max(axis=-1), np.ones((7, 7)))
        assert min(colours(pictures)) > 0 and near[pictures[3].max(axis=-1) > 120].min() > 0
    with pytest.raises(ValueError, match="can't be told apart"):
        followed(models, task(card, person=0), tmp_path / "coco.mp4")


def drawn_by_openpose(poses):
    """As OpenPose draws it: darker limbs, and a dot on every joint."""
    frames = np.zeros((len(poses.joints), poses.height, poses.width, 3), np.uint8)
    for image, people in zip(frames, poses.joints, strict=True):
        for points in people[..., :2].round().astype(int).tolist():
            for (first, second), colour in zip(rainbow.LIMBS, rainbow.COLOURS, strict=False):
                cv2.line(image, points[first], points[second], (0.6 * colour).tolist(), 4)
            for point, colour in zip(points, rainbow.COLOURS, strict=True):
                cv2.circle(image, point, 4, colour.tolist(), -1)
    return frames


def test_what_cannot_be_followed_is_refused_in_a_sentence(card, models, drawn, tmp_path):
    black = np.zeros((10, 64, 64, 3), np.uint8)
    black[9] = 255
    video.write(black, tmp_path / "black.mp4", 8)
    sky = np.linspace(90, 200, 64).astype(np.uint8)[None, :, None, None]
    video.write(np.broadcast_to(sky, (10, 64, 64, 3)), tmp_path / "nobody.mp4", 8)
    (tmp_path / "broken.json").write_text('[{"people": [7]}]')
    for settings, clip, says in (
        ({}, tmp_path / "black.mp4", "black"),
        ({}, tmp_path / "nobody.mp4", "Nobody was found"),
        ({"shown": "skeleton"}, drawn, "shows no skeletons"),
        ({"start": 5.0}, drawn, "start must be"),
        ({}, tmp_path / "broken.json", "pose_keypoints_2d"),
    ):
        with pytest.raises(ValueError, match=says):
            followed(models, task(card, **settings), clip)


def test_too_little_memory_is_told_with_what_fits(card, models):
    models._budget = lambda: 20 * 2**20
    with pytest.raises(MemoryError, match="Choose|fit"):
        finish(followyourpose.generate(task(card, motion="wave", width=512, height=512), models))


def test_the_memory_counted_includes_the_poses(card, models):
    unet = models.empty(f"{card.name}/inflated_unet")
    few, many = (followyourpose.denoising_memory(unet, 2, frames, 8, 8, 1) for frames in (8, 16))
    alone = tuneavideo.denoising_memory(unet, 2, 8, 8, 8, 1)
    assert alone < few < many


def test_closing_the_generator_stops_the_work_and_returns_the_models(card, models, drawn):
    events = followyourpose.generate(task(card, steps=50), models, drawn)
    for event in events:
        if isinstance(event, Progress) and event.stage == "Denoising":
            break
    events.close()
    assert all(resident.leases == 0 for resident in models.stats())


def test_skeletons_fit_the_latents_of_a_coarser_vae(tmp_path):
    """Eight pixels of a skeleton belong to each latent, also where sixteen of the picture do."""
    folder = tiny.write_pose_model(tmp_path / "pose")
    sizes = {"block_out_channels": (8,) * 5, "norm_num_groups": 4, "latent_channels": 4}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 5, "up_block_types": ("UpDecoderBlock2D",) * 5}
    coarse = tiny.randomised(AutoencoderKL(**blocks, **sizes))
    coarse.save_pretrained(folder / "stable-diffusion-v1-4" / "vae")
    card = card_of_folder(folder)
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    models = ModelManager({card.name: card}, settings, device="cpu")
    wanted = task(card, motion="wave", width=128, height=128)
    frames, _ = finish(followyourpose.generate(wanted, models))[0]
    assert frames.shape == (FRAMES, 128, 128, 3)
