"""What the page shows of a job survives reloads, second tabs and bad connections, in a real Chromium.

REPEATS in the environment says how often each is tried: once by default.
"""

import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from test_browser import PATIENCE, app, chromium, expect, quickly, visit  # noqa: F401

REPEATS = int(os.environ.get("REPEATS", "1"))
SOON = 60_000  # milliseconds, on a busy machine
SLOW = {"offline": False, "latency": 400, "downloadThroughput": 200_000, "uploadThroughput": 30_000}  # bytes a second

LATE = """{  // all that is not queued is answered a second late, and one after the other
  const plain = window.fetch;
  window.fetch = async (...given) => {
    const answer = await plain(...given);
    if (String(given[0]?.url ?? given[0]).includes('/run/')) await new Promise((then) => setTimeout(then, 1000));
    return answer;
  };
}"""


@contextmanager
def behind(app, answer):  # noqa: F811
    """The app behind a proxy; `answer(server)` yields what the app answers, when it is to arrive."""
    port = int(app.url.rsplit(":", 1)[1])
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source, target, parts):
        with suppress(OSError):
            for data in parts(source):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept():
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                for pair in ((client, server, at_once), (server, client, answer)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield replace(app, url=f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        listener.close()


def at_once(source):
    while data := source.recv(2**16):
        yield data


def in_bursts(source, seconds=0.6):
    """Now and then, many at once."""
    while data := source.recv(2**16):
        time.sleep(seconds)
        source.setblocking(False)
        with suppress(BlockingIOError):
            while more := source.recv(2**16):
                data += more
        source.setblocking(True)
        yield data


def late_in_closing(source, seconds=1.5):
    """All at once but for the news that a stream is closed: until then the page takes it for open and asks on."""
    news = b'"close_stream"'
    while data := source.recv(2**16):
        if news in data:
            before, after = data.split(news, 1)
            yield before
            time.sleep(seconds)
            data = news + after
        yield data


PROXIES = {"bursty": in_bursts, "late closing": late_in_closing}
CONNECTIONS = ["plain", "throttled", *PROXIES]
STEPS = {"plain": 30, "throttled": 40, "bursty": 60, "late closing": 30}  # longer than two pages take to open


@contextmanager
def connected(chromium, app, connection):  # noqa: F811
    """A visit over a `connection` of that kind."""
    if connection in PROXIES:
        with behind(app, PROXIES[connection]) as proxied, visit(chromium, proxied, reloads=True) as page:
            yield page
        return
    with visit(chromium, app, reloads=True) as page:
        if connection == "throttled":
            page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", SLOW)
        yield page


def begin(page, prompt, steps):
    page.locator("#prompt textarea").fill(prompt)
    quickly(page, steps)
    page.locator("#generate").click()
    expect(page.locator("#stop")).to_be_visible(timeout=SOON)


def is_idle(page):
    """The buttons, the line and the stage look as if nothing went on, and stay so."""
    expect(page.locator("#stop")).to_be_hidden(timeout=PATIENCE)
    expect(page.locator("#generate")).to_be_enabled()
    expect(page.locator("#result")).to_be_visible(timeout=SOON)
    expect(page.locator(".scene.open")).to_be_attached()
    expect(page.locator(".footlights")).to_have_count(0)


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("number", range(REPEATS))
def test_reloads_and_second_tabs_show_what_goes_on_and_its_end(chromium, app, connection, number):  # noqa: F811
    """With an older video on the stage."""
    with connected(chromium, app, connection) as page:
        begin(page, "a bear bows in the desert", 1)
        is_idle(page)
        begin(page, "a robot kicks in the snow", STEPS[connection])
        expect(page.locator("#result")).to_be_hidden()  # the older video's buttons
        page.reload()
        expect(page.locator("#stop")).to_be_visible(timeout=SOON)
        expect(page.locator("#result")).to_be_hidden()
        expect(page.locator("#prompt textarea")).to_have_value("a robot kicks in the snow")
        other = page.context.new_page()
        other.goto(page.url)
        expect(other.locator("#stop")).to_be_visible(timeout=SOON)
        expect(other.locator("#line")).to_contain_text("Denoising", timeout=PATIENCE)
        for one in (page, other):
            is_idle(one)
            expect(one.locator("#caption")).to_contain_text(f"{STEPS[connection]} steps", timeout=SOON)


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("number", range(REPEATS))
def test_what_is_stopped_or_fails_is_told_in_every_tab(chromium, app, connection, number):  # noqa: F811
    with connected(chromium, app, connection) as page:
        begin(page, "a bear waving on the moon", 100)
        other = page.context.new_page()
        other.goto(page.url)
        expect(other.locator("#stop")).to_be_visible(timeout=SOON)
        page.locator("#stop").click()
        for one in (page, other):
            expect(one.locator("#message")).to_contain_text("Stopped.", timeout=SOON)
            expect(one.locator("#stop")).to_be_hidden()
            expect(one.locator("#result")).to_be_hidden()  # there was no video before
        page.get_by_role("tab", name="Edit a clip").click()
        page.locator("#tunings button", has_text="A man is surfing").click()
        expect(page.locator("#retell")).to_be_visible(timeout=SOON)
        page.locator("#edit-prompt textarea").fill("a panda surfs")
        page.locator("#edit").click()
        expect(page.locator("#edit-message, #edit-problem").filter(visible=True)).to_contain_text(
            "not on this machine", timeout=PATIENCE
        )
        expect(page.locator("#stop-edit")).to_be_hidden()
        expect(page.locator("#edit")).to_be_enabled()


@pytest.mark.parametrize("number", range(REPEATS))
def test_more_can_be_asked_for_while_one_is_made_and_taken_back(chromium, app, number):  # noqa: F811
    with visit(chromium, app) as page:
        begin(page, "a bear in red dances in the forest", 100)
        for prompt in ("a robot in green jumping in the city", "an astronaut in pink bows on the moon"):
            page.locator("#prompt textarea").fill(prompt)
            page.locator("#prompt textarea").press("Control+Enter")
            expect(page.locator("#waiting")).to_contain_text(prompt, timeout=SOON)
        expect(page.locator("#line")).to_contain_text("1 of 3", timeout=SOON)
        page.locator("#waiting li", has_text="robot in green").get_by_role("button", name="Remove").click()
        expect(page.locator("#waiting")).not_to_contain_text("robot in green", timeout=SOON)
        expect(page.locator("#waiting")).to_contain_text("astronaut in pink")
        page.locator("#stop").click()
        expect(page.locator("#stop")).to_be_hidden(timeout=SOON)
        expect(page.locator("#waiting")).not_to_contain_text("astronaut")
        page.locator("#prompt textarea").fill("")
        page.locator("#generate").click()
        expect(page.locator("#problem")).to_contain_text("The prompt is empty", timeout=SOON)
        page.locator("#prompt textarea").fill("a bear")
        expect(page.locator("#problem")).to_be_hidden(timeout=SOON)  # what was wrong is right now


@pytest.mark.parametrize("number", range(REPEATS))
def test_each_tab_can_be_stopped_as_soon_as_it_begins(chromium, app, number):  # noqa: F811
    with visit(chromium, app) as page:
        page.get_by_role("tab", name="Pose to video").click()
        expect(page.locator("#found figcaption")).to_contain_text("one person", timeout=PATIENCE)
        page.locator("#pose-generate").click()
        expect(page.locator("#pose-stop")).to_be_visible(timeout=SOON)
        page.locator("#pose-stop").click()
        expect(page.locator("#pose-message")).to_contain_text("Stopped.", timeout=SOON)
        expect(page.locator("#pose-stop")).to_be_hidden()
        expect(page.locator("#pose-result .player")).to_be_hidden()


def test_a_seed_that_is_typed_is_kept(chromium, app):  # noqa: F811
    with visit(chromium, app) as page:
        quickly(page, 1)
        expect(page.locator("#randomise input")).to_be_checked()
        page.locator("#seed input").fill("4711")
        page.locator("#seed input").press("Tab")
        expect(page.locator("#randomise input")).not_to_be_checked(timeout=SOON)
        page.locator("#generate").click()
        expect(page.locator("#caption")).to_contain_text("seed 4711", timeout=PATIENCE)


def test_a_failure_goes_when_its_cause_is_corrected(chromium, app):  # noqa: F811
    with visit(chromium, app) as page:
        page.locator("#model input").click()
        page.get_by_role("option", name="ModelScope text-to-video").click()
        expect(page.locator("#about")).to_contain_text("Not downloaded", timeout=SOON)
        page.locator("#generate").click()
        expect(page.locator("#message")).to_contain_text("not on this machine", timeout=PATIENCE)
        page.locator("#model input").click()
        page.get_by_role("option", name="Paper theatre (built in)").click()
        expect(page.locator("#message")).to_be_hidden(timeout=SOON)
        for tab, ask in (("Text to video", ""), ("Pose to video", "pose-")):
            page.get_by_role("tab", name=tab).click()
            page.get_by_role("button", name="Fine settings").locator("visible=true").click()
            page.locator(f"#{ask}seed input").fill("-1")
            page.locator(f"#{ask}generate").click()
            expect(page.locator(f"#{ask}problem")).to_contain_text("The seed must be", timeout=SOON)
            page.locator(f"#{ask}seed input").fill("7")
            expect(page.locator(f"#{ask}problem")).to_be_hidden(timeout=SOON)


def test_a_problem_stays_where_what_was_typed_before_is_answered_late(chromium, app):  # noqa: F811
    with visit(chromium, app, reloads=True) as page:
        page.add_init_script(LATE)
        page.reload()
        page.wait_for_timeout(8_000)
        page.locator("#prompt textarea").fill("")
        page.locator("#generate").click()
        expect(page.locator("#problem")).to_contain_text("The prompt is empty", timeout=SOON)
        page.wait_for_timeout(10_000)
        expect(page.locator("#problem")).to_be_visible()
        page.locator("#prompt textarea").fill("a bear")
        expect(page.locator("#problem")).to_be_hidden(timeout=SOON)


def test_of_two_quick_choices_the_second_counts(chromium, app):  # noqa: F811
    with visit(chromium, app, reloads=True) as page:
        page.add_init_script(LATE)
        page.reload()
        expect(page.locator("#about")).to_contain_text("Ready", timeout=PATIENCE)
        page.wait_for_timeout(8_000)
        for title in ("Zeroscope v2 576w", "ModelScope text-to-video 1.7B"):
            page.locator("#model input").click()
            page.get_by_role("option", name=title).click()
        page.get_by_role("button", name="Fine settings").first.click()
        expect(page.locator("#frames input[type=number]")).to_have_value("16", timeout=SOON)
        page.wait_for_timeout(4_000)
        expect(page.locator("#frames input[type=number]")).to_have_value("16")  # Zeroscope's are 24
        expect(page.locator("#width input")).to_have_value("256")
