"""Parses OpenPose's JSON, or a zip of it, from a stranger: runs in a limited process. Standard library only.

One frame is in memory at a time, however long the file; what a zip holds is counted as it is unpacked.
"""

import json
import re
import zipfile
from array import array
from collections.abc import Iterator
from typing import Any, BinaryIO

MAX_FILES = 4000  # in a zip, of whatever kind
MAX_LIST = 2**22  # bytes of a zip's list of its files
MAX_FRAMES = 2000
MAX_PEOPLE = 64  # in a frame
MAX_LISTS = 2_000_000  # and objects, in a file: those of MAX_FRAMES with MAX_PEOPLE, hands and faces, and some more
FAR = 100_000.0  # pixels; a joint beyond is a mistake
SLOWEST, FASTEST = 0.1, 1000.0  # frames a second
VALUES = 75  # numbers of the longest body: three for each of its 25 joints
BODIES = (54, 75, 51)  # numbers of a body: OpenPose's 18 joints, BODY_25, COCO's 17
SPACE = re.compile(r"[ \t\r\n]*")
WIDE = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"[\0", b"\0{", b"\0[", b"\0\0")  # how UTF-16 and UTF-32 begin
MISSING = float("nan")


class Refused(Exception):
    """What is wrong with the file, in words for the person who uploaded it: a template with its values."""

    def __init__(self, template: str, **values: object):
        super().__init__(template.format(**values) if values else template)
        self.template, self.values = template, values


