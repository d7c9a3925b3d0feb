"""What goes wrong in the page's own handlers, told as one sentence and kept in the log."""

import inspect
from collections.abc import Callable
from functools import wraps
from html import escape

import gradio as gr

from pipelines.messages import said
from pipelines.serving.backend import log_error
from ui.languages import tell


def telling(handler: Callable) -> Callable:
    """`handler`, whose every exception reaches the page as a sentence with the number that finds it in the log.

    What it was called with is kept out of the log: a prompt, a visitor's id, the name of an upload.
    """

    def told(error: Exception, values: tuple) -> gr.Error:
        if len(values) == 1 and isinstance(values[0], dict):  # of a handler that is given controls and their values
            values = tuple(values[0].values())
        words = [value for value in values if isinstance(value, str)]
        sentence = log_error(error, f"Page, {handler.__name__}", words, undone=said("nothing was changed"))
        return gr.Error(escape(tell(sentence)), title=tell("Error"), print_exception=False)

    @wraps(handler)
    def call(*values):
        try:
            return handler(*values)
        except gr.Error:
            raise
        except Exception as error:
            raise told(error, values) from error

    @wraps(handler)
    def generate(*values):
        try:
            yield from handler(*values)
        except gr.Error:
            raise
        except Exception as error:
            raise told(error, values) from error

    return generate if inspect.isgeneratorfunction(handler) else call
