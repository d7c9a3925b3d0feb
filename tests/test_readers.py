"""Turns at reading: nobody's uploads hold up those of the others."""

import threading
from contextlib import ExitStack, contextmanager

import pytest

from pipelines.serving.readers import EACH, READING, WAITING, Readers


@contextmanager
def reader(readers, owner):
    """Asks for a turn in a thread of its own; yields what is set once it has come, and once it may end."""
    began, ended = threading.Event(), threading.Event()

    def read():
        with readers.turn(owner):
            began.set()
            ended.wait(60)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield began, ended
    finally:
        ended.set()
        thread.join(60)
        assert not thread.is_alive()


def all_of(stack, readers, owners):
    """A `reader` for each of `owners`; all of them end with `stack`."""
    found = [stack.enter_context(reader(readers, owner)) for owner in owners]
    stack.callback(lambda: [ended.set() for _, ended in found])  # before the first of them is waited for
    return found


def waits(readers, count):
    """Whether so many wait, as they will as soon as their threads have begun."""
    deadline = threading.Event()
    for _ in range(600):
        if len(readers._waiting) == count:
            return True
        deadline.wait(0.05)
    return False


def test_one_visitors_uploads_leave_room_for_another():
    readers = Readers()
    with ExitStack() as stack:
        first, end = stack.enter_context(reader(readers, "anna"))
        assert first.wait(30)
        second, _ = stack.enter_context(reader(readers, "anna"))
        assert waits(readers, 1)
        with reader(readers, "ben") as (bens, _):
            assert bens.wait(30)  # although he came after both of hers
        end.set()
        assert second.wait(30)


def test_so_many_are_read_at_once_and_no_more():
    readers = Readers()
    with ExitStack() as stack:
        begun = all_of(stack, readers, map(str, range(READING)))
        assert all(event.wait(30) for event, _ in begun)
        with reader(readers, "late") as (late, _):
            assert waits(readers, 1) and not late.is_set()
            begun[0][1].set()
            assert late.wait(30)


def test_too_many_of_one_visitor_and_too_many_of_all_are_told():
    readers = Readers()
    with ExitStack() as stack:
        all_of(stack, readers, ["anna"] * EACH)
        assert waits(readers, EACH - 1)
        with pytest.raises(ValueError, match="last uploads are still being read"), readers.turn("anna"):
            pass
        with readers.turn("ben"):
            pass
    with ExitStack() as stack:
        all_of(stack, readers, map(str, range(READING + WAITING)))
        assert waits(readers, WAITING)
        with pytest.raises(ValueError, match="Many uploads"), readers.turn("late"):
            pass
    with readers.turn("late"):
        pass


def test_a_turn_that_fails_is_over():
    readers = Readers()
    for _ in range(READING + 1):
        with pytest.raises(OSError), readers.turn("anna"):
            raise OSError
