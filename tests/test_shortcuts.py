"""What makes a job faster and changes its video: off by default, told in its facts, and without a trace afterwards."""

import json
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from pipelines import __main__ as cli
from pipelines.cards import Lora, Source
from pipelines.catalog import FASTER, find
from pipelines.media import video
from pipelines.model_tasks import SHORTCUTS
from pipelines.models import manager as manager_module
from pipelines.models.convert import tuned as tuned_files
from pipelines.models.folders import card_of_folder
from pipelines.models.manager import ModelManager
from pipelines.models.networks.caching import WHOLE
from pipelines.models.networks.inflated_unet import EditingUNet
from pipelines.models.networks.pseudo3d_unet import Pseudo3DUNet
from pipelines.models.networks.unet3d import TextToVideoUNet
from pipelines.serving import estimate
from pipelines.settings import Settings
from pipelines.systems import tuning
from pipelines.systems.diffusion import draw_noise
from pipelines.systems.engine import find_engine
from pipelines.systems.prediction import EXACT, Shortcuts, prediction
from pipelines.systems.shortcuts import plan
from pipelines.tasks import Edit, PoseToVideo, TextToVideo, Tune, from_json, to_json

SIZE = {"width": 64, "height": 64, "frames": 4}
CONFIG = {**tiny.SCHEDULER, "num_train_timesteps": 1000}


# Cached features


NETWORKS = {
    "ModelScope": (tiny.unet, TextToVideoUNet, 4),
    "Tune-A-Video": (tiny.inflated_unet, EditingUNet, 4),
    "TempoFunk": (tiny.pseudo3d_unet, Pseudo3DUNet, 9),
}


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_cached_features_are_computed_in_every_so_many_steps(name):
    build, kind, channels = NETWORKS[name]
    unet = build()
    latents = [draw_noise((1, channels, 3, 8, 8), seed) for seed in range(WHOLE + 3)]
    texts = draw_noise((2, 7, tiny.WIDTH), 9)
    exact, cached = kind(unet, texts), kind(unet, texts, caching=2)
    expected = [exact(one, 900 - 100 * step) for step, one in enumerate(latents)]
    deep, shallow = unet.mid_block.resnets[0].conv1, unet.conv_out
    calls = tiny.count_calls([getattr(one, "spatial_conv", one) for one in (deep, shallow)])
    found = [cached(one, 900 - 100 * step) for step, one in enumerate(latents)]
    assert [len(rows) for rows in calls.values()] == [WHOLE + 2, WHOLE + 3]
    same = [ours.equal(reference) for ours, reference in zip(found, expected, strict=True)]
    assert same == [True] * (WHOLE + 1) + [False, True]
    # Where nothing has changed since the whole step, neither do the features.
    again = kind(unet, texts, caching=10)
    assert all(again(latents[0], 900).equal(expected[0]) for _ in range(WHOLE + 2))


