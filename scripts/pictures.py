"""Makes the pictures of the page's examples, with the built-in models: python -m scripts.pictures

Writes assets/examples/*.mp4, which a press on an example plays, *.webp and *.png. Run it again whenever the weights or
the examples change, and scripts/screenshots.py after it.
"""

import secrets
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image

from pipelines.events import Result
from pipelines.media import video
from pipelines.serving.backend import Backend
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo
from ui.text_to_video import EXAMPLES, PICTURES


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(Settings.from_environment(), data=Path(folder))
        backend = local_backend(settings)
        try:
            PICTURES.mkdir(exist_ok=True)
            for example in EXAMPLES:
                draw_example(backend, example.pictures, example.task)
        finally:
            backend.close()


def draw_example(backend: Backend, name: str, task: TextToVideo) -> None:
    """The video of `task`, as a moving WebP, too, and its middle frame for those who want no motion."""
    owner = secrets.token_hex(16)
    *_, end = backend.jobs.events(backend.jobs.submit(task, owner), owner)
    if not isinstance(end, Result):
        raise SystemExit(f"{name}: {end.message}")
    shutil.copyfile(end.video, PICTURES / f"{name}.mp4")
    frames = [Image.fromarray(frame) for frame in video.read(end.video)]
    moving = PICTURES / f"{name}.webp"
    frames[0].save(
        moving, save_all=True, append_images=frames[1:], duration=1000 // task.fps, loop=0, quality=75, method=6
    )
    frames[len(frames) // 2].save(PICTURES / f"{name}.png", optimize=True)
    print(f"{moving}  {moving.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
