"""Stands in for the package `spaces` on ZeroGPU, which can't be reached from here, and does as it does.

As spaces 0.51.3, zero/wrappers.py and zero/client.py: a generator runs in a fork, a new one each time; arguments and
what it yields are pickled; only what it is in words comes out of an exception; whoever is in gradio's context of the
request pays, 1.5 times what was asked for; closing takes effect after the next item.
"""

import math
import multiprocessing
import pickle
from contextlib import suppress

import gradio as gr
import torch
from gradio.context import LocalContext

FORK = multiprocessing.get_context("fork")


class Spaces:
    def __init__(self, left: float = math.inf):
        self.left = left  # seconds of everybody's quota
        self.calls: list[tuple[str | None, float, int]] = []  # who paid, seconds, process

    def GPU(self, duration):
        def decorate(task):
            def call(*args):
                yield from self._call(task, duration, args)

            return call

        return decorate

    def _call(self, task, duration, args):
        request = LocalContext.request.get(None)
        visitor = None if request is None else request.headers["x-ip-token"]
        seconds = 1.5 * duration(*args)
        if visitor is None and self.left < math.inf:
            raise gr.Error("Space app has reached its GPU limit. Try", title="ZeroGPU quota exceeded")
        if seconds > self.left:
            told = (
                f"You have exceeded your <b>free</b> ZeroGPU quota ({seconds:.0f}s requested vs. {self.left}s left). "
            )
            raise gr.Error(told, title="ZeroGPU quota exceeded")
        items, stop = FORK.SimpleQueue(), FORK.Event()
        process = FORK.Process(target=_work, args=(task, pickle.dumps(args), items, stop), daemon=True)
        process.start()
        self.calls.append((visitor, seconds, process.pid))
        try:
            while True:
                kind, value = pickle.loads(items.get())
                if kind == "end":
                    return
                if kind == "failed":
                    raise gr.Error(value, title="ZeroGPU worker error")
                try:
                    yield value
                except GeneratorExit:
                    stop.set()
                    while pickle.loads(items.get())[0] == "item":
                        pass
                    raise
        finally:
            process.join()


def _work(task, arguments, items, stop):
    torch.set_num_threads(1)
    with suppress(StopIteration):
        try:
            generator = task(*pickle.loads(arguments))
            while True:
                item = next(generator)
                if stop.is_set():
                    generator.close()
                    break
                items.put(pickle.dumps(("item", item)))
        except StopIteration:
            raise
        except Exception as error:
            items.put(pickle.dumps(("failed", type(error).__name__)))
            return
    items.put(pickle.dumps(("end", None)))
