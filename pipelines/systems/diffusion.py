"""Sampling: noise schedules, guidance, solvers, and the one denoising loop. Pure functions and small per-job objects.

A network is any callable `predict(latents, timestep)`; no solver knows more of it. Most return the noise in `latents`,
`noise_from` makes such a one of a network that predicts velocities, and an engine may bring a solver for another kind.
Latents stay in fp32 through the whole loop, whatever the network computes in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, UniPCMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from pipelines.messages import said

Predict = Callable[[Tensor, float], Tensor]
Estimate = Callable[[Tensor, Tensor, float], Tensor]  # (prediction, latents, timestep) -> the sample, as now foreseen


def betas(config: Mapping[str, Any]) -> Tensor:
    """The training schedule of a checkpoint's scheduler config, float64 (timesteps,).

    Raises ValueError for a schedule other than "linear" and "scaled_linear" (Stable Diffusion's and ModelScope's: the
    squares of evenly spaced roots).
    """
    start, end, count = config["beta_start"], config["beta_end"], config["num_train_timesteps"]
    if config["beta_schedule"] == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    if config["beta_schedule"] == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    raise ValueError(
        said(
            "The noise schedule {kind} is not known, only scaled_linear and linear.", kind=repr(config["beta_schedule"])
        )
    )


def alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    """What is left of the signal's variance at each timestep: float64 (timesteps,), from almost 1 to almost 0."""
    return torch.cumprod(1 - betas(config), dim=0)


def draw_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal noise in fp32, drawn on the CPU: a seed means the same noise on every device."""
    return torch.randn(tuple(shape), generator=torch.Generator("cpu").manual_seed(seed))


def guided(predict: Predict, guidance: float) -> Predict:
    """Classifier-free guidance (Ho and Salimans, 2022) around a network that answers for both branches in one batch.

    `predict` maps latents (b, …) to the unconditional and then the conditional predictions, (2b, …); what is returned
    maps (b, …) to (b, …).
    """

    def guided_predict(latents: Tensor, timestep: float) -> Tensor:
        unconditional, conditional = predict(latents, timestep).chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    return guided_predict


def noise_from(predict: Predict, config: Mapping[str, Any]) -> Predict:
    """`predict` where the checkpoint's network predicts the noise; else its answers, turned into the noise they imply.

    A velocity is sqrt(alpha) noise - sqrt(1 - alpha) sample (Salimans and Ho, 2022, appendix D). Raises ValueError for
    a checkpoint that predicts neither.
    """
    kind = config.get("prediction_type", "epsilon")
    if kind == "epsilon":
        return predict
    if kind != "v_prediction":
        raise ValueError(
            said(
                "This checkpoint predicts {kind}; only 'epsilon' and 'v_prediction' can be sampled here.",
                kind=repr(kind),
            )
        )
    alphas = alphas_cumprod(config)

    def predict_noise(latents: Tensor, timestep: float) -> Tensor:
        alpha = float(alphas[int(timestep)])
        return alpha**0.5 * predict(latents, timestep) + (1 - alpha) ** 0.5 * latents

    return predict_noise


class Solver(Protocol):
    """One way to walk from noise to a sample; made for one job, as it may remember earlier steps."""

    @property
    def timesteps(self) -> Sequence[float]:
        """Descending; the network is called once for each."""
        ...

    def step(self, prediction: Tensor, timestep: float, latents: Tensor, /) -> Tensor:
        """The latents at the next timestep, given what the network predicts of `latents` at `timestep`."""
        ...

    def state(self) -> dict[str, Any]:
        """What it remembers of earlier steps: numbers, tensors, and lists of them."""
        ...

    def restore(self, state: Mapping[str, Any], /) -> None:
        """Goes on as one that has made the same steps."""
        ...


class ModelScopeDDIM:
    """DDIM (Song et al., 2020, equation 12 with eta 0) on ModelScope's own timesteps.

    They are 1 + 0, stride, 2 stride, … with stride = 1000 // steps, clipped to 999, and each step lands on t - stride,
    the last one on 0. A number of steps that does not divide 1000 therefore gives extra calls: 6 steps are 7 calls at
    997, 831, …, 1. diffusers' DDIMScheduler ("leading" spacing, steps_offset 1, set_alpha_to_one False, no clipping)
    takes the same path where steps divides 1000; elsewhere it makes exactly `steps` calls and so starts one stride
    later, from noise that is not as strong as the one it was given.
    """

    def __init__(self, alphas: Tensor, steps: int):
        """`alphas`: float64 (timesteps,). Coefficients are cast to the latents' dtype only after indexing."""
        self.alphas = alphas
        self.stride = len(alphas) // steps
        grid = 1 + torch.arange(0, len(alphas), self.stride)
        self.timesteps: list[int] = grid.clamp(max=len(alphas) - 1).flip(0).tolist()

    def step(self, noise: Tensor, timestep: float, latents: Tensor) -> Tensor:
        denoised = estimate(noise, latents, float(self.alphas[int(timestep)]))
        alpha = float(self.alphas[max(int(timestep) - self.stride, 0)])
        return alpha**0.5 * denoised + (1 - alpha) ** 0.5 * noise

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any], /) -> None:
        """It remembers nothing."""


