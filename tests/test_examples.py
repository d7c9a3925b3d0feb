"""The examples run as they stand, in fewer steps."""

import shutil

import programs
from running_app import environment

from pipelines.media import video
from pipelines.tasks import recall

EXAMPLES, CLIP = programs.ROOT / "examples", programs.ROOT / "tests" / "data" / "bear.mp4"


def run(tmp_path, name, *arguments):
    variables = environment(
        MARIONETTE_DATA=str(tmp_path / "data"), MARIONETTE_HUB="0", MARIONETTE_CACHE=str(tmp_path / "cache")
    )
    ran = programs.run([str(EXAMPLES / name), *map(str, arguments)], variables, tmp_path, timeout=240)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_video_without_the_page(tmp_path):
    said = run(tmp_path, "library.py", "a bear bows", "bear.mp4", 1)
    assert "Denoising: 1 of 1" in said and recall(video.read_comment(tmp_path / "bear.mp4")).prompt == "a bear bows"


def test_a_file_of_prompts_goes_on_where_it_was_stopped(tmp_path):
    (tmp_path / "prompts.txt").write_text("a bear bows\n\na robot waves\n")
    (tmp_path / "videos").mkdir()
    shutil.copy(CLIP, tmp_path / "videos" / "0001.mp4")  # of a run before
    said = run(tmp_path, "batch.py", "prompts.txt", "videos", 1)
    assert "0001.mp4 is there already" in said
    assert (tmp_path / "videos" / "0001.mp4").read_bytes() == CLIP.read_bytes()
    assert recall(video.read_comment(tmp_path / "videos" / "0002.mp4")).prompt == "a robot waves"


def test_a_clip_is_told_again_over_the_api(tmp_path, shared_app):
    said = run(tmp_path, "api.py", shared_app.url, CLIP, "a bear bows", "a robot bows", 1, 1)
    assert "Tuning" in said and ".mp4 in " in said
