"""The tab that follows poses as a person meets it, in a real Chromium."""

import shutil

import numpy as np
from test_browser import CLIP, LOOK, PATIENCE, PICTURES, SIZES, app, chromium, expect, type_number, visit  # noqa: F401

from pipelines.catalog import find_motion
from pipelines.media import video


def open_tab(page):
    page.get_by_role("tab", name="Pose to video").click()
    expect(page.locator("#found img")).to_be_visible(timeout=PATIENCE)


def quickly(page):
    page.get_by_role("button", name="Fine settings of the video").click()
    type_number(page, "#pose-steps", 3)
    type_number(page, "#pose-frames", 8)


def danced(page):
    """Waits until a video stands beside its skeletons, and both show the same moment."""
    page.wait_for_function(
        """() => {
            const videos = [...document.querySelectorAll('#pose-result video')];
            const [one, other] = videos.map(video => video.currentTime);
            return videos.length == 2 && one > 0.2 && Math.abs(one - other) < 0.3;
        }""",
        timeout=PATIENCE,
        polling=LOOK,
    )
    expect(page.locator("#pose-stop")).to_be_hidden(timeout=PATIENCE)


def test_a_motion_is_chosen_seen_danced_taken_home_and_followed_again(chromium, app):  # noqa: F811
    with visit(chromium, app, reloads=True) as page:
        open_tab(page)
        expect(page.locator("#found figcaption")).to_contain_text("16 frames, 2.0 s · one person")
        page.locator('[data-motion="duet"]').click()
        expect(page.locator("#found figcaption")).to_contain_text("2 people", timeout=PATIENCE)
        expect(page.locator('[data-motion="duet"]')).to_have_attribute("aria-pressed", "true")
        quickly(page)
        page.locator("#pose-prompt textarea").fill("a bear in red dancing in the snow")
        page.locator("#pose-generate").click()
        danced(page)
        expect(page.locator("#pose-measures")).to_contain_text("Pose accuracy")
        expect(page.locator("#pose-result")).to_contain_text("a bear in red dancing in the snow")
        page.screenshot(path=PICTURES / "pose-finished.png", full_page=True)
        for button, begins in (("skeletons", b"ftyp"), ("keypoints", b'[\n{"version"')):
            with page.expect_download(timeout=PATIENCE) as download:
                page.locator(f"#pose-save-{button}").click()
            assert begins in download.value.path().read_bytes()[:24]

        page.reload()
        page.get_by_role("tab", name="Pose to video").click()
        danced(page)
        page.get_by_role("tab", name="Library").click()
        page.locator("#shelf .example").first.click()
        page.locator("#use-settings").click()
        here = page.get_by_role("tab", name="Pose to video")  # the prompt is there already
        expect(here).to_have_attribute("aria-selected", "true", timeout=PATIENCE)
        expect(page.locator("#pose-prompt textarea")).to_have_value(
            "a bear in red dancing in the snow", timeout=PATIENCE
        )
        expect(page.locator('[data-motion="duet"]')).to_have_attribute("aria-pressed", "true")
        page.get_by_role("tab", name="Library").click()
        page.locator("#use-poses").click()
        expect(page.locator("#pose-clip-chosen")).to_contain_text("1.0 s · 128×128", timeout=PATIENCE)


def test_what_is_uploaded_is_shown_and_what_shows_nobody_is_answered(chromium, app, tmp_path):  # noqa: F811
    shutil.copyfile(find_motion("wave"), tmp_path / "wave.json")
    sky = np.linspace(90, 200, 64).astype(np.uint8)[None, :, None, None]
    video.write(np.broadcast_to(sky, (10, 64, 64, 3)), tmp_path / "nobody.mp4", 8)
    with visit(chromium, app, "phone") as page:
        open_tab(page)
        for mode in ("dark", "light"):
            page.emulate_media(color_scheme=mode)
            page.screenshot(path=PICTURES / f"pose-phone-{mode}.png", full_page=True)
        page.locator("#pose-clip input[type=file]").set_input_files(tmp_path / "wave.json")
        expect(page.locator("#found figcaption")).to_contain_text("· keypoints ·", timeout=PATIENCE)
        page.locator('[data-motion="kick"]').click()
        expect(page.locator("#pose-clip-chosen")).to_be_hidden(timeout=PATIENCE)
        page.locator("#pose-clip input[type=file]").set_input_files(tmp_path / "nobody.mp4")
        expect(page.locator("#pose-search")).to_contain_text("Nobody was found in any of", timeout=PATIENCE)
        page.locator("#pose-prompt textarea").fill("")
        page.locator("#pose-generate").click()
        expect(page.locator("#pose-problem")).to_contain_text("The prompt is empty")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"]


def test_after_an_upload_its_skeletons_and_the_button_stand_on_the_first_screen(chromium, app):  # noqa: F811
    with visit(chromium, app) as page:
        open_tab(page)
        page.locator("#pose-clip input[type=file]").set_input_files(CLIP)
        expect(page.locator("#found figcaption")).to_contain_text("drawn figures", timeout=PATIENCE)
        page.evaluate("window.scrollTo(0, 0)")
        page.wait_for_timeout(500)
        page.screenshot(path=PICTURES / "pose-upload.png")
        for seen in ("#found .pose-screen", "#pose-generate"):
            box = page.locator(seen).bounding_box()
            assert box["y"] > 0 and box["y"] + box["height"] <= SIZES["desktop"]["height"], seen


def test_joints_are_moved_frame_by_frame_and_followed(chromium, app):  # noqa: F811
    with visit(chromium, app) as page:
        open_tab(page)
        slider = page.locator("#found .timeline input")
        slider.focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        expect(page.locator("#found [data-part=where]")).to_contain_text("Frame 5 of 16 · 0.50 s")
        expect(page.locator("#found picture img")).to_be_hidden()  # the moving picture, in whose place the joints are
        wrist = page.locator('#found circle[data-joint="0 4"]')
        start = float(wrist.get_attribute("cx"))
        wrist.focus()
        page.keyboard.press("Shift+ArrowRight")
        assert float(wrist.get_attribute("cx")) == start + 10
        expect(page.locator("#found [data-part=key]")).to_have_attribute("aria-pressed", "true")
        box = wrist.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 2 + 12)
        page.mouse.up()
        dragged = float(wrist.get_attribute("cx"))
        assert dragged > start + 12
        page.screenshot(path=PICTURES / "pose-edited.png", full_page=True)
        slider.focus()
        page.keyboard.press("ArrowLeft")
        between = page.evaluate(
            """() => {
                const link = document.querySelector('#found a[download="keypoints.json"]').href;
                const joint = JSON.parse(atob(link.split(',')[1]))[3].people[0].pose_keypoints_2d[12];
                return document.querySelector('#found circle[data-joint="0 4"]').getAttribute('cx') - joint;
            }"""
        )
        assert abs(between - 0.75 * (dragged - start)) < 0.1  # three of the four frames from the first to the key frame
        page.locator("#found [data-part=follow]").click()
        expect(page.locator("#found figcaption")).to_contain_text("· keypoints ·", timeout=PATIENCE)
        page.locator("#pose-undo-edits").click()
        expect(page.locator("#found figcaption")).to_contain_text("a built-in motion", timeout=PATIENCE)
        expect(page.locator("#pose-undo-edits")).to_be_hidden()
