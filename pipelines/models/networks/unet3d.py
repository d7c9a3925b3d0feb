"""ModelScope's text-to-video UNet: its forward, with four savings that do not change what it computes.

The weights are those of a diffusers UNet3DConditionModel, which is read and never changed, so that jobs can share it.
The savings (tests/test_networks.py holds each against diffusers' own forward):
- The keys and values of the text depend on the prompt alone: computed once a prompt, not in every step and frame.
- Both branches of classifier-free guidance are the same until they first meet their texts. One computation serves
  both up to there: the first convolution, its temporal transformer, the first residual and temporal convolutions,
  and the first self-attention.
- Every attention is fused, the temporal ones too, and all frames of a video ask their text in one attention.
- Convolutions over time alone run as two-dimensional ones.
"""

import torch
import torch.nn.functional as F
from diffusers import UNet3DConditionModel
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor

from pipelines.models.networks.attention import Layers, attend, in_slices, keys_and_values, self_attend
from pipelines.models.networks.caching import DeepCache


def build_unet3d(config: dict) -> UNet3DConditionModel:
    """A UNet3DConditionModel for `config`.

    Its first temporal transformer always has 8 heads in diffusers. ModelScope's own configuration may ask for another
    number, which then stands under "transformer_in_heads".
    """
    config = dict(config)
    heads = config.pop("transformer_in_heads", 8)
    unet = UNet3DConditionModel.from_config(config)
    if heads != 8:
        unet.transformer_in = TransformerTemporalModel(
            num_attention_heads=heads,
            attention_head_dim=unet.config.attention_head_dim,
            in_channels=unet.config.block_out_channels[0],
            norm_num_groups=unet.config.norm_num_groups,
        )
    return unet


