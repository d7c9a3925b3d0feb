"""The library without a browser: several videos at once, favourites, and what a card tells."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.catalog import find
from pipelines.events import Result
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import Grid, PoseToVideo, TextToVideo
from ui import access, compare, follower, html, page
from ui.finish import Finishing
from ui.pose_to_video import PoseToVideoTab

ME, OTHER = "1" * 32, "2" * 32
BEAR = TextToVideo.for_model(find("miniature-modelscope"), "a <b>bear</b> bows", 7)


@pytest.fixture
def backend(tmp_path):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    with closing(local_backend(settings)) as backend:
        backend.dispatcher.pause()
        yield backend


def finished(backend, visitor_id, task=BEAR, **facts):
    job = backend.table.add(task, backend.owners.of(visitor_id))
    place: Path = backend.settings.data / "videos" / job.id / "a.mp4"
    place.parent.mkdir(parents=True, exist_ok=True)
    video.write(np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8), place, 8, "")
    backend.table.adopt(replace(job, state="done", ended=job.submitted, end=Result(place, facts)))
    return job.id


def test_only_ones_own_videos_are_chosen_saved_liked_and_deleted(backend):
    mine, also_mine, theirs = (finished(backend, one) for one in (ME, ME, OTHER))
    demo = page.build(backend, backend.settings)
    names = ((getattr(event.fn, "__qualname__", ""), event) for event in demo.fns.values())
    fns = {name.removeprefix("tab.<locals>."): event for name, event in names}
    act, save, remove, look = (fns[name] for name in ("act", "save_picked", "remove_picked", "look"))

    def pressed(what, job):
        found = act.fn(ME, [], [], SimpleNamespace(act=what, job=job))
        return {block.elem_id: value for block, value in found.items()}

    for what in ("pick", "favour", "open", "compare"):
        with pytest.raises(Exception, match="no such job"):
            pressed(what, theirs)
    pressed("favour", mine)
    assert backend.table.get(mine).favourite and not backend.table.get(theirs).favourite
    shelf = next(value for block, value in look.fn(ME, "", True, 1, [], [mine]).items() if block.elem_id == "shelf")
    assert mine in shelf and also_mine not in shelf and theirs not in shelf and "<b>bear" not in shelf
    address = save.fn(ME, [mine, also_mine])
    assert address.count("of=") == 2 and mine not in address and ME not in address  # no id leaves the app
    with pytest.raises(Exception, match="no such job"):
        save.fn(ME, [mine, theirs])
    remove.fn(ME, mine, [mine], [mine, theirs])
    assert {job.id for job in backend.table.finished()} == {theirs, also_mine}


@pytest.mark.parametrize("told", [{"frames": 9}, {"poses": {"frames": 9}}], ids=["today", "before"])
def test_of_a_short_clip_the_page_tells_what_was_made(backend, told):
    """Sixteen frames were asked for, and nine made of the clip."""
    asked = PoseToVideo.for_model(find("miniature-followyourpose"), "a bear", 7, motion="wave")
    assert asked.frames == 16 and asked.fps == 8
    short, whole = finished(backend, ME, asked, **told), finished(backend, ME, asked)
    demo = page.build(backend, backend.settings)
    named = [(getattr(event.fn, "__qualname__", ""), event) for event in demo.fns.values()]
    fns = {name.removeprefix("tab.<locals>."): event.fn for name, event in named}

    def by_name(updates):
        return {block.elem_id: value for block, value in updates.items()}

    shelf = by_name(fns["look"](ME, "", False, 1, [], []))["shelf"]
    assert shelf.count("1.1 s") == 1 and shelf.count("2.0 s") == 1 and "Frames 9" in shelf
    about = by_name(fns["act"](ME, [], [], SimpleNamespace(act="open", job=short)))["chosen-about"]
    assert "9 frames · 1.1 s" in about
    stage = follower.View(ME, backend.table.get(short))
    for place in (event.fn.__wrapped__.__self__ for name, event in named if name.startswith("Stage.updates")):
        if isinstance(place, PoseToVideoTab):
            assert "9 frames · 1.1 s" in place.state(stage)[place.figures]
        if isinstance(place, Finishing):
            assert "17 frames · 16 a second" in place.look(ME, short, 1, 2)
    table = fns["panel.<locals>.show"](ME, [short, whole])
    assert "<td>9</td><td>16</td>" in next(value for value in table.values() if "Frames" in str(value))


def test_a_card_tells_the_seed_and_what_differs():
    other = replace(BEAR, seed=8, steps=12, guidance=4.0)
    alone = TextToVideo.for_model(find("miniature-modelscope"), "a robot", 3)
    one, two, three = compare.apart([BEAR, other, alone])
    assert one.startswith("Seed 7 · ") and f"Steps {BEAR.steps}" in one
    assert "Seed 8" in two and "Steps 12" in two and "Guidance 4" in two
    assert three == "Seed 3"
    card = html.Card("0" * 32, BEAR, "Model", 0.0, None, '"><script>', "2 of 6 · Seed 7")
    drawn = html.shelf([card], searched=False)
    assert "2 of 6 · Seed 7" in drawn and "<script>" not in drawn


def test_a_grid_is_counted_truly_whenever_one_comes(backend):
    jobs = [backend.table.add(replace(BEAR, seed=seed), "me") for seed in range(3)]
    grid = backend.table.add(Grid.for_videos(BEAR, "a bear", [0, 1, 2], [job.id for job in jobs]), "me")
    going = {job.id: job for job in (*jobs[1:], grid)}  # the first is done, and was never seen by this page
    assert follower.moment_of(tuple(going), going, []).of == (2, 3)


def test_a_link_is_offered_only_where_anybody_may_follow_it(monkeypatch):
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    assert not access.is_open(Settings())  # of this machine alone
    assert access.is_open(Settings(origins="https://puppets.example"))
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert access.is_open(Settings())
    assert not access.is_open(Settings(password="given to few")) and not access.is_open(Settings(admitted="anna"))
