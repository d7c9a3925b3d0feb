"""The player and the library in a real Chromium, over videos that are there already: nothing is made."""

import re
import shutil
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from test_browser import CLIP, PATIENCE, PICTURES, SIZES, chromium, expect, visit  # noqa: F401
from test_browser_axe import findings_in_both_modes

from pipelines.catalog import find
from pipelines.events import Result
from pipelines.media import video
from pipelines.serving.backend import Backend
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo
from ui import page as pages
from ui import visitor

ME = "1" * 32
BEAR = TextToVideo.for_model(find("miniature-modelscope"), "a bear in purple on the moon", 7)
ROBOT = TextToVideo.for_model(find("miniature-modelscope"), "a <b>robot</b> kicks", 8, frames=24)


@dataclass(frozen=True)
class Shown:
    """A page, and what is behind it."""

    url: str
    backend: Backend

    def put(self, task, film):
        """A finished video of everybody who comes."""
        job = self.backend.table.add(task, self.backend.owners.of(ME))
        place = self.backend.storage.place(job)
        place.parent.mkdir(exist_ok=True)
        shutil.copy(film, place)
        self.backend.table.adopt(replace(job, state="done", ended=time.time(), end=Result(place, {"seed": task.seed})))
        return job.id


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A video of 16 frames, and one of 24."""
    long = tmp_path_factory.mktemp("films") / "long.mp4"
    frames = np.linspace(0, 255, 24 * 64 * 64 * 3).reshape(24, 64, 64, 3).astype(np.uint8)
    video.write(frames, long, 8, "")
    return CLIP, long


@pytest.fixture(scope="module")
def shown(tmp_path_factory, films):
    """The page in this process, where every browser is the same visitor."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("shown")
    settings = Settings(data=folder / "data", cache=folder / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    backend.dispatcher.pause()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visitor, "known", lambda value: ME)
        demo = pages.build(backend, settings)
        options = pages.launch_options(backend, settings)
        where = {"server_name": "127.0.0.1", "server_port": port, "prevent_thread_lock": True, "quiet": True}
        demo.launch(**options, **where, _frontend=False)
        here = Shown(f"http://127.0.0.1:{port}", backend)
        here.put(ROBOT, films[1])
        here.put(BEAR, films[0])
        yield here
        demo.close()
    backend.close()


def drawn(page, player):
    """Waits until the filmstrip of a player shows something from end to end."""
    page.wait_for_function(
        """player => {
            const strip = document.querySelector(`${player} canvas`), pen = strip.getContext('2d');
            return [0.1, 0.5, 0.9].every(part => pen.getImageData(strip.width * part, 10, 1, 1).data[3] === 255);
        }""",
        arg=player,
        timeout=PATIENCE,
    )


def test_the_player_is_worked_by_keyboard_and_tells_what_it_shows(chromium, shown):  # noqa: F811
    with visit(chromium, shown) as page:
        player = page.locator("#video").get_by_role("group", name="Your video")
        position, play = player.get_by_role("slider", name="Position"), player.locator("[data-do=toggle]")
        expect(play).to_have_attribute("aria-label", "Pause", timeout=PATIENCE)  # it plays by itself
        page.wait_for_function("document.querySelector('#video video').currentTime > 0.3", timeout=PATIENCE)
        play.press("Enter")
        expect(play).to_have_attribute("aria-label", "Play")
        keys = ("Home", "ArrowRight", ".", ",", "ArrowLeft", ",", "End")
        for key, frame in zip(keys, (1, 2, 3, 2, 1, 16, 16), strict=True):
            position.press(key)
            expect(position).to_have_attribute("aria-valuetext", re.compile(rf"^Frame {frame} of 16, at "))
        position.press("Home")
        position.press(".")
        page.wait_for_function(
            """() => {
                const video = document.querySelector('#video video');
                return !video.seeking && video.currentTime > 0.125 && video.currentTime < 0.25;
            }""",
            timeout=PATIENCE,
        )  # the second frame at 8 a second

        player.get_by_role("combobox", name="Speed").select_option("2")
        player.get_by_role("button", name="Repeat").click()
        expect(player.get_by_role("button", name="Repeat")).to_have_attribute("aria-pressed", "false")
        position.press(" ")
        page.wait_for_function("document.querySelector('#video video').ended", timeout=PATIENCE)
        assert page.evaluate("document.querySelector('#video video').playbackRate") == 2
        expect(play).to_have_attribute("aria-label", "Play")
        expect(player.locator("[data-do=wipe]")).to_be_hidden()  # there is one video
        expect(player.locator("[data-do=sound]")).to_be_hidden()  # and it has none

        drawn(page, "#video")
        page.evaluate(AXE_SCRIPT)
        assert findings_in_both_modes(page, "player") == []
        page.screenshot(path=PICTURES / "player.png")
        page.set_viewport_size(SIZES["phone"])
        page.locator("#video").scroll_into_view_if_needed()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        edges = page.evaluate(
            "[...document.querySelectorAll('#video :is(button, select)')].map(one => one.getBoundingClientRect().right)"
        )
        assert max(edges) <= SIZES["phone"]["width"]
        page.screenshot(path=PICTURES / "player-phone.png")


