"""Attention as the networks here use it: fused, over diffusers' `Attention` modules, which are never changed."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

Layers = Any  # a module whose layers are asked for by name: to torch each of them is a "Tensor | Module"


def attend(attention: Attention, states: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What `states` (b, n, c) find in `key` and `value` (b, heads, m, d), as (b, n, c)."""
    query = split_heads(attention, attention.to_q(states))  # (b, heads, n, d)
    found = F.scaled_dot_product_attention(query, key, value)  # (b, heads, n, d)
    return attention.to_out[0](found.transpose(1, 2).flatten(2))  # (b, n, c)


def self_attend(attention: Attention, states: Tensor) -> Tensor:
    """What `states` (b, n, c) find in themselves, as (b, n, c)."""
    return attend(attention, states, *keys_and_values(attention, states))


def keys_and_values(attention: Attention, states: Tensor) -> tuple[Tensor, Tensor]:
    """The key and the value of `states` (b, m, c), each (b, heads, m, d). For a text: once a prompt is enough."""
    return split_heads(attention, attention.to_k(states)), split_heads(attention, attention.to_v(states))


def split_heads(attention: Attention, states: Tensor) -> Tensor:
    return states.unflatten(-1, (attention.heads, -1)).transpose(1, 2)  # (b, n, heads d) -> (b, heads, n, d)


def in_slices(function: Callable[[Tensor], Tensor], states: Tensor, slices: int) -> Tensor:
    """`function(states)`, some rows at a time: the same values in less memory. `function` must treat rows alone."""
    if slices == 1:
        return function(states)
    return torch.cat([function(rows) for rows in states.chunk(slices)])
