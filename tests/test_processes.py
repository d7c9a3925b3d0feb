"""Workers in processes of their own: what dies is replaced, and no job is lost, doubled, or written by a dead app."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import programs
import pytest
import tiny
import torch
from test_executors import CATALOG, told, work

from pipelines import catalog
from pipelines.events import DENOISING, Failed, Progress, Result
from pipelines.messages import said
from pipelines.serving import dispatcher, processes
from pipelines.serving.backend import Backend
from pipelines.serving.executor import Made, WorkerDied
from pipelines.serving.processes import ProcessExecutor, worker_backend
from pipelines.serving.worker_process import portable
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo

TESTS, ME = Path(__file__).parent, "1" * 32
COMMAND = (sys.executable, str(TESTS / "scripted_worker.py"))
SILENT_SECONDS = 6  # a worker's beats are a second apart; a busy machine may hold one back


def settings_of(data, device="cpu"):
    return Settings(data=data, device=device, hub=False)


def forked(command, *, stdin, stdout, env, start_new_session):
    """`subprocess.Popen` for a worker, which is spared the imports; one test starts a true one, and test_executors."""
    return programs.Program(command[1:], env)


def made_of_forks(data, device="cpu", **more):
    return closing(ProcessExecutor(settings_of(data, device), CATALOG, COMMAND, popen=forked, **more))


@pytest.fixture
def executor(tmp_path):
    with made_of_forks(tmp_path) as executor:
        yield executor


def begun(executor, prompt, slot="0"):
    """Endless work that notes its steps in the file `prompt`, once it has begun."""
    events = executor.run(work(str(prompt)), slot)
    while not prompt.exists():
        next(events)
    return events


def process_of(executor, slot="0"):
    return executor.workers[slot].process


def test_a_worker_that_is_killed_says_so_and_the_next_work_has_another(executor, tmp_path):
    events, first = begun(executor, tmp_path / "steps"), process_of(executor)
    first.kill()
    with pytest.raises(WorkerDied) as died:
        for _ in events:
            pass
    assert not died.value.for_memory
    events.close()  # waits for nobody
    assert isinstance(told(executor, work())[-1], Made)
    second = process_of(executor)
    second.kill()
    second.wait()  # with nothing to do: the next work is not sent to one that is dead
    assert isinstance(told(executor, work())[-1], Made)
    assert len({process_of(executor).pid, second.pid, first.pid}) == 3


def test_a_worker_that_is_silent_counts_as_dead(tmp_path):
    with made_of_forks(tmp_path, silent_seconds=SILENT_SECONDS) as executor:
        events = begun(executor, tmp_path / "steps")
        time.sleep(SILENT_SECONDS + 2)  # it computes all the time: that is no silence
        assert next(events) is not None
        os.kill(process_of(executor).pid, signal.SIGSTOP)
        with pytest.raises(WorkerDied):
            for _ in events:
                pass


def test_a_look_whose_worker_dies_is_begun_again_and_at_last_fails_in_words(tmp_path):
    started = []

    def dying(command, **more):
        started.append(command)
        return subprocess.Popen((sys.executable, "-c", "pass"), **more)

    with closing(ProcessExecutor(settings_of(tmp_path), CATALOG, popen=dying)) as executor:
        with pytest.raises(ValueError, match="looked for people ended twice"):
            tiny.finish(executor.look(work()))
    assert len(started) == 2


def test_two_devices_work_at_once(tmp_path):
    with made_of_forks(tmp_path, "cpu,cpu") as executor:
        assert [slot.name for slot in executor.slots()] == ["0", "1"]
        one, other = (begun(executor, tmp_path / slot, slot) for slot in "01")
        before = [(tmp_path / slot).read_text().count("step") for slot in "01"]
        deadline = time.monotonic() + 60
        while any(
            (tmp_path / slot).read_text().count("step") <= count for slot, count in zip("01", before, strict=True)
        ):
            assert time.monotonic() < deadline
            next(one), next(other)
        one.close(), other.close()
        assert process_of(executor, "0").pid != process_of(executor, "1").pid


def test_a_worker_at_rest_ends_once_nothing_is_asked_of_it_and_is_the_last_to_look(tmp_path):
    with made_of_forks(tmp_path, "cpu,cpu") as executor:
        events, first = begun(executor, tmp_path / "steps"), process_of(executor)
        executor.rest("0")
        assert first.poll() is None
        events.close()
        executor.rest("0")
        assert first.poll() is not None and process_of(executor) is None
        executor.load_ahead()
        assert process_of(executor) is None and process_of(executor, "1") is not None
        assert isinstance(told_by(executor, "0"), Made) and process_of(executor) is not None


def test_a_slot_says_whether_it_ever_loaded_a_model_and_since_when_it_does_so_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "AHEAD_SECONDS", 0.0)
    card = replace(CATALOG["scripted"], system="modelscope")
    with closing(ProcessExecutor(settings_of(tmp_path), {card.name: card}, COMMAND, popen=forked)) as executor:
        (slot,) = executor.slots()
        assert slot.fresh and slot.since == 0
        executor.load_ahead()
        begun = executor.slots()[0].since
        wait_for(lambda: executor.slots()[0].holds(card.name))
        (slot,) = executor.slots()
        assert not slot.fresh and slot.since > begun
        executor.load_ahead()
        assert executor.slots()[0].since >= slot.since
        wait_for(lambda: executor.unload() or not executor.slots()[0].models)  # what is in use stays
        assert not executor.slots()[0].fresh
        executor.rest("0")
        (slot,) = executor.slots()
        assert slot.fresh and slot.since == 0


def wait_for(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def told_by(executor, slot):
    return [event for event in executor.run(work(), slot) if event is not None][-1]


APP = """
import sys
from pathlib import Path
from pipelines.serving.processes import ProcessExecutor
from pipelines.serving.executor import Work
from pipelines.settings import Settings
from pipelines.cards import ModelCard
from pipelines.tasks import recall
from pipelines.catalog import CATALOG
from dataclasses import replace

