"""How a system of another kind is added by its file and its entry in the catalog alone: Wan 2.2, tiny and random.

It has T5's text states, a VAE that compresses time (4k + 1 frames), flow matching and two transformers, which no system
of the app has.
"""

from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_wan
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from diffusers.pipelines.wan import pipeline_wan
from sixth_system import wan22

from pipelines.__main__ import main
from pipelines.cards import Defaults, Limits, ModelCard, Range, Source
from pipelines.catalog import CATALOG, find
from pipelines.events import Failed, Preview, Progress, Result
from pipelines.media import video
from pipelines.models.manager import ModelManager
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.systems import umt5, wan
from pipelines.systems.diffusion import denoise, draw_noise, guided
from pipelines.systems.engine import find_engine
from pipelines.tasks import TextToVideo
from ui import page

ME = "1" * 32


def write_checkpoint(folder):
    """As Wan 2.2 is published: transformers, a VAE, T5 and a flow-matching schedule, a folder each."""
    schedule = FlowMatchEulerDiscreteScheduler(shift=3.0)
    changes = {"transformer_2": tiny_wan.transformer(2), "scheduler": schedule, "boundary_ratio": wan22.BOUNDARY}
    return tiny_wan.write_model(folder, changes)


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """The entry in the catalog."""
    return ModelCard(
        name="wan22",
        title="A tiny Wan",
        system="wan22",
        source=Source(str(write_checkpoint(tmp_path_factory.mktemp("wan22"))), parts=wan22.ENGINE.parts),
        defaults=Defaults(frames=9, width=32, height=32, fps=8, steps=4, guidance=5.0, scheduler="euler"),
        limits=Limits(frames=Range(1, 81, 4), side=Range(16, 64, 16), voxels=81 * 64 * 64),
        summary="Wan's networks, random.",
        licence="None: it has learned nothing.",
        shortcomings="It knows nothing.",
        not_for="Anything but a test.",
        needs="Any computer.",
        schedulers=("euler", "unipc"),
        max_tokens=umt5.MAX_TOKENS,
    )


@pytest.fixture
def settings(card, tmp_path, monkeypatch):
    """Of an app that has the engine and its model."""
    tiny.add_engine(monkeypatch, "wan22", wan22.ENGINE)
    monkeypatch.setitem(CATALOG, card.name, card)
    monkeypatch.setenv("MARIONETTE_DATA", str(tmp_path / "command line"))
    return Settings(data=tmp_path / "data", cache=tmp_path / "cache", device="cpu", hub=False)


@pytest.fixture
def backend(settings):
    backend = local_backend(settings)
    yield backend
    backend.close()


def follow(backend, task):
    return [event for event in backend.jobs.events(backend.jobs.submit(task, ME), ME) if event is not None]


def test_the_backend_makes_its_video_with_both_transformers(backend):
    assert backend.machine.availability("wan22") is None and backend.machine.tokens("wan22", "a robot") == (9, "")
    task = TextToVideo.for_model(find("wan22"), "a robot dances", 7)
    events = follow(backend, task)
    made = events[-1]
    assert isinstance(made, Result), made
    frames = video.read(made.video)
    assert frames.shape == (9, 32, 32, 3) and frames.std() > 1
    assert any(isinstance(event, Preview) for event in events)
    decoded = [event for event in events if isinstance(event, Progress) and event.stage == "Decoding"]
    assert all(event.total == 9 for event in decoded)
    assert made.facts["network_calls"] == 4 and made.facts["device_seconds"] > 0
    loaded = {name for resident in backend.executor.manager.stats() for name in resident.names}
    assert {f"wan22/{part}" for part in wan22.ENGINE.parts} <= loaded

    again = follow(backend, task)[-1]
    other = follow(backend, TextToVideo.for_model(find("wan22"), "a robot dances", 8, scheduler="unipc"))[-1]
    assert np.array_equal(frames, video.read(again.video)) and not np.array_equal(frames, video.read(other.video))


