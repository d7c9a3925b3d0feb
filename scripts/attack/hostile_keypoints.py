"""Sixty files that pretend to be OpenPose's keypoints: JSON, and zips of it."""

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from functools import partial

from scripts.attack.corpus import EITHER, POSES, REFUSED, Input
from scripts.attack.honest_files import frame, zipped

GOOD = json.dumps(frame()).encode()


def inputs() -> Iterator[Input]:
    for name, (make, right) in (DOCUMENTS | ZIPS).items():
        yield Input(name, POSES, make, right)


def _json(**changes: object) -> bytes:
    return json.dumps(frame() | changes).encode()


def _body(*values: object) -> bytes:
    """Somebody whose first numbers are `values`."""
    one = frame()
    (person,) = one["people"]
    person["pose_keypoints_2d"][: len(values)] = values
    return json.dumps(one).encode()


def _raw(number: str) -> bytes:
    """Somebody one of whose numbers is written as `number`."""
    return _body("HERE").replace(b'"HERE"', number.encode())


def _lists(megabytes: float) -> bytes:
    return b'{"people":[' + b"[]," * int(megabytes * 2**20 / 3) + b"[]]}"


def _keys(count: int) -> bytes:
    return json.dumps({"people": [], **{str(n): n for n in range(count)}}).encode()


DOCUMENTS = {
    "deep.json": (lambda: b"[" * 200_000, REFUSED),
    "deep-people.json": (lambda: b'{"people":' + b"[" * 100_000 + b"]" * 100_000 + b"}", REFUSED),
    "deep-objects.json": (lambda: b'{"people":[' * 50_000, REFUSED),
    "lists.json": (partial(_lists, 12), REFUSED),
    "objects.json": (lambda: b'{"people":[' + b"{}," * 3_000_000 + b"{}]}", REFUSED),
    "numbers.json": (lambda: b'{"people":[[' + b"1," * 4_000_000 + b"1]]}", REFUSED),
    "keys.json": (partial(_keys, 400_000), REFUSED),
    "spaces.json": (lambda: b" " * 10_000_000 + GOOD, EITHER),
    "long-text.json": (lambda: b'{"people":[],"x":"' + b"a" * 10_000_000 + b'"}', REFUSED),
    "frames.json": (lambda: b"[" + b",".join([GOOD] * 5000) + b"]", REFUSED),
    "crowd.json": (lambda: _json(people=frame()["people"] * 5000), REFUSED),
    "utf16.json": (lambda: GOOD.decode().encode("utf-16"), EITHER),
    "utf32.json": (lambda: GOOD.decode().encode("utf-32"), EITHER),
    "latin.json": (lambda: _json(note="é").replace(b"\\u00e9", b"\xe9"), REFUSED),
    "only-bom.json": (lambda: b"\xef\xbb\xbf", REFUSED),
    "surrogate.json": (lambda: _json(note="\ud800"), EITHER),
    "surrogate-key.json": (lambda: json.dumps({"\udcff": 1} | frame() | {"people": "\ud800"}).encode(), REFUSED),
    "zero-bytes.json": (lambda: b"{" + b"\0" * 1000, REFUSED),
    "empty.json": (lambda: b"{}", REFUSED),
    "null.json": (lambda: b"[null]", REFUSED),
    "cut.json": (lambda: GOOD[:-40], REFUSED),
    "twice.json": (lambda: GOOD + GOOD, REFUSED),
    "people-object.json": (partial(_json, people={"0": 1}), REFUSED),
    "people-text.json": (partial(_json, people="everybody"), REFUSED),
    "people-null.json": (partial(_json, people=[None]), REFUSED),
    "joints-text.json": (partial(_body, "1", "2", "3"), EITHER),
    "joints-object.json": (partial(_json, people=[{"pose_keypoints_2d": {"0": 1}}]), REFUSED),
    "joints-count.json": (partial(_json, people=[{"pose_keypoints_2d": [1, 2, 3, 4]}]), REFUSED),
    "joints-nan.json": (partial(_raw, "NaN"), EITHER),
    "joints-infinite.json": (partial(_raw, "-Infinity"), EITHER),
    "joints-huge.json": (partial(_raw, "1e400"), EITHER),
    "joints-digits.json": (partial(_raw, "9" * 5000), REFUSED),
    "joints-digits-few.json": (partial(_raw, "9" * 4000), EITHER),
    "joints-far.json": (partial(_body, 99_999, 99_999, 1), EITHER),
    "joints-tiny.json": (lambda: _json(people=[{"pose_keypoints_2d": [1e-300, 1e-300, 1] * 18}]), EITHER),
    "joints-one-point.json": (lambda: _json(people=[{"pose_keypoints_2d": [5, 5, 1] * 18}]), EITHER),
    "canvas-zero.json": (partial(_json, canvas_width=0, canvas_height=-1), EITHER),
    "canvas-huge.json": (partial(_json, canvas_width=99_999, canvas_height=1), EITHER),
    "canvas-text.json": (partial(_json, canvas_width="512", canvas_height=[512]), EITHER),
    "fps-tiny.json": (partial(_json, fps=1e-9), EITHER),
    "fps-tiniest.json": (partial(_json, fps=5e-324), EITHER),
    "fps-huge.json": (partial(_json, fps=1e308), EITHER),
    "fps-object.json": (partial(_json, fps={"a": 1}), EITHER),
}


