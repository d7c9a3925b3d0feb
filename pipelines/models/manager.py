"""The model manager: the one way to a model, and the only place that moves one between devices."""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

try:
    import resource
except ImportError:  # on Windows
    resource = None

from pipelines.cards import ModelCard
from pipelines.catalog import CLIP, find
from pipelines.detectors import DETECTORS, Detector, find_detector
from pipelines.messages import said
from pipelines.models import loading
from pipelines.models.loading import Component
from pipelines.settings import Settings

Event = TypeVar("Event")
Outcome = TypeVar("Outcome")

CPU = torch.device("cpu")
FASTER = ":bfloat16"  # behind the name of a part: in bfloat16 on a CPU
ENDLESS = 2**62  # bytes, where the system can't tell how much memory there is

# diffusers and transformers patch torch for the whole process while they build a model, so that a second build, or a
# move, in another thread would go wrong: one of them at a time, whichever manager asks.
_BUILDING = threading.Lock()


@dataclass
class Resident:
    """A loaded component and what became of it. Components with the same weights are one, whatever their names."""

    names: list[str]
    key: str  # hash of weights and config
    bytes: int
    device: torch.device
    load_seconds: float
    last_use: float = 0.0  # time.monotonic()
    leases: int = 0
    hits: int = 0  # leases that found it loaded
    module: Any = field(default=None, repr=False)