class DiffusersSolver:
    """A fresh scheduler of diffusers, for one job; it says what is to be predicted."""

    def __init__(self, scheduler: SchedulerMixin, steps: int):
        self.scheduler = scheduler
        scheduler.set_timesteps(steps)
        self.timesteps = scheduler.timesteps.tolist()
        self._fixed = {name for name, value in vars(scheduler).items() if isinstance(value, Tensor)}

    def step(self, prediction: Tensor, timestep: float, latents: Tensor) -> Tensor:
        return self.scheduler.step(prediction, timestep, latents, return_dict=False)[0]

    def state(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self.scheduler).items() if name not in self._fixed}
        return {name: value for name, value in state.items() if isinstance(value, Tensor | int | float | list | None)}

    def restore(self, state: Mapping[str, Any], /) -> None:
        vars(self.scheduler).update(state)


class VelocityPNDM(DiffusersSolver):
    """PNDM for a network that predicts velocities: its multistep formula is over these, not over the implied noise."""

    def __init__(self, scheduler: PNDMScheduler, steps: int, alphas: Tensor):
        super().__init__(scheduler, steps)
        self.alphas = alphas

    def step(self, noise: Tensor, timestep: float, latents: Tensor) -> Tensor:
        alpha = float(self.alphas[int(timestep)])
        return super().step((noise - (1 - alpha) ** 0.5 * latents) / alpha**0.5, timestep, latents)


class LCM:
    """Multistep sampling of a latent consistency model (Luo et al., 2023, "Latent Consistency Models", algorithm 3).

    The network was distilled to tell from any of `ORIGINAL` evenly spaced points where the way ends. Each step jumps
    there, and back to the next point by fresh noise: what comes after the noise that `draw_noise` draws of the same
    seed. The boundary condition is that of consistency models (Song et al., 2023, equation 5) with a sigma_data of 0.5,
    over timesteps times `timestep_scaling`. The theatre's students have none: at their first point it weighs 7e-6.
    """

    ORIGINAL = 50  # points of the teacher's way that students learn from

    def __init__(self, alphas: Tensor, steps: int, seed: int, timestep_scaling: float = 10.0):
        """`alphas`: float64 (timesteps,). Raises ValueError for more steps than there are points."""
        if steps > self.ORIGINAL:
            raise ValueError(
                said("LCM makes {most} steps at most, not {steps}. Four are usual.", most=self.ORIGINAL, steps=steps)
            )
        self.alphas, self.seed, self.scaling = alphas, seed, timestep_scaling
        stride = len(alphas) // self.ORIGINAL
        self.timesteps = [
            (self.ORIGINAL - index * self.ORIGINAL // steps) * stride - 1 for index in range(steps)
        ]  # 4 of 1000: 999, 759, 499, 259
        self.generator: torch.Generator | None = None

    def step(self, noise: Tensor, timestep: float, latents: Tensor) -> Tensor:
        timestep = int(timestep)
        scaled = timestep * self.scaling
        skip, out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25) ** 0.5
        denoised = out * estimate(noise, latents, float(self.alphas[timestep])) + skip * latents
        if timestep == self.timesteps[-1]:
            return denoised
        alpha = float(self.alphas[self.timesteps[self.timesteps.index(timestep) + 1]])
        if self.generator is None:
            self.generator = torch.Generator("cpu").manual_seed(self.seed)
            torch.randn(latents.shape, generator=self.generator)  # what sampling began with
        fresh = torch.randn(latents.shape, generator=self.generator).to(latents.device)
        return alpha**0.5 * denoised + (1 - alpha) ** 0.5 * fresh

    def state(self) -> dict[str, Any]:
        return {} if self.generator is None else {"generator": self.generator.get_state()}

    def restore(self, state: Mapping[str, Any], /) -> None:
        if "generator" in state:
            self.generator = torch.Generator("cpu")
            self.generator.set_state(state["generator"].cpu())


def solver(name: str, config: Mapping[str, Any], steps: int, seed: int = 0) -> Solver:
    """The solver `name` (a key of catalog.SCHEDULERS) for a checkpoint's scheduler config.

    "ddim" is ModelScope's own; "dpm++" is DPM-Solver++ 2M (Lu et al., 2022), "unipc" is UniPC (Zhao et al., 2023), both
    from diffusers; "lcm" is LCM, whose noise depends on `seed`. Raises ValueError for a checkpoint that predicts
    something other than the noise.
    """
    if config.get("prediction_type", "epsilon") != "epsilon":
        raise ValueError(
            said(
                "This checkpoint predicts {kind}; only 'epsilon' can be sampled here.",
                kind=repr(config["prediction_type"]),
            )
        )
    if name == "ddim":
        return ModelScopeDDIM(alphas_cumprod(config), steps)
    if name == "dpm++":
        changes = {"algorithm_type": "dpmsolver++", "solver_order": 2}
        return DiffusersSolver(DPMSolverMultistepScheduler.from_config(dict(config), **changes), steps)
    if name == "unipc":
        return DiffusersSolver(UniPCMultistepScheduler.from_config(dict(config)), steps)
    if name == "lcm":
        return LCM(alphas_cumprod(config), steps, seed, config.get("timestep_scaling", 10.0))
    raise ValueError(said("There is no solver called {name}.", name=repr(name)))


