"""What a person asks for: frozen, validated, and ready for JSON. Standard library only."""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, fields, replace

from pipelines.catalog import (
    CAPABILITIES,
    CATALOG,
    DETECTORS,
    ModelCard,
    Range,
    find,
    find_detector,
    find_motion,
    offered,
)

MAX_PROMPT = 2_000  # characters; CLIP reads 77 tokens, so that more is a mistake and not a wish
MAX_SEED = 2**32 - 1
TRAINED = {  # what tuning changes -> what a person reads
    "all": "All queries and the attention over time, as in the paper",
    "mid and up": "The same, but only in the second half of the network, as the published program really does",
}
SHOWN = {  # what a clip with poses is -> what a person reads
    "auto": "Find out by itself",
    "clip": "People: their poses are looked for",
    "skeleton": "Skeletons, drawn on black",
}
SMOOTHING = {"none": 0.0, "light": 0.05, "strong": 0.12}  # seconds: the standard deviation of a Gaussian in time
PRECISIONS = {  # what the network computes in -> what a person reads
    "exact": "Exact",
    "fast": "Fast: bfloat16, where this processor is quicker with it",
}
SHORTCUTS: dict[str, object] = {  # settings that save time and change the video -> off
    **{"lora": "", "precision": "exact", "caching": 1, "guided_from": 0.0, "guided_until": 1.0}
}
CACHING = Range(1, 10)  # steps that share deep features
CELLS = 16  # videos in a grid, at most
TIMES = (1, 2, 4)  # how many times as large, and as many frames, a video can be finished
FINISHED_SIDE, FINISHED_FRAMES, FINISHED_FPS = 2048, 256, 120  # at most
PLACEMENTS = {  # how skeletons are laid on the canvas -> what a person reads
    "fit": "The whole picture, no limb cut off",
    "fill": "As large as the skeletons can be",
    "crop": "The middle of the picture, as FollowYourPose itself does it",
}

NAMED = ("clip", "image", "mask", "tuned", "source", "jobs")  # settings that name what the app keeps
# What is kept, by its id; in a file that left the app, by the SHA-256 of its content (serving/content.py).
_NAME = "[0-9a-f]{32}|[0-9a-f]{64}"
NOBODY = "0" * 32  # a name that nothing has

SIDES = ("left", "right", "top", "bottom")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"The {name} must be text, not {type(value).__name__}.")
    # Control characters and halves of surrogate pairs can't be typed, and break files and terminals.
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r" for character in value):
        raise ValueError(f"The {name} holds control characters. Type it again as plain text.")
    value = " ".join(value.split())
    if len(value) > MAX_PROMPT:
        raise ValueError(f"The {name} has {len(value)} characters. Shorten it to {MAX_PROMPT} or fewer.")
    return value


def _number(name: str, value: object, allowed: Range) -> int | float:
    """`value` as an int (or a float where `allowed` has no step); a whole float counts as an int."""
    low, high, step = allowed.low, allowed.high, allowed.step
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"The {name} must be a number from {low:.10g} to {high:.10g}, not {str(value)[:40]!r}.")
    if not low <= value <= high:
        raise ValueError(f"The {name} must be from {low:.10g} to {high:.10g}, not {str(value)[:40]}.")
    if step == 0:
        return float(value)
    if value not in allowed:
        kind = "a whole number" if step == 1 else f"a multiple of {step:g}"
        if low % step:
            kind = f"one of {low:g}, {low + step:g}, {low + 2 * step:g}, … {allowed.numbers(high)[-1]}"
        raise ValueError(f"The {name} must be {kind}, not {value:g}.")
    return int(value)


def _place(name: str, value: object) -> float:
    return _number(name, value, Range(0, 1, 0))


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"Whether {name} must be true or false.")
    return value


