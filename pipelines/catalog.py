"""The catalog: one table of every model the app offers. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MINIATURES = Path(__file__).resolve().parent.parent / "assets" / "miniature"


@dataclass(frozen=True)
class Source:
    """Where weights come from: a Hub repository (with a pinned revision) or a folder on this machine."""

    location: str  # "owner/name" on the Hub, or a folder
    revision: str | None = None
    variant: str | None = None  # "fp16" where the repository has such files

    @property
    def is_folder(self) -> bool:
        return Path(self.location).is_absolute()


@dataclass(frozen=True)
class Range:
    """The whole numbers, or for `step` 0 the real numbers, from `low` to `high`."""

    low: float
    high: float
    step: float = 1


@dataclass(frozen=True)
class Defaults:
    """The settings a model's makers recommend; the page fills them in when the model is chosen."""

    frames: int
    width: int
    height: int
    fps: int
    steps: int
    guidance: float
    scheduler: str
    negative_prompt: str = ""


@dataclass(frozen=True)
class Limits:
    frames: Range
    side: Range  # width and height, each, in pixels
    steps: Range = Range(1, 100)
    guidance: Range = Range(0, 30, 0)
    fps: Range = Range(1, 30)
    voxels: int = 0  # frames x width x height at most


SCHEDULERS = {  # name in a task -> what a person reads
    "dpm++": "DPM-Solver++ 2M",
    "ddim": "DDIM",
    "unipc": "UniPC",
}


@dataclass(frozen=True)
class ModelCard:
    """One model as the page, the command line and the loaders need it."""

    name: str
    title: str
    system: str  # the module of `pipelines` that runs it
    source: Source
    defaults: Defaults
    limits: Limits
    summary: str
    licence: str
    shortcomings: str
    not_for: str
    needs: str
    vocabulary: Mapping[str, tuple[str, ...]] | None = None  # all the words it knows, if they can be listed


_THEATRE = {
    "characters": ("person", "robot", "bear", "astronaut"),
    "colours": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "places": ("beach", "forest", "city", "snow", "desert", "moon"),
    "actions": ("dancing", "waving", "walking", "jumping", "bowing", "kicking"),
}

_NOT_FOR = (
    "Not for true-to-life pictures of real people or events, nor for anything demeaning, hateful, violent, "
    "pornographic or misleading. Made for research."
)

CATALOG: Mapping[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            name="miniature-modelscope",
            title="Paper theatre (built in)",
            system="modelscope",
            source=Source(str(MINIATURES / "modelscope")),
            defaults=Defaults(frames=16, width=128, height=128, fps=8, steps=25, guidance=2.5, scheduler="dpm++"),
            limits=Limits(frames=Range(8, 24), side=Range(128, 128, 8), voxels=24 * 128 * 128),
            summary="A small ModelScope network, trained on drawn paper dancers. Runs anywhere, within seconds.",
            licence="MIT, like this app",
            shortcomings="It knows a few dozen words; other words are accepted and guessed at.",
            not_for="Anything that should look real: it draws paper dolls.",
            needs="Any computer; no GPU, no download.",
            vocabulary=_THEATRE,
        ),
        ModelCard(
            name="modelscope-1.7b",
            title="ModelScope text-to-video 1.7B",
            system="modelscope",
            source=Source(
                "ali-vilab/text-to-video-ms-1.7b", revision="8227dddca75a8561bf858d604cc5dae52b954d01", variant="fp16"
            ),
            defaults=Defaults(frames=16, width=256, height=256, fps=8, steps=25, guidance=9.0, scheduler="dpm++"),
            limits=Limits(frames=Range(1, 64), side=Range(128, 768, 8), voxels=24 * 576 * 320),
            summary="Alibaba's text-to-video diffusion model of 2023, as published.",
            licence="CC BY-NC 4.0: not for commercial use",
            shortcomings="English only. Can't write text. Often shows the watermark of its training clips. "
            "Past about 24 frames pictures fall apart.",
            not_for=_NOT_FOR,
            needs="A GPU with 6 GB of memory or more, and a download of 3.7 GB.",
        ),
        ModelCard(
            name="zeroscope-v2-576w",
            title="Zeroscope v2 576w",
            system="modelscope",
            source=Source("cerspense/zeroscope_v2_576w", revision="6963642a64dbefa93663d1ecebb4ceda2d9ecb28"),
            defaults=Defaults(frames=24, width=576, height=320, fps=8, steps=30, guidance=9.0, scheduler="dpm++"),
            limits=Limits(frames=Range(1, 64), side=Range(128, 1024, 8), voxels=36 * 576 * 320),
            summary="ModelScope's network, trained further on wide clips without watermarks.",
            licence="CC BY-NC 4.0: not for commercial use",
            shortcomings="English only. Made for 24 frames at 576x320; worse at smaller sizes and fewer frames.",
            not_for=_NOT_FOR,
            needs="A GPU with 8 GB of memory or more, and a download of 3.7 GB.",
        ),
    )
}

# What CLIP score and frame consistency ask for (metrics.py). It makes no video, so it has no card, and it is used only
# where it is at hand: its 1.7 GB are never downloaded unasked.
CLIP = Source("openai/clip-vit-large-patch14", revision="32bd64288804d66eefd0ccbe215aa642df71cc41")


def find(name: object, catalog: Mapping[str, ModelCard] = CATALOG) -> ModelCard:
    """The card of the model `name`. Raises ValueError listing the names there are."""
    if isinstance(name, str) and name in catalog:
        return catalog[name]
    raise ValueError(f"There is no model called {str(name)[:80]!r}. Choose one of: {', '.join(catalog)}.")
