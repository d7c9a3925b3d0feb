"""One system on a device, tried by its own code: python -m scripts.full_size.one_system NAME FOLDER SIZE DEVICE LIMIT

The process that cuda.py starts for each system. Writes what it finds as FOLDER/NAME.json, after each part of it, and
ends with its stack on stderr where it has had the device for LIMIT seconds.
"""

import faulthandler
import fcntl
import json
import statistics
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np
import torch
from torch import Tensor, nn

from pipelines.events import Progress
from pipelines.models.folders import card_of_folder
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import followyourpose, modelscope, tempofunk, tuneavideo, tuning
from pipelines.tasks import NOBODY, Edit, PoseToVideo, Task, TextToVideo, Tune
from scripts.full_size.random_models import published

MODULES = {"modelscope": modelscope, "followyourpose": followyourpose, "tempofunk": tempofunk, "tuneavideo": tuneavideo}
PROMPT = "a robot dances on the beach"
SIZES = {  # of a video: frames, pixels a side, steps
    "modelscope": (16, 256, 25),
    "followyourpose": (8, 512, 8),
    "tempofunk": (16, 512, 6),
    "tuneavideo": (8, 512, 6),
}
SMALL = (8, 64, 3)
INVERSION = 4  # steps of the inversion that ends a tuning
LATENTS: list[Tensor] = []  # that were decoded


