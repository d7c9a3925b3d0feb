"""What a first visit takes: from opening the page to a video that plays, with one press on Generate, in a Chromium."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

PLAYS = """() => {  // and it is no example, which has no result to be saved
  const video = document.querySelector('#result')?.offsetParent && document.querySelector('#video video');
  return video && !video.paused && video.currentTime > 0;
}"""
ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300_000  # milliseconds


def seconds_to_first_video(page, url: str) -> float:
    """From opening the page at `url` in a Playwright `page` until its first video plays, Generate being pressed."""
    began = time.perf_counter()
    page.goto(url)
    page.locator("#generate").click(timeout=PATIENCE)
    page.wait_for_function(PLAYS, timeout=PATIENCE)
    return time.perf_counter() - began


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Starts the app, and visits it twice as somebody new. Raises ValueError where there is no browser to do so."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise ValueError("This needs Playwright: pip install -r tests/requirements.txt") from error
    sys.path.insert(0, str(ROOT / "tests"))
    running_app = import_module("running_app").running_app
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise ValueError("This needs a Chromium, and there is none on this machine.")
    with (
        tempfile.TemporaryDirectory(prefix="marionette-") as folder,
        running_app(Path(folder), forked=False, MARIONETTE_DEVICE=options.device) as app,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        cold, warm = (seconds_to_first_video(browser.new_context().new_page(), app.url) for _ in range(2))
        browser.close()
    return [
        ("machine", f"{os.cpu_count()} cores, device {options.device}"),
        ("start of the app until there is a page", f"{app.seconds:.1f} s"),
        ("first visit, from opening the page to a playing video", f"{cold:.1f} s, with imports and loading"),
        ("somebody else's first visit after that", f"{warm:.1f} s"),
    ]
