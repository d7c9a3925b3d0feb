"""The engine contract: what the app needs of a published system. Importing this file imports no torch.

A system is a file that reads like its paper. At its end it says, as ENGINE, which of its functions do what; the catalog
names the file in ENGINES, and a card names the engine. What a form shows of a model is on its card, as plain data.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.catalog import ENGINES
from pipelines.events import Losses, Preview, Progress
from pipelines.imports import imported
from pipelines.models.classes import CLASSES, Network

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pipelines.systems.diffusion import Predict, Solver
    from pipelines.tasks import Task

Generated = Generator[Progress | Preview | Losses, None, tuple["np.ndarray", dict[str, Any]]]


@dataclass(frozen=True)
class Engine:
    """One published system: its functions, under the names by which the app, the benchmark and the tests call them."""

    generate: Mapping[type["Task"], Callable[..., Generated]]
    """For each kind of task it takes: (task, models, **files) -> events, and at last the frames, uint8 [F, H, W, 3],
    and the facts. `files` are the inputs of the task under their names; with a clip, `measured`
    comes what was measured of it, if that is known, and for all but a tuning the job's `checkpoints` may come. It
    leases what it needs from `models`."""

    parts: tuple[str, ...]
    """All that it leases of a model. They are loaded before the page opens where GPUs are lent."""

    encode: Callable[[list[str], Any, Any], "Tensor"]
    """(texts, tokenizer, text encoder) -> text states (texts, tokens, channels)."""

    network: Callable[[Any, "Tensor"], "Predict"]
    """(module, text states) -> what the denoising loop calls: (latents, timestep) -> a prediction for every text."""

    denoising_memory: Callable[[Any, int, int, int, int, int], int]
    """(module without weights, branches, frames, height and width of the latents, slices) -> the bytes that one step
    takes beside the weights, counted on the meta device."""

    solver: Callable[[str, Mapping[str, Any], int], "Solver"]
    """(a name in the card's schedulers, the checkpoint's scheduler config, steps) -> the way from noise to sample."""

    decode: Callable[[Any, "Tensor"], Iterator["np.ndarray"]]
    """(VAE, scaled latents (1, c, f, h, w)) -> the frames, one by one, uint8 (H, W, 3)."""

    classes: Mapping[str, Network] = field(default_factory=dict)
    """Classes that its configs name and that models/classes.py does not know."""


def find_engine(name: str) -> Engine:
    """The engine `name`, a key of ENGINES. Imports its file, and torch with it.

    Raises ValueError where there is no such engine, or where it has another idea of a class than an engine before it.
    """
    if name not in ENGINES:
        raise ValueError(f"There is no engine called {name!r}. Choose one of: {', '.join(ENGINES)}.")
    engine: Engine = imported(ENGINES[name]).ENGINE
    for kind, network in engine.classes.items():
        if CLASSES.setdefault(kind, network) is not network:
            raise ValueError(f"The engine {name!r} builds {kind} in another way than is known already.")
    return engine
