"""VACE on Wan 2.1, from poses or a first image to the frames: a tiny model of the real classes, against diffusers."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_wan
import torch
from controlnet_aux.dwpose.util import draw_bodypose
from diffusers import UniPCMultistepScheduler, WanVACEPipeline, WanVACETransformer3DModel
from PIL import Image

from pipelines.__main__ import main
from pipelines.cards import Range
from pipelines.catalog import find, find_motion, motions
from pipelines.media import clips, video
from pipelines.models.folders import card_of_folder
from pipelines.poses import keypoints, openpose_json, skeleton
from pipelines.poses.pose_sequence import skeletons
from pipelines.systems import umt5, wan, wan_vace
from pipelines.systems.diffusion import draw_noise
from pipelines.systems.engine import find_engine
from pipelines.tasks import NOBODY, PoseToVideo, TextToVideo

SMALL = {"frames": 9, "width": 48, "height": 32, "steps": 4, "negative_prompt": tiny_wan.PROMPTS[0]}


MOTIONS = list(motions())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "vace"
    return tiny_wan.write_model(folder, {"transformer": tiny_wan.vace_transformer()}, WanVACEPipeline)


@pytest.fixture(scope="module")
def cards(folder):
    find_engine("wan-vace")
    return {kind: replace(card_of_folder(folder, kind=kind), name=kind) for kind in ("text-to-video", "pose-to-video")}


@pytest.fixture(scope="module")
def models(cards, tmp_path_factory):
    return tiny_wan.manager(cards, tmp_path_factory.mktemp("app"))


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Where the command line keeps what it has read."""
    monkeypatch.setenv("MARIONETTE_DATA", str(tmp_path / "data"))


@pytest.fixture
def published(folder, monkeypatch):
    monkeypatch.setattr("diffusers.pipelines.wan.pipeline_wan_vace.prompt_clean", str.strip)  # it wants ftfy
    made = WanVACEPipeline.from_pretrained(folder, scheduler=UniPCMultistepScheduler(**tiny_wan.SCHEDULE))
    made.set_progress_bar_config(disable=True)
    return made


def followed(cards, **settings):
    given = {**SMALL, "motion": MOTIONS[0], **settings}
    return PoseToVideo.for_model(cards["pose-to-video"], tiny_wan.PROMPTS[1], 7, **given)


def begun(cards, **settings):
    return TextToVideo.for_model(cards["text-to-video"], tiny_wan.PROMPTS[1], 7, **{**SMALL, **settings})


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


def picture(seed, width=48, height=32, mode="RGB"):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, len(mode)), np.uint8)
    return Image.fromarray(levels.squeeze())