def _same(content: bytes, times: int) -> bytes:
    return zipped({f"{number}.json": content for number in range(times)})


def _locked() -> bytes:
    """A zip that says its file is encrypted."""
    content = bytearray(zipped({"0.json": GOOD}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + at] |= 1
    return bytes(content)


def _lying() -> bytes:
    """A zip that says its file of 30 MB has 100 bytes."""
    content = bytearray(zipped({"0.json": b" " * 30_000_000}))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.index(mark) + at
        content[place : place + 4] = struct.pack("<I", 100)
    return bytes(content)


def _overlapping(times: int) -> bytes:
    """A zip whose directory names the same 10 MB of zeros `times` times."""
    plain = zipped({"0.json": b" " * 10_000_000})
    start, end = plain.index(b"PK\x01\x02"), plain.index(b"PK\x05\x06")
    entry = plain[start:end]
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, times, times, len(entry) * times, start, 0)
    return plain[:start] + entry * times + tail


def _twins() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for _ in range(3):
            archive.writestr(zipfile.ZipInfo("0.json"), GOOD)
    return file.getvalue()


ZIPS = {
    "many-lists.zip": (lambda: _same(_lists(1.5), 40), REFUSED),
    "zeros.zip": (lambda: _same(b" " * 10_000_000, 30), REFUSED),
    "overlapping.zip": (partial(_overlapping, 500), REFUSED),
    "lying.zip": (_lying, REFUSED),
    "locked.zip": (_locked, REFUSED),
    "names.zip": (lambda: zipped({"1²3.json": GOOD, "2.json": GOOD}), EITHER),
    "digits.zip": (lambda: zipped({f"{'9' * 5000}.json": GOOD, "2.json": GOOD}), EITHER),
    "climbing.zip": (lambda: zipped({"../../../../tmp/attack.json": GOOD, "/etc/attack.json": GOOD}), EITHER),
    "markup.zip": (lambda: zipped({"<img src=x onerror=alert(1)>.json": b"{"}), REFUSED),
    "long-name.zip": (lambda: zipped({"a" * 60_000 + ".json": b"{"}), REFUSED),
    "no-file.zip": (lambda: zipped({}), REFUSED),
    "no-json.zip": (lambda: zipped({"poses.txt": GOOD}), REFUSED),
    "twins.zip": (_twins, EITHER),
    "crowded.zip": (lambda: zipped({f"{n}.json": b"" for n in range(10_000)}, zipfile.ZIP_STORED), REFUSED),
    "lzma.zip": (lambda: zipped({"0.json": b" " * 20_000_000}, zipfile.ZIP_LZMA), REFUSED),
    "cut.zip": (lambda: zipped({f"{n}.json": GOOD for n in range(20)})[:-200], REFUSED),
    "tail.zip": (lambda: b"PK\x03\x04" + b"\0" * 500, REFUSED),
}  # fmt: skip
