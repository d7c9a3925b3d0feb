"""What the app knows of a model: its card, and what stands on it. Standard library only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.messages import said
from pipelines.windows import latent_frames, windows


@dataclass(frozen=True)
class Source:
    """Where weights come from: a Hub repository (with a pinned revision) or a folder on this machine."""

    location: str  # "owner/name" on the Hub, or a folder
    revision: str | None = None
    variant: str | None = None  # "fp16" where the repository has such files
    base: "Source | None" = None  # where the parts are that this source itself lacks
    parts: tuple[str, ...] = ("tokenizer", "scheduler", "text_encoder", "unet", "vae")  # of the model, a folder each

    @property
    def own_parts(self) -> tuple[str, ...]:
        """The parts that are at `location`: with a `base` only the network that was tuned."""
        return ("unet",) if self.base else self.parts

    @property
    def is_folder(self) -> bool:
        return Path(self.location).is_absolute()


@dataclass(frozen=True)
class Range:
    """The numbers low, low + step, low + 2 step, … up to high; for `step` 0 all real numbers from low to high.

    Range(1, 129, 4) holds 1, 5, 9, …, 129.
    """

    low: float
    high: float
    step: float = 1

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and (self.step == 0 or (value - self.low) % self.step == 0)

    def numbers(self, most: float) -> range:
        """Those that are not above `most`, of whole ones."""
        return range(int(self.low), int(min(most, self.high)) + 1, int(self.step))


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
    frames: Range  # of a video; where a VAE compresses time, in its steps: Range(1, 129, 4)
    side: Range  # width and height, each, in pixels
    steps: Range = Range(1, 100)
    guidance: Range = Range(0, 30, 0)
    fps: Range = Range(1, 30)
    voxels: int = 0  # frames x width x height at most, of what the network sees at once
    once: int = 0  # frames that can be made at once, where a video may have more; 0 where it may not
    window: int = 0  # frames of each part in which such a longer video is made (windows.py)

    def at_once(self, width: int, height: int) -> int:
        """The most frames that the network can see at once in that size, 0 if none."""
        most = min(self.once or self.frames.high, self.voxels // (width * height))
        return max(self.frames.numbers(most), default=0)

    def window_of(self, frames: int, width: int, height: int) -> int:
        """The frames of each window in which such a video is made; 0 where it is made at once."""
        most = self.at_once(width, height)
        return min(self.window, most) if self.once and frames > most else 0

    def windows_of(self, frames: int, width: int, height: int) -> list[range]:
        """The windows in which such a video is made, of frames of latents; one where it is made at once."""
        length, step = self.window_of(frames, width, height), int(self.frames.step)
        return windows(latent_frames(frames, step), latent_frames(length, step))


@dataclass(frozen=True)
class TuningDefaults:
    """How the makers of a method tune on a clip."""

    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Body:
    """How long the bones of a character are, in its own heights, as they are seen when they lie in the picture."""

    shoulder: float  # from the neck
    upper_arm: float
    forearm: float
    torso: float  # from the neck to a hip
    thigh: float
    shin: float
    head: float  # from the neck to the nose
    eye: float  # from the nose
    ear: float  # from the eye
    ankle: float  # above the ground


@dataclass(frozen=True)
class Lora:
    """Low-rank changes to a model's network, after which a few steps make a video."""

    title: str
    source: Source
    file: str  # of the source: a path in it
    licence: str
    needs: str
    steps: int = 4
    guidance: float = 1.0
    scheduler: str = "lcm"
    timestep_scaling: float = 10.0  # of the sampler (diffusion.LCM)


@dataclass(frozen=True)
class ModelCard:
    """One model as the page, the command line and the loaders need it."""

    name: str
    title: str
    system: str  # the engine that runs it: a key of ENGINES
    source: Source
    defaults: Defaults
    limits: Limits
    summary: str
    licence: str
    shortcomings: str
    not_for: str
    needs: str
    kind: str = "text-to-video"  # what it is for; or "pose-to-video", or "edit"
    vocabulary: Mapping[str, tuple[str, ...]] | None = None  # all the words it knows, if they can be listed
    takes: frozenset[str] = frozenset()  # keys of CAPABILITIES: what the form shows beside what all models take
    max_tokens: int = 77  # of a prompt, special tokens included; what is longer is cut
    schedulers: tuple[str, ...] = ("dpm++", "ddim", "unipc")
    tuning: TuningDefaults | None = None  # where it can be tuned on a clip
    flops: float = 0.0  # of one call of its network, for each pixel of each frame; 0 where that was not counted
    flow_shift: float = 0.0  # of a model by flow matching: how far its noise levels are moved; 0 as its files say
    image_model: Source | None = None  # where it takes a first image: the Stable Diffusion that else draws one
    skeletons: str = "coco"  # the drawing that it follows: one of skeleton.KINDS
    dancers: int = 0  # that it can draw at once; 0 for any number
    bodies: Mapping[str, Body] | None = None  # of each character it knows, the usual one first; None for any body
    tuned_from: str = ""  # where it can take on what another model was tuned to: the name of that model
    loras: Mapping[str, Lora] = field(default_factory=dict)  # that make it faster: one of them, or none

    @property
    def redraws(self) -> bool:
        """Whether of a clip it draws a part anew, which a mask says, and not the whole."""
        return {"clip", "mask"} <= self.takes and "clip_strength" not in self.takes

    def with_lora(self, name: object) -> "ModelCard":
        """The card with the defaults and samplers that the LoRA `name` wants; itself for "". Raises ValueError listing
        the LoRAs there are."""
        if name == "":
            return self
        if not isinstance(name, str) or name not in self.loras:
            choice = said("Leave it out, or take another model.")
            if self.loras:
                choice = said("Choose one of: {names}.", names=", ".join(self.loras))
            raise ValueError(
                said(
                    "{title} has no LoRA called {name}. {choice}",
                    title=said(self.title),
                    name=repr(str(name)[:40]),
                    choice=choice,
                )
            )
        lora = self.loras[name]
        defaults = replace(self.defaults, steps=lora.steps, guidance=lora.guidance, scheduler=lora.scheduler)
        return replace(self, defaults=defaults, schedulers=(lora.scheduler,))

    def body_of(self, prompt: str) -> tuple[str, Body] | None:
        """The character that `prompt` names, or else the usual one, and its body; None where the model has none."""
        if not self.bodies:
            return None
        words = re.findall(r"\w+", prompt.lower())
        name = next((word for word in words if word in self.bodies), next(iter(self.bodies)))
        return name, self.bodies[name]
