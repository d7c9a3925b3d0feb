"""LoRAs: every layout that the Hub has is read, and what comes of it is what PEFT makes of the same weights."""

import json

import pytest
import tiny
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from pipelines.cards import Lora, Source
from pipelines.models import lora
from pipelines.models.networks.inflated_unet import EditingUNet
from pipelines.models.networks.unet3d import TextToVideoUNet
from pipelines.settings import Settings
from pipelines.systems.diffusion import draw_noise

# What yhzhai/mcm and latent-consistency/lcm-lora-sdv1-5 change: linear layers and convolutions of both kinds.
TARGETS = "to_q to_k to_v to_out.0 proj_in proj_out ff.net.0.proj ff.net.2 conv1 conv2 conv_shortcut time_emb_proj"
ENDS = tuple(TARGETS.split())


def changed(network, folder, rank=4, alpha=6.0):
    """`network` as PEFT changes it, merged, and the folder in which PEFT wrote the changes."""
    names = [
        name
        for name, module in network.named_modules()
        if name.endswith(ENDS) and not ("temp" in name and "conv" in name) and hasattr(module, "weight")
    ]
    peft = get_peft_model(network, LoraConfig(r=rank, lora_alpha=alpha, target_modules=names, init_lora_weights=False))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    peft.save_pretrained(folder)
    return peft.merge_and_unload()


def answer(network, kind):
    latents, texts = draw_noise((1, 4, 3, 8, 8), seed=2), draw_noise((1, 7, tiny.WIDTH), seed=1)
    with torch.no_grad():
        return kind(network, texts)(latents, 500)


@pytest.fixture(scope="module")
def peft_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("peft")


@pytest.fixture(scope="module")
def reference(peft_folder):
    return answer(changed(tiny.unet(), peft_folder), TextToVideoUNet)


def rewritten(peft_folder, file, rename, alpha=None, dtype=torch.float32):
    """The weights in `peft_folder` once more, as another program names them."""
    tensors = {}
    for name, tensor in load_file(peft_folder / "adapter_model.safetensors").items():
        layer, _, factor = name.removeprefix("base_model.model.").partition(".lora_")
        tensors[rename(layer, factor[0])] = tensor.to(dtype)
        if alpha is not None:
            tensors[rename(layer, "alpha")] = torch.tensor(alpha)
    save_file(tensors, file)
    return file


def kohya(layer, part):
    ending = {"A": "lora_down.weight", "B": "lora_up.weight", "alpha": "alpha"}[part]
    return f"lora_unet_{layer.replace('.', '_')}.{ending}"


def of_diffusers(layer, part):
    return f"unet.{layer}.lora_{part}.weight" if part != "alpha" else f"unet.{layer}.alpha"


def of_old_diffusers(layer, part):
    return f"unet.{layer}.lora.{ {'A': 'down', 'B': 'up'}[part] }.weight" if part != "alpha" else f"unet.{layer}.alpha"


@pytest.mark.parametrize("rename", [None, kohya, of_diffusers, of_old_diffusers])
def test_modelscopes_network_changes_as_by_peft_in_every_layout(peft_folder, reference, tmp_path, rename):
    file = peft_folder / "adapter_model.safetensors"
    if rename:
        file = rewritten(peft_folder, tmp_path / "pytorch_lora_weights.safetensors", rename, alpha=6.0)
    unet = tiny.unet()
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    plain = answer(unet, TextToVideoUNet)
    found = lora.merged(unet, lora.read(file, unet))
    assert tiny.relative_error(answer(found, TextToVideoUNet), reference) < 1e-5
    assert tiny.relative_error(plain, reference) > 0.05  # else there would be nothing to see
    assert all(tensor.equal(before[name]) for name, tensor in unet.state_dict().items())
    assert answer(unet, TextToVideoUNet).equal(plain)


@pytest.mark.parametrize("linear", [False, True], ids=["convolutions", "linear"])
def test_the_inflated_network_takes_what_was_made_for_stable_diffusion(tmp_path, linear):
    """A LoRA for SD 1.x changes the same layers of the image network and of the one inflated over time."""
    inflated = tiny.inflated_unet(use_linear_projection=linear)
    config = {key: value for key, value in inflated.config.items() if not key.startswith("_") and key != "pose"}
    image = UNet2DConditionModel.from_config(config)
    state = inflated.state_dict()
    image.load_state_dict({name: state[name] for name in image.state_dict()})
    merged = changed(image.requires_grad_(False), tmp_path).state_dict()
    file = rewritten(tmp_path, tmp_path / "lcm.safetensors", kohya, alpha=6.0)
    (tmp_path / "adapter_config.json").unlink()
    found = lora.merged(inflated, lora.read(file, inflated))
    assert all(tiny.relative_error(found.get_parameter(name), tensor) < 1e-5 for name, tensor in merged.items())
    assert tiny.relative_error(answer(found, EditingUNet), answer(inflated, EditingUNet)) > 0.05


