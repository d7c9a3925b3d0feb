"""How fast and how big: python -m scripts.benchmark modelscope --size miniature --weights real --device cpu

Runs the app's own code. The arithmetic is counted by running the networks without data ("meta"); MFU is what share of
the device's best matrix product, measured here, a step reaches.
"""

import argparse
from importlib import import_module
from pathlib import Path

from scripts.benchmark import measure  # notes the time

SYSTEMS = {  # -> the module that measures it
    "modelscope": "text_to_video",
    "tempofunk": "text_to_video",
    "tuneavideo": "tuneavideo",
    "followyourpose": "followyourpose",
    "shortcuts": "shortcuts",
    "first-visit": "first_visit",
    "promises": "promises",
    "windows": "windows",
    "dance": "dance",
    "workers": "workers",
    "ray-workers": "ray_workers",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("system", nargs="?", default="modelscope", choices=SYSTEMS)
    parser.add_argument("--size", default="miniature", choices=["miniature", "full"])
    parser.add_argument("--weights", default="real", choices=["random", "real"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--diffusers", action="store_true", help="diffusers' own pipeline too, as with full on CUDA")
    for name in ("frames", "width", "height", "steps"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--scheduler")
    parser.add_argument("clips", nargs="*", help="of dance: files, or names of built-in motions")
    parser.add_argument(
        "--sheet", type=Path, help="of dance: a file for source, skeletons and result, some frames each"
    )
    parser.add_argument("--litert", type=Path, help="of dance: MediaPipe 0.10.21's wheel, unpacked, to compare with")
    options = parser.parse_intermixed_args()
    try:
        rows = import_module(f"scripts.benchmark.{SYSTEMS[options.system]}").benchmark(options)
    except (ValueError, MemoryError) as error:
        parser.error(str(error))
    measure.show(rows)


if __name__ == "__main__":
    main()