@torch.no_grad()
def test_the_poses_are_among_what_is_cached():
    unet = tiny.inflated_unet(pose=True)
    pictures = torch.rand(1, 3, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    found = unet.skeleton_adapter(pictures)
    texts, latents = draw_noise((1, 7, tiny.WIDTH), 9), draw_noise((1, 4, 3, 8, 8), 1)
    with_poses, without = (EditingUNet(unet, texts, pose_features=one, caching=4) for one in (found, None))
    assert [with_poses(latents, 500).equal(without(latents, 500)) for _ in range(WHOLE + 2)] == [False] * (WHOLE + 2)


# Guidance in an interval


def test_outside_the_interval_only_the_prompt_counts():
    asked = []

    def network(states, frames):
        def predict(latents, timestep):
            asked.append((timestep, len(states)))
            return states.mean((1, 2)).view(-1, 1) * latents

        return predict

    states = torch.stack([torch.full((7, 3), 2.0), torch.full((7, 3), 5.0)])
    predict = prediction(network, states, 3.0, CONFIG, Shortcuts(guided_from=0.2, guided_until=0.7))
    told = {timestep: predict(torch.ones(1, 1), timestep).item() for timestep in (999, 850, 700, 400, 200, 0)}
    assert told == {999: 5, 850: 5, 700: 2 + 3 * 3, 400: 11, 200: 5, 0: 5}
    assert [branches for _, branches in asked] == [1, 1, 2, 2, 1, 1]
    asked.clear()
    whole = prediction(network, states, 3.0, CONFIG, EXACT)
    assert {whole(torch.ones(1, 1), timestep).item() for timestep in (999, 500, 0)} == {11}


# Whole jobs of every system


def write_lora(file, unet, seed=1):
    """A LoRA for the attention of `unet`, as diffusers writes it."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_v", "proj_out")):
            weight = module.weight
            down, up = (2, *weight.shape[1:]), (len(weight), 2, *(1,) * (weight.ndim - 2))
            for part, shape in (("A", down), ("B", up)):
                tensors[f"unet.{name}.lora_{part}.weight"] = 0.3 * torch.randn(shape, generator=generator)
    save_file(tensors, file)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models of every system, each but TempoFunk's with a LoRA; and a clip that was tuned on."""
    folder = tmp_path_factory.mktemp("models")
    made = {
        "text": (tiny.write_model(folder / "text"), tiny.unet()),
        "sd": (tiny.write_image_model(folder / "sd"), tiny.inflated_unet()),
        "pose": (tiny.write_pose_model(folder / "pose"), tiny.inflated_unet(pose=True)),
        "pseudo3d": (tiny.write_pseudo3d_model(folder / "pseudo3d"), None),
    }
    cards = {}
    for name, (path, unet) in made.items():
        loras = {}
        if unet is not None:
            write_lora(path / "fast.safetensors", unet)
            loras = {
                "fast": Lora("Fast", Source(str(path)), "fast.safetensors", "MIT", "nothing", timestep_scaling=4.0)
            }
        card = card_of_folder(path)
        cards[name] = replace(card, name=name, loras=loras, defaults=replace(card.defaults, steps=6))
    settings = Settings(data=folder / "data", cache=folder / "cache", hub=False)
    models = ModelManager(cards, settings, device="cpu")
    frames = np.full((8, 64, 64, 3), 40, np.uint8)
    for number, frame in enumerate(frames):
        frame[20:40, 6 * number : 6 * number + 16] = (230, 120, 60)
    video.write(frames, folder / "clip.mp4", 8)
    task = Tune.for_model(cards["sd"], "a square walks", 5, clip="0" * 32, steps=1, **SIZE)
    (folder / "tuned").mkdir()
    files = folder / "clip.mp4", folder / "tuned", folder / "tuned" / "clip.mp4"
    with closing(tuning.generate(task, models, *files)) as events:
        for _ in events:
            pass
    models.tuned = folder / "tuned"
    return models


def made(models, system, **settings):
    """The frames and the facts of a small job."""
    small = {"steps": 7, "guidance": 3.0, "scheduler": "ddim"} if "lora" not in settings else {}
    inputs, settings = {}, {**small, **settings}
    if system == "sd":
        settings, inputs = {"tuned": "0" * 32, "fps": 8, **settings}, {"tuned": models.tuned}
        task = Edit.for_model(models.card("sd"), "a circle walks", 5, **SIZE, **settings)
    elif system == "pose":
        task = PoseToVideo.for_model(
            models.card("pose"), "a bear", 5, motion="wave", **{**SIZE, "frames": 8}, **settings
        )
    else:
        task = TextToVideo.for_model(models.card(system), "a bear", 5, **SIZE, **settings)
    assert from_json(to_json(task), models._catalog) == task
    generate = find_engine(models.card(system).system).generate[type(task)]
    _, found = tiny.finish(generate(task, models, **inputs))
    return found


CHANGES = {
    "caching": ({"caching": 2}, "DeepCache"),
    "guidance": ({"guided_from": 0.3, "guided_until": 0.8}, "guidance only from 0.3 to 0.8"),
    "precision": ({"precision": "fast"}, "bfloat16"),
    "lora": ({"lora": "fast"}, "(Fast)"),
}


@pytest.mark.parametrize("system", ["text", "sd", "pose", "pseudo3d"])
def test_each_changes_the_video_is_told_and_leaves_the_next_one_alone(models, system, monkeypatch):
    monkeypatch.setattr(manager_module, "_multiplies_bfloat16", lambda: True)  # whatever processor runs the tests
    exact, facts = made(models, system)
    assert facts["approximations"] == "none" and facts["dtype"] == "torch.float32"
    for name, (settings, told) in CHANGES.items():
        if name == "lora" and not models.card(system).loras:
            continue
        frames, facts = made(models, system, **settings)
        assert told in facts["approximations"], name
        assert not np.array_equal(frames, exact), name
        assert facts["dtype"] == ("torch.bfloat16" if name == "precision" else "torch.float32")
        assert np.array_equal(made(models, system, **settings)[0], frames), name
    assert np.array_equal(made(models, system)[0], exact)


def test_a_processor_without_such_arithmetic_computes_exactly_and_says_so(models, monkeypatch):
    monkeypatch.setattr(manager_module, "_multiplies_bfloat16", lambda: False)
    exact, _ = made(models, "text")
    frames, facts = made(models, "text", precision="fast")
    assert np.array_equal(frames, exact) and facts["approximations"] == "none"


def test_an_edit_by_a_lora_starts_from_the_noise_that_the_usual_steps_find(models):
    made(models, "sd", lora="fast")
    usual = models.card("sd").defaults.steps
    assert tuned_files.load_inversion(usual, models.tuned) is not None
    assert not np.array_equal(made(models, "sd", lora="fast", strength=1)[0], made(models, "sd", lora="fast")[0])


def test_the_trajectory_of_a_rounded_network_is_not_taken_for_the_exact_one(models, monkeypatch):
    monkeypatch.setattr(manager_module, "_multiplies_bfloat16", lambda: True)
    made(models, "sd", precision="fast", steps=3)
    assert tuned_files.load_inversion(3, models.tuned) is None
    rounded = tuned_files.load_inversion(3, models.tuned, torch.bfloat16)
    made(models, "sd", steps=3)
    assert not torch.equal(tuned_files.load_inversion(3, models.tuned), rounded)


def test_what_a_lora_takes_is_counted_and_its_sampler_told(models):
    task = TextToVideo.for_model(models.card("text"), "a bear", 5, lora="fast", **SIZE)
    way = plan(task, models)
    with models.lease("text/unet") as unet:
        changed = way.network(unet)
        assert way.bytes == sum(
            one.nbytes for one, other in zip(changed.parameters(), unet.parameters(), strict=True) if one is not other
        )
    assert way.schedule({"beta_start": 1}) == {"beta_start": 1, "timestep_scaling": 4.0}
    assert (task.steps, task.guidance, task.scheduler) == (4, 1.0, "lcm")


# What may be asked for


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"lora": "gone"}, "has no LoRA called 'gone'. Choose one of: mcm-webvid"),
        ({"lora": None}, "no LoRA called 'None'"),
        ({"lora": ["mcm-anime"]}, "no LoRA called"),
        ({"lora": "mcm-anime", "scheduler": "ddim"}, "Choose one of: lcm"),
        ({"scheduler": "lcm"}, "no scheduler called 'lcm'"),
        ({"precision": "half"}, "no precision called 'half'. Choose one of: exact, fast"),
        ({"precision": 1}, "no precision called"),
        ({"caching": 0}, "share deep features must be from 1 to 10"),
        ({"caching": 2.5}, "whole number"),
        ({"guided_from": -0.1}, "guidance begins must be from 0 to 1"),
        ({"guided_until": float("nan")}, "guidance ends must be a number"),
        ({"guided_from": 0.5, "guided_until": 0.5}, "must begin before it ends"),
    ],
)
def test_what_can_not_be_is_refused_in_words(settings, says):
    with pytest.raises(ValueError, match=says):
        TextToVideo.for_model(find("modelscope-1.7b"), "a bear", 7, **settings)


