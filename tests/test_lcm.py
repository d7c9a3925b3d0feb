"""The sampler of consistency models, against diffusers' and against what the paper theatre's students learn from."""

import pytest
import torch
from diffusers import LCMScheduler
from tiny import SCHEDULER, relative_error

from pipelines.systems import diffusion
from scripts.theatre.training import distillation

CONFIG = {**SCHEDULER, "num_train_timesteps": 1000}
VELOCITY = {**CONFIG, "prediction_type": "v_prediction"}
SHAPE = (1, 4, 2, 8, 8)


def predict(latents, timestep):
    """A stand-in for a network: smooth, and different at every timestep."""
    return torch.tanh(latents * (0.5 + timestep / 1000)) + 0.1


def drawn(config, steps, seed=7, of=diffusion.image_solver):
    solver, foresee = of("lcm", config, steps, seed), diffusion.estimate_from_noise(config)
    noise = diffusion.draw_noise(SHAPE, seed)
    *_, last = diffusion.denoise(diffusion.noise_from(predict, config), noise, solver, foresee)
    return last.latents


@pytest.mark.parametrize("steps", range(1, 51))
def test_its_timesteps_are_those_of_diffusers(steps):
    reference = LCMScheduler(**SCHEDULER)
    reference.set_timesteps(steps)
    assert diffusion.solver("lcm", CONFIG, steps).timesteps == reference.timesteps.tolist()


@pytest.mark.parametrize("config", [CONFIG, VELOCITY], ids=["noise", "velocity"])
@pytest.mark.parametrize("scaling", [10.0, 4.0, 0.001])  # the last one, nobody's, lets the boundary condition be seen
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_it_walks_as_diffusers_does_with_one_generator_for_all_noise(config, scaling, steps):
    reference = LCMScheduler.from_config(config, timestep_scaling=scaling)
    reference.set_timesteps(steps)
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(SHAPE, generator=generator)
    for timestep in reference.timesteps:
        answer = predict(latents, int(timestep))
        latents = reference.step(answer, timestep, latents, generator=generator, return_dict=False)[0]
    assert relative_error(drawn(config | {"timestep_scaling": scaling}, steps), latents) < 1e-5


def test_a_seed_means_one_video_and_its_noise_is_not_drawn_twice():
    assert drawn(CONFIG, 4).equal(drawn(CONFIG, 4)) and not drawn(CONFIG, 4).equal(drawn(CONFIG, 4, seed=8))
    solver = diffusion.solver("lcm", CONFIG, 2, 7)
    latents = diffusion.draw_noise(SHAPE, 7)
    fresh = solver.step(torch.zeros(SHAPE), 999, torch.zeros(SHAPE))
    assert abs(torch.corrcoef(torch.stack([fresh.flatten(), latents.flatten()]))[0, 1]) < 0.2


def test_more_steps_than_the_student_knows_points_are_refused():
    with pytest.raises(ValueError, match="50 steps at most, not 51"):
        diffusion.solver("lcm", CONFIG, 51)


def test_the_theatres_students_are_sampled_at_the_points_that_they_learned():
    seen = []

    def watched(noisy, times):
        seen.append(int(times[0]))
        return predict(noisy, int(times[0]))

    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(SHAPE, generator=generator)
    alphas = diffusion.alphas_cumprod(CONFIG).float()
    theirs = distillation.few_steps(watched, noise, alphas, generator)
    assert seen == diffusion.solver("lcm", CONFIG, distillation.STEPS).timesteps
    assert distillation.STRIDE * diffusion.LCM.ORIGINAL == CONFIG["num_train_timesteps"]
    assert relative_error(drawn(CONFIG, distillation.STEPS), theirs) < 1e-4