class Found(dict[str, Any]):
    """What was found, and is written at once."""

    def __init__(self, file: Path):
        super().__init__(torch=torch.__version__, device="?")
        self.file = file

    def note(self, more: dict[str, Any]) -> None:
        self.update(more)
        self.file.write_text(json.dumps(self))

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Notes what is raised within, and goes on behind it."""
        try:
            yield
        except Exception as error:
            lines = "".join(traceback.format_exception(error)).splitlines()[-30:]
            self.note({"failed": "\n".join([*filter(None, [self.get("failed")]), *lines])})


class Watched(ModelManager):
    """Notes of each lease what it took, and the most memory of the device meanwhile against what was planned."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.leases: dict[str, dict[str, Any]] = {}

    @contextmanager
    def lease(self, name: str, working_bytes: int = 0, anywhere: bool = False) -> Iterator[Any]:
        on_gpu, began = self.device.type == "cuda", time.perf_counter()
        with super().lease(name, working_bytes, anywhere) as module:
            facts = {"to_have_it": time.perf_counter() - began}
            held = sum(one.bytes for one in self.stats() if one.device == self.device)
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(self.device)
            yield module
            if isinstance(module, nn.Module):
                loaded = [one.load_seconds for one in self.stats() if name in one.names]
                facts |= {"of_that_to_load": loaded[0] if loaded else 0.0, "weights_gb": held / 1e9}
                facts |= {"planned_gb": (held + working_bytes) / 1e9}
                facts |= {"kinds": sorted({f"{one.dtype} {one.device}" for one in module.parameters()})}
                if on_gpu:
                    facts["allocated_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
                    facts["reserved_gb"] = torch.cuda.max_memory_reserved(self.device) / 1e9
                part = name.rpartition("/")[2]
                self.leases.setdefault(f"{part}, again" if part in self.leases else part, facts)  # the VAE: it decodes


def keep_latents(module: Any) -> None:
    """Puts the latents that `module` decodes into LATENTS."""
    decode_frames = module.decode_frames

    def watched(task: Task, latents: Tensor, *given: Any) -> Any:
        LATENTS.append(latents.detach().cpu())
        return decode_frames(task, latents, *given)

    module.decode_frames = watched


def smooth(task: Tune, *given: Any) -> tuple[np.ndarray, float]:
    """A clip without a file: waves that move, uint8 (f, H, W, 3), at 8 frames a second."""
    rows, columns = np.mgrid[: task.height, : task.width] / task.height
    frame, channel = np.ogrid[: task.frames, 1:4]
    phase = (6 * columns + frame[..., None, None] / 2) + rows * channel[..., None, None]  # (f, 3, H, W)
    return (127 + 100 * np.sin(phase)).astype(np.uint8).transpose(0, 2, 3, 1).copy(), 8.0


def without_files() -> None:
    """Has the tuning read `smooth` clips and write no video, so that it needs no ffmpeg."""
    tuning.clips = SimpleNamespace(read=smooth, SOUND=tuning.clips.SOUND)  # pyright: ignore[reportAttributeAccessIssue]
    tuning.video = SimpleNamespace(write=lambda *given: None)  # pyright: ignore[reportAttributeAccessIssue]


def made(task: Task, models: Watched, **inputs: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The frames of `task`, and what was measured: the seconds of each stage and, where that has several, of a step."""
    module = tuning if isinstance(task, Tune) else MODULES[models.card(task.model).system]
    generate = module.ENGINE.generate if hasattr(module, "ENGINE") else tuning.ENGINE.generate
    events = models.attempt(lambda: generate[type(task)](task, models, **inputs))
    began = last = time.perf_counter()
    steps: dict[str, list[float]] = {}
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            frames, facts = end.value
            break
        now = time.perf_counter()
        if isinstance(event, Progress):
            steps.setdefault(str(event.stage), []).append(now - last)
            last = now
    found = {"seconds": time.perf_counter() - began, "frames": list(frames.shape), "deviation": float(frames.std())}
    found |= {"levels": f"{frames.min()} to {frames.max()}"}
    found |= {f"{stage}, a step": statistics.median(one[1:]) for stage, one in steps.items() if len(one) > 2}
    names = ("device", "dtype", "memory_saving", "first_loss", "last_loss", "seconds_by_stage")
    return frames, found | {name: facts[name] for name in names if name in facts}


def videos(name: str, models: Watched, size: str, folder: Path, found: Found) -> tuple[Any, dict[str, Any]]:
    """Makes the videos of the system `name`: the last one twice, from the same seed. Returns its task and files."""
    frames, side, steps = SMALL if size == "small" else SIZES[name]
    card = models.card("model")
    shape = {"frames": frames, "width": side, "height": side}
    inputs: dict[str, Any] = {}
    if name == "tuneavideo":
        tune = Tune.for_model(card, PROMPT, 7, clip=NOBODY, steps=5, **shape)
        measured = SimpleNamespace(clip=SimpleNamespace(sound=False))
        models.leases.clear()
        tuned = folder / "tuned"
        _, found["tuning"] = made(tune, models, clip=Path(), folder=tuned, source=Path(), measured=measured)
        found.note({f"tuning: {part}": facts for part, facts in models.leases.items()})
        task: Any = Edit.for_model(card, PROMPT, 7, tuned=NOBODY, steps=steps, fps=8, **shape)
        inputs = {"tuned": tuned}
    elif name == "followyourpose":
        task = PoseToVideo.for_model(card, PROMPT, 7, motion="wave", steps=steps, **shape)
    else:
        task = TextToVideo.for_model(card, PROMPT, 7, steps=steps, **shape)
    models.leases.clear()
    keep_latents(MODULES[name])
    first, found["first video"] = made(task, models, **inputs)
    found.note({f"video: {part}": facts for part, facts in models.leases.items()})
    again, found["second video"] = made(task, models, **inputs)
    one, two = LATENTS
    found["same seed"] = {
        **{"latents_equal": torch.equal(one, two), "latents_differ_by": float((one - two).abs().max())},
        **{"frames_equal": bool((first == again).all()), "finite": float(torch.isfinite(one).float().mean())},
        "latents_deviate": float(one.std()),
    }
    return task, inputs


def eviction(models: Watched, catalog: Any, settings: Settings) -> dict[str, Any]:
    """Whether the network leaves a device that can't hold it beside the VAE, and comes back as it was."""
    used = partial(torch.cuda.memory_allocated, models.device) if models.device.type == "cuda" else lambda: 0
    facts: dict[str, Any] = {"before_unloading_gb": used() / 1e9}
    models.unload_all()
    facts["after_unloading_gb"] = used() / 1e9
    inflated = catalog["model"].system in ("followyourpose", "tuneavideo")
    unet_name, vae_name = f"model/{'inflated_unet' if inflated else 'unet'}", "model/vae"
    sizes = [sum(one.nbytes for one in models.empty(name).parameters()) for name in (unet_name, vae_name)]
    room = sizes[0] + sizes[1] // 2

    def budget() -> int:
        return room - sum(one.bytes for one in tight.stats() if one.device == tight.device)

    tight = Watched(catalog, settings, settings.device, budget=budget)

    def resident() -> list[str]:
        return [name for one in tight.stats() if one.device == tight.device for name in one.names]

    def checksum() -> float:
        with tight.lease(unet_name) as unet:
            return float(sum(one.double().abs().sum() for one in unet.parameters()))

    before = checksum()
    facts |= {"with_the_network_gb": used() / 1e9, "then_resident": resident()}
    with tight.lease(vae_name):
        facts |= {"with_the_vae_gb": used() / 1e9, "now_resident": resident()}
    began = time.perf_counter()
    after = checksum()
    facts |= {"back_in": time.perf_counter() - began, "back_resident": resident(), "came_back_whole": before == after}
    tight.unload_all()
    return facts | {"at_last_gb": used() / 1e9}


def too_little(task: Any, inputs: dict[str, Any], models: Watched, catalog: Any, settings: Settings) -> dict[str, Any]:
    """What becomes of the job where the manager thinks that there is room, and the GPU has too little of it."""
    network = models.leases.get("inflated_unet") or models.leases["unet"]
    weights = max(one["weights_gb"] for one in models.leases.values())  # of all parts: none had to leave
    room = (weights + 0.8 * (network["planned_gb"] - network["weights_gb"])) * 1e9
    fooled = Watched(catalog, settings, settings.device, budget=lambda: 10**12)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(models.device).total_memory)
    try:
        return {"room_gb": room / 1e9} | made(replace(task, steps=2), fooled, **inputs)[1]
    except MemoryError as error:
        return {"room_gb": room / 1e9, "refused": str(error)}
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        fooled.unload_all()


def main(name: str, place: str, size: str, device: str, limit: str) -> int:
    folder, found = Path(place) / name, Found(Path(place) / f"{name}.json")
    began = time.perf_counter()
    with found.failing(), (Path(place) / "device").open("w") as lock:
        whole = published(name, size)
        whole.write(folder / "model")
        facts = {"seconds": time.perf_counter() - began, "gigabytes": sum(one.bytes for one in whole.files) / 1e9}
        began = time.perf_counter()
        fcntl.flock(lock, fcntl.LOCK_EX)
        found["writing"] = facts | {"then_waited": time.perf_counter() - began}
        began = time.perf_counter()
        faulthandler.dump_traceback_later(float(limit), exit=True)
        without_files()
        settings = Settings(folder / "data", folder / "cache", device=device, hub=False)
        card = card_of_folder(folder / "model")
        catalog = {card.name: replace(card, defaults=replace(card.defaults, steps=INVERSION))}
        models = Watched(catalog, settings)
        on_gpu = models.device.type == "cuda"
        found["device"] = torch.cuda.get_device_name(models.device) if on_gpu else "CPU"
        found.note({"budget": {"gigabytes": models._budget() / 1e9, "dtype": str(models.dtype)}})
        with found.failing():
            task, inputs = videos(name, models, size, folder, found)
        with found.failing():
            found.note({"eviction": eviction(models, catalog, settings)})
        if on_gpu and "same seed" in found:
            with found.failing():
                found.note({"too little memory": too_little(task, inputs, models, catalog, settings)})
    found.note({"made_in": time.perf_counter() - began})
    return int("failed" in found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
