"""Videos side by side, and the corner that tells of the machine, in a real Chromium."""

import re

from axe_playwright_python.base import AXE_SCRIPT
from test_browser import PATIENCE, PICTURES, app, chromium, expect, quickly, visit  # noqa: F401
from test_browser_axe import findings_in_both_modes


def test_two_videos_play_in_step_with_what_differs_and_the_machine_tells_of_its_models(chromium, app):  # noqa: F811
    with visit(chromium, app) as page:
        page.get_by_role("tab", name="Library").click()
        page.get_by_role("button", name="Make your first video").click()
        for prompt, frames in (("a bear bows in the desert", 16), ("a robot kicks in the snow", 24)):
            page.locator("#prompt textarea").fill(prompt)
            quickly(page, 2)
            page.locator("#frames input[type=number]").fill(str(frames))
            page.locator("#frames input[type=number]").press("Tab")
            page.locator("#generate").click()
            expect(page.locator("#stop")).to_be_visible(timeout=PATIENCE)
            expect(page.locator("#stop")).to_be_hidden(timeout=PATIENCE)
        page.get_by_role("tab", name="Library").click()
        buttons = page.locator(".on-shelf .compare")
        expect(buttons).to_have_count(2, timeout=PATIENCE)
        buttons.nth(0).press("Enter")
        expect(page.locator("#compare")).to_contain_text("“a robot kicks in the snow” is chosen", timeout=PATIENCE)
        expect(buttons.nth(0)).to_have_attribute("aria-pressed", "true")
        expect(buttons.nth(0)).to_be_focused()  # also after the shelf was drawn anew
        buttons.nth(1).click()
        page.wait_for_function(
            """() => {
                const [long, short] = [...document.querySelectorAll('#compare video')];
                const apart = short && Math.abs(long.currentTime % short.duration - short.currentTime);
                return long?.duration > 2.9 && long.currentTime > 2.2 && apart < 0.3;
            }""",
            timeout=PATIENCE,
        )
        table = page.locator("#compare-settings")
        for row in (["Prompt", "a robot kicks in the snow", "a bear bows in the desert"], ["Frames", "24", "16"]):
            expect(table).to_contain_text(re.compile(r"\s*".join(row)))
        expect(table).not_to_contain_text("Guidance")
        page.evaluate(AXE_SCRIPT)
        assert findings_in_both_modes(page, "compared") == []
        page.screenshot(path=PICTURES / "compare.png", full_page=True)
        page.set_viewport_size({"width": 360, "height": 780})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot(path=PICTURES / "compare-phone.png", full_page=True)

        corner = page.locator("#status")
        corner.get_by_role("button", name="This machine").click()
        expect(corner).to_contain_text("Nothing is being made, none waits", timeout=PATIENCE)
        expect(corner).to_contain_text("Paper theatre (built in): text to video")
        page.wait_for_timeout(300)
        assert findings_in_both_modes(page, "status") == []
        page.screenshot(path=PICTURES / "status-phone.png")
        corner.get_by_role("button", name="Unload now").click()
        expect(corner).to_contain_text("None. A video loads what it needs.", timeout=PATIENCE)
        expect(page.locator("#unload")).to_be_disabled()
        corner.get_by_role("button", name="This machine").click()
        page.locator("#compare-end").click()
        expect(page.locator("#compare")).to_be_hidden(timeout=PATIENCE)
        expect(page.locator(".on-shelf .compare[aria-pressed=true]")).to_have_count(0)
