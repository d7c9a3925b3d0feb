"""Whether the app is well, for whoever watches over it: no names, no paths, no secrets."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.serving.found import Found
from pipelines.serving.table import JobTable
from pipelines.serving.watch import Loop
from pipelines.settings import Settings

STUCK_SECONDS = 1800.0  # a worker that gives no sign of life for so long is taken for stuck


def report(
    loops: Sequence[Loop], table: JobTable, settings: Settings, folder: Path, notes: Sequence[str]
) -> dict[str, Any]:
    """What `GET /health` answers, "ok" being whether videos can be made; the `loops` of all slots must be well.

    Waits for no lock.
    """
    try:
        free = shutil.disk_usage(folder).free // 2**20
    except OSError:
        free = None
    disk = free is not None and free >= settings.disk_margin_mb
    alive, quiet = all(loop.alive for loop in loops), max(loop.quiet_seconds for loop in loops)
    worker = alive and quiet < STUCK_SECONDS
    return {
        "ok": worker and disk and not table.trouble,
        "worker": {
            "alive": alive,
            "last_beat_seconds": round(quiet, 1),
            "failed_rounds": sum(loop.failures for loop in loops),
            "restarts": sum(loop.restarts for loop in loops),
        },
        "disk": {"ok": disk, "free_mb": free, "needed_mb": settings.disk_margin_mb},
        "table": table.trouble or "ok",
        "found": Found(settings.data).count(),
        "notes": list(notes),
    }
