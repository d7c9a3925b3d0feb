"""TempoFunk from the prompt, and an image where one is given, to the frames; and what its original recorded."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from PIL import Image
from safetensors.torch import load_file

from pipelines.cards import Range
from pipelines.catalog import find
from pipelines.events import Preview, Progress
from pipelines.models.folders import card_of_folder
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import tempofunk
from pipelines.systems.diffusion import draw_noise
from pipelines.tasks import TextToVideo
from scripts.parity import tempofunk as parity

RECORDED = tiny.GOLDENS.parent / "tempofunk"
NAME = "0123456789abcdef" * 2


# What the original recorded


@pytest.fixture(scope="module")
def recorded():
    scheduler, facts = (
        json.loads((RECORDED / name).read_text()) for name in ("scheduler_config.json", "generate.json")
    )
    return load_file(RECORDED / "generate.safetensors"), facts, scheduler


def test_the_image_and_its_mask_are_prepared_as_recorded(recorded):
    golden, facts, _ = recorded
    checks = list(parity.prepared(golden, facts))
    assert len(checks) == 3 and [str(check) for check in checks if not check.passed] == []


@pytest.mark.parametrize("name", ["ddim", "dpm"])
def test_the_first_image_is_drawn_as_recorded(recorded, name):
    from diffusers import UNet2DConditionModel

    golden, facts, scheduler = recorded
    unet = UNet2DConditionModel.from_pretrained(RECORDED / "sd_image" / "unet").float()
    with torch.no_grad():
        checks = list(parity.drawing(name, unet, scheduler, golden, facts))
    assert len(checks) == 3 and [str(check) for check in checks if not check.passed] == []


# The parts


def grey(*levels):
    return Image.fromarray(np.array([levels], np.uint8).repeat(2, axis=0))


def test_a_mask_is_followed_from_192_on_and_what_is_masked_becomes_middle_grey():
    image = Image.new("RGB", (4, 2), (255, 0, 51))
    pixels, mask = tempofunk.prepare_hint(image, grey(0, 191, 192, 255), 4, 2)
    assert mask[0, 0].tolist() == [[0, 0, 1, 1]] * 2
    assert pixels[0, :, 0].T.tolist() == [[1, -1, pytest.approx(-0.6)]] * 2 + [[0, 0, 0]] * 2


def test_without_a_mask_all_of_the_image_is_followed():
    pixels, mask = tempofunk.prepare_hint(Image.new("RGB", (9, 5), (255, 255, 255)), None, 4, 2)
    assert mask.shape == (1, 1, 2, 4) and not mask.any() and pixels.shape == (1, 3, 2, 4) and (pixels == 1).all()


def test_a_latent_pixel_takes_the_mask_in_its_middle():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4, 12] = 1  # the middle of the right upper one
    assert tempofunk.latent_mask(mask, (2, 2))[0, 0].tolist() == [[0, 1], [0, 0]]


def test_an_image_is_the_mean_of_its_latents_every_time():
    vae, pixels = tiny.vae(), torch.rand(1, 3, 32, 16) * 2 - 1
    first, second = (tempofunk.hint_latents(vae, pixels) for _ in range(2))
    assert first.shape == (1, 4, 4, 2) and first.equal(second)
    assert first.equal(vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor)


def test_colours_are_rounded():
    class Levels(torch.nn.Module):
        dtype, config = torch.float32, type("Config", (), {"scaling_factor": 1.0})

        def decode(self, latents):
            return type("Decoded", (), {"sample": latents[:, :3]})

    levels = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0]).expand(1, 4, 1, 1, 6)
    (frame,) = tempofunk.decode(Levels(), levels)
    assert frame[0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


CONFIG = {**tiny.SCHEDULER, "num_train_timesteps": 1000}


def test_the_last_step_of_dpm_ends_at_the_smallest_noise_and_ddim_is_offset():
    assert tempofunk.solver("dpm++", CONFIG, 6).timesteps == [999, 832, 666, 500, 333, 166]
    assert tempofunk.solver("ddim", CONFIG, 6).timesteps == [831, 665, 499, 333, 167, 1]
    assert tempofunk.solver("ddim", {**CONFIG, "steps_offset": 0}, 6).timesteps == [830, 664, 498, 332, 166, 0]
    dpm = tempofunk.solver("dpm++", {**CONFIG, "clip_sample": True, "_class_name": "PNDMScheduler"}, 6).scheduler
    assert isinstance(dpm, DPMSolverMultistepScheduler) and 0.02 < dpm.sigmas[-1] < 0.04
    ddim = tempofunk.solver("ddim", {**CONFIG, "clip_sample": True}, 6).scheduler
    assert isinstance(ddim, DDIMScheduler) and not ddim.config.clip_sample


@pytest.mark.parametrize(
    "name, config, says",
    [("unipc", CONFIG, "unipc"), ("ddim", {**CONFIG, "prediction_type": "v_prediction"}, "v_prediction")],
)
def test_what_the_original_can_not_sample_is_refused(name, config, says):
    with pytest.raises(ValueError, match=says):
        tempofunk.solver(name, config, 6)


def test_every_part_of_the_condition_reaches_the_network():
    unet, noise = tiny.pseudo3d_unet(), draw_noise((1, 4, 2, 8, 8), 1)
    texts = torch.randn((2, 7, tiny.WIDTH), generator=torch.Generator().manual_seed(0))

    def latents(condition, guidance=3.0):
        states = texts if guidance > 1 else texts[1:]
        with torch.no_grad():
            return list(tempofunk.sample(unet, states, noise, condition, CONFIG, "ddim", 1, guidance))[-1].latents

    condition = draw_noise((1, 5, 8, 8), 2)
    first = latents(condition)
    for channel in range(5):
        changed = condition.clone()
        changed[:, channel] += 1
        assert not torch.allclose(first, latents(changed), rtol=1e-3)
    # Mask and hint are in both branches: guidance of 1 is the prompt's branch alone.
    assert torch.allclose(latents(condition, 1.0), latents(condition, 1.0 + 1e-9), atol=1e-4)


# The whole


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    card = card_of_folder(tiny.write_pseudo3d_model(tmp_path_factory.mktemp("published") / "model"))
    return replace(card, limits=replace(card.limits, side=Range(64, 128, 64)))


@pytest.fixture(scope="module")
def models(card, tmp_path_factory):
    return ModelManager({card.name: card}, Settings(cache=tmp_path_factory.mktemp("cache")), device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """An image, and a mask of its left half."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    Image.fromarray(np.where(np.arange(70) < 35, 255, 0).astype(np.uint8)[None].repeat(50, 0)).save(folder / "mask.png")
    return {"image": folder / "image.png", "mask": folder / "mask.png"}


