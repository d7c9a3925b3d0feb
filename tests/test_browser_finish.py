"""In a real Chromium: a finished video is made larger and smoother, and a first image is uploaded and painted on."""

import json

import numpy as np
from PIL import Image
from test_browser import PATIENCE, PICTURES, app, chromium, expect, plays, quickly, visit  # noqa: F401

from pipelines.media import video


def made(page, prompt="a bear wearing green dances in the snow"):
    page.locator("#prompt textarea").fill(prompt)
    quickly(page, 2)
    page.locator("#generate").click()
    expect(page.locator("#stop")).to_be_visible(timeout=PATIENCE)
    plays(page)
    expect(page.locator("#stop")).to_be_hidden(timeout=PATIENCE)


def look(page, state):
    """Pictures in both modes; nothing may stick out."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for mode in ("dark", "light"):
        page.emulate_media(color_scheme=mode)
        page.wait_for_function(f"document.body.classList.contains('dark') == {str(mode == 'dark').lower()}")
        page.screenshot(path=PICTURES / f"{state}-{mode}.png", full_page=True)


def test_a_video_is_finished_on_the_stage_and_in_the_library(chromium, app):  # noqa: F811
    with visit(chromium, app, reloads=True) as page:
        made(page)
        page.locator("#finish .label-wrap").click()
        expect(page.locator("#finish-becomes")).to_contain_text("31 frames · 16 a second · 256×256")
        page.locator("#finish-size label").nth(2).click()
        expect(page.locator("#finish-becomes")).to_contain_text("512×512 · every other frame interpolated")
        page.locator("#finish-size label").nth(1).click()
        page.locator("#finish-start").click()
        expect(page.locator("#finish-caption")).to_contain_text("Finished: 31 frames", timeout=PATIENCE)
        page.wait_for_function("document.querySelector('#finish-video video')?.videoWidth == 256", timeout=PATIENCE)
        look(page, "finish-desktop")
        with page.expect_download(timeout=PATIENCE) as download:
            page.locator("#finish-mp4").click()
        assert video.read(download.value.path()).shape == (31, 256, 256, 3)

        page.get_by_role("tab", name="Library").click()
        expect(page.locator("#shelf .example")).to_have_count(2, timeout=PATIENCE)
        expect(page.locator("#shelf .example").first).to_contain_text("Paper theatre (built in), finished")
        page.locator("#shelf .example").first.click()
        expect(page.locator("#chosen-about")).to_contain_text("Finished: 31 frames · 16 a second · 256×256")
        page.locator("#finish-chosen .label-wrap").click()
        page.locator("#finish-chosen-size label").first.click()
        page.locator("#finish-chosen-smoothness label").first.click()
        page.locator("#finish-chosen-start").click()
        expect(page.locator("#finish-chosen-problem")).to_contain_text("Nothing would change", timeout=PATIENCE)
        page.locator("#finish-chosen-smoothness label").nth(2).click()
        page.locator("#finish-chosen-start").click()
        expect(page.locator("#finish-chosen-caption")).to_contain_text("61 frames · 32 a second", timeout=PATIENCE)
        look(page, "finish-library")
        page.locator("#use-settings").click()
        expect(page.locator("#prompt textarea")).to_have_value("a bear wearing green dances in the snow")


def test_finishing_can_be_stopped(chromium, app):  # noqa: F811
    with visit(chromium, app, "phone") as page:
        made(page, "a robot kicks in the desert")
        page.locator("#finish .label-wrap").click()
        for control in ("size", "smoothness"):
            page.locator(f"#finish-{control} label").nth(2).click()
        page.locator("#finish-start").click()
        expect(page.locator("#finish-line")).to_contain_text("Finishing", timeout=PATIENCE)
        page.locator("#finish-stop").click()
        expect(page.locator("#finish-message")).to_contain_text("Stopped.", timeout=PATIENCE)
        expect(page.locator("#finish-start")).to_be_visible()
        look(page, "finish-phone")


def painted(page, *corners, sheet="#mask"):
    """Paints a line over the first image, or another sheet, from corner to corner, in parts of its sides."""
    page.locator(f"{sheet} canvas").scroll_into_view_if_needed()
    box = page.locator(f"{sheet} canvas").bounding_box()
    points = [(box["x"] + across * box["width"], box["y"] + down * box["height"]) for across, down in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def between(page, upper, lower):
    """The pixels from the end of `upper` to the beginning of `lower`."""
    above, below = (page.locator(one).bounding_box() for one in (upper, lower))
    return below["y"] - above["y"] - above["height"]


def test_a_first_image_is_uploaded_and_painted_on(chromium, app, tmp_path):  # noqa: F811
    pixels = np.linspace(0, 255, 300 * 400 * 3).reshape(300, 400, 3).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "holiday.jpg")
    (tmp_path / "script.png").write_text("<svg onload=alert(1)>")
    before = set(app.data.glob("images/*"))
    with visit(chromium, app) as page:
        expect(page.locator("#first-image")).to_be_hidden()
        page.locator("#model input").click()
        page.get_by_role("option", name="TempoFunk Make-A-Video SD").click()
        expect(page.locator("#first-image")).to_contain_text("Paint over what may change")
        expect(page.locator("#chips .chip")).to_have_count(0)
        assert between(page, "#prompt", "#begin-with-image") <= 30  # this model has no words to press
        expect(page.locator("#about")).to_contain_text("18,000 videos of 120 frames")
        expect(page.locator("#about")).to_contain_text("May produce obscene or otherwise unpleasant imagery")
        for name, seen in (("script.png", "#image-message .failed"), ("holiday.jpg", "#mask canvas")):
            with page.expect_file_chooser() as chooser:
                page.locator("#image-upload").click()
            chooser.value.set_files(tmp_path / name)
            expect(page.locator(seen)).to_be_visible(timeout=PATIENCE)
        page.wait_for_timeout(500)
        painted(page, (0.25, 0.1), (0.25, 0.9))
        painted(page, (0.7, 0.5), (0.7, 0.6))
        look(page, "image-desktop")
        page.set_viewport_size({"width": 390, "height": 844})
        look(page, "image-phone")
        page.locator("#generate").click()
        expect(page.locator("#message .failed")).to_contain_text("not on this machine", timeout=PATIENCE)
        kept = [Image.open(folder / "image.png") for folder in set(app.data.glob("images/*")) - before]
        (mask,) = [np.asarray(picture) for picture in kept if picture.mode == "L"]
        (image,) = [picture for picture in kept if picture.mode == "RGB"]
        assert image.size == (400, 300) and mask.shape == (300, 400)
        assert mask[150, 100] == mask[165, 280] == 255 and mask[150, 200] == mask[20, 280] == 0
        page.locator("#image-remove").click()
        expect(page.locator("#mask canvas")).to_have_count(0)
        page.locator("#model input").click()
        page.get_by_role("option", name="Paper theatre (built in)", exact=True).click()
        expect(page.locator("#first-image")).to_be_hidden()


def test_a_part_of_a_clip_is_painted_to_be_drawn_anew(chromium, app, tmp_path):  # noqa: F811
    video.write(np.random.default_rng(0).integers(0, 256, (16, 96, 128, 3), np.uint8), tmp_path / "clip.mp4", 8)
    before = set(app.data.glob("images/*"))
    with visit(chromium, app) as page:
        page.locator("#model input").click()
        page.get_by_role("option", name="Wan 2.1 VACE 1.3B for clips").click()
        expect(page.locator("#changed-clip")).to_be_visible(timeout=PATIENCE)
        with page.expect_file_chooser() as chooser:
            page.locator("#changed-clip-upload").click()
        chooser.value.set_files(tmp_path / "clip.mp4")
        expect(page.locator("#changed-clip-mask canvas")).to_be_visible(timeout=PATIENCE)
        expect(page.locator("#clip-strength")).to_be_hidden()
        page.locator("#generate").click()
        expect(page.locator("#problem")).to_contain_text("Say which part of the clip", timeout=PATIENCE)
        painted(page, (0.25, 0.1), (0.25, 0.9), sheet="#changed-clip-mask")
        expect(page.locator("#problem")).to_be_hidden(timeout=PATIENCE)  # what was wrong is right now
        look(page, "clip-mask-desktop")
        page.set_viewport_size({"width": 390, "height": 844})
        look(page, "clip-mask-phone")
        page.locator("#generate").click()
        expect(page.locator("#message .failed")).to_contain_text("not on this machine", timeout=PATIENCE)
        (mask,) = [np.asarray(Image.open(folder / "image.png")) for folder in set(app.data.glob("images/*")) - before]
        assert mask.shape == (96, 128) and mask[48, 32] == 255 and mask[48, 100] == 0
        page.locator("#changed-clip-remove").click()
        expect(page.locator("#changed-clip-mask canvas")).to_have_count(0)


def test_a_new_video_begins_with_the_first_frame_of_another(chromium, app):  # noqa: F811
    with visit(chromium, app, reloads=True) as page:
        made(page, "an astronaut in white bows on the moon")
        page.get_by_role("tab", name="Library").click()
        page.locator("#shelf .example").first.click()
        page.locator("#use-frame").click()
        expect(page.locator("#model input")).to_have_value("Paper theatre, dance (built in)", timeout=PATIENCE)
        expect(page.locator("#mask canvas")).to_be_visible(timeout=PATIENCE)
        assert json.loads(page.locator("#mask canvas").get_attribute("width")) == 128
