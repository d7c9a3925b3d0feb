"""What the denoising loop is told of a network: its predictions, guided, for all frames at once or in windows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from pipelines.systems.diffusion import Predict, guided
from pipelines.windows import windows


@dataclass(frozen=True)
class Shortcuts:
    """What a job leaves out to be faster or to be possible, and thereby changes its video; by default nothing.

    Guidance in an interval only: Kynkäänniemi et al., 2024, "Applying Guidance in a Limited Interval". From and until
    when is told in shares of the way from noise, 0, to the sample, 1. Caching: networks/caching.py.
    """

    window: int = 0  # frames that the network sees at once, and makes more of in parts; 0 for all
    caching: int = 1  # the deep features are computed in every so many steps
    guided_from: float = 0.0
    guided_until: float = 1.0


EXACT = Shortcuts()


def windowed(network: Callable[[slice], Predict], length: int, before: int = 0) -> Predict:
    """A network that sees `length` frames at once, around latents (b, c, f, h, w) of any number of frames.

    `network` makes the network for some of the frames. Where windows overlap (windows.py), what it predicts is averaged
    in every step, and counts most in the middle of a window (Bar-Tal et al., 2023, "MultiDiffusion", over time): the
    windows walk to one video together, and nothing is decoded or encoded in between. With a `length` of 0 it sees all.
    Pictures that come `before` the video, so many, are no part of it: every window sees them first.
    """
    if not length:
        return network(slice(None))
    of = cache(lambda part: network(slice(part.start, part.stop)))

    def predict(latents: Tensor, timestep: float) -> Tensor:
        count = latents.shape[2]
        parts = windows(count - before, length)
        if len(parts) == 1:
            return of(parts[0])(latents, timestep)
        slope = torch.arange(1, length + 1)
        weight = torch.cat([torch.ones(before), torch.minimum(slope, slope.flip(0))]).view(-1, 1, 1).to(latents.device)
        total, weights = torch.zeros((), device=latents.device), torch.zeros(count, 1, 1, device=latents.device)
        for part in parts:
            places = [*range(before), *range(before + part.start, before + part.stop)]
            seen = of(part)(latents[:, :, places], timestep)
            total = total if total.dim() else seen.new_zeros(*seen.shape[:2], count, *seen.shape[3:])
            total[:, :, places] += weight * seen
            weights[places] += weight
        return total / weights

    return predict


def prediction(
    network: Callable[[Tensor, slice], Predict],
    text_states: Tensor,
    guidance: float,
    config: Mapping[str, Any],
    shortcuts: Shortcuts,
    before: int = 0,
) -> Predict:
    """What a network predicts of latents (b, …), guided: (b, …), fp32.

    `network` makes the network for text states and some of the frames; `text_states` are those of the negative and the
    positive prompt, or with a `guidance` of 1 or less those of the prompt alone. Outside the interval of `shortcuts`
    only the latter count. So many frames come `before` the video's, as `windowed` has it.
    """

    def reading(states: Tensor) -> Predict:
        return windowed(partial(network, states), shortcuts.window, before)

    if guidance <= 1:
        return reading(text_states)
    within = guided(reading(text_states), guidance)
    if shortcuts.guided_from <= 0 and shortcuts.guided_until >= 1:
        return within
    outside, last = reading(text_states[1:]), config["num_train_timesteps"] - 1

    def predict(latents: Tensor, timestep: float) -> Tensor:
        done = 1 - timestep / last
        return (within if shortcuts.guided_from <= done <= shortcuts.guided_until else outside)(latents, timestep)

    return predict