def test_its_frames_count_from_one_in_fours_wherever_they_are_asked_for(settings, backend, tmp_path, capsys):
    for frames in (1, 5, 81):
        assert TextToVideo.for_model(find("wan22"), "a robot", 7, frames=frames).frames == frames
    for frames in (4, 6, 8, 80):
        with pytest.raises(ValueError, match="one of 1, 5, 9, … 81, not"):
            TextToVideo.for_model(find("wan22"), "a robot", 7, frames=frames)
    demo = page.build(backend, Settings(data=tmp_path / "page", model="wan22"))
    (slider,) = [block for block in demo.blocks.values() if block.elem_id == "frames"]
    assert (slider.minimum, slider.maximum, slider.step, slider.value) == (1, 81, 4, 9)

    out = tmp_path / "robot.mp4"
    asked = ["text-to-video", "a robot", "--model", "wan22", "--steps", "2", "-o", str(out)]
    assert main([*asked, "--frames", "6"]) == 2 and "1, 5, 9" in capsys.readouterr().err
    assert main([*asked, "--frames", "5", "--seed", "7"]) == 0 and len(video.read(out)) == 5


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_latents_and_frames_are_those_of_the_published_program(card, settings, guidance, monkeypatch):
    monkeypatch.setattr(pipeline_wan, "prompt_clean", str.strip)  # it wants ftfy, which changes no plain words
    find_engine("wan22")
    models = ModelManager({card.name: card}, settings)
    leases = {part: models.lease(f"wan22/{part}") for part in wan22.ENGINE.parts}
    modules = {part: lease.__enter__() for part, lease in leases.items()}
    schedule = modules.pop("scheduler")
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(schedule)
    published = WanPipeline(**modules, scheduler=scheduler, boundary_ratio=wan22.BOUNDARY)
    published.set_progress_bar_config(disable=True)
    noise = draw_noise((1, tiny_wan.CHANNELS, 3, 4, 4), seed=7)
    parts = [modules[name] for name in ("transformer", "transformer_2")]
    with torch.no_grad():
        texts = torch.cat(
            [
                umt5.encode([text], modules["tokenizer"], modules["text_encoder"])
                for text in tiny_wan.PROMPTS[guidance <= 1 :]
            ]
        )
        networks = [wan.network(part, texts) for part in parts]

        def predict(latents, timestep):
            return networks[timestep < 1000 * wan22.BOUNDARY](latents, timestep)

        predict = guided(predict, guidance) if guidance > 1 else predict
        *_, last = denoise(predict, noise, wan.solver("euler", schedule, 4), wan.estimate(schedule))
        frames = np.stack(list(wan.decode(modules["vae"], last.latents)))
        asked = {"prompt": tiny_wan.PROMPTS[1], "negative_prompt": tiny_wan.PROMPTS[0]}
        asked |= {"num_frames": 9, "height": 32, "width": 32}
        asked |= {"num_inference_steps": 4, "guidance_scale": guidance, "max_sequence_length": umt5.MAX_TOKENS}
        expected = published(**asked, latents=noise.clone(), output_type="latent").frames
        pictures = published(**asked, latents=noise.clone(), output_type="np").frames[0]
    assert tiny.relative_error(last.latents, expected) < 1e-5
    assert tiny.relative_error(last.denoised, expected) < 0.5 and frames.shape == (9, 32, 32, 3)
    assert np.abs(frames / 255 - pictures).max() < 1.5 / 255  # it rounds, we truncate

    task = TextToVideo.for_model(card, tiny_wan.PROMPTS[1], 7, guidance=guidance, negative_prompt=tiny_wan.PROMPTS[0])
    for lease in leases.values():
        lease.__exit__(None, None, None)
    _, (ours, _) = tiny.finish(wan22.generate(task, models))
    assert np.array_equal(ours, frames)


def test_a_video_that_does_not_fit_is_told_a_number_of_frames_that_is_one_of_its_own(card, settings):
    find_engine("wan22")
    with torch.device("meta"):
        module = WanTransformer3DModel(**tiny_wan.TRANSFORMER)
    room = wan.denoising_memory(module, 2, 3, 4, 4, 8)
    assert room < wan.denoising_memory(module, 2, 4, 4, 4, 8)
    weights = sum(file.stat().st_size for file in (Path(card.source.location) / "transformer").glob("*.safetensors"))
    models = ModelManager({card.name: card}, settings, budget=lambda: weights + room)
    with pytest.raises(MemoryError, match="At 32x32, 9 frames fit"):
        tiny.finish(wan22.generate(TextToVideo.for_model(card, "a robot", 7, frames=21), models))


def test_half_precision_is_bfloat16_where_its_values_need_that(card, settings):
    find_engine("wan22")
    models = ModelManager({card.name: card}, settings)
    models.dtype = torch.float16  # as on a GPU
    kinds = {}
    for part in ("transformer", "text_encoder", "vae"):
        with models.lease(f"wan22/{part}") as module:
            kinds[part] = module.dtype
        assert models.empty(f"wan22/{part}").dtype == kinds[part]
    assert kinds == dict.fromkeys(kinds, torch.bfloat16)


def test_an_engine_that_the_catalog_does_not_name_is_refused(tmp_path, card):
    with pytest.raises(ValueError, match="no engine called 'wan22'"):
        find_engine("wan22")
    backend = local_backend(Settings(data=tmp_path / "data", device="cpu", hub=False), {card.name: card})
    try:
        assert isinstance(follow(backend, TextToVideo.for_model(card, "a robot", 7))[-1], Failed)
    finally:
        backend.close()
