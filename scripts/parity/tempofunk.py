"""TempoFunk against its recordings: blocks, the whole network and its parts, and all that the original script does."""

import json
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from pipelines.cards import Source
from pipelines.models.convert.flax import torch_name, turned
from pipelines.models.folders import card_of_folder
from pipelines.models.loading import component
from pipelines.models.networks.pseudo3d_unet import (
    ConvPseudo3D,
    Pseudo3DUNet,
    Resampler,
    Resnet,
    Transformer,
    convolve,
    enlarge,
    normalise,
)
from pipelines.settings import Settings
from pipelines.systems import tempofunk
from pipelines.systems.stable_diffusion import encode
from scripts.parity.checks import FORWARD, LOOP, Check, compare, compare_levels, read

GROUPS = 32  # of FLAX's norms
SOLVERS = {"ddim": "ddim", "dpm": "dpm++"}  # the original's name -> ours


def check_tempofunk(folder: Path, settings: Settings) -> Iterator[Check]:
    card = card_of_folder(folder / "checkpoint")
    card = replace(card, image_model=Source(str((folder / "sd_image").resolve())))
    names = ("unet", "image_unet", "vae", "text_encoder", "tokenizer", "scheduler")
    parts = {name: component(card, name, settings).load(lambda done, total: None) for name in names}
    parts = {name: part.float() if isinstance(part, nn.Module) else part for name, part in parts.items()}
    yield from blocks(read(folder / "blocks.safetensors"))
    yield from _network(folder, parts["unet"])
    yield from _generate(folder, **parts)


# Blocks


def blocks(golden: dict[str, Tensor]) -> Iterator[Check]:
    for block in sorted({key.split(".")[0] for key in golden}):
        parameters = {
            torch_name(tuple(key.split(".")[2:])): turned(value).float()
            for key, value in golden.items()
            if key.startswith(f"{block}.params.")
        }
        runs = [key.split(".output")[1] for key in golden if key.startswith(f"{block}.output")]
        for run in runs:  # "", "_image" and "_small"
            hidden = golden[f"{block}.input" + run.replace("_image", "")]
            hidden = hidden[:, 0] if run == "_image" else hidden
            ours = _run_block(block, parameters, hidden, golden)
            yield compare(f"blocks.{block}{run}", ours, golden[f"{block}.output{run}"], FORWARD)


def _run_block(block: str, parameters: dict[str, Tensor], hidden: Tensor, golden: dict[str, Tensor]) -> Tensor:
    def filled(module: nn.Module) -> nn.Module:
        module.load_state_dict(parameters, strict=True)
        return module

    width = hidden.shape[-1]
    if block == "conv":
        outputs, _, size, _ = parameters["spatial_conv.weight"].shape
        return convolve(filled(ConvPseudo3D(width, outputs, size)), hidden)
    if block == "downsample":
        return convolve(filled(Resampler(width, stride=2)).conv, hidden)
    if block == "upsample":
        return convolve(filled(Resampler(width, stride=1)).conv, enlarge(hidden))
    if block == "resnet":
        outputs, time = parameters["time_emb_proj.weight"].shape
        module = filled(Resnet(width, outputs, time, GROUPS))
        return Pseudo3DUNet(module, golden["resnet.temb"]).residual(module, hidden, golden["resnet.temb"])
    if block == "transformer":
        context = golden["transformer.context"]
        heads = int(golden["transformer.num_heads"])
        module = filled(Transformer(width, heads, context.shape[-1], GROUPS))
        return Pseudo3DUNet(module, context).transformer(module, hidden)
    raise ValueError(f"{block!r} is no block known here.")


# The network


def _network(folder: Path, unet: nn.Module) -> Iterator[Check]:
    golden = read(folder / "unet_forward.safetensors")
    sample, timesteps, context = golden["sample"], golden["timesteps"], golden["encoder_hidden_states"]
    network = Recorder(unet, context)
    yield compare("unet.output", network(sample, timesteps), golden["output"], FORWARD)
    single = Pseudo3DUNet(unet, context[:1])(sample[:1, :, :1], timesteps[:1])
    yield compare("unet.output_single_frame", single, golden["output_single_frame"], FORWARD)

    seen = network.parts(timesteps)
    for key, reference in read(folder / "unet_intermediates.safetensors").items():
        name = key.removeprefix("inter.").removesuffix(".hidden")
        # What goes into a block is, behind the middle, followed by the channels of a skip connection.
        ours = seen[name][:1, ..., : reference.shape[-1]]
        yield compare(f"unet.{name}", ours, reference, FORWARD)


