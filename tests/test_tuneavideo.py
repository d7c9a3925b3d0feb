"""Tune-A-Video's own steps, with real classes: the clip's latents, inversion, sampling, and what tuning is made of."""

import pytest
import tiny
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler

from pipelines.models.networks.inflated_unet import EditingUNet
from pipelines.systems import tuneavideo, tuning
from pipelines.systems.diffusion import draw_noise

SCHEDULE = {**tiny.IMAGE_SCHEDULER, "num_train_timesteps": 1000}
VELOCITY = {**SCHEDULE, "prediction_type": "v_prediction"}
SHAPE = (1, 4, 3, 8, 8)


@pytest.fixture
def unet():
    return tiny.inflated_unet()


def texts(count):
    return torch.randn((count, 7, tiny.WIDTH), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_clip_becomes_the_mean_and_deviation_of_its_latents():
    vae = tiny.vae()
    frames = torch.randint(
        0, 256, (3, 64, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    ).numpy()
    mean, deviation = tuneavideo.encode_clip(vae, frames)
    assert mean.shape == deviation.shape == (1, 4, 3, 8, 6)
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    posterior = vae.encode(pictures).latent_dist
    scale = vae.config.scaling_factor
    assert tiny.relative_error(mean[0].transpose(0, 1), posterior.mean * scale) < 1e-5
    assert tiny.relative_error(deviation[0].transpose(0, 1), posterior.std * scale) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("schedule", [SCHEDULE, VELOCITY], ids=["noise", "velocity"])
def test_sampling_is_diffusers_loop_over_our_network(unet, schedule):
    states, noise = texts(2), draw_noise(SHAPE, seed=0)
    *_, last = tuneavideo.sample(unet, states, noise, schedule, "ddim", 4, 7.5)
    scheduler = DDIMScheduler.from_config({**schedule, "set_alpha_to_one": False, "clip_sample": False})
    scheduler.set_timesteps(4)
    network, latents = EditingUNet(unet, states), noise
    for timestep in scheduler.timesteps:
        unconditional, conditional = network(latents, timestep).chunk(2)
        answer = unconditional + 7.5 * (conditional - unconditional)
        latents = scheduler.step(answer, timestep, latents).prev_sample
    assert last.number == last.total == 4
    assert tiny.relative_error(last.latents, latents) < 1e-4


@torch.no_grad()
def test_without_guidance_one_branch_is_enough(unet):
    noise = draw_noise(SHAPE, seed=0)
    *_, alone = tuneavideo.sample(unet, texts(2)[1:], noise, SCHEDULE, "ddim", 2, 1.0)
    *_, both = tuneavideo.sample(unet, texts(2), noise, SCHEDULE, "ddim", 2, 1 + 1e-9)
    assert tiny.relative_error(alone.latents, both.latents) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("schedule", [SCHEDULE, VELOCITY], ids=["noise", "velocity"])
def test_an_inverted_clip_comes_back_nearly(schedule):
    unet = tiny.inflated_unet(layers_per_block=1)
    for parameter in unet.parameters():
        parameter.mul_(0.5)
    clip = draw_noise(SHAPE, seed=3)

    def error(inverted_as):
        *_, noise = tuneavideo.invert(unet, texts(1), clip, inverted_as, 8)
        *_, last = tuneavideo.sample(unet, texts(1), noise, schedule, "ddim", 8, 1.0)
        return tiny.relative_error(last.latents, clip)

    assert error(schedule) < 0.4
    other = VELOCITY if schedule is SCHEDULE else SCHEDULE
    assert error(other) > 2 * error(schedule)


# Tuning


@pytest.mark.parametrize("which, blocks", [("all", 16), ("mid and up", 10)])
def test_what_is_trained(unet, which, blocks):
    parameters = tuning.trained_parameters(unet, which)
    assert len(parameters) == 7 * blocks
    endings = {name.split("transformer_blocks.0.")[1] for name in parameters}
    assert endings == {
        "attn1.to_q.weight",
        "attn2.to_q.weight",
        *(f"attn_temp.{part}" for part in ("to_q.weight", "to_k.weight", "to_v.weight")),
        *(f"attn_temp.to_out.0.{part}" for part in ("weight", "bias")),
    }
    assert all(unet.get_parameter(name) is parameter for name, parameter in parameters.items())
    assert any(name.startswith("down") for name in parameters) == (which == "all")


@pytest.mark.parametrize("schedule", [SCHEDULE, VELOCITY], ids=["noise", "velocity"])
def test_the_loss_is_that_of_diffusers_noise_and_targets(unet, schedule):
    latents, noise = draw_noise((2, *SHAPE[1:]), seed=1), draw_noise((2, *SHAPE[1:]), seed=2)
    timesteps = torch.tensor([3, 700])
    network = EditingUNet(unet, texts(2))
    scheduler = DDPMScheduler.from_config(schedule)
    target = noise
    if "prediction_type" in schedule:
        target = scheduler.get_velocity(latents, noise, timesteps)
    with torch.no_grad():
        expected = F.mse_loss(network(scheduler.add_noise(latents, noise, timesteps), timesteps), target)
    ours = tuning.loss_of(network, latents, noise, timesteps, schedule)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_step_against_the_gradient_lowers_the_loss(unet):
    parameters = tuning.trained_parameters(unet, "all").values()
    for parameter in parameters:
        parameter.requires_grad_(True)
    network = EditingUNet(unet, texts(1), checkpointing=True)
    arguments = draw_noise(SHAPE, seed=1), draw_noise(SHAPE, seed=2), torch.tensor([400]), SCHEDULE
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    before = tuning.loss_of(network, *arguments)
    before.backward()
    optimizer.step()
    assert tuning.loss_of(network, *arguments) < before
