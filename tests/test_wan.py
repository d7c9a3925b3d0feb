"""Wan 2.1, text to video, from the prompt to the frames: on a tiny model of the real classes, against diffusers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_wan
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
    WanVideoToVideoPipeline,
)
from diffusers.pipelines.wan import pipeline_wan, pipeline_wan_video2video
from PIL import Image
from transformers import UMT5Config, UMT5EncoderModel

from pipelines.__main__ import main
from pipelines.cards import Range
from pipelines.catalog import find
from pipelines.events import Preview, Progress
from pipelines.media import clips, video
from pipelines.models.folders import card_of_folder
from pipelines.models.memory import peak_bytes
from pipelines.serving import estimate
from pipelines.settings import Settings
from pipelines.systems import umt5, wan
from pipelines.systems.checkpoints import Checkpoints
from pipelines.systems.diffusion import draw_noise
from pipelines.systems.engine import find_engine
from pipelines.tasks import NOBODY, TextToVideo

SMALL = {"frames": 9, "width": 32, "height": 32, "steps": 4, "negative_prompt": tiny_wan.PROMPTS[0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_wan.write_model(tmp_path_factory.mktemp("published") / "model")


@pytest.fixture(scope="module")
def card(folder):
    find_engine("wan")
    return card_of_folder(folder)


@pytest.fixture(scope="module")
def models(card, tmp_path_factory):
    return tiny_wan.manager({card.name: card}, tmp_path_factory.mktemp("app"))


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Where the command line keeps what it has read."""
    monkeypatch.setenv("MARIONETTE_DATA", str(tmp_path / "data"))


def task(card, prompt=tiny_wan.PROMPTS[1], **settings):
    return TextToVideo.for_model(card, prompt, settings.pop("seed", 7), **{**SMALL, **settings})


def run(task, models, **inputs):
    events, (frames, facts) = tiny.finish(wan.generate(task, models, **inputs))
    return events, frames, facts


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A wide clip of noise that grows brighter: 24 frames, 8 a second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = np.random.default_rng(0).integers(0, 64, (24, 48, 64, 3), np.uint8)
    video.write(frames + 7 * np.arange(24, dtype=np.uint8)[:, None, None, None], path, 8)
    return path


def recorded(monkeypatch):
    """The latents that are decoded from now on, and the clips they become."""
    latents, clips, plain = [], [], wan.decode_clips

    def decode_clips(vae, given):
        latents.append(given)
        for clip in plain(vae, given):
            clips.append(clip)
            yield clip

    monkeypatch.setattr(wan, "decode_clips", decode_clips)
    return latents, clips


# Against the published program


@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
@pytest.mark.parametrize("guidance", [1.0, 6.0])
@pytest.mark.parametrize("shift", [0.0, 8.0])
def test_the_latents_and_frames_are_those_of_diffusers(card, folder, tmp_path, guidance, scheduler, shift, monkeypatch):
    monkeypatch.setattr(pipeline_wan, "prompt_clean", str.strip)  # it wants ftfy, which changes no plain words
    kind = {"unipc": UniPCMultistepScheduler, "euler": FlowMatchEulerDiscreteScheduler}[scheduler]
    told = {"unipc": tiny_wan.SCHEDULE | {"flow_shift": shift or 3.0}, "euler": {"shift": shift or 3.0}}
    published = WanPipeline.from_pretrained(folder, scheduler=kind(**told[scheduler]))
    published.set_progress_bar_config(disable=True)
    noise = draw_noise((1, tiny_wan.CHANNELS, 3, 4, 4), seed=7)
    asked = {"prompt": tiny_wan.PROMPTS[1], "negative_prompt": tiny_wan.PROMPTS[0], "guidance_scale": guidance}
    asked |= {"num_frames": 9, "height": 32, "width": 32, "num_inference_steps": 5}
    expected = published(**asked, latents=noise.clone(), output_type="latent").frames
    pictures = published(**asked, latents=noise.clone(), output_type="np").frames[0]

    models = tiny_wan.manager({card.name: replace(card, flow_shift=shift)}, tmp_path)
    latents, clips = recorded(monkeypatch)
    run(task(card, guidance=guidance, scheduler=scheduler, steps=5), models)
    assert tiny.relative_error(latents[0], expected) < 1e-5
    ours = torch.cat(clips, dim=2)[0].permute(1, 2, 3, 0)  # (F, H, W, 3)
    assert tiny.relative_error(ours * 0.5 + 0.5, torch.from_numpy(pictures)) < 1e-5


