"""The text-to-video tab without a browser: its first video, its examples, what it shows to whom."""

from dataclasses import replace

import gradio as gr
import pytest
from running_app import waiting_backend

from pipelines.events import Failed, Progress
from pipelines.media import video
from pipelines.tasks import recall
from ui import estimates, visitor
from ui.stream import about
from ui.text_to_video import EXAMPLES, FIRST_PROMPT, FIRST_SEED, ON_STAGE, PICTURES, TextToVideoTab

ME = "1" * 32


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    with waiting_backend(tmp_path_factory.mktemp("text")) as waiting:
        yield waiting


@pytest.fixture(scope="module")
def tab(backend):
    with gr.Blocks() as demo:
        owner = gr.BrowserState("")
        arrived = demo.load(lambda: None)
        return TextToVideoTab(visitor.ForVisitors(backend), backend.settings, owner, arrived, gr.State())


@pytest.fixture(autouse=True)
def nothing_waits(backend):
    yield
    for job in backend.table.unfinished():
        backend.jobs.cancel(job.id, job.owner)


def press(tab, **changed):
    """Presses Generate with the controls as they are at first, but for those in `changed`, by attribute of the tab."""
    controls = [*tab.given.form, *tab.several.form, tab.prompt, tab.model, tab.seed, tab.randomise, tab.picked]
    data = {control: control.value for control in (*controls, *tab.asked, *tab.controls.values())}
    return tab.press(data | {tab.owner: ME} | {getattr(tab, name): value for name, value in changed.items()})


def asked(backend):
    return [job.task for job in backend.table.unfinished()]


def test_the_first_video_has_the_chosen_seed_and_the_next_a_new_one(tab, backend):
    first = press(tab)
    assert (asked(backend)[-1].prompt, asked(backend)[-1].seed) == (FIRST_PROMPT, FIRST_SEED)
    assert first[tab.picked] is False
    press(tab, picked=first[tab.picked], seed=first[tab.seed])
    assert asked(backend)[-1].seed != FIRST_SEED
    press(tab, picked=True, randomise=False, seed=3)
    assert asked(backend)[-1].seed == 3


def choose(tab, number):
    return tab.choose_example(ME, None, gr.EventData(None, {"example": number}))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_plays_at_once_and_fills_the_form_for_a_video_of_ones_own(tab, number):
    task, updates = EXAMPLES[number].task, choose(tab, str(number))
    (film,) = updates[tab.video].value
    assert film["file"]["path"].endswith(f"{EXAMPLES[number].pictures}.mp4") and updates[tab.video].visible
    assert "open" in updates[tab.scene] and updates[tab.note].visible and not updates[tab.result].visible
    assert (updates[tab.prompt], updates[tab.seed], updates[tab.randomise]) == (task.prompt, task.seed, True)
    assert recall(video.read_comment(PICTURES / f"{EXAMPLES[number].pictures}.mp4")) == task  # it says what it shows


@pytest.mark.parametrize("number", ["-1", "99", None, [0], "²"])
def test_an_example_that_there_is_not_is_refused(tab, number):
    with pytest.raises(ValueError, match="no such example"):
        choose(tab, number)


def test_an_example_stands_on_the_stage_only_while_nothing_of_ones_own_does(tab, backend):
    before = tab.arrive("3" * 32)
    assert before[tab.example] == ON_STAGE and before[tab.note].visible and before[tab.picked] is True
    press(tab)
    after = tab.arrive(ME)
    assert after[tab.example] is None and not after[tab.note].visible and "working" in after[tab.scene]
    assert after[tab.prompt] == FIRST_PROMPT and after[tab.picked] is False and after[tab.randomise] is True
    (job,) = backend.table.unfinished()
    assert tab.updates(ME, None, "", ON_STAGE)[tab.note].visible is False  # while something is made
    backend.jobs.cancel(job.id, job.owner)
    assert tab.updates(ME, None, "", ON_STAGE)[tab.note].visible is True


def waiting(backend):
    return [job.task.prompt for job in backend.table.unfinished(backend.owners.of(ME))]


def act(tab, identifier, act, who=ME):
    tab.act_on_one(who, gr.EventData(None, {"job": identifier, "act": act}))


