"""FLAX's checkpoints -> PyTorch's names and shapes, for networks that PyTorch knows too.

A file holds nested maps in msgpack; at their ends are arrays, as extension 1: an array of shape, dtype and raw bytes.
It is read in one pass: every array is turned the way PyTorch has it while it is read, so that the weights exist once.
"""

import math
import re
from typing import Any, BinaryIO

import msgpack
import torch
from torch import Tensor

ARRAY = 1  # the code of flax's extension for an array
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MAX_ENTRIES = 1_000  # in one map; a network has a few dozen
MAX_TENSORS = 10_000
TURNED = {
    1: (0,),
    2: (1, 0),
    3: (2, 1, 0),
    4: (3, 2, 0, 1),
}  # norm or bias, linear map, convolution in 1 and 2 dimensions
NUMBERED = r"(blocks|resnets|attentions|samplers|net|to_out)_(\d+)$"  # the parts that are lists in PyTorch


class NotFlax(Exception):
    """The file is whole, but holds something else than a network's weights."""


def read_weights(file: BinaryIO, size: int) -> dict[str, Tensor]:
    """The weights in a `file` of `size` bytes, under PyTorch's names and in the dtype of the file.

    Takes little more memory than the weights themselves, whatever the file says. Raises NotFlax for a file that holds
    something else, and EOFError for one that ends too early or is damaged.
    """
    count = 0

    def array(code: int, content: bytes) -> Tensor:
        nonlocal count
        count += 1
        if code != ARRAY or count > MAX_TENSORS:
            raise NotFlax(f"it holds something of kind {code}" if code != ARRAY else f"it has more than {count} arrays")
        return _tensor(content)

    limits = {"max_buffer_size": size + 1, "max_array_len": 0, "max_map_len": MAX_ENTRIES}
    try:
        unpacker = msgpack.Unpacker(file, ext_hook=array, **limits)
        tree = unpacker.unpack()
        if unpacker.tell() != size:
            raise NotFlax("more follows behind its weights")
    except (msgpack.OutOfData, msgpack.FormatError) as error:
        raise EOFError("it ends too early, or is no msgpack") from error
    except (msgpack.StackError, RecursionError) as error:
        raise NotFlax("its maps are too deep") from error
    except ValueError as error:  # what the limits forbid; msgpack names the limit
        raise NotFlax(str(error)) from error
    weights: dict[str, Tensor] = {}
    _flatten(tree, (), weights)
    return weights


def _tensor(content: bytes) -> Tensor:
    """The weight in an extension of flax's."""
    limits = {"max_map_len": 0, "max_ext_len": 0, "max_array_len": 8}
    match msgpack.unpackb(content, **limits):
        case [[*shape], str(dtype), bytes(values)] if dtype in DTYPES and len(shape) in TURNED:
            if not all(isinstance(length, int) and length > 0 for length in shape):
                raise NotFlax(f"an array has the shape {shape}")
            if math.prod(shape) * DTYPES[dtype].itemsize != len(values):
                raise NotFlax(f"an array of shape {shape} has {len(values)} bytes")
            flat = torch.frombuffer(bytearray(values), dtype=DTYPES[dtype])
            return turned(flat.view(shape))
    raise NotFlax("it holds arrays that are no weights")


def turned(array: Tensor) -> Tensor:
    """A weight of FLAX's with its dimensions in PyTorch's order: channels out, channels in, height, width."""
    return array.permute(TURNED[array.ndim]).contiguous()


def _flatten(tree: Any, path: tuple[str, ...], weights: dict[str, Tensor]) -> None:
    if isinstance(tree, Tensor) and path:
        weights[torch_name(path)] = tree
    elif isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        for key, branch in tree.items():
            _flatten(branch, (*path, key), weights)
    else:
        raise NotFlax(f"it holds {type(tree).__name__} and not weights")


def torch_name(path: tuple[str, ...]) -> str:
    """PyTorch's name of the tensor at `path`: ("up_blocks_0", "conv1", "kernel") -> "up_blocks.0.conv1.weight"."""
    *parts, leaf = path
    leaf = "weight" if leaf in ("kernel", "scale") else leaf
    return ".".join([*(re.sub(NUMBERED, r"\1.\2", part) for part in parts), leaf])
