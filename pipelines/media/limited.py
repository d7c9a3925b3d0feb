"""Processes that read strangers' files: none of our environment, an empty folder, and limits that the system keeps.

The limits bound what a file can cost, not what a program may do: they are no jail. Windows has none of them but time,
and macOS refuses the one on memory; counts and sizes are checked by the parsers themselves, everywhere.
"""

import io
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.messages import from_json

CHILD = Path(__file__).with_name("child.py")
KEPT = ("SYSTEMROOT", "LD_LIBRARY_PATH")  # all that programs may need to start, on Windows and with some Pythons
MEMORY = {"MALLOC_ARENA_MAX": "1"}  # else each thread reserves 64 MB more, which a limit on memory would count
STOPPED = (-9, -24)  # SIGKILL and SIGXCPU, by which the limit on computing time ends a process
PATIENCE = 4  # seconds that may pass for one of computing: others compute, too
MAX_FACTS = 2**16  # bytes of a parser's first line

log = logging.getLogger(__name__)


class OutOfTime(Exception):
    """The parser was stopped at its limit on time."""


class OutOfMemory(Exception):
    """The parser reached its limit on memory."""


class Failed(Exception):
    """The parser ended without an answer: the file is damaged in a way that it does not know."""


def open_file(path: str | Path) -> BinaryIO | None:
    """Opens an ordinary file, unbuffered. None for a link, a folder or a device, which are never waited for.

    Raises OSError or ValueError where there is no such file.
    """
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"):  # no system has them all
        flags |= getattr(os, name, 0)
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return None
    return os.fdopen(os.open(path, flags), "rb", buffering=0)


def parse(
    parser: Path,
    source: BinaryIO,
    *,
    seconds: int,
    memory_mb: int,
    answer: int,
    libraries: Sequence[str] = (),
    **arguments: Any,
) -> tuple[dict[str, Any], bytearray]:
    """Has the module in the file `parser` read the open file `source`, in a process of its own.

    Its function `parse(file, **arguments)` returns facts that JSON can hold, and bytes, at most `answer` of them. It
    may import the standard library, what lies beside it, and what lies in the folders `libraries`. It gets `seconds` of
    computing, and PATIENCE times as many on the clock. Raises ValueError with its sentence where it raises its
    `Refused`, else OutOfTime, OutOfMemory or Failed.
    """
    limits = {
        "RLIMIT_AS": memory_mb * 2**20,
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 32,
    }
    told = (limits, [str(parser.parent), *libraries], parser.stem, arguments)
    command = [sys.executable, "-I", "-S", "-B", str(CHILD), *map(json.dumps, told)]
    source.seek(0)
    with started(command, stdin=source, stderr=subprocess.DEVNULL) as process:
        with killed_after(seconds * PATIENCE, process) as killed:
            output = cast(io.BufferedReader, process.stdout)
            line = output.readline(MAX_FACTS)
            payload = bytearray()
            while len(payload) <= answer and (piece := output.read1(2**16)):
                payload += piece
            if len(payload) > answer:
                kill(process)
            code = process.wait()
    if killed or code in STOPPED and len(payload) <= answer:
        raise OutOfTime
    try:
        facts = json.loads(line)
    except ValueError:  # not even a line: a library has ended the process
        raise Failed from None
    if "refused" in facts:
        raise ValueError(from_json(str(facts["refused"]), facts))
    if "failed" in facts:
        if facts["failed"] == "MemoryError":
            raise OutOfMemory
        log.warning("%s failed: %s", parser.stem, facts["failed"])
        raise Failed
    if code or len(payload) > answer:
        raise Failed
    return facts, payload


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """Starts a program in an empty folder, which is gone afterwards. It is killed where the context is left by an
    exception, with all that it has started."""
    with (
        tempfile.TemporaryDirectory(prefix="marionette-") as folder,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            cwd=folder,
            env={**MEMORY, **{name: os.environ[name] for name in KEPT if name in os.environ}},
            start_new_session=True,
            **options,
        ) as process,
    ):
        try:
            yield process
        except BaseException:
            kill(process)
            raise


@contextmanager
def killed_after(seconds: float, process: subprocess.Popen) -> Iterator[list[bool]]:
    """Kills `process` unless the context is left within so many seconds; then, the list that it yields is not empty."""
    killed: list[bool] = []

    def end() -> None:
        killed.append(True)
        kill(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield killed
    finally:
        timer.cancel()


def kill(process: subprocess.Popen) -> None:
    """Ends a process that `started` has started, with all that it has started itself."""
    with suppress(ProcessLookupError):  # it may have ended just now
        os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
