"""What the checks of Tune-A-Video and FollowYourPose have in common.

Tolerances are absolute, as given with the recordings: about ten times the originals' own rounding.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipelines.models.networks.inflated_unet import EditingUNet
from pipelines.systems import modelscope, stable_diffusion
from scripts.parity.checks import Check, compare_levels, compare_lists, compare_within

FORWARD = 1e-4
INVERSION = 1e-4
FINAL_LATENTS = 2e-3
VIDEO = 1e-3


class Recorder(EditingUNet):
    """The app's network, which keeps what each of its parts put out, under the part's name and as the original does."""

    def record(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen: dict[str, Tensor] = {}
        self.names = {module: name for name, module in self.unet.named_modules()}
        hooks = [module.register_forward_hook(self.keep) for module in self.names if module is not self.unet]
        output = self(latents, timestep)
        for hook in hooks:
            hook.remove()
        return output, self.seen

    def keep(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        name = self.names[module]
        self.seen[name] = output
        if name.endswith(("attn2.to_out.0", "attn_temp.to_out.0")):  # attention runs outside of its module's forward
            self.seen[name.removesuffix(".to_out.0")] = output
        if name.endswith((".downsamplers.0", ".upsamplers.0")):
            self.seen[name.rsplit(".", 2)[0]] = output  # they end their block

    def layer(self, block: nn.Module, index: int, hidden: Tensor, time: Tensor, frames: int) -> Tensor:
        self.seen[self.names[block]] = output = super().layer(block, index, hidden, time, frames)
        return output

    def residual(self, module: nn.Module, hidden: Tensor, time: Tensor, frames: int) -> Tensor:
        self.seen[self.names[module]] = output = super().residual(module, hidden, time, frames)
        if module is self.unet.mid_block.resnets[0]:
            self.seen[self.names[self.unet.down_blocks[-1]]] = hidden  # with pose features, if there are any
        if module is self.unet.mid_block.resnets[-1]:
            self.seen["mid_block"] = output
        return output

    def transformer(self, module: nn.Module, hidden: Tensor, frames: int) -> Tensor:
        self.seen[self.names[module]] = output = super().transformer(module, hidden, frames)
        return output

    def sparse_causal_attention(self, attention: nn.Module, states: Tensor, frames: int) -> Tensor:
        self.seen[self.names[attention]] = output = super().sparse_causal_attention(attention, states, frames)
        return output

    def temporal_layers(self, block: nn.Module, pixels: Tensor) -> Tensor:
        output = super().temporal_layers(block, pixels)
        self.seen[self.names[block]] = output.unflatten(0, (self.branches, -1)).transpose(1, 2).flatten(0, 1)
        return output


def check_taps(name: str, golden: dict[str, Tensor], seen: dict[str, Tensor], frames: int) -> Iterator[Check]:
    """What each part put out for the first video, against all that was recorded of it ("tap.<part>")."""
    for key, reference in golden.items():
        if key.startswith("tap."):
            ours = seen[key.removeprefix("tap.")]
            if reference.ndim == 5 and ours.ndim == 4:
                ours = ours.unflatten(0, (-1, frames)).transpose(1, 2)  # (b f, c, h, w) -> (b, c, f, h, w)
            if reference.ndim == 3 and ours.shape[1] == frames * reference.shape[1]:
                ours = ours.unflatten(1, (frames, -1)).flatten(0, 1)  # (b, f h w, c) -> (b f, h w, c)
            yield compare_within(f"{name}.{key}", ours[: len(reference)], reference, FORWARD)


def check_texts(golden: dict[str, Tensor], facts: dict, tokenizer, encoder) -> Iterator[Check]:
    """The tokens of all recorded texts, and the states of the negative prompt and the prompt."""
    length = golden["token_ids"].shape[1]
    ids = tokenizer(facts["token_ids_of"], padding="max_length", max_length=length, truncation=True).input_ids
    yield compare_lists("pipeline.token_ids", sum(ids, []), golden["token_ids"].flatten().tolist())
    states = stable_diffusion.encode([facts["negative_prompt"] or "", facts["prompt"]], tokenizer, encoder)
    yield compare_within("pipeline.text_embeddings", states, golden["text_embeddings"], FORWARD)


def check_video(golden: dict[str, Tensor], latents: Tensor, vae) -> Iterator[Check]:
    """The video decoded from our own last latents and from the recorded ones, and the frames that a person sees."""
    reference = golden["video"]  # (1, 3, f, H, W) in [0, 1]
    for name, source in (("video", latents), ("video_of_reference_latents", golden["final_latents"])):
        pictures = vae.decode(source[0].transpose(0, 1) / vae.config.scaling_factor).sample  # (f, 3, H, W)
        ours = (pictures / 2 + 0.5).clamp(0, 1).transpose(0, 1)[None]
        yield compare_within(f"pipeline.{name}", ours, reference, VIDEO)
    frames = torch.stack([torch.from_numpy(frame) for frame in modelscope.decode(vae, golden["final_latents"])])
    levels = (reference[0].permute(1, 2, 3, 0) * 255).to(torch.uint8)  # (f, H, W, 3)
    yield from compare_levels("pipeline.frames_of_reference_latents", frames, levels)