def parse(file: BinaryIO, name: str, most: int) -> tuple[dict[str, Any], bytes]:
    """The bodies in `file`, called `name`, which holds `most` bytes at most, unpacked.

    Facts: "frames", the number of them; "sizes", up to two different sizes that they tell of their picture, [[width,
    height], …]; "fps" or None; "bodies", the number of people of whom there is a body. Payload: float32 [bodies, 2 +
    75]: the number of the frame, how many values the body has (51, 54 or 75), and those: x, y and confidence of each
    joint; NaN stands for what is no number. Raises Refused.
    """
    frames, sizes, fps, bodies = 0, set(), None, array("f")
    for title, data in _files(file, name, most):
        for frame in _frames(title, data):
            frames += 1
            if frames > MAX_FRAMES:
                raise Refused("There are more than {most} frames. Choose a part of them.", most=MAX_FRAMES)
            if frames == 1:
                fps = _fps(frame)
            wide, high = _number(frame.get("canvas_width")), _number(frame.get("canvas_height"))
            if len(sizes) < 2 and 1 <= wide <= FAR and 1 <= high <= FAR:
                sizes.add((round(wide), round(high)))
            people = frame["people"]
            if len(people) > MAX_PEOPLE:
                raise Refused(
                    "There are {count} people in frame {number}, and {most} are allowed.",
                    count=len(frame["people"]),
                    number=frames,
                    most=MAX_PEOPLE,
                )
            for person in frame["people"]:
                values = _body(frames, person)
                if values:
                    bodies.extend((frames - 1, len(values), *map(_number, values)))
                    bodies.extend([MISSING] * (VALUES - len(values)))
    facts = {"frames": frames, "sizes": sorted(sizes), "fps": fps, "bodies": len(bodies) // (2 + VALUES)}
    return facts, bodies.tobytes()


def _files(file: BinaryIO, name: str, most: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the JSON files."""
    head = file.read(4)
    file.seek(0)
    if head == b"PK\x05\x06":
        raise Refused("The zip is empty. Upload a zip of the files that OpenPose wrote.")
    if head == b"PK\x07\x08":
        raise Refused("This is one part of a zip that was split. Upload a zip of the files that OpenPose wrote.")
    if head == b"PK\x03\x04":
        yield from _unpacked(file, most)
    else:
        size = file.seek(0, 2)
        file.seek(0)
        data = file.read(min(size, most + 1))  # Python takes memory for all that it is asked to read
        if len(data) > most:
            raise Refused(
                "The keypoints take more than {most} MB. Choose a shorter part of the clip.", most=most // 2**20
            )
        yield name, data


def _unpacked(file: BinaryIO, most: int) -> Iterator[tuple[str, bytes]]:
    """The JSON files of a zip, by the numbers in their names. Never writes a file, nor reads more than is allowed."""
    try:
        if _listed(file) > MAX_LIST:
            raise Refused("The zip holds more than {most} files. Upload a part of them.", most=MAX_FILES)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise Refused("The zip holds more than {most} files. Upload a part of them.", most=MAX_FILES)
            wanted = [
                entry
                for entry in sorted(entries, key=lambda entry: _by_number(entry.filename))
                if entry.filename.lower().endswith(".json") and not entry.filename.startswith("__MACOSX/")
            ]
            if not wanted:
                raise Refused("There is no .json file in the zip. Upload a zip of the files that OpenPose wrote.")
            for entry in wanted:
                if entry.flag_bits & 1:
                    raise Refused("The zip is locked with a password. Upload one without.")
                with archive.open(entry) as packed:  # the sizes that it tells may be lies
                    data = packed.read(most + 1)
                most -= len(data)
                if most < 0:
                    raise Refused(
                        "Unpacked, the zip takes more memory than keypoints do: it is no zip of keypoints, or one of a "
                        "very long clip. Upload a part of it."
                    )
                yield entry.filename, data
    except (Refused, MemoryError):
        raise
    except Exception as error:  # zlib.error, lzma.LZMAError, UnicodeDecodeError, … have nothing in common
        raise Refused("The zip is damaged, or packed in an unusual way. Pack the files again.") from error


def _listed(file: BinaryIO) -> int:
    """How many bytes a zip says its list of files has; 0 where it does not say."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    file.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    listed = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    return 0 if listed == 2**32 - 1 else listed  # it says so elsewhere


def _by_number(name: str) -> list[Any]:
    """Sorts frame2 before frame10. Numbers may be as long as names."""
    parts = re.split("([0-9]+)", name.rpartition("/")[2])
    return [(len(part.lstrip("0")), part.lstrip("0")) if number % 2 else part for number, part in enumerate(parts)]


def _frames(name: str, data: bytes) -> Iterator[dict[str, Any]]:
    """The frames in one JSON file, one by one: an object is one, a list holds several."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name.rpartition("/")[2][:60])
    none = Refused(
        '{name} holds no frames with a list "people". '
        "Write the keypoints once more with OpenPose (--write_json, --keypoint_scale 0).",
        name=name,
    )
    if not data:
        raise Refused(
            "{name} is empty. Write the keypoints once more with OpenPose (--write_json, --keypoint_scale 0).",
            name=name,
        )
    if data.startswith(WIDE):
        raise Refused(
            "{name} is written in UTF-16 or UTF-32. Save it as UTF-8, as JSON files are, and upload that.", name=name
        )
    if data.count(b"[") + data.count(b"{") > MAX_LISTS:
        raise Refused(
            "{name} holds more lists than keypoints do. Write the keypoints once more with OpenPose (--write_json, "
            "--keypoint_scale 0).",
            name=name,
        )
    found = False
    try:
        for frame in _values(data.decode("utf-8-sig")):
            if not isinstance(frame, dict) or not isinstance(frame.get("people"), list):
                raise none
            found = True
            yield frame
    except (ValueError, RecursionError) as error:  # ValueError: also what is no UTF-8, and numbers of 5000 digits
        raise Refused(
            "{name} is no JSON file. Write the keypoints once more with OpenPose (--write_json, --keypoint_scale 0).",
            name=name,
        ) from error
    if not found:
        raise none


def _values(text: str) -> Iterator[Any]:
    """The values of the list in `text`, one by one, or else the one value that it is. Raises ValueError."""
    decode = json.JSONDecoder().raw_decode

    def after(at: int) -> int:
        blank = SPACE.match(text, at)
        return at if blank is None else blank.end()

    at = after(0)
    if text.startswith("[", at):
        at = after(at + 1)
        while not text.startswith("]", at):
            value, at = decode(text, at)
            yield value
            at = after(at)
            if text.startswith(",", at):
                at = after(at + 1)
                if text.startswith("]", at):
                    raise ValueError("a comma too many")
            elif not text.startswith("]", at):
                raise ValueError("no comma")
        at += 1
    else:
        value, at = decode(text, at)
        yield value
    if after(at) != len(text):
        raise ValueError("more than one value")


def _body(number: int, person: Any) -> list[Any] | None:
    """The values of a person; None where the person has no body (but hands, or a face)."""
    values = person.get("pose_keypoints_2d", person.get("pose_keypoints")) if isinstance(person, dict) else person
    if values is None:  # as the web UIs write it for a person of whom there is but a hand
        return None
    if not isinstance(values, list):
        raise Refused(
            'A person in frame {number} has no list "pose_keypoints_2d". '
            "Write the keypoints once more with OpenPose (--write_json, --keypoint_scale 0).",
            number=number,
        )
    if values and len(values) not in BODIES:
        raise Refused(
            "A body in frame {number} has {count} numbers: 54 (18 joints), 75 (BODY_25) and 51 (COCO) are known, "
            "three a joint. Write the keypoints once more with OpenPose (--write_json, --keypoint_scale 0).",
            number=number,
            count=len(values),
        )
    return values


def _fps(frame: dict[str, Any]) -> float | None:
    """Frames a second, where the frame tells them; 0 and less are taken as not told."""
    fps = _number(frame.get("fps"))
    if not fps > 0:
        return None
    if not SLOWEST <= fps <= FASTEST:
        raise Refused(
            'The file says {fps:g} frames a second ("fps"), and {least:g} to {most:g} are read. Correct that.',
            fps=fps,
            least=SLOWEST,
            most=FASTEST,
        )
    return fps


def _number(value: Any) -> float:
    """A number as it is; NaN for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e30:
        return MISSING
    return float(value)
