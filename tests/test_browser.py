"""The page as a person meets it, in a real Chromium: type, press, watch, stop, err. Screenshots go to artefacts/."""

import base64
import re
import shutil
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running_app import ROOT

from pipelines.catalog import find
from pipelines.media import video
from pipelines.tasks import TextToVideo, to_json
from ui.text_to_video import FIRST_PROMPT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no Chromium on this machine", allow_module_level=True)

PICTURES = ROOT / "artefacts" / "browser"
CLIP = Path(__file__).parent / "data" / "bear.mp4"  # 16 frames of the paper theatre
SIZES = {"desktop": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
OPTIONS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync""".split()
PATIENCE = 120_000  # milliseconds, for a job on a busy machine
LOOK = 100  # milliseconds from one look to the next while a job goes on; else the page is drawn anew for each frame
CURTAIN = 1_600  # milliseconds that it takes to open
REMEMBER = """() => {  // what showed, however briefly
    window.seen = new Set();
    new MutationObserver(() => {
        if (document.querySelector('img.forming')) window.seen.add('preview');
        window.seen.add(document.querySelector('#line').innerText);
        window.seen.add(document.querySelector('#stop')?.innerText);
    }).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
}"""


@pytest.fixture(scope="module")
def app(shared_app):
    PICTURES.mkdir(parents=True, exist_ok=True)
    return shared_app


@pytest.fixture(scope="module")
def chromium(shared_chromium):
    return shared_chromium


@contextmanager
def visit(chromium, app, size="desktop", mode="light", reloads=False):
    """A visitor's first look at the page; fails if the page asks another machine for anything or logs an error.

    gradio itself logs errors of the streams that end where a page is loaded anew: with `reloads` errors are let pass.
    """
    with closing(chromium.new_context(viewport=SIZES[size], color_scheme=mode)) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        trouble = []
        page.on("console", lambda line: trouble.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda asked: _is_ours(asked.url, app) or trouble.append(asked.url))
        page.goto(app.url)
        expect(page.locator("#hints")).to_contain_text("of 77 tokens", timeout=PATIENCE)  # the page is alive
        yield page
        assert reloads or trouble == []


def _is_ours(url, app):
    return url.startswith((app.url, "data:", "blob:"))


@pytest.fixture(scope="module")
def visitor(chromium, app):
    """One visitor, whose visit the tests that take it follow in order."""
    with visit(chromium, app) as page:
        yield page


def quickly(page, steps):
    """Opens the fine settings and sets the number of steps."""
    if not page.locator("#steps").is_visible():
        page.get_by_role("button", name="Fine settings").click()
        page.wait_for_timeout(500)  # gradio sets the controls once more as it first shows them; no person is faster
    page.locator("#steps input[type=number]").fill(str(steps))
    page.locator("#steps input[type=number]").press("Tab")


def plays(page):
    """Waits until the video of the page really plays."""
    page.wait_for_function(
        """() => {
            const video = document.querySelector('#video video');
            if (!video || video.readyState < 2) return false;
            window.times = (window.times || new Set()).add(video.currentTime);
            return window.times.size > 3;
        }""",
        timeout=PATIENCE,
        polling=LOOK,
    )


def test_a_first_visit_has_a_prompt_and_one_thing_to_do(visitor):
    """And an example plays, which says that it is one; from then on it is gone."""
    expect(visitor.locator("#prompt textarea")).to_have_value(FIRST_PROMPT)
    expect(visitor.locator("#example-note")).to_contain_text("An example, made before.")
    plays(visitor)
    expect(visitor.locator("#result")).to_be_hidden()
    expect(visitor.locator("#about")).to_contain_text("Ready")
    expect(visitor.locator("#stop")).to_be_hidden()
    visitor.screenshot(path=PICTURES / "1-empty.png", full_page=True)


def test_a_prompt_becomes_a_video_that_plays(visitor, app):
    visitor.locator("#prompt textarea").fill("a bear wearing green dances in the snow")
    quickly(visitor, 30)
    visitor.evaluate(REMEMBER)
    visitor.locator("#generate").click()
    visitor.wait_for_function("window.seen.has('preview')", timeout=PATIENCE, polling=LOOK)
    visitor.screenshot(path=PICTURES / "2-working.png")
    plays(visitor)
    seen = visitor.evaluate("[...window.seen].join('\\n')")
    assert "Stop" in seen and re.search(r"Denoising · step \d+ of 30", seen)
    expect(visitor.locator("#stop")).to_be_hidden()
    seed = visitor.locator("#seed input").input_value()
    expect(visitor.locator("#caption")).to_contain_text(
        f"16 frames · 2.0 s · 128×128 · 30 steps of DPM-Solver++ 2M · seed {seed}"
    )
    visitor.wait_for_timeout(CURTAIN)
    visitor.screenshot(path=PICTURES / "3-finished.png", full_page=True)
    assert len(list(app.data.glob("videos/*/*.mp4"))) == 1


def test_how_it_was_made_holds_the_exact_settings(visitor):
    visitor.get_by_role("button", name="How it was made").click()
    for setting in ('"a bear wearing green dances in the snow"', '"steps"', '"seed"', '"scheduler"'):
        expect(visitor.locator("#facts")).to_contain_text(setting)


@pytest.mark.parametrize(("button", "suffix", "begins"), [("#mp4", ".mp4", b"ftyp"), ("#gif", ".gif", b"GIF89a")])
def test_the_video_can_be_taken_home(visitor, button, suffix, begins):
    with visitor.expect_download(timeout=PATIENCE) as download:
        visitor.locator(button).click()
    assert download.value.suggested_filename.endswith(suffix)
    assert begins in download.value.path().read_bytes()[:12]


def test_stop_ends_the_second_run_and_the_first_video_stays(visitor, app):
    quickly(visitor, 100)
    visitor.locator("#generate").click()
    expect(visitor.locator("#line")).to_contain_text("Denoising", timeout=PATIENCE)
    visitor.locator("#stop").click()
    expect(visitor.locator("#message")).to_contain_text("Stopped.", timeout=10_000)
    expect(visitor.locator("#stop")).to_be_hidden()
    expect(visitor.locator("#video video")).to_be_visible()
    assert len(list(app.data.glob("videos/*/*.mp4"))) == 1
    visitor.screenshot(path=PICTURES / "4-stopped.png")


@pytest.mark.parametrize(("prompt", "says"), [("", "The prompt is empty"), ("x" * 10_000, "10000 characters")])
def test_a_bad_prompt_is_answered_on_the_page(visitor, prompt, says):
    visitor.locator("#prompt textarea").fill(prompt)
    visitor.locator("#generate").click()
    expect(visitor.get_by_role("alert")).to_contain_text(says)
    visitor.screenshot(path=PICTURES / f"5-failed-{len(prompt)}.png")


def test_a_model_that_is_not_here_says_what_it_needs_and_sets_its_own_defaults_and_limits(visitor):
    visitor.locator("#model input").click()
    visitor.get_by_role("option", name="ModelScope text-to-video 1.7B").click()
    for text in ("Not downloaded", "CC BY-NC", "GPU with 6 GB", "watermark", "Realistic depictions"):
        expect(visitor.locator("#about")).to_contain_text(text)
    expect(visitor.locator("#width input")).to_have_value("256")
    expect(visitor.locator("#frames input[type=range]")).to_have_attribute("max", "256")
    expect(visitor.locator("#guidance input[type=number]")).to_have_value("9")
    visitor.locator("#prompt textarea").fill("a robot")
    visitor.locator("#width input").fill("250")
    visitor.locator("#generate").click()
    expect(visitor.get_by_role("alert")).to_contain_text("The width must be a multiple of 8")
    visitor.locator("#width input").fill("256")
    visitor.locator("#generate").click()
    expect(visitor.get_by_role("alert")).to_contain_text("not on this machine", timeout=PATIENCE)
    expect(visitor.get_by_role("alert")).not_to_contain_text("og number")
    visitor.screenshot(path=PICTURES / "6-model.png", full_page=True)


def test_only_a_model_that_is_chosen_fills_in_its_settings(chromium, app):
    with visit(chromium, app) as page:
        quickly(page, 9)
        page.locator("#model input").click()
        page.locator("#model input").press("Tab")  # looked into the list, and left
        page.locator("#seed input").fill("1.5")  # by the time that this is answered, so is the list
        page.locator("#generate").click()
        expect(page.get_by_role("alert")).to_contain_text("The seed must be a whole number", timeout=PATIENCE)
        steps = page.locator("#steps input[type=number]")
        expect(steps).to_have_value("9")
        for again in (False, True):  # the second time after an example of another model
            page.locator("#model input").click()
            page.get_by_role("option", name="ModelScope text-to-video 1.7B").click()
            expect(page.locator("#width input")).to_have_value("256")
            expect(steps).to_have_value("25")
            if not again:
                page.get_by_role("button", name="A bear wearing green").click()
                expect(steps).to_have_value("15")


@pytest.mark.parametrize("size", SIZES)
def test_generate_and_what_it_finds_wrong_stay_in_sight(chromium, app, size):
    with visit(chromium, app, size) as page:
        page.locator("#model input").click()
        page.get_by_role("option", name="VACE 1.3B for clips").click()
        page.locator("#changed-clip input[type=file]").set_input_files(CLIP)
        expect(page.locator("#changed-clip-chosen")).to_be_visible(timeout=PATIENCE)
        page.evaluate("scrollTo(0, 0)")
        expect(page.locator("#generate")).to_be_in_viewport(ratio=1)
        page.locator("#prompt textarea").fill("")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#problem")).to_be_in_viewport(ratio=1)


def test_an_example_sets_every_control(visitor):
    visitor.get_by_role("button", name="An astronaut in orange").click()
    expect(visitor.locator("#prompt textarea")).to_have_value("An astronaut in orange jumping on the moon")
    expect(visitor.locator("#model input")).to_have_value("Paper theatre (built in)")
    expect(visitor.locator("#about")).to_contain_text("Ready")
    values = {"frames": "24", "fps": "8", "width": "128", "height": "128", "steps": "25"}
    values |= {"guidance": "2.5", "seed": "5"}
    for name, value in values.items():
        expect(visitor.locator(f"#{name} input").first).to_have_value(value)
    expect(visitor.locator("#scheduler input")).to_have_value("DPM-Solver++ 2M")
    expect(visitor.locator("#negative-prompt textarea")).to_have_value("")
    expect(visitor.locator("#randomise input")).to_be_checked()  # only the first video is that of the example
    expect(visitor.locator("#example-note")).to_be_visible()
    expect(visitor.locator("#result")).to_be_hidden()
    assert "astronaut.mp4" in visitor.evaluate("document.querySelector('#video video').currentSrc")
    plays(visitor)
    expect(visitor.locator("#frames")).to_contain_text("Frames: 24 = 3.0 s")


def test_length_in_seconds_follows_frames_and_rate(visitor):
    visitor.locator("#frames input[type=number]").fill("12")
    visitor.locator("#fps input[type=number]").fill("10")
    visitor.locator("#fps input[type=number]").press("Tab")
    expect(visitor.locator("#frames")).to_contain_text("Frames: 12 = 1.2 s")


def test_the_dice_rolls_a_seed_and_keeps_it(visitor):
    visitor.locator("#dice").click()
    expect(visitor.locator("#seed input")).not_to_have_value("5")
    expect(visitor.locator("#randomise input")).not_to_be_checked()


def test_words_are_counted_and_unknown_ones_named_while_one_types(visitor):
    visitor.locator("#prompt textarea").fill("a dragon dances on the beach")
    expect(visitor.locator("#hints")).to_contain_text("“dragon”: the paper theatre never learned it")
    visitor.locator("#prompt textarea").fill("a robot dances " * 40)
    expect(visitor.locator("#hints .warning")).to_contain_text("reads the first 77 tokens")
    expect(visitor.locator("#hints .warning")).to_contain_text("dances")
    visitor.locator("#prompt textarea").fill("a robot in blue dances")
    expect(visitor.locator("#hints")).not_to_contain_text("learned")


def test_pressed_words_compose_the_prompt(visitor):
    visitor.locator("#prompt textarea").fill("")
    for word in ("bear", "pink", "waving", "moon"):
        visitor.locator(f'[data-word="{word}"]').click()
        expect(visitor.locator(f'[data-word="{word}"]')).to_have_attribute("aria-pressed", "true")
    expect(visitor.locator("#prompt textarea")).to_have_value("A bear in pink waving on the moon")
    visitor.locator('[data-word="pink"]').focus()
    visitor.keyboard.press("ArrowRight")
    visitor.keyboard.press("Enter")
    expect(visitor.locator("#prompt textarea")).to_have_value("A bear in white waving on the moon")


def test_what_waits_is_moved_and_removed(chromium, app):
    with visit(chromium, app) as page:
        quickly(page, 100)
        for waiting, prompt in enumerate(("a bear bows", "a robot bows", "a person bows")):
            page.locator("#prompt textarea").fill(prompt)
            page.locator("#generate").click()
            expect(page.locator("#stop")).to_be_visible(timeout=PATIENCE)
            if waiting:
                expect(page.locator("#waiting")).to_contain_text(f"{waiting} waiting", timeout=PATIENCE)
        rows = page.locator("#waiting li b")
        expect(rows).to_have_text(["a robot bows", "a person bows"])
        page.get_by_role("button", name="Move up: a person bows").click()
        expect(rows).to_have_text(["a person bows", "a robot bows"], timeout=PATIENCE)
        page.screenshot(path=PICTURES / "waiting.png")
        page.get_by_role("button", name="Remove: a robot bows").click()
        expect(rows).to_have_text(["a person bows"], timeout=PATIENCE)
        page.locator("#stop").click()
        expect(page.locator("#stop")).to_be_hidden(timeout=PATIENCE)


def test_a_reloaded_page_finds_its_job_and_can_stop_it(chromium, app):
    with visit(chromium, app, reloads=True) as page:
        page.locator("#prompt textarea").fill("a robot in white walking in the forest")
        quickly(page, 100)
        page.locator("#generate").click()
        expect(page.locator("#line")).to_contain_text("Denoising", timeout=PATIENCE)
        page.reload()
        expect(page.locator("#line")).to_contain_text("of 100", timeout=PATIENCE)
        expect(page.locator("#prompt textarea")).to_have_value("a robot in white walking in the forest")
        page.get_by_role("tab", name="Library").click()
        expect(page.locator("#making")).to_contain_text("a robot in white", timeout=PATIENCE)
        page.locator("#making").get_by_role("button", name="Stop").click()
        expect(page.locator("#making")).not_to_contain_text("a robot in white", timeout=PATIENCE)
        page.get_by_role("tab", name="Text to video").click()
        expect(page.locator("#message")).to_contain_text("Stopped.", timeout=PATIENCE)
        expect(page.locator("#stop")).to_be_hidden()


def test_a_paused_job_stays_paused_over_a_reload_and_goes_on_from_a_second_tab(chromium, app):
    with visit(chromium, app, "phone", reloads=True) as page:
        page.locator("#prompt textarea").fill("a robot in white bows in the forest")
        quickly(page, 60)
        page.locator("#generate").click()
        expect(page.locator("#line")).to_contain_text("Denoising", timeout=PATIENCE)
        page.locator("#text-pause").click()
        paused = re.compile(r"Paused at step (\d+) of 60\. Resume goes on from there\.")
        expect(page.locator("#line")).to_contain_text(paused, timeout=PATIENCE)
        expect(page.locator("#text-pause")).to_be_hidden()
        at = int(paused.search(page.locator("#line").inner_text())[1])
        page.screenshot(path=PICTURES / "paused-phone.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.reload()
        expect(page.locator("#line")).to_contain_text(f"Paused at step {at} of 60", timeout=PATIENCE)
        second = page.context.new_page()
        second.goto(app.url)
        second.get_by_role("tab", name="Library").click()
        expect(second.locator("#making")).to_contain_text(f"Paused at step {at} of 60", timeout=PATIENCE)
        second.screenshot(path=PICTURES / "paused-library.png")
        second.locator("#making").get_by_role("button", name="Resume").click()
        expect(page.locator("#text-pause")).to_be_visible(timeout=PATIENCE)
        expect(page.locator("#line")).to_contain_text("Denoising", timeout=PATIENCE)
        assert int(re.search(r"step (\d+) of 60", page.locator("#line").inner_text())[1]) >= at
        plays(page)
        expect(page.locator("#text-resume")).to_be_hidden()
        expect(page.locator("#stop")).to_be_hidden()
        page.get_by_role("button", name="How it was made").click()
        expect(page.locator("#facts")).to_contain_text('"resumed_at_step"')


def test_the_library_finds_plays_saves_fills_in_and_deletes(chromium, app):
    with visit(chromium, app, reloads=True) as page:
        for prompt in ("a bear bows in the desert", "a robot kicks in the snow"):
            page.locator("#prompt textarea").fill(prompt)
            quickly(page, 2)
            page.locator("#generate").click()
            expect(page.locator(".scene.working")).to_be_visible(timeout=20_000)
            expect(page.locator("#stop")).to_be_hidden(timeout=PATIENCE)
        page.reload()
        plays(page)  # what was made last stands on the stage again
        page.get_by_role("tab", name="Library").click()
        cards = page.locator("#shelf .example")
        expect(cards).to_have_count(2, timeout=PATIENCE)
        expect(cards.first).to_contain_text("a robot kicks in the snow")
        expect(cards.first).to_contain_text("Paper theatre")
        page.screenshot(path=PICTURES / "7-library.png")
        page.locator("#search input, #search textarea").first.fill("desert bear")
        expect(cards).to_have_count(1)
        page.locator("#search input, #search textarea").first.fill("dragon")
        expect(page.locator("#shelf")).to_contain_text("None of your prompts")
        page.locator("#search input, #search textarea").first.fill("")
        cards.nth(1).click()
        expect(page.locator("#chosen-about")).to_contain_text("a bear bows in the desert")
        page.wait_for_function("document.querySelector('#chosen-video video')?.readyState > 1", timeout=PATIENCE)
        page.screenshot(path=PICTURES / "8-chosen.png")
        for kind, begins in (("mp4", b"ftyp"), ("gif", b"GIF89a"), ("webm", b"\x1a\x45\xdf\xa3")):
            with page.expect_download(timeout=PATIENCE) as download:
                page.locator(f"#library-{kind}").click()
            assert download.value.suggested_filename.startswith("a-bear-bows-in-the-desert")
            assert begins in download.value.path().read_bytes()[:12]
        page.locator("#use-settings").click()
        expect(page.locator("#prompt textarea")).to_have_value("a bear bows in the desert")
        expect(page.locator("#prompt textarea")).to_be_visible()
        page.get_by_role("tab", name="Library").click()
        page.locator("#delete").click()
        page.locator("#really").click()
        expect(cards).to_have_count(1, timeout=PATIENCE)
        assert not list(app.data.parent.rglob("a-bear-bows*"))  # nor a copy in gradio's own folder
        assert len(list(app.data.glob("videos/*/a-robot-kicks*.mp4"))) == 1
    with visit(chromium, app) as page:  # somebody else
        page.get_by_role("tab", name="Library").click()
        expect(page.locator("#shelf")).to_contain_text("Your videos appear here.", timeout=PATIENCE)


DRAG = """([selector, kind, data]) => {
    const carried = new DataTransfer();
    carried.items.add(new File([Uint8Array.from(atob(data), letter => letter.charCodeAt(0))], 'holiday.mp4'));
    const event = new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: carried});
    return document.querySelector(selector).dispatchEvent(event);  // false: taken
}"""


def test_a_video_dropped_on_the_page_restores_its_settings(chromium, app, tmp_path):
    task = TextToVideo.for_model(find("miniature-modelscope"), "a <b>bear</b> bows", 4321, frames=9, guidance=3.5)
    film = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)
    video.write(film, tmp_path / "ours.mp4", 8, to_json(task))
    video.write(film, tmp_path / "theirs.mp4", 8, "shot on a phone")
    video.write(film, tmp_path / "old.mp4", 8, to_json(replace(task, model="a-model-of-old")))

    def drag(kind, name, over="#examples"):
        data = base64.b64encode((tmp_path / name).read_bytes()).decode()
        return page.evaluate(DRAG, [over, kind, data])

    def restored():
        expect(page.locator("#prompt textarea")).to_have_value("a <b>bear</b> bows", timeout=PATIENCE)
        expect(page.locator("#prompt textarea")).to_be_visible()
        for name, value in {"frames": "9", "guidance": "3.5", "seed": "4321"}.items():
            expect(page.locator(f"#{name} input").first).to_have_value(value)
        expect(page.locator("#randomise input")).not_to_be_checked()

    with visit(chromium, app) as page:
        page.get_by_role("button", name="Fine settings").click()
        page.wait_for_timeout(500)
        assert not drag("dragover", "ours.mp4")
        expect(page.locator(".drop-hint")).to_be_visible()
        page.screenshot(path=PICTURES / "9-dragging.png")
        expect(page.locator(".drop-hint")).to_be_hidden()  # whoever drags has left
        assert not drag("drop", "ours.mp4")
        restored()

        # Fields that take files themselves are left alone; so is what is no file.
        page.evaluate("""() => {
            const field = document.querySelector('#hints');
            for (const kind of ['dragover', 'drop']) field.addEventListener(kind, event => event.preventDefault());
        }""")
        page.locator("#prompt textarea").fill("something else")
        drag("dragover", "ours.mp4", "#hints"), drag("drop", "ours.mp4", "#hints")
        expect(page.locator(".drop-hint")).to_be_hidden()
        assert page.evaluate("""() => document.querySelector('#stage').dispatchEvent(
            new DragEvent('drop', {dataTransfer: new DataTransfer(), bubbles: true, cancelable: true}))""")
        page.wait_for_timeout(1000)
        expect(page.locator("#prompt textarea")).to_have_value("something else")

        (tmp_path / "script.mp4").write_text("#!/bin/sh\ncat secret.txt\n")
        sentences = {
            "theirs": "not the description of a video",
            "old": "a model that is not offered",
            "script": "Upload an MP4",
        }
        for name, sentence in sentences.items():
            drag("drop", f"{name}.mp4")
            toast = page.locator(".toast-body").filter(has_text=sentence)
            expect(toast).to_be_visible(timeout=PATIENCE)
            number = re.search("Log number ([0-9a-f]{8})", toast.inner_text())[1]
            assert number in (app.data / "marionette.log").read_text()
        expect(page.locator("#prompt textarea")).to_have_value("something else")

        page.get_by_role("tab", name="Library").click()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Restore settings from a video").click()
        chooser.value.set_files(tmp_path / "ours.mp4")
        restored()


def type_number(page, name, value):
    """Types into a number box until it stays: gradio sets the controls once more as it first shows them."""
    box = page.locator(f"{name} input[type=number]")
    for _ in range(10):
        box.fill(str(value))
        box.press("Tab")
        page.wait_for_timeout(1000)
        if box.input_value() == str(value):
            return
    raise AssertionError(f"{name} does not take {value}")


def tuned(page, steps):
    """Opens the tab that edits clips, uploads a drawn clip and tunes on it for a few steps."""
    page.get_by_role("tab", name="Edit a clip").click()
    page.locator("#clip input[type=file]").set_input_files(CLIP)
    expect(page.locator("#used")).to_contain_text("16 frames, every frame, 2.0 s at 8 a second", timeout=PATIENCE)
    page.locator("#clip-caption textarea").fill("a bear in purple bows on the moon")
    page.get_by_role("button", name="Fine settings of the tuning").click()
    type_number(page, "#tune-steps", steps)
    page.locator("#tune").click()


def test_a_clip_is_tuned_on_and_told_again_in_two_ways(chromium, app):
    with visit(chromium, app, reloads=True) as page:
        tuned(page, 4)
        expect(page.locator("#losses")).to_contain_text("after 4 of 4 steps", timeout=PATIENCE)
        expect(page.locator("#retell")).to_contain_text(
            "Edit with “a bear in purple bows on the moon”", timeout=PATIENCE
        )
        expect(page.locator("#edit-prompt")).to_be_in_viewport(timeout=PATIENCE)  # the page goes there by itself
        page.locator("#edit-prompt textarea").fill("a bear in red bows on the moon\na bear in green bows on the beach")
        page.get_by_role("button", name="Fine settings of the edit").click()
        type_number(page, "#edit-steps", 3)
        page.locator("#edit").click()
        expect(page.locator("#edits tbody tr")).to_have_count(2, timeout=PATIENCE)
        page.wait_for_function(
            """() => {
                const [one, other] = document.querySelectorAll('#edit-result video');
                return one?.currentTime > 0.2 && Math.abs(one.currentTime - other.currentTime) < 0.3;
            }""",
            timeout=PATIENCE,
        )
        page.locator("#edit-result [data-do=toggle]").click()
        page.wait_for_function(  # the one stops with the other, at the same frame
            """() => {
                const [one, other] = document.querySelectorAll('#edit-result video');
                return one.paused && other.paused && Math.abs(one.currentTime - other.currentTime) < 0.01;
            }""",
            timeout=PATIENCE,
        )
        page.screenshot(path=PICTURES / "edit-finished.png", full_page=True)
        page.locator("#edit-result [data-do=wipe]").click()  # the clip on one side, the edit on the other
        expect(page.locator("#edit-result .divider")).to_have_count(1)
        page.get_by_role("button", name="a bear in red bows on the moon").click()
        expect(page.locator("#edit-result")).to_contain_text("a bear in red bows on the moon")

        page.reload()
        page.get_by_role("tab", name="Edit a clip").click()
        page.locator("#tunings button").first.click()
        expect(page.locator("#edits tbody tr")).to_have_count(2, timeout=PATIENCE)
        page.get_by_role("button", name="This tuned model").click()
        page.locator("#tuned-name input").fill("My bear")
        page.locator("#rename").click()
        expect(page.locator("#tunings")).to_contain_text("My bear", timeout=PATIENCE)

        page.get_by_role("tab", name="Library").click()
        page.locator("#shelf .example").last.click()
        page.locator("#use-settings").click()
        expect(page.locator("#edit-prompt textarea")).to_have_value("a bear in red bows on the moon", timeout=PATIENCE)
        page.get_by_role("button", name="Fine settings of the edit").click()
        expect(page.locator("#edit-steps input[type=number]")).to_have_value("3")

        page.get_by_role("tab", name="Library").click()
        page.locator("#use-clip").click()
        expect(page.locator("#used")).to_contain_text("16 frames, every frame, 2.0 s at 8 a second", timeout=PATIENCE)


def test_a_tuning_is_stopped_followed_after_a_reload_and_resumed(chromium, app):
    with visit(chromium, app, "phone", reloads=True) as page:
        tuned(page, 1000)
        expect(page.locator("#losses")).to_contain_text("of 1000 steps", timeout=PATIENCE)
        page.reload()
        page.get_by_role("tab", name="Edit a clip").click()
        expect(page.locator("#losses")).to_contain_text(re.compile(r"after [1-9]\d* of 1000 steps"), timeout=PATIENCE)
        page.locator("#stop-tuning").click()
        expect(page.locator("#edit-clip")).to_contain_text("What was tuned so far is kept", timeout=PATIENCE)
        expect(page.locator("#tunings")).to_contain_text("stopped after", timeout=PATIENCE)
        page.get_by_role("button", name="This tuned model").click()
        page.locator("#resume").click()
        expect(page.locator("#stop-tuning")).to_be_visible(timeout=PATIENCE)
        page.locator("#stop-tuning").click()
        expect(page.locator("#tune")).to_be_visible(timeout=PATIENCE)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot(path=PICTURES / "edit-phone.png", full_page=True)


def test_what_is_no_clip_is_answered_on_the_page(chromium, app, tmp_path):
    (tmp_path / "song.mp4").write_bytes(b"ID3 not a film at all")
    with visit(chromium, app) as page:
        page.get_by_role("tab", name="Edit a clip").click()
        page.locator("#clip input[type=file]").set_input_files(tmp_path / "song.mp4")
        expect(page.locator("#edit-clip .message.failed")).to_contain_text("This is not a video that can be used")
        page.locator("#tune").click()
        expect(page.locator("#edit-clip .message.failed")).to_contain_text("caption is empty")
        page.locator("#clip-caption textarea").fill("a bear")
        page.locator("#tune").click()
        expect(page.locator("#edit-clip .message.failed")).to_contain_text("There is no clip. Upload one first.")


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_every_screen_and_mode(chromium, app, size):
    def look(state, full_page=False):
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
        for mode in ("dark", "light"):
            page.emulate_media(color_scheme=mode)
            page.wait_for_function(f"document.body.classList.contains('dark') == {str(mode == 'dark').lower()}")
            red, green, blue = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
            assert (int(red) + int(green) + int(blue) > 3 * 128) == (mode == "light")
            page.screenshot(path=PICTURES / f"{size}-{mode}-{state}.png", full_page=full_page)

    with visit(chromium, app, size) as page:
        look("1-empty", full_page=True)
        quickly(page, 20)
        page.locator("#generate").click()
        expect(page.locator(".scene.working")).to_be_visible(timeout=PATIENCE)
        look("2-working")
        plays(page)
        page.wait_for_timeout(CURTAIN)
        look("3-finished", full_page=True)
        page.locator("#prompt textarea").fill("")
        page.locator("#generate").click()
        expect(page.get_by_role("alert")).to_be_visible()
        look("4-failed")