def image_solver(name: str, config: Mapping[str, Any], steps: int, seed: int = 0) -> Solver:
    """As `solver`, in the conventions of Stable Diffusion, for a network that `noise_from` has been asked about.

    "ddim" makes `steps` calls at 1 + i (1000 // steps), the last step landing on timestep 0; "pndm" is PLMS (Liu et
    al., 2022) with one call more, at a timestep it has been to. Both are diffusers'.
    """
    noisy = {**config, "prediction_type": "epsilon"}
    # As the pipelines of both systems have it, whatever an old config says or leaves out.
    stable = {"set_alpha_to_one": False, **noisy, "steps_offset": 1, "timestep_spacing": "leading"}
    if name == "ddim":
        return DiffusersSolver(DDIMScheduler.from_config({**stable, "clip_sample": False}), steps)
    if name == "pndm":
        stable["skip_prk_steps"] = True
        if config.get("prediction_type") == "v_prediction":
            scheduler = PNDMScheduler.from_config({**stable, "prediction_type": "v_prediction"})
            return VelocityPNDM(scheduler, steps, alphas_cumprod(config))
        return DiffusersSolver(PNDMScheduler.from_config(stable), steps)
    return solver(name, noisy, steps, seed)


def inversion(
    predict: Predict, latents: Tensor, config: Mapping[str, Any], steps: int, done: int = 0
) -> Iterator[Tensor]:
    """DDIM backwards (Song et al., 2020, section 4.3), to the noise from which DDIM leads back to `latents`, nearly.

    Yields steps + 1 latents, from `latents` to the noise. Each step asks the network at the timestep that it goes to.
    With some of the steps `done` already, `latents` are what they have led to.
    """
    alphas = alphas_cumprod(config)
    stride = len(alphas) // steps
    yield latents
    for timestep in sorted(map(int, image_solver("ddim", config, steps).timesteps))[done:]:
        noise = predict(latents, timestep)
        denoised = estimate(noise, latents, float(alphas[max(timestep - stride, 0)]))
        alpha = float(alphas[timestep])
        latents = alpha**0.5 * denoised + (1 - alpha) ** 0.5 * noise
        yield latents


def estimate(noise: Tensor, latents: Tensor, alpha: float) -> Tensor:
    """What `latents` would be without their `noise`, alpha being the cumulative product at their timestep."""
    return (latents - (1 - alpha) ** 0.5 * noise) / alpha**0.5


def estimate_from_noise(config: Mapping[str, Any]) -> Estimate:
    """The Estimate for a network that predicts noise, under a checkpoint's scheduler config."""
    alphas = alphas_cumprod(config)
    return lambda noise, latents, timestep: estimate(noise, latents, float(alphas[int(timestep)]))


def spread(values: Tensor) -> float:
    """The largest of `values` less the smallest: 0 where all are one, inf or nan where some are no numbers."""
    low, high = torch.aminmax(values)
    return float(high) - float(low)


class Checkpoint(Protocol):
    """What keeps the state of one loop: see checkpoints.py."""

    def restore(self, latents: Tensor, solver: Solver, /) -> "Step | None":
        """The last step that was kept, and `solver` as it was after it; None where the loop is to begin."""
        ...

    def keep(self, step: "Step", solver: Solver, /) -> None:
        """Writes the state after `step`, if that is due."""
        ...

    def write(self, step: "Step", solver: Solver, /) -> None:
        """Writes the state after `step`."""
        ...


@dataclass(frozen=True)
class Step:
    """Call `number` of `total` is done."""

    number: int
    total: int
    latents: Tensor  # at the next timestep; the sample, after the last step
    denoised: Tensor  # the network's present estimate of the sample


def denoise(
    predict: Predict, latents: Tensor, solver: Solver, foresee: Estimate, checkpoint: Checkpoint | None = None
) -> Iterator[Step]:
    """The denoising loop: yields after every call of the network. Leaving off early is closing the generator.

    With a `checkpoint` that was kept of the same loop, the step that it was kept after comes first, and then the next.
    """
    step = checkpoint.restore(latents, solver) if checkpoint else None
    total, done = len(solver.timesteps), 0
    if step is not None:
        latents, done = step.latents, step.number
        yield step
    try:
        for number, timestep in enumerate(solver.timesteps[done:], start=done + 1):
            prediction = predict(latents, timestep)
            denoised = foresee(prediction, latents, timestep)
            latents = solver.step(prediction, timestep, latents)
            step = Step(number, total, latents, denoised)
            if checkpoint:
                checkpoint.keep(step, solver)
            yield step
    except GeneratorExit:
        if checkpoint and step is not None:
            checkpoint.write(step, solver)
        raise
