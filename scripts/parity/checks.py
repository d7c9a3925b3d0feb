"""One comparison: of what the app computes with what the original program recorded."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.cards import Source
from pipelines.models.loading import part_of
from pipelines.settings import Settings

FORWARD = 2e-5  # of the reference's largest value: one pass through a network in fp32
LOOP = 1e-4  # of the reference's largest value: a whole sampling loop, which amplifies rounding by the guidance
FRAMES = 0.005  # the share of values that may be a level off where the original truncates to whole numbers


@dataclass(frozen=True)
class Check:
    """One comparison. `tolerance` is absolute; an error that is no number fails."""

    name: str
    error: float
    scale: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAIL"
        return f"{self.name:<62} {self.error:<10.3g} {self.scale:<10.4g} {self.tolerance:<10.3g} {verdict}"


def compare(name: str, ours: Tensor, reference: Tensor, relative: float) -> Check:
    """`ours` against `reference`, to `relative` of the reference's largest value. Different shapes fail."""
    check = compare_within(name, ours, reference, 0)
    return replace(check, tolerance=relative * check.scale)


def compare_within(name: str, ours: Tensor, reference: Tensor, tolerance: float) -> Check:
    """`ours` against `reference`, to an absolute `tolerance`. Different shapes fail."""
    scale = reference.abs().max().item()
    error = (ours.double() - reference.double()).abs().max().item() if ours.shape == reference.shape else float("inf")
    return Check(name, error, scale, tolerance)


def compare_lists(name: str, ours: list[int], reference: list[int]) -> Check:
    """Whole numbers: the error is how many of them differ."""
    wrong = sum(a != b for a, b in zip(ours, reference, strict=False)) + abs(len(ours) - len(reference))
    return Check(name, wrong, len(reference), 0)


def compare_levels(name: str, ours: Tensor, reference: Tensor) -> Iterator[Check]:
    """uint8 pictures: nowhere more than a level off, and that seldom."""
    if ours.shape != reference.shape:
        yield Check(name, float("inf"), 255, 1)
        return
    difference = (ours.int() - reference.int()).abs()
    yield Check(name, difference.max().item(), reference.max().item(), 1)
    yield Check(f"{name}.share_of_values_off", (difference > 0).float().mean().item(), 1, FRAMES)


def recorded(folder: Path, name: str) -> bool:
    """Whether there is a recording of `name` in `folder`. Says so where there is none: then it is not checked."""
    found = (folder / f"{name}.safetensors").is_file()
    if not found:
        print(f"# {folder.name}: {name} is not recorded here")
    return found


def read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def load(source: Source, part: str, settings: Settings) -> Any:
    """The part of a model by the app's own loaders; modules in fp32."""
    module = part_of(source, part, settings).load(lambda done, total: None)
    return module.float() if isinstance(module, torch.nn.Module) else module
