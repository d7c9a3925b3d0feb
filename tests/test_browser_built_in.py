"""A fresh visitor edits a clip with the tuned model that comes with the app, in a real Chromium."""

import numpy as np
import pytest
from test_browser import PATIENCE, PICTURES, SIZES, app, chromium, expect, visit  # noqa: F401

from pipelines.catalog import tuned_models
from pipelines.media import video

(NAME,) = tuned_models()


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_a_fresh_visitor_edits_in_two_clicks_and_finds_nothing_to_change_it_with(chromium, app, size):  # noqa: F811
    with visit(chromium, app, size) as page:
        page.get_by_role("tab", name="Edit a clip").click()
        expect(page.locator("#tunings .others").first).to_have_text("Built in", timeout=PATIENCE)
        page.locator(f'#tunings [data-job="{NAME}"]').click()
        expect(page.locator("#edit-ideas")).to_contain_text("The clip shows “a person in yellow", timeout=PATIENCE)
        prompt = page.locator("#edit-prompt textarea").input_value()
        assert prompt and prompt not in page.locator("#edit-ideas p").inner_text()
        for hidden in ("#manage", "#rename", "#resume", "#export", "#delete-tuned"):
            expect(page.locator(hidden)).to_be_hidden()
        expect(page.locator("#edit")).to_be_in_viewport()
        expect(page.locator("#edit-result video")).to_have_count(1)  # the clip, before there is an edit
        page.screenshot(path=PICTURES / f"edit-built-in-{size}.png", full_page=True)
        page.locator("#edit").click()
        expect(page.locator("#edits tbody tr")).to_have_count(1, timeout=PATIENCE)
        page.wait_for_function(
            """() => {
                const [clip, edit] = document.querySelectorAll('#edit-result video');
                return edit?.currentTime > 0.2 && Math.abs(clip.currentTime - edit.currentTime) < 0.3;
            }""",
            timeout=PATIENCE,
        )
        expect(page.locator("#edit-result")).to_contain_text(prompt)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.screenshot(path=PICTURES / f"edit-built-in-{size}-finished.png", full_page=True)

        page.locator("#edit-ideas .chip").last.click()  # another idea
        expect(page.locator("#edit-prompt textarea")).not_to_have_value(prompt, timeout=PATIENCE)


def test_one_click_takes_the_sample_clip_with_its_caption(chromium, app):  # noqa: F811
    with visit(chromium, app) as page:
        page.get_by_role("tab", name="Edit a clip").click()
        page.locator("#try-sample button").click()
        expect(page.locator("#used")).to_contain_text("16 frames", timeout=PATIENCE)
        expect(page.locator("#clip-caption textarea")).to_have_value("A bear wearing green dances in the snow")
        expect(page.locator("#clip-video video")).to_be_visible()
        expect(page.locator("#tune")).to_be_enabled()


def test_a_portrait_clip_leaves_the_button_on_the_first_screen(chromium, app, tmp_path):  # noqa: F811
    drawn = np.random.default_rng(0).integers(0, 256, (16, 160, 96, 3), np.uint8)
    video.write(drawn, tmp_path / "portrait.mp4", 8)
    with visit(chromium, app) as page:
        page.get_by_role("tab", name="Edit a clip").click()
        page.locator("#clip input[type=file]").set_input_files(tmp_path / "portrait.mp4")
        expect(page.locator("#used")).to_contain_text("16 frames", timeout=PATIENCE)
        expect(page.locator("#clip-video video")).to_be_visible()
        page.evaluate("window.scrollTo(0, 0)")
        box = page.locator("#tune").bounding_box()
        assert box["y"] + box["height"] <= SIZES["desktop"]["height"]
        page.screenshot(path=PICTURES / "edit-portrait.png")
        page.locator("#clip").get_by_role("button", name="Clear").click()
        expect(page.locator("#try-sample")).to_be_visible(timeout=PATIENCE)  # it made room