def _choice(name: str, value: object, choices: Mapping[str, object]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {str(value)[:40]!r}.")
    return value


def _part(settings: Mapping[str, object]) -> dict:
    """Which frames of a clip are used, every one of them by default."""
    settings = {"start": 0.0, "end": None, "stride": 1, **settings}
    start, end = (settings[name] for name in ("start", "end"))
    seconds = Range(0, 86_400, 0)
    values = {
        "start": _number("start", start, seconds),
        "end": None if end is None else _number("end", end, seconds),
        "stride": _number("stride", settings["stride"], Range(1, 1000)),
    }
    if end is not None and values["end"] <= values["start"]:
        raise ValueError("The end of the part that is used must come after its start.")
    return values


def _known(kind: str, card: ModelCard, settings: Mapping[str, object], cls: type) -> None:
    """Raises ValueError where `card` is for other kinds of task, or `cls` knows no such setting."""
    if card.kind != kind:
        raise ValueError(f"{card.title} is not made for this. Choose one of: {', '.join(offered(kind))}.")
    unknown = settings.keys() - {field.name for field in fields(cls)}
    if unknown:
        raise ValueError(f"There is no setting called {', '.join(sorted(unknown))[:80]}.")
    for name, words in CAPABILITIES.items():
        neutral = _NEUTRAL[kind].get(name)
        if name not in card.takes and settings.get(name, neutral) != neutral:
            raise ValueError(f"{card.title} takes no {words}. Leave it out, or choose another model.")


def _sampling(card: ModelCard, prompt: object, seed: object, settings: Mapping[str, object]) -> dict:
    """What every video is sampled with, validated: the fields of _Sampled.

    What is not in `settings` is the model's default.
    """
    card = card.with_lora(settings.get("lora", ""))
    limits = card.limits
    settings = {**asdict(card.defaults), **settings}
    prompt = _text("prompt", prompt)
    if not prompt:
        raise ValueError("The prompt is empty. Say what the video should show.")
    scheduler = settings["scheduler"]
    if not isinstance(scheduler, str) or scheduler not in card.schedulers:
        raise ValueError(
            f"There is no scheduler called {str(scheduler)[:40]!r} here. Choose one of: {', '.join(card.schedulers)}."
        )
    values = {
        "prompt": prompt,
        "model": card.name,
        "negative_prompt": _text("negative prompt", settings["negative_prompt"]),
        "frames": _number("number of frames", settings["frames"], limits.frames),
        **_size(card, settings),
        "fps": _number("frame rate", settings["fps"], limits.fps),
        "steps": _number("number of steps", settings["steps"], limits.steps),
        "guidance": _number("guidance", settings["guidance"], limits.guidance),
        "scheduler": scheduler,
        "seed": _number("seed", seed, Range(0, MAX_SEED)),
        **_shortcuts(settings),
    }
    _check_voxels(card, values["frames"], values["width"], values["height"])
    return values


def _shortcuts(settings: Mapping[str, object]) -> dict:
    settings = {**SHORTCUTS, **settings}
    values = {
        "lora": settings["lora"],
        "precision": _choice("The precision", settings["precision"], PRECISIONS),
        "caching": _number("number of steps that share deep features", settings["caching"], CACHING),
        "guided_from": _number("place at which guidance begins", settings["guided_from"], Range(0, 1, 0)),
        "guided_until": _number("place at which guidance ends", settings["guided_until"], Range(0, 1, 0)),
    }
    if values["guided_from"] >= values["guided_until"]:
        raise ValueError("Guidance must begin before it ends. A guidance of 1 turns it off altogether.")
    return values


def _size(card: ModelCard, settings: Mapping[str, object]) -> dict[str, int]:
    return {side: _number(side, settings[side], card.limits.side) for side in ("width", "height")}


def _check_voxels(card: ModelCard, frames: int, width: int, height: int) -> None:
    if frames * width * height > card.limits.voxels:
        possible = card.limits.frames.numbers(card.limits.voxels // (width * height))
        advice = f"At this size it makes {possible[-1]} frames at most." if possible else "Choose a smaller size."
        raise ValueError(f"{frames} frames of {width}x{height} are more than {card.title} can make. {advice}")


class _Checked:
    def checked(self, catalog: Mapping[str, ModelCard] = CATALOG) -> "Task":
        """The same task, validated once more against `catalog`. Raises ValueError as `for_model` does."""
        values = asdict(self)
        return self.for_model(find(values.pop("model"), catalog), **values)


@dataclass(frozen=True)
class _Sampled(_Checked):
    """A video that is sampled from noise, or from something like it."""

    prompt: str
    model: str
    negative_prompt: str
    frames: int
    width: int  # pixels
    height: int  # pixels
    fps: float
    steps: int
    guidance: float  # classifier-free guidance scale; 1 or less turns guidance off
    scheduler: str  # a key of catalog.SCHEDULERS
    seed: int
    _: KW_ONLY
    lora: str = ""  # a key of the card's loras; "" for none
    precision: str = "exact"  # a key of PRECISIONS
    caching: int = 1  # deep features are computed in every so many steps
    guided_from: float = 0.0  # guidance counts from here, as a share of the way from noise to the video,
    guided_until: float = 1.0  # to here

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def effort(self) -> tuple:
        """What decides how long it takes: jobs with the same are equally long."""
        shape = (self.frames, self.width, self.height, self.steps, self.guidance > 1)
        return (type(self).__name__, self.model, *shape, *(getattr(self, name) for name in SHORTCUTS))


@dataclass(frozen=True)
class TextToVideo(_Sampled):
    """A prompt to be made a video of. Made by `for_model`, it holds only values that its model can do."""

    image: str = ""  # the first image, for a model that takes one: the name under which the app keeps it; see images.py
    mask: str = ""  # likewise: where the first image is not to be followed
    image_guidance: float | None = None  # as `guidance`, of the first image where the model is to draw it itself

    @classmethod
    def for_model(cls, card: ModelCard, /, prompt: object, seed: object, **settings: object) -> "TextToVideo":
        """A task for `card`, what is not in `settings` being the model's default.

        Raises ValueError, in words for the person who asked, where a value is of the wrong type, not finite or out
        of the model's limits.
        """
        _known("text-to-video", card, settings, cls)
        return cls(**_sampling(card, prompt, seed, settings), **_first_image(card, settings))

    @property
    def effort(self) -> tuple:
        """Less where the first image need not be drawn."""
        return (*super().effort, bool(self.image))


def _first_image(card: ModelCard, settings: Mapping[str, object]) -> dict:
    """What `settings` ask of the first image; by default it is drawn with the guidance of the video."""
    settings = {**_NEUTRAL["text-to-video"], **settings}
    image, mask, guidance = (settings[name] for name in ("image", "mask", "image_guidance"))
    for name in (image, mask):
        if not isinstance(name, str) or not re.fullmatch(f"{_NAME}|", name):
            raise ValueError("There is no such image. Upload it first.")
    if mask and not image:
        raise ValueError("A mask needs the first image that it belongs to. Upload that too, or leave out the mask.")
    if card.image_model is not None:
        guidance = settings.get("guidance", card.defaults.guidance) if guidance is None else guidance
        guidance = _number("guidance of the first image", guidance, card.limits.guidance)
    elif guidance is not None:
        raise ValueError(f"{card.title} takes no first image that it would draw: leave out the guidance of one.")
    return {"image": image, "mask": mask, "image_guidance": guidance}


@dataclass(frozen=True)
class Tune(_Checked):
    """A clip to be tuned on (Tune-A-Video), `prompt` being what it shows."""

    prompt: str
    model: str  # the Stable Diffusion that it starts from
    clip: str  # the name under which the app keeps it; see clips.py
    start: float  # seconds: where the part that is used begins
    end: float | None  # seconds; None for the end of the clip
    stride: int  # from one used frame to the next
    frames: int  # used, at most
    across: float  # where the picture is cut to shape, from 0 (left) to 1 (right)
    down: float  # likewise, from 0 (top) to 1 (bottom)
    width: int  # pixels
    height: int  # pixels
    steps: int
    learning_rate: float
    trained: str  # a key of TRAINED
    seed: int

    @classmethod
    def for_model(cls, card: ModelCard, /, prompt: object, seed: object, **settings: object) -> "Tune":
        """A task for `card`, what is not in `settings` being what the makers of the method recommend.

        Raises ValueError as TextToVideo.for_model does.
        """
        _known("edit", card, settings, cls)
        if card.tuning is None:
            raise ValueError(f"{card.title} is tuned already. Choose the model that it was made from.")
        whole = {"across": 0.5, "down": 0.5, "trained": "all"}
        settings = {**asdict(card.defaults), **asdict(card.tuning), **whole, **settings}
        prompt = _text("caption", prompt)
        if not prompt:
            raise ValueError("The caption is empty. Say what the clip shows: who, wearing what, doing what, where.")
        clip = settings.get("clip")
        if not isinstance(clip, str) or not re.fullmatch(_NAME, clip):
            raise ValueError("There is no clip. Upload one first.")
        if settings["trained"] not in TRAINED:
            raise ValueError(f"What is trained must be one of: {', '.join(TRAINED)}.")
        task = cls(
            prompt=prompt,
            model=card.name,
            clip=clip,
            **_part(settings),
            frames=_number("number of frames", settings["frames"], card.limits.frames),
            across=_place("place across", settings["across"]),
            down=_place("place down", settings["down"]),
            **_size(card, settings),
            steps=_number("number of steps", settings["steps"], Range(1, 2000)),
            learning_rate=_number("learning rate", settings["learning_rate"], Range(1e-6, 1e-2, 0)),
            trained=settings["trained"],
            seed=_number("seed", seed, Range(0, MAX_SEED)),
        )
        _check_voxels(card, task.frames, task.width, task.height)
        return task

    @property
    def effort(self) -> tuple:
        """As that of a video."""
        return (type(self).__name__, self.model, self.frames, self.width, self.height, self.steps, self.trained)


@dataclass(frozen=True)
class Edit(_Sampled):
    """A tuned clip to be told again, `prompt` being what it is to show now."""

    tuned: str  # the job that tuned on the clip; "" where the model is published as tuned already
    strength: float  # 0 starts from the clip's own inverted latents, 1 from plain noise
    sound: bool  # whether the clip's sound is kept

    @property
    def told_by(self) -> str:
        """What tells the clip again: the job that tuned, or the model that is published as tuned."""
        return self.tuned or self.model

    @classmethod
    def for_model(cls, card: ModelCard, /, prompt: object, seed: object, **settings: object) -> "Edit":
        """A task for `card`. Raises ValueError as TextToVideo.for_model does."""
        _known("edit", card, settings, cls)
        settings = {**_NEUTRAL["edit"], **settings}
        tuned = settings["tuned"]
        if not isinstance(tuned, str) or not re.fullmatch(f"{_NAME}|", tuned) or bool(tuned) != bool(card.tuning):
            raise ValueError("There is no such tuned model. Tune on a clip first, then choose it.")
        strength = _number("strength", settings["strength"], Range(0, 1, 0))
        sound = _truth("the sound is kept", settings["sound"])
        return cls(**_sampling(card, prompt, seed, settings), tuned=tuned, strength=strength, sound=sound)


@dataclass(frozen=True)
class PoseToVideo(_Sampled):
    """A prompt to be made a video whose dancer follows the poses of a clip or of a built-in motion (FollowYourPose).

    `frames` are made at most: fewer where the clip has fewer.
    """

    clip: str  # the name under which the app keeps the clip, skeleton video or keypoints; "" where there is a motion
    motion: str  # a built-in motion (catalog.motions); "" where there is a clip
    shown: str  # a key of SHOWN: what the clip is
    detector: str  # a key of catalog.DETECTORS
    start: float  # seconds: where the part of the clip or motion that is used begins
    end: float | None  # seconds; None for the end of the clip
    stride: int  # from one used frame to the next
    person: int | None  # 0 is whoever is most to be seen; None for everybody
    gaps: bool  # whether joints that are away for a moment are filled in
    smoothing: str  # a key of SMOOTHING
    placing: str  # a key of PLACEMENTS
    retarget: bool  # whether a character with a body of its own keeps its proportions
    strength: float  # of the poses: 0 leaves them out, 1 is as published
    left: float  # how much of the clip's picture is cut off at each side, as a share of its width or height
    right: float
    top: float
    bottom: float
    sound: bool  # whether the clip's sound is kept
    tuned: str = ""  # the job that tuned on a clip whose dancer is to dance; "" for anybody

    @classmethod
    def for_model(cls, card: ModelCard, /, prompt: object, seed: object, **settings: object) -> "PoseToVideo":
        """A task for `card`. Raises ValueError as TextToVideo.for_model does."""
        _known("pose-to-video", card, settings, cls)
        settings = {**_NEUTRAL["pose-to-video"], **settings}
        clip, motion, person, tuned = (settings[name] for name in ("clip", "motion", "person", "tuned"))
        if not isinstance(clip, str) or not re.fullmatch(f"{_NAME}|", clip) or bool(clip) == bool(motion):
            raise ValueError("There are no poses to follow. Upload a clip, or choose one of the motions, but not both.")
        if not clip:
            find_motion(motion)
        if not isinstance(tuned, str) or not re.fullmatch(f"{_NAME}|", tuned):
            raise ValueError("There is no such tuned model. Tune on a clip first, then choose it.")
        if tuned and not card.tuned_from:
            raise ValueError(f"{card.title} takes no tuned model. Leave it out, or choose another model.")
        return cls(
            **_sampling(card, prompt, seed, settings),
            clip=clip,
            motion=motion,
            shown=_choice("What the clip shows", settings["shown"], SHOWN),
            detector=find_detector(settings["detector"]).name,
            **_part(settings),
            person=None if person is None else _number("number of the person", person, Range(0, 999)),
            gaps=_truth("gaps are filled", settings["gaps"]),
            smoothing=_choice("The smoothing", settings["smoothing"], SMOOTHING),
            placing=_choice("How the skeletons are placed", settings["placing"], PLACEMENTS),
            retarget=_truth("the character keeps its own proportions", settings["retarget"]) and bool(card.bodies),
            strength=_number("pose strength", settings["strength"], Range(0, 1.5, 0)),
            **_crop(settings),
            sound=_truth("the sound is kept", settings["sound"]),
            tuned=tuned,
        )


def _crop(settings: Mapping[str, object]) -> dict[str, float]:
    values = {side: _number(f"crop at the {side}", settings[side], Range(0, 0.9, 0)) for side in SIDES}
    if max(values["left"] + values["right"], values["top"] + values["bottom"]) > 0.9:
        raise ValueError("The crop leaves less than a tenth of the picture. Cut off less.")
    return values


_NEUTRAL: dict[str, dict] = {  # what a setting is by default that no model has its own default for
    "text-to-video": {"image": "", "mask": "", "image_guidance": None, **SHORTCUTS},
    "pose-to-video": {
        **{"clip": "", "motion": "", "shown": "auto", "detector": next(iter(DETECTORS)), "person": None},
        **{"gaps": True, "smoothing": "light", "placing": "fit", "retarget": True, "strength": 1.0},
        **{"sound": False, "tuned": ""},
        **dict.fromkeys(SIDES, 0.0),
        **SHORTCUTS,
    },
    "edit": {"tuned": "", "strength": 0.0, "sound": False, **SHORTCUTS},
}


@dataclass(frozen=True)
class FindPoses:
    """A clip whose people are to be found, without anything being generated."""

    clip: str  # the name under which the app keeps the clip
    detector: str  # a key of catalog.DETECTORS
    start: float  # seconds: where the part of the clip that is searched begins
    end: float | None  # seconds; None for the end of the clip
    stride: int  # from one searched frame to the next

    @classmethod
    def of(cls, clip: object, detector: object = None, **part: object) -> "FindPoses":
        """Raises ValueError as TextToVideo.for_model does; what is None is the default."""
        if not isinstance(clip, str) or not re.fullmatch("[0-9a-f]{32}", clip):
            raise ValueError("There is no clip. Upload one first.")
        part = {name: value for name, value in part.items() if value is not None}
        detector = _NEUTRAL["pose-to-video"]["detector"] if detector is None else detector
        return cls(clip, find_detector(detector).name, **_part(part))


class _OfVideo:
    """A task that makes a video of others: what is asked of it is asked of the one that it is `of`."""

    @property
    def model(self) -> str:
        return self.of.model

    @property
    def seed(self) -> int:
        return self.of.seed

    @property
    def seconds(self) -> float:
        return self.of.seconds


@dataclass(frozen=True)
class Finish(_OfVideo):
    """A video to be made larger, smoother or both, without a model."""

    source: str  # the job that made the video
    upscale: int  # one of TIMES: how many times as wide and as high it becomes
    interpolate: int  # one of TIMES: how many frames come of one
    of: TextToVideo | PoseToVideo | Edit | None  # how the video was made; None for a clip of which that is not known

    @classmethod
    def for_video(cls, of: object, source: object, upscale: object, interpolate: object) -> "Finish":
        """A task for the video that the job `source` made of the task `of`. Raises ValueError as
        TextToVideo.for_model does, and where the result would be too large."""
        if not isinstance(source, str) or not re.fullmatch(_NAME, source):
            raise ValueError("There is no video to finish. Make one first, then choose it.")
        if not isinstance(of, _Sampled | None):
            raise ValueError("Only videos that were made of a prompt can be finished. Choose the one it came from.")
        for name, value in (("size", upscale), ("smoothness", interpolate)):
            if isinstance(value, bool) or not isinstance(value, int) or value not in TIMES:
                raise ValueError(f"The {name} must be one of {', '.join(map(str, TIMES))}, not {str(value)[:40]!r}.")
        if upscale == interpolate == 1:
            raise ValueError("Nothing would change. Choose a larger size, more smoothness, or both.")
        task = cls(source, upscale, interpolate, of)
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
                f"{width}x{height} is too large: a finished video has {FINISHED_SIDE} pixels a side at most. "
                "Choose a smaller size."
            )
        if frames > FINISHED_FRAMES or fps > FINISHED_FPS:
            raise ValueError(
                f"{frames} frames, {fps:.4g} a second, are too many: a finished video has {FINISHED_FRAMES} frames at "
                f"most, and {FINISHED_FPS} a second. Choose less smoothness."
            )
        return frames, width, height, fps

    @property
    def prompt(self) -> str:
        return self.of.prompt

    @property
    def effort(self) -> tuple:
        """As that of a video."""
        shape = self.of and (self.of.frames, self.of.width, self.of.height)
        return (type(self).__name__, self.upscale, self.interpolate, shape)


@dataclass(frozen=True)
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
            raise ValueError("A grid is made of videos of a prompt each.")
        if not isinstance(prompt, str) or not isinstance(seeds, list | tuple) or not isinstance(jobs, list | tuple):
            raise ValueError("This is not the description of a grid.")
        lines = prompt.split("\n")
        check_cells(len(lines), len(seeds))
        prompts = [_text("prompt", line) for line in lines]
        seeds = tuple(_number("seed", seed, Range(0, MAX_SEED)) for seed in seeds)
        if not all(prompts) or len(jobs) != len(prompts) * len(seeds):
            raise ValueError("A grid has a video for every one of its prompts and seeds.")
        if not all(isinstance(job, str) and re.fullmatch(_NAME, job) for job in jobs):
            raise ValueError("There is no such video. Make the grid anew.")
        return cls("\n".join(prompts), seeds, tuple(jobs), of)

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
            f"{rows} prompts and {columns} seeds make {rows * columns} videos. A grid holds {CELLS} at most: take "
            "fewer of either."
        )
    if rows * columns < 2:
        raise ValueError("A grid wants several prompts, several seeds, or both.")


