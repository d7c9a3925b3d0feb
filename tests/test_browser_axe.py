"""Nobody is shut out: axe-core finds nothing serious on any tab, light or dark, on a desktop or a phone."""

from axe_playwright_python.base import AXE_SCRIPT
from test_browser import PATIENCE, PICTURES, SIZES, app, chromium, expect, quickly, visit  # noqa: F401

TABS = ("Text to video", "Pose to video", "Edit a clip", "Library")
SMALLEST = {"width": 360, "height": 780}
COLOURS = ("color-contrast", "link-in-text-block")  # the rules that judge colours: all else is the same in the dark


def findings(page, *rules):
    """What axe-core (of all its rules, or some) calls serious or critical on the page as it is: rule and elements."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found = page.evaluate("options => axe.run(options)", options)["violations"]
    return [
        f"{one['id']}: {node['target']} {node['html'][:160]}"
        for one in found
        for node in one["nodes"]
        if node["impact"] in ("serious", "critical")
    ]


def settle(page):
    """Waits until nothing changes its colour any more: what fades is pale for a moment, longer on a busy machine."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_function(
        "document.getAnimations().every(one => one.playState !== 'running' || one.effect.getTiming().iterations > 1)"
    )


def findings_in_both_modes(page, state):
    settle(page)
    found = [f"{state}, light: {one}" for one in findings(page)]
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.classList.contains('dark')")
    settle(page)
    found += [f"{state}, dark: {one}" for one in findings(page, *COLOURS)]
    page.emulate_media(color_scheme="light")
    page.wait_for_function("!document.body.classList.contains('dark')")
    return found


def unfold(page):
    """Opens every section that is shut, but for the corner, which would lie over the tabs."""
    shut = page.locator(".gr-accordion:not(#status) > button.label-wrap:not(.open):visible")
    while shut.count():
        shut.first.click()


def test_no_tab_has_a_serious_finding(chromium, app):  # noqa: F811
    found = []
    with visit(chromium, app, "desktop") as page:
        page.evaluate(AXE_SCRIPT)
        for name in TABS:
            page.get_by_role("tab", name=name, exact=True).click()
            page.wait_for_timeout(500)
            unfold(page)
            for size, shape in {"desktop": SIZES["desktop"], "phone": SMALLEST}.items():
                page.set_viewport_size(shape)
                found += findings_in_both_modes(page, f"{name}, {size}")
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (name, size)
            page.set_viewport_size(SIZES["desktop"])
    assert found == []


def test_what_was_made_and_what_went_wrong_have_no_serious_finding(chromium, app):  # noqa: F811
    with visit(chromium, app) as page:
        page.evaluate(AXE_SCRIPT)
        quickly(page, 2)
        page.locator("#generate").click()
        expect(page.locator("#result")).to_be_visible(timeout=PATIENCE)
        page.locator("#prompt textarea").fill("a dragon on the beach")
        expect(page.locator("#hints")).to_contain_text("never learned it", timeout=PATIENCE)
        unfold(page)
        found = findings_in_both_modes(page, "finished")
        page.locator("#prompt textarea").fill("")
        page.locator("#generate").click()
        expect(page.get_by_role("alert")).to_be_visible()
        found += findings_in_both_modes(page, "failed")
        page.get_by_role("tab", name="Library").click()
        page.locator("#shelf .example").first.click()
        expect(page.locator("#chosen-about h3")).to_be_visible(timeout=PATIENCE)
        unfold(page)
        page.screenshot(path=PICTURES / "axe-library.png", full_page=True)
        found += findings_in_both_modes(page, "library")
    assert found == []
