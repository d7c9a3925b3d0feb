"""Takes jobs from the table to the executor, and what comes of them back to the table and the disk."""

import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from pipelines.cards import ModelCard
from pipelines.errors import log_error
from pipelines.events import Failed, Progress, Result
from pipelines.messages import said
from pipelines.serving import fairness, load_time, tidy
from pipelines.serving.content import Contents
from pipelines.serving.executor import Executor, Made, Slot, Work, WorkerDied
from pipelines.serving.inputs import Inputs
from pipelines.serving.job import Job
from pipelines.serving.metrics import Counts
from pipelines.serving.runner import Pace
from pipelines.serving.storage import Storage
from pipelines.serving.table import JobTable
from pipelines.serving.watch import Loop
from pipelines.tasks import Finish, Grid, Task, Tune

STOPPED = said("Stopped.")
DIED = said("The process that made this video ended twice. Try again, or try other settings.")
DIED_FOR_MEMORY = said(
    "The memory of this machine was too small for this video, twice. Try fewer frames or a smaller size."
)
LOOK_SECONDS = 0.25  # from one look for a job to the next, where nothing changes
CLOSING_SECONDS = 5.0  # that the running jobs have to end in when the app is ended


class Dispatcher:
    """A watched loop for each slot of the executor: it takes the next job, and follows it to its end."""

    def __init__(
        self,
        catalog: Mapping[str, ModelCard],
        table: JobTable,
        storage: Storage,
        inputs: Inputs,
        contents: Contents,
        executor: Executor,
        drained: Container[str],
        estimate: Callable[[Task], float | None],
        loading: Callable[[Task, Slot], float],
        tidy_up: Callable[[], bool],
    ):
        """Slots that are `drained` take no further job, which may change at any time. `estimate` tells the seconds that
        a task will take, and `loading` those that a slot first takes to load its model; `tidy_up` is called now and
        then, and returns whether it wants to be called again soon."""
        self._catalog, self._table, self._storage = catalog, table, storage
        self._inputs, self._contents, self._executor = inputs, contents, executor
        self._drained, self._estimate, self._loading, self._tidy_up = drained, estimate, loading, tidy_up
        self._next_tidy = time.monotonic() + tidy.FIRST_SECONDS
        self._tidying = threading.Lock()
        self._idle: set[str] = set()  # slots that look for a job; this and the next change under the table's lock
        self._passed: dict[str, int] = {}  # jobs whose turn it was: how often another one went first
        self.counts = Counts()
        self.running: dict[str, str] = {}  # jobs by the slot that is at them
        self._past: dict[tuple, dict[str, float]] = {}  # seconds a stage took, by kind of job: see Pace
        self.closing = False
        self._paused = False
        self._adding = threading.Lock()
        self.loops = {slot.name: Loop(partial(self._turn, slot.name)) for slot in executor.slots()}

    def start(self) -> None:
        for loop in list(self.loops.values()):
            loop.start()

    def pause(self, seconds: float | None = None) -> bool:
        """Takes no further job. Waits for those that run, up to `seconds`; returns whether they have ended."""
        with self._adding:
            self._paused = True
        loops = list(self.loops.values())
        for loop in loops:
            loop.end()
        end = None if seconds is None else time.monotonic() + seconds
        waits = [loop.join(None if end is None else max(0.0, end - time.monotonic())) for loop in loops]
        return all(waits)

    def close(self) -> None:
        """Puts the jobs that run back into the queue, as if they had not begun."""
        self.closing = True
        if not self.pause(CLOSING_SECONDS):  # one is in the middle of something that can't be interrupted
            for job in self._table.unfinished():
                self._table.interrupt(job.id)

    def _turn(self, slot: str) -> None:
        """One turn of a slot's loop: what is due of the tidying, and a job if one waits."""
        if time.monotonic() > self._next_tidy and self._tidying.acquire(blocking=False):
            try:
                self._next_tidy = time.monotonic() + tidy.ROUND_SECONDS
                if self._tidy_up():
                    self._next_tidy = time.monotonic() + tidy.SOON_SECONDS
            finally:
                self._tidying.release()
        self._table.settle()
        slots = self._follow_slots()
        if slot not in slots or not slots[slot].ready:
            self._idle.discard(slot)
            time.sleep(LOOK_SECONDS)
            return
        if slot in self._drained:
            self._idle.discard(slot)
            self._executor.rest(slot)
            time.sleep(LOOK_SECONDS)
            return
        self._idle.add(slot)
        job = self._table.take(LOOK_SECONDS, partial(self._choose, slot))
        if job is not None:
            self.running[slot] = job.id
            try:
                self._run(job, slot)
            finally:
                del self.running[slot]

    def _follow_slots(self) -> dict[str, Slot]:
        """The slots that there are now, by name; each has a loop from now on."""
        slots = {one.name: one for one in self._executor.slots()}
        if slots.keys() - self.loops.keys():
            with self._adding:
                for name in slots.keys() - self.loops.keys():
                    if not self._paused:
                        self.loops = self.loops | {name: Loop(partial(self._turn, name))}
                        self.loops[name].start()
        return slots

    def _choose(self, slot: str, ready: Sequence[Job]) -> Job | None:
        """The job that `slot` begins; none of those whose model only another idle slot has loaded."""
        if not ready or slot in self._drained:  # asked at every change of the table
            return None
        slots = [one for one in self._executor.slots() if one.ready]
        loaded = {one.name: {name for held in one.models for name in held.models} for one in slots}
        if slot not in loaded:
            return None
        held_here = loaded[slot]
        elsewhere = {name for other in self._idle - {slot} for name in loaded.get(other, ())} - held_here
        models = {job.id: "" if isinstance(job.task, Finish | Grid) else job.task.model for job in ready}
        free = [job for job in ready if models[job.id] not in elsewhere]
        self._passed = {job: count for job, count in self._passed.items() if job in models}
        if not free:
            return None
        held = [models[job.id] in held_here for job in free]
        place = fairness.choice(held, self._passed.get(free[0].id, 0))
        for job in free[:place]:
            self._passed[job.id] = self._passed.get(job.id, 0) + 1
        self._idle.discard(slot)
        return free[place]

    def _run(self, job: Job, slot: str) -> None:
        """Runs the job to its end, whatever that is; nothing that goes wrong in it reaches the loop."""
        try:
            self._table.tell(job.id, self._result(job, slot))
            self.counts.ended["done"] += 1
            return
        except _Closing:
            self._table.interrupt(job.id)
            return  # its checkpoints stay, for when it is taken again
        except (_Paused, _Stopped) as why:
            if isinstance(why, _Paused) and self._table.set_aside(job.id, self._storage.goes_on(job)):
                return  # likewise
            self._table.tell(job.id, Failed(STOPPED, stopped=True))
            self.counts.ended["stopped"] += 1
        except WorkerDied as died:
            self.counts.deaths["memory" if died.for_memory else "other"] += 1
            if self._table.try_again(job.id, DIED_FOR_MEMORY if died.for_memory else DIED):
                return
            self.counts.ended["failed"] += 1
        except BaseException as error:  # a library may even call exit()
            self.counts.ended["failed"] += 1
            wrote = job.task.prompt, getattr(job.task, "negative_prompt", "")
            self._table.tell(job.id, Failed(log_error(error, f"Job {job.id}", wrote, said("the video was not made"))))
        if not isinstance(job.task, Tune):  # what is tuned so far can be used, and gone on from
            self._storage.clear(job.id)

    def _result(self, job: Job, slot: str) -> Result:
        """Has the job carried out. Raises what went wrong, or why it was not."""
        task = job.task.checked(self._catalog)  # it may be from before the app was updated
        self._storage.check_space()
        work = self._work(replace(job, task=task))
        place = next((one for one in self._executor.slots() if one.name == slot), Slot(slot, ""))
        pace = Pace(self._past.get(task.effort, {}), work.seconds, self._loading(task, place))
        with closing(self._executor.run(work, slot)) as events:
            for event in events:
                if isinstance(event, Made):
                    pace.end()
                    self._past[task.effort] = pace.taken
                    self.counts.seconds.update({str(stage): seconds for stage, seconds in pace.taken.items()})
                    facts = event.facts | {"working_seconds": pace.working}  # the measure of the next job like it
                    if not (isinstance(task, Finish | Grid) or place.holds(task.model) or place.since and place.fresh):
                        facts |= {load_time.fact(place): pace.loading}  # likewise
                    return self._storage.keep(job, replace(event, facts=facts))
                if event is not None:
                    self.loops[slot].beat()
                    self._table.tell(job.id, pace.estimate(event) if isinstance(event, Progress) else event)
                self._follow_slots()  # all the others may be at work as well
                now = self._table.get(job.id)
                if now.stopping:
                    raise _Stopped
                if now.pausing:
                    raise _Paused
                if self.closing:
                    raise _Closing
        raise AssertionError("what is made ends with Made")

    def _work(self, job: Job) -> Work:
        assets = self._inputs.of(job.task, job.owner)
        public = self._contents.public(job.task, job.owner)  # what is made of it may leave the app
        return Work(public, assets, job.id, self._storage.place(job).name, self._estimate(job.task))


class _Stopped(BaseException):
    """Somebody pressed Stop. Not an Exception, so that no library on the way takes it for a failure of its own."""


class _Paused(BaseException):
    """Somebody pressed Pause."""


class _Closing(BaseException):
    """The app is being shut down."""
