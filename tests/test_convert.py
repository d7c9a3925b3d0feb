"""ModelScope's original files: their names, one to one, and what the converted parts compute."""

import json

import pytest
import tiny
import torch
from diffusers import AutoencoderKL
from tiny import GOLDENS, randomised, relative_error
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from pipelines.models.convert import modelscope
from pipelines.models.networks.unet3d import build_unet3d


def manifest(name):
    return tiny.manifest(f"modelscope_{name}")


def empty(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes(weights):
    return {name: list(tensor.shape) for name, tensor in weights.items()}


def model_cfg(**changes):
    configuration = json.loads((GOLDENS / "modelscope" / "configuration.json").read_text())
    return {**configuration["model"]["model_cfg"], **changes}


def test_the_full_size_key_map_is_the_recorded_one():
    recorded, original = manifest("keymap"), manifest("original")
    ours = modelscope.unet_key_map(original["params"], original["model_cfg"]["unet_res_blocks"])
    assert ours == recorded["map"]
    assert set(ours) == set(original["params"])
    assert len(set(ours.values())) == len(ours) == original["n_tensors"]


def test_the_full_size_weights_become_exactly_those_of_the_diffusers_network():
    original, target, recorded = manifest("original"), manifest("diffusers"), manifest("keymap")
    weights = empty(original["params"])
    converted = modelscope.unet_weights(weights, original["model_cfg"]["unet_res_blocks"])
    assert shapes(converted) == target["params"]
    reshaped = {key for key, new in recorded["map"].items() if weights[key].shape != converted[new].shape}
    assert reshaped == set(recorded["squeeze_last"])


def test_the_full_size_configuration_is_that_of_the_diffusers_network():
    config = modelscope.unet_config(model_cfg(**manifest("original")["model_cfg"]))
    with torch.device("meta"):
        unet = build_unet3d(config)
    assert shapes(unet.state_dict()) == manifest("diffusers")["params"]


def test_the_full_size_autoencoder_becomes_exactly_that_of_diffusers():
    recorded = manifest("vae")
    weights = empty(recorded["params"])
    converted = modelscope.vae_weights(weights)
    assert set(converted) == set(recorded["to_diffusers"].values())
    for old, new in recorded["to_diffusers"].items():
        shape = recorded["params"][old]
        assert list(converted[new].shape) == (shape[:2] if old in recorded["squeeze_1x1"] else shape)
    with torch.device("meta"):
        autoencoder = AutoencoderKL.from_config(modelscope.vae_config(weights))
    assert shapes(autoencoder.state_dict()) == shapes(converted)


@pytest.mark.parametrize(
    "changes",
    [
        {"unet_dim_mult": [1, 2, 3], "unet_res_blocks": 3},
        {"unet_dim_mult": [1, 2, 2, 4], "unet_attn_scales": [0.5, 0.125]},
        {"unet_num_heads": 4, "unet_head_dim": 16},
        {"unet_dim": 64, "unet_in_dim": 8, "unet_context_dim": 96},
    ],
)
def test_the_rule_holds_for_other_sizes(changes):
    """Back and forth: names made for a network by undoing the key map are mapped onto that network."""
    config = modelscope.unet_config(model_cfg(**changes))
    with torch.device("meta"):
        target = build_unet3d(config).state_dict()
    original = {original_name(name, config["layers_per_block"], target): name for name in target}
    assert len(original) == len(target)
    assert modelscope.unet_key_map(original, config["layers_per_block"]) == original


def original_name(name, res_blocks, target):
    """UNetSD's name of a UNet3DConditionModel's tensor, after UNetSD's constructor, which numbers its modules."""
    outer = {new: old for old, new in modelscope._OUTER.items()}
    part = next((part for part in outer if name.startswith(part + ".")), None)
    if part:
        return outer[part] + name.removeprefix(part)
    if name.startswith("mid_block."):
        _, kind, layer, rest = name.split(".", 3)
        slot = {"resnets0": 0, "temp_convs0": 0, "attentions0": 1, "temp_attentions0": 2}.get(kind + layer, 3)
        return f"middle_block.{slot}.{inside(kind, rest)}"
    direction, block, kind, layer, rest = name.split(".", 4)
    down = direction == "down_blocks"
    if kind == "downsamplers":
        return f"input_blocks.{1 + int(block) * (res_blocks + 1) + res_blocks}.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        attends = any(other.startswith(f"up_blocks.{block}.attentions.") for other in target)
        return f"output_blocks.{int(block) * (res_blocks + 1) + res_blocks}.{3 if attends else 1}.{rest}"
    index = int(block) * (res_blocks + 1) + int(layer) + down
    slot = {"resnets": 0, "temp_convs": 0, "attentions": 1, "temp_attentions": 2}[kind]
    return f"{'input' if down else 'output'}_blocks.{index}.{slot}.{inside(kind, rest)}"


def inside(kind, rest):
    if kind == "temp_convs":
        return f"temopral_conv.{rest}"
    if kind == "resnets":
        old = {new: old for old, new in modelscope._IN_RESNET.items()}
        part, leaf = rest.rsplit(".", 1)
        return f"{old[part]}.{leaf}"
    return rest


def test_names_that_are_not_of_the_network_are_refused():
    with pytest.raises(ValueError, match="model.diffusion_model.betas"):
        modelscope.unet_key_map(["time_embed.0.weight", "model.diffusion_model.betas"], 2)


@pytest.mark.parametrize("changes", [{"temporal_attention": "False"}, {"mean_type": "v"}])
def test_a_configuration_for_another_kind_of_model_is_refused(changes):
    with pytest.raises(ValueError, match="ModelScope"):
        modelscope.unet_config(model_cfg(**changes))


class OpenClipText(nn.Module):
    """OpenCLIP's text tower as ModelScope runs it: every layer but the last, then the final norm."""

    def __init__(self, vocabulary, width, layers):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.zeros(77, width))
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(OpenClipLayer(width) for _ in range(layers))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, width))
        self.logit_scale = nn.Parameter(torch.zeros(1))
        self.visual = nn.Linear(3, width)  # a picture tower, which is to be left out

    def forward(self, tokens):
        states = self.token_embedding(tokens) + self.positional_embedding
        future = torch.full((77, 77), float("-inf")).triu(1)
        for layer in self.transformer.resblocks[:-1]:
            states = layer(states, future)
        return self.ln_final(states)


