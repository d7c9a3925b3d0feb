"""The backend: what the page relies on, on the built-in miniature and on a system that does what the test says."""

import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from pipelines.cards import Source
from pipelines.catalog import CATALOG
from pipelines.events import DENOISING, Failed, Preview, Progress, Result
from pipelines.media import video
from pipelines.models.files import part_folder
from pipelines.serving.local import local_backend
from pipelines.serving.runner import LOADING, Pace
from pipelines.settings import Settings
from pipelines.systems import modelscope
from pipelines.tasks import TextToVideo, to_json

MINIATURE = CATALOG["miniature-modelscope"]
ME, OTHER = "1" * 32, "2" * 32
PICTURES = np.linspace(50, 150, 8 * 16 * 16 * 3).reshape(8, 16, 16, 3).astype(np.uint8)


def task(prompt="a robot in blue waving on the beach", card=MINIATURE, **settings):
    return TextToVideo.for_model(card, prompt, 7, **{"frames": 8, "steps": 3, **settings})


def follow(backend, job):
    """Every event of the job, without the pauses, up to its end."""
    return [event for event in backend.jobs.events(job, ME) if event is not None]


def wait_for(backend, job, stage):
    """Returns as soon as the job is in the stage."""
    for event in backend.jobs.events(job, ME):
        if isinstance(event, Progress) and event.stage == stage:
            return
    raise AssertionError(f"the job ended without {stage}")


def steps(events, stage):
    return [event.step for event in events if isinstance(event, Progress) and event.stage == stage]


# On the miniature


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backend")
    backend = local_backend(Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False))
    yield backend
    backend.close()


def leases(backend):
    return sum(one.leases for one in backend.executor.manager.stats())


def test_a_prompt_becomes_a_video(backend):
    asked = task()
    job = backend.jobs.submit(asked, ME)
    events = follow(backend, job)
    assert isinstance(events[-1], Result) and not any(isinstance(event, Result | Failed) for event in events[:-1])
    stages = list(dict.fromkeys(event.stage for event in events if isinstance(event, Progress)))
    order = [LOADING, "Reading the prompt", DENOISING, "Decoding"]
    assert [stage for stage in stages if stage in order] in (order, order[1:], [order[1], order[0], *order[2:]])
    assert steps(events, DENOISING) == sorted(steps(events, DENOISING)) and steps(events, DENOISING)[-1] == 3
    assert any(isinstance(event, Preview) and event.image[:4] == b"RIFF" for event in events)

    result = events[-1]
    assert result.video.parent == backend.settings.data / "videos" / job
    assert result.video.name == "a-robot-in-blue-waving-on-the-beach-7.mp4"
    assert video.read(result.video).shape == (8, 128, 128, 3)
    assert video.read_comment(result.video) == to_json(asked)
    facts = json.loads(json.dumps(result.facts))
    assert facts["task"] == json.loads(to_json(asked)) and 0 < facts["seconds_per_step"] < facts["seconds"]
    assert leases(backend) == 0

    # Whoever comes late is told how it ended, at once.
    started = time.perf_counter()
    assert follow(backend, job)[-1] == result
    assert time.perf_counter() - started < 10

    assert backend.jobs.export(job, ME, "gif").read_bytes()[:4] == b"GIF8"
    assert backend.jobs.export(job, ME, "gif") == result.video.with_suffix(".gif")
    assert backend.jobs.export(job, ME, "webm").read_bytes()[:4] == b"\x1a\x45\xdf\xa3"
    assert backend.jobs.export(job, ME, "mp4") == result.video
    assert backend.jobs.poster(job, ME).read_bytes()[:2] == b"\xff\xd8"
    assert json.loads(result.video.with_suffix(".json").read_text("utf-8")) == facts
    with pytest.raises(ValueError, match="gif or webm"):
        backend.jobs.export(job, ME, "../../secret")


def test_the_same_seed_makes_the_same_video(backend):
    tasks = task(steps=1), task(steps=1), replace(task(steps=1), seed=8)
    first, second, other = (follow(backend, backend.jobs.submit(one, ME))[-1] for one in tasks)
    assert first.video != second.video
    assert np.array_equal(video.read(first.video), video.read(second.video))
    assert not np.array_equal(video.read(first.video), video.read(other.video))


