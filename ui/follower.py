"""Following jobs: from how a visitor's jobs stand to all that a place on the page shows of them.

A place asks again and again while a job of its kinds goes on, and every answer holds the whole truth of its buttons,
messages and videos: whatever the page has missed, be it an answer that was lost, a reload, a second tab or a phone that
slept, the next answer mends. Closing the page only ends the asking.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import gradio as gr

from pipelines.events import Failed, Result
from pipelines.serving.backend import Backend
from pipelines.serving.job import Job
from pipelines.tasks import Grid
from ui import html, visitor
from ui.estimates import Ahead
from ui.languages import say
from ui.stream import WAITING, Moment

OFTEN, SELDOM = 1.0, 8.0  # seconds between two questions while a job goes on, and while nothing is known of any
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True)
class Followed:
    """What a page keeps of the jobs that a place follows."""

    jobs: tuple[str, ...] = ()  # since nothing went on, in the order in which they are made
    seen: frozenset[str] = frozenset()  # those of them whose video has been on the stage
    left: float | None = None  # seconds that were last told to be left
    again: int = 0  # how often they had begun anew by then, after a worker died


@dataclass(frozen=True)
class View:
    """How the jobs of a place stand: all that it shows follows from this."""

    owner: str
    shown: Job | None = None  # whose video is on the stage
    going: tuple[Job, ...] = ()  # that wait or run, the one that is made now first
    paused: tuple[Job, ...] = ()
    moment: Moment = field(default_factory=Moment)  # of the first of those that go on, or else of the paused ones
    failed: tuple[Failed, ...] = ()  # how those ended that made no video
    about: tuple = ()  # what else the place depends on: the values of its `depends`

    @property
    def unfinished(self) -> tuple[Job, ...]:
        """That of the `moment` first."""
        return (*self.going, *self.paused)

    @property
    def stopping(self) -> bool:
        return bool(self.going) and self.going[0].stopping

    @property
    def pausing(self) -> bool:
        return bool(self.going) and self.going[0].pausing


class Hold:
    """The buttons that pause, and resume, all that is made at one place."""

    def __init__(self, name: str):
        """Builds them where it is called; `name` is the place's own."""
        self.pause = gr.Button(say("Pause"), size="lg", visible=False, elem_id=f"{name}-pause")
        self.resume = gr.Button(say("Resume"), size="lg", visible=False, elem_id=f"{name}-resume")

    @property
    def buttons(self) -> list[gr.components.Component]:
        """What `state` updates."""
        return [self.pause, self.resume]

    def state(self, view: View) -> dict:
        """One of them is there while something goes on, or is paused."""
        told = say("Pausing…") if view.pausing else say("Pause")
        return {
            self.pause: gr.Button(told, interactive=not view.pausing, visible=bool(view.going)),
            self.resume: gr.Button(visible=bool(view.paused) and not view.going),
        }


