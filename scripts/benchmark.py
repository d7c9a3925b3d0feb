"""How fast and how big: python -m scripts.benchmark modelscope --size miniature --weights real --device cpu

Makes two videos with the app's own code: the first from nothing, imports and loading included, the second with all in
memory. The arithmetic is counted by running the networks without data ("meta"); MFU is what share of the device's best
matrix product, measured here, a denoising step reaches.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

STARTED = time.perf_counter()

PROMPT = "a robot in blue waving on the beach"
FLOOR = 750e12  # FLOP/s that an H200 reaches with dense products in half precision


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("system", nargs="?", default="modelscope", choices=["modelscope"])
    parser.add_argument("--size", default="miniature", choices=["miniature", "full"])
    parser.add_argument("--weights", default="real", choices=["random", "real"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--diffusers", action="store_true", help="diffusers' own pipeline too, as with full on CUDA")
    for name in ("frames", "width", "height", "steps"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--scheduler")
    options = parser.parse_args()
    try:
        rows = benchmark(options)
    except (ValueError, MemoryError) as error:
        parser.error(str(error))
    widest = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{widest}}  {value}")


def benchmark(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Runs everything and returns the table: what, and how much."""
    from pipelines import loading
    from pipelines.catalog import CATALOG
    from pipelines.manager import ModelManager
    from pipelines.settings import Settings
    from pipelines.tasks import TextToVideo

    card = CATALOG["miniature-modelscope" if options.size == "miniature" else "modelscope-1.7b"]
    settings = {"steps": 50, "scheduler": "ddim"} if options.size == "full" else {}
    for name in ("frames", "width", "height", "steps", "scheduler"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    task = TextToVideo.for_model(card, PROMPT, 7, **settings)
    component = _random_component if options.weights == "random" else loading.component
    models = ModelManager({card.name: card}, Settings(device=options.device), component=component)

    _, step_with_warm_up = make(task, models)
    first = time.perf_counter() - STARTED
    second, step = make(task, models)
    memory = models.peak_bytes()
    ours, plain, decoding = count_flops(task, models)
    peak = best_product(models.device, models.dtype)
    floor = (task.steps * plain + task.frames * decoding) / FLOOR
    rows = [
        ("model", f"{card.name}, {options.weights} weights"),
        ("task", f"{task.frames} frames of {task.width}x{task.height}, {task.steps} steps, {task.scheduler}"),
        ("device", f"{device_name(models.device)}, {models.dtype}"),
        ("first video, with imports and loading", f"{first:.2f} s"),
        ("second video", f"{second:.2f} s"),
        ("a denoising step", f"{step:.4f} s (median; {step_with_warm_up:.4f} s in the first video)"),
        ("arithmetic of a step", f"{ours / 1e12:.4f} TFLOP ({ours / plain:.3f} of the plain network)"),
        ("arithmetic of decoding a frame", f"{decoding / 1e12:.4f} TFLOP"),
        ("best matrix product here", f"{peak / 1e12:.3f} TFLOP/s"),
        ("MFU of a step", f"{ours / step / peak:.1%}"),
        ("peak memory", f"{memory / 1e9:.2f} GB"),
    ]
    if options.size == "full":
        rows.append(
            (f"floor at {FLOOR / 1e12:.0f} TFLOP/s", f"{floor:.2f} s (second video: {second / floor:.1f} times)")
        )
    if options.diffusers or (options.size == "full" and models.device.type == "cuda"):
        theirs = step_of_diffusers(task, models)
        rows.append(("a denoising step of diffusers' pipeline", f"{theirs:.4f} s ({theirs / step:.2f} times ours)"))
    return rows


def make(task, models) -> tuple[float, float]:
    """Seconds for a video without its file, and for one denoising step (the median)."""
    from pipelines import modelscope

    began, moments = time.perf_counter(), []
    for event in models.attempt(lambda: modelscope.generate(task, models)):
        if getattr(event, "stage", None) == modelscope.DENOISING:
            moments.append(now(models.device))
    return now(models.device) - began, _median_gap(moments)


def step_of_diffusers(task, models) -> float:
    """Seconds of one denoising step (the median) of diffusers' own pipeline, with the same modules."""
    from diffusers import DDIMScheduler, TextToVideoSDPipeline

    moments: list[float] = []
    with ExitStack() as leases:
        names = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
        parts = {name: leases.enter_context(models.lease(f"{task.model}/{name}")) for name in names}
        pipeline = TextToVideoSDPipeline(**{**parts, "scheduler": DDIMScheduler.from_config(parts["scheduler"])})
        pipeline.set_progress_bar_config(disable=True)
        pipeline(
            task.prompt,
            num_frames=task.frames,
            width=task.width,
            height=task.height,
            num_inference_steps=task.steps,
            guidance_scale=task.guidance,
            output_type="latent",
            callback=lambda step, timestep, latents: moments.append(now(models.device)),
        )
    return _median_gap(moments)


def count_flops(task, models) -> tuple[int, int, int]:
    """Floating-point operations of a guided step as it is made here, of one by the plain network, and of decoding a
    frame; a multiplication and an addition are two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipelines.networks.unet3d import TextToVideoUNet

    def count(function: Callable) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            function()
        return counter.get_total_flops()

    with torch.device("meta"):
        with models.lease(f"{task.model}/unet") as module:
            unet = type(module).from_config(module.config)
        with models.lease(f"{task.model}/vae") as module:
            vae = type(module).from_config(module.config)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        latents = torch.empty(1, unet.config.in_channels, task.frames, task.height // factor, task.width // factor)
        texts = torch.empty(2, 77, unet.config.cross_attention_dim)
        network = TextToVideoUNet(unet, texts)  # takes the texts in once a prompt, which is not counted
        return (
            count(lambda: network(latents, 1)),
            count(lambda: unet(latents.expand(2, -1, -1, -1, -1), 1, texts)),
            count(lambda: vae.decode(latents[:, :, 0])),
        )


def best_product(device, dtype) -> float:
    """FLOP/s of the fastest of ten large matrix products."""
    import torch

    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    moments = [now(device)]
    for _ in range(11):
        torch.mm(a, b)
        moments.append(now(device))
    return 2 * side**3 / min(_gaps(moments)[1:])


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


def _gaps(moments: list[float]) -> list[float]:
    return [after - before for before, after in zip(moments, moments[1:], strict=False)]


def _median_gap(moments: list[float]) -> float:
    return statistics.median(_gaps(moments)) if len(moments) > 1 else float("nan")


def _random_component(card, part, settings, on_progress):
    """`part` of `card`, its weights random; tokenizer and scheduler are the miniature's."""
    from diffusers import AutoencoderKL, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from pipelines import loading
    from pipelines.catalog import CATALOG
    from scripts.miniature import networks

    miniature = CATALOG["miniature-modelscope"]
    if part in ("tokenizer", "scheduler"):
        return loading.component(miniature, part, settings)
    if card is miniature:
        builders = {
            "unet": networks.video_unet,
            "vae": networks.autoencoder,
            "text_encoder": lambda: networks.text_encoder(49408),
        }
    else:  # as published: these are the classes' own defaults, but for Stable Diffusion's VAE and OpenCLIP's text tower
        builders = {
            "unet": UNet3DConditionModel,
            "vae": lambda: AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
            ),
            "text_encoder": lambda: CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=1024,
                    intermediate_size=4096,
                    num_hidden_layers=23,
                    num_attention_heads=16,
                    hidden_act="gelu",
                )
            ),
        }
    return loading.Component(f"random {part}", 0, lambda on_progress: builders[part](), lambda: on_meta(builders[part]))


def on_meta(build):
    import torch

    with torch.device("meta"):
        return build()


if __name__ == "__main__":
    main()
