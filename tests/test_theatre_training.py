"""The theatre's training: every stage runs, is resumed, and leaves its weights for the next session."""

import argparse
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL

from pipelines.catalog import MINIATURES
from pipelines.models.folders import card_of_folder
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from scripts import train_theatre
from scripts.miniature import networks as miniature
from scripts.miniature.world import Words
from scripts.theatre import data, networks, publishing, world
from scripts.theatre.training import autoencoder, checkpoints, distillation

STEPS = dict.fromkeys(train_theatre.STAGES, 2)  # and two clips


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the script does: on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """What two steps of each stage leave."""
    work = tmp_path_factory.mktemp("work")
    data.draw_clips(work / "clips", 2, seed=2026)
    words = data.load_words(work / "clips")
    (work / "clips" / "words.json").write_text(
        str([{**vars(each), "action": "dancing"} for each in words]).replace("'", '"')
    )
    run(work, *train_theatre.STAGES)
    return work


def run(work, *stages, start=None, steps=STEPS):
    arguments = argparse.Namespace(work=work, start=start, batch=2, clips=2, stills=2, seconds={}, cores=1)
    for stage in stages:
        train_theatre.STAGES[stage].run(Accelerator(cpu=True), arguments, steps[stage])


def test_every_stage_leaves_weights_for_the_next(work):
    learning = set(train_theatre.STAGES) - {"latents"}
    assert checkpoints.read_steps(work / "weights") == dict.fromkeys(learning, 2)
    assert data.encoded(work / "stills") == data.encoded(work / "clips") == 2


def test_what_is_saved_is_small_and_the_next_session_goes_on_from_it(work, tmp_path):
    checkpoints.save_all(work, train_theatre.STAGES, tmp_path / "saved")
    files = list((tmp_path / "saved").glob("*.safetensors"))
    assert all(file.stat().st_size < 10**7 for file in files)
    assert len(list((tmp_path / "saved").glob("modelscope-*.safetensors"))) > 1
    run(tmp_path / "next", "vae", start=tmp_path / "saved")
    again, vae = networks.autoencoder(), networks.autoencoder()
    checkpoints.restore(work / "weights", "vae", vae)
    checkpoints.restore(tmp_path / "next" / "weights", "vae", again)
    for name, tensor in again.state_dict().items():  # nothing was left to learn
        assert torch.allclose(tensor, vae.state_dict()[name], atol=2e-3, rtol=2e-2), name
    run(tmp_path / "more", "vae", start=tmp_path / "saved", steps=STEPS | {"vae": 3})
    assert torch.load(tmp_path / "more" / "vae.pt", weights_only=True)["step"] == 3
    assert checkpoints.read_steps(tmp_path / "more" / "weights") == {"vae": 3}


def test_the_newest_checkpoint_of_an_unfinished_stage_is_saved(work, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "sd.pt").write_bytes((work / "sd.pt").read_bytes())
    checkpoints.save_all(tmp_path, train_theatre.STAGES, tmp_path / "saved")
    assert checkpoints.read_steps(tmp_path / "saved") == {"sd": 2}
    unet = miniature.image_unet(data.CHANNELS)
    checkpoints.restore(tmp_path / "saved", "sd", unet)
    checkpoints.keep(tmp_path / "weights", "sd", miniature.image_unet(data.CHANNELS).state_dict(), 1, torch.float32)
    checkpoints.save_all(tmp_path, train_theatre.STAGES, tmp_path / "again")  # it had ended, and learns once more
    assert checkpoints.read_steps(tmp_path / "again") == {"sd": 2}


def test_a_missing_stage_is_named(tmp_path):
    with pytest.raises(ValueError, match="stage vae"):
        checkpoints.restore(tmp_path, "vae", networks.autoencoder())


