"""How the files of a model lie in its folder: a file a layout, and each is told by the names of the files.

A layout says which files a part lies in, what to download of a repository, and how config and weights are read.
"""

from collections.abc import Collection
from pathlib import Path

from pipelines.models.layouts.diffusers import Diffusers
from pipelines.models.layouts.followyourpose import FollowYourPose
from pipelines.models.layouts.modelscope import ModelScope
from pipelines.models.layouts.msgpack import Msgpack

LAYOUTS: tuple[Diffusers, ...] = (ModelScope(), FollowYourPose(), Msgpack(), Diffusers())  # the first that fits


def layout_of_names(names: Collection[str]) -> Diffusers:
    """The layout of a model with files of these `names`, relative to its folder."""
    return next(layout for layout in LAYOUTS if layout.recognises(names))


def layout_of(folder: Path) -> Diffusers:
    """The layout of the model in `folder`; diffusers' where nothing tells of another."""
    return layout_of_names({path.relative_to(folder).as_posix() for way in ("*", "*/*") for path in folder.glob(way)})
