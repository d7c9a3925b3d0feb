"""Signing in, in a real Chromium, on a Space that admits its owner only: with a stand-in for the Hub's own pages."""

from contextlib import contextmanager

import pytest
import test_browser
from running_app import running_app
from stand_in_provider import Provider
from test_browser import PATIENCE, PICTURES, SIZES, expect, quickly

chromium = test_browser.chromium


@pytest.fixture(scope="module")
def provider():
    made = Provider("somebody")
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory, provider):
    PICTURES.mkdir(parents=True, exist_ok=True)
    variables = provider.variables("somebody") | {"MARIONETTE_ADMITTED": "owner"}
    with running_app(tmp_path_factory.mktemp("sign-in"), **variables) as running:
        yield running


@contextmanager
def signed_in(chromium, app, size):
    """A browser of its own, in which somebody signs in; the page that it then shows."""
    context = chromium.new_context(viewport=SIZES[size])
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(app.url)
    page.screenshot(path=PICTURES / f"sign-in-{size}.png")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Sign in with Hugging Face").click()
    yield opened.value
    context.close()


def test_what_somebody_made_is_there_wherever_they_sign_in(chromium, app):
    with signed_in(chromium, app, "desktop") as page:
        expect(page.locator("#hints")).to_contain_text("of 77 tokens", timeout=PATIENCE)
        expect(page.locator("#sign-in")).to_contain_text("somebody", timeout=PATIENCE)
        page.locator("#prompt textarea").fill("a bear bows in the desert")
        quickly(page, 2)
        page.locator("#generate").click()
        expect(page.locator("#video video")).to_be_visible(timeout=PATIENCE)
        page.screenshot(path=PICTURES / "signed-in.png")
    with signed_in(chromium, app, "phone") as page:
        page.get_by_role("tab", name="Library").click()
        expect(page.locator("#shelf .example")).to_contain_text("a bear bows in the desert", timeout=PATIENCE)
        page.locator("#sign-in").click()  # and out
        expect(page.get_by_role("link", name="Sign in with Hugging Face")).to_be_visible(timeout=PATIENCE)


def test_somebody_else_is_told_that_they_are_not_admitted(chromium, app, provider):
    provider.user = "mallory"
    with signed_in(chromium, app, "phone") as page:
        expect(page.locator("p")).to_contain_text("mallory is not admitted")
        page.screenshot(path=PICTURES / "not-admitted.png")
        with page.expect_popup() as out:
            page.get_by_role("link", name="Sign out").click()
        expect(out.value.get_by_role("link", name="Sign in with Hugging Face")).to_be_visible()
    provider.user = "somebody"
