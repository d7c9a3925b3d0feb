"""What is said beside the button before it is pressed: how long, or nothing. Of lent GPUs: test_zerogpu.py."""

from collections.abc import Iterator
from dataclasses import asdict

import gradio as gr
import pytest
from gradio.state_holder import SessionState
from running_app import awaited, waiting_backend

from pipelines.catalog import find
from pipelines.events import Result
from pipelines.serving import load_time
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo
from ui import estimates, forms, page
from ui.stream import about

VISITOR, OTHER = "1" * 32, "2" * 32
SMALL, LARGE = find("miniature-modelscope"), find("modelscope-1.7b")


def a_task(card, **settings):
    return TextToVideo.for_model(card, "a clip", 0, **settings)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimates")
    return Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False)


@pytest.fixture(scope="module")
def backend(settings):
    backend = local_backend(settings)
    yield backend
    backend.close()


def test_here_it_says_how_long_and_for_long_jobs_what_a_gpu_would_do(backend):
    short, long = (estimates.line(backend, [a_task(card)]) for card in (SMALL, LARGE))
    assert "bout" in short and "on this machine" in short and "GPU" not in short
    assert "on this machine. It has no GPU: one would do it in about" in long
    assert backend.machine.estimate_on_gpu(a_task(LARGE)) < backend.machine.estimate(a_task(LARGE)) / 50


def test_several_videos_take_as_much_longer(backend):
    many = estimates.line(backend, [a_task(LARGE)] * 3)
    assert "3 videos: about" in many and many != estimates.line(backend, [a_task(LARGE)])


def test_a_model_that_is_to_be_loaded_takes_longer_once_for_all_videos(tmp_path, monkeypatch):
    with waiting_backend(tmp_path) as backend:
        monkeypatch.setattr(load_time, "START", 600.0)
        task = a_task(SMALL)
        one, loading = backend.machine.estimate(task), backend.machine.seconds_to_load(task)
        assert loading > 600 and about(3 * one + loading) in estimates.line(backend, [task] * 3)
        assert "one would do it in" in estimates.line(backend, [task])  # a quick job, but for that


def test_it_is_silent_where_nothing_is_known_or_possible(backend):
    def impossible():
        raise ValueError("no")

    with gr.Blocks():
        ahead = estimates.Ahead(backend, "ahead")
    silent = {ahead.line: "", ahead.tasks: ()}
    assert ahead.foresee(impossible) == silent and ahead.again(()) == ahead.again(None) == {}
    assert ahead.foresee(lambda: [forms.text_to_video({"prompt": "", "model": SMALL.name, "seed": 0})]) == silent


def test_every_tab_that_makes_something_says_it(backend, settings):
    """And again whenever a control changes that decides how long it takes."""
    demo = page.build(backend, settings)
    told = {}
    for event in demo.fns.values():
        if getattr(event.fn, "__name__", "") == "foresee" and event.trigger_after is None:
            line, _ = event.outputs
            told[line.elem_id] = event
    assert set(told) == {"ahead", "pose-ahead", "tune-ahead", "edit-ahead"}
    for name, event in told.items():
        assert not event.queue and isinstance(event.outputs[0], gr.HTML)
        listened = {demo.blocks[block].elem_id for block, _ in event.targets if block in demo.blocks}
        steps = {"ahead": "steps", "pose-ahead": "pose-steps", "tune-ahead": "tune-steps", "edit-ahead": "edit-steps"}
        assert steps[name] in listened

    def says(name, **changed):
        line, _ = told[name].outputs
        values = {one: changed.get(one.elem_id, getattr(one, "value", None)) for one in told[name].inputs}
        return told[name].fn(values)[line]

    assert says("ahead") != says("ahead", model=LARGE.name, **asdict(LARGE.defaults)) != ""
    assert "4 videos" in says("ahead", prompt="a\nb", grid=True, **{"grid-seeds": "1, 2"})
    assert says("ahead", steps=-1) == says("edit-ahead") == ""
    assert "on this machine" in says("pose-ahead") and "on this machine" in says("tune-ahead")
    assert "2 videos" in says("pose-ahead", **{"pose-prompt": "a\nb"})


def asked(demo, event, session, **named):
    """What the server answers to `event` of a browser's page, which holds what it opened with and what is `named`, by
    the ids of its controls."""
    values = [named.get(one.elem_id, getattr(one, "value", None)) for one in event.inputs]
    return awaited(demo.process_api(event, values, state=session))["data"]


