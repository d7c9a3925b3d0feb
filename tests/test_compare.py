"""Videos side by side: whose they may be, and in which settings they are said to differ."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.catalog import find
from pipelines.events import Result
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import Edit, Finish, PoseToVideo, TextToVideo
from ui import compare, page

ME, OTHER = "1" * 32, "2" * 32
BEAR = TextToVideo.for_model(find("miniature-modelscope"), "a bear bows", 7)


@pytest.fixture
def backend(tmp_path):
    """Makes nothing: what is finished is put there."""
    backend = local_backend(Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False))
    backend.dispatcher.pause()
    yield backend
    backend.table.close()


def finished(backend, owner, task=BEAR):
    job = backend.table.add(task, owner)
    backend.table.take(0)
    place: Path = backend.settings.data / "videos" / job.id / "a.mp4"
    place.parent.mkdir(parents=True, exist_ok=True)
    video.write(np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8), place, 8, "")
    backend.table.tell(job.id, Result(place, {}))
    return job.id


def test_a_fourth_video_takes_the_place_of_the_first_and_a_second_click_takes_one_out():
    chosen = []
    for job in "abcd":
        chosen = compare.toggled(chosen, job)
    assert chosen == ["b", "c", "d"]
    assert compare.toggled(chosen, "c") == ["b", "d"]


def test_only_ones_own_finished_videos_are_compared_whatever_ids_come(backend):
    mine, theirs, gone = finished(backend, ME), finished(backend, OTHER), finished(backend, ME)
    waiting = backend.table.add(BEAR, ME).id
    assert [job.id for job in compare.own(backend, ME, [mine, theirs, "nonsense"])] == [mine]
    assert [job.id for job in compare.own(backend, ME, [waiting, None, mine])] == [mine]
    backend.jobs.delete(gone, ME)
    assert compare.own(backend, ME, [gone, theirs]) == []


def test_the_page_shows_nothing_of_somebody_elses_video(backend, tmp_path):
    mine, also_mine, theirs = (finished(backend, backend.owners.of(one)) for one in (ME, ME, OTHER))
    demo = page.build(backend, backend.settings)
    show = next(event for event in demo.fns.values() if getattr(event.fn, "__qualname__", "").startswith("panel."))

    def shown(*identifiers):
        (player,) = [block for block in show.outputs if block.elem_id == "compare-films"]
        return show.fn(ME, list(identifiers))[player]

    assert shown(mine, theirs) == []
    films = [film["file"]["path"] for film in shown(mine, also_mine, theirs)]
    addresses = [backend.assets.address(backend.settings.data / "videos" / job / "a.mp4") for job in (mine, also_mine)]
    assert films == addresses and films[0] != films[1]


def test_the_table_holds_only_what_differs_and_nobodys_text_becomes_markup():
    other = replace(BEAR, prompt="a <b>bear</b> kicks", seed=8)
    table = compare.differences([BEAR, other])
    assert '<th scope="row">Prompt</th><td>a bear bows</td><td>a &lt;b&gt;bear&lt;/b&gt; kicks</td>' in table
    assert '<th scope="row">Seed</th><td>7</td><td>8</td>' in table
    assert table.count("<tr>") == 3 and "Steps" not in table
    assert "same settings" in compare.differences([BEAR, BEAR])


def test_videos_of_different_tabs_are_compared_too():
    pose = PoseToVideo.for_model(find("miniature-followyourpose"), "a bear bows", 7, motion="kick")
    edit = Edit.for_model(find("miniature-sd"), "a bear bows", 7, tuned="a" * 32)
    table = compare.differences([BEAR, pose, edit])
    for row in (
        "Made by</th><td>Text to video</td><td>Pose to video</td><td>Edit of a clip</td>",
        "Motion</th><td>–</td><td>Kick</td><td>–</td>",
        "Tuned model</th><td>–</td><td>none</td><td>A</td>",
        "Strength</th><td>–</td><td>1</td><td>0</td>",
    ):
        assert row in table
    assert "Who is followed" not in table
    alone = replace(pose, person=0)
    assert "Who is followed</th><td>–</td><td>Everybody</td><td>Person 1</td>" in compare.differences(
        [BEAR, pose, alone]
    )
    larger = compare.differences([BEAR, Finish.for_video(BEAR, "b" * 32, 2, 1)])
    assert "Finished: size</th><td>–</td><td>2×</td>" in larger and larger.count('scope="row"') == 2


def test_every_setting_of_every_task_has_a_name_for_people():
    names = {field for kind in (TextToVideo, PoseToVideo, Edit) for field in kind.__dataclass_fields__}
    assert names <= compare.SETTINGS.keys()
