"""Pictures that visitors upload to begin a video with, and masks that they draw on them. Nothing here trusts a file."""

import io
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import PIL
from PIL import Image

from pipelines.media import limited, video
from pipelines.messages import said
from pipelines.settings import Settings

KINDS = ("PNG", "JPEG", "WEBP", "BMP")  # plain pictures; PIL's readers of other kinds do far more than read
SECONDS = 20  # of computing that one may take to decode
LEAST, STRETCHED = 16, 10  # pixels of the shorter side at least; how many times as long the other may be
SHOWN = 512  # pixels: as large as a picture is shown to be drawn on
LOST = said("There is no such image here. Upload it again.")


class Images:
    """The folder `images` among the data: a folder a picture, under a name that nobody can guess, and whose it is."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._folder = settings.data.absolute() / "images"

    def keep(self, path: str | Path, owner: str, mask: bool = False) -> str:
        """Takes a copy of the upload `path`, as plain pixels, and returns its name for a task. Raises ValueError as
        `read`, and for a picture that is too small or too narrow to show anything."""
        picture = read(path, self._settings, "L" if mask else "RGB")
        _check_shape(*picture.size)
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
            return small(self.get(name, owner))
        except OSError as error:  # deleted by hand, or damaged
            raise ValueError(LOST) from error

    def owners(self) -> dict[str, str]:
        """Whose each picture is, by its name; "" for one that is not whole."""
        found = {}
        for folder in self._folder.glob(32 * "[0-9a-f]"):
            try:
                found[folder.name] = str(json.loads((folder / "image.json").read_text("utf-8"))["owner"])
            except (OSError, ValueError, KeyError, TypeError):
                found[folder.name] = ""
        return found

    def delete(self, name: str) -> None:
        """Deletes the picture called `name`."""
        shutil.rmtree(self._folder / name)

    def of(self, owner: str) -> Iterator[tuple[str, Path]]:
        """The names of the owner's pictures, and the files."""
        for folder in self._folder.glob("*"):
            with suppress(ValueError):
                yield folder.name, self.get(folder.name, owner)


def small(file: Path) -> bytes:
    """The picture `file`, one of the app's own, as a PNG whose sides are at most SHOWN."""
    with Image.open(file) as picture:
        picture.thumbnail((SHOWN, SHOWN))
        png = io.BytesIO()
        picture.save(png, "PNG")
    return png.getvalue()


def read(path: str | Path, settings: Settings, mode: str = "RGB") -> Image.Image:
    """The picture in the file `path`, in colours ("RGB") or grey ("L"), turned upright as its EXIF data say.

    It is decoded in a process of its own, as image_parser says. Raises ValueError, in words for the person who uploaded
    it, where it is no picture, damaged, too large, or takes too long.
    """
    side = settings.upload_side
    try:
        file = limited.open_file(path)
    except (OSError, ValueError):
        file = None
    if file is None:
        raise ValueError(
            said("This is no picture that can be read. Save it as one of: {kinds}.", kinds=", ".join(KINDS))
        )
    with file:
        if file.seek(0, 2) > settings.upload_mb * 2**20:
            raise ValueError(said("The picture has more than {most} MB. Save it smaller.", most=settings.upload_mb))
        try:
            facts, pixels = limited.parse(
                Path(__file__).with_name("image_parser.py"),
                file,
                seconds=SECONDS,
                memory_mb=settings.upload_memory_mb,
                answer=side * side * 3,
                libraries=[str(Path(PIL.__file__).parent.parent)],
                kinds=KINDS,
                side=side,
                mode=mode,
            )
        except (limited.OutOfTime, limited.OutOfMemory) as error:
            raise ValueError(
                said(
                    "The picture takes more than {seconds} seconds or {memory} MB of memory to "
                    "read. Save it smaller, as a plain JPEG or PNG.",
                    seconds=SECONDS,
                    memory=settings.upload_memory_mb,
                )
            ) from error
        except limited.Failed as error:
            raise ValueError(said("This picture is damaged. Save it again, and upload that.")) from error
    return Image.frombytes(mode, (facts["width"], facts["height"]), pixels)


def _check_shape(width: int, height: int) -> None:
    """Raises ValueError where a picture of so many pixels can't show anything."""
    if min(width, height) < LEAST:
        raise ValueError(
            said(
                "The picture is {width}x{height}, which is too small: both sides need at least {least} pixels. Use a "
                "larger one.",
                width=width,
                height=height,
                least=LEAST,
            )
        )
    if max(width, height) > STRETCHED * min(width, height):
        raise ValueError(
            said(
                "The picture is {width}x{height}, which is too narrow: one side may be at most {most} times as long as "
                "the other. Crop it.",
                width=width,
                height=height,
                most=STRETCHED,
            )
        )
