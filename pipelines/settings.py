"""Settings: read once from the environment (MARIONETTE_*), then passed around. Standard library only."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

# Instead of the defaults on the original Space, where strangers share a machine. They are no variables of that Space:
# whoever duplicates it would have them too.
SHARED = {"queue_each": 4, "keep_days": 1.0, "upload_mb": 50, "upload_seconds": 20.0}

RANGES = {  # smallest and largest value of every number
    "queue": (1, 100_000),
    "queue_each": (1, 100_000),
    "keep_days": (0.01, 36_500),
    "keep_gb": (0.01, 1_000_000),
    "disk_margin_mb": (10, 1_000_000),
    "upload_mb": (1, 10_000),
    "upload_seconds": (0.1, 3600),
    "upload_side": (16, 16_384),
    "upload_work_seconds": (1, 3600),
    "upload_memory_mb": (128, 1_000_000),
    "idle_minutes": (0, 525_600),
    "memory_margin_mb": (0, 1_000_000),
}
FORMS = {  # of every text: a pattern, and the same in words
    "device": (r"auto|cuda|(cpu|cuda:\d+)(,(cpu|cuda:\d+))*", "auto, cpu, cuda, cuda:0, or several: cuda:0,cuda:1"),
    "ray": (r"(auto|[\w.-]+:\d+)?", "auto, or a cluster's address with its port: 192.0.2.1:6379"),
    "model": (r".+", "the name of a model"),
    "original": (r"([\w.-]+/[\w.-]+)?", "owner/name of a Space"),
    "admitted": (r"(?s).*\S.*", "Hub names with commas between; remove the variable if everybody may come"),
    "password": (r"(?s).*\S.*", "a password; remove the variable if there is to be none"),
}


def _home() -> Path:
    """The home folder, or the current one where the user has none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path()


@dataclass(frozen=True)
class Settings:
    """What the person who runs the app decides. Every field F is read from the variable MARIONETTE_F."""

    data: Path = Path("data")  # finished videos live here, and nothing else is written outside the caches
    cache: Path = _home() / ".cache" / "marionette"  # converted weights
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", …; several with commas between: a process works on each
    ray: str = ""  # "auto" or the address of a Ray cluster, on whose machines the work is done instead
    model: str = "miniature-modelscope"  # the text-to-video model that the page opens with
    hub: bool = True  # whether weights may be fetched from the Hugging Face Hub when a model needs them
    queue: int = 200  # jobs that may wait
    queue_each: int = 16  # of one visitor; as many as the largest grid has
    keep_days: float = 30.0  # what is older than this is deleted: videos, clips, images, tuned models
    keep_gb: float = 10.0  # the oldest of these and of temporary files go when all together are larger
    disk_margin_mb: int = 500  # no work begins with less free space on the data folder's disk
    upload_mb: int = 200  # a larger clip is refused
    upload_seconds: float = 60.0  # what is read of a clip; it may be longer
    upload_side: int = 4096  # pixels; a clip with a longer side is refused
    upload_work_seconds: float = 120.0  # a clip that takes longer to read once is given up
    upload_memory_mb: int = 2048  # of the process that reads a clip; 4096 x 4096 pixels take up to 1200
    idle_minutes: float = 15.0  # a model unused for this long leaves the memory
    mcp: bool = False  # whether agents may have the endpoints as tools
    original: str = ""  # "owner/name" of the Space that others are copies of: there the limits of a shared machine hold
    password: str = field(default="", repr=False)  # asked of everybody who opens the page
    admitted: str = ""  # Hub names with commas between, or "owner": who may use a Space, once they have signed in
    origins: str = ""  # addresses of other sites, with commas between, whose pages may use the app
    trusted_proxies: str = ""  # addresses or networks of proxies, with commas between, whose X-Forwarded headers count
    monitoring: bool = False  # whether /monitoring tells how often which action was called
    metrics: bool = False  # whether /metrics tells Prometheus how many jobs wait, fail, and how long they take
    zerogpu: str = "modelscope-1.7b,stable-diffusion-1.4,followyourpose-v1"  # loaded at the start of a ZeroGPU Space
    memory_margin_mb: int = 600  # device memory that the manager never plans with

    @property
    def shown(self) -> Path:
        """The only folder whose files a browser may load."""
        return self.data / "public" / "shown"

    @property
    def uploads(self) -> Path:
        """Where gradio keeps what browsers upload."""
        return self.data / "public" / "uploads"

    @property
    def texts(self) -> Path:
        """Where what a large text encoder has read is kept."""
        return self.data / "texts"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Reads MARIONETTE_* from `environment`. Raises ValueError naming the variable that has no possible value."""
        values = {}
        for one in fields(cls):
            name = f"MARIONETTE_{one.name.upper()}"
            if name in environment:
                try:
                    values[one.name] = _READERS[one.type](environment[name])
                except ValueError as error:
                    kind = getattr(one.type, "__name__", one.type)
                    raise ValueError(f"{name}={environment[name]!r} can't be read as {kind}.") from error
                _check(one.name, name, values[one.name])
        settings = cls(**values)
        return replace(settings, **SHARED | values) if settings.is_original(environment) else settings

    def is_original(self, environment: Mapping[str, str]) -> bool:
        """Whether this is the Space that others are copies of."""
        return bool(self.original) and environment.get("SPACE_ID") == self.original


def _check(field_name: str, variable: str, value: Any) -> None:
    """Raises ValueError naming the `variable` where `value` is out of range; never tells a password."""
    if field_name in RANGES:
        low, high = RANGES[field_name]
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{variable}={value} is out of range: give a number from {low:,} to {high:,}.")
    elif field_name in FORMS:
        pattern, words = FORMS[field_name]
        if not re.fullmatch(pattern, value):
            told = "" if field_name == "password" else f"={value!r}"
            raise ValueError(f"{variable}{told} can't be used: give {words}.")


def _path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise ValueError(text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # "~" of a user who has no home
        raise ValueError(text) from error


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


_READERS = {Path: _path, str: str, bool: _boolean, int: int, float: float}