class ModelManager:
    """Loads models when they are first needed, shares them, and keeps within the device's memory.

    `budget` tells how many bytes of the device are free to plan with right now; by default that is measured. Every
    method may be called from any thread; loading and moving happen in the thread that leases.
    """

    def __init__(
        self,
        catalog: Mapping[str, ModelCard],
        settings: Settings,
        device: torch.device | str | None = None,
        budget: Callable[[], int] | None = None,
        component: Callable[..., Component] = loading.component,
        detectors: Mapping[str, Detector] = DETECTORS,
    ):
        self.device = _device(settings.device if device is None else device)
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self.frugal = False  # True in the second attempt: systems then save memory wherever that changes no result
        self._thread = threading.local()
        self._catalog = catalog
        self._detectors = detectors
        self.settings = settings
        self._margin = settings.memory_margin_mb * 2**20
        self._budget = budget or self._measured_budget
        self._component = component
        self._components: dict[str, Component] = {}  # by name; hashing weights takes a while
        self._empty: dict[str, nn.Module] = {}  # by name, on the meta device
        self._residents: dict[str, Resident] = {}  # by key
        self._eager: int | None = None  # the process that `load` was called in
        self._wanted = 0  # bytes, the most that one lease of this attempt asked for
        self._lock = threading.RLock()

    @property
    def on_progress(self) -> Callable[[int, int], None] | None:
        """Told bytes loaded and in all, of what is loaded in the thread that has set it; may raise to give up."""
        return getattr(self._thread, "on_progress", None)

    @on_progress.setter
    def on_progress(self, tell: Callable[[int, int], None] | None) -> None:
        self._thread.on_progress = tell

    def card(self, model: str) -> ModelCard:
        """The card of `model`. Raises ValueError listing the names there are."""
        return find(model, self._catalog)

    def detector(self, name: object) -> Detector:
        """The detector `name`. Raises ValueError listing the names there are."""
        return find_detector(name, self._detectors)

    @contextmanager
    def lease(self, name: str, working_bytes: int = 0, anywhere: bool = False) -> Iterator[Any]:
        """The component `name` ("<model>/<part>") on the device, for reading only, as long as the context lasts.

        `model` is a name in the catalog, that of a detector, or CLIP.location.

        `working_bytes` is what the caller will need on the device beside it. To make room, components that nobody
        leases leave the device, the one unused for longest first. Leases nest, also of the same component. What is
        wanted `anywhere` stays in main memory where the device is too small for it. Raises ValueError where the weights
        are missing or damaged.
        """
        resident = self._take(name, working_bytes, anywhere)
        try:
            yield resident.module
        finally:
            with self._lock:
                resident.leases -= 1
                resident.last_use = time.monotonic()

    def load(self, names: Iterable[str]) -> None:
        """The eager policy, where the device is lent to forks of this process: brings all of `names` there now.

        In this process there is no device to measure: it makes no room, and nothing leaves again. In its forks all is
        as ever.
        """
        self._eager = os.getpid()
        for name in names:
            with self.lease(name):
                pass

    def attempt(self, start: Callable[[], Generator[Event, None, Outcome]]) -> Generator[Event, None, Outcome]:
        """Runs the generator `start()`, and if memory runs out, once more in an emptied device with `frugal` on.

        Raises MemoryError, with the numbers and what to change, if that is not enough.
        """
        try:
            for frugal in (False, True):
                self.frugal, self._wanted = frugal, 0
                if self.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(self.device)
                try:
                    return (yield from start())
                except RuntimeError as error:
                    if not _out_of_memory(error):
                        raise
                # Only after the handler is the exception gone, and with it the tensors that its traceback held.
                wanted = self._wanted
                if self.device.type == "cuda":
                    wanted = max(wanted, self.peak_bytes())
                self._clear_device()
            raise MemoryError(
                said(
                    "The memory of {device} is too small: this needs more than {needed:.2f} GB at once and "
                    "{room:.2f} GB can be had. Choose fewer frames or a smaller size.",
                    device=str(self.device),
                    needed=wanted / 1e9,
                    room=max(self._budget(), 0) / 1e9,
                )
            )
        finally:
            self.frugal = False

    def faster(self, part: str) -> str:
        """The part `part` of any model in bfloat16, where the device is a CPU that multiplies such numbers faster; else
        the part as it is: a GPU computes in half precision anyway."""
        return part + FASTER if self.device == CPU and _multiplies_bfloat16() else part

    def key(self, name: str) -> str:
        """What identifies the weights and the config of `name`, wherever they lie."""
        with self._lock:
            return self._find(name).key

    def empty(self, name: str) -> Any:
        """The module `name` without its weights, on the meta device: to count what work with it will take."""
        with self._lock, _BUILDING:
            if name not in self._empty:
                component = self._find(name)
                if component.empty is None:
                    raise TypeError(f"{name} is no module.")
                self._empty[name] = self._cast(component.empty(), component).requires_grad_(False)
            return self._empty[name]

    def room(self, name: str) -> int:
        """Bytes that the device could give to work with `name`, once nothing else is on it but what is leased."""
        with self._lock:
            component = self._find(name)
            here = self._residents.get(component.key)
            idle = sum(one.bytes for one in self._residents.values() if one.device == self.device and not one.leases)
            weights = here.bytes if here else component.bytes
            return self._budget() + idle - (0 if here and here.leases and here.device == self.device else weights)

    def peak_bytes(self) -> int:
        """The most that was in use: of the device in this attempt, or on a CPU of the process since its start."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if resource is None:
            return 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def stats(self) -> list[Resident]:
        """What is loaded now, the last used first. The records are copies, without the modules."""
        residents = sorted(list(self._residents.values()), key=lambda resident: -resident.last_use)
        return [replace(resident, names=list(resident.names), module=None) for resident in residents]

    def unload_idle(self) -> None:
        """Forgets the components that nobody has used for `settings.idle_minutes`."""
        self._unload(before=time.monotonic() - 60 * self.settings.idle_minutes)

    def unload_all(self) -> None:
        """Forgets every component that nobody leases."""
        self._unload(before=float("inf"))

    def _take(self, name: str, working_bytes: int, anywhere: bool) -> Resident:
        with self._lock:
            component = self._find(name)
            resident = self._residents.get(component.key)
            if resident is None:
                resident = self._load(component, working_bytes)
            else:
                resident.hits += 1
            if name not in resident.names:
                resident.names.append(name)
            resident.leases += 1  # from here on it can't be evicted
            try:
                if not anywhere or os.getpid() == self._eager or self.room(name) >= working_bytes:
                    self._bring(resident, working_bytes)
            except BaseException:
                resident.leases -= 1
                raise
            resident.last_use = time.monotonic()
            return resident

    def _find(self, name: str) -> Component:
        if name not in self._components and name.endswith(FASTER):
            exact = self._find(name.removesuffix(FASTER))
            self._components[name] = replace(exact, key=exact.key + FASTER, faster=True)
        if name not in self._components:
            model, _, part = name.rpartition("/")
            if model == CLIP.location:
                component = loading.clip_component(part, self.settings)
            elif model in self._detectors:
                component = loading.detector_component(self._detectors[model], part, self.settings, self.on_progress)
            else:
                component = self._component(self.card(model), part, self.settings, self.on_progress)
            self._components[name] = component
        return self._components[name]

    def _load(self, component: Component, working_bytes: int) -> Resident:
        """Reads `component` into main memory, where half precision, as most files have it, grows to twice its size."""
        self._make_room(CPU, 2 * component.bytes + working_bytes if self.device == CPU else component.bytes)
        started = time.perf_counter()
        with _BUILDING:
            module = component.load(self.on_progress or (lambda done, total: None))
            if isinstance(module, nn.Module):
                self._cast(module, component).eval().requires_grad_(False)
        resident = Resident([], component.key, _bytes(module), CPU, time.perf_counter() - started, module=module)
        self._residents[component.key] = resident
        return resident

    def _cast(self, module: nn.Module, component: Component) -> nn.Module:
        # Not .to(self.dtype), of which diffusers warns whoever calls it.
        if component.faster or (component.bfloat16 and self.dtype == torch.float16):
            return _bfloat16(module, component.exact)
        return module.half() if self.dtype == torch.float16 else module.float()

    def _bring(self, resident: Resident, working_bytes: int) -> None:
        """Sees that `resident` is on the device, with `working_bytes` free beside it if that can be had."""
        absent = resident.bytes > 0 and resident.device != self.device
        self._wanted = max(self._wanted, resident.bytes + working_bytes)
        # If evicting everything is not enough, it is tried all the same: the numbers are careful estimates.
        self._make_room(self.device, working_bytes + (resident.bytes if absent else 0))
        if absent:
            self._move(resident, self.device)

    def _make_room(self, device: torch.device, need: int) -> None:
        """Evicts from `device`, longest unused first and measuring after each, until `need` bytes are free."""
        if os.getpid() == self._eager:
            return
        free = self._budget if device == self.device else free_ram
        while free() < need:
            idle = [one for one in self._residents.values() if one.device == device and one.bytes and not one.leases]
            if not idle:
                return
            self._evict(min(idle, key=lambda one: one.last_use))

    def _evict(self, resident: Resident) -> None:
        """Moves `resident` from the device to main memory or, where it is there already or no room is, forgets it."""
        if resident.device != CPU:
            self._make_room(CPU, resident.bytes)
            if free_ram() >= resident.bytes:
                return self._move(resident, CPU)
        self._forget(resident)

    def _move(self, resident: Resident, device: torch.device) -> None:
        try:
            with _BUILDING:
                resident.module.to(device)
        except BaseException:
            self._forget(resident)  # half of it may be here and half there
            raise
        resident.device = device

    def _forget(self, resident: Resident) -> None:
        self._residents.pop(resident.key, None)
        resident.module = None  # the last reference: a module is freed without the garbage collector

    def _unload(self, before: float) -> None:
        with self._lock:
            idle = [one for one in self._residents.values() if not one.leases and one.last_use < before]
            for resident in idle:
                self._forget(resident)
                for name in resident.names:
                    del self._components[name]
                    self._empty.pop(name, None)
        if idle and self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _clear_device(self) -> None:
        with self._lock:
            self._make_room(self.device, ENDLESS)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _measured_budget(self) -> int:
        if self.device.type != "cuda":
            return free_ram() - self._margin
        free, _ = torch.cuda.mem_get_info(self.device)
        stats = torch.cuda.memory_stats(self.device)  # torch keeps what it once reserved, used or not
        return free + stats["reserved_bytes.all.current"] - stats["active_bytes.all.current"] - self._margin


def _device(name: torch.device | str) -> torch.device:
    """The device called `name`, ready for use. Raises ValueError where this machine has none such."""
    if name == "auto":
        # `accelerate launch` starts a process a device, and tells each of them which.
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(1, device=name).device  # with its number, as tensors there have it
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"This machine has no device {str(name)!r}. Set MARIONETTE_DEVICE to auto.") from error


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether memory was too little: PyTorch's GPU allocator has an error of its own for it, all others have texts."""
    texts = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16 numbers; others take longer for them than in fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _bfloat16(module: nn.Module, exact: tuple[str, ...]) -> nn.Module:
    """`module` in bfloat16, but in fp32 what has one of `exact` among the parts of its name."""
    for name, part in module.named_modules():
        for own, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            if tensor.is_floating_point():
                whole = any(word in exact for word in (*name.split("."), own))
                tensor.data = tensor.data.to(torch.float32 if whole else torch.bfloat16)
    return module


def _bytes(module: Any) -> int:
    """What the tensors of `module` take; 0 for what is no module."""
    if not isinstance(module, nn.Module):
        return 0
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def free_ram() -> int:
    """Bytes of main memory that can still be had, here and within the container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return ENDLESS  # not Linux
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):
        return free  # no limit
    return min(free, limit - used)