def test_what_waits_can_be_put_in_another_order_and_removed(tab, backend):
    for name in ("one", "two", "three"):
        press(tab, prompt=name)
    first, second, third = backend.table.unfinished()
    drawn = tab.updates(ME)[tab.waiting]
    assert "2 waiting" in drawn and f'data-job="{third.id}" data-act="up"' in drawn and "Remove" in drawn
    act(tab, third.id, "up")
    assert waiting(backend) == ["one", "three", "two"]
    act(tab, first.id, "down"), act(tab, second.id, "down")  # there is nothing behind the last
    assert waiting(backend) == ["three", "one", "two"]
    assert backend.table.get(third.id).progress.step == 1  # its turn comes first
    assert [job.id for job in backend.table._rows.unfinished()] == [third.id, first.id, second.id]
    act(tab, first.id, "stop")
    assert waiting(backend) == ["three", "two"]


def test_only_what_is_ones_own_and_waits_can_be_moved(tab, backend):
    for name in ("one", "two"):
        press(tab, prompt=name)
    first, second = backend.table.unfinished()
    for who, what, words in (("2" * 32, second.id, "no such job"), (ME, "none", "no such job"), (ME, None, "no such")):
        with pytest.raises(ValueError, match=words):
            act(tab, what, "up", who)
    with pytest.raises(ValueError, match="up or down"):
        act(tab, second.id, "away")
    assert backend.table.take(1).id == first.id
    with pytest.raises(ValueError, match="being made already"):
        act(tab, first.id, "down")
    act(tab, second.id, "up")  # it is the first that waits
    assert waiting(backend) == ["one", "two"]
    backend.table.tell(first.id, Failed("enough", stopped=True))


def test_what_is_paused_says_so_and_is_resumed_with_one_button(tab, backend):
    for name in ("one", "two"):
        press(tab, prompt=name)
    running = backend.table.take(1)
    backend.table.tell(running.id, Progress("Denoising", 12, 25))
    assert tab.updates(ME)[tab.hold.pause].visible and not tab.updates(ME)[tab.hold.resume].visible
    pausing = tab.pause_all(ME, None, "", None)
    assert not pausing[tab.hold.pause].interactive and "Pausing" in str(pausing[tab.hold.pause].value)
    assert backend.table.take(0) is None  # the other one did not begin in its place
    backend.table.set_aside(running.id, kept=True)
    for then in (tab.updates(ME), tab.arrive(ME)):  # also after a reload, and in a second tab
        assert "Paused at step 12 of 25. Resume goes on from there." in then[tab.line]
        assert 'aria-valuenow="48"' in then[tab.line]
        assert "Paused. Resume puts it back in the queue." in then[tab.waiting] and "waiting<" not in then[tab.waiting]
        assert then[tab.hold.resume].visible and not then[tab.hold.pause].visible and then[tab.halt].visible
        assert then[tab.clock].active
    going = tab.resume_all(ME, None, "", None)
    assert going[tab.hold.pause].visible and "Paused" not in going[tab.line] + going[tab.waiting]
    assert waiting(backend) == ["one", "two"]


def test_one_of_several_is_paused_and_the_rest_goes_on(tab, backend):
    for name in ("one", "two"):
        followed = press(tab, prompt=name)[tab.followed]
    first, second = backend.table.unfinished()
    act(tab, first.id, "pause")
    drawn = tab.updates(ME, followed)
    assert f'data-job="{first.id}" data-act="resume"' in drawn[tab.waiting] and "Remove: one" in drawn[tab.waiting]
    assert "Your video is next" in drawn[tab.line] and tab.arrive(ME)[tab.prompt] == "two"
    with pytest.raises(ValueError, match="no such job"):
        tab.act_on_one("2" * 32, gr.EventData(None, {"job": first.id, "act": "resume"}))
    act(tab, first.id, "resume")
    assert waiting(backend) == ["two", "one"]


def test_a_paused_job_that_is_stopped_says_so(tab, backend):
    followed = press(tab)[tab.followed]
    paused = backend.table.unfinished()[0]
    act(tab, paused.id, "pause")
    then = tab.updates(ME, followed)
    assert "working" in then[tab.scene] and not then[tab.note].visible
    stopped = tab.stop_all(ME, then[tab.followed], "", None)
    assert "Stopped." in stopped[tab.message].value and stopped[tab.line] == "" and not stopped[tab.halt].visible


