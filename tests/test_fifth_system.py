"""How a fifth system is added: the README's ten steps, each tried for real with AnimateDiff and a tiny checkpoint.

What the steps write into files of the package is put there for the time of a test only.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter, UNetMotionModel
from fifth_system import animatediff

from pipelines.__main__ import main
from pipelines.cards import Defaults, Limits, ModelCard, Range, Source
from pipelines.catalog import CATALOG, find
from pipelines.events import Preview, Progress, Result
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.systems.diffusion import draw_noise
from pipelines.tasks import TextToVideo, from_json, to_json
from ui import page

ROOT = Path(__file__).resolve().parent.parent
ME = "1" * 32
SIZES = {
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
    "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "cross_attention_dim": tiny.WIDTH,
    "num_attention_heads": 4,
    "motion_num_attention_heads": 4,
    "norm_num_groups": 8,
    "sample_size": 8,
}


def write_checkpoint(folder):
    """Step 2: AnimateDiff's network in the layout in which models are published, random and tiny."""
    tiny.randomised(UNetMotionModel(**SIZES)).save_pretrained(folder / "unet")
    tiny.vae().save_pretrained(folder / "vae")
    tiny.text_encoder().save_pretrained(folder / "text_encoder")
    tiny.tokenizer().save_pretrained(folder / "tokenizer")
    DDIMScheduler(**tiny.SCHEDULER).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "AnimateDiffPipeline"}))
    return folder


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """Step 6."""
    return ModelCard(
        name="animatediff",
        title="A tiny AnimateDiff",
        system="animatediff",
        source=Source(str(write_checkpoint(tmp_path_factory.mktemp("animatediff")))),
        defaults=Defaults(frames=4, width=64, height=64, fps=8, steps=3, guidance=7.5, scheduler="ddim"),
        limits=Limits(frames=Range(1, 32), side=Range(64, 128, 8), voxels=32 * 128 * 128),
        summary="Stable Diffusion with motion modules, random.",
        licence="None: it has learned nothing.",
        shortcomings="It knows nothing.",
        not_for="Anything but a test.",
        needs="Any computer.",
        schedulers=("ddim", "dpm++", "pndm"),
    )


@pytest.fixture
def added(card, monkeypatch):
    """The system where steps 3, 4 and 6 put it."""
    tiny.add_engine(monkeypatch, "animatediff", animatediff.ENGINE)
    monkeypatch.setitem(CATALOG, card.name, card)


@pytest.fixture
def backend(added, tmp_path):
    backend = local_backend(Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False))
    yield backend
    backend.close()


def test_the_backend_makes_its_video_with_progress_previews_and_facts(backend, card):
    assert backend.machine.availability("animatediff") is None
    assert backend.machine.tokens("animatediff", "a robot")[0] > 2
    task = TextToVideo.for_model(find("animatediff"), "a robot dances", 7)
    job = backend.jobs.submit(task, ME)
    events = [event for event in backend.jobs.events(job, ME) if event is not None]
    made = events[-1]
    assert isinstance(made, Result), made
    frames = video.read(made.video)
    assert frames.shape == (4, 64, 64, 3) and frames.std() > 1
    steps = [event.step for event in events if isinstance(event, Progress) and event.stage == "Denoising"]
    assert steps and steps == sorted(steps) and any(isinstance(event, Preview) for event in events)
    assert made.facts["network_calls"] == 3 and made.facts["device_seconds"] > 0
    assert from_json(to_json(task)) == task == backend.assets.task_of(made.video, ME)

    again = [event for event in backend.jobs.events(backend.jobs.submit(task, ME), ME) if event][-1]
    other = [event for event in backend.jobs.events(backend.jobs.submit(replace(task, seed=8), ME), ME) if event][-1]
    assert np.array_equal(frames, video.read(again.video)) and not np.array_equal(frames, video.read(other.video))


def test_the_page_the_endpoints_and_the_command_line_find_it_in_the_catalog(backend, card, tmp_path, capsys):
    """Step 6 is all that they need."""
    demo = page.build(backend, Settings(data=tmp_path / "data", model=card.name))
    (chosen,) = [block for block in demo.blocks.values() if block.elem_id == "model"]
    assert card.name in [name for _, name in chosen.choices] and chosen.value == card.name
    (model,) = [one for one in demo.get_api_info()["named_endpoints"]["/text_to_video"]["parameters"]
                if one["parameter_name"] == "model"]  # fmt: skip
    assert card.name in model["type"]["enum"]
    assert main(["models"]) == 0 and card.summary in capsys.readouterr().out


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_the_latents_are_those_of_the_published_program(card, guidance):
    """Step 8, in fp32: diffusers' own pipeline with the same weights, noise and prompts."""
    folder = Path(card.source.location)
    unet = UNetMotionModel.from_pretrained(folder / "unet")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    published = AnimateDiffPipeline(
        tiny.vae(), tiny.text_encoder(), tiny.tokenizer(), unet, MotionAdapter(block_out_channels=(16, 32),
        motion_num_attention_heads=4, motion_norm_num_groups=8), scheduler,
    )  # fmt: skip
    published.set_progress_bar_config(disable=True)
    noise = draw_noise((1, 4, 4, 8, 8), seed=7)
    tokenizer, encoder = tiny.tokenizer(), tiny.text_encoder()
    prompts = ["blurry", "a robot dances"]
    with torch.no_grad():
        ids = tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        texts = encoder(ids).last_hidden_state
        *_, last = animatediff.sample(
            unet, texts if guidance > 1 else texts[1:], noise, dict(scheduler.config), "ddim", 5, guidance
        )
        expected = published(
            prompt=prompts[1], negative_prompt=prompts[0], num_frames=4, height=64, width=64, num_inference_steps=5,
            guidance_scale=guidance, latents=noise.clone(), output_type="latent",
        ).frames  # fmt: skip
    assert tiny.relative_error(last.latents, expected) < 1e-5


def test_memory_is_counted_before_anything_is_made(card):
    """Step 5."""
    with torch.device("meta"):
        unet = UNetMotionModel(**SIZES)
    few, more = (animatediff.denoising_memory(unet, 2, frames, 8, 8, 1) for frames in (4, 8))
    assert 1.8 < more / few < 2.2


def test_the_readme_has_these_steps():
    text = (ROOT / "README.md").read_text("utf-8").partition("### A fifth system")[2].partition("\n## ")[0]
    steps = re.findall(r"^(\d+)\. ", text, re.M)
    assert steps == [str(number) for number in range(1, 11)]
    named = set(re.findall(r"`((?:pipelines|tests|ui|scripts)/[\w/.]*)`", text))
    assert named and all((ROOT / path.rstrip("/")).exists() for path in named), named
    assert "`CLASSES`" in text and "`CATALOG`" in text and "tests/test_fifth_system.py" in named
