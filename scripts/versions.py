"""Tries the README's commands on each Python that is here: python -m scripts.versions [3.12 3.13 …]

For each it makes a clean copy and a clean virtual environment, installs what the README says, waits for the page, and
runs the quick tests. It takes minutes a version, most of them for downloads. Prints a line a version; exits 1 where
one fails.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("tests/test_tasks.py", "tests/test_diffusion.py", "tests/test_layers.py", "tests/test_use_by_code.py")
PATIENCE = 300.0  # seconds until the page is there
VERSION = "import sys; print('%d.%d.%d' % sys.version_info[:3])"


def found() -> dict[str, str]:
    """The Pythons on the PATH and those of pyenv, by version: the newest of each minor one."""
    names = [path for minor in range(10, 20) if (path := shutil.which(f"python3.{minor}"))]
    names += [path for name in ("python3", "python") if (path := shutil.which(name))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names += [str(path) for path in sorted(pyenv.glob("3.*/bin/python"))]
    pythons: dict[str, str] = {}
    for name in names:
        told = subprocess.run([name, "-c", VERSION], capture_output=True, text=True)
        if told.returncode == 0:
            pythons.setdefault(told.stdout.strip(), name)
    return dict(sorted(pythons.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


def commands() -> tuple[str, str]:
    """What the README says, up to the install: of the app alone, and of the tests."""
    blocks = re.findall(r"^```bash[^\n]*\n(python3 -m venv .*?)\n```$", (ROOT / "README.md").read_text("utf-8"), re.M)
    start, tests = (block.rsplit(" && ", 1)[0] for block in blocks[:2])
    return start, tests


def tried(python: str, folder: Path) -> str:
    """Tries one Python in `folder`; returns "" or what failed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    start, tests = (command.replace("python3 -m venv", f"'{python}' -m venv") for command in commands())
    if failed := _failed(start, folder):
        return f"the first command: {failed}"
    if failed := _page(folder):
        return f"python app.py: {failed}"
    if failed := _failed(f"{tests} && python -m pytest -q -x {' '.join(QUICK)}", folder):
        return f"the tests: {failed}"
    return ""


def _failed(command: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip()[-600:]


def _page(folder: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = os.environ | {"GRADIO_SERVER_PORT": str(port), "MARIONETTE_DATA": str(folder / "data")}
    app = subprocess.Popen([folder / ".venv" / "bin" / "python", "app.py"], cwd=folder, env=variables)
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if app.poll() is not None:
                return f"it ended with {app.returncode}"
            try:
                with urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
                    return "" if answer.status == 200 else f"/health answers {answer.status}"
            except (URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        return f"no page after {PATIENCE:.0f} s"
    finally:
        app.terminate()
        app.wait(60)


def main(wanted: list[str]) -> int:
    failures = 0
    for version, python in found().items():
        if wanted and not version.startswith(tuple(f"{one}." for one in wanted)) and version not in wanted:
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            failed = tried(python, Path(folder))
        failures += bool(failed)
        print(f"{version:9} {time.monotonic() - started:5.0f} s  {failed or 'ok'}", flush=True)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
