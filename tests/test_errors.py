"""What goes wrong in a handler of the page reaches it as one sentence, and the log without what anybody wrote."""

import re
import sqlite3

import gradio as gr
import pytest

from pipelines.errors import Refusal
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from ui import page
from ui.errors import telling


def raised(error):
    def handler(visitor_id, prompt):
        raise error

    with pytest.raises(gr.Error) as told:
        telling(handler)("f" * 32, "a secret wish")
    return told.value


def number(sentence):
    return re.search("[Ll]og number ([0-9a-f]{8})", sentence)[1]


def test_words_for_a_person_are_kept_and_the_log_has_the_rest(caplog):
    told = raised(ValueError("You can't have <a secret wish> now."))
    assert told.message.startswith("You can&#x27;t have &lt;a secret wish&gt; now. (Log number")
    assert number(told.message) in caplog.text and "in handler" in caplog.text
    assert "a secret wish" not in caplog.text and "f" * 32 not in caplog.text
    assert not told.print_exception


def test_a_refusal_needs_no_log(caplog):
    told = raised(Refusal("Nobody was found in the frame.")).message
    assert told == "Nobody was found in the frame." and caplog.text == ""


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a secret wish"), KeyError("x"), ValueError(), OSError()]
    + [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), MemoryError()],
)
def test_what_no_person_understands_is_told_in_general(error, caplog):
    told = raised(error).message
    assert re.fullmatch(
        "Something went wrong inside the app, and nothing was changed. Try again; if it happens again, report it with "
        "the log number [0-9a-f]{8}.",
        told,
    )
    assert number(told) in caplog.text and type(error).__name__ in caplog.text and "secret" not in caplog.text


def test_what_is_wrong_with_the_table_is_told_in_words(caplog):
    told = raised(sqlite3.OperationalError("disk I/O error")).message
    assert told.startswith("The list of jobs could not be read or written. Try again") and "I/O" not in told
    assert number(told) in caplog.text and "OperationalError" in caplog.text


def test_no_name_of_a_file_is_told_or_logged(caplog):
    file = f"/home/me/videos/{'a' * 32}/a-secret-wish-7.mp4"
    told = raised(PermissionError(13, "Permission denied", file)).message
    assert told.startswith("A file could not be read or written: Permission denied. Try again")
    assert raised(video.VideoError("ffmpeg failed: no space")).message.startswith("ffmpeg failed: no space (Log")
    assert "secret-wish" not in caplog.text and f"{'a' * 32}/[file]" in caplog.text


def test_generators_tell_too_and_gradios_own_errors_are_left_alone():
    def handler(prompt):
        yield 1
        raise RuntimeError(prompt)

    going = telling(handler)("a secret wish")
    assert next(going) == 1
    with pytest.raises(gr.Error, match="log number"):
        next(going)
    own = gr.Error("as it is")
    assert raised(own) is own


def test_every_handler_of_the_page_tells(tmp_path, caplog):
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)
    backend = local_backend(settings)
    demo = page.build(backend, settings)
    backend.close()  # from here on there is no table of jobs
    handlers = [event.fn for event in demo.fns.values() if event.fn is not None]
    assert len(handlers) > 15 and all(hasattr(handler, "__wrapped__") for handler in handlers)
    library = [handler for handler in handlers if handler.__module__ == "ui.library"]
    look = next(handler for handler in library if handler.__name__ == "look")
    with pytest.raises(gr.Error, match="The list of jobs could not be read or written"):
        look("f" * 32, "a secret wish", False, 1, [], [])
    assert "ProgrammingError" in caplog.text and "a secret wish" not in caplog.text and "f" * 32 not in caplog.text
