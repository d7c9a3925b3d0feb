"""Carries out work on a machine that has the data folder and a device. No torch before a model is wanted."""

from collections.abc import Callable, Generator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.events import Progress, Result
from pipelines.pose_tasks import FindPoses
from pipelines.serving.executor import CHECKPOINTS, Asset, Made, Told, Work
from pipelines.serving.runner import LOADING, Generated, make
from pipelines.settings import Settings
from pipelines.tasks import Finish, Grid, PoseToVideo, Tune, kind_of

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager
    from pipelines.poses.pose_preview import Found, PosePreview
    from pipelines.systems.checkpoints import Checkpoints


def carry_out(
    work: Work,
    settings: Settings,
    models: "Callable[[], ModelManager]",
    asked: Callable[[], bool],
    run: Callable[..., Generated] | None = None,
) -> Generator[Told | Made, None, None]:
    """Carries out `work` with its results in the job's folder among the data of `settings`; Made comes last.

    `models` are asked for where it wants a model, and `asked` after each step of a tuning, for whether a sample is
    wanted. `run` is as in `make`. Closing it early releases the models; called again, it goes on from its checkpoints.
    Raises as `make` does.
    """
    folder, task = work.folder(settings.data), work.task
    inputs = _inputs(work, settings.data)
    if isinstance(task, Finish | Grid):
        # And with it OpenCV, which waits for the first job too.
        making = import_module(f"pipelines.systems.{kind_of(task)}").make(task, folder / work.file, settings, **inputs)
    else:
        assert not isinstance(task, FindPoses), "those are looked for"
        yield Progress(LOADING, 0, 1)
        manager = models()
        if isinstance(task, Tune):
            inputs |= {"folder": folder / "tuned", "asked": asked}
        else:
            inputs["checkpoints"] = _checkpoints(folder)
        making = make(task, manager, folder / work.file, run=run, companions=True, **inputs)
    with closing(making) as events:
        for event in events:
            if isinstance(event, Result) and "checkpoints" in inputs:
                inputs["checkpoints"].clear()
            yield _made(event, work) if isinstance(event, Result) else event


def look(
    work: Work, settings: Settings, models: "Callable[[], ModelManager]"
) -> "Generator[Progress, None, PosePreview | Found]":
    """The poses in the clip of `work`, or in its built-in motion, for which no models are asked for.

    Closing it ends the search within a frame. Raises ValueError as search.search and pose_sequence.skeletons do.
    """
    from pipelines.poses import pose_preview

    inputs = _inputs(work, settings.data)
    if isinstance(work.task, FindPoses):
        from pipelines.poses.search import search

        return (yield from search(work.task, models(), **inputs))
    assert isinstance(work.task, PoseToVideo)
    return (yield from pose_preview.preview(work.task, models() if "clip" in inputs else None, **inputs))


def _inputs(work: Work, data: Path) -> dict[str, Any]:
    """What `generate`, or what else carries out the task, takes beside it."""
    inputs: dict[str, Any] = {}
    for setting, asset in work.assets.items():
        if isinstance(asset, Asset):
            inputs[setting] = asset.path(data)
            inputs |= {"measured": asset.measured} if asset.measured is not None else {}
        else:
            inputs[setting] = [one.path(data) if isinstance(one, Asset) else one for one in asset]
    if isinstance(work.task, PoseToVideo) and "clip" in inputs:
        inputs["known"] = inputs["clip"].parent
    return inputs


def _checkpoints(folder: Path) -> "Checkpoints":
    from pipelines.systems.checkpoints import Checkpoints  # and with it torch, which waits for the first job

    return Checkpoints(folder / CHECKPOINTS)


def _made(result: Result, work: Work) -> Made:
    files = {"video": result.video.name}
    if isinstance(work.task, Tune):
        files["tuned"] = "tuned"
    if isinstance(work.task, PoseToVideo):
        from pipelines.poses import pose_sequence

        files |= {kind: file.name for kind, file in pose_sequence.kept(result.video).items()}
    return Made(files, result.facts)
