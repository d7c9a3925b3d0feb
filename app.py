"""Marionette: `python app.py` opens the page."""

import logging
import signal
import sys
from logging.handlers import RotatingFileHandler

from pipelines.serving import zerogpu
from pipelines.serving.backend import LocalBackend
from pipelines.settings import Settings
from ui import page

try:
    settings = Settings.from_environment()
    backend = zerogpu.ZeroBackend(settings) if zerogpu.here() else LocalBackend(settings)
    demo = page.build(backend, settings)
    options = page.launch_options(settings)
except ValueError as error:
    sys.exit(f"Marionette can't start: {error}")

if __name__ == "__main__":
    kept = RotatingFileHandler(settings.data / "marionette.log", maxBytes=2**20, backupCount=3, encoding="utf-8")
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(handlers=[kept, logging.StreamHandler()], format=form)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the job that runs is put back in the queue
    try:
        demo.launch(**options)
    finally:
        backend.close()