data, steps, *command = sys.argv[1:]
card = replace(CATALOG["miniature-modelscope"], name="scripted", system="scripted")
executor = ProcessExecutor(Settings(data=Path(data), device="cpu", hub=False), {"scripted": card}, command)
from pipelines.tasks import TextToVideo
task = TextToVideo.for_model(card, steps, 7, frames=8, steps=2)
events = executor.run(Work(task, {}, "1" * 32, "a.mp4"), "0")
while not Path(steps).exists():
    next(events)
print(executor.workers["0"].process.pid, "torch" in sys.modules, flush=True)
for _ in events:
    pass
"""


def test_with_the_app_its_worker_ends_and_writes_nothing_more(tmp_path):
    """And the app's process has not imported torch for it."""
    steps = tmp_path / "steps"
    app = subprocess.Popen(
        [sys.executable, "-c", APP, str(tmp_path), str(steps), *COMMAND], cwd=TESTS.parent, stdout=subprocess.PIPE
    )
    assert app.stdout is not None
    worker, torch = app.stdout.readline().split()
    assert torch == b"False"
    app.kill()
    app.wait()
    deadline = time.monotonic() + 30
    while _runs(int(worker)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = steps.read_text()
    time.sleep(0.5)
    assert steps.read_text() == done


def test_a_worker_that_was_stopped_when_its_app_died_is_ended_before_the_next_app_starts_one(tmp_path):
    """It never saw that its app is gone. A worker whose app lives is left alone."""
    steps = tmp_path / "steps"
    app = subprocess.Popen(
        [sys.executable, "-c", APP, str(tmp_path), str(steps), *COMMAND], cwd=TESTS.parent, stdout=subprocess.PIPE
    )
    assert app.stdout is not None
    orphan = int(app.stdout.readline().split()[0])
    with made_of_forks(tmp_path) as beside:
        assert isinstance(told(beside, work())[-1], Made) and _runs(orphan)
    os.kill(orphan, signal.SIGSTOP)
    app.kill()
    app.wait()
    assert _runs(orphan)
    done = steps.read_text()
    with made_of_forks(tmp_path) as executor:
        assert isinstance(told(executor, work())[-1], Made) and not _runs(orphan)
    assert steps.read_text() == done
    assert not list((tmp_path / "workers").glob(f"{orphan}-*"))


def _runs(process):
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        stat = Path(f"/proc/{process}/stat")
        return not stat.exists() or stat.read_text().rpartition(") ")[2][0] != "Z"
    return False


@pytest.fixture
def backend(tmp_path):
    settings = settings_of(tmp_path / "data")
    backend = Backend(settings, ProcessExecutor(settings, popen=forked))
    yield backend
    backend.close()


def killed_in(backend, job, times):
    """Follows the job, whose worker is killed in its denoising so many times."""
    killed = []
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == DENOISING and event.step >= 2 and len(killed) < times:
            process = process_of(backend.executor)
            if process is not None and process.pid not in killed:
                killed.append(process.pid)
                process.kill()
    assert len(killed) == times
    return backend.table.get(job).end


def test_a_job_whose_worker_was_killed_is_made_once_and_one_that_kills_two_fails_in_words(backend):
    card = catalog.CATALOG["miniature-modelscope"]
    task = TextToVideo.for_model(card, "a robot in blue", 7, frames=8, steps=6)
    job = backend.jobs.submit(task, ME)
    assert isinstance(killed_in(backend, job, 1), Result)
    assert len(backend.jobs.finished(ME)) == 1 and backend.table.get(job).attempts == 2
    other = backend.jobs.submit(replace(task, seed=8), ME)
    assert killed_in(backend, other, 2) == Failed(dispatcher.DIED)
    assert 'worker_deaths_total{cause="other"} 3' in backend.machine.metrics()
    third = backend.jobs.submit(replace(task, seed=9, steps=1), ME)
    assert isinstance([event for event in backend.jobs.events(third, ME) if event is not None][-1], Result)


def test_an_error_crosses_with_its_words_and_brings_no_library(tmp_path):
    sent = portable(ValueError(said("There is no {thing}.", thing="clip")))
    assert type(sent) is ValueError and sent.args[0].template == "There is no {thing}."
    assert type(portable(torch.OutOfMemoryError("too large"))) is RuntimeError
    assert type(portable(subprocess.TimeoutExpired("ffmpeg", 3))) is Exception


@pytest.mark.parametrize("device", ["cuda:0,cuda:1", "cpu,cpu", "cuda:0,cpu"])
def test_several_devices_can_be_named(device):
    assert Settings.from_environment({"MARIONETTE_DEVICE": device}).device == device


@pytest.mark.parametrize("device", ["auto,cpu", "cuda:0,", ",", "cuda,cuda", "cpu;cpu"])
def test_what_names_no_devices_is_refused(device):
    with pytest.raises(ValueError, match="MARIONETTE_DEVICE"):
        Settings.from_environment({"MARIONETTE_DEVICE": device})


def test_several_devices_have_a_process_each(tmp_path):
    backend = worker_backend(settings_of(tmp_path, "cpu,cpu"))
    assert isinstance(backend.executor, ProcessExecutor) and len(backend.dispatcher.loops) == 2
    backend.close()