def test_videos_are_compared_frame_by_frame_and_with_a_wipe(chromium, shown):  # noqa: F811
    with visit(chromium, shown) as page:
        page.get_by_role("tab", name="Library").click()
        buttons = page.locator(".on-shelf .compare")
        for one in (1, 0):
            buttons.nth(one).click(timeout=PATIENCE)
            expect(buttons.nth(one)).to_have_attribute("aria-pressed", "true", timeout=PATIENCE)
        films = page.locator("#compare").get_by_role("group", name="The videos compared")
        expect(films.locator("video")).to_have_count(2, timeout=PATIENCE)
        films.get_by_role("slider", name="Position").press("End")
        page.wait_for_function(
            """() => {
                const [long, short] = [...document.querySelectorAll('#compare video')];
                return long.paused && short.paused && long.currentTime > 2.9 &&
                    Math.abs(long.currentTime % short.duration - short.currentTime) < 0.02;
            }""",
            timeout=PATIENCE,
        )
        drawn(page, "#compare")
        page.screenshot(path=PICTURES / "compare-side.png")
        films.get_by_role("button", name="Wipe").click()
        divider = films.get_by_role("slider", name="Divider 1")
        expect(divider).to_have_attribute("aria-valuenow", "50")
        divider.press("PageUp")
        expect(divider).to_have_attribute("aria-valuenow", "60")
        clips = page.evaluate("[...document.querySelectorAll('#compare video')].map(video => video.style.clipPath)")
        assert "40%" in clips[0] and "60%" in clips[1]
        box = films.locator(".films").bounding_box()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20, steps=3)
        page.mouse.up()
        expect(divider).to_have_attribute("aria-valuenow", "25")
        expect(films.locator("[data-do=toggle]")).to_have_attribute("aria-label", "Play")  # dragging is no press
        page.evaluate(AXE_SCRIPT)
        assert findings_in_both_modes(page, "wiped") == []
        page.screenshot(path=PICTURES / "compare-wipe.png")


def test_cards_play_and_are_favoured_saved_and_deleted_together(chromium, shown, films):  # noqa: F811
    shown.put(replace(BEAR, seed=9, steps=12), films[0])
    with visit(chromium, shown) as page:
        page.get_by_role("tab", name="Library").click()
        cards, search = page.locator("#shelf .on-shelf"), page.locator("#search :is(input, textarea)")
        expect(cards).to_have_count(3, timeout=PATIENCE)
        expect(cards.first).to_contain_text("Seed 9 · Steps 12")
        expect(cards.nth(2)).to_contain_text("a <b>robot</b> kicks")
        expect(page.locator("#share")).to_be_hidden()  # an app for this machine

        plays = "document.querySelector('.on-shelf video')?.currentTime > 0.1"
        cards.first.hover()
        page.wait_for_function(plays, timeout=PATIENCE)
        search.hover()
        expect(page.locator(".on-shelf video")).to_have_count(0)
        cards.nth(1).locator(".example").focus()
        page.wait_for_function(plays, timeout=PATIENCE)
        search.focus()
        expect(page.locator(".on-shelf video")).to_have_count(0)

        page.get_by_role("button", name="Favourite: a <b>robot</b>").click()
        page.get_by_label("Favourites only").check()
        expect(cards).to_have_count(1, timeout=PATIENCE)
        expect(cards).to_contain_text("robot")
        page.get_by_label("Favourites only").uncheck()
        expect(cards).to_have_count(3, timeout=PATIENCE)

        for number in (0, 1):
            page.locator(".on-shelf .pick").nth(number).click()
            expect(page.locator("#picked-count")).to_have_text(f"{number + 1} selected", timeout=PATIENCE)
        page.evaluate(AXE_SCRIPT)
        assert findings_in_both_modes(page, "selected") == []
        page.screenshot(path=PICTURES / "library-selected.png", full_page=True)
        page.set_viewport_size(SIZES["phone"])
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot(path=PICTURES / "library-selected-phone.png", full_page=True)
        page.set_viewport_size(SIZES["desktop"])
        with page.expect_download(timeout=PATIENCE) as download:
            page.locator("#picked-zip").click()
        assert download.value.suggested_filename.endswith(".zip")
        with ZipFile(download.value.path()) as archive:
            assert archive.testzip() is None
            assert sorted(archive.namelist()) == [f"a-bear-in-purple-on-the-moon-{seed}.mp4" for seed in (7, 9)]
        page.locator("#picked-delete").click()
        page.locator("#picked-really").click()
        expect(cards).to_have_count(1, timeout=PATIENCE)
        expect(page.locator("#picked")).to_be_hidden()
        assert [Path(job.end.video).name for job in shown.backend.table.finished()] == ["a-b-robot-b-kicks-8.mp4"]


def test_whoever_wants_less_motion_sees_stills(chromium, shown):  # noqa: F811
    context = chromium.new_context(viewport=SIZES["desktop"], reduced_motion="reduce")
    page = context.new_page()
    page.goto(shown.url)
    page.wait_for_function("document.querySelector('#video video')?.readyState > 1", timeout=PATIENCE)
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('#video video').currentTime") == 0
    page.get_by_role("tab", name="Library").click()
    page.locator(".on-shelf").first.hover(timeout=PATIENCE)
    page.wait_for_timeout(300)
    assert page.locator(".on-shelf video").count() == 0
    context.close()
