"""What the page asks: a few small objects over one job table, one data folder and one executor.

A visitor is known by an id, which `owners` makes an owner of; everything else knows owners only. Every job, clip, image
and tuned model belongs to an owner. To anybody else it does not exist: asked for one of somebody else, every method
raises the same ValueError as for one that is unknown.
"""

from collections.abc import Mapping
from functools import partial

from pipelines.cards import ModelCard
from pipelines.catalog import CATALOG
from pipelines.errors import log_error
from pipelines.media.images import Images
from pipelines.media.measuring import Clip
from pipelines.poses.pose_preview import PosePreview
from pipelines.serving import load_time, machine, recovery
from pipelines.serving.ages import Ages
from pipelines.serving.assets import Assets
from pipelines.serving.clip_storage import Clips, Kept
from pipelines.serving.content import Contents
from pipelines.serving.dispatcher import Dispatcher
from pipelines.serving.drained import Drained
from pipelines.serving.executor import Executor
from pipelines.serving.inputs import Inputs
from pipelines.serving.jobs import Jobs
from pipelines.serving.machine import Machine
from pipelines.serving.owners import Owners
from pipelines.serving.previews import Previews
from pipelines.serving.shown import Shown
from pipelines.serving.status import Status, Worker
from pipelines.serving.storage import Storage
from pipelines.serving.tidy import Tidy
from pipelines.serving.tunings import Tuning, Tunings
from pipelines.settings import Settings

# What the page may name.
__all__ = ["Backend", "Clip", "Kept", "Owners", "PosePreview", "Status", "Tuning", "Worker", "log_error"]


class Backend:
    """The app behind the page, on whatever `executor` runs jobs."""

    owners: Owners
    jobs: Jobs
    assets: Assets
    tunings: Tunings
    previews: Previews
    machine: Machine

    def __init__(self, settings: Settings, executor: Executor, catalog: Mapping[str, ModelCard] = CATALOG):
        """Goes on with the jobs in the data folder. Raises ValueError where another process uses that folder, and
        OSError where it can't be written."""
        self.settings = settings
        self.executor = executor
        self.owners = Owners(settings)
        self.table, notes = recovery.opened(settings)
        shown = Shown(settings)
        shown.clear()
        self.storage = Storage(settings, self.table)
        clips, images = Clips(settings), Images(settings)
        contents = Contents(self.table, self.storage, clips, images)
        self.tunings = Tunings(settings, catalog, self.table, self.storage, executor)
        inputs = Inputs(catalog, self.table, self.storage, clips, images, self.tunings)
        self.assets = Assets(settings, catalog, self.table, self.storage, clips, images, contents, shown)
        self.tidy = Tidy(settings, Ages(settings.data / "ages.json"), self.assets.things)
        estimate = partial(machine.estimated, catalog=catalog, table=self.table, executor=executor)
        self.table.estimate = estimate
        loading = partial(load_time.loading, settings=settings, catalog=catalog, table=self.table, executor=executor)
        drained, tidy_up = Drained(settings), self.tidy.round
        self.dispatcher = Dispatcher(
            catalog, self.table, self.storage, inputs, contents, executor, drained, estimate, loading, tidy_up
        )
        self.jobs = Jobs(catalog, self.table, self.storage, inputs, self.dispatcher, executor)
        self.previews = Previews(catalog, inputs, executor)
        self.machine = Machine(settings, catalog, self.table, executor, self.dispatcher, drained, notes)
        self.dispatcher.start()

    def close(self) -> None:
        """Ends the running jobs, to be made anew when the app is started again, and leaves the device."""
        self.dispatcher.closing = True
        self.previews.close()
        self.dispatcher.close()
        self.executor.close()
        self.table.close()
