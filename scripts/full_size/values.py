"""Random values for weights of given names and shapes, and the kinds of files that they are published in.

They are scaled so that a network of normalised layers passes them on: nothing overflows, and no picture is of one
colour. What they show is nothing.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Shapes = Mapping[str, list[int]]
POOL = 2**24 + 1  # numbers; odd, so that no two rows of a matrix are the same ones
SHARD = 5 * 10**9  # bytes of a file, from which on a published model has several


def numbers(shapes: Shapes) -> int:
    """How many values there are."""
    return sum(math.prod(shape) for shape in shapes.values())


def values(shapes: Shapes, dtype: torch.dtype, inputs: int = 0, pool: int = 0) -> Iterator[tuple[str, Tensor]]:
    """A tensor for each of `shapes`, one after the other, always the same. A matrix has its outputs in dimension
    `inputs`: 0 as PyTorch has it, -1 as FLAX does. With a `pool` only so many numbers are drawn and used in turn: that
    is as fast as memory is, and good enough where speed is measured."""
    generator = torch.Generator().manual_seed(0)
    drawn, first = torch.randn(pool, generator=generator).to(dtype), 0
    for name, shape in shapes.items():
        if pool:
            count = math.prod(shape)
            enough = drawn.repeat(-(-(first + count) // pool)) if first + count > pool else drawn
            random = enough[first : first + count].view(shape).clone()
            first = (first + count) % pool
        else:
            random = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            random *= math.sqrt(shape[inputs] / math.prod(shape))
        elif name.endswith(("weight", "scale", "gamma")):
            random.mul_(0.1).add_(1)
        else:
            random *= 0.02
        yield name, random.to(dtype)


def write_safetensors(file: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    """Writes `file`, or where that would be too large its shards and their index."""
    shards: list[dict[str, list[int]]] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and (numbers(shards[-1]) + math.prod(shape)) * dtype.itemsize > SHARD:
            shards.append({})
        shards[-1][name] = shape
    if len(shards) == 1:
        return save_file(dict(values(shapes, dtype)), file)
    names = [f"{file.stem}-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        save_file(dict(values(shard, dtype)), file.with_name(name))
    found = {weight: name for name, shard in zip(names, shards, strict=True) for weight in shard}
    index = {"metadata": {"total_size": numbers(shapes) * dtype.itemsize}, "weight_map": found}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))


def write_quickly(file: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    """Writes `file` whole, its values those of a pool."""
    save_file(dict(values(shapes, dtype, pool=POOL)), file)


def write_pickle(file: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    torch.save(dict(values(shapes, dtype)), file)


def write_checkpoint(file: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    """As `write_pickle`, within a whole training checkpoint."""
    torch.save({"state_dict": dict(values(shapes, dtype))}, file)


def write_flax(file: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    """As flax's `to_bytes` does, array after array: nested maps, whose ends are those that `shapes` name with dots."""
    import msgpack

    packer = msgpack.Packer()
    tensors = values(shapes, dtype, inputs=-1)
    tree: dict = {}
    for name in shapes:
        *parts, leaf = name.split(".")
        branch = tree
        for part in parts:
            branch = branch.setdefault(part, {})
        branch[leaf] = name
    with file.open("wb") as out:

        def write(branch: dict) -> None:
            out.write(packer.pack_map_header(len(branch)))
            for key, below in branch.items():
                out.write(packer.pack(key))
                if isinstance(below, dict):
                    write(below)
                    continue
                name, tensor = next(tensors)
                assert name == below, "the names are in the order of their maps"
                content = bytes(tensor.contiguous().view(torch.uint8).numpy())
                array = (list(tensor.shape), str(dtype).removeprefix("torch."), content)
                out.write(packer.pack(msgpack.ExtType(1, msgpack.packb(array))))

        write(tree)
