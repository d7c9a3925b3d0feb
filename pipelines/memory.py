"""How much memory a computation takes, counted before it runs."""

import weakref
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most bytes that the tensors made by `call()` take together at any moment, its result included.

    Meant for modules and tensors on the meta device, where nothing is computed and nothing allocated: exact but for
    what kernels use inside (on a CPU copies in other layouts, on a GPU the workspaces of convolutions).
    """
    with torch.no_grad(), _FusedAttention(), _Counter() as counter:
        call()
    return counter.peak


def largest(needs: Callable[[int], int], room: int, low: int, high: int) -> int | None:
    """The largest whole number from `low` to `high` whose `needs`, which must grow, are at most `room`, or None."""
    fits = bisect_right(range(low, high + 1), room, key=needs)
    return low + fits - 1 if fits else None


class _FusedAttention(TorchFunctionMode):
    """The meta device has no fused attention; where it runs, one keeps its result and nothing of the matrix."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            query, _, value = args[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return function(*args, **(kwargs or {}))


class _Counter(TorchDispatchMode):
    """Watches storages come and go."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        known = {id(tensor.untyped_storage()) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and id(storage := tensor.untyped_storage()) not in known:
                known.add(id(storage))
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage.nbytes())
        return result

    def _free(self, size: int) -> None:
        self.now -= size
