"""Takes pictures of the page, in every state that matters: python -m scripts.screenshots [FOLDER]

Starts the app on a free port with a folder of its own and the built-in models, and goes through all tabs in a Chromium
(needs tests/requirements.txt), once as on a desktop and once as on a phone. Writes TAB-STATE-SIZE-MODE.png, light and
dark, into FOLDER, by default artefacts/screenshots; and assets/screenshot.png, which README shows. Run it again
whenever the look of the page changes.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from ui import page as app
from ui.text_to_video import EXAMPLES

SIZES = {"desktop": {"width": 1440, "height": 1000}, "phone": {"width": 390, "height": 844}}
MODES = ("dark", "light")
OF_README = ("text-to-video-finished", "desktop", "light")
SCREENSHOT = app.ASSETS / "screenshot.png"
PATIENCE = 300_000  # milliseconds, for a job on a busy machine
SHOWN = EXAMPLES[1].task
STEPS = 40  # of the tuning
CURTAIN = 2_500  # milliseconds that it takes to open
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("artefacts/screenshots"))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=PATIENCE)
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(Settings.from_environment(), data=Path(folder), hub=False)
        backend = local_backend(settings)
        try:
            demo = app.build(backend, settings)
            _, url, _ = demo.launch(
                prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **app.launch_options(backend, settings)
            )
            go_through(url, chosen.folder, chosen.sizes)
            demo.close()
        finally:
            backend.close()


def go_through(url: str, folder: Path, sizes: list[str]) -> None:
    """Takes the pictures of the page at `url`, each size in a visit of its own."""
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        for size in sizes:
            page = browser.new_context(viewport=SIZES[size], color_scheme="light").new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(url)
            expect(page.locator("#hints")).to_contain_text("of 77 tokens")  # the page is alive
            for walk in WALKS:
                for state in walk(page):
                    for mode in MODES:
                        take(page, folder, state, size, mode)
            page.context.close()
        browser.close()


def take(page: Page, folder: Path, state: str, size: str, mode: str) -> None:
    page.emulate_media(color_scheme=mode)
    page.wait_for_function(f"document.body.classList.contains('dark') == {str(mode == 'dark').lower()}")
    page.wait_for_timeout(500)  # colours change little by little
    path = folder / f"{state}-{size}-{mode}.png"
    page.screenshot(path=path, full_page=True)
    print(f"{path}  {path.stat().st_size / 1e3:.0f} kB", flush=True)
    if (state, size, mode) == OF_README:
        page.evaluate("window.scrollTo(0, 0)")
        page.screenshot(path=SCREENSHOT)
        few = Image.open(SCREENSHOT).convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
        few.save(SCREENSHOT, optimize=True)
        print(f"{SCREENSHOT}  {SCREENSHOT.stat().st_size / 1e3:.0f} kB", flush=True)


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def empty_library(page: Page) -> Iterator[str]:
    open_tab(page, "Library")
    expect(page.locator("#shelf")).to_contain_text("Your videos appear here.")
    yield "library-empty"


def text_to_video(page: Page) -> Iterator[str]:
    open_tab(page, "Text to video")
    yield "text-to-video-empty"
    page.get_by_role("button", name=SHOWN.prompt).click()  # and with it comes a seed
    expect(page.locator("#prompt textarea")).to_have_value(SHOWN.prompt)
    page.wait_for_function(f"document.querySelector('#video video').currentSrc.includes('/{EXAMPLES[1].pictures}.')")
    page.locator("#generate").click()
    page.locator("img.forming").wait_for()
    yield "text-to-video-working"
    page.locator("#video video").wait_for()
    page.wait_for_timeout(CURTAIN)
    yield "text-to-video-finished"
    page.locator("#prompt textarea").fill("")
    page.locator("#generate").click()
    page.locator("#problem .failed").wait_for()
    yield "text-to-video-failed"


def pose_to_video(page: Page) -> Iterator[str]:
    open_tab(page, "Pose to video")
    expect(page.locator("#found figcaption")).not_to_be_empty()
    yield "pose-to-video-empty"
    page.locator("#pose-generate").click()
    expect(page.locator("#pose-line")).to_contain_text("Denoising")
    yield "pose-to-video-working"
    page.locator("#pose-result video").last.wait_for()
    yield "pose-to-video-finished"
    page.locator("#pose-prompt textarea").fill("")
    page.locator("#pose-generate").click()
    page.locator("#pose-problem .failed").wait_for()
    yield "pose-to-video-failed"


def edit_a_clip(page: Page) -> Iterator[str]:
    """With a video of the library for a clip."""
    open_tab(page, "Edit a clip")
    page.locator("#clip").wait_for()
    yield "edit-a-clip-empty"
    open_tab(page, "Library")
    page.locator("#shelf .example").last.click()
    page.locator("#use-clip").click()
    expect(page.locator("#used")).to_contain_text("16 frames")
    page.locator("#clip-caption textarea").fill(SHOWN.prompt)
    fewer_steps(page)
    page.locator("#tune").click()
    expect(page.locator("#losses")).to_contain_text("steps")
    yield "edit-a-clip-tuning"
    page.locator("#edit-prompt textarea").wait_for()
    page.locator("#edit-prompt textarea").fill("A robot in red dances on the moon")
    page.locator("#edit").click()
    expect(page.locator("#edit-clip")).to_contain_text("Denoising")
    yield "edit-a-clip-working"
    page.locator("#edits tbody tr").wait_for()
    page.wait_for_timeout(CURTAIN)
    yield "edit-a-clip-finished"
    page.locator("#edit-prompt textarea").fill("")
    page.locator("#edit").click()
    page.locator("#edit-clip .message.failed").wait_for()
    yield "edit-a-clip-failed"


def tuned_and_danced(page: Page) -> Iterator[str]:
    """After `edit_a_clip`: who was tuned on dances."""
    open_tab(page, "Pose to video")
    page.locator("#pose-tuned input").click()
    page.get_by_role("option", name=SHOWN.prompt).click()
    page.locator("#pose-prompt textarea").fill("A robot in red in the snow")
    page.locator("#pose-generate").click()
    expect(page.locator("#pose-result")).to_contain_text("in the snow")
    page.wait_for_timeout(CURTAIN)
    yield "pose-to-video-tuned"


def fewer_steps(page: Page) -> None:
    """Sets the steps of the tuning, so that the pictures are taken within minutes."""
    page.get_by_role("button", name="Fine settings of the tuning").click()
    steps = page.locator("#tune-steps input[type=number]")
    page.wait_for_timeout(1_000)  # gradio sets the controls once more as it first shows them
    steps.fill(str(STEPS))
    steps.press("Tab")
    page.wait_for_timeout(1_000)
    page.get_by_role("button", name="Fine settings of the tuning").click()


def library(page: Page) -> Iterator[str]:
    open_tab(page, "Library")
    expect(page.locator("#shelf .example").first).to_be_visible()
    yield "library-full"
    page.locator("#shelf .example").first.click()
    page.wait_for_function("document.querySelector('#chosen-video video')?.readyState > 1")
    yield "library-chosen"
    page.locator("#search input, #search textarea").first.fill("dragon")
    expect(page.locator("#shelf")).to_contain_text("None of your prompts")
    yield "library-nothing-found"


WALKS: tuple[Callable[[Page], Iterator[str]], ...] = (
    *(empty_library, text_to_video, pose_to_video),
    *(edit_a_clip, tuned_and_danced, library),
)


if __name__ == "__main__":
    main()
