"""TempoFunk's pseudo-3D UNet: Make-A-Video (Singer et al., 2022, section 3.2) on Stable Diffusion 1.5, as FLAX runs it.

Every convolution over an image is followed by one over time, and every transformer, after it has looked at the image
and at the text, looks at each pixel in all frames. Nothing is made smaller or larger in time. Stable Diffusion's own
UNet is the same network without time: one forward here runs both, clips as well as images.

FLAX differs from PyTorch in two places, and so does this forward: GELU is the tanh approximation, and every group norm
has an epsilon of 1e-5, those of the transformers too. What is saved (tests/test_pseudo3d_unet.py holds each saving
against the plain formula):
- The keys and values of the text depend on the prompt alone: computed once a prompt, not in every step and frame.
- Both branches of classifier-free guidance are one until they first meet their texts, behind the first self-attention.
- Every attention is fused, the temporal ones too, and all frames of a video ask their text in one attention.
- Channels come last in memory, as in FLAX: images, clips, pixels over time and tokens are views of the same values.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn

from pipelines.models.networks.attention import Layers, attend, in_slices, keys_and_values, self_attend
from pipelines.models.networks.caching import DeepCache

EPSILON = 1e-5  # of every group norm
DOWN = ("CrossAttnDownBlockPseudo3D", "CrossAttnDownBlockPseudo3D", "CrossAttnDownBlockPseudo3D", "DownBlockPseudo3D")
UP = ("UpBlockPseudo3D", "CrossAttnUpBlockPseudo3D", "CrossAttnUpBlockPseudo3D", "CrossAttnUpBlockPseudo3D")
OF_FLAX = {"param_dtype", "use_memory_efficient_attention"}  # in published configs; neither changes what is computed


# What holds the weights


def build_pseudo3d_unet(config: Mapping[str, Any]) -> "UNetPseudo3DConditionModel":
    """A UNetPseudo3DConditionModel for a published config, whose blocks may have the names of 2D ones."""
    config = {key: value for key, value in config.items() if key not in OF_FLAX}
    for key in {"down_block_types", "up_block_types"} & config.keys():
        config[key] = [re.sub("2D$", "Pseudo3D", kind) for kind in config[key]]
    return UNetPseudo3DConditionModel.from_config(config)


class UNetPseudo3DConditionModel(ModelMixin, ConfigMixin):
    """The weights, under the names that they have in PyTorch. `Pseudo3DUNet` computes with them.

    `attention_head_dim` is the number of heads, one for all blocks or one for each, as in Stable Diffusion 1.x. As it
    is made, the network does nothing over time.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | Sequence[int] = 64,
        in_channels: int = 9,  # noisy latents, mask, hint
        out_channels: int = 4,
        down_block_types: Sequence[str] = DOWN,
        up_block_types: Sequence[str] = UP,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_head_dim: int | Sequence[int] = 8,
        cross_attention_dim: int = 768,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        norm_num_groups: int = 32,
    ):
        """Raises ValueError for types of blocks that are none of DOWN or UP, or of another number than the levels."""
        super().__init__()
        widths, levels = tuple(block_out_channels), len(block_out_channels)
        heads = attention_head_dim if isinstance(attention_head_dim, Sequence) else (attention_head_dim,) * levels
        for types, known in ((down_block_types, DOWN), (up_block_types, UP)):
            if len(types) != levels or not set(types) <= set(known):
                raise ValueError(f"{levels} levels need as many of {' or '.join(sorted(set(known)))}, not {types}.")
        sizes = {"time": 4 * widths[0], "text": cross_attention_dim, "groups": norm_num_groups}

        self.time_proj = Timesteps(widths[0], flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(widths[0], sizes["time"])
        self.conv_in = ConvPseudo3D(in_channels, widths[0], 3)

        self.down_blocks, skips = nn.ModuleList(), [widths[0]]
        for level, width in enumerate(widths):
            inputs = [skips[-1]] + [width] * (layers_per_block - 1)
            attends = heads[level] if down_block_types[level].startswith("CrossAttn") else None
            block = Block(inputs, width, attends, **sizes)
            if level < levels - 1:
                block.downsamplers = nn.ModuleList([Resampler(width, stride=2)])
            self.down_blocks.append(block)
            skips += [width] * (layers_per_block + (level < levels - 1))

        self.mid_block = Block([widths[-1]] * 2, widths[-1], heads[-1], attentions=1, **sizes)

        self.up_blocks, hidden = nn.ModuleList(), widths[-1]
        for level, width in enumerate(reversed(widths)):
            inputs = [before + skips.pop() for before in (hidden, *(width,) * layers_per_block)]
            attends = heads[-1 - level] if up_block_types[level].startswith("CrossAttn") else None
            block = Block(inputs, width, attends, **sizes)
            if level < levels - 1:
                block.upsamplers = nn.ModuleList([Resampler(width, stride=1)])
            self.up_blocks.append(block)
            hidden = width

        self.conv_norm_out = nn.GroupNorm(norm_num_groups, widths[0])
        self.conv_out = ConvPseudo3D(widths[0], out_channels, 3)


class Block(nn.Module):
    """Residual blocks for `inputs` channels each and, unless `heads` is None, a transformer behind each."""

    def __init__(self, inputs, width: int, heads: int | None, time: int, text: int, groups: int, attentions: int = 0):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(channels, width, time, groups) for channels in inputs)
        if heads is not None:
            count = attentions or len(inputs)
            self.attentions = nn.ModuleList(Transformer(width, heads, text, groups) for _ in range(count))
        self.downsamplers: nn.ModuleList | None = None
        self.upsamplers: nn.ModuleList | None = None


