"""ModelScope, from its original files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pipelines.models.convert.modelscope import unet_key_map
from pipelines.models.folders import card_of_folder
from pipelines.models.networks.unet3d import TextToVideoUNet
from pipelines.settings import Settings
from pipelines.systems import modelscope
from pipelines.systems.diffusion import alphas_cumprod, betas, solver
from scripts.parity.checks import FORWARD, LOOP, Check, compare, compare_levels, compare_lists, load, read


def check_modelscope(folder: Path, settings: Settings) -> Iterator[Check]:
    """The network, its parts, the autoencoder, the schedule, and whole sampling loops, from the original files."""
    source = card_of_folder(folder).source
    parts = {part: load(source, part, settings) for part in ("unet", "vae", "scheduler")}
    yield from _network(folder, parts["unet"])
    yield from _autoencoder(folder, parts["vae"])
    yield from _sampling(folder, **parts)


def _network(folder: Path, unet) -> Iterator[Check]:
    golden = read(folder / "unet_forward.safetensors")
    sample, timesteps, context = golden["sample"], golden["timesteps"], golden["context"]
    output, seen = Recorder(unet, context).record(sample, timesteps)
    yield compare("unet.output", output, golden["output"], FORWARD)
    single = TextToVideoUNet(unet, context[:1])(sample[:1, :, :1], timesteps[:1])
    yield compare("unet.output_single_frame", single, golden["output_single_frame"], FORWARD)

    configuration = json.loads((folder / "configuration.json").read_text())["model"]
    keys = torch.load(folder / configuration["model_args"]["ckpt_unet"], weights_only=True, map_location="meta").keys()
    names = unet_key_map(keys, configuration["model_cfg"]["unet_res_blocks"])
    for key, reference in read(folder / "unet_intermediates.safetensors").items():
        original = key.removeprefix("inter.")
        ours = seen[_last_module(original, names)]
        if reference.ndim == 5 and ours.ndim == 4:
            ours = ours.unflatten(0, (-1, sample.shape[2])).transpose(1, 2)  # (b f, c, h, w) -> (b, c, f, h, w)
        yield compare(f"unet.{original}", ours[: len(reference)], reference, FORWARD)


class Recorder(TextToVideoUNet):
    """The app's network, which keeps what each of its parts put out, under the part's name."""

    def record(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen: dict[str, Tensor] = {}
        self.names = {module: name for name, module in self.unet.named_modules()}
        hooks = [module.register_forward_hook(self.keep) for module in self.names]
        output = self(latents, timestep)
        for hook in hooks:
            hook.remove()
        return output, self.seen

    def keep(self, module, inputs, output) -> None:
        self.seen[self.names[module]] = output

    def temporal_convolution(self, module, hidden: Tensor, frames: int) -> Tensor:
        self.seen[self.names[module]] = output = super().temporal_convolution(module, hidden, frames)
        return output

    def spatial_transformer(self, module, hidden: Tensor, frames: int) -> Tensor:
        self.seen[self.names[module]] = output = super().spatial_transformer(module, hidden, frames)
        return output

    def temporal_transformer(self, module, hidden: Tensor, frames: int) -> Tensor:
        self.seen[self.names[module]] = output = super().temporal_transformer(module, hidden, frames)
        return output


def _last_module(original: str, names: dict[str, str]) -> str:
    """The module of ours that computes last in the module `original` of ModelScope's."""
    inside = [new for old, new in names.items() if old.startswith(f"{original}.")]
    last = next((name for name in reversed(inside) if ".temp_convs." in name), inside[-1])
    layer = re.match(r".+?\.(temp_convs|attentions|temp_attentions|downsamplers|upsamplers)\.\d+", last)
    return layer[0] if layer else last.split(".")[0]


def _autoencoder(folder: Path, vae) -> Iterator[Check]:
    golden = read(folder / "autoencoder.safetensors")
    posterior = vae.encode(golden["image"]).latent_dist
    ours = {"mean": posterior.mean, "logvar": posterior.logvar, "std": posterior.std}
    ours["scaled_latents"] = posterior.mean * vae.config.scaling_factor
    ours["decoded"] = vae.decode(golden["z"]).sample
    for name, tensor in ours.items():
        yield compare(f"autoencoder.{name}", tensor, golden[name], FORWARD)


def _sampling(folder: Path, unet, vae, scheduler) -> Iterator[Check]:
    golden = read(folder / "sampling.safetensors")
    facts = json.loads((folder / "sampling.json").read_text())
    yield compare("betas", betas(scheduler), golden["betas_f64"], 1e-12)
    yield compare("alphas_cumprod", alphas_cumprod(scheduler), golden["alphas_cumprod_f64"], 1e-12)
    contexts = torch.cat([golden["context_uncond"], golden["context"]])
    for run in sorted(facts["timesteps"]):
        count = facts[f"{run}.ddim_timesteps"]
        yield compare_lists(f"{run}.timesteps", solver("ddim", scheduler, count).timesteps, facts["timesteps"][run])
        steps = modelscope.sample(unet, contexts, golden["noise"], scheduler, "ddim", count, facts["guide_scale"])
        latents = torch.stack([step.latents for step in steps])
        if f"{run}.latents_per_step" in golden:
            yield compare(f"{run}.latents_per_step", latents, golden[f"{run}.latents_per_step"], LOOP)
        final = golden[f"{run}.final_latents"]
        yield compare(f"{run}.final_latents", latents[-1], final, LOOP)
        if f"{run}.decoded_frame0" in golden:
            picture = vae.decode(final[:, :, 0] / vae.config.scaling_factor).sample
            yield compare(f"{run}.decoded_frame0", picture, golden[f"{run}.decoded_frame0"], FORWARD)
        if f"{run}.frames" in golden:
            for name, source in (("frames", latents[-1]), ("frames_of_reference_latents", final)):
                frames = torch.stack([torch.from_numpy(frame) for frame in modelscope.decode(vae, source)])
                yield from compare_levels(f"{run}.{name}", frames, golden[f"{run}.frames"])
