"""The shipped weights of the paper theatre: small enough, loadable by anybody, and true to the prompt."""

import json
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from pipelines.catalog import CATALOG, MINIATURES, find
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import modelscope, tempofunk
from pipelines.systems.metrics import motion_magnitude
from pipelines.tasks import TextToVideo
from scripts.miniature.referee import Referee
from scripts.miniature.scoring import finish
from scripts.miniature.world import Words, draw_clip

MEGABYTE = 10**6
PROMPTS = {  # words that training paired, a colour, a place and a character each
    "a robot in yellow walking in the desert": ("robot", "yellow", "desert"),
    "a bear wearing blue dancing in the snow": ("bear", "blue", "snow"),
    "an astronaut in red waving on the moon": ("astronaut", "red", "moon"),
    "a person in green jumping in the city": ("person", "green", "city"),
}


@pytest.fixture(scope="module")
def models() -> ModelManager:
    return ModelManager(CATALOG, Settings(), device="cpu")


@pytest.fixture(scope="module")
def referee() -> Referee:
    return Referee.load(MINIATURES / "referee")


def frames_of(models: ModelManager, prompt: str, **settings: object) -> np.ndarray:
    task = TextToVideo.for_model(find("miniature-modelscope"), prompt, settings.pop("seed", 7), **settings)
    return finish(modelscope.generate(task, models))[0]


def test_no_file_is_over_ten_megabytes_and_all_are_under_sixty():
    sizes = {file: file.stat().st_size for file in MINIATURES.rglob("*") if file.is_file()}
    assert max(sizes.values()) < 10 * MEGABYTE
    assert sum(sizes.values()) < 60 * MEGABYTE
    assert not [file for file in sizes if file.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]


def test_miniature_sd_is_a_stable_diffusion_that_diffusers_itself_loads_and_runs(referee):
    pipeline = StableDiffusionPipeline.from_pretrained(MINIATURES / "sd", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.unet.config
    assert len(config.block_out_channels) == 4 and config.down_block_types[-1] == "DownBlock2D"
    assert pipeline.vae.config.latent_channels == 4 and len(pipeline.vae.config.block_out_channels) == 4
    prompts = list(PROMPTS)
    images = pipeline(
        prompts,
        num_inference_steps=15,
        guidance_scale=4,
        height=128,
        width=128,
        output_type="np",
        generator=torch.Generator().manual_seed(3),
    ).images
    right = Counter()
    for image, (character, _, place) in zip(images, PROMPTS.values(), strict=True):
        verdict = referee.judge(np.repeat((image * 255).astype(np.uint8)[None], 8, axis=0)).words
        right["place"] += verdict.place == place
        right["character"] += verdict.character == character
    assert right["place"] == len(prompts)
    assert right["character"] >= len(prompts) - 1


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_prompt_decides_character_colour_and_place(prompt, models, referee):
    frames = frames_of(models, prompt, steps=15)
    assert frames.shape == (16, 128, 128, 3)
    words = referee.judge(frames).words
    assert (words.character, words.colour, words.place) == PROMPTS[prompt]


def test_a_dancer_goes_on_from_the_image_and_where_it_is_masked_from_the_prompt(models, referee, tmp_path):
    drawn = draw_clip(Words("robot", "red", "beach", "dancing"), np.random.default_rng(5))
    Image.fromarray(drawn.frames[0]).save(tmp_path / "image.png")
    Image.fromarray(cv2.dilate(drawn.figure[0], np.ones((25, 25), np.uint8))).save(tmp_path / "mask.png")

    def begun(prompt: str, *files: str) -> np.ndarray:
        names = {part: "0" * 32 for part in files}
        task = TextToVideo.for_model(find("miniature-tempofunk"), prompt, 7, steps=15, **names)
        return finish(tempofunk.generate(task, models, *(tmp_path / f"{part}.png" for part in files)))[0]

    followed = begun("a robot in red dancing on the beach", "image")
    words = referee.judge(followed).words
    assert (words.character, words.colour, words.place) == ("robot", "red", "beach")
    assert motion_magnitude(followed) > motion_magnitude(drawn.frames) / 2
    repainted = referee.judge(begun("a robot in blue dancing on the beach", "image", "mask")).words
    assert (repainted.colour, repainted.place) == ("blue", "beach")


def test_the_same_seed_makes_the_same_video_and_another_seed_another(models):
    prompt = next(iter(PROMPTS))
    first, again = (frames_of(models, prompt, steps=3, seed=11) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, frames_of(models, prompt, steps=3, seed=12))


def test_any_english_text_tokenises_within_the_vocabulary(models):
    with models.lease("miniature-modelscope/tokenizer") as tokenizer:
        for text in ("An astronaut riding a horse, photorealistic, 4k!", "naïve café — 日本 🤖", "x" * 500):
            ids = tokenizer(text).input_ids
            assert max(ids) < len(tokenizer)
            assert tokenizer.unk_token_id not in ids[1:-1]
        assert len(tokenizer("a robot in blue waving on the beach").input_ids) == 10  # a token a word, and the marks


def test_the_video_model_shares_what_it_can_with_the_image_model():
    shared = json.loads((MINIATURES / "modelscope" / "components.json").read_text())
    assert set(shared) == {"vae", "text_encoder", "tokenizer"}
    assert not [part for part in shared if (MINIATURES / "modelscope" / part).exists()]
