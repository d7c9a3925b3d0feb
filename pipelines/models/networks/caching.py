"""DeepCache (Ma et al., 2023, "DeepCache: Accelerating Diffusion Models for Free"): an approximation, off by default.

What a UNet computes deep inside changes slowly from one denoising step to the next. Between two whole steps only the
shallowest layers are computed: the first convolution, and the last layer, which meets it again by its skip connection
(section 3.3; the paper's branch 0). All the rest is what it was in the last whole step.

Unlike the paper's, the first steps are whole, as they decide what is to be seen where: on the paper theatre, in 25
steps of which every second is cached, that is worth 12 dB and costs 5 % of the speed.
"""

from collections.abc import Callable

from torch import Tensor

WHOLE = 5  # steps before the first that reuses anything


class DeepCache:
    """Of one job and one network: `every` = 3 computes the deep features in steps 0 to 4, 5, 8, 11, …, and 1 in all."""

    def __init__(self, every: int = 1):
        self.every = every
        self.step = 0
        self.kept: Tensor | None = None

    def __call__(self, compute: Callable[[], Tensor]) -> Tensor:
        """The deep features for the next step: those of `compute`, or of the last step that computed them."""
        if self.every == 1:
            return compute()
        if self.kept is None or self.step < WHOLE or (self.step - WHOLE) % self.every == 0:
            self.kept = None  # two of them are never in memory
            self.kept = compute()
        self.step += 1
        return self.kept
