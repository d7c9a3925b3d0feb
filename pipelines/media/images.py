"""Pictures that visitors upload to begin a video with, and masks that they draw on them. Nothing here trusts a file."""

import io
import json
import logging
import secrets
import shutil
import time
import warnings
from pathlib import Path

from PIL import Image, ImageOps

from pipelines.media import video
from pipelines.settings import Settings

KINDS = ("PNG", "JPEG", "WEBP", "BMP")  # plain pictures; PIL's readers of other kinds do far more than read
SHOWN = 512  # pixels: as large as a picture is shown to be drawn on
LOST = "There is no such image here. Upload it again."

log = logging.getLogger(__name__)


class Images:
    """The folder `images` among the data: a folder a picture, under a name that nobody can guess, and whose it is."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._folder = settings.data.absolute() / "images"

    def keep(self, path: str | Path, owner: str, mask: bool = False) -> str:
        """Takes a copy of the upload `path`, as plain pixels, and returns its name for a task. Raises as `read`."""
        picture = read(path, self._settings, "L" if mask else "RGB")
        name = secrets.token_hex(16)
        folder = self._folder / name
        folder.mkdir(parents=True)
        try:
            picture.save(folder / "image.png")
            with video.whole(folder / "image.json") as file:  # the last: a folder without it is not finished
                file.write_text(json.dumps({"owner": owner}), "utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return name

    def get(self, name: str, owner: str) -> Path:
        """The file of the picture `name`. Raises ValueError for an unknown one, or somebody else's than `owner`'s."""
        folder = self._folder / name
        try:
            whose = json.loads((folder / "image.json").read_text("utf-8"))["owner"]
        except (OSError, ValueError) as error:
            raise ValueError(LOST) from error
        if owner != whose:
            raise ValueError(LOST)
        return folder / "image.png"

    def show(self, name: str, owner: str) -> bytes:
        """The picture `name` as a PNG whose sides are at most SHOWN. Raises ValueError as `get` does."""
        try:
            with Image.open(self.get(name, owner)) as picture:
                picture.thumbnail((SHOWN, SHOWN))
                file = io.BytesIO()
                picture.save(file, "PNG")
        except OSError as error:  # deleted by hand, or damaged
            raise ValueError(LOST) from error
        return file.getvalue()

    def tidy(self, needed: set[str]) -> None:
        """Deletes the pictures that are older than videos may be, and those never finished; none of `needed`."""
        oldest = time.time() - self._settings.keep_days * 86_400
        for folder in self._folder.glob("*"):
            whole = (folder / "image.json").exists()
            if folder.name not in needed and folder.stat().st_mtime < (oldest if whole else time.time() - 3600):
                log.info("Image %s is deleted, as the settings for old videos say", folder.name)
                shutil.rmtree(folder, ignore_errors=True)


def read(path: str | Path, settings: Settings, mode: str = "RGB") -> Image.Image:
    """The picture in the file `path`, in colours ("RGB") or grey ("L"), turned upright as its EXIF data say.

    Raises ValueError, in words for the person who uploaded it, where it is no picture, damaged or too large.
    """
    path, side = Path(path), settings.upload_side
    try:
        if path.stat().st_size > settings.upload_mb * 2**20:
            raise ValueError(f"The picture has more than {settings.upload_mb} MB. Save it smaller.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of large pictures; the limit here is lower
            picture = Image.open(path, formats=KINDS)
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"This is no picture that can be read. Save it as one of: {', '.join(KINDS)}.") from error
    with picture:
        if max(picture.size) > side:
            raise ValueError(f"The picture is {picture.width}x{picture.height}; {side} pixels a side can be read.")
        try:
            return ImageOps.exif_transpose(picture).convert(mode)
        except Exception as error:  # PIL's readers raise everything
            raise ValueError("This picture is damaged. Save it again, and upload that.") from error
