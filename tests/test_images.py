"""Pictures that visitors upload: plain pixels and nothing else are kept, and only for whom they belong to."""

import io
import os
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import tiny
from PIL import Image

from pipelines.events import Result
from pipelines.media import images
from pipelines.media.images import Images
from pipelines.models.folders import card_of_folder
from pipelines.serving.backend import LocalBackend
from pipelines.settings import Settings
from pipelines.tasks import TextToVideo


@pytest.fixture
def settings(tmp_path):
    return Settings(data=tmp_path / "data", upload_mb=1)


def picture(width=40, height=30, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, len(mode)), np.uint8)
    return Image.fromarray(pixels.squeeze(), mode)


def write(folder, image, name="image.png", **options):
    image.save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.jpg"])
def test_a_picture_is_kept_as_plain_pixels(tmp_path, settings, name):
    options = {"lossless": True} if name == "a.webp" else {}
    kept = Images(settings).get(Images(settings).keep(write(tmp_path, picture(), name, **options), "anna"), "anna")
    difference = np.abs(np.asarray(images.read(kept, settings)).astype(int) - np.asarray(picture()))
    assert difference.max() == 0 or name == "a.jpg"
    assert Image.open(kept).info == {}


def test_a_mask_is_grey_and_transparency_is_dropped(tmp_path, settings):
    store = Images(settings)
    file = write(tmp_path, picture(mode="RGBA"))
    assert Image.open(store.get(store.keep(file, "anna", mask=True), "anna")).mode == "L"
    assert Image.open(store.get(store.keep(file, "anna"), "anna")).mode == "RGB"


def test_a_picture_is_turned_upright_and_what_its_camera_wrote_is_not_kept(tmp_path, settings):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    file = write(tmp_path, picture(40, 30), exif=exif)
    kept = Images(settings).get(Images(settings).keep(file, "anna"), "anna")
    assert Image.open(kept).size == (30, 40) and b"where I live" not in kept.read_bytes()


def test_names_are_not_to_be_guessed_and_pictures_belong_to_their_owner(tmp_path, settings):
    store, file = Images(settings), write(tmp_path, picture())
    first, second = store.keep(file, "anna"), store.keep(file, "anna")
    assert first != second and len(first) == 32
    assert store.get(first, "anna").exists()
    for name, owner in ((first, "ben"), (first, None), ("0" * 32, "anna")):
        with pytest.raises(ValueError, match="no such image"):
            store.get(name, owner)


def bomb(width, height):
    """A PNG that promises `width` x `height` pixels in a few bytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def encoded(kind):
    file = io.BytesIO()
    picture().save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "no picture"),
        (b"words", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (encoded("GIF"), "no picture"),
        (encoded("TIFF"), "no picture"),
        (encoded("PNG")[:200], "damaged"),
        (encoded("JPEG")[:-100], "damaged"),
        (bomb(30, 30), "damaged"),
        (bomb(5000, 10), "5000x10; 4096 pixels"),
        (bomb(100_000, 100_000), "no picture|pixels a side"),
        (os.urandom(2**20 + 1), "more than 1 MB"),
    ],
)
def test_what_is_no_usable_picture_is_refused_in_words_and_leaves_nothing(tmp_path, settings, content, says):
    file = tmp_path / "upload"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        Images(settings).keep(file, "anna")
    assert not list(settings.data.rglob("*"))


def test_a_file_that_is_not_there(tmp_path, settings):
    with pytest.raises(ValueError, match="no picture"):
        Images(settings).keep(tmp_path / "nothing", "anna")
    with pytest.raises(ValueError, match="no picture"):
        Images(settings).keep(tmp_path, "anna")


def test_a_job_gets_its_owners_image_and_nobody_elses(tmp_path, settings):
    card = card_of_folder(tiny.write_pseudo3d_model(tmp_path / "model"))
    settings = replace(settings, cache=tmp_path / "cache", device="cpu", disk_margin_mb=0)
    backend = LocalBackend(settings, {card.name: card})
    try:
        image, mask = (backend.keep_image(write(tmp_path, picture()), "anna", mask) for mask in (False, True))
        size = {"frames": 1, "width": 64, "height": 64, "steps": 1}
        task = TextToVideo.for_model(card, "a bear", 7, image=image, mask=mask, **size)
        with pytest.raises(ValueError, match="no such image"):
            backend.submit(task, "ben")
        *_, end = backend.events(backend.submit(task, "anna"), "anna")
        assert isinstance(end, Result) and end.facts["first_image"] == "given"
        assert end.facts["task"]["image"] == image
    finally:
        backend.close()


def test_old_pictures_are_deleted_unless_a_job_needs_them(tmp_path, settings):
    store, file = Images(settings), write(tmp_path, picture())
    old, needed, new = (store.keep(file, "anna") for _ in range(3))
    (settings.data / "images" / "half").mkdir()
    for name in (old, needed, "half"):
        os.utime(settings.data / "images" / name, (0, 0))
    store.tidy({needed})
    assert {folder.name for folder in (settings.data / "images").iterdir()} == {needed, new}