@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
@pytest.mark.parametrize("guidance", [1.0, 6.0])
@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
def test_a_clip_is_changed_as_by_diffusers(card, folder, models, clip, scheduler, guidance, strength, monkeypatch):
    monkeypatch.setattr(pipeline_wan_video2video, "prompt_clean", str.strip)  # as above
    noise = draw_noise((1, tiny_wan.CHANNELS, 3, 4, 4), seed=7)
    monkeypatch.setattr(pipeline_wan_video2video, "randn_tensor", lambda *shape, **rest: noise.clone())
    kind = {"unipc": UniPCMultistepScheduler, "euler": FlowMatchEulerDiscreteScheduler}[scheduler]
    told = {"unipc": tiny_wan.SCHEDULE, "euler": {"shift": 3.0}}[scheduler]
    published = WanVideoToVideoPipeline.from_pretrained(folder, scheduler=kind(**told))
    published.set_progress_bar_config(disable=True)
    asked = {"prompt": tiny_wan.PROMPTS[1], "negative_prompt": tiny_wan.PROMPTS[0], "guidance_scale": guidance}
    asked |= {"height": 32, "width": 32, "num_inference_steps": 5, "strength": strength, "output_type": "latent"}
    changed = task(card, clip=NOBODY, guidance=guidance, scheduler=scheduler, steps=5, clip_strength=strength, fps=8)
    pictures = clips.read_changed(changed, clip, models.settings)
    expected = published(video=[Image.fromarray(picture) for picture in pictures], **asked).frames

    latents, _ = recorded(monkeypatch)
    _, frames, facts = run(changed, models, clip=clip)
    assert tiny.relative_error(latents[0], expected) < 1e-5
    assert facts["network_calls"] == {0.3: 1, 0.75: 3, 1.0: 5}[strength] and facts["clip_frames"] == len(frames) == 9


def test_the_frames_are_decoded_as_the_whole_clip_is(models, card):
    latents = torch.randn(1, tiny_wan.CHANNELS, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    with models.lease(f"{card.name}/vae") as vae, torch.no_grad():
        mean, deviation = wan.statistics(vae, latents)
        whole = vae.decode(latents * deviation + mean).sample
        clips = list(wan.decode_clips(vae, latents))
    assert [clip.shape[2] for clip in clips] == [1, 4, 4, 4]
    assert torch.equal(torch.cat(clips, dim=2), whole)


def test_statistics_are_the_channels_own(models, card):
    with models.lease(f"{card.name}/vae") as vae:
        mean, deviation = wan.statistics(vae, torch.zeros(1))
    assert mean.flatten().tolist() == pytest.approx(tiny_wan.VAE["latents_mean"])
    assert deviation.flatten().tolist() == pytest.approx(tiny_wan.VAE["latents_std"])


def test_a_prompt_is_read_without_the_padding_that_is_masked(models, card):
    with (
        models.lease(f"{card.name}/tokenizer") as tokenizer,
        models.lease(f"{card.name}/text_encoder") as encoder,
        torch.no_grad(),
    ):
        tokens = tokenizer(tiny_wan.PROMPTS, return_tensors="pt", padding="max_length", max_length=umt5.MAX_TOKENS)
        padded = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state * tokens.attention_mask[..., None]
        rows = []
        hook = encoder.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[1]))
        together = umt5.encode(tiny_wan.PROMPTS, tokenizer, encoder)
        hook.remove()
        long = umt5.encode(["a " * 600], tokenizer, encoder)
    assert tiny.relative_error(together, padded) < 1e-5 and rows[0] < 40
    assert long.shape == (1, umt5.MAX_TOKENS, 16) and long[0, -1].abs().max() > 0


@pytest.mark.parametrize("name", ["unipc", "euler"])
def test_noise_levels_that_round_to_one_timestep_are_taken_one_by_one(name):
    made = wan.solver(name, {"num_train_timesteps": 1000, "shift": 30.0}, 100)
    latents = torch.ones(1, 1, 1, 1, 1)
    for timestep in made.timesteps:
        latents = made.step(torch.zeros_like(latents), timestep, latents)
    assert len(made.timesteps) == 100 and torch.isfinite(latents).all()
    if name == "unipc":
        assert len(set(made.timesteps)) < 100
    with pytest.raises(ValueError, match="no solver called 'ddim'"):
        wan.solver("ddim", {"num_train_timesteps": 1000}, 4)


# The whole


