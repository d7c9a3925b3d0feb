"""What a finger does on a phone, in a real Chromium."""

from contextlib import closing, contextmanager

import pytest
from test_browser import PATIENCE, SIZES, app, chromium, expect, plays, quickly  # noqa: F401


@contextmanager
def on_a_phone(chromium, app):  # noqa: F811
    options = {"viewport": SIZES["phone"], "has_touch": True, "is_mobile": True}
    with closing(chromium.new_context(**options)) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(app.url)
        expect(page.locator("#hints")).to_contain_text("of 77 tokens", timeout=PATIENCE)
        yield page


@pytest.mark.parametrize("by", [-70, 70])
def test_a_joint_follows_the_finger_and_the_page_stays(chromium, app, by):  # noqa: F811
    with on_a_phone(chromium, app) as page:
        page.get_by_role("tab", name="Pose to video").tap()
        page.locator("#found .timeline input").fill("2")
        joint = page.locator('#found circle[data-joint="0 4"]')
        joint.scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        box, scrolled = joint.bounding_box(), page.evaluate("scrollY")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        finger = page.context.new_cdp_session(page)

        def touch(kind, points):
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            page.wait_for_timeout(50)

        touch("touchStart", [{"x": x, "y": y}])
        for step in range(1, 8):
            touch("touchMove", [{"x": x, "y": y + by * step / 7}])
        touch("touchEnd", [])
        moved = joint.bounding_box()
        assert moved["y"] - box["y"] == pytest.approx(by, abs=8)
        assert page.evaluate("scrollY") == scrolled


def test_a_video_of_the_library_is_as_wide_as_the_page(chromium, app):  # noqa: F811
    with on_a_phone(chromium, app) as page:
        quickly(page, 2)
        page.locator("#generate").tap()
        expect(page.locator("#line")).to_be_in_viewport(timeout=PATIENCE)  # which tells how far it is
        plays(page)
        page.get_by_role("tab", name="Library").tap()
        page.locator("#shelf .example").first.tap()
        page.wait_for_function("document.querySelector('#chosen-video video')?.readyState > 1")
        assert page.locator("#chosen-video").bounding_box()["width"] > 280
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"]