def task(card, prompt="a bear", **settings):
    small = {"frames": 2, "width": 64, "height": 64, "steps": 2, "scheduler": "ddim", "guidance": 3.0}
    return TextToVideo.for_model(card, prompt, settings.pop("seed", 7), **{**small, **settings})


def run(task, models, **inputs):
    """The events of a job, and what it made."""
    events, job = [], tempofunk.generate(task, models, **inputs)
    while True:
        try:
            events.append(next(job))
        except StopIteration as end:
            return events, *end.value


def stages(events):
    return [stage for stage, _ in itertools.groupby(event.stage for event in events if isinstance(event, Progress))]


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++"])
def test_a_prompt_becomes_frames_by_way_of_an_image(card, models, scheduler):
    events, frames, facts = run(task(card, scheduler=scheduler, width=128), models)
    assert frames.shape == (2, 64, 128, 3) and frames.dtype == np.uint8 and frames.std() > 1
    assert stages(events) == ["Reading the prompt", "Drawing the first image", "Denoising", "Decoding"]
    assert set(facts["seconds_by_stage"]) == set(stages(events))
    assert facts["first_image"] == "drawn" and facts["network_calls"] == 2
    assert any(isinstance(event, Preview) for event in events)


def test_a_given_image_needs_no_drawing(card, models, pictures):
    events, frames, facts = run(task(card, image=NAME), models, image=pictures["image"])
    assert stages(events) == ["Reading the prompt", "Denoising", "Decoding"]
    assert frames.shape == (2, 64, 64, 3) and facts["first_image"] == "given"


def test_everything_in_the_task_matters_and_nothing_else(card, models, pictures):
    def frames(inputs=(), **changes):
        return run(task(card, **changes), models, **{name: pictures[name] for name in inputs})[1]

    first = frames()
    torch.manual_seed(123)
    assert np.array_equal(first, frames())
    changes = [{"prompt": "a fox"}, {"negative_prompt": "rain"}, {"seed": 8}, {"guidance": 5.0}, {"steps": 3}]
    for change in [*changes, {"scheduler": "dpm++"}, {"image_guidance": 9.0}, {"inputs": ["image"]}]:
        assert not np.array_equal(first, frames(**change)), change
    image = frames(["image"])
    assert not np.array_equal(image, frames(["image", "mask"]))
    assert np.array_equal(image, frames(["image"], image_guidance=9.0))


