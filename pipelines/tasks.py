"""What a person asks for: every kind of task, ready for JSON. Standard library only."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG, find
from pipelines.messages import said
from pipelines.model_tasks import Edit, TextToVideo, Tune
from pipelines.pose_tasks import PoseToVideo
from pipelines.task_settings import recalled
from pipelines.video_tasks import Finish, Grid, OfVideo

NAMED = ("clip", "image", "mask", "reference", "tuned", "source", "jobs")  # settings that name what the app keeps
NOBODY = "0" * 32  # a name that nothing has

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
    if isinstance(task, OfVideo) and task.of is not None:
        changes["of"] = renamed(task.of, name)
    return replace(task, **changes)


def to_json(task: Task) -> str:
    """The task as one line of JSON, its kind under "task"."""
    return json.dumps(_values(task), ensure_ascii=False)


def _values(task: Task) -> dict:
    values = {"task": kind_of(task), **asdict(task)}
    if isinstance(task, OfVideo) and task.of is not None:
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