def test_any_strength_scales_the_change_and_only_changed_weights_take_memory(peft_folder):
    unet = tiny.unet()
    changes = lora.read(peft_folder / "adapter_model.safetensors", unet)
    half, whole = (lora.merged(unet, changes, strength) for strength in (0.5, 1.0))
    for name in changes:
        own, one, other = (network.get_submodule(name).weight for network in (unet, half, whole))
        assert tiny.relative_error(2 * (one - own), other - own) < 1e-4
    own = {id(parameter) for parameter in unet.parameters()}
    new = [parameter for parameter in whole.parameters() if id(parameter) not in own]
    with torch.device("meta"):
        empty = type(unet).from_config(unet.config)
    assert sum(parameter.nbytes for parameter in new) == lora.merged_bytes(empty, changes)
    assert {id(parameter) for parameter in whole.parameters()} & own
    assert lora.read(peft_folder / "adapter_model.safetensors", empty).keys() == changes.keys()


def test_half_precision_stays_and_is_rounded_once(peft_folder):
    unet = tiny.unet().bfloat16()
    changes = lora.read(peft_folder / "adapter_model.safetensors", unet)
    name, change = next(iter(changes.items()))
    own, new = (network.get_submodule(name).weight for network in (unet, lora.merged(unet, changes)))
    assert new.dtype == torch.bfloat16 and new.equal((own.float() + change.change().view_as(own)).bfloat16())


def rename_one(tensors):
    name = next(iter(tensors))
    tensors[name.replace("down_blocks.0", "down_blocks.9").replace("up_blocks.0", "up_blocks.9")] = tensors.pop(name)


def of_text_encoder(tensors):
    tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"] = torch.zeros(4, 8)


def cut_one(tensors):
    name = next(iter(tensors))
    tensors[name] = tensors[name][:, :-1].contiguous()


def lose_one(tensors):
    tensors.pop(next(iter(tensors)))


def spoil_one(tensors):
    next(iter(tensors.values())).view(-1)[0] = float("nan")


@pytest.mark.parametrize(
    "spoil, says",
    [
        (rename_one, "made for another network: this one has no"),
        (of_text_encoder, "this one has no lora_te_text_model"),
        (cut_one, "has another size in this one"),
        (lose_one, "only a part of"),
        (spoil_one, "no numbers"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(peft_folder, tmp_path, spoil, says):
    tensors = load_file(peft_folder / "adapter_model.safetensors")
    spoil(tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=says):
        lora.read(tmp_path / "a.safetensors", tiny.unet())


@pytest.mark.parametrize("asked", [{"use_dora": True}, {"alpha_pattern": {"conv1": 3}}, {"use_rslora": True}])
def test_kinds_of_peft_that_are_not_known_here_are_refused(peft_folder, tmp_path, asked):
    config = json.loads((peft_folder / "adapter_config.json").read_text()) | asked
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").write_bytes((peft_folder / "adapter_model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=f"asks for {next(iter(asked))}"):
        lora.read(tmp_path / "adapter_model.safetensors", tiny.unet())


def test_it_is_found_in_a_folder_of_the_hubs_cache(peft_folder, tmp_path, monkeypatch):
    """As `yhzhai/mcm` lies there: a folder for each style, with the weights and PEFT's config."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--somebody--styles" / "snapshots" / ("a" * 40)
    (snapshot / "anime").mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (snapshot / "anime" / name).write_bytes((peft_folder / name).read_bytes())
    settings = Settings(data=tmp_path / "data", cache=tmp_path / "cache", hub=False)
    card = Lora("Anime", Source("somebody/styles"), "anime/adapter_model.safetensors", "MIT", "nothing")
    assert lora.load(card, tiny.unet(), settings)
    with pytest.raises(ValueError, match="somebody/styles is not on this machine.*put its real/adapter_model"):
        lora.load(Lora("Real", card.source, "real/adapter_model.safetensors", "MIT", "-"), tiny.unet(), settings)
