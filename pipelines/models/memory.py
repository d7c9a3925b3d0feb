"""How much memory a computation takes, counted before it runs."""

import hashlib
import weakref
from bisect import bisect_right
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipelines.messages import said

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager
    from pipelines.tasks import Edit, PoseToVideo, TextToVideo


Count = TypeVar("Count", bound=Callable[..., int])
REMEMBERED = 256  # counts of one kind


def remembered(count: Count) -> Count:
    """Decorates a function that counts for a network without weights and some numbers.

    A count takes seconds. It is remembered by what the network looks like, not by which object it is: another manager,
    or the same model tuned anew, has it at once.
    """
    known: dict[tuple[Any, ...], int] = {}

    @wraps(count)
    def counted(network: nn.Module, *numbers: Any) -> int:
        shapes = [(name, tuple(one.shape), str(one.dtype)) for name, one in network.named_parameters()]
        looks = repr((type(network).__qualname__, network.config, shapes))
        key = (hashlib.sha256(looks.encode()).digest(), *numbers)
        if key not in known:
            if len(known) >= REMEMBERED:
                del known[next(iter(known))]
            known[key] = count(network, *numbers)
        return known[key]

    return cast(Count, counted)


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most bytes that the tensors made by `call()` take together at any moment, its result included.

    Meant for modules and tensors on the meta device, where nothing is computed and nothing allocated: exact but for
    what kernels use inside (on a CPU copies in other layouts, on a GPU the workspaces of convolutions).
    """
    with torch.no_grad(), _FusedAttention(), _Counter() as counter:
        call()
    return counter.peak


def backward(loss: Tensor) -> None:
    """`loss.backward()` within what `peak_bytes` counts: the method itself leaves the attention that stands in there,
    and gradient checkpointing would meet another one."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def largest(needs: Callable[[int], int], room: int, numbers: range) -> int | None:
    """The largest of `numbers`, which rise, whose `needs`, which must grow, are at most `room`, or None."""
    fits = bisect_right(numbers, room, key=needs)
    return numbers[fits - 1] if fits else None


def allotted(
    task: "TextToVideo | PoseToVideo | Edit",
    models: "ModelManager",
    needs: Callable[[int, int, int, int], int],
    part: str = "unet",
) -> tuple[int, int]:
    """Bytes beside the weights for the `part` of the model of `task` that denoises, and the number of slices: one, or
    8 where only that fits.

    `needs` maps frames, width, height and slices to the bytes that a step takes. Raises MemoryError, naming
    the largest setting that fits, where the device hasn't so much.
    """
    room = models.room(f"{task.model}/{part}")
    for slices in (8,) if models.frugal else (1, 8):
        if (needed := needs(task.frames, task.width, task.height, slices)) <= room:
            return needed, slices
    limits = models.card(task.model).limits
    frames, sides = limits.frames.numbers(task.frames), limits.side.numbers(min(task.width, task.height))
    advice = said("Choose a smaller model.")
    if most := largest(lambda number: needs(number, task.width, task.height, 8), room, frames):
        advice = said("At {width}x{height}, {most} frames fit.", width=task.width, height=task.height, most=most)
    elif side := largest(lambda side: needs(task.frames, side, side, 8), room, sides):
        advice = said("{frames} frames fit at {side}x{side}.", frames=task.frames, side=side)
    raise MemoryError(
        said(
            "{frames} frames of {width}x{height} need {needed:.2f} GB of memory on {device} beside the weights, and "
            "{room:.2f} GB can be had. {advice}",
            frames=task.frames,
            width=task.width,
            height=task.height,
            needed=needed / 1e9,
            device=str(models.device),
            room=max(room, 0) / 1e9,
            advice=advice,
        )
    )


class _FusedAttention(TorchFunctionMode):
    """The meta device has no fused attention; where it runs, one keeps its result and nothing of the matrix."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        named = kwargs or {}
        if function is F.scaled_dot_product_attention:
            by_name = [named[name] for name in ("query", "key", "value")[len(args) :]]
            return _Attention.apply(*args[:3], *by_name)
        return function(*args, **named)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(context, query, key, value):
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        context.save_for_backward(query, key, value, result)
        return result

    @staticmethod
    def backward(context, gradient):
        return tuple(map(torch.empty_like, context.saved_tensors[:3]))


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
