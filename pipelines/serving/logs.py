"""The log: a file among the data and the standard error stream, in entries that nobody can swell or forge."""

import logging
import re
from logging.handlers import RotatingFileHandler
from pathlib import Path

LONGEST = 6000  # characters of an entry; the middle of a longer one is left out
FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Everything that a terminal or an editor could take for more than text: control characters, line ends other than \n,
# marks of direction, surrogates.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\r]")


class Formatter(logging.Formatter):
    """One entry: its first line begins with the time, further ones with four spaces."""

    def __init__(self):
        super().__init__(FORM)

    def format(self, record: logging.LogRecord) -> str:
        entry = super().format(record)
        if len(entry) > LONGEST:
            half = LONGEST // 2
            entry = f"{entry[:half]}\n[{len(entry) - LONGEST} characters left out]\n{entry[-half:]}"
        entry = UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), entry)
        return entry.replace("\n", "\n    ")


def start(folder: Path) -> None:
    """Has everything logged to `marionette.log` in `folder`, 4 MB at most, and to the standard error stream.

    Where the file can't be written, the stream is all there is, and says so.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    unwritten = ""
    try:
        handlers.append(RotatingFileHandler(folder / "marionette.log", maxBytes=2**20, backupCount=3, encoding="utf-8"))
    except OSError as error:
        unwritten = error.strerror or "unknown"
    for handler in handlers:
        handler.setFormatter(Formatter())
    logging.basicConfig(handlers=handlers)
    logging.getLogger("pipelines").setLevel(logging.INFO)  # what was deleted, and why
    if unwritten:
        logging.getLogger(__name__).warning("No log file is written (%s): this stream is the log", unwritten)
