"""A Ray cluster of two machines, which this one plays: whatever of it dies, no job is lost, and none begins anew."""

import os
import signal
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
import scripted_ray
from scripted_ray import PATIENCE, wait_for
from test_executors import CATALOG, told, work

from pipelines.serving.executor import CHECKPOINTS, Made, WorkerDied
from pipelines.serving.ray_actor import WAITING
from pipelines.serving.ray_executor import RayExecutor
from pipelines.settings import Settings

pytestmark = pytest.mark.ray
SILENT_SECONDS = 6


@pytest.fixture(scope="module")
def cluster():
    """Its first machine has no room for a worker."""
    ray = scripted_ray.installed()
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": scripted_ray.STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    environment = scripted_ray.ENVIRONMENT
    ray.init(address=cluster.address, namespace="marionette", log_to_driver=False, runtime_env=environment)
    cluster.add = lambda: cluster.add_node(num_cpus=2, **store)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def executor(cluster, tmp_path_factory):
    settings = Settings(data=tmp_path_factory.mktemp("data"), device="cpu", hub=False, ray="auto")
    with closing(RayExecutor(settings, CATALOG, scripted_ray.ScriptedWorker, SILENT_SECONDS)) as executor:
        yield executor


def ready(executor):
    return [slot.name for slot in executor.slots() if slot.ready]


def data_of(executor):
    return executor._settings.data


def process_of(executor, slot):
    """The process of the actor behind a slot."""
    return executor._ray.get(executor.workers[int(slot)]._actor.process.options(concurrency_group="control").remote())


def begun(executor, asked, slot):
    """`asked`, of which a checkpoint has come."""
    events = executor.run(asked, slot)
    kept = asked.folder(data_of(executor)) / CHECKPOINTS
    end = time.monotonic() + PATIENCE
    while not list(kept.glob("*.safetensors")):
        assert time.monotonic() < end
        next(events)
    return events


def test_without_a_machine_that_can_work_the_slot_waits_and_with_one_it_works(executor, cluster):
    assert [(slot.device, slot.ready) for slot in executor.slots()] == [(WAITING, False)]
    cluster.add()
    wait_for(lambda: ready(executor))
    (slot,) = executor.slots()
    assert " on " in slot.device
    assert isinstance(list(executor.run(work(), slot.name))[-1], Made)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_job_whose_worker_is_killed_or_silent_goes_on_with_the_same_latents(executor, how):
    whole = told(executor, work("slowly"))[-1].facts
    asked = work("slowly")
    with closing(begun(executor, asked, "0")) as events:
        first = process_of(executor, "0")
        os.kill(first, how)
        with pytest.raises(WorkerDied) as died:
            for _ in events:
                pass
    assert not died.value.for_memory and not ready(executor)
    again = told(executor, asked)[-1].facts
    assert again["from"] > 0 and again["latents"] == whole["latents"]
    assert process_of(executor, "0") != first


def test_a_job_whose_machine_is_gone_goes_on_on_another(executor, cluster):
    whole = list(executor.run(work("slowly"), "0"))[-1].facts
    node = cluster.add()
    wait_for(lambda: ready(executor) == ["0", "1"])
    asked = work("slowly")
    with closing(begun(executor, asked, "1")) as events:
        cluster.remove_node(node, allow_graceful=False)
        with pytest.raises(WorkerDied):
            for _ in events:
                pass
    wait_for(lambda: len(executor.slots()) == 1)
    again = told(executor, asked)[-1].facts
    assert again["from"] > 0 and again["latents"] == whole["latents"]


def test_a_worker_of_an_app_that_was_killed_is_found_again_and_drops_its_work(executor, tmp_path):
    steps = tmp_path / "steps"
    events = executor.run(work(str(steps)), "0")
    wait_for(steps.exists)
    worker = executor.workers[0]
    process, worker.era = process_of(executor, "0"), "another app"
    wait_for(lambda: steps.read_text().endswith("ended\n"))
    events.close()
    assert isinstance(list(executor.run(work(), "0"))[-1], Made)
    assert process_of(executor, "0") == process


def test_a_worker_that_ends_leaves_no_file_and_is_started_again_for_work(executor):
    folders = Path(tempfile.gettempdir()).glob(f"marionette-{executor._app}-0-*")
    (folder,) = folders
    executor.rest("0")
    assert not folder.exists() and ready(executor) == ["0"]
    assert isinstance(list(executor.run(work(), "0"))[-1], Made)
