"""Tasks that make a video of others, without a model: a finished one, and a grid. Standard library only."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG
from pipelines.common_settings import PROMPT, SEED
from pipelines.messages import said
from pipelines.model_tasks import Edit, TextToVideo
from pipelines.pose_tasks import PoseToVideo
from pipelines.task_settings import Kept, OneOf, checked, declared, is_name, taskclass

CELLS = 16  # videos in a grid, at most
TIMES = (1, 2, 4)  # how many times as large, and as many frames, a video can be finished
FINISHED_SIDE, FINISHED_FRAMES = 2048, 256  # at most
FINISHED_FPS = 120  # up to which frames are added; a video that is faster stays as fast


class OfVideo:
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
class Finish(OfVideo):
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
        TextToVideo.for_model does, and where the result would be too large; whether it would have too many frames is
        known only of the video itself, which may have fewer than were asked for."""
        values = checked(cls, None, {"source": source, "upscale": upscale, "interpolate": interpolate})
        if not isinstance(of, TextToVideo | PoseToVideo | Edit | None):
            raise ValueError(
                said("Only videos that were made of a prompt can be finished. Choose the one it came from.")
            )
        if upscale == interpolate == 1:
            raise ValueError(said("Nothing would change. Choose a larger size, more smoothness, or both."))
        task = cls(**values, of=of)
        if of is not None:
            task.becomes(1, of.width, of.height, of.fps)
        return task

    def checked(self, catalog: Mapping[str, ModelCard] = CATALOG) -> "Finish":
        """The same task, validated once more; its video may be of a model that is not in `catalog` any more."""
        return self.for_video(self.of, self.source, self.upscale, self.interpolate)

    def of_made(self, made: object) -> "Finish":
        """The same of the video as it was `made`, perhaps with fewer frames than were asked for. Raises ValueError
        where more would come of it than can be made."""
        assert isinstance(made, TextToVideo | PoseToVideo | Edit), "nothing else is finished"
        self.becomes(made.frames, made.width, made.height, made.fps)
        return replace(self, of=made)

    def shape(self, frames: int, width: int, height: int, fps: float) -> tuple[int, int, int, float]:
        """As `becomes`, also of what is too much."""
        frames = (frames - 1) * self.interpolate + 1
        return frames, width * self.upscale, height * self.upscale, fps * self.interpolate

    def becomes(self, frames: int, width: int, height: int, fps: float) -> tuple[int, int, int, float]:
        """What comes of a video of that many frames, pixels and frames a second. Raises ValueError where that is more
        than can be made."""
        frames, width, height, fps = self.shape(frames, width, height, fps)
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
        if self.interpolate == 1 and frames > FINISHED_FRAMES:
            raise ValueError(
                said(
                    "{frames} frames are too many: a finished video has {most} at most. Choose a shorter one.",
                    frames=frames,
                    most=FINISHED_FRAMES,
                )
            )
        if self.interpolate > 1 and (frames > FINISHED_FRAMES or fps > FINISHED_FPS):
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
class Grid(OfVideo):
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