def test_a_model_that_takes_no_shortcuts_says_so():
    plain = replace(find("miniature-modelscope"), takes=frozenset())
    for name in FASTER:
        value = {"precision": "fast", "caching": 2, "guided_from": 0.1, "guided_until": 0.9}[name]
        with pytest.raises(ValueError, match="takes no"):
            TextToVideo.for_model(plain, "a bear", 7, **{name: value})
        assert TextToVideo.for_model(plain, "a bear", 7, **{name: SHORTCUTS[name]})


def test_a_video_made_before_there_were_any_is_still_one():
    task = TextToVideo.for_model(find("miniature-modelscope"), "a bear", 7)
    values = {name: value for name, value in json.loads(to_json(task)).items() if name not in SHORTCUTS}
    assert from_json(json.dumps(values)) == task


def test_they_make_an_estimate_shorter_and_jobs_of_their_own_kind():
    card = find("modelscope-1.7b")
    assert estimate.WHOLE == WHOLE
    exact = TextToVideo.for_model(card, "a bear", 7)
    for settings in ({"caching": 3}, {"guided_from": 0.5}, {"lora": "mcm-anime"}):
        faster = TextToVideo.for_model(card, "a bear", 7, **settings)
        assert estimate.work(faster, card) < 0.9 * estimate.work(exact, card) and faster.effort != exact.effort


@pytest.mark.parametrize(
    "command", [["text-to-video", "a bear"], ["pose-to-video", "motion:wave", "a bear"], ["edit", "a", "b"]]
)
def test_the_command_line_has_them_all(command):
    given = ["--lora", "lcm", "--precision", "fast", "--caching", "3", "--guided-from", "0.2", "--guided-until", "0.8"]
    chosen = cli._parser().parse_args([*command, *given])
    values = {"lora": "lcm", "precision": "fast", "caching": 3, "guided_from": 0.2, "guided_until": 0.8}
    assert {name: getattr(chosen, name) for name in SHORTCUTS} == values
