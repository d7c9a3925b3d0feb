"""Marionette: `python app.py` opens the page."""

import sys

from pipelines.backend import LocalBackend
from pipelines.settings import Settings
from ui import page

try:
    settings = Settings.from_environment()
    backend = LocalBackend(settings)
    demo = page.build(backend, settings)
except ValueError as error:
    sys.exit(f"Marionette can't start: {error}")

if __name__ == "__main__":
    try:
        demo.launch(**page.launch_options(settings))
    finally:
        backend.close()
