"""What is uploaded in an attack: 100 honest inputs and 200 hostile ones, each made by a few lines when it is wanted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

EITHER, REFUSED, ACCEPTED = "either", "refused", "accepted"
CLIP, IMAGE, POSES, RESTORE = "clip", "image", "poses", "restore"  # where on the page it is uploaded


@dataclass(frozen=True)
class Input:
    """One file. It is made when it is wanted: together they would take a gigabyte."""

    name: str  # of the file, too
    place: str  # CLIP, IMAGE, POSES or RESTORE
    make: Callable[[], bytes]
    right: str  # what the app should do with it: what is hostile may be read, if it does no harm


def honest() -> list[Input]:
    from scripts.attack import honest_files

    return _checked(honest_files.inputs(), 100)


def hostile() -> list[Input]:
    from scripts.attack import hostile_files, hostile_keypoints

    return _checked([*hostile_files.inputs(), *hostile_keypoints.inputs()], 200)


def _checked(inputs: Iterator[Input] | list[Input], count: int) -> list[Input]:
    inputs = list(inputs)
    if len(inputs) != count or len({one.name for one in inputs}) != count:
        raise AssertionError(f"The corpus has {len(inputs)} inputs, and {count} are promised.")
    return inputs
