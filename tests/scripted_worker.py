"""A worker process that knows the engine of test_executors.py."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import pipelines  # noqa: E402, F401  repairs torchvision  # isort: skip
import test_executors  # noqa: E402

from pipelines.catalog import ENGINES  # noqa: E402
from pipelines.serving import worker_process  # noqa: E402
from pipelines.systems import modelscope  # noqa: E402
from pipelines.tasks import TextToVideo, Tune  # noqa: E402

engine = replace(
    modelscope.ENGINE, generate={TextToVideo: test_executors.generate, Tune: test_executors.tune}, parts=()
)
sys.modules["engine_scripted"] = SimpleNamespace(ENGINE=engine)  # type: ignore[assignment]
ENGINES["scripted"] = "engine_scripted"
if __name__ == "__main__":
    worker_process.main()
