"""A first visit, with nothing to do but press one button; and a visit of somebody who wants no motion, by keyboard."""

from test_browser import PATIENCE, PICTURES, SIZES, app, chromium, expect, quickly, visit  # noqa: F401

from scripts.benchmark.first_visit import seconds_to_first_video
from ui import loading_status


def test_one_press_makes_the_first_video_play(chromium, app):  # noqa: F811
    """How long it takes is told and not judged: that is the machine's doing. scripts.benchmark measures it, too."""
    context = chromium.new_context(viewport=SIZES["desktop"])
    page = context.new_page()
    told = f"{seconds_to_first_video(page, app.url):.1f} s"
    expect(page.locator(".masthead p")).to_have_count(1)
    context.close()
    print(f"from opening the page to a playing video: {told}")
    (PICTURES / "first-visit.txt").write_text(told + "\n")


STATUS = """async path => {  // what gradio's page notes of an event with one output and two inputs
    const script = await import(path);
    const Status = Object.values(script).map(one => one.LoadingStatus).find(Boolean), status = new Status();
    status.register(1, [2], [3, 4], 'full');
    status.update({fn_index: 1, status: 'pending', stream_state: null});
    const pending = status.current[2].status;
    status.update({fn_index: 1, status: 'complete', stream_state: 'closed'});
    return [pending, Object.keys(status.current), status.current[2].status];
}"""


def test_only_outputs_are_told_how_an_event_is_doing(chromium, app):  # noqa: F811
    (route,) = loading_status.routes()
    with visit(chromium, app) as page:
        assert page.evaluate(STATUS, route.path) == ["pending", ["2"], "complete"]


def test_whoever_wants_less_motion_starts_the_video_and_the_keyboard_does_it_all(chromium, app):  # noqa: F811
    def moments(seconds=1.5):
        before = page.evaluate("document.querySelector('#video video').currentTime")
        page.wait_for_timeout(1000 * seconds)
        return before, page.evaluate("document.querySelector('#video video').currentTime")

    with visit(chromium, app) as page:
        page.emulate_media(reduced_motion="reduce")
        page.wait_for_function("document.querySelector('.example img').currentSrc.endsWith('/robot.png')")
        quickly(page, 2)
        page.locator("#prompt textarea").focus()
        for _ in range(8):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "generate":
                break
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert page.evaluate("document.activeElement.id") == "generate" and outline == "solid"
        page.keyboard.press("Enter")
        expect(page.locator("#result")).to_be_visible(timeout=PATIENCE)
        page.wait_for_function("document.querySelector('#video video')?.readyState > 1", timeout=PATIENCE)
        page.wait_for_timeout(500)
        before, after = moments()
        assert before == after
        page.locator("#video video").click()
        before, after = moments()
        assert before != after


def test_the_keyboard_shows_what_it_is_on(chromium, app):  # noqa: F811
    on = """() => {
        const one = document.activeElement, kind = one.type ?? one.tagName;
        return [kind, getComputedStyle(one).outlineStyle];
    }"""
    with visit(chromium, app) as page:
        page.get_by_role("button", name="Fine settings").locator("visible=true").click()
        expect(page.locator("#steps input[type=range]")).to_be_visible()
        page.locator("#prompt textarea").focus()
        stops = []
        for _ in range(45):
            page.keyboard.press("Tab")
            stops.append(page.evaluate(on))
        seen = dict(stops)
        assert {"checkbox", "range", "button"} <= seen.keys()
        assert all(outline == "solid" for kind, outline in stops if kind in ("checkbox", "range", "button")), stops