def test_a_prompt_becomes_frames(card, models):
    events, frames, facts = run(task(card), models)
    assert frames.shape == (9, 32, 32, 3) and frames.dtype == np.uint8 and frames.std() > 1
    assert facts["network_calls"] == 4 and facts["approximations"] == "none"
    assert set(facts["seconds_by_stage"]) == {"Reading the prompt", "Denoising", "Decoding"}
    decoded = [event.step for event in events if isinstance(event, Progress) and event.stage == "Decoding"]
    assert decoded == list(range(1, 10)) and any(isinstance(event, Preview) for event in events)


def test_everything_in_the_task_matters_and_nothing_else(card, models):
    def frames(**changes):
        return run(task(card, **changes), models)[1]

    first = frames()
    torch.manual_seed(123)
    assert np.array_equal(first, frames())
    changes = [{"prompt": "a fox"}, {"negative_prompt": "rain"}, {"seed": 8}, {"guidance": 3.0}, {"steps": 5}]
    for change in [*changes, {"scheduler": "euler"}, {"guided_until": 0.2}]:
        assert not np.array_equal(first, frames(**change)), change
    assert np.array_equal(frames(guidance=1.0), frames(guidance=1.0, negative_prompt="rain"))


def test_one_frame_is_a_picture(card, models):
    assert run(task(card, frames=1), models)[1].shape == (1, 32, 32, 3)


def test_a_prompt_that_was_read_does_not_bring_the_text_encoder_back(card, tmp_path):
    encoder = f"{card.name}/text_encoder"

    def made(**changes):
        """By another process, and which parts that has loaded."""
        models = tiny_wan.manager({card.name: card}, tmp_path)
        frames = run(task(card, steps=1, **changes), models)[1]
        return frames, {name for resident in models.stats() for name in resident.names}

    (first, loaded), (again, without) = made(), made()
    assert encoder in loaded and encoder not in without and np.array_equal(first, again)
    assert f"{card.name}/tokenizer" not in without
    assert encoder in made(prompt="a fox")[1] and encoder not in made(guidance=1.0)[1]
    for file in (tmp_path / "data" / "texts").iterdir():
        file.write_bytes(b"damaged")
    frames, loaded = made()
    assert encoder in loaded and np.array_equal(first, frames)


def test_what_other_weights_another_tokenizer_or_another_precision_read_is_not_taken(card, folder, tmp_path):
    other = tiny.randomised(UMT5EncoderModel(UMT5Config(**tiny_wan.SIZES)), seed=9)
    elsewhere = card_of_folder(tiny_wan.write_model(tmp_path / "other", {"text_encoder": other}))
    same = card_of_folder(shutil.copytree(folder, tmp_path / "same"))
    shortened = card_of_folder(shutil.copytree(folder, tmp_path / "shortened"))
    config = Path(shortened.source.location) / "tokenizer" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"note": "another"}))
    cards = {one.name: one for one in (card, elsewhere, same, shortened)}
    models = tiny_wan.manager(cards, tmp_path / "app")

    def read(one, **settings):
        before = {resident.key: resident.hits for resident in models.stats()}
        states = umt5.read(["a robot"], task(one, **settings), models)
        return states, before != {resident.key: resident.hits for resident in models.stats()}

    first, asked = read(card)
    assert asked and first.shape == (1, umt5.MAX_TOKENS, 16)
    again, asked = read(same)
    assert not asked and torch.equal(first, again)
    assert read(shortened)[1]
    others, asked = read(elsewhere)
    assert asked and not torch.equal(first, others)
    models.dtype = torch.float16  # as on a GPU
    models.unload_all()
    half, asked = read(card)
    assert asked and half.dtype == torch.bfloat16 and tiny.relative_error(half.float(), first) < 0.05


# A clip that is changed


def test_the_less_strength_the_more_of_the_clip_is_left(card, models, clip, monkeypatch):
    asked = {"clip": NOBODY, "fps": 8, "steps": 20, "guidance": 1.0}
    latents, _ = recorded(monkeypatch)
    for strength in (0.05, 0.5, 1.0):
        run(task(card, clip_strength=strength, **asked), models, clip=clip)
    run(task(card, steps=20, guidance=1.0), models)
    pictures = clips.read_changed(task(card, **asked), clip, models.settings)
    with models.lease(f"{card.name}/vae") as vae, torch.no_grad():
        given = wan.encode_clip(vae, wan.as_clip(pictures))
    errors = [tiny.relative_error(one, given) for one in latents]
    assert errors[0] < errors[1] < errors[2]
    assert tiny.relative_error(latents[2], latents[3]) < 1e-5  # with all steps nothing of the clip is left


