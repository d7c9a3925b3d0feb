"""Events that only inform: what a click will take, hints on a prompt, words to press.

They are asked while somebody is still choosing, and so also with values that do not fit together, such as the settings
of one model for another: then they tell nothing.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

# Of an event that informs, gradio checks no value. It would hold each against the limits that its control was given
# last, which the page may not show yet; what asks by the values checks them with the task that they make.
LOOKING: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "preprocess": False}
INFORMING: dict[str, Any] = LOOKING | {"queue": False}


def or_nothing(handler: Callable[..., str]) -> Callable[..., str]:
    """`handler`, which tells "" where the values that it was given do not fit."""

    @wraps(handler)
    def tell(*values: object) -> str:
        try:
            return handler(*values)
        except ValueError:
            return ""

    return tell
