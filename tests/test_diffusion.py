"""Schedules, solvers, guidance and the loop, against ModelScope's recordings and against diffusers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, UniPCMultistepScheduler
from tiny import GOLDENS, SCHEDULER, relative_error

from pipelines.catalog import find
from pipelines.systems import diffusion

ROOT = Path(__file__).parents[1]
CONFIG = {**SCHEDULER, "num_train_timesteps": 1000}
ALPHAS = diffusion.alphas_cumprod(CONFIG)
FORESEE = diffusion.estimate_from_noise(CONFIG)


def predict(latents, timestep):
    """A stand-in for a network: smooth, and different at every timestep."""
    return torch.tanh(latents * (0.5 + timestep / 1000)) + 0.1


def sample(solver, latents):
    return list(diffusion.denoise(predict, latents, solver, FORESEE))


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


@pytest.mark.parametrize("name", find("miniature-modelscope").schedulers)
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_every_offered_solver_stays_finite_at_few_and_at_many_steps(name, steps):
    found = sample(diffusion.solver(name, CONFIG, steps), diffusion.draw_noise((1, 4, 1, 4, 4), seed=3))
    assert torch.isfinite(found[-1].latents).all()
    assert found[-1].number == found[-1].total == len(found)


@pytest.mark.parametrize("name", find("miniature-modelscope").schedulers)
def test_every_offered_solver_finds_the_picture_that_a_perfect_network_knows(name):
    picture, noise = torch.full((1, 4, 1, 4, 4), 0.7), diffusion.draw_noise((1, 4, 1, 4, 4), seed=4)

    def perfect(latents, timestep):
        alpha = ALPHAS[timestep].item()
        return (latents - alpha**0.5 * picture) / (1 - alpha) ** 0.5

    steps = list(diffusion.denoise(perfect, noise, diffusion.solver(name, CONFIG, 20), FORESEE))
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

    steps = diffusion.denoise(counting, torch.zeros(1, 4, 1, 4, 4), diffusion.solver("dpm++", CONFIG, 20), FORESEE)
    next(steps)
    steps.close()
    assert len(calls) == 1


def test_solvers_of_two_jobs_know_nothing_of_each_other():
    noise = diffusion.draw_noise((1, 4, 1, 4, 4), seed=5)
    alone = sample(diffusion.solver("dpm++", CONFIG, 5), noise)[-1].latents
    first, second = (diffusion.denoise(predict, noise, diffusion.solver("dpm++", CONFIG, 5), FORESEE) for _ in range(2))
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


# Stable Diffusion's conventions

KINDS = {"ddim": DDIMScheduler, "pndm": PNDMScheduler, "dpm++": DPMSolverMultistepScheduler}
VELOCITY = {**CONFIG, "prediction_type": "v_prediction"}


@pytest.mark.parametrize("name", find("miniature-sd").schedulers)
@pytest.mark.parametrize("steps", [6, 7, 50])
@pytest.mark.parametrize("config", [CONFIG, VELOCITY], ids=["noise", "velocity"])
def test_image_solvers_are_those_of_diffusers_for_both_kinds_of_networks(name, steps, config):
    extra = {"skip_prk_steps": True} if name == "pndm" else {}
    reference = KINDS[name].from_config({**config, "_class_name": "PNDMScheduler", **extra})
    reference.set_timesteps(steps)
    noise = diffusion.draw_noise((1, 4, 2, 4, 4), seed=6)
    latents = noise
    for timestep in reference.timesteps:
        latents = reference.step(predict(latents, int(timestep)), timestep, latents).prev_sample
    solver = diffusion.image_solver(name, config, steps)
    ours = list(diffusion.denoise(diffusion.noise_from(predict, config), noise, solver, FORESEE))
    assert solver.timesteps == [int(timestep) for timestep in reference.timesteps]
    assert len(ours) == steps + (name == "pndm")
    assert relative_error(ours[-1].latents, latents) < 1e-4


@pytest.mark.parametrize("name", find("miniature-sd").schedulers)
def test_old_configs_that_leave_things_out_mean_the_same(name):
    old = {key: CONFIG[key] for key in ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")}
    noise = diffusion.draw_noise((1, 4, 1, 4, 4), seed=7)
    one, other = (sample(diffusion.image_solver(name, config, 5), noise)[-1].latents for config in (CONFIG, old))
    assert one.equal(other)


@pytest.mark.parametrize("name", find("miniature-sd").schedulers)
def test_a_perfect_velocity_network_shows_its_picture_from_the_first_step_on(name):
    picture, noise = torch.full((1, 4, 1, 4, 4), 0.7), diffusion.draw_noise((1, 4, 1, 4, 4), seed=4)

    def perfect(latents, timestep):
        alpha = ALPHAS[timestep].item()
        disturbance = (latents - alpha**0.5 * picture) / (1 - alpha) ** 0.5
        return alpha**0.5 * disturbance - (1 - alpha) ** 0.5 * picture

    solver = diffusion.image_solver(name, VELOCITY, 20)
    steps = list(diffusion.denoise(diffusion.noise_from(perfect, VELOCITY), noise, solver, FORESEE))
    assert (steps[0].denoised - picture).abs().max() < 1e-3
    assert (steps[-1].latents - picture).abs().max() < 0.1


def test_networks_that_predict_something_else_are_refused():
    with pytest.raises(ValueError, match="sample"):
        diffusion.noise_from(predict, {**CONFIG, "prediction_type": "sample"})


@pytest.mark.parametrize("steps", [5, 7, 50])
def test_inversion_goes_up_the_steps_that_ddim_comes_down(steps):
    """Each step solved by hand: the network is asked at the timestep gone to, on the latents of the one before."""
    asked = []

    def watched(latents, timestep):
        asked.append(timestep)
        return predict(latents, timestep)

    clip = diffusion.draw_noise((1, 4, 2, 4, 4), seed=8)
    path = list(diffusion.inversion(watched, clip, CONFIG, steps))
    stride = 1000 // steps
    assert asked == [1 + stride * number for number in range(steps)] and len(path) == steps + 1
    assert path[0].equal(clip)
    for (before, after), timestep in zip(zip(path, path[1:], strict=False), asked, strict=True):
        noise = predict(before, timestep)
        now, later = ALPHAS[max(timestep - stride, 0)].item(), ALPHAS[timestep].item()
        expected = (later / now) ** 0.5 * before + ((1 - later) ** 0.5 - (later * (1 - now) / now) ** 0.5) * noise
        assert relative_error(after, expected) < 1e-5


def test_what_is_inverted_comes_back():
    """With a network that says the same wherever it is asked, DDIM is its own inverse."""
    fixed = diffusion.draw_noise((1, 4, 2, 4, 4), seed=9)
    clip = diffusion.draw_noise((1, 4, 2, 4, 4), seed=10)
    *_, noise = diffusion.inversion(lambda latents, timestep: fixed, clip, CONFIG, 20)
    steps = diffusion.denoise(
        lambda latents, timestep: fixed, noise, diffusion.image_solver("ddim", CONFIG, 20), FORESEE
    )
    *_, last = steps
    assert relative_error(last.latents, clip) < 1e-4


ELSEWHERE = """
import pipelines, torch

def moved(tensor, offset):
    room = torch.empty(tensor.numel() + offset)
    return room[offset:].view(tensor.shape).copy_(tensor)

torch.set_num_threads(2)
generator = torch.Generator().manual_seed(0)
sizes = (77, 64, 64), (192, 320, 64), (64, 64, 192), (3, 16, 77), (256, 64, 64), (48, 96, 33), (12, 27, 64)
for rows, inner, columns in sizes:
    inputs, weight = torch.randn(rows, inner, generator=generator), torch.randn(columns, inner, generator=generator)
    here = torch.nn.functional.linear(inputs, weight)
    for offset in range(1, 13):
        elsewhere = torch.nn.functional.linear(moved(inputs, offset), moved(weight, offset))
        assert elsewhere.equal(here), (rows, inner, columns, offset)
        assert torch.nn.functional.linear(moved(inputs, offset), weight).equal(here), (rows, inner, columns, offset)
"""


def test_products_do_not_depend_on_where_in_memory_they_are_made():
    """Else a seed's video would change from one time to the next."""
    own = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=ROOT, env=own, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
