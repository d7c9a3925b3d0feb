"""What workers.py measures, on a Ray cluster that has as many cores as it says, since steps only sleep."""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from pipelines.serving.processes import ROOT
from pipelines.serving.ray_executor import CORES, RayExecutor
from pipelines.serving.remote_worker import RemoteWorker
from pipelines.settings import Settings
from scripts.benchmark import workers

PATIENCE = 120.0  # seconds, until all workers have started


class SimulatedWorker(RemoteWorker):
    """One whose device is simulated."""

    def __init__(self, *arguments: Any):
        import_module("scripts.benchmark.simulated")
        super().__init__(*arguments)


@contextmanager
def on_ray(settings: Settings, count: int) -> Iterator[RayExecutor]:
    """With so many workers, on a cluster of their own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = import_module("ray")
    options = {"object_store_memory": 200 * 2**20, "include_dashboard": False, "log_to_driver": False}
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init("local", num_cpus=CORES * count, namespace="marionette", runtime_env=environment, **options)
    try:
        executor = RayExecutor(settings, workers.CATALOG, SimulatedWorker)
        end = time.monotonic() + PATIENCE
        while [slot.ready for slot in executor.slots()] != [True] * count:
            if time.monotonic() > end:
                raise ValueError(f"Of {count} workers not all have started within {PATIENCE:.0f} s.")
            time.sleep(0.1)
        yield executor
    finally:
        ray.shutdown()


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    return workers.benchmark(options, on_ray)