class Stage(ABC):
    """A place that shows how jobs of some kinds go, and the video of the last of them."""

    KINDS: ClassVar[tuple[type, ...]]  # of tasks

    def __init__(self, backend: Backend, owner: gr.BrowserState, *depends: gr.State):
        """Builds what it remembers; the Blocks must be open. What it shows may depend on other states, too."""
        self.backend, self.owner, self.depends = backend, owner, depends
        self.followed = gr.State(Followed())
        self.shown = gr.State("")  # the job whose video is on the stage; "" for none
        self.clock = gr.Timer(OFTEN, active=False)
        self.foretold: Ahead | None = None  # what its button will take, where it says so

    @abstractmethod
    def state(self, view: View) -> dict:
        """The updates of everything that it shows, whatever it showed before."""

    @property
    @abstractmethod
    def outputs(self) -> list[gr.components.Component]:
        """What `state` updates."""

    @property
    def all_outputs(self) -> list[gr.components.Component]:
        """What `updates` updates."""
        return [self.followed, self.shown, self.clock, *self.outputs]

    def belongs(self, job: Job, visitor_id: str, *about: object) -> bool:
        """Whether it shows how this job goes."""
        return isinstance(job.task, self.KINDS)

    def fruitful(self, job: Job, visitor_id: str) -> bool:
        """Whether something came of a job that has ended."""
        return isinstance(job.end, Result)

    def updates(
        self,
        visitor_id: str,
        followed: object = None,
        shown: object = "",
        *about: object,
        new: Sequence[str] = (),
    ) -> dict:
        """How things stand now; `new` jobs are begun by this very page."""
        followed = followed if isinstance(followed, Followed) else Followed()
        unfinished = self.unfinished(visitor_id, *about)
        going = {job.id: job for job in unfinished if not job.paused}
        paused = tuple(job for job in unfinished if job.paused)
        before = followed.jobs if any(one in going for one in followed.jobs) or not new else ()
        jobs = tuple(dict.fromkeys((*before, *new, *(job.id for job in unfinished))))
        ended = [job for job in self._look_up(jobs, visitor_id) if job.end is not None]
        made = [job for job in ended if self.fruitful(job, visitor_id)]
        for job in made:
            shown = shown if job.id in followed.seen else job.id
        moment, left = moment_of(jobs, going, ended, paused), None
        again = sum(max(job.attempts - 1, 0) for job in going.values())
        # A countdown goes up only where jobs were added, or where one of them has lost what was done.
        if going and not new and set(going) <= set(followed.jobs) and again <= followed.again:
            left = followed.left
        if going and moment.progress is not None and moment.progress.stage != WAITING:
            told = [one for one in (left, moment.progress.seconds_left) if one is not None]
            left = min(told) if told else None
            moment = _with_left(moment, left)
        view = View(
            visitor_id,
            next(self._look_up([shown], visitor_id), None) if isinstance(shown, str) and shown else None,
            tuple(going.values()),
            paused,
            moment,
            tuple(job.end for job in ended if isinstance(job.end, Failed)),
            about,
        )
        return {
            self.followed: Followed(jobs, followed.seen - going.keys() | {job.id for job in made}, left, again),
            self.shown: view.shown.id if view.shown else "",
            self.clock: gr.Timer(OFTEN if going else SELDOM, active=bool(unfinished)),
            **self.state(view),
        }

    def unfinished(self, visitor_id: str, *about: object) -> list[Job]:
        """The jobs that belong here: what is made now first, then what waits, then what is paused."""
        jobs = [job for job in self.backend.jobs.unfinished(visitor_id) if self.belongs(job, visitor_id, *about)]
        return sorted(jobs, key=lambda job: (job.paused, job.waits))

    def _look_up(self, jobs: Sequence[str], visitor_id: str) -> Iterator[Job]:
        for one in jobs:
            try:
                yield self.backend.jobs.get(one, visitor_id)
            except ValueError:  # deleted meanwhile
                continue

    def stop_all(self, visitor_id: str, followed: object, shown: object, *about: object) -> dict:
        """Stops all that goes on here, the last first: a grid is not to be made of what is left."""
        for job in reversed(self.unfinished(visitor_id, *about)):
            self.backend.jobs.cancel(job.id, visitor_id)
        return self.updates(visitor_id, followed, shown, *about)

    def pause_all(self, visitor_id: str, followed: object, shown: object, *about: object) -> dict:
        """Pauses all that goes on here, the last first: none is to begin in place of another."""
        for job in reversed(self.unfinished(visitor_id, *about)):
            self.backend.jobs.pause(job.id, visitor_id)
        return self.updates(visitor_id, followed, shown, *about)

    def resume_all(self, visitor_id: str, followed: object, shown: object, *about: object) -> dict:
        """Resumes all that is paused here. Raises ValueError, in words for the visitor, where that can't be."""
        for job in self.unfinished(visitor_id, *about):
            self.backend.jobs.resume(job.id, visitor_id, visitor.ADDRESS.get())
        return self.updates(visitor_id, followed, shown, *about)

    def act_on_one(self, visitor_id: str, event: gr.EventData) -> gr.Timer:
        """Does what a button of one job says. Raises ValueError where that is none of the visitor's, or is too late."""
        if not act_on_job(self.backend, visitor_id, event):
            self.backend.jobs.move(event.job, visitor_id, event.act)
        return gr.Timer(OFTEN, active=True)

    @property
    def asked(self) -> list[gr.components.Component]:
        """What `updates`, `stop_all` and the like are called with."""
        return [self.owner, self.followed, self.shown, *self.depends]

    def connect(
        self, stop: gr.Button, hold: Hold, waiting: gr.HTML | None = None, foretold: Ahead | None = None
    ) -> None:
        """Lets the page ask how things stand, `stop` and `hold` act on all that goes on, and the buttons in `waiting`
        on one. What is `foretold` beside its button Watch keeps right."""
        lively = {"inputs": self.asked, "outputs": self.all_outputs}
        lively |= {"concurrency_limit": None, **QUIET}
        self.foretold = foretold
        self.clock.tick(self.updates, **lively)  # in the queue: else gradio does not tell that a gr.State changed
        stop.click(self.stop_all, **lively)
        hold.pause.click(self.pause_all, **lively)
        hold.resume.click(self.resume_all, **lively)
        if waiting is not None:
            waiting.click(self.act_on_one, self.owner, self.clock, concurrency_limit=None, **QUIET)


def act_on_job(backend: Backend, visitor_id: str, event: gr.EventData) -> bool:
    """Does what a button of a job in a list says; returns False where that is none of these. Raises ValueError where
    the job is none of the visitor's, or can't be resumed now."""
    if event.act == "stop":
        backend.jobs.cancel(event.job, visitor_id)
    elif event.act == "pause":
        backend.jobs.pause(event.job, visitor_id)
    elif event.act == "resume":
        backend.jobs.resume(event.job, visitor_id, visitor.ADDRESS.get())
    else:
        return False
    return True