def events(demo, *names):
    """Those whose handlers have one of the `names`, but for those that only follow another."""
    told = [event for event in demo.fns.values() if getattr(event.fn, "__name__", "") in names]
    return [event for event in told if event.trigger_after is None]


def test_between_two_models_an_estimate_is_empty_and_a_press_is_refused_in_words(backend, settings):
    """A page that asks before it shows what the new model can do still holds the values of the old one."""
    demo, other = page.build(backend, settings), find("wan-2.1-vace-clips")
    session = SessionState(demo)
    (chosen,) = [one for one in events(demo, "choose_model") if one.inputs[0].elem_id == "model"]
    (ahead,) = [one for one in events(demo, "foresee") if one.outputs[0].elem_id == "ahead"]
    before = asked(demo, ahead, session)[0]
    asked(demo, chosen, session, model=other.name)
    assert "on this machine" in before == asked(demo, ahead, session)[0]
    assert asked(demo, ahead, session, model=other.name)[0] == ""
    (press,) = [
        one for one in events(demo, "press") if "generate" in {demo.blocks[on].elem_id for on, _ in one.targets}
    ]
    with pytest.raises(gr.Error, match="not what this action takes"):
        asked(demo, press, session, model=other.name)


ODD = (None, True, -1, 0.1, 10**300, "", "x", "a\ud800b", [], ["x"], {"a": {"b": 1}})


def test_what_only_informs_never_fails(backend, settings):
    """Whatever a control holds, of each in turn."""
    demo = page.build(backend, settings)
    informing = [one for one in demo.fns.values() if not one.preprocess and one.api_visibility == "private"]
    assert {"foresee", "hint", "look", "draw_part"} <= {one.fn.__name__ for one in informing}
    for event in informing:
        for control in event.inputs:
            if not isinstance(control, gr.State | gr.BrowserState):
                for odd in ODD:
                    values = {one: getattr(one, "value", None) for one in event.inputs} | {control: odd}
                    told = event.fn(values) if event.inputs_as_dict else event.fn(*values.values())
                    if isinstance(told, Iterator):  # a look, which may take a while
                        next(told)
                        told.close()


def test_it_stays_right_while_the_queue_and_the_machine_move_on(tmp_path):
    """The page's own questions, of how things stand, are answered with it: it asks nothing more."""
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    with waiting_backend(tmp_path) as backend:
        demo = page.build(backend, settings)
        named = [(getattr(event.fn, "__name__", ""), event) for event in demo.fns.values()]
        watch = next(
            event for name, event in named if name == "look" and "ahead" in {one.elem_id for one in event.outputs}
        )
        lines = [one for one in watch.outputs if one.elem_id]
        assert [one.elem_id for one in lines] == ["ahead", "pose-ahead", "tune-ahead", "edit-ahead"]
        foreseen = (a_task(SMALL),)

        def told():
            return watch.fn(VISITOR, foreseen, (), (), ()).get(lines[0])

        alone = told()
        assert "on this machine." in alone and watch.fn(VISITOR, (), (), (), ()).get(lines[0]) is None
        job = backend.jobs.submit(a_task(SMALL), OTHER)
        assert "after about" in told()
        backend.jobs.cancel(job, OTHER)
        assert told() == alone
        done = backend.table.add(a_task(SMALL), OTHER)
        backend.table.take(1)
        backend.table.tell(done.id, Result(tmp_path, {"working_seconds": 3600.0}))
        assert told() == estimates.line(backend, foreseen) != alone and "About 60 min" in told()
        backend.jobs.delete(done.id, OTHER)
        assert told() == alone


def test_settings_that_are_filled_in_from_elsewhere_are_foreseen_with_them(backend, settings):
    """Controls out of sight do not tell that they changed: the answer that sets them tells the line, or asks for it."""
    demo = page.build(backend, settings)
    events = [(getattr(event.fn, "__name__", ""), event) for event in demo.fns.values()]
    after = {event.trigger_after for name, event in events if name == "foresee"}
    fillers = {name for name, event in events if event._id in after}
    assert fillers == {"choose_model", "choose_image", "begin_with", "refill", "choose_example", "open", "choose_base"}
    (text,) = {event.fn.__wrapped__.__self__ for name, event in events if name == "foresee" and "ahead" in names(event)}
    long = text.fill(a_task(LARGE))
    assert long[text.ahead.line] == estimates.line(backend, [a_task(LARGE)])
    assert long[text.ahead.tasks] == (a_task(LARGE),)
    assert all(set(text.ahead.outputs) <= set(event.outputs) for name, event in events if name == "restore")


def names(event):
    return {one.elem_id for one in event.outputs}
