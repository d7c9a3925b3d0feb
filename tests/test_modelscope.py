"""ModelScope text-to-video from the prompt to the frames, on a tiny model of the real classes."""

import copy
import io
import itertools
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from pipelines.cards import Range
from pipelines.catalog import find
from pipelines.events import Preview, Progress
from pipelines.models import tokens
from pipelines.models.folders import card_of_folder
from pipelines.models.loading import component
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import modelscope, preview, stable_diffusion
from pipelines.systems.diffusion import draw_noise
from pipelines.tasks import TextToVideo


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_model(tmp_path_factory.mktemp("published") / "model")


@pytest.fixture(scope="module")
def card(folder):
    card = card_of_folder(folder)
    return replace(card, limits=replace(card.limits, side=Range(16, 256, 8)))


@pytest.fixture(scope="module")
def models(card, tmp_path_factory):
    return ModelManager({card.name: card}, Settings(cache=tmp_path_factory.mktemp("cache")), device="cpu")


def task(card, prompt="a bear", **settings):
    small = {"frames": 3, "width": 32, "height": 24, "steps": 3, "scheduler": "ddim"}
    return TextToVideo.for_model(card, prompt, settings.pop("seed", 7), **{**small, **settings})


def run(task, models):
    """The events of a job, and what it made."""
    events, job = [], modelscope.generate(task, models)
    while True:
        try:
            events.append(next(job))
        except StopIteration as end:
            return events, *end.value


# The whole


@pytest.mark.parametrize("scheduler", find("miniature-modelscope").schedulers)
def test_a_prompt_becomes_frames(card, models, scheduler):
    _, frames, facts = run(task(card, scheduler=scheduler), models)
    assert frames.shape == (3, 24, 32, 3) and frames.dtype == np.uint8
    assert frames.std() > 1
    assert facts["network_calls"] == (4 if scheduler == "ddim" else 3)  # 3 does not divide 1000
    assert set(facts["seconds_by_stage"]) == {"Reading the prompt", "Denoising", "Decoding"}


@pytest.mark.parametrize("changes", [{"frames": 1}, {"width": 40, "height": 72}, {"steps": 1}, {"guidance": 0.0}])
def test_other_sizes(card, models, changes):
    wanted = task(card, **changes)
    _, frames, _ = run(wanted, models)
    assert frames.shape == (wanted.frames, wanted.height, wanted.width, 3)


def test_everything_in_the_task_matters_and_nothing_else(card, models):
    def frames(**changes):
        return run(task(card, **changes), models)[1]

    first = frames()
    torch.manual_seed(123)
    assert np.array_equal(first, frames())
    changes = [{"prompt": "a fox"}, {"negative_prompt": "rain"}, {"seed": 8}, {"guidance": 3.0}, {"steps": 4}]
    for change in [*changes, {"scheduler": "unipc"}]:
        assert not np.array_equal(first, frames(**change)), change


def test_without_guidance_one_branch_runs_and_the_negative_prompt_is_not_read(card, models):
    with models.lease(f"{card.name}/unet") as unet:
        rows = []
        hook = unet.conv_out.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
        plain = run(task(card, guidance=1.0), models)[1]
        assert rows == [3] * 4  # images a call
        assert np.array_equal(plain, run(task(card, guidance=0.5, negative_prompt="rain"), models)[1])
        rows.clear()
        run(task(card, guidance=2.0), models)
        assert rows == [6] * 4
        hook.remove()


def test_progress_comes_with_every_step_and_frame(card, models):
    events, _, _ = run(task(card), models)
    progress = [event for event in events if isinstance(event, Progress)]
    stages = [stage for stage, _ in itertools.groupby(event.stage for event in progress)]
    assert stages == ["Reading the prompt", "Denoising", "Decoding"]
    denoising = [(event.step, event.total) for event in progress if event.stage == "Denoising"]
    assert denoising == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [event.step for event in progress if event.stage == "Decoding"] == [1, 2, 3]


def test_a_job_that_is_left_gives_its_models_back(card, models):
    job = modelscope.generate(task(card, steps=50), models)
    next(event for event in job if isinstance(event, Progress) and event.stage == "Denoising")
    assert any(resident.leases for resident in models.stats())
    job.close()
    assert not any(resident.leases for resident in models.stats())


def test_saving_memory_changes_no_frame(card, models):
    plain = run(task(card), models)[1]
    models.frugal = True
    try:
        saving = run(task(card), models)[1]
    finally:
        models.frugal = False
    assert np.abs(plain.astype(int) - saving).max() <= 1


def test_the_shared_modules_are_left_as_they_were(card, models):
    run(task(card), models)
    for part, made in (("unet", tiny.unet), ("vae", tiny.vae), ("text_encoder", tiny.text_encoder)):
        with models.lease(f"{card.name}/{part}") as module:
            assert all(tensor.equal(module.state_dict()[name]) for name, tensor in made().state_dict().items())


# Against diffusers' own pipeline


