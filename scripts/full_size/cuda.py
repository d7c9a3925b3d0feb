"""The check for a new GPU: python -m scripts.full_size.cuda --report gpu.json [modelscope followyourpose …]

Makes a short video of each of the four systems at full size, with random weights in half precision, by the app's own
ModelManager, and reports seconds, memory against what was planned, whether a seed gives the same latents twice, and
whether a model leaves the GPU for the next. It needs no ffmpeg: clips come from numbers, and no file of video is
written. Each system has a process of its own; they wait for each other with all that asks for the GPU. What fails is
in the report, and the others go on. --size small tries the whole way on a CPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.benchmark.measure import show

SYSTEMS = ("modelscope", "followyourpose", "tempofunk", "tuneavideo")
PREPARING = 120  # seconds, for imports and for the weights
ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Returns 1 where one of the systems made no video."""
    parser = argparse.ArgumentParser(prog="python -m scripts.full_size.cuda", description=str(__doc__).splitlines()[0])
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"of: {', '.join(SYSTEMS)}; all by default")
    parser.add_argument("--report", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--size", choices=("full", "small"), default="full", help="of networks and videos")
    parser.add_argument("--device", default="auto", help="as in MARIONETTE_DEVICE")
    parser.add_argument("--limit", type=float, default=60, help="seconds that a system may have the device")
    parser.add_argument("--together", type=int, default=4, help="systems that are prepared at once")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the disk has 12 GB")
    options = parser.parse_args()
    if unknown := set(options.systems) - set(SYSTEMS):
        parser.error(f"There is no {', '.join(sorted(unknown))}. Choose of: {', '.join(SYSTEMS)}.")
    names = options.systems or SYSTEMS
    report: dict[str, Any] = {"nvidia-smi": nvidia_smi(), "systems": {}}
    with ThreadPoolExecutor(options.together) as pool, tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name, found in zip(names, pool.map(lambda name: run(name, options, Path(folder)), names), strict=True):
            report["systems"][name] = found
            options.report.write_text(json.dumps(report, indent=1))
            show(rows(name, found))
            print(found.get("failed", ""), flush=True)
    return int(any("failed" in found for found in report["systems"].values()))


def nvidia_smi() -> str:
    fields = "name,driver_version,memory.total,memory.used,utilization.gpu"
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    return "none"


def run(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What the process for the system `name` found, however it ended."""
    file, errors = folder / f"{name}.json", folder / f"{name}.txt"
    command = [sys.executable, "-m", "scripts.full_size.one_system", name, str(folder), options.size, options.device]
    command.append(str(options.limit))
    most = PREPARING + options.limit * len(SYSTEMS)  # the others may have the device before
    ended: Any = None
    with errors.open("w") as log:
        try:
            ended = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, timeout=most).returncode
        except subprocess.TimeoutExpired:
            ended = f"a time-out after {most:.0f} s"
    found = json.loads(file.read_text()) if file.is_file() else {}
    if ended:
        _, late, stack = (told := errors.read_text(errors="replace")).rpartition("Timeout (")  # its last call first
        lines = f"{late}{stack}".splitlines()[:30] if late else told.splitlines()[-30:]
        found.setdefault("failed", "\n".join([f"Ended with {ended}:", *lines]))
    return found


def rows(name: str, found: dict[str, Any]) -> list[tuple[str, str]]:
    """The table of a system: what, and how much."""
    table = [(name, f"{found.get('torch', '?')} on {found.get('device', '?')}, {found.get('made_in', 0):.1f} s in all")]
    for what, facts in found.items():
        if isinstance(facts, dict):
            short = {key: round(fact, 3) if isinstance(fact, float) else fact for key, fact in facts.items()}
            table.append((f"  {what}", ", ".join(f"{key} {fact}" for key, fact in short.items())))
    return table


if __name__ == "__main__":
    sys.exit(main())
