"""The runner: what a program started in ffmpeg's place can see and take, and that nothing of it outlives its time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.errors import VideoError
from pipelines.media import ffmpeg, limited

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the programs below are shell scripts")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a shell script in the place of ffmpeg; a real process, which tells what surrounds it."""

    def install(script):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))

    return install


def test_it_sees_no_environment_and_an_empty_folder_that_is_gone_afterwards(program, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    program("env; echo folder=$(pwd); echo files=$(ls -A)")
    told = ffmpeg.run([], seconds=20).stdout.decode()
    assert "hf_secret" not in told and "HOME=" not in told
    lines = dict(line.split("=", 1) for line in told.splitlines())
    assert lines["files"] == "" and lines["folder"] != os.getcwd()
    assert not os.path.exists(lines["folder"])


@pytest.mark.skipif(sys.platform != "linux", reason="macOS refuses some of these limits")
@pytest.mark.parametrize("limited", [False, True])
def test_limits_hold_for_the_program_and_not_for_us(program, limited):
    import resource

    program("ulimit -t; ulimit -f; ulimit -v; ulimit -c; ulimit -H -v")
    before = resource.getrlimit(resource.RLIMIT_AS)
    limits = {"RLIMIT_CPU": 7, "RLIMIT_FSIZE": 512 * 10, "RLIMIT_AS": 2**30, "RLIMIT_CORE": 0} if limited else None
    told = ffmpeg.run([], seconds=20, limits=limits).stdout.decode().split()
    assert (told == ["7", "10", str(2**20), "0", str(2**20)]) == limited
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_too_much_computing_ends_it(program):
    program("while :; do :; done")
    done = ffmpeg.run([], seconds=60, limits={"RLIMIT_CPU": 1})
    assert done.returncode in limited.STOPPED


@pytest.mark.parametrize("limits", [None, {"RLIMIT_CORE": 0}])
@pytest.mark.parametrize("there", ["nothing", "no program"])
def test_without_ffmpeg_it_is_told_how_to_get_it(tmp_path, monkeypatch, limits, there):
    path = tmp_path / "ffmpeg"
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    if there == "no program":
        path.write_text("words")
    with pytest.raises(VideoError, match="ffmpeg.*pip install.*IMAGEIO_FFMPEG_EXE"):
        ffmpeg.run([], seconds=20, limits=limits)
    with pytest.raises(VideoError, match="pip install"), ffmpeg.feeding([], seconds=20):
        pass


def test_ffmpeg_of_another_machine_is_told_as_none(tmp_path, monkeypatch):
    path = tmp_path / "ffmpeg"
    path.write_bytes(b"\x7fELF of another machine")
    path.chmod(0o700)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    with pytest.raises(VideoError, match="pip install"):
        ffmpeg.run([], seconds=20, limits={"RLIMIT_CORE": 0})


def test_it_reads_bytes_or_a_file_from_its_beginning(program, tmp_path):
    program('cat; echo "$@" >&2; exit 3')
    (tmp_path / "data").write_bytes(b"from a file")
    with open(tmp_path / "data", "rb") as file:
        file.read(5)
        for source, expected in ((b"\0bytes\n", b"\0bytes\n"), (file, b"from a file"), (b"", b"")):
            for limits in (None, {"RLIMIT_CORE": 0}):
                done = ffmpeg.run(["-i", "a b"], source, seconds=20, limits=limits)
                assert (done.stdout, done.returncode) == (expected, 3)
                assert done.stderr == b"-nostdin -hide_banner -i a b\n"


def test_complaints_without_end_are_cut(program):
    program("yes 'invalid data found' | head -c 3000000 >&2; echo done")
    done = ffmpeg.run([], seconds=20)
    assert done.stdout == b"done\n" and len(done.stderr) == ffmpeg.MAX_LOG


@pytest.mark.parametrize("limits", [None, {"RLIMIT_CORE": 0}])
def test_after_its_time_it_is_killed_with_all_that_it_started(program, tmp_path, limits):
    program(f"sleep 300 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/itself; wait")
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        ffmpeg.run([], seconds=2, limits=limits)
    assert time.monotonic() - started < 20
    for name in ("child", "itself"):
        ended = time.monotonic() + 10
        while _runs(int((tmp_path / name).read_text())):
            assert time.monotonic() < ended, f"{name} still runs"
            time.sleep(0.05)


def _runs(process: int) -> bool:
    """Whether a process is there, and no mere entry that waits for its parent."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
