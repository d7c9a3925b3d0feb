"""What a person asks for: frozen, validated, and ready for JSON. Standard library only.

Every setting is declared beside the field that holds it (task_settings.py).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pipelines.cards import ModelCard, Range
from pipelines.catalog import CATALOG, SCHEDULERS, find, motions, offered
from pipelines.detectors import DETECTORS
from pipelines.messages import said
from pipelines.task_settings import (
    Choice,
    Kept,
    Number,
    OneOf,
    Text,
    Truth,
    checked,
    declared,
    is_name,
    recalled,
    settings_of,
    taskclass,
)

MAX_SEED = 2**32 - 1
TRAINED = {  # what tuning changes -> what a person reads
    "all": "Attention queries and temporal attention, as in the paper",
    "mid and up": "The same, but only in the second half of the network, as the published code does",
}
SHOWN = {  # what a clip with poses is -> what a person reads
    "auto": "Detect it",
    "clip": "People",
    "skeleton": "Skeletons, drawn on black",
}
SMOOTHING = {"none": 0.0, "light": 0.05, "strong": 0.12}  # seconds: the standard deviation of a Gaussian in time
SMOOTHED = {"none": "Off", "light": "Light", "strong": "Strong"}  # what a person reads
PRECISIONS = {  # what the network computes in -> what a person reads
    "exact": "Exact",
    "fast": "Fast, where this machine is quicker with it",
}
CELLS = 16  # videos in a grid, at most
TIMES = (1, 2, 4)  # how many times as large, and as many frames, a video can be finished
FINISHED_SIDE, FINISHED_FRAMES, FINISHED_FPS = 2048, 256, 120  # at most
PLACEMENTS = {  # how skeletons are laid on the canvas -> what a person reads
    "fit": "Show the whole picture",
    "fill": "Make the skeletons as large as possible",
    "crop": "Crop the centre, as FollowYourPose does",
}

NAMED = ("clip", "image", "mask", "tuned", "source", "jobs")  # settings that name what the app keeps
NOBODY = "0" * 32  # a name that nothing has

SIDES = ("left", "right", "top", "bottom")
_SECONDS = Range(0, 86_400, 0)
_SHARE = Range(0, 1, 0)
_NO_CLIP = said("There is no clip. Upload one first.")
_NO_POSES = said("There are no poses to follow. Upload a clip, or choose one of the motions, but not both.")

# Settings that several kinds of task have -----------------------------------------------------------------------------

PROMPT = Text(
    label="Prompt",
    help="What the video should show, in English.",
    noun="prompt",
    empty=said("The prompt is empty. Say what the video should show."),
)
NEGATIVE_PROMPT = Text(
    label="Leave out",
    help="What the video should not show.",
    noun="negative prompt",
    default=lambda card: card.defaults.negative_prompt,
    flag="--negative",
)
FRAMES = Number(
    label="Frames",
    help="More frames make a longer video and take longer.",
    noun="number of frames",
    default=lambda card: card.defaults.frames,
    within=lambda card: card.limits.frames,
)
WIDTH, HEIGHT = (
    Number(
        label=side.title(),
        help="In pixels.",
        noun=side,
        unit="px",
        typed=True,
        default=lambda card, side=side: getattr(card.defaults, side),
        within=lambda card: card.limits.side,
    )
    for side in ("width", "height")
)
FPS = Number(
    label="Frames a second",
    help="How fast the video plays.",
    noun="frame rate",
    default=lambda card: card.defaults.fps,
    within=lambda card: card.limits.fps,
)
STEPS = Number(
    label="Steps",
    help="More denoising steps take longer and look cleaner.",
    noun="number of steps",
    default=lambda card: card.defaults.steps,
    within=lambda card: card.limits.steps,
)
GUIDANCE = Number(
    label="Guidance",
    help="How closely the video follows your words; 1 or less turns guidance off.",
    noun="guidance",
    default=lambda card: card.defaults.guidance,
    within=lambda card: card.limits.guidance,
    by=0.5,
)
SCHEDULER = Choice(
    label="Sampler",
    help="How noise becomes a picture, step by step.",
    noun="scheduler",
    default=lambda card: card.defaults.scheduler,
    choices=SCHEDULERS,
    offered=lambda card: card.schedulers,
)
SEED = Number(
    label="Seed",
    help="The same seed and settings make the same video.",
    noun="seed",
    default=None,
    within=Range(0, MAX_SEED),
    typed=True,
)
# What saves time and changes the video; all of it is off by default.
LORA = Choice(
    label="Speed",
    help="A LoRA trained for few steps. The first video downloads it.",
    noun="LoRA",
    default="",
    nothing="As published",
    choices={name: lora.title for card in CATALOG.values() for name, lora in card.loras.items()},
    offered=lambda card: tuple(card.loras),
    needs="LoRA",
    taken=lambda card: bool(card.loras),
)
PRECISION = Choice(
    label="Precision",
    help="Fast computes the network in bfloat16.",
    noun="precision",
    default="exact",
    choices=PRECISIONS,
    needs="other precision",
    taken=lambda card: "precision" in card.takes,
)
CACHING = Number(
    label="Steps that share deep features",
    help="1 computes them in every step, 2 in every second.",
    noun="number of steps that share deep features",
    default=1,
    within=Range(1, 10),
    needs="cached features",
    taken=lambda card: "caching" in card.takes,
)
GUIDED_FROM, GUIDED_UNTIL = (
    Number(
        label=f"Guidance {verb}",
        help="0 is pure noise, 1 the finished video.",
        noun=f"place at which guidance {verb}",
        default=default,
        within=_SHARE,
        by=0.05,
        needs="interval of guidance",
        taken=lambda card: "guided_from" in card.takes,
    )
    for verb, default in (("begins", 0.0), ("ends", 1.0))
)
START = Number(
    label="From",
    help="Where the part of the clip that is used begins, in seconds.",
    noun="start",
    unit="s",
    default=0.0,
    within=_SECONDS,
)
END = Number(
    label="To",
    help="Where that part ends, in seconds.",
    noun="end",
    unit="s",
    default=None,
    optional=True,
    within=_SECONDS,
)
STRIDE = Number(
    label="Every n-th frame",
    help="Larger steps cover more of the clip in as many frames.",
    noun="stride",
    default=1,
    within=Range(1, 1000),
)
SOUND = Truth(
    label="Keep the clip's sound",
    help="The video gets the sound of the clip.",
    noun="the sound is kept",
    default=False,
    needs="sound",
    taken=lambda card: "sound" in card.takes,
)
DETECTOR = Choice(
    label="Detector",
    help="Finds people in the clip, and in the result to measure it.",
    noun="detector",
    default=next(iter(DETECTORS)),
    choices={name: detector.title for name, detector in DETECTORS.items()},
)
TUNED = Kept(
    label="Tuned model",
    help="Who is in the clip that it was tuned on then dances.",
    noun="tuned model",
    missing=said("There is no such tuned model. Tune on a clip first, then choose it."),
    needs="tuned model",
    taken=lambda card: bool(card.tuned_from or card.tuning),
)


class _OfModel:
    """A task that a model carries out."""

    FOR: ClassVar[str]  # the kind of its models: see catalog.offered

    if TYPE_CHECKING:  # every such task is a dataclass that holds the name of its model
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

        def __init__(self, *, model: str, **settings: Any): ...

    @classmethod
    def for_model(cls, card: ModelCard, /, prompt: object, seed: object, **settings: object) -> Self:
        """A task for `card`; what is not in `settings` has its declared default, often the one of the model's makers.

        Raises ValueError, in words for the person who asked, where a value is of the wrong type, not finite or out
        of the model's limits.
        """
        if card.kind != cls.FOR:
            raise ValueError(
                said(
                    "{title} is not made for this. Choose one of: {names}.",
                    title=card.title,
                    names=", ".join(offered(cls.FOR)),
                )
            )
        card = card.with_lora(settings.get("lora", ""))
        values = checked(cls, card, {"prompt": prompt, "seed": seed, **settings})
        cls._check(card, values)
        _check_voxels(card, values["frames"], values["width"], values["height"])
        return cls(model=card.name, **values)

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        """Raises ValueError for settings that do not go together, and settles those that follow from others."""

    def checked(self, catalog: Mapping[str, ModelCard] = CATALOG) -> Self:
        """The same task, validated once more against `catalog`. Raises ValueError as `for_model` does."""
        values = asdict(self)
        return self.for_model(find(values.pop("model"), catalog), **values)


def _check_part(values: Mapping) -> None:
    """Raises ValueError where the part of a clip ends before it starts."""
    if values["end"] is not None and values["end"] <= values["start"]:
        raise ValueError(said("The end of the part that is used must come after its start."))


def _check_voxels(card: ModelCard, frames: int, width: int, height: int) -> None:
    if frames * width * height > card.limits.voxels:
        possible = card.limits.frames.numbers(card.limits.voxels // (width * height))
        advice = said("Choose a smaller size.")
        if possible:
            advice = said("At this size it makes {count} frames at most.", count=possible[-1])
        raise ValueError(
            said(
                "{frames} frames of {width}x{height} are more than {title} can make. {advice}",
                frames=frames,
                width=width,
                height=height,
                title=card.title,
                advice=advice,
            )
        )


@taskclass
class _Sampled(_OfModel):
    """A video that is sampled from noise, or from something like it."""

    prompt: str = declared(PROMPT)
    model: str
    negative_prompt: str = declared(NEGATIVE_PROMPT)
    frames: int = declared(FRAMES)
    width: int = declared(WIDTH)  # pixels
    height: int = declared(HEIGHT)  # pixels
    fps: float = declared(FPS)
    steps: int = declared(STEPS)
    guidance: float = declared(GUIDANCE)  # classifier-free guidance scale; 1 or less turns guidance off
    scheduler: str = declared(SCHEDULER)  # a key of catalog.SCHEDULERS
    seed: int = declared(SEED)
    lora: str = declared(LORA)  # a key of the card's loras; "" for none
    precision: str = declared(PRECISION)  # a key of PRECISIONS
    caching: int = declared(CACHING)  # deep features are computed in every so many steps
    guided_from: float = declared(GUIDED_FROM)  # guidance counts from here, as a share of the way to the video,
    guided_until: float = declared(GUIDED_UNTIL)  # to here

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        if values["guided_from"] >= values["guided_until"]:
            raise ValueError(said("Guidance must begin before it ends. A guidance of 1 turns it off altogether."))

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def effort(self) -> tuple:
        """What decides how long it takes: jobs with the same are equally long."""
        shape = (self.frames, self.width, self.height, self.steps, self.guidance > 1)
        return (type(self).__name__, self.model, *shape, *(getattr(self, name) for name in SHORTCUTS))


# Settings that save time and change the video -> off.
SHORTCUTS: dict[str, object] = {
    name: settings_of(_Sampled)[name].default
    for name in ("lora", "precision", "caching", "guided_from", "guided_until")
}


@taskclass
class TextToVideo(_Sampled):
    """A prompt to be made a video of. Made by `for_model`, it holds only values that its model can do."""

    FOR = "text-to-video"
    # The first image, for a model that takes one: the name under which the app keeps it; see images.py.
    image: str = declared(
        Kept(
            label="First image",
            help="What the video begins with.",
            noun="first image",
            missing=said("There is no such image. Upload it first."),
            needs="first image",
            taken=lambda card: "image" in card.takes,
        )
    )
    mask: str = declared(  # likewise
        Kept(
            label="Mask",
            help="White where the first image is not to be followed.",
            noun="mask",
            missing=said("There is no such image. Upload it first."),
            needs="first image with a mask",
            taken=lambda card: "mask" in card.takes,
        )
    )
    image_guidance: float | None = declared(  # by default that of the video
        Number(
            label="Guidance of the first image",
            help="Guidance for the first image, where the model draws it.",
            noun="guidance of the first image",
            default=None,
            optional=True,
            within=lambda card: card.limits.guidance,
            by=0.5,
            needs="first image, so no guidance of one",
            taken=lambda card: card.image_model is not None,
        )
    )

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        super()._check(card, values)
        if values["mask"] and not values["image"]:
            raise ValueError(
                said("A mask needs the first image that it belongs to. Upload that too, or leave out the mask.")
            )
        if card.image_model is not None and values["image_guidance"] is None:
            values["image_guidance"] = values["guidance"]

    @property
    def effort(self) -> tuple:
        """Less where the first image need not be drawn."""
        return (*super().effort, bool(self.image))


@taskclass
class Tune(_OfModel):
    """A clip to be tuned on (Tune-A-Video), `prompt` being what it shows."""

    FOR = "edit"
    prompt: str = declared(
        Text(
            label="Caption",
            help="What the clip shows: who, wearing what, doing what, where.",
            noun="caption",
            empty=said("The caption is empty. Say what the clip shows: who, wearing what, doing what, where."),
        )
    )
    model: str  # the Stable Diffusion that it starts from
    clip: str = declared(  # the name under which the app keeps it; see clips.py
        Kept(label="Clip", help="The clip to tune on.", noun="clip", missing=_NO_CLIP, required=True)
    )
    start: float = declared(START)  # seconds
    end: float | None = declared(END)  # seconds; None for the end of the clip
    stride: int = declared(STRIDE)
    frames: int = declared(replace(FRAMES, label="Frames, at most", help="Every edit has this many. More take longer."))
    across: float = declared(
        Number(
            label="Crop position, across",
            help="0 keeps the left side, 1 the right.",
            noun="place across",
            default=0.5,
            within=_SHARE,
            by=0.01,
        )
    )
    down: float = declared(
        Number(
            label="Crop position, down",
            help="0 keeps the top, 1 the bottom.",
            noun="place down",
            default=0.5,
            within=_SHARE,
            by=0.01,
        )
    )
    width: int = declared(WIDTH)  # pixels
    height: int = declared(HEIGHT)  # pixels
    steps: int = declared(
        replace(
            STEPS,
            help="More tuning steps keep closer to the clip.",
            default=lambda card: card.tuning.steps,
            within=Range(1, 2000),
        )
    )
    learning_rate: float = declared(
        Number(
            label="Learning rate",
            help="0.000001 to 0.01. Too much spoils the frames.",
            noun="learning rate",
            default=lambda card: card.tuning.learning_rate,
            within=Range(1e-6, 1e-2, 0),
        )
    )
    trained: str = declared(
        Choice(
            label="What is trained",
            help="Training more of the network keeps closer to the clip's motion.",
            noun="part that is trained",
            default="all",
            choices=TRAINED,
        )
    )
    seed: int = declared(replace(SEED, help="The same seed and settings tune in the same way.", default=33))

    @classmethod
    def for_model(cls, card: ModelCard, /, prompt: object, seed: object, **settings: object) -> Self:
        """As `_OfModel.for_model`."""
        if card.kind == cls.FOR and card.tuning is None:
            raise ValueError(
                said("{title} is tuned already. Choose the model that it was made from.", title=card.title)
            )
        return super().for_model(card, prompt, seed, **settings)

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        _check_part(values)

    @property
    def effort(self) -> tuple:
        """As that of a video."""
        return (type(self).__name__, self.model, self.frames, self.width, self.height, self.steps, self.trained)


@taskclass
class Edit(_Sampled):
    """A tuned clip to be edited, `prompt` being what it is to show now."""

    FOR = "edit"
    frames: int = declared(replace(FRAMES, asked=False))  # as many, as large and as fast as what was tuned on
    width: int = declared(replace(WIDTH, asked=False))
    height: int = declared(replace(HEIGHT, asked=False))
    fps: float = declared(replace(FPS, asked=False))
    seed: int = declared(replace(SEED, help="Used only where the strength is above 0.", default=0))
    tuned: str = declared(TUNED)  # the job that tuned on the clip; "" where the model is published as tuned already
    strength: float = declared(  # 0 starts from the clip's own inverted latents, 1 from plain noise
        Number(
            label="Strength",
            help="0 keeps the clip's motion and layout, 1 starts from noise.",
            noun="strength",
            default=0.0,
            within=_SHARE,
            by=0.05,
            needs="strength",
            taken=lambda card: "strength" in card.takes,
        )
    )
    sound: bool = declared(SOUND)

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        super()._check(card, values)
        if bool(values["tuned"]) != bool(card.tuning):
            raise ValueError(TUNED.missing)

    @property
    def told_by(self) -> str:
        """What edits the clip: the job that tuned, or the model that is published as tuned."""
        return self.tuned or self.model


def _cut(side: str) -> Number:
    return Number(
        label=f"Cut off {'at the ' if side in ('top', 'bottom') else ''}{side}",
        help="As a share of the width or height.",
        noun=f"crop at the {side}",
        default=0.0,
        within=Range(0, 0.9, 0),
        by=0.01,
    )


@taskclass
class PoseToVideo(_Sampled):
    """A prompt to be made a video whose dancer follows the poses of a clip or of a built-in motion (FollowYourPose).

    `frames` are made at most: fewer where the clip has fewer.
    """

    FOR = "pose-to-video"
    clip: str = declared(  # the name under which the app keeps the clip, skeleton video or keypoints; or a motion
        Kept(label="Clip", help="A clip of people or skeletons.", noun="clip", missing=_NO_POSES)
    )
    motion: str = declared(
        Choice(
            label="Motion",
            help="A built-in motion, in place of a clip.",
            noun="motion",
            choices={name: name for name in motions()},
        )
    )
    shown: str = declared(
        Choice(
            label="What the clip shows",
            help="Whether people are looked for in it, or skeletons are read from it.",
            noun="kind of clip",
            default="auto",
            choices=SHOWN,
        )
    )
    detector: str = declared(DETECTOR)
    start: float = declared(START)  # seconds, of the clip or the motion
    end: float | None = declared(END)  # seconds; None for the end of the clip
    stride: int = declared(STRIDE)
    person: int | None = declared(
        Number(
            label="Who is followed",
            help="0 is the person most in view, 1 the next; by default all that the model can draw.",
            noun="number of the person",
            default=None,
            optional=True,
            within=Range(0, 999),
        )
    )
    gaps: bool = declared(
        Truth(
            label="Fill short gaps",
            help="A limb that is missed in a few frames stays on the dancer.",
            noun="gaps are filled",
            default=True,
            flag="--keep-gaps",
        )
    )
    smoothing: str = declared(
        Choice(
            label="Smoothing",
            help="Calms shaky limbs; too much dulls quick moves.",
            noun="smoothing",
            default="light",
            choices=SMOOTHED,
        )
    )
    placing: str = declared(
        Choice(
            label="Placement",
            help="How large the dancer is, and whether limbs may be cut off.",
            noun="placement",
            default="fit",
            choices=PLACEMENTS,
        )
    )
    retarget: bool = declared(  # False, too, for a model whose characters have no bodies of their own
        Truth(
            label="The character's own proportions",
            help="A bear keeps its short legs. Only for models with characters of their own.",
            noun="the character keeps its own proportions",
            default=True,
            flag="--clip-proportions",
        )
    )
    strength: float = declared(  # of the poses
        Number(
            label="Pose strength",
            help="How closely the skeletons are followed. 1 is as published, 0 ignores them.",
            noun="pose strength",
            default=1.0,
            within=Range(0, 1.5, 0),
            by=0.05,
            needs="strength",
            taken=lambda card: "strength" in card.takes,
        )
    )
    left: float = declared(_cut("left"))
    right: float = declared(_cut("right"))
    top: float = declared(_cut("top"))
    bottom: float = declared(_cut("bottom"))
    sound: bool = declared(SOUND)
    tuned: str = declared(TUNED)  # the job that tuned on a clip whose dancer is to dance; "" for anybody

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        super()._check(card, values)
        if bool(values["clip"]) == bool(values["motion"]):
            raise ValueError(_NO_POSES)
        _check_part(values)
        if max(values["left"] + values["right"], values["top"] + values["bottom"]) > 0.9:
            raise ValueError(said("The crop leaves less than a tenth of the picture. Cut off less."))
        values["retarget"] = values["retarget"] and bool(card.bodies)


@taskclass
class FindPoses:
    """A clip whose people are to be found, without anything being generated."""

    clip: str = declared(  # the name under which the app keeps it
        Kept(label="Clip", help="A clip of people or drawn figures.", noun="clip", missing=_NO_CLIP, required=True)
    )
    detector: str = declared(DETECTOR)
    start: float = declared(START)  # seconds
    end: float | None = declared(END)  # seconds; None for the end of the clip
    stride: int = declared(STRIDE)

    @classmethod
    def of(cls, **settings: object) -> "FindPoses":
        """Raises ValueError as TextToVideo.for_model does."""
        values = checked(cls, None, settings)
        _check_part(values)
        return cls(**values)


class _OfVideo:
    """A task that makes a video of others: what is asked of it is asked of the one that it is `of`."""

    of: Any

    @property
    def model(self) -> str:
        return self.of.model

    @property
    def seed(self) -> int:
        return self.of.seed

    @property
    def seconds(self) -> float:
        return self.of.seconds


@taskclass
class Finish(_OfVideo):
    """A video to be made larger, smoother or both, without a model."""

    source: str = declared(  # the job that made the video
        Kept(
            label="Video",
            help="The video to finish.",
            noun="video",
            missing=said("There is no video to finish. Make one first, then choose it."),
            required=True,
        )
    )
    upscale: int = declared(
        OneOf(
            label="Finished: size",
            help="How many times as wide and high it becomes.",
            noun="size",
            default=1,
            numbers=TIMES,
        )
    )
    interpolate: int = declared(
        OneOf(
            label="Finished: smoothness",
            help="How many times as many frames it has.",
            noun="smoothness",
            default=1,
            numbers=TIMES,
        )
    )
    of: TextToVideo | PoseToVideo | Edit | None  # how the video was made; None for a clip of which that is not known

    @classmethod
    def for_video(cls, of: object, source: object, upscale: object = 1, interpolate: object = 1) -> "Finish":
        """A task for the video that the job `source` made of the task `of`. Raises ValueError as
        TextToVideo.for_model does, and where the result would be too large."""
        values = checked(cls, None, {"source": source, "upscale": upscale, "interpolate": interpolate})
        if not isinstance(of, TextToVideo | PoseToVideo | Edit | None):
            raise ValueError(
                said("Only videos that were made of a prompt can be finished. Choose the one it came from.")
            )
        if upscale == interpolate == 1:
            raise ValueError(said("Nothing would change. Choose a larger size, more smoothness, or both."))
        task = cls(**values, of=of)
        if of is not None:
            task.becomes(of.frames, of.width, of.height, of.fps)
        return task

    def checked(self, catalog: Mapping[str, ModelCard] = CATALOG) -> "Finish":
        """The same task, validated once more; its video may be of a model that is not in `catalog` any more."""
        return self.for_video(self.of, self.source, self.upscale, self.interpolate)

    def becomes(self, frames: int, width: int, height: int, fps: float) -> tuple[int, int, int, float]:
        """What comes of a video of that many frames, pixels and frames a second. Raises ValueError where that is more
        than can be made."""
        frames, fps = (frames - 1) * self.interpolate + 1, fps * self.interpolate
        width, height = width * self.upscale, height * self.upscale
        if max(width, height) > FINISHED_SIDE:
            raise ValueError(
                said(
                    "{width}x{height} is too large: a finished video has {most} pixels a side at "
                    "most. Choose a smaller size.",
                    width=width,
                    height=height,
                    most=FINISHED_SIDE,
                )
            )
        if frames > FINISHED_FRAMES or fps > FINISHED_FPS:
            raise ValueError(
                said(
                    "{frames} frames, {fps:.4g} a second, are too many: a finished video has "
                    "{most} frames at most, and {rate} a second. Choose less "
                    "smoothness.",
                    frames=frames,
                    fps=fps,
                    most=FINISHED_FRAMES,
                    rate=FINISHED_FPS,
                )
            )
        return frames, width, height, fps

    @property
    def prompt(self) -> str:
        assert self.of is not None, "nothing is known of how the video was made"
        return self.of.prompt

    @property
    def effort(self) -> tuple:
        """As that of a video."""
        shape = self.of and (self.of.frames, self.of.width, self.of.height)
        return (type(self).__name__, self.upscale, self.interpolate, shape)


@taskclass
class Grid(_OfVideo):
    """Videos to be laid side by side in one, without a model: a row for each prompt, a column for each seed."""

    prompt: str  # all of them, one a line
    seeds: tuple[int, ...]
    jobs: tuple[str, ...]  # that make the videos, row after row
    of: TextToVideo  # the first of them; the others differ from it in prompt and seed

    @classmethod
    def for_videos(cls, of: object, prompt: object, seeds: object, jobs: object) -> "Grid":
        """A task for the videos that `jobs` make. Raises ValueError as TextToVideo.for_model does."""
        if not isinstance(of, TextToVideo):
            raise ValueError(said("A grid is made of videos of a prompt each."))
        if not isinstance(prompt, str) or not isinstance(seeds, list | tuple) or not isinstance(jobs, list | tuple):
            raise ValueError(said("This is not the description of a grid."))
        lines = prompt.split("\n")
        check_cells(len(lines), len(seeds))
        prompts = [PROMPT.check(line, None) for line in lines]
        columns: list[Any] = [SEED.check(seed, None) for seed in seeds]
        if len(jobs) != len(prompts) * len(columns):
            raise ValueError(said("A grid has a video for every one of its prompts and seeds."))
        if not all(isinstance(job, str) and is_name(job) for job in jobs):
            raise ValueError(said("There is no such video. Make the grid anew."))
        return cls("\n".join(prompts), tuple(columns), tuple(jobs), of)

    def checked(self, catalog: Mapping[str, ModelCard] = CATALOG) -> "Grid":
        """The same task, validated once more; its videos may be of a model that is not in `catalog` any more."""
        return self.for_videos(self.of, self.prompt, self.seeds, self.jobs)

    @property
    def prompts(self) -> list[str]:
        return self.prompt.split("\n")

    @property
    def effort(self) -> tuple:
        """As that of a video."""
        return (type(self).__name__, len(self.jobs), self.of.frames, self.of.width, self.of.height)


def check_cells(rows: int, columns: int) -> None:
    """Raises ValueError where a grid would have none, one or too many videos."""
    if rows * columns > CELLS:
        raise ValueError(
            said(
                "{rows} prompts and {columns} seeds make {count} videos. A grid holds {most} at most: "
                "take fewer of either.",
                rows=rows,
                columns=columns,
                count=rows * columns,
                most=CELLS,
            )
        )
    if rows * columns < 2:
        raise ValueError(said("A grid wants several prompts, several seeds, or both."))


KINDS = {
    **{"text-to-video": TextToVideo, "pose-to-video": PoseToVideo, "tune": Tune, "edit": Edit},
    **{"finish": Finish, "grid": Grid},
}
_NAMES = {kind: name for name, kind in KINDS.items()}
MadeByModel = TextToVideo | PoseToVideo | Tune | Edit
Task = MadeByModel | Finish | Grid


def kind_of(task: Task) -> str:
    """A key of KINDS."""
    return _NAMES[type(task)]


def renamed(task: Task, name: Callable[[str, str], str]) -> Task:
    """`task` with `name(setting, value)` in place of every value by which it, or what it is of, names what is kept."""
    changes: dict[str, object] = {}
    for setting in NAMED:
        match getattr(task, setting, None):
            case tuple() as values:
                changes[setting] = tuple(name(setting, value) for value in values)
            case str() as value if value:
                changes[setting] = name(setting, value)
    if isinstance(task, _OfVideo) and task.of is not None:
        changes["of"] = renamed(task.of, name)
    return replace(task, **changes)


def to_json(task: Task) -> str:
    """The task as one line of JSON, its kind under "task"."""
    return json.dumps(_values(task), ensure_ascii=False)


def _values(task: Task) -> dict:
    values = {"task": kind_of(task), **asdict(task)}
    if isinstance(task, _OfVideo) and task.of is not None:
        values["of"] = _values(task.of)
    return values


def recall(text: str) -> Task:
    """The task that `to_json` wrote as `text`. It is not validated: what was possible then may not be now."""
    values = json.loads(text)
    kind = KINDS[values.pop("task")]
    if issubclass(kind, Finish | Grid) and values["of"] is not None:
        of = KINDS[values["of"].pop("task")]
        values["of"] = of(**recalled(of, values["of"]))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return kind(**recalled(kind, values))


def from_json(text: str, catalog: Mapping[str, ModelCard] = CATALOG) -> Task:
    """The task in `text`, validated. Raises ValueError where `text` is no task or no longer a possible one."""
    try:
        values = json.loads(text)
        kind = KINDS[values.pop("task")]
        if issubclass(kind, Finish | Grid):
            made = values.pop("of")
            if issubclass(KINDS[made["task"]], Finish | Grid):
                raise TypeError("What is made of videos is not made of such again.")
        else:
            model, prompt, seed = values.pop("model"), values.pop("prompt"), values.pop("seed")
    except (KeyError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise ValueError(said("This is not the description of a video made by Marionette.")) from error
    if issubclass(kind, Finish):
        choices = {name: values.get(name) for name in ("source", "upscale", "interpolate")}
        return Finish.for_video(from_json(json.dumps(made), catalog), **choices)
    if issubclass(kind, Grid):
        choices = {name: values.get(name) for name in ("prompt", "seeds", "jobs")}
        return Grid.for_videos(from_json(json.dumps(made), catalog), **choices)
    if not isinstance(model, str) or model not in catalog:
        raise ValueError(
            said("This video was made with {model}, a model that is not offered here.", model=repr(str(model)[:80]))
        )
    return kind.for_model(find(model, catalog), prompt, seed, **values)
