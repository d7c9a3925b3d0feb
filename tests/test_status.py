"""The status corner: it tells what there is, wakes nothing, and frees only what nobody uses."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.catalog import find
from pipelines.events import Result
from pipelines.serving import status
from pipelines.serving.backend import Status
from pipelines.serving.local import local_backend
from pipelines.serving.status import Loaded, Worker
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo
from ui import page
from ui.status import drawn

ME = "1" * 32
ROOT = Path(__file__).resolve().parent.parent


def settings(folder, **more):
    return Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False, **more)


def test_what_models_hold_is_told_and_freed_unless_it_is_used(tmp_path):
    backend = local_backend(settings(tmp_path))
    try:
        assert backend.machine.status().loaded == ()
        backend.machine.unload()  # there is nothing yet
        task = TextToVideo.for_model(find("miniature-modelscope"), "a bear bows", 7, frames=8, steps=1)
        *_, end = backend.jobs.events(backend.jobs.submit(task, ME), ME)
        assert isinstance(end, Result)
        (held,) = backend.machine.status().loaded
        assert held.models == ("miniature-modelscope",) and held.device == "cpu" and not held.in_use
        assert held.bytes > 10e6
        with backend.executor.manager.lease("miniature-modelscope/vae"):
            assert backend.machine.status().loaded[0].in_use
            backend.machine.unload()
            (left,) = backend.machine.status().loaded
            assert left.in_use and 0 < left.bytes < held.bytes
        backend.machine.unload()
        assert backend.machine.status().loaded == ()
    finally:
        backend.close()


def test_of_workers_of_which_some_are_waited_for_it_is_told_what_each_is_at():
    workers = Worker("a", True), Worker("b", False), Worker("Waiting for a worker", False, ready=False)
    told = drawn(Status("a · b", 1, 0, (), (), (*workers, Worker("c", False, drained=True, ready=False))))
    assert [text for text in ("a: at work<", "b: idle<", "a worker<", "c: takes no job<") if text not in told] == []


def test_jobs_are_counted_without_a_word_on_whose_they_are(tmp_path):
    backend = local_backend(settings(tmp_path))
    backend.dispatcher.pause()
    task = TextToVideo.for_model(find("miniature-modelscope"), "a bear bows", 7)
    for owner in (ME, "2" * 32, "3" * 32):
        backend.table.add(task, owner)
    backend.table.take(0)
    now = backend.machine.status()
    assert (now.running, now.waiting) == (1, 2)
    assert "One video is being made, 2 wait" in drawn(now) and "bear" not in drawn(now)
    backend.table.close()


@pytest.mark.parametrize("original", [True, False])
def test_nobody_unloads_what_strangers_share(tmp_path, monkeypatch, original):
    monkeypatch.setenv("SPACE_ID", "theatre/marionette")
    chosen = settings(tmp_path, original="theatre/marionette" if original else "")
    backend = local_backend(chosen)
    demo = page.build(backend, chosen)
    backend.close()
    assert any(block.elem_id == "unload" for block in demo.blocks.values()) != original


def test_a_look_imports_no_torch(tmp_path):
    look = (
        "import sys; from pathlib import Path; from pipelines.serving.local import local_backend; "
        "from pipelines.settings import Settings; "
        "backend = local_backend(Settings(data=Path(sys.argv[1]), device='cpu')); print(backend.machine.status()); "
        "backend.machine.unload(); backend.close(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", look, str(tmp_path / "data")], cwd=ROOT, check=True)


def test_a_gpu_is_called_by_its_name_where_the_driver_tells(tmp_path):
    chosen = Settings(device="cuda")
    assert status.device(chosen, tmp_path) == "GPU"
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   42\n")
    assert status.device(chosen, tmp_path) == "NVIDIA H200"
    (tmp_path / "0000:02:00.0").mkdir()
    (tmp_path / "0000:02:00.0" / "information").write_text("Model: \t\t NVIDIA L4\n")
    assert status.device(Settings(device="cuda:1"), tmp_path) == "NVIDIA L4"
    assert status.device(Settings(device="cuda:2"), tmp_path) == "GPU"
    assert "core" in status.device(Settings(device="cpu"), tmp_path)


def test_every_gpu_that_may_be_used_works_unless_some_are_named(tmp_path):
    assert status.devices(Settings(device="auto"), {}, tmp_path) == ["auto"]
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert status.devices(Settings(device="auto"), {}, tmp_path) == ["cuda:0", "cuda:1", "cuda:2"]
    assert status.devices(Settings(device="cuda"), {"CUDA_VISIBLE_DEVICES": "2,0"}, tmp_path) == ["cuda:0", "cuda:1"]
    for visible in ("1", "", "GPU-4d2a"):
        assert status.devices(Settings(device="auto"), {"CUDA_VISIBLE_DEVICES": visible}, tmp_path) == ["auto"]
    assert status.devices(Settings(device="cpu"), {}, tmp_path) == ["cpu"]
    assert status.devices(Settings(device="cuda:1"), {}, tmp_path) == ["cuda:1"]


def test_memory_is_drawn_by_model_and_what_is_shared_by_all_that_share_it():
    shared = Loaded(("miniature-sd", "miniature-followyourpose"), "cpu", 5_000_000, False)
    text = drawn(Status("CPU, 2 cores", 0, 0, (Loaded(("modelscope-1.7b",), "cuda:0", 3_400_000_000, True), shared)))
    for part in ("CPU, 2 cores", "Nothing is being made, none waits", "3.4 GB in all", "in use</span> <b>3.4 GB"):
        assert part in text
    assert "Paper theatre (built in): edits of clips, pose to video</span> <b>5 MB" in text
    assert "None. A video loads what it needs." in drawn(Status("GPU", 2, 1, ()))
