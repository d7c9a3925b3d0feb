"""Jobs, as their owners see them: what the page asks about what is waiting, running and done."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from pipelines.cards import ModelCard
from pipelines.events import Event, Result
from pipelines.messages import said
from pipelines.serving.dispatcher import STOPPED, Dispatcher
from pipelines.serving.executor import Executor
from pipelines.serving.inputs import Inputs
from pipelines.serving.job import Job, new_id
from pipelines.serving.storage import Storage
from pipelines.serving.table import JobTable
from pipelines.tasks import Grid, Task, TextToVideo, Tune


class Jobs:
    """Queues tasks, and tells how they go. Every method that takes a job raises ValueError for one of somebody else."""

    def __init__(
        self,
        catalog: Mapping[str, ModelCard],
        table: JobTable,
        storage: Storage,
        inputs: Inputs,
        dispatcher: Dispatcher,
        executor: Executor,
    ):
        self._catalog, self._table, self._storage = catalog, table, storage
        self._inputs, self._dispatcher, self._executor = inputs, dispatcher, executor

    def submit(self, task: Task, owner: str, address: str = "") -> str:
        """Queues `task` and returns the job's id. Raises ValueError for a bad task or a full queue or disk.

        `address` is the network address that asks, "" where it is not known: it has a limit too.
        """
        return self._queue({new_id(): self._admitted(task, owner)}, owner, address)[0]

    def submit_grid(self, tasks: Sequence[TextToVideo], owner: str, address: str = "") -> list[str]:
        """Queues `tasks`, which differ in prompt and seed, row after row, and then what lays their videos side by side.

        Returns the jobs' ids, that of the grid last. Raises ValueError as `submit` does; then none is queued.
        """
        admitted: dict[str, Task] = {new_id(): self._admitted(task, owner) for task in tasks}
        prompts, seeds = dict.fromkeys(task.prompt for task in tasks), dict.fromkeys(task.seed for task in tasks)
        grid = Grid.for_videos(tasks[0], "\n".join(prompts), list(seeds), list(admitted))
        return self._queue(admitted | {new_id(): grid}, owner, address)

    def events(self, job: str, owner: str) -> Iterator[Event | None]:
        """What happened to `job` and what happens next, up to and including its Result or Failed.

        None stands for a quarter of a second in which nothing happened, so that a listener can look up and leave.
        A listener that comes late or reads slowly gets the latest of each kind of event, not all of them.
        """
        return self._follow(self._table.get(job, owner))

    def unfinished(self, owner: str) -> list[Job]:
        """The owner's jobs that have not ended, oldest first: what a page that is opened again goes on following."""
        return self._table.unfinished(owner)

    def finished(
        self,
        owner: str,
        search: str = "",
        limit: int = -1,
        offset: int = 0,
        kind: str = "",
        favourites: bool = False,
    ) -> list[Job]:
        """The owner's videos (of a `kind` of task, or only the `favourites`) whose prompts hold every word of
        `search`, newest first."""
        return self._table.finished(owner, search, limit, offset, kind, favourites)

    def get(self, job: str, owner: str) -> Job:
        """The job as it is now."""
        return self._table.get(job, owner)

    def cancel(self, job: str, owner: str) -> None:
        """Ends a job that waits or is paused; a running one ends within one denoising step. Its end is
        Failed(stopped=True). Does nothing to a job that has ended."""
        found = self._table.get(job, owner)
        if self._table.stop(found.id, STOPPED):
            self._executor.forget(found.id)
            if not isinstance(found.task, Tune):  # what is tuned so far can be used
                self._storage.clear(found.id)

    def pause(self, job: str, owner: str) -> None:
        """Takes a waiting job off the queue until it is resumed; a running one stops within one denoising step, and
        will go on from there. Does nothing to a job that is paused or has ended."""
        found = self._table.get(job, owner)
        if self._table.pause(found.id):
            self._executor.forget(found.id)

    def resume(self, job: str, owner: str, address: str = "") -> None:
        """Queues a paused job once more. Does nothing to a job that is not paused.

        Raises ValueError as `submit` does, also where what it works on was deleted meanwhile.
        """
        found = self._table.get(job, owner)
        if found.paused:
            self._admitted(found.task, owner)
        with self._executor.asking([found.id]) if found.paused else nullcontext():
            self._table.resume(found.id, address)

    def move(self, job: str, owner: str, way: str) -> None:
        """Has a waiting job change places with the owner's next one "up" or "down" the queue; places of others stay.

        Raises ValueError where it does not wait any more, or where a grid would come before its videos.
        """
        if way not in ("up", "down"):
            raise ValueError(said("A job moves up or down."))
        self._table.move(self._table.get(job, owner).id, -1 if way == "up" else 1)

    def delete(self, job: str, owner: str) -> None:
        """Deletes a finished job and all its files. Raises ValueError where it has not ended."""
        self._storage.delete(self._table.get(job, owner))

    def favour(self, job: str, owner: str, favourite: bool) -> None:
        """Notes whether a finished video is a favourite. Raises ValueError where there is no video."""
        found = self._table.get(job, owner)
        if not isinstance(found.end, Result):
            raise ValueError(said("Only a finished video can be a favourite."))
        self._table.favour(found.id, favourite)

    def export(self, job: str, owner: str, kind: str) -> Path:
        """The video of a finished job as "mp4", "gif" or "webm", made when it is first asked for. Raises ValueError
        where there is no video."""
        return self._storage.export(self._table.get(job, owner), kind)

    def poster(self, job: str, owner: str) -> Path:
        """A small picture of a finished job's video."""
        return self._storage.poster(self._table.get(job, owner))

    def companions(self, job: str, owner: str) -> dict[str, Path]:
        """What is kept with a finished video that followed poses: MP4 files of the "skeletons" and, where there was a
        clip, of its frames ("source"), as long as the video; "keypoints" as OpenPose's JSON where they are known."""
        from pipelines.poses import pose_sequence

        return pose_sequence.kept(self._storage.place(self._table.get(job, owner)))

    def _admitted(self, task: Task, owner: str) -> Task:
        """The task, validated. Raises ValueError where it can't be taken on."""
        if self._dispatcher.closing:
            raise ValueError(said("The app is shutting down. Try again when it is back."))
        self._executor.check(task)
        task = task.checked(self._catalog)
        self._inputs.of(task, owner)
        self._storage.check_space()
        return task

    def _queue(self, tasks: Mapping[str, Task], owner: str, address: str) -> list[str]:
        with self._executor.asking(list(tasks)):
            return [job.id for job in self._table.add_all(tasks, owner, address)]

    def _follow(self, job: Job) -> Iterator[Event | None]:
        told: tuple[Event, ...] = ()
        while True:
            news = [event for event in job.events if not any(event is old for old in told)]
            yield from news
            told = job.events
            if job.end is not None:
                self._storage.show(job.id)
                return
            job = self._table.wait(seen := job, seconds=0.25)
            if job is seen:
                yield None
