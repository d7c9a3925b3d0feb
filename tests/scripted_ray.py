"""A Ray cluster on this machine, whose workers know the engine of test_executors.py."""

import os
import time
from importlib import import_module
from pathlib import Path

from pipelines.serving.ray_executor import RayExecutor
from pipelines.serving.remote_worker import RemoteWorker

TESTS = Path(__file__).parent
STORE_BYTES = 200 * 2**20
PATIENCE = 120  # seconds: a busy machine starts an actor slowly
# Here they need no upload of the code.
ENVIRONMENT = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}}


class ScriptedWorker(RemoteWorker):
    def __init__(self, *arguments):
        import_module("scripted_worker")
        super().__init__(*arguments)

    def process(self):
        return os.getpid()


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def executor(settings, catalog):
    """An executor with one worker, on a cluster that ends with it."""
    ray = installed()
    options = {"object_store_memory": STORE_BYTES, "include_dashboard": False, "log_to_driver": False}
    ray.init("local", num_cpus=2, namespace="marionette", runtime_env=ENVIRONMENT, **options)
    return RayExecutor(settings, catalog, ScriptedWorker)


def installed():
    """Ray, which pip install -r requirements-cluster.txt installs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    return import_module("ray")