def test_stop_ends_a_running_job_within_one_step(backend):
    job = backend.jobs.submit(task(steps=100), ME)
    wait_for(backend, job, DENOISING)
    (done,) = steps(backend.table.get(job).events, DENOISING)
    backend.jobs.cancel(job, ME)
    *events, end = follow(backend, job)
    assert end == Failed("Stopped.", stopped=True)
    assert steps(events, DENOISING)[-1] <= done + 2  # one may end between the look and Stop, and one after Stop
    assert leases(backend) == 0
    backend.jobs.cancel(job, ME)  # does nothing any more
    assert follow(backend, job)[-1] == end
    with pytest.raises(ValueError, match="no video"):
        backend.jobs.export(job, ME, "gif")
    assert isinstance(follow(backend, backend.jobs.submit(task(steps=1), ME))[-1], Result)


def test_the_time_left_is_told(backend):
    job = backend.jobs.submit(task(steps=3), ME)
    told = [one.seconds_left for one in follow(backend, job) if isinstance(one, Progress) and one.stage == DENOISING]
    assert any(told) and all(seconds is None or seconds > 0 for seconds in told)
    again = follow(backend, backend.jobs.submit(task(steps=3), ME))
    first = next(one for one in again if isinstance(one, Progress) and one.stage == DENOISING)
    assert first.seconds_left > 0  # known from the job before


def test_a_video_restores_its_task(backend, tmp_path):
    asked = task('a "robot" = blue;\n#1 🤖', frames=9, steps=1, guidance=3.5, negative_prompt="rain", scheduler="ddim")
    result = follow(backend, backend.jobs.submit(asked, ME))[-1]
    shutil.copy(result.video, tmp_path / "renamed.bin")
    assert backend.assets.task_of(tmp_path / "renamed.bin", ME) == asked
    video.write(video.read(result.video), tmp_path / "other.mp4", 8)
    with pytest.raises(ValueError, match="does not tell how it was made"):
        backend.assets.task_of(tmp_path / "other.mp4", ME)
    video.write(video.read(result.video), tmp_path / "other.mp4", 8, "shot on a phone")
    with pytest.raises(ValueError, match="not the description of a video made by Marionette"):
        backend.assets.task_of(tmp_path / "other.mp4", ME)
    gone = to_json(replace(asked, model="a-model-of-old"))
    video.write(video.read(result.video), tmp_path / "other.mp4", 8, gone)
    with pytest.raises(ValueError, match="'a-model-of-old', a model that is not offered here"):
        backend.assets.task_of(tmp_path / "other.mp4", ME)
    with pytest.raises(ValueError, match="not a video that can be used"):
        backend.assets.task_of(Path(__file__), ME)


def test_tokens(backend):
    count, cut = backend.machine.tokens("miniature-modelscope", "a robot")
    assert 4 <= count <= 12 and cut == ""
    count, cut = backend.machine.tokens("miniature-modelscope", "robot " * 100 + "beach")
    assert count > 77 and cut.endswith("robot beach") and len(cut) < 600
    assert backend.machine.tokens("modelscope-1.7b", "a robot") is None
    with pytest.raises(ValueError, match="no model called"):
        backend.machine.tokens("nope", "a robot")


