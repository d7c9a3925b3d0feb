"""Draws candidates for the page's first video and its examples: python -m scripts.candidates SHEET.png

Prints a number for each picture: a row for each prompt, a column for each seed; four frames of each video stand side by
side. Choose by eye, and write prompt and seed into EXAMPLES (ui/text_to_video.py); then run scripts.pictures.
Do so whenever the built-in models change.
"""

import argparse
import secrets
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.events import Result
from pipelines.media import video
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from ui.text_to_video import EXAMPLES

SHOWN = 4  # frames of each video


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws candidates for the page's examples.")
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--only", type=int, nargs="+", default=range(len(EXAMPLES)), help="these examples, from 0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        backend = local_backend(replace(Settings.from_environment(), data=Path(folder)))
        try:
            rows = []
            for number in options.only:
                task, owner = EXAMPLES[number].task, secrets.token_hex(16)
                strips = []
                for seed in options.seeds:
                    job = backend.jobs.submit(replace(task, seed=seed), owner)
                    *_, end = backend.jobs.events(job, owner)
                    if not isinstance(end, Result):
                        raise SystemExit(f"{task.prompt}: {end.message}")
                    frames = video.read(end.video)
                    chosen = np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)
                    strips.append(np.pad(np.concatenate(frames[chosen], 1), ((4, 4), (4, 4), (0, 0))))
                print(f"{number}: {task.prompt}; seeds {options.seeds}", flush=True)
                rows.append(np.concatenate(strips, 1))
                Image.fromarray(np.concatenate(rows)).save(options.sheet)
        finally:
            backend.close()


if __name__ == "__main__":
    main()
