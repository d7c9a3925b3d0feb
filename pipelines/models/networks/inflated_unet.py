"""Stable Diffusion's UNet, inflated to video: the network of Tune-A-Video and, with a pose adapter, of FollowYourPose.

Wu et al., 2023, "Tune-A-Video", section 4.1; Ma et al., 2023, "Follow Your Pose". Every convolution stays a plain one
per frame. What is new: self-attention is sparse-causal (a frame looks at the first and at the one before it), each
block ends with an attention over time, and residual blocks normalise over all frames together.

`InflatedUNet` holds the weights, under the published names; `EditingUNet` is its forward for one job, with savings that
do not change what it computes (tests/test_inflated_unet.py holds each against the plain formula):
- The keys and values of the text depend on the prompt alone: computed once a prompt, not in every step and frame.
- Both branches of classifier-free guidance are the same until they first meet their texts: one computation serves both.
- Frames 0 and 1 would look at the keys of frame 0 twice. A set of keys seen twice is the same softmax as seen once.
- Every attention is fused, and all frames of a video ask their text in one attention.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipelines.models.networks.attention import Layers, attend, in_slices, keys_and_values, self_attend
from pipelines.models.networks.caching import DeepCache
from pipelines.models.networks.pose_adapter import PoseAdapter

FREE = {  # what a config may choose; everything else must be as in Stable Diffusion 1.x and 2.x
    "sample_size", "in_channels", "out_channels", "block_out_channels", "down_block_types", "up_block_types",
    "layers_per_block", "cross_attention_dim", "attention_head_dim", "norm_num_groups", "norm_eps", "flip_sin_to_cos",
    "freq_shift", "use_linear_projection", "upcast_attention",
}  # fmt: skip
BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}


class InflatedUNet(UNet2DConditionModel):
    """A UNet2DConditionModel with temporal attention in every block, and with `pose` FollowYourPose's additions.

    `config["attention_head_dim"]` is the number of heads, as ever in Stable Diffusion, one for all or a list. The
    temporal weights are as torch makes them: `temporal_start` has those that make it start as the image model.

    `config["pose_layers"]` are the layers of each down block, counted from 0, after which pose features are added. As
    published, and so where it is absent, that is the second, and were there so many, the fifth: never the only one.
    """

    def __init__(self, config: Mapping[str, Any], pose: bool = False):
        """`config`: that of a UNet2DConditionModel, or as Tune-A-Video publishes it.

        Raises ValueError naming the entry by which it is no UNet of Stable Diffusion 1.x or 2.x.
        """
        super().__init__(**_image_config(config))
        for module in self.modules():
            if isinstance(module, BasicTransformerBlock):
                attention, channels = module.attn1, module.dim
                module.attn_temp = Attention(channels, heads=attention.heads, dim_head=channels // attention.heads)
                module.norm_temp = nn.LayerNorm(channels)
                if pose:
                    module.conv_temporal = TemporalConvolution(channels)
        self.pose_layers = _pose_layers(config)
        if pose:
            self.skeleton_adapter = PoseAdapter(self.config.block_out_channels)

    def forward(
        self,
        latents: Tensor,
        timestep: float | Tensor,
        text_states: Tensor,
        pose_features: Sequence[Tensor] | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        """What `EditingUNet` says of `latents` (b, c, f, h, w) and `text_states` (n, tokens, c'): (n, c, f, h, w)."""
        network = EditingUNet(self, text_states, pose_features=pose_features, checkpointing=checkpointing)
        return network(latents, timestep)


def _image_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of `config` UNet2DConditionModel is to be told. Raises ValueError where it isn't Stable Diffusion's."""
    config = {key: _two_dimensional(value) for key, value in config.items()}
    for key, parameter in inspect.signature(UNet2DConditionModel.__init__).parameters.items():
        if key not in FREE and config.get(key, parameter.default) != parameter.default:
            raise ValueError(f"it has {key} {config[key]!r}, which Stable Diffusion 1.x and 2.x do not have")
    types = {*config.get("down_block_types", ()), *config.get("up_block_types", ())}
    if types - BLOCKS:
        raise ValueError(f"it has blocks of the type {', '.join(sorted(types - BLOCKS))}")
    return {key: config[key] for key in FREE & config.keys()}


def _pose_layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Raises ValueError where they are no numbers of layers."""
    layers = config.get("pose_layers", (1, 4))
    if not isinstance(layers, list | tuple) or not all(isinstance(layer, int) for layer in layers):
        raise ValueError(f"it has pose_layers {layers!r}, which are no numbers of layers")
    return tuple(layers)


def _two_dimensional(value: Any) -> Any:
    """Tune-A-Video calls its blocks by the names of their image versions, with 3D for 2D."""
    if isinstance(value, str):
        return value.replace("3D", "2D")
    return tuple(map(_two_dimensional, value)) if isinstance(value, list | tuple) else value


class TemporalConvolution(nn.Module):
    """FollowYourPose's: two narrow convolutions over time beside the identity, zero beyond the first and last frame."""

    def __init__(self, channels: int, rank: int = 160):
        super().__init__()
        rank = channels // 2 if rank > channels else rank
        self.down = nn.Conv1d(channels, rank, 3, padding=1, bias=False)
        self.up = nn.Conv1d(rank, channels, 3, padding=1, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """(pixels, c, f) -> (pixels, c, f)."""
        return states + self.up(self.down(states))


def temporal_start(unet: InflatedUNet, seed: int = 0) -> dict[str, Tensor]:
    """Weights, by name, of all that `unet` has and an image UNet has not (but of the pose adapter), fp32, on the CPU.

    With them it starts as the image model exactly, frame by frame where there is one frame: what the new layers add is
    zero. Tune-A-Video's code leaves the bias of the temporal attention's output random, so that it starts a bit off.
    """
    generator = torch.Generator().manual_seed(seed)
    start = {}
    for name, tensor in unet.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if layer.endswith("norm_temp"):
            start[name] = torch.full(tensor.shape, float(kind == "weight"))
        elif layer.endswith(("attn_temp.to_out.0", "conv_temporal.up")):
            start[name] = torch.zeros(tensor.shape)
        elif ".attn_temp." in name or ".conv_temporal." in name:
            bound = tensor[0].numel() ** -0.5  # torch's own start of linear layers and convolutions
            start[name] = torch.empty(tensor.shape).uniform_(-bound, bound, generator=generator)
    return start


class EditingUNet:
    """The network for one job: `unet` with the text states (n, tokens, c) of its n branches already taken in."""

    def __init__(
        self,
        unet: InflatedUNet,
        text_states: Tensor,
        slices: int = 1,
        pose_features: Sequence[Tensor] | None = None,
        checkpointing: bool = False,
        caching: int = 1,
    ):
        """`slices` > 1 computes attention and feed-forward layers in so many parts, to save memory; `caching` > 1
        computes deep features at every so many calls only (caching.py), which is an approximation.

        `pose_features`: those of the unet's `skeleton_adapter`, (1, c_i, f, h_i, w_i) each, for all branches.
        `checkpointing`: computes each layer once more in the backward pass, to save memory in training.
        """
        self.unet = unet
        self.branches = len(text_states)
        self.slices = slices
        self.pose = [feature.transpose(1, 2).flatten(0, 1) for feature in pose_features or ()]  # (f, c_i, h_i, w_i)
        self.checkpointing = checkpointing
        self.deep = DeepCache(caching)
        self.text = {
            module: keys_and_values(module.transformer_blocks[0].attn2, text_states)  # 2 x (n, heads, tokens, d)
            for module in unet.modules()
            if isinstance(module, Transformer2DModel)
        }

    def __call__(self, latents: Tensor, timestep: float | Tensor) -> Tensor:
        """What `unet` predicts in `latents` (b, c, f, h, w), for each branch: (n, c, f, h, w).

        b is 1 (one video, n branches) or n (a video for each text). `timestep` is one for all, or b of them.
        """
        unet, frames = self.unet, latents.shape[2]
        time = self.time_embedding(timestep, frames)
        shallow = unet.conv_in(latents.transpose(1, 2).flatten(0, 1))  # (b f, c, h, w)
        hidden = self.deep(lambda: self.all_but_last(shallow, time, frames))

        last = unet.up_blocks[-1]
        hidden = torch.cat([hidden, self.in_all_branches(shallow, frames)], dim=1)  # (n f, c + c', h, w)
        hidden = self.layer(last, len(last.resnets) - 1, hidden, time, frames)
        hidden = unet.conv_out(unet.conv_act(normalised(unet.conv_norm_out, hidden, frames)))
        return hidden.unflatten(0, (-1, frames)).transpose(1, 2)  # (n, c, f, h, w)

    def all_but_last(self, hidden: Tensor, time: Tensor, frames: int) -> Tensor:
        """All layers but the last one, (b f, c, h, w) -> (n f, c, h, w)."""
        unet, skips = self.unet, []

        for level, block in enumerate(unet.down_blocks):
            for layer in range(len(block.resnets)):
                hidden = self.layer(block, layer, hidden, time, frames)
                if self.pose and layer in unet.pose_layers:
                    hidden = self.in_all_branches(hidden, frames) + self.in_all_branches(self.pose[level], frames)
                skips.append(hidden)
            for downsampler in block.downsamplers or ():
                hidden = downsampler(hidden)  # (… f, c, h / 2, w / 2)
                skips.append(hidden)

        hidden = self.layer(unet.mid_block, 0, hidden, time, frames)
        hidden = self.residual(unet.mid_block.resnets[1], hidden, time, frames)

        for block in unet.up_blocks:
            for layer in range(len(block.resnets)):
                if not skips:
                    return hidden
                hidden = torch.cat([hidden, self.in_all_branches(skips.pop(), frames)], dim=1)  # (n f, c + c', h, w)
                hidden = self.layer(block, layer, hidden, time, frames)
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden, skips[-1].shape[2:])  # (n f, c, 2 h, 2 w), a pixel less where h or w was odd
        raise AssertionError("the last layer is that for which no skip is left")

    def time_embedding(self, timestep: float | Tensor, frames: int) -> Tensor:
        """(1, c), the same for every image, or for b timesteps (b f, c)."""
        timesteps = torch.as_tensor(timestep, device=self.unet.device).reshape(-1)
        embedding = self.unet.time_embedding(self.unet.time_proj(timesteps).to(self.unet.dtype))
        return embedding if len(timesteps) == 1 else embedding.repeat_interleave(frames, dim=0)

    def layer(self, block: Layers, index: int, hidden: Tensor, time: Tensor, frames: int) -> Tensor:
        """A residual block and, in blocks with attention, a transformer."""

        def compute(hidden: Tensor) -> Tensor:
            hidden = self.residual(block.resnets[index], hidden, time, frames)
            if hasattr(block, "attentions"):
                hidden = self.transformer(block.attentions[index], hidden, frames)
            return hidden

        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(compute, hidden, use_reentrant=False)  # the reentrant one leaves down blocks untrained
        return compute(hidden)

    def residual(self, module: ResnetBlock2D, hidden: Tensor, time: Tensor, frames: int) -> Tensor:
        """(b f, c, h, w) -> (b f, c', h, w): a plain residual block, but that it normalises all frames together."""
        change = module.conv1(F.silu(normalised(module.norm1, hidden, frames)))
        change = change + module.time_emb_proj(F.silu(time))[..., None, None]
        change = module.conv2(F.silu(normalised(module.norm2, change, frames)))
        return change + (module.conv_shortcut(hidden) if module.conv_shortcut is not None else hidden)

    def transformer(self, module: Transformer2DModel, hidden: Tensor, frames: int) -> Tensor:
        """Frames look back, at their text, and every pixel at itself in all frames. From here on there are n videos."""
        height, width = hidden.shape[2:]
        block, shared = module.transformer_blocks[0], module.norm(hidden)
        if module.use_linear_projection:
            states = module.proj_in(shared.flatten(2).transpose(1, 2))  # (b f, h w, c)
        else:
            states = module.proj_in(shared).flatten(2).transpose(1, 2)  # (b f, h w, c)
        states = states + self.sparse_causal_attention(block.attn1, block.norm1(states), frames)
        states, hidden = self.in_all_branches(states, frames), self.in_all_branches(hidden, frames)

        video = states.unflatten(0, (-1, frames)).flatten(1, 2)  # (n, f h w, c)
        video = video + attend(block.attn2, block.norm2(video), *self.text[module])
        video = video + in_slices(lambda rows: block.ff(block.norm3(rows)), video, self.slices)

        pixels = video.unflatten(1, (frames, -1)).transpose(1, 2).flatten(0, 1)  # (n h w, f, c)
        pixels = in_slices(lambda rows: self.temporal_layers(block, rows), pixels, self.slices)
        states = pixels.unflatten(0, (-1, height * width)).transpose(1, 2).flatten(0, 1)  # (n f, h w, c)

        if module.use_linear_projection:
            return hidden + module.proj_out(states).transpose(1, 2).unflatten(2, (height, width))  # (n f, c, h, w)
        return hidden + module.proj_out(states.transpose(1, 2).unflatten(2, (height, width)))  # (n f, c, h, w)

    def sparse_causal_attention(self, attention: Attention, states: Tensor, frames: int) -> Tensor:
        """(b f, h w, c) -> (b f, h w, c): frame i looks at frame 0 and frame i - 1, not at itself (but for frame 0).

        Keys are copied for frames from 2 on. Without a copy, by two attentions that are merged by their log-sum-exp,
        it was no faster.
        """
        key, value = (tensor.unflatten(0, (-1, frames)) for tensor in keys_and_values(attention, states))
        video = states.unflatten(0, (-1, frames))  # (b, f, h w, c); key and value: (b, f, heads, h w, d)
        found = attend(attention, video[:, :2].flatten(1, 2), key[:, 0], value[:, 0])  # frame 1's last one is frame 0
        found = [found.unflatten(1, (-1, states.shape[1]))]  # (b, 2, h w, c)
        size = max(1, -(-(frames - 2) // self.slices))
        for start in range(2, frames, size):
            now, before = slice(start, start + size), slice(start - 1, min(start + size, frames) - 1)
            seen = [torch.cat([one[:, :1].expand_as(one[:, now]), one[:, before]], dim=3) for one in (key, value)]
            later = attend(attention, video[:, now].flatten(0, 1), *(one.flatten(0, 1) for one in seen))
            found.append(later.unflatten(0, (len(video), -1)))  # (b, frames in this part, h w, c)
        return torch.cat(found, dim=1).flatten(0, 1)

    def temporal_layers(self, block: BasicTransformerBlock, pixels: Tensor) -> Tensor:
        """(pixels, f, c) -> (pixels, f, c): every pixel looks at itself in all frames."""
        pixels = pixels + self_attend(block.attn_temp, block.norm_temp(pixels))
        if hasattr(block, "conv_temporal"):
            pixels = block.conv_temporal(pixels.transpose(1, 2)).transpose(1, 2)
        return pixels

    def in_all_branches(self, hidden: Tensor, frames: int) -> Tensor:
        """(b f, …) -> (n f, …): what the branches have in common, repeated for each of them."""
        videos = hidden.unflatten(0, (-1, frames))  # (b, f, …)
        return videos.expand(self.branches, *videos.shape[1:]).flatten(0, 1)


def normalised(norm: nn.GroupNorm, hidden: Tensor, frames: int) -> Tensor:
    """(b f, c, h, w) -> (b f, c, h, w): `norm` with one mean and variance for all frames of a video."""
    return norm(hidden.unflatten(0, (-1, frames)).transpose(1, 2)).transpose(1, 2).flatten(0, 1)