def test_everything_said_of_the_clip_matters(card, models, clip, tmp_path):
    def frames(file=clip, **changes):
        return run(task(card, clip=NOBODY, **{"fps": 8, "steps": 4, **changes}), models, clip=file)[1]

    video.write(video.read(clip)[::-1], tmp_path / "other.mp4", 8)
    first = frames()
    assert np.array_equal(first, frames())
    for change in (
        {"clip_start": 1.0},
        {"fps": 4},
        {"clip_strength": 0.5},
        {"seed": 8},
        {"file": tmp_path / "other.mp4"},
    ):
        assert not np.array_equal(first, frames(**change)), change


def test_of_a_short_clip_the_first_frames_are_changed(card, models, clip):
    for start, count in ((2.0, 5), (2.9, 1)):  # of 24 frames the last 8 and the last
        events, frames, facts = run(task(card, clip=NOBODY, fps=8, clip_start=start, steps=2), models, clip=clip)
        assert len(frames) == facts["clip_frames"] == count
        decoded = [event for event in events if isinstance(event, Progress) and event.stage == "Decoding"]
        assert [event.step for event in decoded] == list(range(1, count + 1)) and decoded[-1].total == count


def test_a_job_that_begins_with_a_clip_goes_on_from_its_checkpoint(card, models, clip, tmp_path):
    asked = task(card, clip=NOBODY, fps=8, steps=8, clip_strength=0.5)
    checkpoints = Checkpoints(tmp_path, seconds=0)
    running = wan.generate(asked, models, clip=clip, checkpoints=checkpoints)
    for event in running:
        if isinstance(event, Progress) and event.stage == "Denoising" and event.step == 2:
            break
    running.close()
    whole = run(asked, models, clip=clip)[1]
    _, frames, facts = run(asked, models, clip=clip, checkpoints=checkpoints)
    assert facts["resumed_at_step"] == 2 and facts["network_calls"] == 4 and np.array_equal(frames, whole)


def test_a_model_that_begins_with_no_clip_refuses_one(card):
    assert find("wan-2.1-1.3b").takes >= {"clip"} and "clip" in card.takes
    other = find("modelscope-1.7b")
    for wrong in ({"clip": NOBODY}, {"clip_strength": 0.5}, {"clip_start": 1.0}):
        with pytest.raises(ValueError, match="takes no clip to begin with"):
            TextToVideo.for_model(other, "a robot", 7, **wrong)
    for wrong in ({"clip_strength": 0.0}, {"clip_strength": 1.1}, {"clip_start": -1.0}, {"clip": "../clip"}):
        with pytest.raises(ValueError):
            task(card, **{"clip": NOBODY, **wrong})


def test_fewer_steps_take_less_time(card):
    card = replace(card, flops=1e6)
    whole, part = task(card, steps=40), task(card, steps=40, clip=NOBODY, clip_strength=0.5)
    assert (whole.steps_made, part.steps_made) == (40, 20) and whole.effort != part.effort
    assert estimate.work(part, card) < 0.6 * estimate.work(whole, card)
    assert task(card, steps=40, clip_strength=0.5).steps_made == 40  # without a clip it counts for nothing


# Memory


def test_branches_one_after_the_other_are_the_same_in_less_memory(card, models):
    with torch.device("meta"):
        module = WanTransformer3DModel(**tiny_wan.TRANSFORMER)
    together, apart = (wan.denoising_memory(module, 2, 3, 4, 4, slices) for slices in (1, 8))
    assert apart < together
    states = torch.randn(2, umt5.MAX_TOKENS, 16, generator=torch.Generator().manual_seed(0))
    noise = draw_noise((1, tiny_wan.CHANNELS, 3, 4, 4), seed=7)
    with models.lease(f"{card.name}/transformer") as transformer, torch.no_grad():
        both, each = (wan.network(transformer, states, slices)(noise, 500.0) for slices in (1, 8))
    assert tiny.relative_error(both, each) < 1e-5


def test_encoding_takes_no_more_memory_for_more_frames(models, card):
    vae = models.empty(f"{card.name}/vae")

    def peak(frames):
        # A clip that is not on the device yet: what is counted is what encoding brings there.
        clip = torch.empty(1, 3, 1, 1, 1, device="meta").expand(1, 3, frames, 64, 64)
        return peak_bytes(lambda: wan.encode_clip(vae, clip))

    latent = 2 * tiny_wan.CHANNELS * 8 * 8 * 4  # bytes of one frame of them, mean and deviation
    assert peak(33) - peak(9) < 6 * 4 * latent