@torch.no_grad()
def test_standardising_changes_the_latents_and_not_the_pictures(work):
    torch.manual_seed(0)
    vae = networks.autoencoder()
    images = torch.from_numpy(np.load(work / "stills" / "stills.npy")).permute(0, 3, 1, 2) / 127.5 - 1
    before = vae.decode(vae.encode(images).latent_dist.mean).sample
    deviation = vae.encode(images).latent_dist
    ratio = deviation.std / deviation.mean.std(dim=(0, 2, 3), keepdim=True)
    autoencoder.standardise(vae, work / "stills")
    latents = vae.encode(images).latent_dist
    assert latents.mean.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (latents.mean.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3
    assert torch.allclose(latents.std, ratio, rtol=1e-3)
    assert torch.allclose(vae.decode(latents.mean).sample, before, atol=1e-4)


@torch.no_grad()
def test_the_autoencoder_starts_with_the_average_colours():
    torch.manual_seed(0)
    vae = networks.autoencoder()
    autoencoder.start_as_thumbnail(vae)
    images = torch.zeros(1, 3, 64, 64)
    images[:, 0, :, 32:], images[:, 2, :32] = 0.8, -0.6
    latents = vae.encode(images).latent_dist
    assert latents.std.max() < 0.2  # sure of itself
    brighter = vae.encode(images + torch.tensor([0.5, 0, 0])[None, :, None, None]).latent_dist.mean - latents.mean
    assert brighter[:, 0].mean() > 0  # red is carried by the first channel
    assert abs(float(latents.mean[:, 0, :, 2:].mean() - latents.mean[:, 0, :, :2].mean())) > 0.1


def test_cut_outs_lie_on_the_grid_of_latents(work):
    images, masks = data.crops(work / "stills", 6, 64, np.random.default_rng(0))
    stills = np.load(work / "stills" / "stills.npy").transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    assert images.shape == (6, 3, 64, 64) and masks.shape == (6, 1, 64, 64) and set(np.unique(masks)) <= {0, 1}
    corners = [(y, x) for y in range(0, 193, 16) for x in range(0, 193, 16)]
    for image in images:
        assert any(
            np.array_equal(cut, image) or np.array_equal(cut[:, :, ::-1], image)
            for still in stills
            for cut in (still[:, y : y + 64, x : x + 64] for y, x in corners)
        )


def test_a_student_that_knows_the_noise_finds_the_picture_in_any_number_of_steps():
    alphas = torch.linspace(0.999, 0.01, 1000)
    picture = torch.randn(1, 12, 4, 4, generator=torch.Generator().manual_seed(1))
    seen = []

    def predict(noisy, times):
        seen.append(int(times[0]))
        signal = alphas[times[0]]
        return (noisy - signal.sqrt() * picture) / (1 - signal).sqrt()

    for steps in (1, 4):
        seen.clear()
        noise = torch.randn(1, 12, 4, 4, generator=torch.Generator().manual_seed(2))
        drawn = distillation.few_steps(predict, noise, alphas, torch.Generator().manual_seed(3), steps)
        assert torch.allclose(drawn, picture, atol=1e-4)
        assert seen[0] == 999 and len(seen) == steps and seen == sorted(seen, reverse=True)


def test_the_student_learns_and_the_teacher_is_neither_changed_nor_kept(work):
    state = torch.load(work / "lcm-sd.pt", weights_only=True)["modules"]
    teacher, student = miniature.image_unet(data.CHANNELS), miniature.image_unet(data.CHANNELS)
    checkpoints.restore(work / "weights", "sd", teacher)
    checkpoints.restore(work / "weights", "lcm-sd", student)
    assert all(name.startswith("student.") for name in state)
    assert not student.conv_out.weight.equal(teacher.conv_out.weight)


def test_faces_count_more_than_limbs_and_these_more_than_the_backdrop():
    scene = world.stage(Words("person", "red", "beach", "waving"), np.random.default_rng(0))
    image, mask = scene.draw(4)
    picture = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    weight = autoencoder.interest(picture, torch.from_numpy(mask > 0)[None, None].float())[0, 0]
    (eye_x, eye_y), (knee_x, knee_y) = (np.round(scene.joints[4, joint]).astype(int) for joint in (14, 9))
    assert weight[eye_y, eye_x] > 1.3 * weight[knee_y, knee_x] > 3 and weight[mask == 0].eq(1).all()


def test_what_is_published_is_what_was_learned_and_the_app_loads_it(work, tmp_path):
    shutil.copytree(MINIATURES, tmp_path / "assets")
    stages = {part: part for part in ("sd", "openpose", "referee")}
    stages |= {"vae": "decoder", "modelscope": "lcm-modelscope", "tempofunk": "lcm-tempofunk", "followyourpose": "pose"}
    publishing.publish(work / "weights", tmp_path / "assets", stages)
    assert all(file.stat().st_size < 10**7 for file in (tmp_path / "assets").rglob("*.safetensors"))
    card = card_of_folder(tmp_path / "assets" / "modelscope")
    models = ModelManager({card.name: card}, Settings(hub=False), device="cpu")
    learned = miniature.video_unet(data.CHANNELS)
    checkpoints.restore(work / "weights", "lcm-modelscope", learned)
    with models.lease(f"{card.name}/unet") as unet:
        assert torch.allclose(unet.conv_in.weight, learned.conv_in.weight, atol=1e-3)
    vae, decoder = AutoencoderKL.from_pretrained(tmp_path / "assets" / "sd" / "vae"), networks.autoencoder()
    checkpoints.restore(work / "weights", "decoder", decoder)
    assert torch.allclose(vae.decoder.conv_in.weight, decoder.decoder.conv_in.weight, atol=1e-3)