def test_a_grid_stays_behind_its_videos(tab, backend):
    press(tab)
    tasks = [replace(job.task, prompt=name) for job in backend.table.unfinished() for name in ("a", "b")]
    *videos, grid = backend.jobs.submit_grid(tasks, backend.owners.of(ME))
    for what, way in ((grid, "up"), (videos[-1], "down")):
        with pytest.raises(ValueError, match="after its videos"):
            act(tab, what, way)
    act(tab, videos[0], "down")


def tell_positions(backend):
    """At once, and not after the second that has to pass."""
    with backend.table._changed:
        backend.table._tell_positions()


def test_one_countdown_is_told_for_all_jobs_and_does_not_go_up(tab, backend):
    for name in ("one", "two"):
        followed = press(tab, prompt=name)[tab.followed]
    running = backend.table.take(1)
    backend.table.tell(running.id, Progress("Denoising", 5, 25, 10.0, 0.25))
    tell_positions(backend)
    behind = backend.table.unfinished()[-1]
    assert behind.progress.seconds_left == 10 and behind.expected > 0
    updates = tab.updates(ME, followed)
    left = updates[tab.followed].left
    assert (
        left == 10 + behind.expected and f"1 of 2 · Denoising · step 5 of 25 · {about(left)} left" in updates[tab.line]
    )
    assert estimates.line(tab.backend, [running.task]).count("after about") == 1
    backend.table.tell(running.id, Progress("Denoising", 6, 25, 400.0, 0.25))
    tell_positions(backend)
    assert tab.updates(ME, updates[tab.followed])[tab.followed].left == left
    assert backend.table.try_again(running.id, "")  # its worker died: what is told from now on is new
    assert backend.table.take(1).id == running.id
    backend.table.tell(running.id, Progress("Denoising", 1, 25, 300.0, 0.25))
    tell_positions(backend)
    updates = tab.updates(ME, updates[tab.followed])
    assert updates[tab.followed].left == 300 + behind.expected
    backend.table.tell(running.id, Progress("Denoising", 2, 25, 400.0, 0.25))
    tell_positions(backend)
    assert tab.updates(ME, updates[tab.followed])[tab.followed].left == 300 + behind.expected
    backend.table.tell(running.id, Failed("enough", stopped=True))


def test_a_word_that_is_pressed_is_put_into_the_last_line(tab):
    def said(text, kind, word):
        return tab.say_word(text, "miniature-modelscope", gr.EventData(None, {"kind": kind, "word": word}))

    assert said("A bear\nA robot in red", "colours", "blue") == "A bear\nA robot in blue"
    assert 'data-word="bear" tabindex="0" aria-pressed="true"' in tab.chips.value.key
    for kind, word in (("colours", "black"), (["colours"], {}), ("spells", "red")):
        with pytest.raises(ValueError, match="does not list"):
            said("A bear", kind, word)
    with pytest.raises(ValueError, match="does not list"):
        tab.say_word("A bear", "modelscope-1.7b", gr.EventData(None, {"kind": "colours", "word": "red"}))


def test_after_a_reload_stage_and_prompt_agree(tab, backend):
    """What is made first is on the stage, and its settings are in the form; of a grid's videos it is the grid."""
    for name in ("one", "two"):
        press(tab, prompt=name, seed=5, picked=True)
    assert tab.arrive(ME)[tab.prompt] == "one"
    for job in backend.table.unfinished():
        backend.jobs.cancel(job.id, job.owner)
    press(tab, prompt="three\nfour", **{"picked": True})
    task = backend.table.unfinished()[0].task
    backend.jobs.submit_grid([replace(task, prompt=name) for name in ("five", "six")], backend.owners.of(ME))
    assert tab.arrive(ME)[tab.prompt].startswith("three")
    backend.jobs.cancel(backend.table.unfinished()[0].id, backend.owners.of(ME))
    assert tab.arrive(ME)[tab.prompt] == "five\nsix"


def test_a_first_image_is_a_choice_of_its_own(tab):
    """It finds a model that takes one, and back."""
    assert tab.image.choice.visible and tab.image.choice.value is False
    with_one = tab.choose_image(True, "miniature-modelscope")
    assert with_one[tab.model] == "miniature-tempofunk" and with_one[tab.image.choice] is True
    assert with_one[tab.image.panel].visible
    back = tab.choose_image(False, "miniature-tempofunk")
    assert back[tab.model] == "miniature-modelscope" and not back[tab.image.panel].visible
    assert tab.model not in tab.choose_image(True, "miniature-tempofunk")
