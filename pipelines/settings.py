"""Settings: read once from the environment (MARIONETTE_*), then passed around. Standard library only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

# Instead of the defaults on the original Space, where strangers share a machine. They are no variables of that Space:
# whoever duplicates it would have them too.
SHARED = {"queue_each": 4, "keep_days": 1.0, "upload_mb": 50, "upload_seconds": 20.0}


@dataclass(frozen=True)
class Settings:
    """What the person who runs the app decides. Every field F is read from the variable MARIONETTE_F."""

    data: Path = Path("data")  # finished videos live here, and nothing else is written outside the caches
    cache: Path = Path.home() / ".cache" / "marionette"  # converted weights
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", …
    model: str = "miniature-modelscope"  # the text-to-video model that the page opens with
    hub: bool = True  # whether weights may be fetched from the Hugging Face Hub when a model needs them
    queue: int = 200  # jobs that may wait
    queue_each: int = 16  # of one visitor; as many as the largest grid has
    keep_days: float = 30.0  # a video older than this is deleted
    keep_gb: float = 10.0  # the oldest videos are deleted when all together are larger
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
    zerogpu: str = "modelscope-1.7b,stable-diffusion-1.4,followyourpose-v1"  # loaded at the start of a ZeroGPU Space
    memory_margin_mb: int = 600  # device memory that the manager never plans with

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Reads MARIONETTE_* from `environment`. Raises ValueError naming the variable that can't be read."""
        values = {}
        for one in fields(cls):
            name = f"MARIONETTE_{one.name.upper()}"
            if name in environment:
                try:
                    values[one.name] = _READERS[one.type](environment[name])
                except ValueError as error:
                    raise ValueError(f"{name}={environment[name]!r} can't be read as {one.type.__name__}.") from error
        settings = cls(**values)
        return replace(settings, **SHARED | values) if settings.is_original(environment) else settings

    def is_original(self, environment: Mapping[str, str]) -> bool:
        """Whether this is the Space that others are copies of."""
        return bool(self.original) and environment.get("SPACE_ID") == self.original


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


_READERS = {Path: lambda text: Path(text).expanduser(), str: str, bool: _boolean, int: int, float: float}