class ConvPseudo3D(nn.Module):
    """A convolution over each image, then one over three frames at each pixel; this one starts as the identity."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.spatial_conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        self.temporal_conv = nn.Conv1d(outputs, outputs, 3, padding=1)
        nn.init.dirac_(self.temporal_conv.weight)
        assert self.temporal_conv.bias is not None
        nn.init.zeros_(self.temporal_conv.bias)


class Resampler(nn.Module):
    def __init__(self, width: int, stride: int):
        super().__init__()
        self.conv = ConvPseudo3D(width, width, 3, stride)


class Resnet(nn.Module):
    def __init__(self, inputs: int, outputs: int, time: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs)
        self.conv1 = ConvPseudo3D(inputs, outputs, 3)
        self.time_emb_proj = nn.Linear(time, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.conv2 = ConvPseudo3D(outputs, outputs, 3)
        self.conv_shortcut = ConvPseudo3D(inputs, outputs, 1) if inputs != outputs else None


class Transformer(nn.Module):
    def __init__(self, width: int, heads: int, text: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, text)])
        self.proj_out = nn.Conv2d(width, width, 1)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, text: int):
        super().__init__()
        sizes = {"heads": heads, "dim_head": width // heads}
        self.norm1, self.attn1 = nn.LayerNorm(width), Attention(width, **sizes)
        self.norm2, self.attn2 = nn.LayerNorm(width), Attention(width, cross_attention_dim=text, **sizes)
        self.norm_temporal, self.attn_temporal = nn.LayerNorm(width), Attention(width, **sizes)
        self.norm3, self.ff = nn.LayerNorm(width), FeedForward(width)
        for parameter in self.attn_temporal.to_out[0].parameters():
            nn.init.zeros_(parameter)


# What is computed


class Pseudo3DUNet:
    """The network for one job: `unet` with the text states (n, tokens, c) of its n branches already taken in."""

    def __init__(
        self,
        unet: UNetPseudo3DConditionModel | UNet2DConditionModel,
        text_states: Tensor,
        slices: int = 1,
        caching: int = 1,
    ):
        """`slices` > 1 computes attention and feed-forward layers in so many parts, to save memory; `caching` > 1
        computes deep features at every so many calls only (caching.py), which is an approximation."""
        self.unet: Layers = unet
        self.branches = len(text_states)
        self.slices = slices
        self.deep = DeepCache(caching)
        self.text = {
            module: keys_and_values(module.attn2, text_states)  # 2 x (n, heads, tokens, d)
            for module in unet.modules()
            if hasattr(module, "attn2")
        }

    def __call__(self, latents: Tensor, timestep: float | Tensor) -> Tensor:
        """The noise in `latents`, for each branch: (n, c, f, h, w) for a clip (b, c', f, h, w), or (n, c, h, w) for an
        image (b, c', h, w), to which nothing happens over time.

        b is 1 (one clip, n branches) or n (a clip for each text). `timestep` is one for all, or b of them. h and w must
        be whole after each level has halved them.
        """
        unet = self.unet
        time = self.time_embedding(timestep)  # (1 or b, c)
        shallow = latents.movedim(1, -1).contiguous()  # (b, f, h, w, c'), of an image (b, h, w, c')
        shallow = convolve(unet.conv_in, shallow)
        hidden = self.deep(lambda: self.all_but_last(shallow, time))

        last = unet.up_blocks[-1]
        hidden = torch.cat([hidden, self.in_all_branches(shallow)], dim=-1)  # (n, f, h, w, c + c')
        hidden = self.layer(last, len(last.resnets) - 1, hidden, time)
        hidden = convolve(unet.conv_out, F.silu(normalise(unet.conv_norm_out, hidden)))
        return hidden.movedim(-1, 1)  # (n, c, f, h, w)

    def all_but_last(self, hidden: Tensor, time: Tensor) -> Tensor:
        """All layers but the last one, (b, f, h, w, c) -> (n, f, h, w, c)."""
        unet, skips = self.unet, []

        for block in unet.down_blocks:
            for index in range(len(block.resnets)):
                hidden = self.layer(block, index, hidden, time)
                skips.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = convolve(downsampler.conv, hidden)  # (b or n, f, h / 2, w / 2, c)
                skips.append(hidden)

        hidden = self.layer(unet.mid_block, 0, hidden, time)
        hidden = self.residual(unet.mid_block.resnets[1], hidden, time)

        for block in unet.up_blocks:
            for index in range(len(block.resnets)):
                if not skips:
                    return hidden
                hidden = torch.cat([hidden, self.in_all_branches(skips.pop())], dim=-1)  # (n, f, h, w, c + c')
                hidden = self.layer(block, index, hidden, time)
            for upsampler in block.upsamplers or ():
                hidden = convolve(upsampler.conv, enlarge(hidden))  # (n, f, 2 h, 2 w, c)
        raise AssertionError("the last layer is that for which no skip is left")

    def time_embedding(self, timestep: float | Tensor) -> Tensor:
        """What every residual block is told of the time: (1 or b, c)."""
        timesteps = torch.as_tensor(timestep, device=self.unet.device).reshape(-1)
        return self.unet.time_embedding(self.unet.time_proj(timesteps).to(self.unet.dtype))

    def layer(self, block: Layers, index: int, hidden: Tensor, time: Tensor) -> Tensor:
        """A residual block and, in blocks with attention, a transformer."""
        hidden = self.residual(block.resnets[index], hidden, time)
        return self.transformer(block.attentions[index], hidden) if hasattr(block, "attentions") else hidden

    def residual(self, module: Layers, hidden: Tensor, time: Tensor) -> Tensor:
        """Its norms are over all frames of a clip."""
        change = convolve(module.conv1, F.silu(normalise(module.norm1, hidden)))
        time = module.time_emb_proj(F.silu(time))  # (1 or b, c)
        change = change + time.reshape(len(time), *[1] * (hidden.ndim - 2), -1)
        change = convolve(module.conv2, F.silu(normalise(module.norm2, change)))
        return (hidden if module.conv_shortcut is None else convolve(module.conv_shortcut, hidden)) + change

    def transformer(self, module: Layers, hidden: Tensor) -> Tensor:
        """Every image looks at itself, every video at its text, and every pixel at itself in all frames.

        Behind the first of the three there is a video for every branch. Its norm is over each image alone.
        """
        block = module.transformer_blocks[0]
        images = normalise(module.norm, hidden.flatten(0, -4))  # (b f, h, w, c)
        states = pointwise(module.proj_in, images).flatten(1, 2)  # (b f, h w, c)
        states = states + in_slices(lambda rows: self_attend(block.attn1, block.norm1(rows)), states, self.slices)
        hidden, states = self.in_all_branches(hidden), self.in_all_branches(states.unflatten(0, (len(hidden), -1)))

        video = states.flatten(1, 2)  # (n, f h w, c)
        video = video + attend(block.attn2, block.norm2(video), *self.text[block])

        if hidden.ndim == 5 and hasattr(block, "attn_temporal"):
            over_time = video.reshape(states.shape).transpose(1, 2).flatten(0, 1)  # (n h w, f, c)
            found = in_slices(
                lambda rows: self_attend(block.attn_temporal, block.norm_temporal(rows)), over_time, self.slices
            )
            video = video + found.unflatten(0, (len(video), -1)).transpose(1, 2).flatten(1, 2)

        states = video.reshape(-1, *images.shape[1:])  # (n f, h, w, c)
        states = states + in_slices(lambda rows: feed_forward(block.ff, block.norm3(rows)), states, self.slices)
        return hidden + pointwise(module.proj_out, states).reshape(hidden.shape)

    def in_all_branches(self, hidden: Tensor) -> Tensor:
        """(b, …) -> (n, …): what the branches have in common, repeated for each of them."""
        return hidden.expand(self.branches, *hidden.shape[1:])


def convolve(module: Layers, hidden: Tensor) -> Tensor:
    """`hidden` (b, f, h, w, c) through a ConvPseudo3D; images (b, h, w, c), or a plain Conv2d: over space only."""
    spatial = getattr(module, "spatial_conv", module)
    images = spatial(hidden.flatten(0, -4).permute(0, 3, 1, 2))  # (b f, c, h, w)
    hidden = images.permute(0, 2, 3, 1).unflatten(0, hidden.shape[:-3])  # (b, f, h, w, c)
    if hidden.ndim == 4 or spatial is module:
        return hidden
    temporal = module.temporal_conv
    # Over frames and pixels in two dimensions: a view of these values, which a Conv1d would ask to be copied.
    video = hidden.flatten(2, 3).permute(0, 3, 1, 2)  # (b, c, f, h w)
    video = F.conv2d(video, temporal.weight[..., None], temporal.bias, padding=(1, 0))
    return video.permute(0, 2, 3, 1).reshape(hidden.shape)


def normalise(norm: nn.GroupNorm, hidden: Tensor) -> Tensor:
    """Group norm of each (…, h, w, c) along the first dimension: over all frames of a clip, or over an image."""
    rows = hidden.flatten(1, -3).permute(0, 3, 1, 2)  # (b, c, f h, w)
    rows = F.group_norm(rows, norm.num_groups, norm.weight, norm.bias, EPSILON)
    return rows.permute(0, 2, 3, 1).reshape(hidden.shape)


def pointwise(module: nn.Conv2d | nn.Linear, states: Tensor) -> Tensor:
    """A 1x1 convolution of (…, c): the linear map that it is, and in some Stable Diffusions also is called."""
    return F.linear(states, module.weight.flatten(1), module.bias)


def enlarge(hidden: Tensor) -> Tensor:
    """(…, h, w, c) -> (…, 2 h, 2 w, c): every pixel becomes four."""
    images = F.interpolate(hidden.flatten(0, -4).permute(0, 3, 1, 2), scale_factor=2.0, mode="nearest")
    return images.permute(0, 2, 3, 1).unflatten(0, hidden.shape[:-3])


def feed_forward(module: FeedForward, states: Tensor) -> Tensor:
    """GEGLU (Shazeer, 2020) with the tanh approximation of GELU, which is FLAX's own."""
    values, gate = module.net[0].proj(states).chunk(2, dim=-1)
    return module.net[2](values * F.gelu(gate, approximate="tanh"))
