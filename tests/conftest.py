"""What all tests share: an environment of their own, one app and one browser a worker, the longest files first."""

import json
import os
import sys
from pathlib import Path

import pytest

FOREIGN = ("MARIONETTE_", "GRADIO_", "HF_", "HUGGING", "TRANSFORMERS_", "DIFFUSERS_", "SPACE", "OAUTH_", "OPENID_")
FOREIGN += ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SYSTEM")
for name in [name for name in os.environ if name.upper().startswith(FOREIGN)]:
    del os.environ[name]  # what a developer has set for themselves; libraries read it when they are imported
if sys.dont_write_bytecode:  # as containers often have it: every process would compile torch and all from their sources
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    bytecode = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(bytecode)
if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: each computes with one thread, its children too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pipelines  # noqa: E402, F401  repairs torchvision, and so comes before diffusers and transformers

SECONDS = Path(__file__).parent / "data" / "seconds.json"  # of CPU that each test file takes; only the order is used


def pytest_configure(config):
    config.option.loadscopereorder = False  # xdist would begin with the files that have the most tests


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker begins a long one when the others are done.

    A browser, its page and the app share a core or two with other tests: what comes late in a browser is tried up to
    twice more, and the report names it (-rR).
    """
    seconds = json.loads(SECONDS.read_text())
    for item in items:
        if item.path.stem.startswith("test_browser"):
            item.add_marker(pytest.mark.flaky(reruns=2))
    items.sort(key=lambda item: -seconds.get(item.path.stem, 0))  # stable: a file's own order stays


@pytest.fixture(scope="session")
def shared_app(tmp_path_factory):
    """An app with the default settings. Its visitors are many: a test counts only what belongs to its own."""
    from running_app import running_app

    with running_app(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture(scope="session")
def shared_chromium():
    from playwright.sync_api import sync_playwright
    from test_browser import CHROMIUM, OPTIONS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def no_page_outlives_its_test(request):
    """A page that a failed test left open would go on playing, and take a core from those that come after it."""
    if "shared_chromium" not in request.fixturenames:
        yield
        return
    browser = request.getfixturevalue("shared_chromium")
    before = list(browser.contexts)
    yield
    for context in browser.contexts:
        if context not in before:
            context.close()
