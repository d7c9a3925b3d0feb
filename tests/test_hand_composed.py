"""`generate` of each system against its steps composed by hand of the networks and diffusers, field by field.

Every case changes one field of a task. The video must be the one that the same change makes of the hand-composed steps,
and no longer the one without it: a field that is dropped, swapped with another or read from elsewhere shows in both.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from PIL import Image

from pipelines.media import video
from pipelines.models.convert import tuned as files
from pipelines.models.manager import ModelManager
from pipelines.models.networks.inflated_unet import EditingUNet
from pipelines.models.networks.pseudo3d_unet import Pseudo3DUNet
from pipelines.models.networks.unet3d import TextToVideoUNet
from pipelines.poses import pose_sequence
from pipelines.settings import Settings
from pipelines.systems import followyourpose, modelscope, tempofunk, tuneavideo, tuning
from pipelines.tasks import Edit, PoseToVideo, TextToVideo, Tune

SIDE, FRAMES = 64, 3
SIZE = {"width": SIDE, "height": SIDE, "frames": FRAMES}
SHAPE = (1, 4, FRAMES, 8, 8)
BASE = {"negative_prompt": "blurry", "steps": 2, "guidance": 3.0, "scheduler": "ddim", **SIZE}
SAMPLED = [
    {},
    {"prompt": "a bear"},
    {"negative_prompt": "text"},
    {"seed": 8},
    {"steps": 4},
    {"guidance": 6.0},
    {"guidance": 1.0},
    {"scheduler": "other"},
]


def names(changes):
    return [" ".join(f"{key}={value}" for key, value in one.items()) or "as it is" for one in changes]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models of every system."""
    folder = tmp_path_factory.mktemp("models")
    cards = tiny.write_all(folder)
    cards["sd"] = replace(cards["sd"], defaults=replace(cards["sd"].defaults, steps=2))  # so many inverts a tuning
    return ModelManager(cards, Settings(data=folder / "data", cache=folder / "cache", hub=False), device="cpu")


def part(models, name):
    with models.lease(name) as module:
        return module


