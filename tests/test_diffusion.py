"""Schedules, solvers, guidance and the loop, against ModelScope's recordings and against diffusers."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from tiny import GOLDENS, SCHEDULER, relative_error

from pipelines import diffusion
from pipelines.catalog import SCHEDULERS

CONFIG = {**SCHEDULER, "num_train_timesteps": 1000}
ALPHAS = diffusion.alphas_cumprod(CONFIG)


def predict(latents, timestep):
    """A stand-in for a network: smooth, and different at every timestep."""
    return torch.tanh(latents * (0.5 + timestep / 1000)) + 0.1


def sample(solver, latents):
    return list(diffusion.denoise(predict, latents, solver, ALPHAS))


def test_modelscopes_timesteps_are_those_it_recorded():
    facts = json.loads((GOLDENS / "modelscope" / "sampling.json").read_text())
    for run, expected in facts["timesteps"].items():
        assert diffusion.ModelScopeDDIM(ALPHAS, facts[f"{run}.ddim_timesteps"]).timesteps == expected


@pytest.mark.parametrize("steps, calls", [(6, 7), (7, 8), (50, 50), (1, 1), (3, 4), (1000, 1000)])
def test_steps_that_do_not_divide_1000_are_extra_calls(steps, calls):
    timesteps = diffusion.ModelScopeDDIM(ALPHAS, steps).timesteps
    assert len(timesteps) == calls
    assert timesteps[-1] == 1 and max(timesteps) <= 999
    assert timesteps == sorted(timesteps, reverse=True)


def test_where_steps_divide_1000_ddim_is_that_of_diffusers():
    noise = diffusion.draw_noise((1, 4, 2, 8, 8), seed=1)
    reference = DDIMScheduler(**SCHEDULER)
    reference.set_timesteps(10)
    latents = noise
    for timestep in reference.timesteps:
        latents = reference.step(predict(latents, int(timestep)), timestep, latents).prev_sample
    ours = sample(diffusion.solver("ddim", CONFIG, 10), noise)
    assert [int(timestep) for timestep in reference.timesteps] == diffusion.solver("ddim", CONFIG, 10).timesteps
    assert relative_error(ours[-1].latents, latents) < 1e-5


@pytest.mark.parametrize("name, kind", [("dpm++", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler)])
def test_the_other_solvers_are_those_of_diffusers(name, kind):
    noise = diffusion.draw_noise((1, 4, 2, 8, 8), seed=2)
    reference = kind.from_config(DDIMScheduler(**SCHEDULER).config)
    reference.set_timesteps(7)
    latents = noise
    for timestep in reference.timesteps:
        latents = reference.step(predict(latents, int(timestep)), timestep, latents).prev_sample
    assert relative_error(sample(diffusion.solver(name, CONFIG, 7), noise)[-1].latents, latents) < 1e-6


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_every_offered_solver_stays_finite_at_few_and_at_many_steps(name, steps):
    found = sample(diffusion.solver(name, CONFIG, steps), diffusion.draw_noise((1, 4, 1, 4, 4), seed=3))
    assert torch.isfinite(found[-1].latents).all()
    assert found[-1].number == found[-1].total == len(found)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_offered_solver_finds_the_picture_that_a_perfect_network_knows(name):
    picture, noise = torch.full((1, 4, 1, 4, 4), 0.7), diffusion.draw_noise((1, 4, 1, 4, 4), seed=4)

    def perfect(latents, timestep):
        alpha = ALPHAS[timestep].item()
        return (latents - alpha**0.5 * picture) / (1 - alpha) ** 0.5

    steps = list(diffusion.denoise(perfect, noise, diffusion.solver(name, CONFIG, 20), ALPHAS))
    assert (steps[0].denoised - picture).abs().max() < 1e-3  # what previews show, from the first step on
    assert (steps[-1].latents - picture).abs().max() < 0.1  # ModelScope's DDIM leaves the last alpha's bit of noise


def test_a_seed_is_one_noise_in_fp32_whatever_the_global_generator_did():
    torch.manual_seed(99)
    first = diffusion.draw_noise((1, 4, 2, 8, 8), seed=7)
    torch.rand(5)
    assert first.equal(diffusion.draw_noise((1, 4, 2, 8, 8), seed=7))
    assert not first.equal(diffusion.draw_noise((1, 4, 2, 8, 8), seed=8))
    assert first.dtype == torch.float32 and first.device.type == "cpu"
    assert first.flatten()[:3].tolist() == pytest.approx([-0.820135, 0.395631, 0.898908], abs=1e-5)


def test_guidance_moves_the_conditional_answer_away_from_the_unconditional():
    def both(latents, timestep):
        return torch.cat([latents + 1, latents + 3])

    guided = diffusion.guided(both, guidance=9.0)
    assert guided(torch.zeros(1, 4), 500).equal(torch.full((1, 4), 1 + 9.0 * 2))


def test_a_job_can_be_left_between_two_steps():
    calls = []

    def counting(latents, timestep):
        calls.append(timestep)
        return predict(latents, timestep)

    steps = diffusion.denoise(counting, torch.zeros(1, 4, 1, 4, 4), diffusion.solver("dpm++", CONFIG, 20), ALPHAS)
    next(steps)
    steps.close()
    assert len(calls) == 1


def test_solvers_of_two_jobs_know_nothing_of_each_other():
    noise = diffusion.draw_noise((1, 4, 1, 4, 4), seed=5)
    alone = sample(diffusion.solver("dpm++", CONFIG, 5), noise)[-1].latents
    first, second = (diffusion.denoise(predict, noise, diffusion.solver("dpm++", CONFIG, 5), ALPHAS) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.latents.equal(other.latents)
    assert one.latents.equal(alone)


def test_what_can_not_be_sampled_is_refused_in_words():
    with pytest.raises(ValueError, match="v_prediction"):
        diffusion.solver("ddim", {**CONFIG, "prediction_type": "v_prediction"}, 10)
    with pytest.raises(ValueError, match="squaredcos_cap_v2"):
        diffusion.solver("ddim", {**CONFIG, "beta_schedule": "squaredcos_cap_v2"}, 10)
    with pytest.raises(ValueError, match="euler"):
        diffusion.solver("euler", CONFIG, 10)
