"""Files between machines without a shared disk: what goes out, what comes back, and what is refused."""

from dataclasses import replace

import pytest
from test_executors import SCRIPTED

from pipelines.media import video
from pipelines.serving import file_transfer
from pipelines.serving.executor import Asset, Work
from pipelines.serving.file_transfer import Changes, Inputs, TransferError, Watch
from pipelines.tasks import TextToVideo

JOB, CLIP = "1" * 32, "2" * 32
WORK = Work(
    TextToVideo.for_model(SCRIPTED, "a bear", 7, frames=8, steps=2), {"clip": Asset("clips", CLIP, "upload")}, JOB
)


def write(data, **files):
    for name, content in files.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def data(tmp_path):
    own = {f"videos/{JOB}/{name}": b"own" for name in ("job.json", "checkpoints/loop.safetensors", ".a.part")}
    of_clip = {f"clips/{CLIP}/{name}": b"clip" for name in ("upload", "preview.mp4", "clip.json", "people-1.npz")}
    write(tmp_path, **own, **of_clip, **{"videos/other/video.mp4": b"another's"})
    return tmp_path


def test_a_work_takes_along_its_assets_and_what_it_goes_on_from_and_nothing_else(data):
    wanted = {f"clips/{CLIP}/upload", f"clips/{CLIP}/people-1.npz", f"videos/{JOB}/checkpoints/loop.safetensors"}
    assert file_transfer.needed(WORK, data).keys() == wanted
    assert not file_transfer.needed(replace(WORK, assets={}, job=""), data)


def test_what_has_changed_is_told_once_and_only_when_it_is_complete(data):
    watch = Watch(data, file_transfer.watched(WORK))
    write(data, **{f"videos/{JOB}/a.mp4": b"half", f"videos/{JOB}/.b.part": b"half"})
    assert not watch.changes()  # it may still be written
    assert watch.changes().files == {f"videos/{JOB}/a.mp4": b"half"}
    assert not watch.changes()
    with video.whole(data / "videos" / JOB / "a.mp4") as draft:
        draft.write_bytes(b"another")
    assert watch.changes().files == {f"videos/{JOB}/a.mp4": b"another"}  # whole from the beginning
    write(data, **{f"videos/{JOB}/a.mp4": b"whole"})
    (data / "videos" / JOB / "checkpoints" / "loop.safetensors").unlink()
    last = watch.changes(ended=True)
    assert last == Changes({f"videos/{JOB}/a.mp4": b"whole"}, (f"videos/{JOB}/checkpoints/loop.safetensors",))


def test_changes_are_made_in_the_jobs_folder_and_files_of_others_are_only_added_to(data):
    gone = f"videos/{JOB}/checkpoints/loop.safetensors"
    files = {f"videos/{JOB}/a.mp4": b"new", f"clips/{CLIP}/people-1.npz": b"new", f"clips/{CLIP}/people-2.npz": b"new"}
    file_transfer.unpack(Changes(files, (gone, f"clips/{CLIP}/upload")), WORK, data)
    assert (data / "videos" / JOB / "a.mp4").read_bytes() == b"new"
    assert not (data / gone).parent.exists() and (data / "videos" / JOB / "job.json").exists()
    clip = data / "clips" / CLIP
    assert (clip / "people-1.npz").read_bytes() == b"clip" and (clip / "upload").exists()
    assert (clip / "people-2.npz").read_bytes() == b"new"


@pytest.mark.parametrize(
    "name",
    [
        "videos/other/video.mp4",
        f"videos/{JOB}/../other/video.mp4",
        f"videos/{JOB}/job.json",
        f"videos/{JOB}/.hidden",
        f"videos/{JOB}/a\\b",
        f"/videos/{JOB}/a",
        f"videos/{JOB}",
        "marionette.sqlite",
        f"videos/{JOB}/link/a",
    ],
)
def test_a_file_that_is_not_the_works_is_refused(data, name):
    (data / "videos" / JOB / "link").symlink_to(data / "videos" / "other")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    for changes in (Changes({name: b"bad"}), Changes(gone=(name,))):
        with pytest.raises(TransferError, match="not its own"):
            file_transfer.unpack(changes, WORK, data)
    assert before == {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_inputs_are_fetched_once_and_laid_out_while_a_work_goes_on(tmp_path):
    fetched = []

    def fetch(content):
        fetched.append(content)
        return content

    write(tmp_path, source=b"content")
    sha, own = file_transfer.digest(tmp_path / "source"), f"videos/{JOB}"
    inputs = Inputs(tmp_path, fetch)
    for _ in range(2):
        inputs.lay_out({"clips/1/upload": (sha, [b"content"]), f"{own}/checkpoint": (sha, [b"content"])}, own)
        assert (inputs.data / "clips/1/upload").read_bytes() == b"content"
        (inputs.data / own / "checkpoint").write_bytes(b"written in place")  # a copy
        inputs.clear()
        assert not list(inputs.data.iterdir())
    assert fetched == [b"content"]
    inputs.forget()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["source"]
    with pytest.raises(TransferError, match="damaged"):
        inputs.lay_out({"clips/1/upload": ("0" * 64, [b"content"])}, own)