class Recorder(Pseudo3DUNet):
    """The app's network, which keeps what goes into each of its blocks, and what comes out of the last."""

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        self.starts: list[Tensor] = []
        output = super().__call__(latents, timestep)
        self.output = output.movedim(1, -1)
        return output

    def layer(self, block: nn.Module, index: int, hidden: Tensor, time: Tensor) -> Tensor:
        if index == 0:
            self.starts.append(hidden)
        self.last = super().layer(block, index, hidden, time)
        return self.last

    def parts(self, timesteps: Tensor) -> dict[str, Tensor]:
        """What each part put out, under FLAX's names."""
        unet = self.unet
        blocks = [f"down_blocks_{index}" for index in range(len(unet.down_blocks))]
        blocks += ["mid_block", *(f"up_blocks_{index}" for index in range(len(unet.up_blocks)))]
        return {
            "time_proj": unet.time_proj(timesteps),
            "time_embedding": self.time_embedding(timesteps),
            **dict(zip(["conv_in", *blocks], [*self.starts, self.last], strict=True)),
            "conv_norm_out": normalise(unet.conv_norm_out, self.last),
            "conv_out": self.output,
        }


# The script


def _generate(folder: Path, unet, image_unet, vae, text_encoder, tokenizer, scheduler) -> Iterator[Check]:
    golden = read(folder / "generate.safetensors")
    facts = json.loads((folder / "generate.json").read_text())
    for prefix, text in (("", facts["prompt"]), ("neg_", facts["neg_prompt"])):
        tokens = tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        yield compare(f"{prefix}input_ids", tokens, golden[f"{prefix}input_ids"], 0)
        states = encode([text], tokenizer, text_encoder)
        yield compare(f"{prefix}prompt_embeds", states, golden[f"{prefix}prompt_embeds"], FORWARD)

    yield from prepared(golden, facts)
    hint = tempofunk.hint_latents(vae, golden["hint_pixels"])
    yield compare("hint_latents", hint, golden["hint_latents"], FORWARD)
    mask = golden["mask_latent"]
    for name in SOLVERS:
        latents = _sample(unet, golden["noise"], torch.cat([mask, hint], dim=1), name, golden, facts, scheduler)
        yield from _video(name, latents, vae, golden)
        drawn = yield from drawing(name, image_unet, scheduler, golden, facts)
        condition = torch.cat([torch.zeros_like(mask), drawn], dim=1)
        latents = _sample(unet, golden["noise"], condition, name, golden, facts, scheduler)
        yield from _video(f"noimage.{name}", latents, vae, golden)


def prepared(golden: dict[str, Tensor], facts: dict) -> Iterator[Check]:
    """The given image and its mask, as pixels, and the mask as latents."""
    pictures = (Image.fromarray(golden[name].numpy()) for name in ("hint_image", "mask_image"))
    pixels, mask = tempofunk.prepare_hint(*pictures, facts["width"], facts["height"])
    yield compare("hint_pixels", pixels, golden["hint_pixels"], 1e-6)
    yield compare("mask_pixels", mask, golden["mask_pixels"], 0)
    size = golden["mask_latent"].shape[-2:]
    yield compare("mask_latent", tempofunk.latent_mask(mask, size), golden["mask_latent"], 0)


def drawing(
    name: str, image_unet: nn.Module, scheduler: dict, golden: dict[str, Tensor], facts: dict
) -> Generator[Check, None, Tensor]:
    """The timesteps, and the hint that Stable Diffusion draws where no image is given; returns this hint."""
    timesteps = torch.tensor(tempofunk.solver(SOLVERS[name], scheduler, facts["steps"]).timesteps)
    yield compare(f"{name}.timesteps", timesteps, torch.tensor(facts["timesteps"][name]), 0)
    drawn = _sample(image_unet, golden["image_noise"], None, name, golden, facts, scheduler)
    run = f"noimage.{name}"
    yield compare(f"{run}.hint_latents", drawn[-1], golden[f"{run}.hint_latents"], LOOP)
    if f"{run}.image_latents_per_step" in golden:
        yield compare(f"{run}.image_latents_per_step", drawn, golden[f"{run}.image_latents_per_step"], LOOP)
    return drawn[-1]


def _sample(
    network: nn.Module,
    noise: Tensor,
    condition: Tensor | None,
    name: str,
    golden: dict[str, Tensor],
    facts: dict,
    scheduler: dict,
) -> Tensor:
    """The latents after every step."""
    states = torch.cat([golden["neg_prompt_embeds"], golden["prompt_embeds"]])
    guidance = facts["cfg_image" if condition is None else "cfg"]
    steps = tempofunk.sample(network, states, noise, condition, scheduler, SOLVERS[name], facts["steps"], guidance)
    return torch.stack([step.latents for step in steps])


def _video(run: str, latents: Tensor, vae, golden: dict[str, Tensor]) -> Iterator[Check]:
    final = golden[f"{run}.final_latents"]
    if f"{run}.latents_per_step" in golden:
        yield compare(f"{run}.latents_per_step", latents, golden[f"{run}.latents_per_step"], LOOP)
    yield compare(f"{run}.final_latents", latents[-1], final, LOOP)
    for name, source in (("frames", latents[-1]), ("frames_of_reference_latents", final)):
        frames = torch.stack([torch.from_numpy(frame) for frame in tempofunk.decode(vae, source)])
        yield from compare_levels(f"{run}.{name}", frames, golden[f"{run}.frames"])
    if f"{run}.frame0_float" in golden:
        picture = vae.decode(final[:, :, 0] / vae.config.scaling_factor).sample
        yield compare(f"{run}.frame0_float", picture, golden[f"{run}.frame0_float"], FORWARD)
