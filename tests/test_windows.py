"""Videos longer than what a network sees at once: windows that overlap, in the same memory, without a seam."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from pipelines.cards import Limits, Range
from pipelines.catalog import CATALOG, find
from pipelines.models.folders import card_of_folder
from pipelines.models.manager import ModelManager
from pipelines.models.networks.inflated_unet import EditingUNet
from pipelines.serving import estimate
from pipelines.settings import Settings
from pipelines.systems import modelscope, tuneavideo
from pipelines.systems.diffusion import draw_noise
from pipelines.systems.engine import find_engine
from pipelines.systems.prediction import Shortcuts, windowed
from pipelines.systems.stable_diffusion import working_memory
from pipelines.tasks import NOBODY, Edit, PoseToVideo, TextToVideo, Tune
from pipelines.windows import seen, windows

LIMITS = Limits(Range(2, 40), Range(64, 64, 64), voxels=8 * 64 * 64, once=8, window=8)
SIZE = {"width": 64, "height": 64, "steps": 2, "guidance": 3.0, "scheduler": "ddim"}


@pytest.mark.parametrize("length", [1, 2, 3, 8, 24])
def test_windows_cover_every_frame_and_share_a_third_with_the_next(length):
    for frames in range(1, 100):
        parts = windows(frames, length)
        assert [parts[0].start, parts[-1].stop] == [0, frames]
        assert {len(part) for part in parts} == {min(frames, length)}
        shared = [one.stop - other.start for one, other in zip(parts, parts[1:], strict=False)]
        assert length == 1 or all(3 * count >= length for count in shared)
        assert seen(frames, length) == len(parts) * min(frames, length)
        if len(parts) > 1:  # no fewer would do
            assert (len(parts) - 1) * length - (len(parts) - 2) * max(1, -(-length // 3)) < frames or length == 1
    assert windows(50, 0) == [range(50)]


def test_each_window_is_seen_alone_and_the_middle_of_it_counts_most():
    asked = []

    def network(frames):
        def predict(latents, timestep):
            asked.append((frames, latents.clone(), timestep))
            return torch.full_like(latents, float(frames.start)).repeat(2, 1, 1, 1, 1)

        return predict

    latents = draw_noise((1, 3, 7, 2, 2), 1)
    found = windowed(network, 5)(latents, 400)
    assert [(frames, timestep) for frames, _, timestep in asked] == [(slice(0, 5), 400), (slice(2, 7), 400)]
    assert all(given.equal(latents[:, :, frames]) for frames, given, _ in asked)
    # weights 1 2 3 2 1 over the frames 0 to 4, and over 2 to 6
    expected = torch.tensor([0, 0, 2 * 1 / 4, 2 * 2 / 4, 2 * 3 / 4, 2, 2])
    assert found.shape == (2, 3, 7, 2, 2)
    assert torch.allclose(found, expected.view(7, 1, 1).expand_as(found))


def test_pictures_before_the_video_are_seen_in_every_window():
    asked = []

    def network(frames):
        def predict(latents, timestep):
            asked.append((frames, latents[0, 0, :, 0, 0].tolist()))
            return torch.full_like(latents, float(frames.start))

        return predict

    latents = torch.arange(9.0).view(1, 1, 9, 1, 1)
    found = windowed(network, 5, before=2)(latents, 400)
    assert asked == [(slice(0, 5), [0, 1, 2, 3, 4, 5, 6]), (slice(2, 7), [0, 1, 4, 5, 6, 7, 8])]
    expected = torch.tensor([1, 1, 0, 0, 2 * 1 / 4, 2 * 2 / 4, 2 * 3 / 4, 2, 2])
    assert torch.allclose(found.flatten(), expected)


@torch.no_grad()
def test_what_fits_into_one_window_is_made_as_ever():
    unet, texts, noise = tiny.unet(), draw_noise((2, 7, tiny.WIDTH), 9), draw_noise((1, 4, 6, 8, 8), 1)
    settings = texts, noise, {**tiny.SCHEDULER, "num_train_timesteps": 1000}, "ddim", 2, 3.0
    *_, plain = modelscope.sample(unet, *settings)
    *_, fits = modelscope.sample(unet, *settings, shortcuts=Shortcuts(window=6))
    *_, longer = modelscope.sample(unet, *settings, shortcuts=Shortcuts(window=4))
    assert fits.latents.equal(plain.latents) and not longer.latents.equal(plain.latents)


@torch.no_grad()
def test_a_window_follows_the_poses_of_its_own_frames():
    unet, texts = tiny.inflated_unet(pose=True), draw_noise((1, 7, tiny.WIDTH), 9)
    features = unet.skeleton_adapter(torch.rand(1, 7, 3, 64, 64, generator=torch.Generator().manual_seed(3)))
    noise, schedule = draw_noise((1, 4, 7, 8, 8), 1), {**tiny.SCHEDULER, "num_train_timesteps": 1000}
    settings = unet, texts, noise, schedule, "ddim", 1, 1.0, 1, features
    *_, step = tuneavideo.sample(*settings, Shortcuts(window=5))
    expected = torch.zeros_like(noise)
    weight = torch.tensor([1.0, 2, 3, 2, 1]).view(5, 1, 1)
    total = torch.zeros(7, 1, 1)
    for part in (slice(0, 5), slice(2, 7)):
        network = EditingUNet(unet, texts, 1, [feature[:, :, part] for feature in features])
        timestep = tuneavideo.image_solver("ddim", schedule, 1, 0).timesteps[0]
        expected[:, :, part] += weight * network(noise[:, :, part], timestep)
        total[part] += weight
    way = tuneavideo.image_solver("ddim", schedule, 1, 0)
    assert torch.allclose(step.latents, way.step(expected / total, way.timesteps[0], noise), atol=1e-5)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models of three systems which see 8 frames of 64x64 at once."""
    folder = tmp_path_factory.mktemp("models")
    paths = {
        "text": tiny.write_model(folder / "text"),
        "pose": tiny.write_pose_model(folder / "pose"),
        "pseudo3d": tiny.write_pseudo3d_model(folder / "pseudo3d"),
    }
    cards = {name: replace(card_of_folder(path), name=name, limits=LIMITS) for name, path in paths.items()}
    return ModelManager(cards, Settings(data=folder / "data", cache=folder / "cache", hub=False), device="cpu")


