"""Writes assets/checksums.txt, by which a damaged weight file is noticed: `python -m scripts.checksums`.

To be run whenever weights in assets have changed. `sha256sum -c checksums.txt`, in assets, reads it too.
"""

import hashlib

from pipelines.catalog import ASSETS
from pipelines.models.files import CHECKSUMS


def lines() -> list[str]:
    """A line for each of the app's own weight files: its hash and its path in the folder of the list."""
    files = sorted(ASSETS.rglob("*.safetensors"))
    names = [file.relative_to(CHECKSUMS.parent).as_posix() for file in files]
    return [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {name}" for file, name in zip(files, names, strict=True)]


def write() -> None:
    CHECKSUMS.write_text("".join(f"{line}\n" for line in lines()), "utf-8")


if __name__ == "__main__":
    write()
