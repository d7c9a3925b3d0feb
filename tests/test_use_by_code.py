"""The texts that the page shows are run exactly as they stand there, but for the page's address."""

import subprocess
import sys

import numpy as np
import pytest
from running_app import environment

from pipelines.media import video
from ui.use_by_code import ADDRESS, TEXTS


@pytest.mark.parametrize("title", TEXTS)
def test_the_text_does_what_it_says(shared_app, tmp_path, title):
    text, language = TEXTS[title]
    assert text.count(ADDRESS) == 1 and max(map(len, text.splitlines())) < 120
    frames = np.full((12, 96, 128, 3), 200, np.uint8)
    for number, frame in enumerate(frames):
        frame[30:60, 8 * number : 8 * number + 24] = (200, 30, 30)
    video.write(frames, tmp_path / "dance.mp4", 8)

    (tmp_path / "text").write_text(text.replace(ADDRESS, shared_app.url), "utf-8")
    program = {"python": sys.executable, "shell": "bash"}[language]
    variables = environment(GRADIO_TEMP_DIR=str(tmp_path / "downloads"))
    ran = subprocess.run(
        [program, "text"], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=180, stdin=None
    )
    assert ran.returncode == 0, ran.stderr
    made = [*tmp_path.glob("robot.mp4"), *(tmp_path / "downloads").rglob("*.mp4")]
    if title == "Stop":
        assert made == [] and "stopped" in ran.stdout
    else:
        assert video.read(made[-1]).shape[2:] == (128, 3)
    if title == "A video":
        assert "Denoising 10 of 10" in ran.stdout