KINDS = {
    **{"text-to-video": TextToVideo, "pose-to-video": PoseToVideo, "tune": Tune, "edit": Edit},
    **{"finish": Finish, "grid": Grid},
}
_NAMES = {kind: name for name, kind in KINDS.items()}
Task = TextToVideo | PoseToVideo | Tune | Edit | Finish | Grid


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
    if issubclass(kind, _OfVideo) and values["of"] is not None:
        values["of"] = KINDS[values["of"].pop("task")](**values["of"])
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def from_json(text: str, catalog: Mapping[str, ModelCard] = CATALOG) -> Task:
    """The task in `text`, validated. Raises ValueError where `text` is no task or no longer a possible one."""
    try:
        values = json.loads(text)
        kind = KINDS[values.pop("task")]
        if issubclass(kind, _OfVideo):
            made = values.pop("of")
            if issubclass(KINDS[made["task"]], _OfVideo):
                raise TypeError("What is made of videos is not made of such again.")
        else:
            model, prompt, seed = values.pop("model"), values.pop("prompt"), values.pop("seed")
    except (KeyError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise ValueError("This is not the description of a video made by Marionette.") from error
    if kind is Finish:
        choices = {name: values.get(name) for name in ("source", "upscale", "interpolate")}
        return Finish.for_video(from_json(json.dumps(made), catalog), **choices)
    if kind is Grid:
        choices = {name: values.get(name) for name in ("prompt", "seeds", "jobs")}
        return Grid.for_videos(from_json(json.dumps(made), catalog), **choices)
    if not isinstance(model, str) or model not in catalog:
        raise ValueError(f"This video was made with {str(model)[:80]!r}, a model that is not offered here.")
    return kind.for_model(find(model, catalog), prompt, seed, **values)
