"""Whether the tests bite: small changes to the code, each with the tests that must fail.

    python -m scripts.mutate                  # all of them
    python -m scripts.mutate prompt seed      # those with one of these words in their name or file

Works on a copy of the tree. Every mutant's tests run in a fork of a process that has the libraries imported, which
saves most of their time. Prints a line a mutant, and exits 1 where one survives, fits no text any more, or where the
tests fail without any change.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from scripts.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent
# Ours is the first: it repairs torchvision.
LIBRARIES = ("pipelines", "torch", "torchvision", "diffusers", "transformers", "accelerate", "gradio", "cv2", "pytest")
LIBRARIES += ("scipy.optimize", "gradio_client", "PIL.Image", "diffusers.models.unets.unet_3d_condition")
LIBRARIES += ("transformers.models.clip.modeling_clip", "diffusers.models.unets.unet_2d_condition")
SECONDS = 300  # that a mutant's tests may take: one that hangs them is killed, too


def main(words: list[str]) -> int:
    chosen = [one for one in MUTANTS if not words or any(word in f"{one.name} {one.file}" for word in words)]
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "tree"
        _copy(copy)
        os.chdir(copy)
        for name in LIBRARIES:
            __import__(name)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("pipelines", "scripts", "ui")]:
            del sys.modules[name]  # the forks import the copy
        sys.path[:] = [str(copy), *(one for one in sys.path if Path(one or ".").resolve() not in (ROOT, copy))]
        if not _passes(dict.fromkeys(test for one in chosen for test in one.tests), quiet=False):
            print("The tests fail without a change.")
            return 1
        survivors = []
        for one in chosen:
            started = time.monotonic()
            outcome = _tried(one, copy)
            print(f"{outcome:9} {time.monotonic() - started:5.0f} s  {one.name}  ({one.file})", flush=True)
            if outcome != "killed":
                survivors.append(one.name)
    print(f"{len(chosen)} mutants, {len(chosen) - len(survivors)} killed. " + "; ".join(survivors))
    return bool(survivors)


def _copy(target: Path) -> None:
    """The tracked and the new files of the tree, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def _tried(mutant: Mutant, copy: Path) -> str:
    file = copy / mutant.file
    text = file.read_text("utf-8")
    if text.count(mutant.old) != 1:
        return "NO TEXT"
    file.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    try:
        return "SURVIVED" if _passes(mutant.tests) else "killed"
    finally:
        file.write_text(text, "utf-8")


def _passes(tests: Iterable[str], quiet: bool = True) -> bool:
    """Whether `tests` pass, in a fork. pytest ends with 1 where some fail; any other fault is told."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _be_pytest(list(tests), quiet)
    deadline = time.monotonic() + (SECONDS if quiet else math.inf)
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def _be_pytest(tests: list[str], quiet: bool) -> None:
    code = 3
    try:
        import pytest

        sys.dont_write_bytecode = True  # a change within a second, of the same length, would not be noticed
        if quiet:
            silence = os.open(os.devnull, os.O_WRONLY)
            for number in (1, 2):
                os.dup2(silence, number)
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
    finally:
        os._exit(int(code))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only mutants with one of these in their name or file")
    sys.exit(main(parser.parse_args().words))
