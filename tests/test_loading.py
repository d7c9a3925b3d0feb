"""Sources and loading: layouts, preferences, identity, damage, conversion, and a Hub that is there or is not."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from pipelines.cards import Source
from pipelines.catalog import CATALOG
from pipelines.models import files, loading, sources
from pipelines.models.folders import card_of_folder
from pipelines.settings import Settings

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("published") / "model")


@pytest.fixture
def model(published, tmp_path):
    """A copy of the model that a test may damage."""
    return Path(shutil.copytree(published, tmp_path / "model"))


@pytest.fixture
def settings(tmp_path):
    return Settings(cache=tmp_path / "cache", hub=False)


def load(folder, part, settings, variant=None):
    card = card_of_folder(folder)
    card = replace(card, source=replace(card.source, variant=variant))
    return loading.component(card, part, settings).load(lambda done, total: None)


def key(folder, part, settings):
    return loading.component(card_of_folder(folder), part, settings).key


# What is loaded


@pytest.mark.parametrize("part, made", [("unet", tiny.unet), ("vae", tiny.vae), ("text_encoder", tiny.text_encoder)])
def test_a_part_is_loaded_as_it_was_saved(published, settings, part, made):
    module, original = load(published, part, settings), made()
    weights = module.state_dict()
    assert weights.keys() == original.state_dict().keys()
    assert all(tensor.equal(weights[name]) for name, tensor in original.state_dict().items())
    assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())


def test_a_loaded_text_encoder_computes_what_the_saved_one_did(published, settings):
    tokens = torch.arange(77)[None]
    expected = tiny.text_encoder()(tokens).last_hidden_state
    assert load(published, "text_encoder", settings)(tokens).last_hidden_state.equal(expected)


def test_the_parts_without_weights(published, settings):
    assert load(published, "tokenizer", settings)("a bear").input_ids == tiny.tokenizer()("a bear").input_ids
    assert load(published, "scheduler", settings)["beta_end"] == tiny.SCHEDULER["beta_end"]


def test_loading_tells_how_many_bytes_are_done(published, settings):
    told = []
    component = loading.component(card_of_folder(published), "unet", settings)
    component.load(lambda done, total: told.append((done, total)))
    assert told == sorted(told) and len(told) > 10
    assert told[-1] == (component.bytes, component.bytes)


def test_safetensors_go_before_pickles_and_the_variant_before_the_plain_file(model, settings):
    folder = model / "unet"
    plain = load_file(folder / "diffusion_pytorch_model.safetensors")
    marked = {name: {**plain, "conv_in.bias": torch.full((16,), float(mark))} for mark, name in enumerate("abcd")}
    (folder / "diffusion_pytorch_model.safetensors").unlink()

    def bias(variant):
        return load(model, "unet", settings, variant).conv_in.bias[0].item()

    torch.save(marked["a"], folder / "diffusion_pytorch_model.bin")
    assert bias(None) == bias("fp16") == 0
    torch.save(marked["b"], folder / "diffusion_pytorch_model.fp16.bin")
    assert (bias(None), bias("fp16")) == (0, 1)
    save_file(marked["c"], folder / "diffusion_pytorch_model.safetensors")
    assert bias(None) == bias("fp16") == 2
    save_file(marked["d"], folder / "diffusion_pytorch_model.fp16.safetensors")
    assert (bias(None), bias("fp16")) == (2, 3)


@pytest.mark.parametrize("half", [False, True])
def test_sharded_weights(model, settings, half):
    whole = load(model, "unet", settings).state_dict()
    shutil.rmtree(model / "unet")
    shape = tiny.unet().half() if half else tiny.unet()
    shape.save_pretrained(model / "unet", max_shard_size="300KB", variant="fp16" if half else None)
    assert len(list((model / "unet").glob("*-of-*"))) >= 2
    loaded = load(model, "unet", settings, variant="fp16" if half else None)
    assert loaded.dtype == (torch.float16 if half else torch.float32)  # as stored: the manager decides what to run in
    assert all(tensor.to(loaded.dtype).equal(loaded.state_dict()[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("sharded", [False, True])
def test_half_precision_is_loaded_where_there_is_nothing_else(model, settings, sharded):
    whole = load(model, "unet", settings).state_dict()
    shutil.rmtree(model / "unet")
    size = {"max_shard_size": "300KB"} if sharded else {}
    tiny.unet().half().save_pretrained(model / "unet", variant="fp16", **size)
    loaded = load(model, "unet", settings)
    assert loaded.dtype == torch.float16
    assert all(tensor.half().equal(loaded.state_dict()[name]) for name, tensor in whole.items())


def test_an_exclamation_mark_is_read_where_it_is_the_padding_token(model, settings):
    """Its number is 0 within a word, which is what OpenCLIP pads with; as a word it has another."""
    plain = tiny.tokenizer()
    assert plain.convert_ids_to_tokens(0) == "!"
    plain.pad_token = "!"
    plain.save_pretrained(model / "tokenizer")  # as newer libraries save it
    wanted = tiny.tokenizer()("wow !").input_ids
    old = model / "old"
    old.mkdir()
    (old / "vocab.json").write_text(json.dumps(plain.get_vocab()))
    (old / "merges.txt").write_text("#version: 0.2\n")
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (old / "special_tokens_map.json").write_text(json.dumps(marks | {"pad_token": "!"}))
    (old / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"} | marks))
    for folder in (model / "tokenizer", old):
        tokenizer = loading._tokenizer(folder).load(lambda done, total: None)
        ids = tokenizer("wow !", padding="max_length", max_length=12).input_ids
        assert ids[: len(wanted)] == wanted and 0 not in wanted and not any(ids[len(wanted) :])


def test_a_schedule_from_pure_noise_is_refused(model, settings):
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rescale_betas_zero_snr": True}))
    damaged(model, "scheduler", settings, "rescale_betas_zero_snr", str(file))


def test_names_of_older_libraries_are_understood(model, settings):
    autoencoder, encoder = (load(model, part, settings).state_dict() for part in ("vae", "text_encoder"))
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in autoencoder.items():
        new = next((part for part in old if f".{part}." in name), None)
        renamed[name.replace(f".{new}.", f".{old[new]}.") if new else name] = tensor
    assert renamed.keys() != autoencoder.keys()
    os.remove(model / "vae" / "diffusion_pytorch_model.safetensors")
    torch.save(renamed, model / "vae" / "diffusion_pytorch_model.bin")
    levels = {f"text_model.{name}": tensor for name, tensor in encoder.items()}
    levels["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    os.remove(model / "text_encoder" / "model.safetensors")
    torch.save(levels, model / "text_encoder" / "pytorch_model.bin")
    for part, expected in (("vae", autoencoder), ("text_encoder", encoder)):
        loaded = load(model, part, settings).state_dict()
        assert loaded.keys() == expected.keys()
        assert all(tensor.equal(expected[name]) for name, tensor in loaded.items())


def test_the_stored_map_from_latents_to_colours_comes_with_the_vae_every_time(model, settings):
    stored = {"matrix": [[0.1, 0.2, 0.3]] * 4, "bias": [0.0, 0.1, 0.2]}
    (model / "vae" / "latent_rgb.json").write_text(json.dumps(stored))
    component = loading.component(card_of_folder(model), "vae", settings)
    for _ in range(2):
        assert component.load(lambda done, total: None).config.latent_rgb == stored


# Identity


def test_equal_weights_are_one_component_wherever_they_lie(published, model, settings):
    for part in tiny.PARTS:
        assert key(published, part, settings) == key(model, part, settings)
    assert len({key(model, part, settings) for part in tiny.PARTS}) == len(tiny.PARTS)


def test_other_weights_or_another_config_are_another_component(model, settings):
    before = key(model, "unet", settings), key(model, "vae", settings)
    tiny.unet(seed=1).save_pretrained(model / "unet")
    config = json.loads((model / "vae" / "config.json").read_text())
    (model / "vae" / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.5}))
    assert key(model, "unet", settings) != before[0]
    assert key(model, "vae", settings) != before[1]


def test_a_hash_is_remembered_until_the_file_changes(tmp_path, settings):
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    os.utime(file, ns=(1, 1))
    assert files.content_hash(file, settings) == hashlib.sha256(b"one").hexdigest()
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))  # same size, same time: nothing tells that it changed, and it is not read again
    assert files.content_hash(file, settings) == hashlib.sha256(b"one").hexdigest()
    os.utime(file, ns=(2, 2))
    assert files.content_hash(file, settings) == hashlib.sha256(b"two").hexdigest()


# Damage: a sentence that names the file


def damaged(folder, part, settings, *words):
    with pytest.raises(ValueError) as caught:
        load(folder, part, settings)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 700
    for word in words:
        assert word in sentence


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("left", [0, 4, 1000, 0.5, 0.999])
def test_a_truncated_file(model, settings, left):
    file = model / "unet" / WEIGHTS
    content = file.read_bytes()
    file.write_bytes(content[: left if isinstance(left, int) else int(left * len(content))])
    damaged(model, "unet", settings, str(file), "damaged or incomplete")


def test_a_file_with_a_tampered_header(model, settings):
    file = model / "unet" / WEIGHTS
    content = bytearray(file.read_bytes())
    content[8:20] = b"\xff" * 12
    file.write_bytes(content)
    damaged(model, "unet", settings, str(file), "damaged")


def test_a_file_whose_values_are_no_numbers(model, settings):
    file = model / "unet" / WEIGHTS
    weights = load_file(file)
    weights["conv_out.bias"][0] = float("nan")
    save_file(weights, file)
    damaged(model, "unet", settings, str(file), "conv_out.bias")


def test_a_pickle_that_is_more_than_tensors_is_not_opened(model, settings, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    (model / "unet" / WEIGHTS).unlink()
    torch.save({"conv_in.weight": Trap()}, model / "unet" / "diffusion_pytorch_model.bin")
    damaged(model, "unet", settings, "diffusion_pytorch_model.bin", "more than weights")
    assert not (tmp_path / "sprung").exists()


def test_a_training_checkpoint_may_name_lightnings_classes(original, settings, monkeypatch):
    module = ModuleType("pytorch_lightning.callbacks")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks"})
    monkeypatch.setitem(sys.modules, "pytorch_lightning", ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", module)
    file, before = original / "VQGAN_autoencoder.pth", load(original, "vae", settings).state_dict()
    checkpoint = torch.load(file, weights_only=True)
    torch.save(
        {**checkpoint, "callbacks": {module.ModelCheckpoint: {"best": 1}, "other": module.ModelCheckpoint()}}, file
    )
    monkeypatch.undo()  # as on a machine that has no Lightning
    after = load(original, "vae", settings).state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 half an archive"])
def test_a_file_that_is_no_pickle(model, settings, content):
    (model / "unet" / WEIGHTS).unlink()
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(content)
    damaged(model, "unet", settings, "diffusion_pytorch_model.bin", "damaged")


def test_weights_that_do_not_fit_the_config(model, settings):
    weights = load_file(model / "unet" / WEIGHTS)
    save_file({**weights, "conv_in.bias": torch.zeros(5)}, model / "unet" / WEIGHTS)
    damaged(model, "unet", settings, "do not fit", "conv_in.bias")
    save_file({**weights, "stranger": torch.zeros(5)}, model / "unet" / WEIGHTS)
    damaged(model, "unet", settings, "do not fit", "stranger")
    del weights["conv_in.bias"]
    save_file(weights, model / "unet" / WEIGHTS)
    damaged(model, "unet", settings, "do not fit", "conv_in.bias")


@pytest.mark.parametrize(
    "config",
    ["", "[]", "{", '{"_class_name": "Trojan"}', '{"_class_name": "UNet3DConditionModel", "block_out_channels": 7}'],
)
def test_a_config_that_describes_nothing(model, settings, config):
    (model / "unet" / "config.json").write_text(config)
    damaged(model, "unet", settings, "config.json")


def test_missing_files(model, settings):
    (model / "vae" / WEIGHTS).unlink()
    damaged(model, "vae", settings, "no weights", "vae")
    shutil.rmtree(model / "tokenizer")
    damaged(model, "tokenizer", settings, "tokenizer")
    (model / "scheduler" / "scheduler_config.json").write_text("{}")
    damaged(model, "scheduler", settings, "beta_start")
    (model / "unet" / "config.json").unlink()
    damaged(model, "unet", settings, "config.json", "missing")


def test_a_missing_shard(model, settings):
    shutil.rmtree(model / "unet")
    tiny.unet().save_pretrained(model / "unet", max_shard_size="300KB")
    sorted((model / "unet").glob("*-of-*"))[1].unlink()
    damaged(model, "unet", settings, "lacks", "00002-of")


def test_a_broken_tokenizer(model, settings):
    for file in (model / "tokenizer").iterdir():
        file.write_text("{")
    damaged(model, "tokenizer", settings, "tokenizer")


# Cards and availability


def test_the_card_of_a_folder_takes_its_sizes_from_the_configs(published):
    card = card_of_folder(published)
    assert (card.defaults.width, card.defaults.height) == (64, 64)  # latents of 8, a VAE of factor 8
    assert card.system == "modelscope" and card.source == Source(str(published))


def test_folders_that_are_no_text_to_video_model(model, tmp_path):
    with pytest.raises(ValueError, match="holds no model"):
        card_of_folder(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        card_of_folder(tmp_path / "nowhere")
    (model / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    with pytest.raises(ValueError, match="holds a KandinskyPipeline"):
        card_of_folder(model)


def test_what_is_missing_is_told_before_any_job(model, settings):
    card = card_of_folder(model)
    assert sources.availability(card, settings) is None
    (model / "vae" / WEIGHTS).unlink()
    assert str(model / "vae") in sources.availability(card, settings)
    shutil.rmtree(model)
    assert "no folder" in sources.availability(card, settings)


def test_no_folder_but_the_apps_own_may_point_elsewhere(model, settings, tmp_path):
    shutil.copytree(model / "vae", tmp_path / "elsewhere")
    (model / "vae" / WEIGHTS).unlink()
    (model / "components.json").write_text('{"vae": "../elsewhere"}')
    damaged(model, "vae", settings, "no weights", str(model / "vae"))


def test_only_the_apps_own_models_share_weights_and_have_their_own_over_them(model, settings, monkeypatch):
    whole = load(model, "unet", settings).state_dict()
    own = model / "own" / "unet"
    own.mkdir(parents=True)
    shutil.copy(model / "unet" / "config.json", own)
    shutil.copy(model / "model_index.json", model / "own")
    names = sorted(whole)[::3]
    save_file({name: whole[name] + 1 for name in names}, own / "trained.safetensors")
    index = {name: "trained.safetensors" if name in names else f"../../unet/{WEIGHTS}" for name in whole}
    (own / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))
    damaged(model / "own", "unet", settings, f"lacks ../../unet/{WEIGHTS}")
    monkeypatch.setattr(files, "MINIATURES", model)
    found = load(model / "own", "unet", settings).state_dict()
    assert all(tensor.equal(whole[name] + (name in names)) for name, tensor in found.items())
    monkeypatch.setattr(files, "MINIATURES", model / "own")
    damaged(model / "own", "unet", settings, "lacks")


# ModelScope's original files


@pytest.fixture
def original(tmp_path):
    return Path(shutil.copytree(tiny.GOLDENS / "modelscope", tmp_path / "original"))


def test_original_files_are_converted_once(original, settings):
    weights = load(original, "unet", settings).state_dict()
    made = {path: path.stat().st_mtime_ns for path in settings.cache.rglob("*.safetensors")}
    assert len(made) == 1 and weights
    again = load(original, "unet", settings).state_dict()
    assert all(tensor.equal(again[name]) for name, tensor in weights.items())
    assert {path: path.stat().st_mtime_ns for path in settings.cache.rglob("*.safetensors")} == made


def test_a_changed_original_is_converted_anew(original, settings):
    before = key(original, "vae", settings)
    file = original / "VQGAN_autoencoder.pth"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["state_dict"]["first_stage_model.decoder.conv_out.bias"] += 1
    torch.save(checkpoint, file)
    assert key(original, "vae", settings) != before


def test_a_conversion_that_fails_leaves_nothing_behind(original, settings):
    torch.save({"state_dict": {"unrelated": torch.zeros(2)}}, original / "VQGAN_autoencoder.pth")
    damaged(original, "vae", settings, "VQGAN_autoencoder.pth")
    weights = torch.load(original / "text2video_pytorch_model.pth", weights_only=True)
    torch.save({**weights, "stranger": torch.zeros(2)}, original / "text2video_pytorch_model.pth")
    damaged(original, "unet", settings, "stranger")
    assert not list(settings.cache.rglob("config.json")) and not list(settings.cache.glob("converted/*"))


def test_a_truncated_original(original, settings):
    file = original / "text2video_pytorch_model.pth"
    file.write_bytes(file.read_bytes()[:100_000])
    damaged(original, "unet", settings, str(file), "damaged or incomplete")
    file.unlink()
    damaged(original, "unet", settings, str(file), "missing")


def test_a_configuration_of_something_else(original, settings):
    (original / "configuration.json").write_text('{"task": "speech"}')
    damaged(original, "unet", settings, "configuration.json")
    damaged(original, "scheduler", settings, "configuration.json")


def test_the_tokenizer_of_original_files_pads_with_token_0(original, settings):
    damaged(original, "tokenizer", settings, "vocab.json", str(original / "tokenizer"))
    tiny.tokenizer().save_pretrained(original / "tokenizer")
    tokenizer = load(original, "tokenizer", settings)
    tokens = tokenizer("hi", padding="max_length", max_length=77).input_ids
    assert tokens[:4] == tiny.tokenizer()("hi").input_ids and tokens[4:] == [0] * 73


# The Hub: a small server on this machine that speaks as much of its protocol as a download needs

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = replace(CATALOG["modelscope-1.7b"], source=Source("someone/tiny", revision=COMMIT, variant="fp16"))


class Hub(BaseHTTPRequestHandler):
    folder: Path
    served: list[str]

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/someone/tiny/tree/{COMMIT}"):
            files = sorted(file for file in self.folder.rglob("*") if file.is_file())
            self.answer(json.dumps([self.entry(file) for file in files]).encode(), "application/json")
        elif path == f"/api/models/someone/tiny/revision/{COMMIT}":
            names = [file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file()]
            info = {"id": "someone/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self.answer(json.dumps(info).encode(), "application/json")
        elif path.startswith(f"/someone/tiny/resolve/{COMMIT}/"):
            file = self.folder / path.split(f"{COMMIT}/")[1]
            if self.command == "GET":
                self.served.append(file.relative_to(self.folder).as_posix())
            self.answer(file.read_bytes(), "application/octet-stream", ETag=f'"{sha(file)}"')
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def entry(self, file):
        size, digest = file.stat().st_size, sha(file)
        lfs = {"oid": digest, "size": size, "pointerSize": 134}
        return {
            "type": "file",
            "path": file.relative_to(self.folder).as_posix(),
            "size": size,
            "oid": digest,
            "lfs": lfs,
        }

    def answer(self, content, kind, **headers):
        self.send_response(200)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": len(content),
            "X-Repo-Commit": COMMIT,
            **headers,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def sha(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def hub(model):
    """The address of a Hub that has the model as someone/tiny, with half-precision weights and things nobody needs."""
    for part in ("unet", "vae"):
        shutil.copy(model / part / WEIGHTS, model / part / WEIGHTS.replace(".safe", ".fp16.safe"))
        torch.save({}, model / part / "diffusion_pytorch_model.bin")
    (model / "README.md").write_text("words")
    handler = type("Handler", (Hub,), {"folder": model, "served": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def ask(expression, endpoint, home, **environment):
    """What `expression` on `sources`, CARD and Settings gives in a process that knows only this Hub and this cache."""
    program = f"""