class OpenClipLayer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, states, mask):
        normed = self.ln_1(states)
        states = states + self.attn(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        return states + self.mlp(self.ln_2(states))


def test_the_text_encoder_gives_the_last_but_one_layer_of_openclip():
    original = randomised(OpenClipText(vocabulary=50, width=128, layers=4), seed=3)
    weights = original.state_dict()
    config = modelscope.text_encoder_config(weights)
    ours = CLIPTextModel(CLIPTextConfig.from_dict(config)).eval()
    ours.load_state_dict(modelscope.text_encoder_weights(weights), strict=True)
    tokens = torch.randint(0, 48, (2, 77), generator=torch.Generator().manual_seed(0))
    tokens[:, 20], tokens[:, 21:] = 49, 0  # ModelScope pads with zeros after the end
    with torch.no_grad():
        assert relative_error(ours(tokens).last_hidden_state, original(tokens)) < 1e-5
    assert config["num_hidden_layers"] == 3 and config["num_attention_heads"] == 2


def test_the_sizes_of_openclips_vit_h_are_read_off_its_shapes():
    width, layers = 1024, 24
    weights = {
        "token_embedding.weight": [49408, width],
        "positional_embedding": [77, width],
        "transformer.resblocks.0.mlp.c_fc.weight": [4096, width],
        **{f"transformer.resblocks.{layer}.ln_1.weight": [width] for layer in range(layers)},
    }
    config = modelscope.text_encoder_config(empty(weights))
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["hidden_act"]) == (23, 16, "gelu")
    assert (config["hidden_size"], config["intermediate_size"], config["eos_token_id"]) == (1024, 4096, 49407)
