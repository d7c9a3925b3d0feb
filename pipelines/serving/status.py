"""What the machine is at: its device, its queue, and which models hold memory. Standard library only."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.messages import said
from pipelines.serving import estimate
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.models.manager import Resident

DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Loaded:
    """What models hold of the memory of a device: one alone, or several that share it."""

    models: tuple[str, ...]  # their names
    device: str  # "cpu", "cuda:0", …
    bytes: int
    in_use: bool


@dataclass(frozen=True)
class Worker:
    """What works on one device."""

    device: str  # for a person
    busy: bool
    drained: bool = False  # whether it takes no further job
    ready: bool = True  # whether it is there


@dataclass(frozen=True)
class Status:
    """The machine at one moment. Tells nothing of who wants what."""

    device: str  # for a person
    running: int  # jobs
    waiting: int  # jobs
    loaded: tuple[Loaded, ...]  # the largest first
    notes: tuple[str, ...] = ()  # what has happened to the data, in sentences
    workers: tuple["Worker", ...] = ()


def loaded(residents: "Iterable[Resident]") -> tuple[Loaded, ...]:
    """The `residents` of a manager, those of the same models on the same device taken together."""
    together: dict[tuple, Loaded] = {}
    for one in residents:
        models = tuple(dict.fromkeys(name.rpartition("/")[0] for name in one.names))
        key = (models, str(one.device))
        before = together.get(key, Loaded(*key, 0, False))
        together[key] = Loaded(*key, before.bytes + one.bytes, before.in_use or one.leases > 0)
    return tuple(sorted(together.values(), key=lambda one: -one.bytes))


def device(settings: Settings, driver: Path = DRIVER) -> str:
    """What jobs run on, as far as can be told without importing torch."""
    if not estimate.has_gpu(settings):
        return said("CPU, {count} cores", count=os.cpu_count() or 1)
    names = [_model(file) for file in sorted(driver.glob("*/information"))]
    number = int(settings.device.partition(":")[2] or 0)
    return names[number] if number < len(names) else "GPU"


def devices(settings: Settings, environment: Mapping[str, str] = os.environ, nodes: Path = Path("/dev")) -> list[str]:
    """The devices that work side by side, as torch names them: those of the settings, or else every GPU that this
    process may use, as far as can be told without importing torch."""
    if settings.device not in ("auto", "cuda"):
        return settings.device.split(",")
    count = len(list(nodes.glob("nvidia[0-9]*")))
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        count = min(count, len([one for one in visible.split(",") if one.strip()]))
    return [f"cuda:{number}" for number in range(count)] if count > 1 else [settings.device]


def _model(file: Path) -> str:
    """What the driver's `file` calls a GPU."""
    lines = [line.partition(":") for line in file.read_text(errors="replace").splitlines()]
    return next((value.strip() for name, _, value in lines if name == "Model"), "GPU")
