"""Reads a stranger's picture as plain pixels: runs in a limited process. Standard library and PIL only."""

import re
import sys
from typing import Any, BinaryIO

from PIL import Image, ImageChops, ImageFile, ImageOps, PngImagePlugin

SCANS = 100  # of a progressive JPEG, each of which goes over all pixels; cameras and web pages have about ten


class Refused(Exception):
    """What is wrong with the file, in words for the person who uploaded it: a template with its values."""

    def __init__(self, template: str, **values: object):
        super().__init__(template.format(**values) if values else template)
        self.template, self.values = template, values


def parse(file: BinaryIO, kinds: list[str], side: int, mode: str) -> tuple[dict[str, Any], bytes]:
    """The picture in `file`, of one of PIL's `kinds`: its "width" and "height", and its pixels row by row.

    They are upright, as the EXIF data say, in colours (`mode` "RGB") or grey ("L"). The size is checked before anything
    is decoded: neither side may be longer than `side`. Raises Refused.
    """
    Image.MAX_IMAGE_PIXELS = None  # there is a limit of our own
    for chunk in ("chunk_iCCP", "chunk_tEXt", "chunk_zTXt", "chunk_iTXt"):
        _let_go(chunk)
    try:
        picture = Image.open(file, formats=kinds)
    except Exception as error:  # PIL's readers raise everything
        if isinstance(error, MemoryError):
            raise
        raise Refused(
            "This is no picture that can be read. Save it as one of: {kinds}.", kinds=", ".join(kinds)
        ) from error
    if max(picture.size) > side:
        raise Refused(
            "The picture is {width}x{height}; {side} pixels a side can be read.",
            width=picture.width,
            height=picture.height,
            side=side,
        )
    if picture.format == "JPEG" and _scans(file) > SCANS:
        raise Refused(
            "The picture is stored in more than {most} passes. Save it again, as a plain JPEG or PNG.", most=SCANS
        )
    try:
        plain = _converted(ImageOps.exif_transpose(picture), mode)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise Refused("This picture is damaged. Save it again, and upload that.") from error
    return {"width": plain.width, "height": plain.height}, plain.tobytes()


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    if picture.mode in ("I", "I;16", "I;16L", "I;16B"):  # 16 bits of grey, which PIL would cut off at 255
        hidden = picture.info.get("transparency")  # the one level of grey that is not to be seen
        wide = picture.convert("I").tobytes()  # 32 bits, the upper 16 of which are 0
        coarse, fine = (wide[1::4], wide[::4]) if sys.byteorder == "little" else (wide[2::4], wide[3::4])
        picture = Image.frombytes("L", picture.size, coarse)
        if isinstance(hidden, int):
            parts = zip((picture, Image.frombytes("L", picture.size, fine)), divmod(hidden, 256), strict=True)
            one, other = (part.point([255 * (level != value) for level in range(256)]) for part, value in parts)
            picture = Image.merge("LA", (picture, ImageChops.lighter(one, other)))
    if picture.has_transparency_data:  # what lies hidden there was never meant to be seen
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return picture.convert(mode)


def _let_go(chunk: str) -> None:
    """Has PIL's reader of PNG pass over text that unpacks to more than it allows, instead of giving the picture up."""
    read = getattr(PngImagePlugin.PngStream, chunk)

    def tried(stream: PngImagePlugin.PngStream, at: int, length: int) -> bytes:
        try:
            return read(stream, at, length)
        except ValueError:
            assert stream.fp is not None
            stream.fp.seek(at)
            return ImageFile._safe_read(stream.fp, length)  # PIL goes on to compare its checksum

    setattr(PngImagePlugin.PngStream, chunk, tried)


def _scans(file: BinaryIO) -> int:
    """How many scans the JPEG `file` has, at most SCANS + 1. Leaves the file where it was."""
    place = file.tell()
    file.seek(0)
    data, at, scans = file.read(), 2, 0
    file.seek(place)
    marker = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # none but these stand inside the pixels of a scan
    while scans <= SCANS and (found := marker.search(data, at)):
        kind = found[1][0]
        at = found.end()
        if kind not in (0xD8, 0xD9, 0x01):
            at += int.from_bytes(data[at : at + 2], "big")
        scans += kind == 0xDA
    return scans
