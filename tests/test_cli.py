"""The command line, as a person runs it: in processes of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from pipelines import video
from pipelines.catalog import CATALOG
from pipelines.sources import card_of_folder
from pipelines.tasks import from_json

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a robot in blue waving on the beach"


def start(folder, *arguments, **environment):
    """The command line in a process, its caches and data within `folder`."""
    places = {"MARIONETTE_DATA": folder / "data", "MARIONETTE_CACHE": folder / "cache", "MARIONETTE_DEVICE": "cpu"}
    environment = {**os.environ, **{name: str(value) for name, value in {**places, **environment}.items()}}
    return subprocess.Popen(
        [sys.executable, *environment.pop("PYTHON_OPTIONS", "").split(), "-m", "pipelines", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, *arguments, **environment):
    """(exit code, standard output, standard error)"""
    process = start(folder, *arguments, **environment)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("weights") / "tiny")


def test_text_to_video(tmp_path):
    path = tmp_path / "out.mp4"
    code, output, errors = run(tmp_path, "text-to-video", PROMPT, "--seed", "7", "--steps", "2", "-o", str(path))
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
    "zero frames": (["text-to-video", PROMPT, "--frames", "0"], "from 8 to 24"),
    "a thousand frames": (["text-to-video", PROMPT, "--frames", "1000"], "from 8 to 24"),
    "no multiple of 8": (["text-to-video", PROMPT, "--model", "modelscope-1.7b", "--width", "250"], "multiple of 8"),
    "beyond the limits": (
        ["text-to-video", PROMPT, "--model", "modelscope-1.7b", "--width", "4096"],
        "from 128 to 768",
    ),
    "too large a seed": (["text-to-video", PROMPT, "--seed", "4294967296"], "seed"),
    "unknown scheduler": (["text-to-video", PROMPT, "--scheduler", "euler"], "dpm++"),
    "unknown model": (["text-to-video", PROMPT, "--model", "sora"], "miniature-modelscope"),
    "a folder without a model": (["text-to-video", PROMPT, "--model", str(ROOT / "tests")], "holds no model"),
    "unknown option": (["text-to-video", PROMPT, "--sharpness", "3"], "--sharpness"),
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
    code, _, errors = run(tmp_path, "text-to-video", PROMPT, "--frames", "0", PYTHON_OPTIONS="-X importtime")
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
    process = start(tmp_path, "text-to-video", PROMPT, "--steps", "100", "-o", str(tmp_path / "out.mp4"))
    deadline = time.monotonic() + 60
    while not (tmp_path / "cache").exists() and time.monotonic() < deadline:  # the weights are being read
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "Stopped.\n")
    assert os.listdir(tmp_path) == ["cache"]


def test_models(tmp_path):
    code, output, _ = run(tmp_path, "models", MARIONETTE_HUB="0", HF_HOME=tmp_path)
    assert code == 0
    paragraphs = output.split("\n\n")
    assert len(paragraphs) == len(CATALOG)
    for card, paragraph in zip(CATALOG.values(), paragraphs, strict=True):
        assert card.name in paragraph and card.title in paragraph and card.needs in paragraph
    assert "Here: yes" in paragraphs[0] and "MARIONETTE_HUB=1" in paragraphs[1]
