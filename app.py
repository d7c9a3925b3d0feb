"""Marionette: `python app.py` opens the page."""

import gc
import logging
import os
import signal
import sys
import threading

from pipelines.serving import logs, places, zerogpu
from pipelines.serving.processes import worker_backend
from pipelines.settings import Settings
from ui import public

ENDING_SECONDS = 8.0  # after SIGTERM; whoever sent it kills what is still there after ten

try:
    settings = Settings.from_environment()
    places.prepare(settings)
    settings = public.enter(settings)
except (ValueError, OSError) as error:
    sys.exit(f"Marionette can't start: {error}")

from ui import page  # noqa: E402  gradio reads when it is imported where its files go

if __name__ == "__main__":
    logs.start(settings.data)
try:
    if zerogpu.here():
        backend = zerogpu.zero_backend(settings)
    elif settings.ray:
        from pipelines.serving.ray_executor import ray_backend  # an optional library

        backend = ray_backend(settings)
    else:
        backend = worker_backend(settings)
    demo = page.build(backend, settings)
    options = page.launch_options(backend, settings)
except (ValueError, OSError) as error:
    sys.exit(f"Marionette can't start: {error}")
gc.freeze()  # the page stands for good: Python's collections, which stop everything, needn't look through it


def end(*_: object) -> None:
    """Ends the app in an orderly way, the job that runs being put back in the queue; or else in whatever way."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    last = threading.Timer(ENDING_SECONDS, os._exit, [0])
    last.daemon = True
    last.start()
    sys.exit()


if __name__ == "__main__":
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # the server leaves it to ui/origins.py which proxies are believed
    signal.signal(signal.SIGTERM, end)
    code = 0
    try:
        # Without its last look at the page, for which gradio waits three seconds only: a busy machine may need more.
        demo.launch(**options, _frontend=False)
    except SystemExit:
        pass  # `end`
    except OSError as error:  # the port is taken
        print(f"Marionette can't start: {error}", file=sys.stderr)
        code = 1
    finally:
        backend.close()
        logging.shutdown()
    os._exit(code)  # the interpreter's own end would wait for, or abort in, what a library still computes