def test_without_guidance_one_branch_runs_and_the_negative_prompt_is_not_read(card, models):
    with models.lease(f"{card.name}/unet") as unet, models.lease(f"{card.name}/image_unet") as image_unet:
        rows = []
        parts = (unet.conv_out.spatial_conv, image_unet.conv_out)
        hooks = [part.register_forward_hook(lambda module, inputs, output: rows.append(len(output))) for part in parts]
        plain = run(task(card, guidance=1.0), models)[1]
        assert rows == [1, 1, 2, 2]  # images a call: the image, then the frames
        assert np.array_equal(plain, run(task(card, guidance=1.0, negative_prompt="rain"), models)[1])
        for hook in hooks:
            hook.remove()


def test_saving_memory_changes_no_frame(card, models):
    plain = run(task(card), models)[1]
    models.frugal = True
    try:
        _, saving, facts = run(task(card), models)
    finally:
        models.frugal = False
    assert np.abs(plain.astype(int) - saving).max() <= 1 and "8 parts" in facts["memory_saving"]


def test_what_can_not_fit_is_refused_with_what_can(card, tmp_path, models):
    file_bytes = -ModelManager({card.name: card}, Settings(cache=tmp_path), "cpu", budget=lambda: 0).room(
        f"{card.name}/unet"
    )
    needed = tempofunk.denoising_memory(models.empty(f"{card.name}/unet"), 2, 4, 8, 8, 8)
    tight = ModelManager({card.name: card}, Settings(cache=tmp_path), "cpu", budget=lambda: file_bytes + needed)
    with pytest.raises(MemoryError, match="6 frames of 64x64 need .* 4 frames fit"):
        run(task(card, frames=6), tight)
    assert run(task(card, frames=4), tight)[1].shape == (4, 64, 64, 3)


def test_a_job_that_is_left_gives_its_models_back(card, models):
    job = tempofunk.generate(task(card, steps=50), models)
    next(event for event in job if isinstance(event, Progress) and event.stage == "Drawing the first image")
    assert any(resident.leases for resident in models.stats())
    job.close()
    assert not any(resident.leases for resident in models.stats())


def test_values_that_are_no_numbers_are_told_of(card, models, pictures):
    for part, inputs in (("image_unet", {}), ("unet", {"image": pictures["image"]})):
        with models.lease(f"{card.name}/{part}") as unet:
            bias = unet.time_embedding.linear_1.bias
            before = bias.clone()
            bias.fill_(float("inf"))
            try:
                with pytest.raises(ValueError, match="fell apart in step 1 of 2.*seed"):
                    run(task(card), models, **inputs)
            finally:
                bias.copy_(before)


def test_an_image_model_of_other_texts_is_refused_in_words(card, tmp_path):
    tiny.image_unet(layers_per_block=1, cross_attention_dim=16).save_pretrained(tmp_path / "unet")
    other = replace(card, image_model=replace(card.image_model, location=str(tmp_path)))
    with pytest.raises(ValueError, match="don't belong together. Give a first image"):
        run(task(card), ModelManager({card.name: other}, Settings(cache=tmp_path / "cache"), device="cpu"))


# The task


def test_settings_of_the_first_image():
    published = find("makeavid-sd")
    made = TextToVideo.for_model(published, "a dance", 1)
    assert (made.frames, made.steps, made.guidance, made.image_guidance) == (24, 20, 15.0, 15.0)
    assert TextToVideo.for_model(published, "a dance", 1, guidance=9.0).image_guidance == 9.0
    given = TextToVideo.for_model(published, "a dance", 1, image=NAME, mask=NAME, image_guidance=4)
    assert (given.image, given.mask, given.image_guidance) == (NAME, NAME, 4.0)
    assert given.checked() == given and given.effort != made.effort


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"width": 520}, "width must be a multiple of 64"),
        ({"scheduler": "unipc"}, "Choose one of: dpm[+][+], ddim"),
        ({"image": "../../etc/passwd"}, "no such image"),
        ({"image": None}, "no such image"),
        ({"image": NAME, "mask": 7}, "no such image"),
        ({"mask": NAME}, "needs the first image"),
        ({"image_guidance": float("nan")}, "guidance of the first image"),
        ({"image_guidance": "9"}, "guidance of the first image"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings, says):
    with pytest.raises(ValueError, match=says):
        TextToVideo.for_model(find("makeavid-sd"), "a dance", 1, **settings)


@pytest.mark.parametrize("settings", [{"image": NAME}, {"mask": NAME}, {"image_guidance": 3.0}])
def test_models_of_words_alone_take_no_image(settings):
    with pytest.raises(ValueError, match="takes no first image"):
        TextToVideo.for_model(find("modelscope-1.7b"), "a dance", 1, **settings)