def ends(message: gr.HTML, view: View) -> dict:
    """The update of `message` that tells how the last job without a video ended."""
    if not view.failed:
        return {message: gr.HTML(visible=False)}
    last = view.failed[-1]
    return {message: gr.HTML(html.stopped(last.message) if last.stopped else html.failure(last.message), visible=True)}


def progress(line: gr.HTML, waiting: gr.HTML, view: View) -> dict:
    """The updates that tell how far the job is that is made now, and which wait or are paused."""
    return {
        line: html.footlights(view.moment) if view.unfinished else "",
        waiting: html.making(view.unfinished[1:], movable=True),
    }


def forgets(problem: gr.HTML, *changes: Any) -> None:
    """Hides the `problem` that was told at any of the `changes`: events, or controls that a visitor sets.

    The browser does it: an answer of the server could come after that to the next press, and take away what this found
    wrong. To be called before all else that listens to them: gradio asks one listener after the other, and waits for
    each."""
    events = [getattr(one, "input", None) if isinstance(one, gr.components.Component) else one for one in changes]
    events = [one for one in events if one is not None]  # nobody sets a gr.State by hand
    gr.on(events, None, None, problem, js="() => ({__type__: 'update', visible: false})", queue=False, **QUIET)


def halting(view: View) -> gr.Button:
    """The button that stops what goes on or is paused: it is there while something is."""
    if view.stopping:
        return gr.Button(say("Stopping…"), interactive=False, visible=True)
    return gr.Button(say("Stop"), interactive=True, visible=bool(view.unfinished))


class Watch:
    """Looks whether anything goes on that no place on the page follows yet, and what their buttons will take now.

    It does so now and then, when the page is seen again (assets/awake.js), and, in the queue and so on a stream of
    events, where the answers to other questions are missing (assets/answers.js).
    """

    def __init__(self, backend: Backend, owner: gr.BrowserState, stages: Sequence[Stage]):
        """Builds itself in the Blocks that is open."""
        self.backend, self.stages = backend, stages
        clock, again = gr.Timer(SELDOM), gr.Button(elem_id="look-again", elem_classes="unseen")
        self.told = [stage.foretold for stage in stages if stage.foretold]
        looks = {"fn": self.look, "inputs": [owner, *(one.tasks for one in self.told)], **QUIET}
        looks["outputs"] = [*(stage.clock for stage in stages), *(one.line for one in self.told)]
        clock.tick(queue=False, **looks)
        again.click(concurrency_limit=None, trigger_mode="multiple", **looks)

    def look(self, visitor_id: str, *foreseen: object) -> dict:
        """Has those places ask to which a job belongs, and tells what was `foreseen` to how things stand now."""
        going = self.backend.jobs.unfinished(visitor.known(visitor_id))
        updates = {self.stages[0].clock: gr.skip()}  # gradio takes no answer without any
        for stage in self.stages:
            if any(isinstance(job.task, stage.KINDS) for job in going):
                updates[stage.clock] = gr.Timer(active=True)
        for ahead, tasks in zip(self.told, foreseen, strict=True):
            updates |= ahead.again(tasks)
        return updates


def moment_of(jobs: Sequence[str], going: dict[str, Job], ended: Sequence[Job], paused: Sequence[Job] = ()) -> Moment:
    """That of the job which is made now, or else the next, or else of a paused one; a grid is not counted among its
    videos."""
    current = next(iter(going.values()), None)
    if current is None:
        return next((Moment(one.progress, one.preview, one.losses, paused=True) for one in paused), Moment())
    counted = [job for job in (*ended, *going.values()) if not isinstance(job.task, Grid)]
    place = min(sum(job.id not in going for job in counted) + 1, max(len(counted), 1)), max(len(counted), 1)
    for job in going.values():
        if isinstance(job.task, Grid) and current.id in job.task.jobs:  # true also where the page came later
            place = job.task.jobs.index(current.id) + 1, len(job.task.jobs)
    moment = Moment(current.progress, current.preview, current.losses, None, place)
    waiting = [job for job in going.values() if job.waits]
    if not waiting or current.waits:
        return moment
    ends = []
    for job in waiting:
        turn = job.progress.seconds_left if job.progress else None
        if turn is None or job.expected is None:
            return _with_left(moment, None)
        ends.append(turn + job.expected)
    return _with_left(moment, max(ends))


def _with_left(moment: Moment, seconds: float | None) -> Moment:
    """`moment` with the seconds that are left of all jobs."""
    if moment.progress is None:
        return moment
    return replace(moment, progress=replace(moment.progress, seconds_left=seconds))
