"""What a Space adds to the page, in a real Chromium: the notice, the copy, and texts with the page's own address.

On a Space gradio draws the Hub's header on top, with fonts and pictures from the network, which there may be none of.
"""

import pytest
import test_browser
from running_app import running_app
from test_browser import PICTURES, expect, visit

chromium = test_browser.chromium


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """The app as the original Space, on CPU Basic."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    names = {"SYSTEM": "spaces", "SPACE_ID": "theatre/marionette", "MARIONETTE_ORIGINAL": "theatre/marionette"}
    with running_app(tmp_path_factory.mktemp("space"), **names) as running:
        yield running


@pytest.mark.parametrize(("size", "mode"), [("desktop", "light"), ("phone", "dark")])
def test_the_original_space_says_so_and_offers_a_copy(chromium, space, size, mode):
    with visit(chromium, space, size, mode, reloads=True) as page:
        expect(page.locator("#space-notice")).to_contain_text("This Space is shared")
        expect(page.locator("#space-notice")).to_contain_text("This Space has no GPU")
        with page.expect_popup() as copied:
            page.context.route("https://huggingface.co/**", lambda route: route.fulfill(body="a copy"))
            page.locator("#duplicate").click()
        assert copied.value.url == "https://huggingface.co/spaces/theatre/marionette?duplicate=true"
        page.screenshot(path=PICTURES / f"space-{size}-{mode}.png")
        assert page.locator("#space-notice").bounding_box()["height"] < 360  # no tall thin column beside the button
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_texts_to_copy_have_the_pages_own_address(chromium, space):
    with visit(chromium, space, reloads=True) as page:
        section = page.locator("#use-by-code")
        section.get_by_role("button", name="Use by code").click()
        expect(section).to_contain_text(f'Client("{space.url}")')
        section.get_by_role("tab", name="curl").click()
        expect(section).to_contain_text(f"page={space.url}")
        page.screenshot(path=PICTURES / "use-by-code.png", full_page=True)
