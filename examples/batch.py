"""A video of every line of a file, one after another, the models being loaded once:

python examples/batch.py prompts.txt videos/

Stopped and started anew it goes on: what is there is not made again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where pipelines/ lies

from pipelines.catalog import CATALOG
from pipelines.media import video
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import modelscope
from pipelines.tasks import TextToVideo, to_json

CARD = CATALOG["miniature-modelscope"]


def main(prompts: Path, folder: Path, steps: int) -> None:
    lines = [line.strip() for line in prompts.read_text("utf-8").splitlines() if line.strip()]
    tasks = [TextToVideo.for_model(CARD, line, seed=7, steps=steps) for line in lines]  # a bad one is told at once
    folder.mkdir(parents=True, exist_ok=True)
    models = ModelManager(CATALOG, Settings.from_environment())
    for number, task in enumerate(tasks, start=1):
        target = folder / f"{number:04}.mp4"
        if target.exists():
            print(f"{target} is there already")
            continue
        events = modelscope.generate(task, models)
        try:
            while True:
                next(events)
        except StopIteration as end:
            frames, _ = end.value
        video.write(frames, target, task.fps, to_json(task))  # whole or not at all
        print(f"{target}: {task.prompt}")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(given.get(3, 10)))