def made(models, system, frames):
    kind, more = (PoseToVideo, {"motion": "wave"}) if system == "pose" else (TextToVideo, {})
    task = kind.for_model(models.card(system), "a bear", 5, frames=frames, **SIZE, **more)
    return tiny.finish(find_engine(models.card(system).system).generate[kind](task, models))[1]


@pytest.mark.parametrize("system", ["text", "pose", "pseudo3d"])
def test_a_long_video_has_all_its_frames_and_says_how_it_was_made(models, system):
    frames, facts = made(models, system, 13)
    assert frames.shape == (13, 64, 64, 3)
    assert "2 windows of 8 frames" in facts["approximations"]
    assert np.array_equal(made(models, system, 13)[0], frames)
    assert made(models, system, 8)[1]["approximations"] == "none"


def test_the_memory_of_a_step_does_not_grow_with_the_windows(models):
    def needs(frames):
        task = TextToVideo.for_model(models.card("text"), "a bear", 5, frames=frames, **SIZE)
        return working_memory(task, models, modelscope.denoising_memory)

    assert needs(7) < needs(8) == needs(9) == needs(40)


def test_the_estimate_counts_what_windows_share_twice():
    card = find("miniature-modelscope")
    assert card.limits.once == card.limits.window == 24

    def calls(frames):
        return estimate.work(TextToVideo.for_model(card, "a bear", 5, frames=frames), card) / frames

    assert calls(23) == calls(24)
    assert calls(40) == pytest.approx(calls(24) * 48 / 40)


def test_where_time_is_compressed_windows_are_of_latents():
    limits = find("wan-2.1-1.3b").limits  # 241 frames are 61 of latents, a window of 81 is 21
    assert limits.windows_of(241, 832, 480) == [range(0, 21), range(13, 34), range(27, 48), range(40, 61)]
    assert limits.windows_of(121, 832, 480) == [range(31)]
    assert seen(241, 81, 4) == 4 * 81 and seen(121, 0, 4) == 121


@pytest.mark.parametrize("name", [name for name, card in CATALOG.items() if card.limits.once])
def test_the_models_that_make_long_videos(name):
    card = CATALOG[name]
    kind, more = {
        "text-to-video": (TextToVideo, {}),
        "pose-to-video": (PoseToVideo, {"motion": "wave"}),
        "edit": (Tune, {"clip": NOBODY}) if card.tuning else (Edit, {}),
    }[card.kind]
    size = {"width": card.defaults.width, "height": card.defaults.height}
    most = int(card.limits.frames.high)
    assert kind.for_model(card, "a bear", 1, frames=most, **size, **more).frames == most
    assert card.defaults.frames <= card.limits.at_once(**size) < most
    with pytest.raises(ValueError, match=f"to {most}, not"):
        kind.for_model(card, "a bear", 1, frames=most + 4, **size, **more)


def test_what_can_not_be_made_in_windows_is_refused_in_words():
    card = find("modelscope-1.7b")
    with pytest.raises(ValueError, match="more than 64 frames is made in parts"):
        TextToVideo.for_model(card, "a bear", 1, frames=65, caching=2)
    with pytest.raises(ValueError, match="At this size it makes 7 frames at most"):
        TextToVideo.for_model(card, "a bear", 1, frames=65, width=768, height=768)
    whole = replace(LIMITS, once=0)
    assert whole.window_of(8, 64, 64) == whole.window_of(40, 64, 64) == 0
    card = find("stable-diffusion-1.4")
    card = replace(card, limits=replace(card.limits, once=0))
    with pytest.raises(ValueError, match="At this size it makes 32 frames at most"):
        Tune.for_model(card, "a bear", 1, clip=NOBODY, frames=33, width=512, height=512)
