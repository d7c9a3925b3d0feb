"""Tasks that a model carries out with a prompt: a video of text, a tuning on a clip, an edit of it.

They are frozen and validated; every setting is declared beside the field that holds it. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import Field, asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pipelines.cards import ModelCard, Range
from pipelines.catalog import CATALOG, find, offered
from pipelines.common_settings import (
    CACHING,
    END,
    FPS,
    FRAMES,
    GUIDANCE,
    GUIDED_FROM,
    GUIDED_UNTIL,
    HEIGHT,
    LORA,
    NEGATIVE_PROMPT,
    NO_CLIP,
    NO_IMAGE,
    PACE,
    PRECISION,
    PROMPT,
    REFERENCE,
    SCHEDULER,
    SEED,
    SHARE,
    SOUND,
    START,
    STEPS,
    STRIDE,
    TUNED,
    WIDTH,
    takes,
)
from pipelines.messages import said
from pipelines.task_settings import Choice, Kept, Number, Text, checked, declared, settings_of, taskclass

SHORTEST_WINDOW = 8  # frames: what moves can hardly be told in fewer

TRAINED = {  # what tuning changes -> what a person reads
    "all": "Attention queries and temporal attention, as in the paper",
    "mid and up": "The same, but only in the second half of the network, as the published code does",
}


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
                    title=said(card.title),
                    names=", ".join(offered(cls.FOR)),
                )
            )
        card = card.with_lora(settings.get("lora", ""))
        values = checked(cls, card, {"prompt": prompt, "seed": seed, **settings})
        cls._check(card, values)
        size = values["frames"], values["width"], values["height"]
        _check_size(card, *size)
        if card.limits.window_of(*size) and values.get("caching", 1) > 1:
            raise ValueError(
                said(
                    "A video of more than {frames} frames is made in parts, which can't reuse features. Ask for fewer "
                    "frames, or compute all features.",
                    frames=card.limits.at_once(*size[1:]),
                )
            )
        return cls(model=card.name, **values)

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        """Raises ValueError for settings that do not go together, and settles those that follow from others."""

    def checked(self, catalog: Mapping[str, ModelCard] = CATALOG) -> Self:
        """The same task, validated once more against `catalog`. Raises ValueError as `for_model` does."""
        values = asdict(self)
        return self.for_model(find(values.pop("model"), catalog), **values)


def check_part(values: Mapping) -> None:
    """Raises ValueError where the part of a clip ends before it starts."""
    if values["end"] is not None and values["end"] <= values["start"]:
        raise ValueError(said("The end of the part that is used must come after its start."))


def _check_size(card: ModelCard, frames: int, width: int, height: int) -> None:
    most = card.limits.at_once(width, height)
    if frames > most and not (card.limits.once and most >= SHORTEST_WINDOW):
        advice = said("Choose a smaller size.")
        if most:
            advice = said("At this size it makes {count} frames at most.", count=most)
        raise ValueError(
            said(
                "{frames} frames of {width}x{height} are more than {title} can make. {advice}",
                frames=frames,
                width=width,
                height=height,
                title=said(card.title),
                advice=advice,
            )
        )


@taskclass
class Sampled(_OfModel):
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
    def steps_made(self) -> int:
        """The calls of the network, as far as samplers make one a step."""
        return self.steps

    @property
    def effort(self) -> tuple:
        """What decides how long it takes: jobs with the same are equally long."""
        shape = (self.frames, self.width, self.height, self.steps, self.guidance > 1)
        return (type(self).__name__, self.model, *shape, *(getattr(self, name) for name in SHORTCUTS))


# Settings that save time and change the video -> off.
SHORTCUTS: dict[str, object] = {
    name: settings_of(Sampled)[name].default for name in ("lora", "precision", "caching", "guided_from", "guided_until")
}


@taskclass
class TextToVideo(Sampled):
    """A prompt to be made a video of. Made by `for_model`, it holds only values that its model can do."""

    FOR = "text-to-video"
    # The first image, for a model that takes one: the name under which the app keeps it; see images.py.
    image: str = declared(
        Kept(
            label="First image",
            help="What the video begins with.",
            noun="first image",
            missing=NO_IMAGE,
            **takes("image"),
        )
    )
    mask: str = declared(  # likewise
        Kept(
            label="Mask",
            help="White where the first image, or the clip, is drawn anew.",
            noun="mask",
            missing=NO_IMAGE,
            **takes("mask"),
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
    reference: str = declared(REFERENCE)
    clip: str = declared(  # that is changed: the name under which the app keeps it; see clips.py
        Kept(
            label="Clip",
            help="A clip to be changed. It is read at the frame rate of the video.",
            noun="clip",
            missing=NO_CLIP,
            **takes("clip"),
        )
    )
    clip_start: float = declared(  # seconds
        replace(START, flag="--start", **takes("clip"))
    )
    clip_strength: float = declared(  # the share of the steps that are made
        Number(
            label="Strength",
            help="Low values keep the clip's motion and layout, 1 starts from noise.",
            noun="strength",
            flag="--strength",
            default=0.8,
            within=Range(0.05, 1, 0),
            by=0.05,
            **takes("clip_strength", of="clip"),
        )
    )

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        super()._check(card, values)
        if card.redraws:
            if values["clip"] and not values["mask"]:
                raise ValueError(
                    said("Say which part of the clip is drawn anew: paint it, or upload a mask that is white there.")
                )
            if values["mask"] and not values["clip"]:
                raise ValueError(
                    said("A mask needs the clip that it belongs to. Upload that too, or leave out the mask.")
                )
        elif values["mask"] and not values["image"]:
            raise ValueError(
                said("A mask needs the first image that it belongs to. Upload that too, or leave out the mask.")
            )
        if card.image_model is not None and values["image_guidance"] is None:
            values["image_guidance"] = values["guidance"]

    @property
    def steps_made(self) -> int:
        """Of the steps those that are made: with a clip that is changed as a whole the last ones, as many as its
        strength says, one at least."""
        return max(1, int(self.steps * self.clip_strength)) if self.clip and not self.mask else self.steps

    @property
    def effort(self) -> tuple:
        """Less where the first image need not be drawn, and where a clip saves steps."""
        return (*super().effort, bool(self.image), self.steps_made)


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
        Kept(label="Clip", help="The clip to tune on.", noun="clip", missing=NO_CLIP, required=True)
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
            within=SHARE,
            by=0.01,
        )
    )
    down: float = declared(
        Number(
            label="Crop position, down",
            help="0 keeps the top, 1 the bottom.",
            noun="place down",
            default=0.5,
            within=SHARE,
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
                said("{title} is tuned already. Choose the model that it was made from.", title=said(card.title))
            )
        return super().for_model(card, prompt, seed, **settings)

    @classmethod
    def _check(cls, card: ModelCard, values: dict) -> None:
        check_part(values)

    @property
    def effort(self) -> tuple:
        """As that of a video."""
        return (type(self).__name__, self.model, self.frames, self.width, self.height, self.steps, self.trained)


@taskclass
class Edit(Sampled):
    """A tuned clip to be edited, `prompt` being what it is to show now."""

    FOR = "edit"
    frames: int = declared(replace(FRAMES, asked=False))  # as many, as large and as fast as what was tuned on
    width: int = declared(replace(WIDTH, asked=False))
    height: int = declared(replace(HEIGHT, asked=False))
    fps: float = declared(replace(FPS, asked=False, within=PACE))
    seed: int = declared(replace(SEED, help="Used only where the strength is above 0.", default=0))
    tuned: str = declared(TUNED)  # the job that tuned on the clip; "" where the model is published as tuned already
    strength: float = declared(  # 0 starts from the clip's own inverted latents, 1 from plain noise
        Number(
            label="Strength",
            help="0 keeps the clip's motion and layout, 1 starts from noise.",
            noun="strength",
            default=0.0,
            within=SHARE,
            by=0.05,
            **takes("strength"),
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
