"""One run of ffmpeg: a list of arguments, no terminal, none of our environment, and limits that the system keeps.

ffmpeg comes with imageio-ffmpeg; ffprobe does not.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from pipelines.errors import VideoError
from pipelines.media import limited

MAX_LOG = 2**20  # bytes of ffmpeg's complaints that are read: a broken file can make it complain without end
NOT_STARTED = 126  # how LIMITED ends where ffmpeg can't be started, as a shell does; ffmpeg itself never does
MISSING = (
    "ffmpeg, which reads and writes all videos, can't be started on this machine. Whoever runs the app can get it with "
    '"pip install --force-reinstall imageio-ffmpeg", or name another one in the variable IMAGEIO_FFMPEG_EXE.'
)

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
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError:
    os._exit(126)
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
    and subprocess.TimeoutExpired raised. Raises VideoError where there is no ffmpeg.
    """
    command = _command(arguments)
    if limits and os.name == "posix":
        told = " ".join(f"{name}={value}" for name, value in limits.items())
        command = [sys.executable, "-I", "-S", "-c", LIMITED, told, *command]
    if isinstance(source, bytes):
        data, stdin = source, subprocess.PIPE
    else:
        data, stdin = None, source
        os.lseek(source.fileno(), 0, os.SEEK_SET)  # source.seek(0) may be content with what it has read ahead
    with tempfile.TemporaryFile() as log:
        with limited.started(command, stdin=stdin, stderr=log) as process:
            output, _ = process.communicate(data, timeout=seconds)
        if process.returncode == NOT_STARTED and limits:
            raise VideoError(MISSING)
        log.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, output, log.read(MAX_LOG))


@contextmanager
def feeding(arguments: Sequence[str], *, seconds: float) -> Iterator[Callable[[bytes], None]]:
    """Starts ffmpeg as `run` does and yields what gives its standard input one piece. Leaving the context waits for it.

    Raises subprocess.CalledProcessError with its complaints where it fails, as soon as that is known, and where a piece
    or the end takes it more than `seconds`. It is killed where the context is left by an exception. Raises VideoError
    where there is no ffmpeg.
    """
    command = _command(arguments)
    with tempfile.TemporaryFile() as log:

        def failed() -> subprocess.CalledProcessError:
            log.seek(0)
            return subprocess.CalledProcessError(process.wait(), command, stderr=log.read(MAX_LOG))

        def give(piece: bytes) -> None:
            rest = memoryview(piece)
            assert process.stdin is not None
            with limited.killed_after(seconds, process):
                try:
                    while rest:
                        rest = rest[process.stdin.write(rest) :]
                except BrokenPipeError:
                    raise failed() from None

        with limited.started(command, stdin=subprocess.PIPE, stderr=log, bufsize=0) as process:
            assert process.stdin is not None
            yield give
            with limited.killed_after(seconds, process):
                process.stdin.close()
                if process.wait():
                    raise failed()


def _command(arguments: Sequence[str]) -> list[str]:
    import imageio_ffmpeg  # which not every machine that computes has: it waits for the first file

    try:
        program = shutil.which(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:  # none was found anywhere
        program = None
    if program is None:
        raise VideoError(MISSING)
    return [os.path.abspath(program), "-nostdin", "-hide_banner", *arguments]
