"""A video in one process, without the page: python examples/library.py "a bear in green dances in the snow" bear.mp4"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where pipelines/ lies

from pipelines.catalog import CATALOG
from pipelines.events import Progress
from pipelines.media import video
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import modelscope
from pipelines.tasks import TextToVideo, to_json

MODEL = "miniature-modelscope"


def main(prompt: str, target: Path, steps: int) -> None:
    models = ModelManager(CATALOG, Settings.from_environment())
    task = TextToVideo.for_model(CATALOG[MODEL], prompt, seed=7, steps=steps)
    events = modelscope.generate(task, models)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            frames, facts = end.value  # uint8 [F, H, W, 3]
            break
        if isinstance(event, Progress):
            print(f"{event.stage}: {event.step} of {event.total}")
    video.write(frames, target, task.fps, to_json(task))
    print(f"{target}: {len(frames)} frames, {facts['network_calls']} calls of the network on {facts['device']}")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    main(given.get(1, "a robot in blue waving on the beach"), Path(given.get(2, "robot.mp4")), int(given.get(3, 10)))
