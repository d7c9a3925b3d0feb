"""Low-rank changes to a network's weights (Hu et al., 2021, "LoRA"), as PEFT, diffusers and kohya store them.

A network that is changed is a copy which shares all other weights: the one that jobs lease stays as it is.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipelines.cards import Lora
from pipelines.messages import said
from pipelines.models import weights
from pipelines.models.files import OnProgress, content_hash, read_json
from pipelines.models.sources import locate_file, require
from pipelines.settings import Settings

Network = TypeVar("Network", bound=nn.Module)

PEFT = "adapter_config.json"  # beside PEFT's weights: what they are multiplied by
_PREFIXES = ("base_model.model.", "unet.")  # PEFT's and diffusers', before the network's own names
_KOHYA = "lora_unet_"  # kohya's, before names with _ for every .
_FACTORS = {  # the ends of a tensor's name -> which factor it is
    **{".lora_A.weight": "down", ".lora_B.weight": "up"},
    **{".lora_down.weight": "down", ".lora_up.weight": "up"},
    **{".lora.down.weight": "down", ".lora.up.weight": "up", ".alpha": "alpha"},
}
_UNKNOWN = {"use_dora": False, "use_rslora": False, "alpha_pattern": {}, "bias": "none", "modules_to_save": None}


@dataclass(frozen=True)
class LowRank:
    """What is added to the weight of one layer: `scale` times `up` after `down`."""

    down: Tensor  # (rank, channels in, …), of a convolution with its kernel
    up: Tensor  # (channels out, rank, …)
    scale: float

    def change(self) -> Tensor:
        """In fp32, (channels out, channels in times the kernel's size)."""
        return self.scale * (self.up.float().flatten(1) @ self.down.float().flatten(1))


def load(
    lora: Lora, network: nn.Module, settings: Settings, on_progress: OnProgress | None = None
) -> dict[str, "LowRank"]:
    """`read` of the files of `lora`, which are downloaded first where they are on the Hub only."""
    file = require(locate_file, lora.source, lora.file, settings, on_progress) / lora.file
    if file.stem == "adapter_model":
        config = (Path(lora.file).parent / PEFT).as_posix()
        require(locate_file, lora.source, config, settings, on_progress)
    content_hash(file, settings)
    return read(file, network)


def read(file: Path, network: nn.Module) -> dict[str, LowRank]:
    """What `file` changes, by the names of the layers of `network`, which may be without weights.

    Raises ValueError where the file is damaged, changes what `network` does not have, or is of a kind not known here.
    """
    factors: dict[str, dict[str, Tensor]] = {}
    own: dict[str, Tensor] = {}  # the weights that are changed
    flat = {name.replace(".", "_"): name for name, _ in network.named_modules()}
    for name, tensor in weights.read(file):
        ending = next((one for one in _FACTORS if name.endswith(one)), None)
        layer = name.removesuffix(ending or "")
        if layer.startswith(_KOHYA):
            layer = flat.get(layer.removeprefix(_KOHYA), layer)
        else:
            layer = re.sub("^" + "|^".join(map(re.escape, _PREFIXES)), "", layer)
        weight = _weight(network, layer)
        if ending is None or weight is None:
            raise ValueError(
                said("{file} was made for another network: this one has no {name}.", file=file, name=name[:120])
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(
                said(
                    "{file} is damaged: {name} holds values that are no numbers. Download this model once more.",
                    file=file,
                    name=name,
                )
            )
        factors.setdefault(layer, {})[_FACTORS[ending]] = tensor
        own[layer] = weight
    alpha = _peft_alpha(file.parent / PEFT)
    return {layer: _low_rank(found, alpha, own[layer], layer, file) for layer, found in factors.items()}


def _weight(network: nn.Module, name: str) -> nn.Parameter | None:
    try:
        return network.get_parameter(f"{name}.weight")
    except AttributeError:
        return None


def _peft_alpha(file: Path) -> float | None:
    """PEFT's own, of all layers; None where each says its own, or the factors are to be taken as they are."""
    if not file.is_file():
        return None
    config = read_json(file)
    for name, usual in _UNKNOWN.items():
        if config.get(name, usual) != usual and config.get(name):
            raise ValueError(
                said("{file} asks for {name}, which this app can't do. Use another one.", file=file, name=name)
            )
    return float(config["lora_alpha"])


def _low_rank(found: dict[str, Tensor], alpha: float | None, weight: Tensor, name: str, file: Path) -> LowRank:
    try:
        down, up = found["down"], found["up"]
    except KeyError as error:
        raise ValueError(
            said(
                "{file} is damaged: it has only a part of {name}. Download this model once more.", file=file, name=name
            )
        ) from error
    rank = down.shape[0]
    fits = up.shape[1] == rank and up[:, 0].numel() == weight.shape[0]
    if not fits or down[0].numel() != weight[0].numel():
        raise ValueError(
            said("{file} was made for another network: {name} has another size in this one.", file=file, name=name)
        )
    alpha = float(found["alpha"]) if "alpha" in found else rank if alpha is None else alpha
    return LowRank(down, up, alpha / rank)


def merged_bytes(network: nn.Module, changes: Mapping[str, LowRank]) -> int:
    """What `merged` takes beside `network`, which may be without weights."""
    return sum(network.get_parameter(f"{name}.weight").nbytes for name in changes)


def merged(network: Network, changes: Mapping[str, LowRank], strength: float = 1.0) -> Network:
    """`network` with `changes`, times `strength`, added to its weights: a copy that shares every other tensor."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    changed = copy.deepcopy(network, shared)
    for name, low_rank in changes.items():
        module = changed.get_submodule(name)
        own = changed.get_parameter(f"{name}.weight")
        on_device = LowRank(low_rank.down.to(own.device), low_rank.up.to(own.device), low_rank.scale * strength)
        weight = own.float() + on_device.change().view_as(own)
        module.weight = nn.Parameter(weight.to(own.dtype), requires_grad=False)
    return changed
