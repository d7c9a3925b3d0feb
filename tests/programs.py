"""Python programs in processes of their own, forked from one that has imported the libraries already.

A start of `python app.py` is seven parts imports to two parts page, and each first job imports torch and diffusers once
more. A fork has all of it from the beginning; it still has its own memory, environment, exit code and signals. What a
test says about imports or about the interpreter's own start needs a true `subprocess`.
"""

import atexit
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import connection, reduction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
READ_ENVIRONMENT = ("huggingface_hub.constants", "gradio.http_server", "gradio.oauth")  # when they are imported
PRELOADED = (
    "pipelines",
    *("gradio.mcp", "gradio.oauth", "gradio.http_server", "gradio_client", "ui.page"),
    *("pipelines.serving.runner", "pipelines.serving.zerogpu", "pipelines.models.loading", "pipelines.poses.detection"),
    *("pipelines.systems.modelscope", "pipelines.systems.tempofunk", "pipelines.systems.followyourpose"),
    *("pipelines.systems.tuneavideo", "pipelines.systems.tuning", "pipelines.systems.finish"),
    *("pipelines.poses.openpose", "pipelines.poses.blazepose", "pipelines.poses.pose_sequence"),
    *("transformers.models.clip.modeling_clip", "transformers.models.clip.tokenization_clip"),
    *("diffusers.models.autoencoders.autoencoder_kl", "diffusers.models.unets.unet_3d_condition"),
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(PRELOADED))


class Descriptor:
    """A file descriptor that is handed to a fork."""

    def __init__(self, number: int):
        self.number = number

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.number)

    def __setstate__(self, handed: Any) -> None:
        self.number = handed.detach()


class Program:
    """`python ARGUMENTS` in a fork, with the part of `subprocess.Popen` that the tests use.

    `arguments` begin with a file, `-c CODE` or `-m MODULE`. What it prints goes to the files `output` and `errors`.
    Without `output` it has pipes as `stdin` and `stdout`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        output: Path | None = None,
        errors: Path | None = None,
        folder: Path = ROOT,
    ):
        streams: dict[int, int] = {}
        if output is None:
            streams[0], ours = os.pipe()
            our_output, streams[1] = os.pipe()
            self.stdin, self.stdout = os.fdopen(ours, "wb"), os.fdopen(our_output, "rb")
        for number, file in ((1, output), (2, errors)):
            if file is not None:
                streams[number] = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        handed = {number: Descriptor(stream) for number, stream in streams.items()}
        self._process = CONTEXT.Process(
            target=_be, args=([os.fsdecode(one) for one in arguments], dict(env), handed, str(folder))
        )
        self._process.start()
        for stream in streams.values():
            os.close(stream)
        self.pid = self._process.pid
        self._looking = threading.Lock()  # its exit code can be read once only

    @property
    def returncode(self) -> int | None:
        with self._looking:
            return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired("the program", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    arguments: Sequence[str], env: Mapping[str, str], folder: Path = ROOT, timeout: float = 120
) -> subprocess.CompletedProcess:
    """Runs `python ARGUMENTS` in a fork to its end; what it printed is text. Kills it, and raises, after `timeout`
    seconds."""
    with tempfile.TemporaryDirectory() as place:
        files = Path(place) / "output", Path(place) / "errors"
        program = Program(arguments, env, *files, folder)
        try:
            code = program.wait(timeout)
        finally:
            program.kill()
        said = [file.read_text("utf-8", "replace") for file in files]
        return subprocess.CompletedProcess(arguments, code, *said)


def _be(arguments: list[str], env: dict[str, str], streams: dict[int, Descriptor], folder: str) -> None:
    """Turns this fork into the program."""
    for number, stream in streams.items():
        os.dup2(stream.number, number)
        os.close(stream.number)
    os.environ.clear()
    os.environ.update(env)
    if "TZ" in env:
        time.tzset()
    tempfile.tempdir = None
    os.chdir(folder)
    for name in READ_ENVIRONMENT:
        module = sys.modules[name]
        classes = {one: value for one, value in vars(module).items() if isinstance(value, type)}
        vars(importlib.reload(module)).update(classes)  # others know them already
    sys.path.insert(0, str(ROOT))
    first, *rest = arguments
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            runpy.run_path(first, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing's own children leave without
