"""Makes the pictures that the app and its README show, with the built-in models: python -m scripts.pictures

assets/examples/*.webp and *.png from the examples of the page, assets/screenshot.png from the page in a Chromium
(needs tests/requirements.txt). Run it again whenever the weights, the examples or the look of the page change.
"""

import secrets
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from pipelines import video
from pipelines.backend import LocalBackend
from pipelines.events import Result
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo
from ui import page
from ui.text_to_video import EXAMPLES, PICTURES

SCREENSHOT = page.ASSETS / "screenshot.png"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(Settings.from_environment(), data=Path(folder))
        backend = LocalBackend(settings)
        try:
            PICTURES.mkdir(exist_ok=True)
            for example in EXAMPLES:
                draw_example(backend, example.pictures, example.task)
            take_screenshot(backend, settings)
        finally:
            backend.close()


def draw_example(backend: LocalBackend, name: str, task: TextToVideo) -> None:
    """The video of `task` as a moving WebP, and its middle frame for those who want no motion."""
    owner = secrets.token_hex(16)
    *_, end = backend.events(backend.submit(task, owner), owner)
    if not isinstance(end, Result):
        raise SystemExit(f"{name}: {end.message}")
    frames = [Image.fromarray(frame) for frame in video.read(end.video)]
    moving = PICTURES / f"{name}.webp"
    frames[0].save(
        moving, save_all=True, append_images=frames[1:], duration=1000 // task.fps, loop=0, quality=75, method=6
    )
    frames[len(frames) // 2].save(PICTURES / f"{name}.png", optimize=True)
    print(f"{moving}  {moving.stat().st_size / 1e3:.0f} kB")


def take_screenshot(backend: LocalBackend, settings: Settings) -> None:
    """The page as a visitor finds it after one click."""
    demo = page.build(backend, settings)
    _, url, _ = demo.launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **page.launch_options(settings)
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        visitor = browser.new_page(viewport={"width": 1440, "height": 1000})
        visitor.goto(url)
        visitor.get_by_role("button", name=EXAMPLES[0].task.prompt).click()
        visitor.locator("#generate").click()
        visitor.locator("#video video").wait_for(timeout=120_000)
        visitor.wait_for_timeout(2_500)  # the curtain opens
        visitor.screenshot(path=SCREENSHOT)
        browser.close()
    demo.close()
    Image.open(SCREENSHOT).convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(
        SCREENSHOT, optimize=True
    )
    print(f"{SCREENSHOT}  {SCREENSHOT.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
