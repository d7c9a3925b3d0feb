"""Where the web server runs: a folder among the data that holds what browsers load and what they upload, and no more.

gradio tells clients the paths of files, and takes the folder that it runs in for one that may be served. So it runs
where there is nothing else, and every path that it tells is relative to that.
"""

import os
from dataclasses import replace

from pipelines.settings import Settings


def enter(settings: Settings) -> Settings:
    """Makes the folder the one that this process runs in, and returns `settings` for there. To be called once, before
    the page is built."""
    settings = replace(settings, data=settings.data.absolute(), cache=settings.cache.absolute())
    folder = settings.shown.parent
    settings.uploads.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    os.environ["GRADIO_TEMP_DIR"] = str(settings.uploads.relative_to(folder))
    return settings