# Against the published program


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_poses_are_followed_as_by_diffusers(cards, models, published, guidance, strength, monkeypatch):
    latents, clips = recorded(monkeypatch)
    task = followed(cards, guidance=guidance, strength=strength)
    _, sequence = tiny.finish(skeletons(task, models))
    tiny.finish(wan_vace.follow_poses(task, models))
    asked = {"prompt": task.prompt, "negative_prompt": task.negative_prompt, "guidance_scale": guidance}
    asked |= {"num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 4, "conditioning_scale": strength}
    asked |= {"video": [Image.fromarray(frame) for frame in sequence.pictures]}
    check(published, asked, latents, clips)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("masked", [False, True])
def test_a_first_image_is_kept_as_by_diffusers(cards, models, published, guidance, masked, tmp_path, monkeypatch):
    latents, clips = recorded(monkeypatch)
    image, mask = picture(1), picture(2, mode="L")
    files = {"image": tmp_path / "image.png"} | ({"mask": tmp_path / "mask.png"} if masked else {})
    image.save(tmp_path / "image.png")
    mask.save(tmp_path / "mask.png")
    task = begun(cards, guidance=guidance, **dict.fromkeys(files, NOBODY))
    tiny.finish(wan_vace.generate(task, models, **files))
    grey, white = Image.new("RGB", (48, 32)), Image.new("L", (48, 32), 255)
    kept = mask if masked else Image.new("L", (48, 32), 0)
    asked = {"prompt": task.prompt, "negative_prompt": task.negative_prompt, "guidance_scale": guidance}
    asked |= {"num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 4}
    # What is drawn anew and not followed is 0, a grey that no picture of 8 bits has exactly.
    monkeypatch.setattr(published, "preprocess_conditions", exactly(published.preprocess_conditions))
    check(published, asked | {"video": [image, *[grey] * 8], "mask": [kept, *[white] * 8]}, latents, clips)


@pytest.mark.parametrize("sizes", [[(24, 40)], [(96, 32), (48, 32)]])
def test_reference_pictures_are_shown_as_by_diffusers(cards, models, published, sizes, monkeypatch):
    """One, smaller and high; and two, of which one is cut down and one as large as the video."""
    pictures = [picture(seed, *size) for seed, size in enumerate(sizes)]
    task = followed(cards)
    _, sequence = tiny.finish(skeletons(task, models))
    drawn = wan.as_clip(sequence.pictures)
    with models.lease("pose-to-video/vae") as vae, torch.no_grad():
        laid = [wan_vace.laid_out(one, 48, 32) for one in pictures]
        ours = wan_vace.control_latents(vae, drawn, torch.ones_like(drawn[:, :1]), laid)
        frames = [Image.fromarray(frame) for frame in sequence.pictures]
        clip, mask, references = published.preprocess_conditions(frames, None, pictures, 1, 32, 48, 9, torch.float32)
        for one, other in zip(laid, references[0], strict=True):
            assert tiny.relative_error(one[0, :, 0], other) < 1e-5
        expected = published.prepare_video_latents(clip, mask, references), published.prepare_masks(mask, references)
    assert ours.shape[2] == 3 + len(pictures)
    assert tiny.relative_error(ours, torch.cat(expected, dim=1)) < 1e-5


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_reference_goes_through_the_whole_as_by_diffusers(cards, models, published, guidance, tmp_path, monkeypatch):
    latents, clips = recorded(monkeypatch)
    picture(4, 40, 40).save(tmp_path / "who.png")
    task = followed(cards, guidance=guidance, reference=NOBODY)
    _, sequence = tiny.finish(skeletons(task, models))
    _, (made, facts) = tiny.finish(wan_vace.follow_poses(task, models, reference=tmp_path / "who.png"))
    assert made.shape == (9, 32, 48, 3) and facts["reference"] == "given"
    asked = {"prompt": task.prompt, "negative_prompt": task.negative_prompt, "guidance_scale": guidance}
    asked |= {"num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 4}
    asked |= {
        "video": [Image.fromarray(frame) for frame in sequence.pictures],
        "reference_images": [picture(4, 40, 40)],
    }
    check(published, asked, latents, clips, references=1)


def exactly(preprocess):
    """`preprocess` whose clip is grey after the first frame."""

    def conditions(*inputs):
        clip, mask, references = preprocess(*inputs)
        clip[:, :, 1:] = 0
        return clip, mask, references

    return conditions


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_part_of_a_clip_is_drawn_anew_as_by_diffusers(cards, models, published, guidance, tmp_path, monkeypatch):
    latents, made = recorded(monkeypatch)
    pixels = np.random.default_rng(3).integers(0, 256, (9, 64, 96, 3), np.uint8)
    video.write(pixels, tmp_path / "clip.mp4", 16)
    picture(2, mode="L").save(tmp_path / "mask.png")
    card = replace(cards["text-to-video"], takes=find("wan-2.1-vace-clips").takes)
    given = {**SMALL, "fps": 16, "clip": NOBODY, "mask": NOBODY, "guidance": guidance}
    task = TextToVideo.for_model(card, tiny_wan.PROMPTS[1], 7, **given)
    files = {"mask": tmp_path / "mask.png", "clip": tmp_path / "clip.mp4"}
    _, (frames, facts) = tiny.finish(wan_vace.generate(task, models, **files))
    assert frames.shape == (9, 32, 48, 3) and facts["clip_frames"] == 9 and facts["network_calls"] == 4
    pictures = clips.read_changed(task, tmp_path / "clip.mp4", models.settings)
    _, drawn = wan_vace.edited_clip(pictures, picture(2, mode="L"), 96, 64)
    covered = Image.fromarray((255 * drawn[0, 0, 0].numpy()).astype(np.uint8))
    asked = {"prompt": task.prompt, "negative_prompt": task.negative_prompt, "guidance_scale": guidance}
    asked |= {"num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 4}
    # What is drawn anew and not followed is 0, a grey that no picture of 8 bits has exactly.
    monkeypatch.setattr(published, "preprocess_conditions", greyed(published.preprocess_conditions))
    check(published, asked | {"video": list(map(Image.fromarray, pictures)), "mask": 9 * [covered]}, latents, made)


def greyed(preprocess):
    """`preprocess` whose clip is grey where it is drawn anew."""

    def conditions(*inputs):
        clip, mask, references = preprocess(*inputs)
        return clip * (1 - mask), mask, references

    return conditions


def test_a_mask_lies_over_the_whole_picture_of_which_the_middle_is_used():
    pictures = np.full((2, 32, 32, 3), 200, np.uint8)  # the middle of a clip of 64x32
    mask = Image.new("L", (128, 64))
    mask.paste(255, (0, 0, 48, 64))  # up to column 24 of the clip: 8 of those that are used
    control, drawn = wan_vace.edited_clip(pictures, mask, 64, 32)
    assert drawn.shape == (1, 1, 2, 32, 32) and (drawn == drawn[:, :, :1, :1]).all()
    assert drawn[0, 0, 0, 0].tolist() == 8 * [1.0] + 24 * [0.0]
    assert (control[..., :8] == 0).all() and torch.allclose(control[..., 8:], torch.tensor(200 / 127.5 - 1))


def test_a_clip_and_its_mask_come_together():
    card = find("wan-2.1-vace-clips")
    with pytest.raises(ValueError, match="Say which part of the clip is drawn anew"):
        TextToVideo.for_model(card, "a robot", 7, clip=NOBODY)
    with pytest.raises(ValueError, match="A mask needs the clip"):
        TextToVideo.for_model(card, "a robot", 7, mask=NOBODY)
    with pytest.raises(ValueError, match="takes no strength of a clip"):
        TextToVideo.for_model(card, "a robot", 7, clip=NOBODY, mask=NOBODY, clip_strength=0.5)
    task = TextToVideo.for_model(card, "a robot", 7, clip=NOBODY, mask=NOBODY)
    assert task.steps_made == task.steps and task.checked() == task
    assert TextToVideo.for_model(card, "a robot", 7).steps_made == task.steps


def test_a_control_that_is_kept_here_and_followed_there_is_that_of_diffusers(models, cards, published):
    clip = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = (torch.rand(1, 1, 9, 32, 48, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    with models.lease("text-to-video/vae") as vae, torch.no_grad():
        ours = wan_vace.control_latents(vae, clip, mask)
        wide = mask.expand(-1, 3, -1, -1, -1)
        seen, masks = published.prepare_video_latents(clip, wide, [[]]), published.prepare_masks(wide, [[]])
    assert ours.shape == (1, 2 * tiny_wan.CHANNELS + 64, 3, 4, 6)
    assert tiny.relative_error(ours, torch.cat([seen, masks], dim=1)) < 1e-5


def check(published, asked, latents, clips, references=0):
    noise = draw_noise((1, tiny_wan.CHANNELS, references + 3, 4, 6), seed=7)
    expected = published(**asked, latents=noise.clone(), output_type="latent").frames[:, :, references:]
    pictures = published(**asked, latents=noise.clone(), output_type="np").frames[0]
    assert tiny.relative_error(latents[0], expected) < 1e-5
    ours = torch.cat(clips, dim=2)[0].permute(1, 2, 3, 0)  # (F, H, W, 3)
    assert tiny.relative_error(ours * 0.5 + 0.5, torch.from_numpy(pictures)) < 1e-5


def test_skeletons_are_drawn_as_dwpose_does():
    poses = keypoints.place(openpose_json.read(find_motion(MOTIONS[0])), 256, 192)
    joints = poses.joints.copy()
    joints[0, 0, 4] = 0  # a hand that is not seen
    poses = replace(poses, joints=joints)
    ours = skeleton.draw(poses, "openpose")
    for frame, people in zip(ours, joints, strict=True):
        seen = people[..., 2] > 0
        candidates = (people[..., :2] / (256, 192)).reshape(-1, 2)
        subset = np.where(seen, np.arange(candidates.shape[0]).reshape(seen.shape), -1)
        expected = draw_bodypose(np.zeros((192, 256, 3), np.uint8), candidates, subset)
        assert (np.abs(frame.astype(int) - expected).max(axis=-1) > 0).mean() < 0.002  # of rounded coordinates
    assert skeleton.recognise(ours) == "openpose" and ours.max() == 255
    assert skeleton.recognise(skeleton.draw(poses)) == "coco"


# The whole


def test_everything_in_the_task_matters(cards, models, tmp_path):
    def frames(task):
        return tiny.finish(wan_vace.follow_poses(task, models))[1][0]

    first = frames(followed(cards))
    assert first.shape == (9, 32, 48, 3) and np.array_equal(first, frames(followed(cards)))
    changes = [{"motion": MOTIONS[1]}, {"strength": 0.5}, {"negative_prompt": "rain"}, {"steps": 5}]
    for change in [*changes, {"scheduler": "euler"}, {"smoothing": "strong"}]:
        assert not np.array_equal(first, frames(followed(cards, **change))), change

    files = [tmp_path / f"{seed}.png" for seed in range(2)]
    for seed, file in enumerate(files):
        picture(seed).save(file)
    made = [tiny.finish(wan_vace.generate(begun(cards), models))[1]]
    for file in files:
        made.append(tiny.finish(wan_vace.generate(begun(cards, image=NOBODY), models, image=file))[1])
    for file in files:
        made.append(tiny.finish(wan_vace.generate(begun(cards, reference=NOBODY), models, reference=file))[1])
    assert [facts["first_image"] for _, facts in made] == ["none", "given", "given", "none", "none"]
    assert [facts.get("reference") for _, facts in made] == [None, None, None, "given", "given"]
    assert len({frames.tobytes() for frames, _ in made}) == 5


def test_a_strength_of_0_follows_nothing(cards, models):
    one, other = (followed(cards, strength=0.0, motion=motion) for motion in MOTIONS[:2])
    frames = [tiny.finish(wan_vace.follow_poses(task, models))[1][0] for task in (one, other)]
    assert np.array_equal(*frames)


def test_every_window_of_a_long_dance_sees_its_own_poses_and_the_reference(cards, tmp_path):
    card = cards["pose-to-video"]
    card = replace(card, limits=replace(card.limits, frames=Range(1, 41, 4), once=13, window=9))
    models, seen = tiny_wan.manager({card.name: card}, tmp_path), []
    picture(4, 40, 40).save(tmp_path / "who.png")
    task = followed({card.name: card}, frames=21, reference=NOBODY, guidance=1.0, steps=1)
    _, sequence = tiny.finish(skeletons(task, models))
    with models.lease(f"{card.name}/vae") as vae, torch.no_grad():
        drawn, who = wan.as_clip(sequence.pictures), wan_vace.laid_out(picture(4, 40, 40), 48, 32)
        control = wan_vace.control_latents(vae, drawn, torch.ones_like(drawn[:, :1]), [who])
    with models.lease(f"{card.name}/transformer") as transformer:
        watched = transformer.register_forward_pre_hook(lambda _, *given: seen.append(given), with_kwargs=True)
        _, (frames, facts) = tiny.finish(wan_vace.follow_poses(task, models, reference=tmp_path / "who.png"))
        watched.remove()
    assert len(frames) == 21 and "3 windows of 9 frames" in facts["approximations"]
    noise = draw_noise((1, tiny_wan.CHANNELS, 7, 4, 6), seed=7)
    for ((latents, *_), given), places in zip(seen, ([0, 1, 2, 3], [0, 3, 4, 5], [0, 4, 5, 6]), strict=True):
        assert tiny.relative_error(given["control_hidden_states"], control[:, :, places]) < 1e-5
        assert latents.equal(noise[:, :, places])


def test_of_a_short_clip_the_first_frames_are_followed(cards, models, tmp_path):
    poses = openpose_json.read(find_motion(MOTIONS[0]))
    openpose_json.write(poses.frames(range(7)), tmp_path / "keypoints.json")
    task = followed(cards, motion="", clip=NOBODY)
    seen = []
    _, (frames, facts) = tiny.finish(
        wan_vace.follow_poses(task, models, clip=tmp_path / "keypoints.json", follow=seen.append)
    )
    assert len(frames) == len(seen[0].pictures) == len(seen[0].poses.joints) == 5
    assert facts["poses"]["frames"] == len(facts["poses"]["confidence_of_frames"]) == 5


def test_skeletons_in_colours_that_it_does_not_know_are_refused(cards, models, tmp_path):
    poses = keypoints.place(openpose_json.read(find_motion(MOTIONS[0])), 256, 256)
    video.write(skeleton.draw(poses), tmp_path / "coco.mp4", 8)
    task = followed(cards, motion="", clip=NOBODY)
    with pytest.raises(ValueError, match="FollowYourPose's colours, which this model does not know"):
        tiny.finish(skeletons(task, models, clip=tmp_path / "coco.mp4"))
    video.write(skeleton.draw(poses, "openpose"), tmp_path / "openpose.mp4", 8)
    _, sequence = tiny.finish(skeletons(task, models, clip=tmp_path / "openpose.mp4"))
    assert skeleton.recognise(sequence.pictures) != "coco" and sequence.poses is not None


def test_the_branches_one_after_the_other_are_the_same_in_less_memory(models):
    config = tiny_wan.vace_transformer().config
    with torch.device("meta"):
        module = WanVACETransformer3DModel.from_config(config)
    assert wan_vace.denoising_memory(module, 2, 3, 4, 6, 8) < wan_vace.denoising_memory(module, 2, 3, 4, 6, 1)
    states = torch.randn(2, umt5.MAX_TOKENS, 16, generator=torch.Generator().manual_seed(0))
    noise = draw_noise((1, tiny_wan.CHANNELS, 3, 4, 6), seed=7)
    with models.lease("text-to-video/transformer") as transformer, torch.no_grad():
        both, each = (wan_vace.network(transformer, states, slices)(noise, 500.0) for slices in (1, 8))
    assert tiny.relative_error(both, each) < 1e-5


def test_a_reference_counts_in_the_memory(cards, models, monkeypatch):
    counted = []
    plain = wan_vace.denoising_memory
    monkeypatch.setattr(wan_vace, "denoising_memory", lambda *numbers: counted.append(numbers[2]) or plain(*numbers))
    for before in (0, 1):
        wan.working_memory(begun(cards), models, wan_vace.denoising_memory, "transformer", before)
    assert counted == [3, 4]


def test_a_model_that_shows_no_reference_refuses_one():
    for name in ("wan-2.1-vace-poses", "wan-2.1-vace-images"):
        assert "reference" in find(name).takes
    for card, task, rest in ((find("wan-2.1-1.3b"), TextToVideo, {}), (find("followyourpose-v1"), PoseToVideo, None)):
        given = {"motion": MOTIONS[0]} if rest is None else {}
        with pytest.raises(ValueError, match="takes no reference image"):
            task.for_model(card, "a robot", 7, reference=NOBODY, **given)


# Where a person meets it


def test_the_cards_share_their_weights(models):
    assert find("wan-2.1-vace-poses").source == find("wan-2.1-vace-images").source
    for part in ("transformer", "vae", "text_encoder"):
        assert models.key(f"text-to-video/{part}") == models.key(f"pose-to-video/{part}")


def test_the_command_line_takes_a_folder_for_poses_and_for_images(folder, tmp_path):
    sizes = ["--model", str(folder), "--width", "48", "--height", "32", "--steps", "2", "--frames", "5", "--seed", "7"]
    out = tmp_path / "dance.mp4"
    picture(1).save(tmp_path / "image.png")
    shown = ["--reference", str(tmp_path / "image.png")]
    assert main(["pose-to-video", f"motion:{MOTIONS[0]}", "a robot", *sizes, *shown, "-o", str(out)]) == 0
    assert video.read(out).shape == (5, 32, 48, 3)
    image = ["--image", str(tmp_path / "image.png")]
    assert main(["text-to-video", "a robot", *sizes, *image, *shown, "-o", str(tmp_path / "robot.mp4")]) == 0
    assert video.read(tmp_path / "robot.mp4").shape == (5, 32, 48, 3)
