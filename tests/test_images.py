"""Pictures that visitors upload: plain pixels and nothing else are kept, and only for whom they belong to."""

import io
import json
import os
import struct
import sys
import tracemalloc
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
from pipelines.serving.local import local_backend
from pipelines.settings import Settings
from pipelines.tasks import NOBODY, TextToVideo


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


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(width, height):
    """A PNG that promises `width` x `height` pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def encoded(kind, **options):
    file = io.BytesIO()
    picture().save(file, kind, **options)
    return file.getvalue()


def passes(count):
    """A progressive JPEG whose last scan comes once more, `count` times."""
    whole = encoded("JPEG", progressive=True)
    start, end = whole.rindex(b"\xff\xda"), whole.rindex(b"\xff\xd9")
    return whole[:end] + whole[start:end] * count + whole[end:]


def texts(size):
    """A PNG with text of `size` bytes in every kind of chunk, before and after the pixels."""
    whole, packed = encoded("PNG"), zlib.compress(b" " * size)
    chunks = [
        chunk(b"zTXt", b"Comment\0\0" + packed),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed),
        chunk(b"tEXt", b"workflow\0" + b" " * size),
        chunk(b"iCCP", b"profile\0\0" + packed),
    ]
    first, last = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    return whole[:first] + b"".join(chunks) + whole[first:last] + b"".join(chunks[:2]) * 9 + whole[last:]


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
        (bomb(100_000, 100_000), "100000x100000; 4096 pixels"),
        (passes(200), "more than 100 passes"),
        (encoded("PNG")[:20] + encoded("JPEG"), "no picture|damaged|pixels a side"),
        (b"PK\x03\x04" + encoded("PNG"), "no picture"),
        (b"BM" + encoded("BMP")[2:60], "damaged"),
        (encoded("WEBP")[:60], "no picture|damaged"),
        (os.urandom(2**20 + 1), "more than 1 MB"),
    ],
)
def test_what_is_no_usable_picture_is_refused_in_words_and_leaves_nothing(tmp_path, settings, content, says):
    file = tmp_path / "upload"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        Images(settings).keep(file, "anna")
    assert not list(settings.data.rglob("*"))


@pytest.mark.parametrize("content", [passes(50), texts(2**19), encoded("PNG") + encoded("JPEG") + b"PK\x03\x04"])
def test_what_is_odd_about_a_picture_and_costs_little_is_passed_over(tmp_path, settings, content):
    file = tmp_path / "upload"
    file.write_bytes(content)
    difference = np.asarray(images.read(file, replace(settings, upload_mb=9))).astype(int) - np.asarray(picture())
    assert np.abs(difference).max() == 0 or content[:2] == b"\xff\xd8"


@pytest.mark.parametrize("mask", [False, True], ids=["image", "mask"])
@pytest.mark.parametrize("size", [(1, 1), (15, 500), (16, 161), (800, 79)], ids=str)
def test_a_picture_that_can_show_nothing_is_refused_in_words(tmp_path, settings, size, mask):
    """A first image, a mask and a reference image are kept the same way, from the page and from programs."""
    says = "both sides need at least 16 pixels" if min(size) < 16 else "at most 10 times as long"
    with pytest.raises(ValueError, match=f"is {size[0]}x{size[1]}.*{says}"):
        Images(settings).keep(write(tmp_path, Image.new("RGB", size)), "anna", mask)
    assert not list(settings.data.glob("images/*"))


@pytest.mark.parametrize("size", [(16, 16), (16, 160), (160, 16)], ids=str)
def test_the_smallest_and_the_narrowest_are_kept(tmp_path, settings, size):
    assert Images(settings).keep(write(tmp_path, Image.new("RGB", size)), "anna")


def test_text_that_unpacks_without_end_is_not_unpacked(tmp_path, settings):
    file = tmp_path / "upload"
    file.write_bytes(texts(2**25))
    assert np.array_equal(images.read(file, replace(settings, upload_mb=99, upload_memory_mb=200)), picture())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep the limits")
def test_memory_and_time_for_a_picture_are_limited_and_ours_stays(tmp_path, settings, monkeypatch):
    large = Image.new("RGB", (4000, 4000))
    file = write(tmp_path, large, "large.png")
    tracemalloc.start()
    with pytest.raises(ValueError, match="90 MB of memory.*plain JPEG or PNG"):
        images.read(file, replace(settings, upload_memory_mb=90))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
    monkeypatch.setattr(images, "SECONDS", 0)  # of computing: the limit is told before a second is over
    with pytest.raises(ValueError, match="more than 0 seconds"):
        images.read(file, settings)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_16_bits_of_grey_keep_all_their_levels(tmp_path, settings, mode):
    grey = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    read = np.asarray(images.read(write(tmp_path, Image.fromarray(grey)), settings, mode)).reshape(256, 256, -1)
    assert np.array_equal(read, np.broadcast_to((grey >> 8)[..., None], read.shape))


def test_a_level_of_16_bit_grey_may_be_transparent(tmp_path, settings):
    grey = np.array([[0x1234, 0x1235, 0x1334]], np.uint16)
    file = tmp_path / "grey.png"
    Image.fromarray(grey).save(file, transparency=0x1234)
    assert np.asarray(images.read(file, settings, "L")).tolist() == [[255, 0x12, 0x13]]


def test_a_file_that_is_not_there(tmp_path, settings):
    with pytest.raises(ValueError, match="no picture"):
        Images(settings).keep(tmp_path / "nothing", "anna")
    with pytest.raises(ValueError, match="no picture"):
        Images(settings).keep(tmp_path, "anna")


def test_a_job_gets_its_owners_image_and_nobody_elses(tmp_path, settings):
    card = card_of_folder(tiny.write_pseudo3d_model(tmp_path / "model"))
    settings = replace(settings, cache=tmp_path / "cache", device="cpu", disk_margin_mb=0)
    backend = local_backend(settings, {card.name: card})
    try:
        image, mask = (backend.assets.keep_image(write(tmp_path, picture()), "anna", mask) for mask in (False, True))
        size = {"frames": 1, "width": 64, "height": 64, "steps": 1}
        task = TextToVideo.for_model(card, "a bear", 7, image=image, mask=mask, **size)
        with pytest.raises(ValueError, match="no such image"):
            backend.jobs.submit(task, "ben")
        *_, end = backend.jobs.events(backend.jobs.submit(task, "anna"), "anna")
        assert isinstance(end, Result) and end.facts["first_image"] == "given"
        film = end.video
        assert backend.assets.task_of(film, "anna") == backend.jobs.get(film.parent.name, "anna").task
        assert backend.assets.task_of(film, "ben").image == backend.assets.task_of(film, "ben").mask == NOBODY
        assert image not in json.dumps(end.facts) and mask.encode() not in film.read_bytes()
    finally:
        backend.close()
