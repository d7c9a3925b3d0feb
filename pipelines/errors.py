"""Errors: those that nobody expected are logged without what visitors wrote, and told with a number to find them by."""

import logging
import re
import secrets
import sqlite3
import traceback
from collections.abc import Iterable

from pipelines.messages import said

log = logging.getLogger(__name__)


class VideoError(OSError):
    """A file could not be written or read; the message says why."""


class Refusal(ValueError):
    """What somebody asked for can't be done. The message tells all that there is to know; no log has more."""


def log_error(error: BaseException, where: str, words: Iterable[str], undone: str) -> str:
    """Logs `error` without `words`, what the visitor wrote. Returns what to tell them, with a number that finds it.

    Files, too, are named by what visitors wrote. `undone` tells what has not happened. A Refusal is told as it is.
    """
    if isinstance(error, Refusal):
        return str(error)
    number = secrets.token_hex(4)
    trace = "".join(traceback.format_exception(error))
    for word in sorted(set(words) - {""}, key=len, reverse=True):
        trace = trace.replace(word, "[what the visitor wrote]")
    trace = re.sub(r"(?<=[0-9a-f]{32}[/\\])[^/\\'\"\n]+", "[file]", trace)
    log.error("%s, log number %s\n%s", where, number, trace)
    if isinstance(error, OSError) and error.strerror:  # the system's words, and the name of a file
        return said(
            "A file could not be read or written: {reason}. Try again in a while. (Log number {number}.)",
            reason=error.strerror,
            number=number,
        )
    if isinstance(error, sqlite3.Error):
        return said(
            "The list of jobs could not be read or written. Try again in a while. (Log number {number}.)", number=number
        )
    if type(error) in (ValueError, MemoryError, VideoError) and str(error):  # in words for the person who asked
        return said("{sentence} (Log number {number}.)", sentence=str(error), number=number)
    return said(
        "Something went wrong inside the app, and {undone}. Try again; if it happens again, report it with the log "
        "number {number}.",
        undone=undone,
        number=number,
    )
