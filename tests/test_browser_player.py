"""The player in a real Chromium: by keyboard, with names, at any speed, and still for those who want no motion."""

import re

from axe_playwright_python.base import AXE_SCRIPT
from test_browser import PATIENCE, PICTURES, SIZES, app, chromium, expect, quickly, visit  # noqa: F401
from test_browser_axe import findings_in_both_modes


def test_the_player_is_worked_by_keyboard_and_tells_what_it_shows(chromium, app):  # noqa: F811
    def at(frame):
        expect(position).to_have_attribute("aria-valuetext", re.compile(rf"^Frame {frame} of 16, at "))

    def moment():
        return page.evaluate("document.querySelector('#video video').currentTime")

    with visit(chromium, app) as page:
        quickly(page, 2)
        page.locator("#generate").click()
        expect(page.locator("#result")).to_be_visible(timeout=PATIENCE)
        player = page.locator("#video").get_by_role("group", name="Your video")
        position, play = player.get_by_role("slider", name="Position"), player.locator("[data-do=toggle]")
        expect(play).to_have_attribute("aria-label", "Pause")  # it plays by itself
        page.wait_for_function("document.querySelector('#video video').currentTime > 0.3", timeout=PATIENCE)
        play.press("Enter")
        expect(play).to_have_attribute("aria-label", "Play")
        keys = ("Home", "ArrowRight", ".", ",", "ArrowLeft", ",", "End")
        for key, frame in zip(keys, (1, 2, 3, 2, 1, 16, 16), strict=True):
            position.press(key)
            at(frame)
        page.wait_for_function("document.querySelector('#video video').currentTime > 1.9")
        position.press("Home")
        position.press(".")
        page.wait_for_function("!document.querySelector('#video video').seeking")
        assert 0.125 < moment() < 0.25  # the second frame at 8 a second
        expect(position).to_have_attribute("max", "16")

        player.get_by_role("combobox", name="Speed").select_option("2")
        player.get_by_role("button", name="Repeat").click()
        expect(player.get_by_role("button", name="Repeat")).to_have_attribute("aria-pressed", "false")
        position.press(" ")
        page.wait_for_function("document.querySelector('#video video').ended", timeout=PATIENCE)
        assert page.evaluate("document.querySelector('#video video').playbackRate") == 2
        expect(play).to_have_attribute("aria-label", "Play")
        expect(player.get_by_role("button", name="Wipe")).to_be_hidden()  # there is one video
        expect(player.get_by_role("button", name="Sound")).to_be_hidden()  # and it has none

        drawn = """() => {
            const strip = document.querySelector('#video canvas');
            const [at, width] = [strip.getContext('2d'), strip.width];
            return [0.1, 0.5, 0.9].every(part => at.getImageData(width * part, 10, 1, 1).data[3] === 255);
        }"""
        page.wait_for_function(drawn, timeout=PATIENCE)
        page.evaluate(AXE_SCRIPT)
        assert findings_in_both_modes(page, "player") == []
        page.screenshot(path=PICTURES / "player.png")
        page.set_viewport_size(SIZES["phone"])
        page.locator("#video").scroll_into_view_if_needed()
        page.wait_for_function(drawn, timeout=PATIENCE)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        boxes = page.evaluate("[...document.querySelectorAll('#video button')].map(one => one.getBoundingClientRect())")
        assert all(box["right"] <= SIZES["phone"]["width"] for box in boxes)
        page.screenshot(path=PICTURES / "player-phone.png")
