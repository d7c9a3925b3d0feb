"""A simulated device, whose steps sleep: what is left of a job's seconds is what the app adds.

`python -m scripts.benchmark.simulated` is a worker that has it.
"""

import time
from dataclasses import replace

import numpy as np

from pipelines.catalog import ENGINES
from pipelines.events import DENOISING, Progress
from pipelines.serving import worker_process
from pipelines.systems import modelscope
from pipelines.tasks import TextToVideo
from scripts.benchmark.workers import CARD, STEP_SECONDS

FRAMES = np.linspace(50, 150, 8 * 16 * 16 * 3).reshape(8, 16, 16, 3).astype(np.uint8)


def generate(task, models, checkpoints=None):
    """As an engine's `generate`: steps that sleep, and always the same frames."""
    for step in range(1, task.steps + 1):
        time.sleep(STEP_SECONDS)
        yield Progress(DENOISING, step, task.steps)
    return FRAMES, {}


ENGINE = replace(modelscope.ENGINE, generate={TextToVideo: generate}, parts=())
ENGINES[CARD.system] = "scripts.benchmark.simulated"

if __name__ == "__main__":
    worker_process.main()
