"""Every system at full size, without its weights: python -m scripts.full_size wan modelscope --folder /tmp

Writes the complete folder of each published layout with random values of the right names, shapes and dtypes, makes a
short video of it by the command line, prints the seconds to load and for a step and the memory that it took against
what the app planned with, and deletes all of it again. One system at a time; those for which the disk or the memory is
too small are said to be. Without names: all of them, from the smallest, 4 GB, to 35 GB and hours on a small machine.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
from pipelines.models.manager import free_ram
from scripts.benchmark.measure import show
from scripts.full_size.layouts import SYSTEMS, Published

SPARE = 2 * 10**9  # bytes of memory and of disk that are to be left
ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Returns 1 where one of the systems made no video."""
    parser = argparse.ArgumentParser(prog="python -m scripts.full_size", description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"one of: {', '.join(SYSTEMS)}; all by default")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the disk has room")
    parser.add_argument("--tight", action="store_true", help="try also what may be too large for the memory")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing is left behind
    if unknown := set(options.systems) - SYSTEMS.keys():
        parser.error(f"There is no {', '.join(sorted(unknown))}. Choose of: {', '.join(SYSTEMS)}.")
    failed = False
    for name in options.systems or SYSTEMS:
        published = SYSTEMS[name]()
        print(f"\n{name}: {published.bytes / 1e9:.1f} GB on the disk, {published.memory / 1e9:.1f} GB of weights")
        if wrong := too_large(published, options.folder, options.tight):
            print(f"Skipped: {wrong}")
            continue
        with tempfile.TemporaryDirectory(prefix=f"full-size-{name}-", dir=options.folder) as folder:
            failed |= not tried(published, Path(folder))
    return int(failed)


def too_large(published: Published, folder: Path, tight: bool) -> str:
    """Why the system can't be tried here; "" where it can."""
    disk, memory = shutil.disk_usage(folder).free, free_ram()
    if published.bytes + SPARE > disk:
        return f"{folder} has {disk / 1e9:.1f} GB free."
    if published.memory + SPARE > memory and not tight:
        return f"{memory / 1e9:.1f} GB of memory are free. --tight tries it all the same."
    return ""


def tried(published: Published, folder: Path) -> bool:
    """Writes, runs and tells; returns whether there is a video at the end."""
    began = time.perf_counter()
    published.write(folder / "model")
    print(f"Written in {time.perf_counter() - began:.0f} s.", flush=True)
    (folder / "out").mkdir()
    surroundings = {"DATA": folder / "data", "CACHE": folder / "cache", "HUB": 0}
    environment = os.environ | {f"MARIONETTE_{name}": str(value) for name, value in surroundings.items()}
    for command in published.commands:
        filled = [word.format(model=folder / "model", out=folder / "out") for word in command]
        report = folder / "report.json"
        watched = [sys.executable, "-m", "scripts.full_size.measured", str(report), *filled]
        done = subprocess.run(watched, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        if done.returncode:
            why = "the system ended it, for want of memory most likely" if done.returncode == -signal.SIGKILL else ""
            print(f"{command[0]} failed with {done.returncode}: {why or 'see above'}.")
            return False
        show(rows(command[0], json.loads(report.read_text())))
    return (folder / "out" / "video.mp4").is_file()


def rows(command: str, report: dict[str, Any]) -> list[tuple[str, str]]:
    """The table of a command: what, and how much."""
    facts, loading = report["facts"], report["loading"]
    stages = facts.get("seconds_by_stage", {})
    return [
        (command, f"{facts['seconds']:.1f} s in all, {facts.get('device', 'cpu')}, {facts.get('dtype', 'fp32')}"),
        ("  loading", ", ".join(f"{part} {seconds:.1f} s" for part, seconds in loading.items() if seconds > 0.05)),
        *((f"  {stage}", f"{seconds:.1f} s") for stage, seconds in stages.items()),
        *([("  a step", f"{facts['seconds_per_step']:.2f} s")] if "seconds_per_step" in facts else []),
        ("  memory, as planned", f"{report['predicted'] / 1e9:.2f} GB: weights, and the most beside them"),
        ("  memory, as taken", f"{(report['taken'] - report['before']) / 1e9:.2f} GB more than before"),
    ]


if __name__ == "__main__":
    sys.exit(main())
