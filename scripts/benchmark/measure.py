"""What all benchmarks measure with: the device's clock, its best product, arithmetic, and weights without a file."""

import statistics
import time
from collections.abc import Callable

STARTED = time.perf_counter()

STABLE_DIFFUSION = {"cross_attention_dim": 768, "attention_head_dim": 8}  # 1.x's UNet, beside its class's defaults
FLOOR = 750e12  # FLOP/s that an H200 reaches with dense products in half precision


def show(rows: list[tuple[str, str]]) -> None:
    """Prints a table of two columns."""
    widest = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{widest}}  {value}")


def flops(function: Callable) -> int:
    """Floating-point operations of `function()`; a multiplication and an addition are two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def best_product(device, dtype) -> float:
    """FLOP/s of the fastest of ten large matrix products."""
    import torch

    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    moments = [now(device)]
    for _ in range(11):
        torch.mm(a, b)
        moments.append(now(device))
    return 2 * side**3 / min(gaps(moments)[1:])


def now(device) -> float:
    """The time at which the device has done all that it was asked to."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def device_name(device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} threads"


def gaps(moments: list[float]) -> list[float]:
    return [after - before for before, after in zip(moments, moments[1:], strict=False)]


def median_gap(moments: list[float]) -> float:
    return statistics.median(gaps(moments)) if len(moments) > 1 else float("nan")


def random_component(card, part, settings, on_progress):
    """`part` of `card`, its weights random; tokenizer and scheduler are the miniature's."""
    from diffusers import AutoencoderKL, UNet2DConditionModel, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from pipelines.catalog import CATALOG
    from pipelines.models import loading
    from pipelines.models.networks.inflated_unet import InflatedUNet
    from pipelines.models.networks.pseudo3d_unet import build_pseudo3d_unet
    from scripts.miniature import networks

    miniature, pose = CATALOG["miniature-modelscope"], card.system == "followyourpose"
    if part in ("tokenizer", "scheduler"):
        return loading.component(miniature, part, settings)
    if card.source.is_folder:
        builders = {
            "unet": networks.video_unet,
            "inflated_unet": lambda: InflatedUNet(networks.image_unet().config | (networks.POSE if pose else {}), pose),
            "vae": networks.autoencoder,
            "text_encoder": lambda: networks.text_encoder(49408),
        }
    else:  # as published: what is not said are the classes' own defaults
        text_sizes = {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
        }
        builders = {"unet": UNet3DConditionModel}  # ModelScope's, beside OpenCLIP's text tower
        if card.system != "modelscope":  # beside Stable Diffusion 1.x's
            text_sizes = {
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
            }
            builders = {
                "unet": lambda: build_pseudo3d_unet({}),
                "image_unet": lambda: UNet2DConditionModel(**STABLE_DIFFUSION),
                "inflated_unet": lambda: InflatedUNet(STABLE_DIFFUSION, pose),
            }
        builders["text_encoder"] = lambda: CLIPTextModel(CLIPTextConfig(hidden_act="gelu", **text_sizes))
        builders["vae"] = lambda: AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    return loading.Component(f"random {part}", 0, lambda on_progress: builders[part](), lambda: on_meta(builders[part]))


def on_meta(build):
    import torch

    with torch.device("meta"):
        return build()