import json, sys
from dataclasses import replace
from pathlib import Path
from pipelines.models import sources
from pipelines.catalog import CATALOG, Source
from pipelines.settings import Settings
CARD = replace(CATALOG["modelscope-1.7b"], source=Source("someone/tiny", {COMMIT!r}, "fp16"))
told = []
try:
    print(json.dumps({expression}))
except ValueError as error:
    print(json.dumps("ValueError: " + str(error)))
assert "torch" not in sys.modules
"""
    variables = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "no_proxy": "*",
        **environment,
    }
    process = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


LOCATE = (
    "[str(sources.locate(CARD.source, Settings(hub={hub}), lambda *bytes: told.append(bytes))), told[-1:], told[:1]]"
)
AVAILABLE = "sources.availability(CARD, Settings(hub={hub}))"


def test_a_model_is_downloaded_once_and_only_what_is_needed_of_it(hub, tmp_path, settings, model):
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    assert "downloads it" in ask(AVAILABLE.format(hub=True), endpoint, tmp_path / "home")
    folder, last, first = ask(LOCATE.format(hub=True), endpoint, tmp_path / "home")
    served = hub.RequestHandlerClass.served
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in served and "text_encoder/model.safetensors" in served
    assert not {"README.md", "unet/diffusion_pytorch_model.bin", f"unet/{WEIGHTS}"} & set(served)
    assert 0 < first[0][0] <= last[0][0] <= last[0][1]

    count = len(served)
    nowhere = "http://127.0.0.1:9"
    assert ask(LOCATE.format(hub=False), nowhere, tmp_path / "home")[0] == folder  # no network needed any more
    assert ask(AVAILABLE.format(hub=False), nowhere, tmp_path / "home") is None
    assert len(served) == count
    card = replace(CARD, source=Source(folder, variant="fp16"))
    loaded = loading.component(card, "unet", settings).load(lambda done, total: None)
    assert loaded.state_dict().keys() == tiny.unet().state_dict().keys()


def test_a_downloaded_file_that_changed_is_noticed(hub, tmp_path, settings):
    folder, _, _ = ask(LOCATE.format(hub=True), f"http://127.0.0.1:{hub.server_port}", tmp_path / "home")
    file = (Path(folder) / "unet" / "diffusion_pytorch_model.fp16.safetensors").resolve()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged: its content is not what the Hub has"):
        loading.component(replace(CARD, source=Source(folder, variant="fp16")), "unet", settings)


def test_without_a_network_a_sentence_says_what_to_do(tmp_path):
    sentence = ask(LOCATE.format(hub=True), "http://127.0.0.1:9", tmp_path / "home")
    assert sentence.startswith("ValueError: someone/tiny is not on this machine") and "can't be reached" in sentence
    sentence = ask(LOCATE.format(hub=True), "http://127.0.0.1:9", tmp_path / "home", HF_HUB_OFFLINE="1")
    assert sentence.startswith("ValueError: someone/tiny is not on this machine")
    sentence = ask(LOCATE.format(hub=False), "http://127.0.0.1:9", tmp_path / "home")
    assert sentence.startswith("ValueError: someone/tiny is not on this machine") and "MARIONETTE_HUB=1" in sentence
    assert "MARIONETTE_HUB=1" in ask(AVAILABLE.format(hub=False), "http://127.0.0.1:9", tmp_path / "home")


def test_a_repository_that_is_not_there(hub, tmp_path):
    expression = LOCATE.format(hub=True).replace("CARD.source", 'Source("someone/else")')
    sentence = ask(expression, f"http://127.0.0.1:{hub.server_port}", tmp_path / "home")
    assert sentence.startswith("ValueError:") and "someone/else" in sentence
