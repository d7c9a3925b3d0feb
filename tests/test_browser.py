"""The page as a person meets it, in a real Chromium: type, press, watch, stop, err. Screenshots go to artefacts/."""

import re
import shutil
from contextlib import contextmanager

import pytest
from running_app import ROOT, running_app

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no Chromium on this machine", allow_module_level=True)

PICTURES = ROOT / "artefacts" / "browser"
SIZES = {"desktop": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
OPTIONS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync""".split()
PATIENCE = 120_000  # milliseconds, for a job on a busy machine
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
def app(tmp_path_factory):
    PICTURES.mkdir(parents=True, exist_ok=True)
    with running_app(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@contextmanager
def visit(chromium, app, size="desktop", mode="light", reloads=False):
    """A visitor's first look at the page; fails if the page asks another machine for anything or logs an error.

    gradio itself logs errors of the streams that end where a page is loaded anew: with `reloads` errors are let pass.
    """
    context = chromium.new_context(viewport=SIZES[size], color_scheme=mode)
    page = context.new_page()
    trouble = []
    page.on("console", lambda line: trouble.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda asked: _is_ours(asked.url, app) or trouble.append(asked.url))
    page.goto(app.url)
    expect(page.locator("#hints")).to_contain_text("of 77 tokens", timeout=PATIENCE)  # the page is alive
    yield page
    assert reloads or trouble == []
    context.close()


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
    )


def test_a_first_visit_has_a_prompt_and_one_thing_to_do(visitor):
    expect(visitor.locator("#prompt textarea")).to_have_value(re.compile("robot in blue"))
    expect(visitor.locator("#about")).to_contain_text("Ready on this machine")
    expect(visitor.locator(".playbill")).to_contain_text("Press Generate")
    expect(visitor.locator("#stop")).to_be_hidden()
    visitor.screenshot(path=PICTURES / "1-empty.png", full_page=True)


def test_a_prompt_becomes_a_video_that_plays(visitor, app):
    visitor.locator("#prompt textarea").fill("a bear wearing green dances in the snow")
    quickly(visitor, 6)
    visitor.evaluate(REMEMBER)
    visitor.locator("#generate").click()
    visitor.wait_for_function("window.seen.has('preview')", timeout=PATIENCE)
    visitor.screenshot(path=PICTURES / "2-working.png")
    plays(visitor)
    seen = visitor.evaluate("[...window.seen].join('\\n')")
    assert "Stop" in seen and "Loading the model" in seen and re.search(r"Denoising · step \d of 6", seen)
    expect(visitor.locator("#generate")).to_be_visible()
    seed = visitor.locator("#seed input").input_value()
    expect(visitor.locator("#caption")).to_contain_text(
        f"16 frames · 2.0 s · 128×128 · 6 steps of DPM-Solver++ 2M · seed {seed}"
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
    expect(visitor.locator("#generate")).to_be_visible()
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
    for text in ("Not here yet", "CC BY-NC", "GPU with 6 GB", "watermark", "Not for true-to-life"):
        expect(visitor.locator("#about")).to_contain_text(text)
    expect(visitor.locator("#width input")).to_have_value("256")
    expect(visitor.locator("#frames input[type=range]")).to_have_attribute("max", "64")
    expect(visitor.locator("#guidance input[type=number]")).to_have_value("9")
    visitor.locator("#prompt textarea").fill("a robot")
    visitor.locator("#width input").fill("250")
    visitor.locator("#generate").click()
    expect(visitor.get_by_role("alert")).to_contain_text("The width must be a multiple of 8")
    visitor.locator("#width input").fill("256")
    visitor.locator("#generate").click()
    expect(visitor.get_by_role("alert")).to_contain_text("not on this machine", timeout=PATIENCE)
    visitor.screenshot(path=PICTURES / "6-model.png", full_page=True)


def test_an_example_sets_every_control(visitor):
    visitor.get_by_role("button", name="An astronaut in orange").click()
    expect(visitor.locator("#prompt textarea")).to_have_value("An astronaut in orange jumping on the moon")
    expect(visitor.locator("#model input")).to_have_value("Paper theatre (built in)")
    expect(visitor.locator("#about")).to_contain_text("Ready on this machine")
    values = {"frames": "24", "fps": "8", "width": "128", "height": "128", "steps": "25"}
    values |= {"guidance": "2.5", "seed": "5"}
    for name, value in values.items():
        expect(visitor.locator(f"#{name} input").first).to_have_value(value)
    expect(visitor.locator("#scheduler input")).to_have_value("DPM-Solver++ 2M")
    expect(visitor.locator("#negative-prompt textarea")).to_have_value("")
    expect(visitor.locator("#randomise input")).not_to_be_checked()
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
        expect(page.locator("#generate")).to_be_visible()


def test_the_library_finds_plays_saves_fills_in_and_deletes(chromium, app):
    with visit(chromium, app, reloads=True) as page:
        for prompt in ("a bear bows in the desert", "a robot kicks in the snow"):
            page.locator("#prompt textarea").fill(prompt)
            quickly(page, 2)
            page.locator("#generate").click()
            expect(page.locator(".scene.working")).to_be_visible()
            expect(page.locator("#generate")).to_be_visible(timeout=PATIENCE)
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
        expect(page.locator("#shelf")).to_contain_text("No prompt of yours")
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
        assert not list(app.data.glob("videos/*/a-bear-bows*"))
        assert len(list(app.data.glob("videos/*/a-robot-kicks*.mp4"))) == 1
    with visit(chromium, app) as page:  # somebody else
        page.get_by_role("tab", name="Library").click()
        expect(page.locator("#shelf")).to_contain_text("What you make is kept here.", timeout=PATIENCE)


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
        quickly(page, 3)
        page.locator("#generate").click()
        expect(page.locator(".scene.working")).to_be_visible()
        look("2-working")
        plays(page)
        page.wait_for_timeout(CURTAIN)
        look("3-finished", full_page=True)
        page.locator("#prompt textarea").fill("")
        page.locator("#generate").click()
        expect(page.get_by_role("alert")).to_be_visible()
        look("4-failed")