def test_damaged_weights_are_told_and_harm_nobody(tmp_path):
    source = Path(MINIATURE.source.location)
    damaged = tmp_path / "damaged"
    shutil.copytree(source, damaged)
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(part_folder(source, part), damaged / part)
    weights = next((damaged / "text_encoder").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    bad = replace(MINIATURE, name="damaged", source=Source(str(damaged)))
    gone = replace(MINIATURE, name="gone", source=Source(str(tmp_path / "nowhere")))
    catalog = {card.name: card for card in (MINIATURE, bad, gone)}
    backend = local_backend(Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu"), catalog)
    jobs = [backend.jobs.submit(task(card=card, steps=1), ME) for card in (bad, gone, MINIATURE)]
    first, second, third = (follow(backend, job)[-1] for job in jobs)
    backend.close()
    assert isinstance(first, Failed) and "damaged or incomplete" in first.message
    assert isinstance(second, Failed) and "no folder" in second.message
    assert isinstance(third, Result)
    assert [path.name for path in (tmp_path / "data" / "videos").iterdir()] == [jobs[2]]


# On a system that does what the prompt says


class Scripted:
    """A system without a model. A prompt "stay" lasts until it is stopped or `go` is set."""

    def __init__(self):
        self.go = threading.Event()
        self.began: list[str] = []
        self.threads: set[int] = set()

    def generate(self, task, models, checkpoints=None):
        self.began.append(task.prompt)
        self.threads.add(threading.get_ident())
        yield Progress(DENOISING, 0, 2)
        if task.prompt.startswith("stay"):
            while not self.go.wait(0.01):
                yield Progress(DENOISING, 0, 2)
        elif task.prompt == "break":
            raise RuntimeError("secret /home/person/file")
        elif task.prompt == "never fits" or (task.prompt == "fits frugally" and not models.frugal):
            raise torch.OutOfMemoryError("CUDA out of memory")
        elif task.prompt in ("black", "plain"):
            return np.full_like(PICTURES, 0 if task.prompt == "black" else 99), {}
        elif task.prompt.startswith("echo"):
            raise ValueError(f"can't do {task.prompt}")
        elif task.prompt == "exit":
            raise SystemExit(1)
        yield Preview(b"picture")
        yield Progress(DENOISING, 2, 2)
        return PICTURES, {"frugal": models.frugal}


SCRIPTED = replace(MINIATURE, name="scripted", system="scripted")


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """A backend that runs `scripted.system`."""
    system = Scripted()
    tiny.add_engine(monkeypatch, "scripted", replace(modelscope.ENGINE, generate={TextToVideo: system.generate}))
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", queue=4, queue_each=3)
    backend = local_backend(settings, {"scripted": SCRIPTED})
    backend.system = system
    yield backend
    system.go.set()
    backend.close()


def say(backend, prompt, owner=ME):
    return backend.jobs.submit(task(prompt, SCRIPTED), owner)


def test_jobs_run_one_after_another(scripted):
    jobs = [say(scripted, prompt) for prompt in ("stay", "second", "third")]
    wait_for(scripted, jobs[0], DENOISING)
    second, third = (scripted.table.get(job).progress for job in jobs[1:])
    assert (second.stage, second.step, second.total) == ("Waiting", 1, 2) and (third.step, third.total) == (2, 2)
    assert third.seconds_left > second.seconds_left >= 0 and scripted.machine.seconds_ahead() > third.seconds_left
    assert scripted.system.began == ["stay"]
    scripted.system.go.set()
    ends = [follow(scripted, job)[-1] for job in jobs]
    assert all(isinstance(end, Result) for end in ends) and len({end.video for end in ends}) == 3
    assert scripted.system.began == ["stay", "second", "third"] and len(scripted.system.threads) == 1


def test_a_waiting_job_moves_up_and_can_be_stopped(scripted):
    running, second, third = (say(scripted, prompt) for prompt in ("stay", "second", "third"))
    wait_for(scripted, running, DENOISING)
    scripted.jobs.cancel(second, ME)
    assert follow(scripted, second)[-1] == Failed("Stopped.", stopped=True)
    assert replace(scripted.table.get(third).progress, seconds_left=None) == Progress("Waiting", 1, 1)
    scripted.jobs.cancel(running, ME)
    assert follow(scripted, running)[-1] == Failed("Stopped.", stopped=True)
    assert isinstance(follow(scripted, third)[-1], Result)
    assert scripted.system.began == ["stay", "third"]


def test_the_queue_has_an_end(scripted):
    running = say(scripted, "stay")
    wait_for(scripted, running, DENOISING)
    waiting = [say(scripted, f"waiting {number}") for number in range(3)]
    with pytest.raises(ValueError, match="3 videos of yours are waiting already"):
        say(scripted, "one too many")
    say(scripted, "of somebody else", OTHER)
    with pytest.raises(ValueError, match="4 videos are waiting already"):
        say(scripted, "one too many", OTHER)
    scripted.jobs.cancel(waiting[0], ME)
    with pytest.raises(ValueError, match="the places left are for visitors who have none waiting"):
        say(scripted, "the last place")
    scripted.jobs.cancel(waiting[1], ME)
    say(scripted, "fits again")


def test_unknown_jobs(scripted):
    for ask in asks(scripted):
        with pytest.raises(ValueError, match="no such job"):
            ask("0123456789abcdef", ME)


def asks(backend):
    """Everything that can be asked of a job."""
    export = lambda job, owner: backend.jobs.export(job, owner, "mp4")  # noqa: E731
    jobs = backend.jobs
    return jobs.events, jobs.get, jobs.cancel, jobs.pause, jobs.resume, jobs.delete, jobs.poster, export


def test_jobs_of_others_do_not_exist(scripted):
    done = say(scripted, "video")
    video_file = follow(scripted, done)[-1].video
    running, waiting = say(scripted, "stay"), say(scripted, "second")
    wait_for(scripted, running, DENOISING)
    for job in (done, running, waiting):
        for ask in asks(scripted):
            with pytest.raises(ValueError, match="no such job"):
                ask(job, OTHER)
    assert scripted.jobs.finished(OTHER) == scripted.jobs.unfinished(OTHER) == []
    assert [job.id for job in scripted.jobs.unfinished(ME)] == [running, waiting]
    assert not scripted.jobs.get(running, ME).stopping and not scripted.jobs.get(running, ME).pausing
    assert [job.id for job in scripted.jobs.finished(ME)] == [done] and video_file.exists()


@pytest.mark.parametrize(
    "change",
    [{"frames": 1000}, {"frames": "8"}, {"seed": -1}, {"prompt": ""}, {"guidance": float("nan")}, {"model": "x"}],
)
def test_tasks_are_validated_again(scripted, change):
    with pytest.raises(ValueError):
        scripted.jobs.submit(replace(task("video", SCRIPTED), **change), ME)


def test_a_pause_is_told_as_none(scripted):
    job = say(scripted, "stay")
    waiting = say(scripted, "second")
    events = scripted.jobs.events(waiting, ME)
    assert isinstance(next(events), Progress)
    started = time.perf_counter()
    while (event := next(events)) is not None:
        assert event.stage == "Waiting"
    assert 0.2 < time.perf_counter() - started < 10
    scripted.jobs.cancel(job, ME)


def test_listeners_come_late_and_in_numbers(scripted):
    job = say(scripted, "stay")
    wait_for(scripted, job, DENOISING)
    heard = [[], []]
    threads = [threading.Thread(target=lambda into=into: into.extend(follow(scripted, job))) for into in heard]
    for thread in threads:
        thread.start()
    next(scripted.jobs.events(job, ME))  # one that leaves at once changes nothing
    scripted.system.go.set()
    for thread in threads:
        thread.join()
    assert heard[0][-1] == heard[1][-1] and isinstance(heard[0][-1], Result)
    assert [type(event) for event in follow(scripted, job)] == [Result]


def test_a_failure_is_told_and_the_next_job_runs(scripted, caplog):
    broken, after = say(scripted, "break"), say(scripted, "video")
    end = follow(scripted, broken)[-1]
    assert isinstance(end, Failed) and not end.stopped and "secret" not in end.message
    number = end.message.rstrip(".").split()[-1]
    assert number in caplog.text and "secret /home/person/file" in caplog.text
    assert isinstance(follow(scripted, after)[-1], Result)


FAILURES = {"black": "black", "plain": "one plain colour", "exit": "log number", "never fits": "too small"}


@pytest.mark.parametrize("prompt, message", FAILURES.items())
def test_every_failure_has_its_message(scripted, prompt, message):
    end = follow(scripted, say(scripted, prompt))[-1]
    assert isinstance(end, Failed) and message in end.message
    assert isinstance(follow(scripted, say(scripted, "video"))[-1], Result)
    assert len(list((scripted.settings.data / "videos").iterdir())) == 1


def test_out_of_memory_is_tried_again_frugally(scripted):
    assert follow(scripted, say(scripted, "fits frugally"))[-1].facts["frugal"] is True
    assert follow(scripted, say(scripted, "video"))[-1].facts["frugal"] is False


def test_a_closed_backend_goes_on_when_it_is_opened_again(scripted):
    running, waiting = say(scripted, "stay"), say(scripted, "second", OTHER)
    wait_for(scripted, running, DENOISING)
    scripted.close()
    assert not scripted.machine.health()["worker"]["alive"]
    with pytest.raises(ValueError, match="shutting down"):
        say(scripted, "too late")
    scripted.system.go.set()
    again = local_backend(scripted.settings, {"scripted": SCRIPTED})
    try:
        assert isinstance(follow(again, running)[-1], Result)
        assert isinstance([event for event in again.jobs.events(waiting, OTHER) if event][-1], Result)
        assert again.jobs.get(running, ME).attempts == 1  # an orderly end is no failed attempt
    finally:
        again.close()


def test_one_data_folder_one_app(scripted):
    with pytest.raises(ValueError, match="can't be opened"):
        local_backend(scripted.settings, {"scripted": SCRIPTED})


def test_what_is_deleted_is_gone(scripted):
    kept, job = say(scripted, "video"), say(scripted, "another")
    follow(scripted, kept)
    path = follow(scripted, job)[-1].video
    scripted.jobs.export(job, ME, "gif"), scripted.jobs.poster(job, ME)
    scripted.jobs.delete(job, ME)
    assert not path.parent.exists()
    assert [one.id for one in scripted.jobs.finished(ME)] == [kept]
    for ask in asks(scripted):
        with pytest.raises(ValueError, match="no such job"):
            ask(job, ME)
    running = say(scripted, "stay")
    with pytest.raises(ValueError, match="Stop it first"):
        scripted.jobs.delete(running, ME)


def test_a_full_disk_is_told_before_work_starts(scripted, monkeypatch):
    monkeypatch.setattr(scripted.storage, "_settings", replace(scripted.settings, disk_margin_mb=10**9))
    with pytest.raises(ValueError, match="disk is nearly full"):
        say(scripted, "video")
    assert scripted.jobs.unfinished(ME) == [] and scripted.system.began == []


def test_no_log_holds_what_a_visitor_wrote(scripted, caplog):
    end = follow(scripted, say(scripted, "echo my secret wish"))[-1]
    assert "Log number" in end.message and "secret wish" not in caplog.text
    assert "ValueError: can't do [what the visitor wrote]" in caplog.text


def test_nothing_heavy_before_the_first_job(tmp_path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipelines.serving.local import local_backend\n"
        "from pipelines.settings import Settings\n"
        "backend = local_backend(Settings(data=Path(sys.argv[1]), hub=False))\n"
        "assert backend.machine.availability('miniature-modelscope') is None\n"
        "assert backend.machine.tokens('miniature-modelscope', 'a robot')[0] > 2\n"
        "backend.close()\n"
        "print([name for name in ('torch', 'diffusers', 'transformers', 'gradio') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_pace(monkeypatch):
    """What is left is this stage at its own pace, and the stages to come as they were in the job before."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("pipelines.serving.runner.time", SimpleNamespace(perf_counter=lambda: clock.now))

    def left(pace, stage, step, total, seconds):
        clock.now += seconds
        return pace.estimate(Progress(stage, step, total)).seconds_left

    first = Pace({})
    assert left(first, DENOISING, 1, 5, seconds=9) is None
    assert left(first, DENOISING, 2, 5, seconds=2) == pytest.approx(6 + 0.8)  # a tenth for what comes after
    assert left(first, DENOISING, 5, 5, seconds=6) == pytest.approx(0.8)
    assert left(first, "Decoding", 1, 3, seconds=1) == pytest.approx(0.8)
    assert left(first, "Decoding", 3, 3, seconds=4) == pytest.approx(0.4)
    first.end()
    assert first.taken == {DENOISING: 9, "Decoding": 4} and first.working == 13

    second = Pace(first.taken)
    assert left(second, LOADING, 0, 100, seconds=0) == 13
    assert left(second, LOADING, 50, 100, seconds=3) == 13  # not 3 more: it never goes up
    assert left(second, LOADING, 0, 200, seconds=3) == 13  # another component
    assert left(second, DENOISING, 1, 5, seconds=1) == 13
    assert left(second, DENOISING, 3, 5, seconds=6) == 6 + 4
    assert left(second, "Decoding", 1, 3, seconds=1) == 4
    assert left(second, "Decoding", 2, 3, seconds=1) == 1

    third = Pace({}, expected=20)
    assert left(third, LOADING, 0, 1, seconds=1) == 20
    assert left(third, LOADING, 1, 1, seconds=5) == 20
    assert left(third, "Reading the prompt", 0, 1, seconds=1) == 20
    assert left(third, "Reading the prompt", 1, 1, seconds=0.1) == pytest.approx(19.9)  # its pace is not the job's
    assert left(third, DENOISING, 0, 5, seconds=1) == pytest.approx(18.9)
    assert left(third, DENOISING, 1, 5, seconds=2) == pytest.approx(8 + 1)


def test_the_bar_of_a_job_never_goes_back(monkeypatch):
    """Whatever its stages do."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("pipelines.serving.runner.time", SimpleNamespace(perf_counter=lambda: clock.now))
    pace, told = Pace({DENOISING: 5.0, "Decoding": 2.0}, expected=9), []
    for stage, steps, each in ((DENOISING, 4, 1.0), (LOADING, 2, 3.0), (DENOISING, 4, 2.5), ("Decoding", 8, 0.5)):
        for step in range(steps + 1):
            clock.now += each
            told.append(pace.estimate(Progress(stage, step, steps)))
    shares, left = [one.done for one in told], [one.seconds_left or 0.0 for one in told]
    assert shares == sorted(shares) and 0 <= shares[0] < 0.2 and 0.9 < shares[-1] < 1
    assert left == sorted(left, reverse=True)