@pytest.fixture(scope="module")
def pipeline(folder):
    from diffusers.pipelines.deprecated.text_to_video_synthesis import TextToVideoSDPipeline

    parts = {"unet": tiny.unet(), "vae": tiny.vae(), "text_encoder": tiny.text_encoder(), "tokenizer": tiny.tokenizer()}
    return TextToVideoSDPipeline(scheduler=tiny.DDIMScheduler.from_pretrained(folder / "scheduler"), **parts)


@pytest.mark.parametrize("scheduler, guidance", [("ddim", 9.0), ("dpm++", 9.0), ("unipc", 9.0), ("ddim", 1.0)])
def test_latents_and_frames_are_those_of_the_pipeline_of_diffusers(card, models, pipeline, scheduler, guidance):
    import diffusers

    kind = {"ddim": "DDIM", "dpm++": "DPMSolverMultistep", "unipc": "UniPCMultistep"}[scheduler]
    pipeline.scheduler = getattr(diffusers, f"{kind}Scheduler").from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    wanted = task(card, "a bear", negative_prompt="rain", steps=5, guidance=guidance, scheduler=scheduler)
    noise = draw_noise((1, 4, wanted.frames, wanted.height // 8, wanted.width // 8), wanted.seed)
    settings = {"num_frames": wanted.frames, "width": wanted.width, "height": wanted.height}
    settings |= {"num_inference_steps": wanted.steps, "guidance_scale": wanted.guidance, "latents": noise.clone()}
    latents = pipeline(wanted.prompt, negative_prompt="rain", output_type="latent", **settings).frames
    decoded = pipeline.decode_latents(latents)[0].permute(1, 2, 3, 0)  # (f, H, W, 3) in [-1, 1]

    _, frames, _ = run(wanted, models)
    difference = np.abs(frames.astype(int) - preview.to_uint8(decoded).numpy())
    assert difference.max() <= 1 and (difference > 0).mean() < 0.005

    texts = ["rain", "a bear"] if guidance > 1 else ["a bear"]
    with torch.no_grad():
        states = stable_diffusion.encode(texts, pipeline.tokenizer, pipeline.text_encoder)
        with models.lease(f"{card.name}/scheduler") as schedule:
            steps = modelscope.sample(pipeline.unet, states, noise, schedule, scheduler, 5, guidance)
        assert tiny.relative_error(list(steps)[-1].latents, latents) < 1e-4


# Text


def test_a_long_prompt_is_read_as_far_as_the_page_says():
    encoder, tokenizer = tiny.text_encoder(), tiny.tokenizer()
    long = "a b " * 60
    _, cut = tokens.report(long, tokenizer.backend_tokenizer, tokens.MAX_TOKENS)
    whole, kept = (stable_diffusion.encode([text], tokenizer, encoder) for text in (long, long.removesuffix(cut)))
    assert whole.shape == (1, 77, tiny.WIDTH) and whole.equal(kept)


# Decoding


def test_colours_are_truncated_and_not_rounded():
    values = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0])
    assert preview.to_uint8(values).tolist() == [0, 0, 127, 254, 255, 255]


class HalfBlind(torch.nn.Module):
    """A decoder that half precision is too narrow for; `blind` is what it does to a picture then."""

    def __init__(self, vae, blind):
        super().__init__()
        self.inner, self.config, self.blind = vae, vae.config, blind
        self.seen = []  # the precision of each call

    dtype = property(lambda self: self.inner.dtype)

    def decode(self, latents):
        self.seen.append(latents.dtype)
        decoded = self.inner.decode(latents)
        if latents.dtype == torch.float16:
            self.blind(decoded.sample)
        return decoded


def one_infinite(picture):
    picture[..., 0, 0] = float("inf")


def all_black(picture):
    picture.fill_(-1)


@pytest.mark.parametrize("blind", [one_infinite, all_black])
def test_frames_too_large_for_half_precision_are_decoded_in_full(blind):
    latents = draw_noise((1, 4, 2, 4, 4), seed=1)
    expected = list(modelscope.decode(tiny.vae().half().float(), latents))
    half = HalfBlind(tiny.vae().half(), blind)
    frames = list(modelscope.decode(half, latents))
    assert all(np.array_equal(one, other) for one, other in zip(frames, expected, strict=True))
    assert half.dtype == torch.float16 and half.seen == [torch.float16]  # the shared module is what it was


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_frames_without_a_picture_are_refused_in_words(card, models, value):
    """The last layer of the VAE answers `value` everywhere, also in fp32."""
    with models.lease(f"{card.name}/vae") as vae:
        kept = {name: tensor.clone() for name, tensor in vae.decoder.conv_out.named_parameters()}
        vae.decoder.conv_out.weight.zero_(), vae.decoder.conv_out.bias.fill_(value)
        broken = HalfBlind(copy.deepcopy(vae).half(), all_black)
        try:
            with pytest.raises(ValueError, match="no numbers, or a single one.*another seed.*weights"):
                run(task(card), models)
        finally:
            vae.decoder.conv_out.load_state_dict(kept)
    with pytest.raises(ValueError, match="no numbers, or a single one"):
        list(modelscope.decode(broken, draw_noise((1, 4, 2, 4, 4), seed=1)))


