"""What a person asks for: frozen, validated, and ready for JSON. Standard library only."""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from pipelines.catalog import CATALOG, SCHEDULERS, ModelCard, Range, find

MAX_PROMPT = 2_000  # characters; CLIP reads 77 tokens, so that more is a mistake and not a wish
MAX_SEED = 2**32 - 1


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
    if value % step:
        kind = "whole number" if step == 1 else f"multiple of {step:g}"
        raise ValueError(f"The {name} must be a {kind}, not {value:g}.")
    return int(value)


@dataclass(frozen=True)
class TextToVideo:
    """A prompt to be made a video of. Made by `for_model`, it holds only values that its model can do."""

    prompt: str
    model: str
    negative_prompt: str
    frames: int
    width: int  # pixels
    height: int  # pixels
    fps: int
    steps: int
    guidance: float  # classifier-free guidance scale; 1 or less turns guidance off
    scheduler: str  # a key of catalog.SCHEDULERS
    seed: int

    @classmethod
    def for_model(cls, card: ModelCard, prompt: object, seed: object, **settings: object) -> "TextToVideo":
        """A task for `card`, what is not in `settings` being the model's default.

        Raises ValueError, in words for the person who asked, where a value is of the wrong type, not finite or out
        of the model's limits.
        """
        limits = card.limits
        unknown = settings.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"Text to video has no setting called {', '.join(sorted(unknown))}.")
        settings = {**asdict(card.defaults), **settings}
        prompt = _text("prompt", prompt)
        if not prompt:
            raise ValueError("The prompt is empty. Say what the video should show.")
        scheduler = settings["scheduler"]
        if not isinstance(scheduler, str) or scheduler not in SCHEDULERS:
            raise ValueError(
                f"There is no scheduler called {str(scheduler)[:40]!r}. Choose one of: {', '.join(SCHEDULERS)}."
            )
        task = cls(
            prompt=prompt,
            model=card.name,
            negative_prompt=_text("negative prompt", settings["negative_prompt"]),
            frames=_number("number of frames", settings["frames"], limits.frames),
            width=_number("width", settings["width"], limits.side),
            height=_number("height", settings["height"], limits.side),
            fps=_number("frame rate", settings["fps"], limits.fps),
            steps=_number("number of steps", settings["steps"], limits.steps),
            guidance=_number("guidance", settings["guidance"], limits.guidance),
            scheduler=scheduler,
            seed=_number("seed", seed, Range(0, MAX_SEED)),
        )
        if task.frames * task.width * task.height > limits.voxels:
            raise ValueError(
                f"{task.frames} frames of {task.width}x{task.height} are more than {card.title} can make. "
                f"At this size it makes {limits.voxels // (task.width * task.height)} frames at most."
            )
        return task

    def checked(self, catalog: Mapping[str, ModelCard] = CATALOG) -> "TextToVideo":
        """The same task, validated once more against `catalog`. Raises ValueError as `for_model` does."""
        values = asdict(self)
        return self.for_model(find(values.pop("model"), catalog), **values)

    @property
    def seconds(self) -> float:
        return self.frames / self.fps


KINDS = {"text-to-video": TextToVideo}
_NAMES = {kind: name for name, kind in KINDS.items()}
Task = TextToVideo


def to_json(task: Task) -> str:
    """The task as one line of JSON, its kind under "task"."""
    return json.dumps({"task": _NAMES[type(task)], **asdict(task)}, ensure_ascii=False)


def recall(text: str) -> Task:
    """The task that `to_json` wrote as `text`. It is not validated: what was possible then may not be now."""
    values = json.loads(text)
    return KINDS[values.pop("task")](**values)


def from_json(text: str, catalog: Mapping[str, ModelCard] = CATALOG) -> Task:
    """The task in `text`, validated. Raises ValueError where `text` is no task or no longer a possible one."""
    try:
        values = json.loads(text)
        kind = KINDS[values.pop("task")]
        model, prompt, seed = values.pop("model"), values.pop("prompt"), values.pop("seed")
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError("This is not the description of a video made by Marionette.") from error
    return kind.for_model(find(model, catalog), prompt, seed, **values)
