"""One run of ffmpeg: a list of arguments, no terminal, none of our environment, and limits that the system keeps.

ffmpeg comes with imageio-ffmpeg; ffprobe does not.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import imageio_ffmpeg

MAX_LOG = 2**20  # bytes of ffmpeg's complaints that are read: a broken file can make it complain without end
KEPT = ("SYSTEMROOT", "LD_LIBRARY_PATH")  # all that programs may need to start, on Windows and with some Pythons
MEMORY = {"MALLOC_ARENA_MAX": "1"}  # else each thread reserves 64 MB more, which a limit on memory would count

# The limits are set by a small program that then becomes ffmpeg. Code between fork and exec of our own process could
# wait for ever for a lock that another thread held. macOS has the limits and refuses some; Windows has none.
LIMITED = """
import os, resource, sys
for limit in sys.argv[1].split():
    name, value = limit.split("=")
    try:
        resource.setrlimit(getattr(resource, name), (int(value), int(value)))
    except (ValueError, OSError):
        pass
os.execv(sys.argv[2], sys.argv[2:])
"""


def run(
    arguments: Sequence[str],
    source: bytes | BinaryIO = b"",
    *,
    seconds: float,
    limits: Mapping[str, int] | None = None,
) -> subprocess.CompletedProcess:
    """Runs ffmpeg on `source`, in an empty folder that is gone afterwards, and waits until it ends.

    `source` is what its standard input reads: bytes, or an open file, from its beginning. `limits` are names of the
    module resource, such as "RLIMIT_AS", with their values. After `seconds` it is killed, with all that it started,
    and subprocess.TimeoutExpired raised.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", *arguments]
    if limits and os.name == "posix":
        told = " ".join(f"{name}={value}" for name, value in limits.items())
        command = [sys.executable, "-I", "-S", "-c", LIMITED, told, *command]
    data = source if isinstance(source, bytes) else None
    if data is None:
        os.lseek(source.fileno(), 0, os.SEEK_SET)  # source.seek(0) may be content with what it has read ahead
    with tempfile.TemporaryFile() as log:
        with _started(command, stdin=source if data is None else subprocess.PIPE, stderr=log) as process:
            output, _ = process.communicate(data, timeout=seconds)
        log.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, output, log.read(MAX_LOG))


@contextmanager
def feeding(arguments: Sequence[str], *, seconds: float) -> Iterator[Callable[[bytes], None]]:
    """Starts ffmpeg as `run` does and yields what gives its standard input one piece. Leaving the context waits for it.

    Raises subprocess.CalledProcessError with its complaints where it fails, as soon as that is known, and where a piece
    or the end takes it more than `seconds`. It is killed where the context is left by an exception.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", *arguments]
    with tempfile.TemporaryFile() as log:

        def failed() -> subprocess.CalledProcessError:
            log.seek(0)
            return subprocess.CalledProcessError(process.wait(), command, stderr=log.read(MAX_LOG))

        def give(piece: bytes) -> None:
            rest = memoryview(piece)
            with _killed_after(seconds, process):
                try:
                    while rest:
                        rest = rest[process.stdin.write(rest) :]
                except BrokenPipeError:
                    raise failed() from None

        with _started(command, stdin=subprocess.PIPE, stderr=log, bufsize=0) as process:
            yield give
            with _killed_after(seconds, process):
                process.stdin.close()
                if process.wait():
                    raise failed()


@contextmanager
def _started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
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
            _kill(process)
            raise


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen) -> Iterator[None]:
    timer = threading.Timer(seconds, _kill, [process])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _kill(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):  # it may have ended just now
        os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