class TextToVideoUNet:
    """The network for one job: `unet` with the text states (n, tokens, c) of its n branches already taken in."""

    def __init__(self, unet: UNet3DConditionModel, text_states: Tensor, slices: int = 1, caching: int = 1):
        """`slices` > 1 computes attention and feed-forward layers in so many parts, to save memory; `caching` > 1
        computes deep features at every so many calls only (caching.py), which is an approximation."""
        self.unet = unet
        self.branches = len(text_states)
        self.slices = slices
        self.deep = DeepCache(caching)
        self.text = {
            module: keys_and_values(module.transformer_blocks[0].attn2, text_states)  # 2 x (n, heads, tokens, d)
            for module in unet.modules()
            if isinstance(module, Transformer2DModel)
        }

    def __call__(self, latents: Tensor, timestep: float | Tensor) -> Tensor:
        """The noise in `latents` (b, c, f, h, w), for each branch: (n, c, f, h, w).

        b is 1 (one video, n branches) or n (a video for each text). `timestep` is one for all, or b of them.
        """
        unet, frames = self.unet, latents.shape[2]
        time = self.time_embedding(timestep, frames)
        shallow = latents.transpose(1, 2).flatten(0, 1)  # (b f, c, h, w)
        shallow = unet.conv_in(shallow)
        shallow = self.temporal_transformer(unet.transformer_in, shallow, frames)
        hidden = self.deep(lambda: self.all_but_last(shallow, time, frames))

        last = unet.up_blocks[-1]
        hidden = torch.cat([hidden, self.in_all_branches(shallow, frames)], dim=1)  # (n f, c + c', h, w)
        hidden = self.layer(last, len(last.resnets) - 1, hidden, time, frames)
        hidden = unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))
        return hidden.unflatten(0, (-1, frames)).transpose(1, 2)  # (n, c, f, h, w)

    def all_but_last(self, hidden: Tensor, time: Tensor, frames: int) -> Tensor:
        """All layers but the last one, (b f, c, h, w) -> (n f, c, h, w)."""
        unet, skips = self.unet, []

        for block in unet.down_blocks:
            for layer in range(len(block.resnets)):
                hidden = self.layer(block, layer, hidden, time, frames)
                skips.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = downsampler(hidden)  # (… f, c, h / 2, w / 2)
                skips.append(hidden)

        middle = unet.mid_block
        hidden = self.layer(middle, 0, hidden, time, frames)
        hidden = self.temporal_convolution(middle.temp_convs[1], middle.resnets[1](hidden, time), frames)

        for block in unet.up_blocks:
            for layer in range(len(block.resnets)):
                if not skips:
                    return hidden
                hidden = torch.cat([hidden, self.in_all_branches(skips.pop(), frames)], dim=1)  # (n f, c + c', h, w)
                hidden = self.layer(block, layer, hidden, time, frames)
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden, skips[-1].shape[2:])  # (n f, c, 2 h, 2 w), a pixel less where h or w was odd
        raise AssertionError("the last layer is that for which no skip is left")

    def layer(self, block: Layers, index: int, hidden: Tensor, time: Tensor, frames: int) -> Tensor:
        """Residual block, temporal convolution and, in blocks with attention, a spatial and a temporal transformer."""
        hidden = block.resnets[index](hidden, time)
        hidden = self.temporal_convolution(block.temp_convs[index], hidden, frames)
        if hasattr(block, "attentions"):
            hidden = self.spatial_transformer(block.attentions[index], hidden, frames)
            hidden = self.temporal_transformer(block.temp_attentions[index], hidden, frames)
        return hidden

    def time_embedding(self, timestep: float | Tensor, frames: int) -> Tensor:
        """(1, c), the same for every image, or for b timesteps (b f, c)."""
        timesteps = torch.as_tensor(timestep, device=self.unet.device).reshape(-1)
        embedding = self.unet.time_embedding(self.unet.time_proj(timesteps).to(self.unet.dtype))
        return embedding if len(timesteps) == 1 else embedding.repeat_interleave(frames, dim=0)

    def temporal_convolution(self, module: TemporalConvLayer, hidden: Tensor, frames: int) -> Tensor:
        """Every pixel meets itself in the frames before and after, four times."""
        height, width = hidden.shape[2:]
        video = hidden.unflatten(0, (-1, frames)).transpose(1, 2).flatten(3)  # (b, c, f, h w)
        change = video
        for norm, activation, *_, convolution in (module.conv1, module.conv2, module.conv3, module.conv4):
            # The kernel is 3x1x1: the same convolution in two dimensions, frames and pixels, takes half the time.
            weight = convolution.weight.squeeze(-1)  # (c, c, 3, 1)
            change = F.conv2d(activation(norm(change)), weight, convolution.bias, padding=(1, 0))
        return (video + change).transpose(1, 2).flatten(0, 1).unflatten(2, (height, width))  # (b f, c, h, w)

    def spatial_transformer(self, module: Transformer2DModel, hidden: Tensor, frames: int) -> Tensor:
        """Every image looks at itself, and every video at its text. From here on there is a video for every branch."""
        height, width = hidden.shape[2:]
        block = module.transformer_blocks[0]
        states = module.proj_in(module.norm(hidden).flatten(2).transpose(1, 2))  # (b f, h w, c)
        states = states + in_slices(lambda rows: self_attend(block.attn1, block.norm1(rows)), states, self.slices)
        states, hidden = self.in_all_branches(states, frames), self.in_all_branches(hidden, frames)

        video = states.unflatten(0, (-1, frames)).flatten(1, 2)  # (n, f h w, c)
        video = video + attend(block.attn2, block.norm2(video), *self.text[module])
        states = video.unflatten(1, (frames, -1)).flatten(0, 1)  # (n f, h w, c)

        states = states + in_slices(lambda rows: block.ff(block.norm3(rows)), states, self.slices)
        return hidden + module.proj_out(states).transpose(1, 2).unflatten(2, (height, width))  # (n f, c, h, w)

    def temporal_transformer(self, module: TransformerTemporalModel, hidden: Tensor, frames: int) -> Tensor:
        """Every pixel looks at itself in all frames, twice."""
        height, width = hidden.shape[2:]
        block = module.transformer_blocks[0]
        video = hidden.unflatten(0, (-1, frames)).transpose(1, 2)  # (b, c, f, h, w): the norm is over all frames
        states = module.norm(video).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (b h w, f, c)
        states = module.proj_in(states)
        states = states + in_slices(lambda rows: self_attend(block.attn1, block.norm1(rows)), states, self.slices)
        states = states + in_slices(lambda rows: self_attend(block.attn2, block.norm2(rows)), states, self.slices)
        states = states + in_slices(lambda rows: block.ff(block.norm3(rows)), states, self.slices)
        states = module.proj_out(states).unflatten(0, (-1, height, width))  # (b, h, w, f, c)
        return hidden + states.permute(0, 3, 4, 1, 2).flatten(0, 1)  # (b f, c, h, w)

    def in_all_branches(self, hidden: Tensor, frames: int) -> Tensor:
        """(b f, …) -> (n f, …): what the branches have in common, repeated for each of them."""
        videos = hidden.unflatten(0, (-1, frames))  # (b, f, …)
        return videos.expand(self.branches, *videos.shape[1:]).flatten(0, 1)
