"""The command line, looked on at: python -m scripts.full_size.measured REPORT.json COMMAND…

Writes as REPORT.json how long each part took to load, the facts of what was made, the most memory that the app planned
with and the most that was taken. Ends with the exit code of the command.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.__main__ import main
from pipelines.events import Result
from pipelines.models import manager
from pipelines.serving import runner

WANTED = ("seconds_per_step", "seconds_by_stage", "network_calls", "memory_saving", "device", "dtype")


def watched(arguments: list[str]) -> tuple[int, dict[str, Any]]:
    """The exit code of the command and the report."""
    report: dict[str, Any] = {"loading": {}, "predicted": 0, "facts": {}, "before": taken("VmRSS")}
    make = runner.make

    class Watched(manager.ModelManager):
        def __init__(self, *given: Any, **named: Any):
            super().__init__(*given, **named)
            report["before"] = taken("VmRSS")  # torch and the libraries are there by now

        @contextmanager
        def lease(self, name: str, working_bytes: int = 0, anywhere: bool = False) -> Iterator[Any]:
            began = time.perf_counter()
            with super().lease(name, working_bytes, anywhere) as module:
                report["loading"].setdefault(name.rpartition("/")[2], time.perf_counter() - began)
                held = sum(resident.bytes for resident in self.stats())
                report["predicted"] = max(report["predicted"], held + working_bytes)
                yield module

    def watched_make(*given: Any, **named: Any) -> Iterator[Any]:
        for event in make(*given, **named):
            if isinstance(event, Result):
                report["facts"] = {name: event.facts[name] for name in WANTED if name in event.facts}
                report["facts"]["seconds"] = event.facts["seconds"]
            yield event

    manager.ModelManager, runner.make = Watched, watched_make
    code = main(arguments)
    return code, report | {"taken": taken("VmHWM")}


def taken(which: str) -> int:
    """Bytes of main memory that this process takes now ("VmRSS"), or has taken at most ("VmHWM"), its mapped files
    included. Not ru_maxrss, which begins with the most that the parent process took. 0 where this is not Linux."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{which}:"))
    return 0


if __name__ == "__main__":
    code, report = watched(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps(report))
    sys.exit(code)
