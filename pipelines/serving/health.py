"""Whether the app is well, for whoever watches over it: no names, no paths, no secrets."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.serving.found import Found
from pipelines.serving.jobs import JobTable
from pipelines.serving.watch import Loop
from pipelines.settings import Settings

STUCK_SECONDS = 1800.0  # a worker that gives no sign of life for so long is taken for stuck


def report(loop: Loop, table: JobTable, settings: Settings, folder: Path, notes: Sequence[str]) -> dict[str, Any]:
    """What `GET /health` answers, "ok" being whether videos can be made. Waits for no lock."""
    try:
        free = shutil.disk_usage(folder).free // 2**20
    except OSError:
        free = None
    disk = free is not None and free >= settings.disk_margin_mb
    worker = loop.alive and loop.quiet_seconds < STUCK_SECONDS
    return {
        "ok": worker and disk and not table.trouble,
        "worker": {
            "alive": loop.alive,
            "last_beat_seconds": round(loop.quiet_seconds, 1),
            "failed_rounds": loop.failures,
            "restarts": loop.restarts,
        },
        "disk": {"ok": disk, "free_mb": free, "needed_mb": settings.disk_margin_mb},
        "table": table.trouble or "ok",
        "found": Found(settings.data).count(),
        "notes": list(notes),
    }
