"""The command line, as a person runs it: in processes of its own, three of them true ones and the others forks."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import programs
import pytest
import tiny

from pipelines.catalog import CATALOG, find_motion
from pipelines.media import video
from pipelines.models.folders import card_of_folder
from pipelines.poses import openpose_json
from pipelines.serving.drained import Drained
from pipelines.settings import Settings
from pipelines.tasks import Finish, TextToVideo, from_json, recall, to_json

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a robot in blue waving on the beach"


def surroundings(folder, **more):
    """The environment of a command line with its caches and data within `folder`."""
    places = {"MARIONETTE_DATA": folder / "data", "MARIONETTE_CACHE": folder / "cache", "MARIONETTE_DEVICE": "cpu"}
    return {**os.environ, **{name: str(value) for name, value in {**places, **more}.items()}}


def run_truly(folder, *arguments, options=(), **environment):
    """(exit code, standard output, standard error), of a true process whose interpreter has these `options`"""
    ran = subprocess.run(
        [sys.executable, *options, "-m", "pipelines", *arguments],
        cwd=ROOT,
        env=surroundings(folder, **environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ran.returncode, ran.stdout, ran.stderr


def run(folder, *arguments, **environment):
    """(exit code, standard output, standard error), of a fork"""
    ran = programs.run(["-m", "pipelines", *arguments], surroundings(folder, **environment))
    return ran.returncode, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("weights") / "tiny")


def test_text_to_video(tmp_path):
    path = tmp_path / "out.mp4"
    code, output, errors = run_truly(tmp_path, "text-to-video", PROMPT, "--seed", "7", "--steps", "2", "-o", str(path))
    assert (code, output, errors) == (0, f"{path}\n", "")
    assert video.read(path).shape == (16, 128, 128, 3)
    task = from_json(video.read_comment(path))
    assert (task.prompt, task.model, task.seed, task.steps) == (PROMPT, "miniature-modelscope", 7, 2)
    assert sorted(os.listdir(tmp_path)) == ["cache", "out.mp4"]


def test_every_option_reaches_the_video(tmp_path, model):
    """On a model in a folder of the published layout; without -o there is a new file among the data."""
    options = ["--negative", "watermark", "--frames", "3", "--width", "72", "--height", "64", "--fps", "5"]
    options += ["--steps", "2", "--guidance", "2.5", "--scheduler", "ddim", "--seed", "4294967295"]
    code, output, errors = run(tmp_path, "text-to-video", PROMPT, "--model", str(model), *options)
    assert (code, errors) == (0, "")
    path = Path(output.strip())
    assert path.parent == tmp_path / "data" and video.read(path).shape == (3, 64, 72, 3)
    assert video.probe(path).fps == 5
    task = from_json(video.read_comment(path), {"tiny": card_of_folder(model)})
    assert (task.negative_prompt, task.frames, task.steps) == ("watermark", 3, 2)
    assert (task.guidance, task.scheduler, task.seed) == (2.5, "ddim", 4294967295)


def test_pose_to_video(tmp_path):
    """A built-in motion, then the keypoints of a clip, by a FollowYourPose in a folder."""
    folder = tiny.write_pose_model(tmp_path / "weights" / "pose")
    path, motion = tmp_path / "out.mp4", find_motion("wave")
    options = [
        "--model",
        str(folder),
        "--frames",
        "8",
        "--width",
        "64",
        "--height",
        "64",
        "--steps",
        "1",
        "--seed",
        "7",
    ]
    code, output, errors = run(tmp_path, "pose-to-video", "motion:wave", PROMPT, *options, "-o", str(path))
    assert (code, output, errors) == (0, f"{path}\n", "")
    assert video.read(path).shape == (8, 64, 64, 3) and video.probe(path).fps == openpose_json.read(motion).fps
    task = from_json(video.read_comment(path), {"pose": card_of_folder(folder)})
    assert (task.motion, task.clip, task.prompt, task.seed) == ("wave", "", PROMPT, 7)
    options += ["--stride", "2", "--person", "0", "--strength", "0.5", "--placing", "fill", "--smoothing", "none"]
    options += ["--start", "0.25", "--end", "1.5", "--shown", "skeleton", "--keep-gaps", "--fps", "5", "--left", "0.1"]
    code, output, errors = run(tmp_path, "pose-to-video", str(motion), PROMPT, *options, "-o", str(path))
    assert (code, output, errors) == (0, f"{path}\n", "")
    task = from_json(video.read_comment(path), {"pose": card_of_folder(folder)})
    assert (task.stride, task.person, task.strength, task.placing, task.smoothing) == (2, 0, 0.5, "fill", "none")
    assert (task.start, task.end, task.shown, task.gaps, task.fps) == (0.25, 1.5, "skeleton", False, 5)
    assert (task.left, task.right, task.sound) == (0.1, 0, False)
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix) == ["out.mp4"]
    assert video.probe(path).fps == 5 and len(video.read(path)) < 8


def test_who_was_tuned_on_dances(tmp_path):
    pose = tiny.write_pose_model(tmp_path / "weights" / "pose")
    base, tuned, path = pose / "stable-diffusion-v1-4", tmp_path / "tuned", tmp_path / "out.mp4"
    video.write(np.random.default_rng(1).integers(0, 255, (4, 64, 64, 3), np.uint8), tmp_path / "clip.mp4", 8)
    shape = ["--width", "64", "--height", "64", "--seed", "7"]
    recipe = ["--model", str(base), "--frames", "2", "--steps", "1", "-o", str(tuned)]
    code, _, errors = run(tmp_path, "tune", str(tmp_path / "clip.mp4"), "somebody", *recipe, *shape)
    assert (code, errors) == (0, "")
    options = ["--model", str(pose), "--frames", "8", "--steps", "1", *shape, "-o", str(path), "--tuned"]
    code, output, errors = run(
        tmp_path, "pose-to-video", "motion:wave", PROMPT, *options, str(tuned), "--base", str(base)
    )
    assert (code, output, errors) == (0, f"{path}\n", "") and video.read(path).shape == (8, 64, 64, 3)


def drawn_clip(path: Path, words: tuple[str, ...] = ("person", "red", "beach", "waving"), frames: int = 4) -> Path:
    from scripts.miniature.world import Words, draw_clip

    video.write(draw_clip(Words(*words), np.random.default_rng(1), frames=frames).frames, path, 8)
    return path


def test_poses_of_a_clip_behind_a_link(tmp_path):
    drawn_clip(tmp_path / "clip.mp4")
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    out = tmp_path / "poses.json"
    code, output, errors = run(tmp_path, "poses", str(tmp_path / "link.mp4"), "-o", str(out))
    assert (code, output) == (0, f"{out}\n") and "drawn figures found by Paper theatre" in errors
    poses = openpose_json.read(out)
    assert (poses.width, poses.height, poses.fps) == (128, 128, 8) and len(poses.joints) == 4
    assert poses.seen[:, 0].mean() > 0.9
    for arguments, reason in (
        (("nothing.mp4", "-o", str(out)), "There is no clip nothing.mp4."),
        ((str(tmp_path / "link.mp4"), "-o", str(tmp_path / "poses.mp4")), "must be a .json file"),
        ((str(out), "-o", str(out)), "is what is read, and would be lost"),
        ((str(out), "-o", str(tmp_path / "other.json")), "These are keypoints already"),
        ((str(tmp_path / "link.mp4"), "--detector", "dwpose", "-o", str(out)), "no detector called 'dwpose'"),
    ):
        code, output, errors = run(tmp_path, "poses", *arguments)
        assert (code, output, errors.count("\n")) == (2, "", 1) and reason in errors


def test_nothing_is_written_over_what_is_read(tmp_path):
    clip = drawn_clip(tmp_path / "clip.mp4", frames=8)
    content = clip.read_bytes()
    odd = Path(shutil.copy(clip, tmp_path / "sound.m4a"))  # as a tuned model's sound is called
    clip.rename(tmp_path / "elsewhere.mp4")
    code, output, errors = run(tmp_path, "tune", str(odd), "a person waves", "-o", str(tmp_path))
    assert (code, output) == (2, "") and "sound.m4a is what is read" in errors and odd.read_bytes() == content
    (tmp_path / "elsewhere.mp4").rename(clip)
    for arguments in (
        ("finish", str(clip), "--upscale", "2", "-o", str(clip)),
        ("pose-to-video", str(clip), "a robot dances", "-o", str(clip)),
        ("tune", str(clip), "a person waves", "-o", str(tmp_path)),
    ):
        code, output, errors = run(tmp_path, *arguments)
        assert (code, output) == (2, "") and "is what is read, and would be lost" in errors
        assert clip.read_bytes() == content


def test_a_name_that_the_console_cant_print_is_no_failure(tmp_path):
    drawn_clip(tmp_path / "clip.mp4")
    path = tmp_path / "танец.mp4"
    options = ["--upscale", "2", "-o", str(path)]
    code, output, _ = run_truly(tmp_path, "finish", str(tmp_path / "clip.mp4"), *options, PYTHONIOENCODING="cp1252")
    assert code == 0 and path.is_file() and output.isascii()


def test_finish(tmp_path):
    """A video of the app, and one of somebody else; what was finished is finished from what it became."""
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), np.uint8)
    task = TextToVideo.for_model(CATALOG["miniature-modelscope"], PROMPT, 7)
    video.write(frames, tmp_path / "ours.mp4", 8, to_json(task))
    video.write(frames, tmp_path / "theirs.mp4", 8, "shot on a phone")
    for name, of, out in (("ours", task, "out"), ("theirs", None, "out"), ("out", None, "again")):
        path = tmp_path / f"{out}.mp4"
        options = ["--upscale", "2", "--interpolate", "2", "-o", str(path)]
        code, output, errors = run(tmp_path, "finish", str(tmp_path / f"{name}.mp4"), *options)
        assert (code, output, errors) == (0, f"{path}\n", "")
        assert recall(video.read_comment(path)) == Finish.for_video(of, "0" * 32, 2, 2)
    assert video.read(path).shape == (9, 128, 192, 3) and video.probe(path).fps == 32
    assert sorted(os.listdir(tmp_path)) == ["again.mp4", "ours.mp4", "out.mp4", "theirs.mp4"]


BAD = {
    "nothing": ([], "COMMAND"),
    "no such command": (["text-to-film"], "text-to-film"),
    "no prompt": (["text-to-video"], "prompt"),
    "empty prompt": (["text-to-video", " \n"], "empty"),
    "10,000 characters": (["text-to-video", "robot " * 1667], "Shorten"),
    "control characters": (["text-to-video", "a\x1b[31m robot"], "control characters"),
    "no UTF-8": (["text-to-video", b"a \xff robot"], "control characters"),
    "long negative prompt": (["text-to-video", PROMPT, "--negative", "x" * 10_000], "negative prompt"),
    "NaN": (["text-to-video", PROMPT, "--guidance", "nan"], "guidance"),
    "infinity": (["text-to-video", PROMPT, "--guidance", "inf"], "guidance"),
    "minus infinity": (["text-to-video", PROMPT, "--frames=-inf"], "frames"),
    "beyond floats": (["text-to-video", PROMPT, "--seed", "1" + "0" * 5000], "seed"),
    "words for numbers": (["text-to-video", PROMPT, "--frames", "sixteen"], "'sixteen'"),
    "half a frame": (["text-to-video", PROMPT, "--frames", "8.5"], "whole number"),
    "zero frames": (["text-to-video", PROMPT, "--frames", "0"], "from 8 to 96"),
    "a thousand frames": (["text-to-video", PROMPT, "--frames", "1000"], "from 8 to 96"),
    "no multiple of 8": (["text-to-video", PROMPT, "--model", "modelscope-1.7b", "--width", "250"], "multiple of 8"),
    "beyond the limits": (
        ["text-to-video", PROMPT, "--model", "modelscope-1.7b", "--width", "4096"],
        "from 128 to 768",
    ),
    "too large a seed": (["text-to-video", PROMPT, "--seed", "4294967296"], "seed"),
    "unknown scheduler": (["text-to-video", PROMPT, "--scheduler", "euler"], "dpm++"),
    "unknown model": (["text-to-video", PROMPT, "--model", "sora"], "miniature-modelscope"),
    "unknown model for poses": (
        ["pose-to-video", "motion:wave", PROMPT, "--model", "sora"],
        "one of: miniature-followy",
    ),
    "a folder without a model": (["text-to-video", PROMPT, "--model", str(ROOT / "tests")], "holds no model"),
    "no such motion": (["pose-to-video", "motion:moonwalk", PROMPT], "no motion called 'moonwalk'"),
    "no such clip": (["pose-to-video", "no/such/clip.mp4", PROMPT], "no clip no/such/clip.mp4"),
    "too strong poses": (["pose-to-video", "motion:wave", PROMPT, "--strength", "2"], "pose strength"),
    "no sound": (["pose-to-video", "motion:wave", PROMPT, "--sound"], "no sound to keep"),
    "poses for a model without": (
        ["pose-to-video", "motion:wave", PROMPT, "--model", "miniature-sd"],
        "followyourpose",
    ),
    "unknown option": (["text-to-video", PROMPT, "--sharpness", "3"], "--sharpness"),
    "nothing to finish": (["finish", "no/such/video.mp4", "--upscale", "2"], "no video no/such/video.mp4"),
    "no video to finish": (["finish", __file__, "--upscale", "2"], "not a video that can be used"),
    "three times as large": (["finish", __file__, "--upscale", "3"], "size must be one of 1, 2, 4"),
    "half as smooth": (["finish", __file__, "--interpolate", "0.5"], "smoothness must be one of"),
    "finishing nothing": (["finish", __file__], "Nothing would change"),
    "a device that there is not": (["drain", "2"], "There is no device 2: the app has 1"),
    "no app to drain": (["drain", "1"], "No app has its data in"),
    "output into nowhere": (["text-to-video", PROMPT, "-o", "no/such/folder/a.mp4"], "no folder no/such/folder"),
    "output of another kind": (["text-to-video", PROMPT, "-o", "a.avi"], "a.avi"),
}


@pytest.mark.parametrize("arguments, reason", BAD.values(), ids=BAD.keys())
def test_bad_requests(tmp_path, arguments, reason):
    code, output, errors = run(tmp_path, *arguments)
    assert (code, output) == (2, "") and reason in errors
    assert errors.count("\n") == 1 and len(errors) < 300
    assert os.listdir(tmp_path) == []


def test_bad_requests_are_told_at_once(tmp_path):
    """That is, before torch is imported."""
    code, _, errors = run_truly(tmp_path, "text-to-video", PROMPT, "--frames", "0", options=["-X", "importtime"])
    imported = {line.rsplit("|", 1)[1].strip() for line in errors.splitlines() if line.startswith("import time:")}
    assert code == 2 and "pipelines.tasks" in imported
    assert not imported & {"torch", "numpy", "diffusers", "transformers"}


def test_bad_environment(tmp_path):
    code, _, errors = run(tmp_path, "models", MARIONETTE_QUEUE="many")
    assert (code, errors) == (2, "MARIONETTE_QUEUE='many' can't be read as int.\n")


def test_damaged_weights(tmp_path, model):
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    (weights,) = (damaged / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    path = tmp_path / "out.mp4"
    code, output, errors = run(tmp_path, "text-to-video", PROMPT, "--model", str(damaged), "-o", str(path))
    assert (code, output, errors.count("\n")) == (2, "", 1) and "damaged" in errors
    assert not path.exists() and not list(tmp_path.glob("*.part"))


def test_no_hub(tmp_path):
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": tmp_path / "hub", "MARIONETTE_HUB": "1"}
    code, output, errors = run(tmp_path, "text-to-video", PROMPT, "--model", "modelscope-1.7b", **nowhere)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "ali-vilab/text-to-video-ms-1.7b" in errors and "can't be reached" in errors


def test_control_c(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    arguments = ["-m", "pipelines", "text-to-video", PROMPT, "--steps", "100", "-o", str(folder / "out.mp4")]
    output, errors = tmp_path / "output", tmp_path / "errors"
    process = programs.Program(arguments, surroundings(folder), output, errors)
    deadline = time.monotonic() + 60
    while not (folder / "cache").exists() and time.monotonic() < deadline:  # the weights are being read
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert (process.wait(60), output.read_text(), errors.read_text()) == (130, "", "Stopped.\n")
    assert os.listdir(folder) == ["cache"]


def test_a_device_is_drained_and_given_back(tmp_path):
    (tmp_path / "data").mkdir()
    for _ in range(2):
        code, output, _ = run(tmp_path, "drain", "2", MARIONETTE_DEVICE="cpu,cpu")
        assert code == 0 and output == "Device 2 (cpu) ends what it is at, and takes no further job.\n"
        assert "1" in Drained(Settings(data=tmp_path / "data")) and "0" not in Drained(Settings(data=tmp_path / "data"))
    for _ in range(2):
        assert run(tmp_path, "undrain", "2", MARIONETTE_DEVICE="cpu,cpu")[:2] == (0, "Device 2 (cpu) takes jobs.\n")
        assert "1" not in Drained(Settings(data=tmp_path / "data"))
    told = "Device 3 (of the cluster) takes jobs.\n"
    assert run(tmp_path, "undrain", "3", MARIONETTE_RAY="auto")[:2] == (0, told)


def test_models(tmp_path):
    code, output, _ = run(tmp_path, "models", MARIONETTE_HUB="0", HF_HOME=tmp_path)
    assert code == 0
    paragraphs = output.split("\n\n")
    assert len(paragraphs) == len(CATALOG)
    for card, paragraph in zip(CATALOG.values(), paragraphs, strict=True):
        assert card.name in paragraph and card.title in paragraph and card.needs in paragraph
    assert "Here: yes" in paragraphs[0] and "MARIONETTE_HUB=1" in paragraphs[1]