def read(models, model, *texts):
    """The text encoder's states of `texts`, each padded to 77 tokens."""
    tokenizer, encoder = part(models, f"{model}/tokenizer"), part(models, f"{model}/text_encoder")
    tokens = tokenizer(list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    return encoder(tokens.input_ids).last_hidden_state


def noise(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def branches(task):
    """The texts of a task: its prompt alone where nothing is guided."""
    return [task.negative_prompt, task.prompt] if task.guidance > 1 else [task.prompt]


def walk(network, latents, scheduler, guidance):
    """diffusers' own loop over a network that answers for both branches, or for one."""
    for timestep in scheduler.timesteps:
        answer = network(latents, int(timestep))
        if guidance > 1:
            without, answer = answer.chunk(2)
            answer = without + guidance * (answer - without)
        latents = scheduler.step(answer, timestep, latents).prev_sample
    return latents


def pictures(models, model, latents, round_to=torch.floor):
    vae = part(models, f"{model}/vae")
    decoded = [vae.decode(frame[None] / vae.config.scaling_factor).sample[0] for frame in latents[0].unbind(1)]
    levels = round_to(((torch.stack(decoded) + 1) * 127.5).clamp(0, 255))
    return levels.to(torch.uint8).permute(0, 2, 3, 1).numpy()  # (f, H, W, 3)


def agree(one, other):
    """The same but for rounding."""
    return one.shape == other.shape and np.abs(one.astype(int) - other.astype(int)).max() <= 1


@pytest.fixture(scope="module")
def composed():
    """What was composed by hand of each task: that of the plain ones is needed in every case."""
    return {}


def check(task, plain, generate, compose, composed, kind=""):
    """`generate` makes of `task` what `compose` makes of it, and another video than of `plain`.

    `kind` tells tasks apart that are the same but for their files.
    """
    with torch.no_grad():
        for one in (task, plain):
            if (kind, one) not in composed:
                composed[kind, one] = compose(one)
        _, (frames, _) = tiny.finish(generate(task))
        assert agree(frames, composed[kind, task])
        if task != plain:
            assert not agree(frames, composed[kind, plain])


def schedules(models, model, image=False, scheduler="ddim", steps=2):
    """diffusers' scheduler as the published programs set it."""
    config = dict(part(models, f"{model}/scheduler"))
    if scheduler == "ddim":
        config |= {"set_alpha_to_one": False, "clip_sample": False}
        if image:
            config |= {"steps_offset": 1, "timestep_spacing": "leading"}
        made = DDIMScheduler.from_config(config)
    else:
        made = DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++", solver_order=2)
    made.set_timesteps(steps)
    return made


def changed(make, changes, **base):
    """The task with these changes, and the one without."""
    more = {**base, **changes}
    if more.get("scheduler") == "other":
        more["scheduler"] = "dpm++"
    return make(**more), make(**base)


def text_task(models, model):
    def make(prompt="a robot", seed=7, **settings):
        return TextToVideo.for_model(models.card(model), prompt, seed, **settings)

    return make


@pytest.mark.parametrize("change", SAMPLED, ids=names(SAMPLED))
def test_modelscope(models, composed, change):
    task, plain = changed(text_task(models, "text"), change, **BASE)

    def compose(task):
        network = TextToVideoUNet(part(models, "text/unet"), read(models, "text", *branches(task)))
        scheduler = schedules(models, "text", False, task.scheduler, task.steps)
        return pictures(models, "text", walk(network, noise(SHAPE, task.seed), scheduler, task.guidance))

    check(task, plain, lambda task: modelscope.generate(task, models), compose, composed)


def tempofunk_schedule(models, task):
    config = part(models, "pseudo3d/scheduler")
    shared = {key: config[key] for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")}
    if task.scheduler == "ddim":
        ends = {key: config[key] for key in ("set_alpha_to_one", "steps_offset") if key in config}
        made = DDIMScheduler(**shared, **ends, clip_sample=False)
    else:
        made = DPMSolverMultistepScheduler(**shared, final_sigmas_type="sigma_min")
    made.set_timesteps(task.steps)
    return made


DRAWN = [*SAMPLED, {"image_guidance": 1.0}, {"image_guidance": 5.0}]  # of a given image nothing is drawn
FIRST = [*((False, change) for change in DRAWN), *((True, change) for change in SAMPLED)]


@pytest.mark.parametrize(
    "given, change", FIRST, ids=[f"{'given' if given else 'drawn'} {names([change])[0]}" for given, change in FIRST]
)
def test_tempofunk(models, composed, change, given, tmp_path):
    """Begun with an image of its own drawing, from noise of its seed, and with one that is given, partly masked."""
    files = {}
    if given:
        colours = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(colours).save(tmp_path / "image.png")
        Image.fromarray(np.repeat([[0] * 24 + [255] * 40], SIDE, 0).astype(np.uint8)).save(tmp_path / "mask.png")
        files = {"image": tmp_path / "image.png", "mask": tmp_path / "mask.png"}
    base = BASE if given else {**BASE, "image_guidance": 2.0}
    task, plain = changed(text_task(models, "pseudo3d"), change, **base)

    def drawn(task):
        texts = [task.negative_prompt, task.prompt] if task.image_guidance > 1 else [task.prompt]
        network = Pseudo3DUNet(part(models, "pseudo3d/image_unet"), read(models, "pseudo3d", *texts))
        start = noise((1, 4, 8, 8), task.seed)
        return walk(network, start, tempofunk_schedule(models, task), task.image_guidance), torch.zeros(1, 1, 8, 8)

    def taken(task):
        mask = torch.zeros(1, 1, SIDE, SIDE)
        mask[..., 24:] = 1
        pixels = torch.from_numpy(colours).permute(2, 0, 1)[None] / 127.5 - 1
        vae = part(models, "pseudo3d/vae")
        hint = vae.encode(pixels * (1 - mask)).latent_dist.mean * vae.config.scaling_factor
        return hint, mask[..., 4::8, 4::8]

    def compose(task):
        hint, mask = (taken if given else drawn)(task)
        condition = torch.cat([mask, hint], dim=1)[:, :, None].expand(-1, -1, FRAMES, -1, -1)  # (1, 5, f, 8, 8)
        network = Pseudo3DUNet(part(models, "pseudo3d/unet"), read(models, "pseudo3d", *branches(task)))

        def beside(latents, timestep):
            return network(torch.cat([latents, condition], dim=1), timestep)

        made = walk(beside, noise(SHAPE, task.seed), tempofunk_schedule(models, task), task.guidance)
        return pictures(models, "pseudo3d", made, torch.round)

    kind = "given" if given else "drawn"
    check(task, plain, lambda task: tempofunk.generate(task, models, **files), compose, composed, kind)


DANCED = [*SAMPLED[:-1], {"strength": 0.4}, {"motion": "bow"}, {"stride": 2}]


@pytest.mark.parametrize("change", DANCED, ids=names(DANCED))
def test_followyourpose(models, composed, change):
    def make(prompt="a robot", seed=7, **settings):
        return PoseToVideo.for_model(models.card("pose"), prompt, seed, **settings)

    base = {"motion": "wave", **BASE, "frames": 8}
    task, plain = changed(make, change, **base)

    def compose(task):
        _, sequence = tiny.finish(pose_sequence.skeletons(task, models))
        ready = followyourpose.prepare_skeletons(sequence.pictures, SIDE, SIDE)
        unet = part(models, "pose/inflated_unet")
        features = [task.strength * feature for feature in unet.skeleton_adapter(ready)]
        network = EditingUNet(unet, read(models, "pose", *branches(task)), 1, features)
        scheduler = schedules(models, "pose", True, task.scheduler, task.steps)
        start = noise((1, 4, len(sequence.pictures), 8, 8), task.seed)
        return pictures(models, "pose", walk(network, start, scheduler, task.guidance))

    check(task, plain, lambda task: followyourpose.generate(task, models), compose, composed)


# Tune-A-Video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    file = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = np.full((FRAMES, SIDE, SIDE, 3), 60, np.uint8)
    for number, frame in enumerate(frames):
        frame[20:40, 8 * number : 8 * number + 20] = (230, 120, 60)
    video.write(frames, file, 8)
    return file


def tune_task(models, prompt="a square", seed=7, **settings):
    settings = {"steps": 3, "learning_rate": 1e-3, "trained": "all", **SIZE, **settings}
    return Tune.for_model(models.card("sd"), prompt, seed, clip="0" * 32, **settings)


@pytest.fixture(scope="module")
def tuned(models, clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    tiny.finish(tuning.generate(tune_task(models, steps=8, learning_rate=1e-2), models, clip, folder, folder / "s.mp4"))
    return folder


TUNED = [{}, {"prompt": "a circle"}, {"seed": 8}, {"steps": 2}, {"learning_rate": 3e-3}, {"trained": "mid and up"}]


@pytest.mark.parametrize("change", TUNED, ids=names(TUNED))
def test_tuning(models, composed, clip, tmp_path, change):
    """AdamW on a fresh sample of the clip, fresh noise and one timestep a step, under the caption."""
    task, plain = tune_task(models, **change), tune_task(models)
    _, (frames, _) = tiny.finish(tuning.generate(task, models, clip, tmp_path, tmp_path / "source.mp4"))
    found = files.load(tmp_path)

    def compose(task):
        unet = copy.deepcopy(part(models, "sd/inflated_unet"))
        schedule = part(models, "sd/scheduler")
        roots = torch.linspace(schedule["beta_start"] ** 0.5, schedule["beta_end"] ** 0.5, 1000, dtype=torch.float64)
        alphas = torch.cumprod(1 - roots**2, 0)
        with torch.no_grad():
            mean, deviation = tuneavideo.encode_clip(part(models, "sd/vae"), frames)
            text = read(models, "sd", task.prompt)
        trained = tuning.trained_parameters(unet, task.trained)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(trained.values(), task.learning_rate, weight_decay=1e-2)
        losses, steps = [], []
        for number in range(task.steps):
            generator = torch.Generator().manual_seed(task.seed * 2**20 + number)
            draw, wanted = (torch.randn(mean.shape, generator=generator) for _ in range(2))
            timestep = torch.randint(1000, (1,), generator=generator)
            steps.append(int(timestep))
            alpha = float(alphas[timestep])
            noisy = alpha**0.5 * (mean + deviation * draw) + (1 - alpha) ** 0.5 * wanted
            loss = (EditingUNet(unet, text)(noisy, timestep) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        assert len(set(steps)) == task.steps  # no timestep is there twice
        return losses, {name: parameter.detach() for name, parameter in trained.items()}

    for one in (task, plain):
        if one not in composed:
            composed[one] = compose(one)
    losses, delta = composed[task]
    assert found.facts["losses"] == pytest.approx(losses, rel=1e-4)
    assert found.delta.keys() == delta.keys()
    limit = 0.02 * task.learning_rate * task.steps  # AdamW's first steps are as long as the learning rate
    assert all((found.delta[name] - delta[name]).abs().mean() < limit for name in delta)
    if task != plain:
        other_losses, other = composed[plain]
        assert other_losses != pytest.approx(losses, rel=1e-4) or any(
            name not in other or (found.delta[name] - other[name]).abs().mean() > limit for name in delta
        )


EDITED = [*SAMPLED[:3], *SAMPLED[4:7], {"strength": 0.6}, {"strength": 1.0}]


@pytest.mark.parametrize("change", [*EDITED, {"seed": 8, "strength": 0.6}], ids=names([*EDITED, {"seed and": "blend"}]))
def test_edits(models, composed, tuned, change):
    """From the clip's inverted noise, blended with noise of the seed where more strength is asked for."""

    def make(prompt="a circle", seed=7, **settings):
        return Edit.for_model(models.card("sd"), prompt, seed, tuned="0" * 32, **settings)

    task, plain = changed(make, change, strength=0.6 if "seed" in change else 0.0, **BASE)
    content = files.load(tuned)
    unet = copy.deepcopy(part(models, "sd/inflated_unet"))
    left, unknown = unet.load_state_dict(content.delta, strict=False)
    assert not unknown and content.delta
    schedule = part(models, "sd/scheduler")
    roots = torch.linspace(schedule["beta_start"] ** 0.5, schedule["beta_end"] ** 0.5, 1000, dtype=torch.float64)
    alphas = torch.cumprod(1 - roots**2, 0)

    def inverted(steps):
        latents, stride = content.latents, 1000 // steps
        network = EditingUNet(unet, read(models, "sd", ""))
        for timestep in range(1, 1000, stride):
            answer = network(latents, timestep)
            before, after = (float(alphas[one]) for one in (max(timestep - stride, 0), timestep))
            clean = (latents - (1 - before) ** 0.5 * answer) / before**0.5
            latents = after**0.5 * clean + (1 - after) ** 0.5 * answer
        return latents

    def compose(task):
        share = (1 - task.strength**2) ** 0.5
        start = share * inverted(task.steps) + task.strength * noise(SHAPE, task.seed)
        network = EditingUNet(unet, read(models, "sd", *branches(task)))
        scheduler = schedules(models, "sd", True, task.scheduler, task.steps)
        return pictures(models, "sd", walk(network, start, scheduler, task.guidance))

    check(task, plain, lambda task: tuneavideo.generate(task, models, tuned), compose, composed)