def test_latents_that_are_no_numbers_or_all_the_same_are_refused_in_words(card, models, monkeypatch):
    with models.lease(f"{card.name}/unet") as unet:
        kept = {name: tensor.clone() for name, tensor in unet.conv_out.named_parameters()}
        try:
            unet.conv_out.bias.fill_(float("inf"))
            with pytest.raises(ValueError, match="step 1 of 4.*no numbers.*seed"):
                run(task(card), models)
            unet.conv_out.weight.zero_(), unet.conv_out.bias.zero_()
            monkeypatch.setattr(modelscope, "draw_noise", lambda shape, seed: torch.zeros(shape))
            with pytest.raises(ValueError, match="step 1 of 4.*a single one everywhere.*seed"):
                run(task(card), models)
        finally:
            unet.conv_out.load_state_dict(kept)
    with pytest.raises(ValueError, match="no numbers"):
        list(modelscope.decode(tiny.vae(), torch.full((1, 4, 1, 4, 4), float("nan"))))


def test_the_same_task_makes_the_same_latents(card, models):
    """To the last bit, as the decoder gets them; whatever else was made or drawn in between."""

    def latents(wanted):
        got = []
        with models.lease(f"{card.name}/vae") as vae:
            hook = vae.decoder.register_forward_pre_hook(lambda module, inputs: got.append(inputs[0].clone()))
            run(wanted, models)
            hook.remove()
        return torch.cat(got[-wanted.frames :])  # before them, some VAEs are asked what a preview looks like

    for scheduler in find("miniature-modelscope").schedulers:
        first = latents(task(card, scheduler=scheduler))
        latents(task(card, "a fox", seed=8))
        torch.manual_seed(1), torch.rand(3)
        models.unload_all()
        again = latents(task(card, scheduler=scheduler))
        assert first.shape == (3, 4, 3, 4) and torch.equal(first, again)
        assert not torch.equal(first, latents(task(card, seed=8, scheduler=scheduler)))


# Previews


def test_previews_are_small_moving_pictures_and_not_too_many(card, models):
    started = time.monotonic()
    events, _, _ = run(task(card, steps=20), models)
    previews = [event for event in events if isinstance(event, Preview)]
    assert 1 <= len(previews) <= 1 + (time.monotonic() - started) / preview.SECONDS_BETWEEN
    picture = Image.open(io.BytesIO(previews[0].image))
    assert picture.format == "WEBP" and picture.n_frames == 3
    assert picture.width / picture.height == 32 / 24 and len(previews[0].image) < 100_000


def test_previews_that_take_long_come_less_often(monkeypatch):
    clock = itertools.count(step=0.1)
    monkeypatch.setattr(preview, "time", SimpleNamespace(monotonic=lambda: next(clock)))  # each takes 0.1 s
    previewer = preview.Previewer(torch.zeros(4, 3), torch.zeros(3), fps=8)
    taken, looks = 0, 2000
    for _ in range(looks):
        if previewer.is_due():
            previewer.preview(torch.zeros(1, 4, 1, 2, 2))
            taken += 1
    assert taken * 0.1 / (looks * 0.1) == pytest.approx(preview.SHARE, rel=0.1)


class Linear(torch.nn.Module):
    """A VAE whose pictures are a linear map of its latents, enlarged."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, matrix, bias):
        super().__init__()
        self.matrix, self.bias = matrix, bias
        self.config = {"latent_channels": 4, "scaling_factor": 0.5}

    def decode(self, latents):
        pictures = torch.einsum("nchw,cr->nrhw", latents * 0.5, self.matrix) + self.bias[:, None, None]
        return type("Decoded", (), {"sample": pictures.repeat_interleave(8, -1).repeat_interleave(8, -2)})


def test_the_map_from_latents_to_colours_is_found():
    from diffusers.configuration_utils import FrozenDict

    generator = torch.Generator().manual_seed(0)
    matrix, bias = torch.randn((4, 3), generator=generator) * 0.05, torch.tensor([0.1, -0.2, 0.0])
    vae = Linear(matrix, bias)
    vae.config = FrozenDict(vae.config)
    found_matrix, found_bias = preview.fit_latent_rgb(vae)
    assert (found_matrix - matrix).abs().max() < 1e-4 and (found_bias - bias).abs().max() < 1e-4


def test_a_stored_map_is_used(folder):
    card = card_of_folder(folder)
    vae = component(card, "vae", Settings(hub=False)).load(lambda done, total: None)
    vae.register_to_config(latent_rgb={"matrix": [[0.0] * 3] * 4, "bias": [1.0, -1.0, 0.0]})
    event = preview.Previewer.of(vae, fps=8).preview(torch.zeros(1, 4, 2, 3, 4))
    frame = np.asarray(Image.open(io.BytesIO(event.image)).convert("RGB"))
    assert frame[..., 0].min() > 230 and frame[..., 1].max() < 25 and frame.shape[:2] == (96, 128)