def test_decoding_takes_no_more_memory_for_more_frames(models, card):
    vae = models.empty(f"{card.name}/vae")

    def peak(frames):
        latents = torch.empty(1, tiny_wan.CHANNELS, frames, 8, 8, device="meta")

        def work():
            past = [None] * vae._cached_conv_counts["decoder"]
            for number in range(frames):
                vae.decoder(latents[:, :, :1], feat_cache=past, feat_idx=[0], first_chunk=number == 0)

        return peak_bytes(work)

    assert peak(8) == wan.decoding_memory(vae, 8, 8)


def test_half_precision_keeps_what_needs_more(card, tmp_path):
    models = tiny_wan.manager({card.name: card}, tmp_path)
    models.dtype = torch.float16  # as on a GPU
    with models.lease(f"{card.name}/transformer") as transformer:
        kinds = {name: tensor.dtype for name, tensor in (*transformer.named_parameters(), *transformer.named_buffers())}
        assert transformer.dtype == torch.bfloat16
    assert models.empty(f"{card.name}/transformer").dtype == torch.bfloat16
    assert kinds["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    for name in ("rope.freqs_cos", "scale_shift_table", "blocks.0.norm2.weight"):
        assert kinds[name] == torch.float32, name
    assert kinds["condition_embedder.time_embedder.linear_1.weight"] == torch.float32
    _, frames, facts = run(task(card), models)
    assert facts["dtype"] == "torch.bfloat16" and frames.std() > 1


# Where a person meets it


def test_its_card_says_what_it_takes_and_what_is_missing(tmp_path):
    from pipelines.models.sources import availability

    card = find("wan-2.1-1.3b")
    assert card.licence.startswith("Apache 2.0") and card.defaults.frames == 81
    assert "hub" not in card.needs.lower() and "GB" in card.needs
    assert "Wan-AI/Wan2.1-T2V-1.3B-Diffusers is not on this machine" in availability(card, Settings(hub=False))
    for wrong in ({"frames": 80}, {"width": 840}, {"scheduler": "ddim"}, {"caching": 2}):
        with pytest.raises(ValueError):
            TextToVideo.for_model(card, "a robot", 7, **wrong)


def test_the_command_line_takes_a_folder_in_the_published_layout(folder, clip, tmp_path, capsys):
    out = tmp_path / "robot.mp4"
    asked = ["text-to-video", "a robot", "--model", str(folder), "--width", "32", "--height", "32", "--steps", "2"]
    assert main([*asked, "--frames", "5", "--seed", "7", "-o", str(out)]) == 0
    assert video.read(out).shape == (5, 32, 32, 3)
    assert main([*asked, "--frames", "6", "-o", str(out)]) == 2 and "1, 5, 9" in capsys.readouterr().err
    changed = [*asked, "--seed", "7", "--frames", "13", "--clip", str(clip), "--start", "1", "--strength", "0.5"]
    assert main([*changed, "--fps", "4", "-o", str(out)]) == 0 and len(video.read(out)) == 5  # of two seconds
    assert main([*changed, "--start", "9", "-o", str(out)]) == 2
    assert "less than 3 seconds" in capsys.readouterr().err


def test_a_wan_with_two_transformers_is_refused(tmp_path):
    other = tiny_wan.write_model(tmp_path / "two", {"transformer_2": tiny_wan.transformer(2)})
    with pytest.raises(ValueError, match="two transformers"):
        card_of_folder(other)


def test_a_folder_keeps_the_shift_of_its_files(card):
    assert card.flow_shift == 0 and card.limits.side == Range(16, 1280, 16)
    assert wan.shifted({"flow_shift": 3.0}, 0.0)["shift"] == 3.0
    assert wan.shifted({"shift": 5.0}, 0.0)["flow_shift"] == 5.0
    assert wan.shifted({"flow_shift": 3.0}, 8.0)["flow_shift"] == 8.0


def test_a_long_video_is_made_in_windows_of_latents(card, tmp_path):
    card = replace(card, limits=replace(card.limits, frames=Range(1, 41, 4), once=13, window=9))
    models, seen = tiny_wan.manager({card.name: card}, tmp_path), []
    with models.lease(f"{card.name}/transformer") as transformer:
        transformer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2]))
        _, frames, facts = run(task(card, frames=25), models)
    assert len(frames) == 25 and "3 windows of 9 frames" in facts["approximations"]
    assert set(seen) == {3} and len(seen) > SMALL["steps"]
