"""What a dancer will follow, looked for and shown before anything is generated."""

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pipelines.cards import ModelCard
from pipelines.events import Progress
from pipelines.messages import said
from pipelines.pose_tasks import FindPoses
from pipelines.serving.executor import Executor, Work
from pipelines.serving.inputs import Inputs
from pipelines.serving.run import Run
from pipelines.tasks import PoseToVideo

if TYPE_CHECKING:  # they come with OpenCV
    from pipelines.poses.pose_preview import Found, PosePreview

WAITING = Progress(said("Waiting for another search to end"), 0, 1)


class Previews:
    """Looks for people in one clip after another, in a thread of its own: whoever waits for it may go away.

    At most one search per owner goes on, the latest; the one before it is given up.
    """

    def __init__(self, catalog: Mapping[str, ModelCard], inputs: Inputs, executor: Executor):
        self._catalog, self._inputs, self._executor = catalog, inputs, executor
        self._thread = ThreadPoolExecutor(1, "pose_preview")
        self._latest: dict[str, Run] = {}

    def poses(self, task: PoseToVideo, owner: str) -> "Generator[Progress | None, None, PosePreview | None]":
        """The skeletons that the dancer of `task` would follow, without generating anything.

        Tells of progress as `Jobs.events` does, and returns them, or None where it was stopped. Who was found is
        remembered for the video. Another search of the same owner stops this one; so does closing the generator.
        Raises ValueError, in words for the person who asked, where there is nobody to follow.
        """
        task = task.checked(self._catalog)
        found = self._inputs.of(task, owner)
        work = Work(task, {"clip": found["clip"]} if "clip" in found else {})
        if work.assets:
            return self._search(work, owner)
        self.stop(owner)
        return self._executor.look(work)  # a motion of the library is read at once

    def find(self, task: FindPoses, owner: str) -> "Generator[Progress | None, None, Found | None]":
        """The joints of everybody in the clip of `task`, told of and stopped as `poses` are."""
        return self._search(Work(task, self._inputs.of(task, owner)), owner)

    def stop(self, owner: str) -> None:
        """Stops the owner's search within a frame, if there is one."""
        if search := self._latest.get(owner):
            search.stop()

    def close(self) -> None:
        for search in list(self._latest.values()):
            search.stop()
        self._thread.shutdown(cancel_futures=True)

    def _search(self, work: Work, owner: str) -> Generator[Progress | None, None, Any]:
        self.stop(owner)
        found: list[Any] = []

        def look(tell: Callable[[Progress], None]) -> None:
            with closing(self._executor.look(work)) as events:
                while True:
                    try:
                        event = next(events)
                    except StopIteration as finished:
                        found.append(finished.value)
                        return
                    tell(event)

        search = self._latest[owner] = Run(look)
        self._thread.submit(search.work)
        try:
            yield WAITING
            yield from search
            return found[0] if found else None
        finally:
            search.stop()
            if self._latest.get(owner) is search:
                del self._latest[owner]
