"""python -m scripts.parity GOLDENS: the app's own loaders and code against recordings of the original programs.

GOLDENS holds any of tuneavideo/, followyourpose/, tempofunk/ and modelscope/. Prints a line a check,
`name  max_abs_error  scale_of_reference  tolerance  ok|FAIL`; exits with 1 if a check fails and with 2 if there was
nothing to check.
"""

import argparse
import json
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pipelines import modelscope
from pipelines.catalog import ModelCard
from pipelines.convert.modelscope import unet_key_map
from pipelines.diffusion import alphas_cumprod, betas, solver
from pipelines.loading import card_of_folder, component
from pipelines.networks.unet3d import TextToVideoUNet
from pipelines.settings import Settings

FORWARD = 2e-5  # of the reference's largest value: one pass through a network in fp32
LOOP = 1e-4  # of the reference's largest value: a whole sampling loop, which amplifies rounding by the guidance
FRAMES = 0.005  # the share of values that may be a level off where the original truncates to whole numbers


@dataclass(frozen=True)
class Check:
    """One comparison. `tolerance` is absolute; an error that is no number fails."""

    name: str
    error: float
    scale: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAIL"
        return f"{self.name:<62} {self.error:<10.3g} {self.scale:<10.4g} {self.tolerance:<10.3g} {verdict}"


def compare(name: str, ours: Tensor, reference: Tensor, relative: float) -> Check:
    """`ours` against `reference`, to `relative` of the reference's largest value. Different shapes fail."""
    scale = reference.abs().max().item()
    error = (ours.double() - reference.double()).abs().max().item() if ours.shape == reference.shape else float("inf")
    return Check(name, error, scale, relative * scale)


def compare_levels(name: str, ours: Tensor, reference: Tensor) -> Iterator[Check]:
    """uint8 pictures: nowhere more than a level off, and that seldom."""
    if ours.shape != reference.shape:
        yield Check(name, float("inf"), 255, 1)
        return
    difference = (ours.int() - reference.int()).abs()
    yield Check(name, difference.max().item(), reference.max().item(), 1)
    yield Check(f"{name}.share_of_values_off", (difference > 0).float().mean().item(), 1, FRAMES)


def read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


# ModelScope


def check_modelscope(folder: Path, settings: Settings) -> Iterator[Check]:
    """The network, its parts, the autoencoder, the schedule, and whole sampling loops, from the original files."""
    card = card_of_folder(folder)
    parts = {part: _load(card, part, settings) for part in ("unet", "vae", "scheduler")}
    yield from _network(folder, parts["unet"])
    yield from _autoencoder(folder, parts["vae"])
    yield from _sampling(folder, **parts)


def _load(card: ModelCard, part: str, settings: Settings):
    module = component(card, part, settings).load(lambda done, total: None)
    return module.float() if isinstance(module, torch.nn.Module) else module


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
        timesteps, expected = solver("ddim", scheduler, count).timesteps, facts["timesteps"][run]
        wrong = sum(a != b for a, b in zip(timesteps, expected, strict=False)) + abs(len(timesteps) - len(expected))
        yield Check(f"{run}.timesteps", wrong, len(expected), 0)
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


# The walk

SYSTEMS: dict[str, Callable[[Path, Settings], Iterator[Check]] | None] = {  # None: not in the app yet
    "modelscope": check_modelscope,
    "tempofunk": None,
    "followyourpose": None,
    "tuneavideo": None,
}


@torch.no_grad()
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("goldens", type=Path)
    goldens = parser.parse_args(arguments).goldens
    passed = []
    for system, check in SYSTEMS.items():
        if not (goldens / system).is_dir():
            print(f"# {system}: not in {goldens}")
        elif check is None:
            print(f"# {system}: NOT CHECKED, the app does not have this system yet")
        else:
            passed += _run(system, check, goldens / system)
    print(f"# {sum(passed)} of {len(passed)} checks passed")
    return 2 if not passed else 0 if all(passed) else 1


def _run(system: str, check: Callable[[Path, Settings], Iterator[Check]], folder: Path) -> list[bool]:
    """Whether each check of `system` passed. A check that breaks off has failed."""
    passed = []
    with tempfile.TemporaryDirectory() as cache:  # so that the conversion itself is part of what is checked
        try:
            for result in check(folder, Settings(cache=Path(cache), hub=False)):
                result = replace(result, name=f"{system}/{result.name}")
                print(result, flush=True)
                passed.append(result.passed)
        except Exception:
            traceback.print_exc()
            print(f"{system}/broke_off nan nan nan FAIL")
            passed.append(False)
    return passed


if __name__ == "__main__":
    sys.exit(main())
