"""One run of ffmpeg: a list of arguments, no terminal, none of our environment, and limits that the system keeps.

ffmpeg comes with imageio-ffmpeg; ffprobe does not.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO

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
    with tempfile.TemporaryDirectory(prefix="marionette-") as folder, tempfile.TemporaryFile() as log:
        with subprocess.Popen(
            command,
            stdin=source if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env={**MEMORY, **{name: os.environ[name] for name in KEPT if name in os.environ}},
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(data, timeout=seconds)
            except BaseException:
                with suppress(ProcessLookupError):  # it may have ended just now
                    os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
                raise
        log.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, output, log.read(MAX_LOG))
