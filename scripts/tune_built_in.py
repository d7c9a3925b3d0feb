"""Makes the tuned model that comes with the app, for whoever wants to edit at once: python -m scripts.tune_built_in

Draws a clip, tunes miniature-sd on it as `python -m pipelines tune` does, and edits it with every one of IDEAS. Writes
assets/tuned/NAME: what a tuning leaves (of the inverted latents only those that edits start from), the clip as MP4 and
as a moving picture, and the ideas; then assets/checksums.txt. The edits, to be looked at, stay in the folder --work.
Run it again whenever the weights of miniature-sd change: edits refuse a model that was tuned from others.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from pipelines.__main__ import main as run
from pipelines.catalog import TUNED
from pipelines.media import video
from scripts import checksums
from scripts.miniature.world import FPS, Words, draw_clip

NAME = "kicking-person"  # by which programs call it; the edit endpoint (ui/api.py) tells it
WORDS, SEED = Words("person", "yellow", "snow", "kicking"), 1  # of the clip
CAPTION = "a person in yellow kicks in the snow"
TRAINED = "mid and up"  # edits keep more of the motion than with "all": assets/miniature/README.md
IDEAS = (  # that look good; the first is what the page proposes
    "a person in yellow kicks in the desert",
    "a robot in yellow kicks in the snow",
    "a person in red kicks in the snow",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.tune_built_in", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="for the edits, and for what can be resumed")
    work = parser.parse_args().work
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        drawn, tuned = folder / "drawn.mp4", folder / NAME
        video.write(draw_clip(WORDS, np.random.default_rng(SEED)).frames, drawn, FPS)
        _run("tune", drawn, CAPTION, "--model", "miniature-sd", "--trained", TRAINED, "-o", tuned)
        for number, idea in enumerate(IDEAS, 1):
            _run("edit", tuned, idea, "-o", folder / f"{number}.mp4")  # the first inverts the clip
        shutil.rmtree(TUNED / NAME, ignore_errors=True)
        shutil.copytree(tuned, TUNED / NAME)
    _shorten(TUNED / NAME)
    (TUNED / NAME / "clip.webp").write_bytes(video.animation(video.read(TUNED / NAME / "clip.mp4"), FPS))
    (TUNED / NAME / "ideas.json").write_text(json.dumps(IDEAS, indent=2) + "\n", "utf-8")
    checksums.write()


def _run(*arguments: object) -> None:
    """One command of the app's command line."""
    if code := run([str(one) for one in arguments]):
        raise SystemExit(code)


def _shorten(tuned: Path) -> None:
    """Keeps only the last of the inverted latents, from which edits start."""
    for file in tuned.glob("inversion-*.safetensors"):
        save_file({"latents": load_file(file)["latents"][-1:].contiguous()}, file)


if __name__ == "__main__":
    main()
