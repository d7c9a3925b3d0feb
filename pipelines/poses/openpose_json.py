"""OpenPose's JSON files: read from strangers, and written for download. Nothing here trusts a file.

Known: one file a frame as OpenPose writes them, a zip of such files, or one file with a list of all frames as the web
UIs for ControlNet write it, with the size of the picture beside the people. Bodies of 18 joints, of 25 (BODY_25, whose
feet are left out) and of COCO's 17.
"""

import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.poses.keypoints import Poses, from_coco, stack

MAX_BYTES = 64 * 2**20  # of all files together, unpacked
MAX_FILES = 4000  # in a zip, of whatever kind
MAX_FRAMES = 2000
MAX_PEOPLE = 64  # in a frame
FAR = 100_000.0  # pixels; a joint beyond is a mistake
FPS = 8.0  # where the file does not say
BODY_25 = (*range(8), *range(9, 19))  # the 18 joints among its 25: it has the middle of the hips as number 8
WRITE_AGAIN = "Write the keypoints once more with OpenPose (--write_json, --keypoint_scale 0)."


def read(files: str | Path | Sequence[str | Path], fps: float | None = None) -> Poses:
    """The people in one upload, a .json or a zip, or in several JSON files, one a frame, in the order of their names.

    `fps` is that of the clip, where it is known. The picture's size is what the file says, or else just contains all
    joints. Joints that are missing, null or no numbers (NaN) are taken as missing. Raises ValueError in words for the
    person who uploaded it.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else sorted(map(Path, files), key=_by_number)
    if not paths:
        raise ValueError("No file was given. Upload a JSON file or a zip of them.")
    if len(paths) > MAX_FILES:
        raise ValueError(f"{len(paths)} files are too many: {MAX_FILES} are allowed. Choose a part of them.")
    contents: list[tuple[str, bytes]] = []
    left = MAX_BYTES
    for path in paths:
        data = _content(path, left)
        contents += _unpacked(data) if data[:4] == b"PK\x03\x04" else [(path.name, data)]
        left = MAX_BYTES - sum(len(content) for _, content in contents)
    frames: list[dict[str, Any]] = []
    for name, data in contents:
        frames += _frames(name, data)
        if len(frames) > MAX_FRAMES:
            raise ValueError(f"There are more than {MAX_FRAMES} frames. Choose a part of them.")
    people = [_people(number, frame) for number, frame in enumerate(frames, 1)]
    width, height = _size(frames, people)
    if fps is None:
        fps = next((value for frame in frames[:1] if (value := _finite(frame.get("fps"))) and 0 < value <= 1000), FPS)
    return stack(people, width, height, fps)


def is_keypoints(path: str | Path) -> bool:
    """Whether the first bytes of the upload `path` are those of JSON or of a zip, as those of no video are."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(64)
    except (OSError, ValueError):  # ValueError: no file has such a name
        return False
    return head.startswith(b"PK\x03\x04") or head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def write(poses: Poses, path: Path) -> None:
    """Writes one JSON file with all frames or, where `path` ends with .zip, a zip with one file a frame."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, frame in enumerate(_written(poses)):
                archive.writestr(f"frame_{number:012d}_keypoints.json", json.dumps(frame))
    else:
        path.write_text(text(poses))


def text(poses: Poses) -> str:
    """What the one JSON file with all frames holds: a line a frame."""
    return "[\n" + ",\n".join(json.dumps(frame, separators=(",", ":")) for frame in _written(poses)) + "\n]\n"


def _written(poses: Poses) -> list[dict[str, Any]]:
    return [
        {
            "version": 1.3,
            "fps": round(poses.fps, 4),
            "canvas_width": poses.width,
            "canvas_height": poses.height,
            "people": [
                {"person_id": [number], "pose_keypoints_2d": [_short(value) for value in person.ravel().tolist()]}
                for number, person in enumerate(frame)
                if (person[:, 2] > 0).any()
            ],
        }
        for frame in poses.joints
    ]


def _short(value: float) -> float | int:
    value = round(value, 2)
    return int(value) if value.is_integer() else value


def _by_number(path: Path) -> list[Any]:
    """Sorts frame2 before frame10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _content(path: Path, most: int) -> bytes:
    """The bytes of an ordinary file. Links, folders and devices are refused, and never waited for."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ValueError("That is not an ordinary file. Upload a JSON file or a zip of them.")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ValueError("The uploaded file can't be opened. Upload it again.") from error
    if len(data) > most:
        raise ValueError(f"The keypoints take more than {MAX_BYTES // 2**20} MB. Choose a shorter part of the clip.")
    if not data:
        raise ValueError("The file is empty. Upload it again.")
    return data


def _unpacked(data: bytes) -> list[tuple[str, bytes]]:
    """The JSON files of a zip, by the numbers in their names. Never writes a file, nor reads more than is allowed."""
    left = MAX_BYTES
    contents = []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise ValueError(f"The zip holds more than {MAX_FILES} files. Upload a part of them.")
            wanted = [
                entry
                for entry in sorted(entries, key=lambda entry: _by_number(Path(entry.filename)))
                if entry.filename.lower().endswith(".json") and not entry.filename.startswith("__MACOSX/")
            ]
            for entry in wanted:
                if entry.flag_bits & 1:
                    raise ValueError("The zip is locked with a password. Upload one without.")
                with archive.open(entry) as file:  # what the zip says of sizes may be a lie: what comes out is counted
                    content = file.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise ValueError(
                        f"Unpacked, the zip takes more than {MAX_BYTES // 2**20} MB: it is no zip of keypoints, or one "
                        "of a very long clip. Upload a part of it."
                    )
                contents.append((entry.filename, content))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, RuntimeError, OSError) as error:
        raise ValueError("The zip is damaged, or packed in an unusual way. Pack the files again.") from error
    except Exception as error:  # zlib.error, lzma.LZMAError, … have nothing in common
        if isinstance(error, ValueError):
            raise
        raise ValueError("The zip is damaged. Pack the files again.") from error
    if not contents:
        raise ValueError("There is no .json file in the zip. Upload a zip of the files that OpenPose wrote.")
    return contents


def _frames(name: str, data: bytes) -> list[dict[str, Any]]:
    """The frames in one JSON file: an object is one, a list holds several."""
    name = Path(name).name[:60]
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: also what is no UTF-8, and numbers of 5000 digits
        raise ValueError(f"{name} is no JSON file. {WRITE_AGAIN}") from error
    frames = content if isinstance(content, list) else [content]
    if not frames or not all(isinstance(frame, dict) and isinstance(frame.get("people"), list) for frame in frames):
        raise ValueError(f'{name} holds no frames with a list "people". {WRITE_AGAIN}')
    return frames


def _people(number: int, frame: dict[str, Any]) -> np.ndarray:
    """The joints [P, 18, 3] of a frame."""
    people = frame["people"]
    if len(people) > MAX_PEOPLE:
        raise ValueError(f"There are {len(people)} people in frame {number}, and {MAX_PEOPLE} are allowed.")
    bodies = [_body(number, person) for person in people]
    return np.stack([body for body in bodies if body is not None] or [np.zeros((18, 3), np.float32)])


def _body(number: int, person: Any) -> np.ndarray | None:
    """The joints [18, 3] of a person; None where the person has no body (but hands, or a face)."""
    values = person.get("pose_keypoints_2d", person.get("pose_keypoints")) if isinstance(person, dict) else person
    if values is None:  # as the web UIs write it for a person of whom there is but a hand
        return None
    if not isinstance(values, list):
        raise ValueError(f'A person in frame {number} has no list "pose_keypoints_2d". {WRITE_AGAIN}')
    if not values:
        return None
    if len(values) not in (54, 75, 51):
        raise ValueError(
            f"A body in frame {number} has {len(values)} numbers: 54 (18 joints), 75 (BODY_25) and 51 (COCO) are "
            f"known, three a joint. {WRITE_AGAIN}"
        )
    joints = np.array([_finite(value) for value in values]).reshape(-1, 3)
    known = np.isfinite(joints).all(axis=1) & (joints[:, 2] > 0) & (np.abs(joints[:, :2]) < FAR).all(axis=1)
    joints[~known] = 0
    joints[:, 2] = np.minimum(joints[:, 2], 1)  # COCO's own flag for "to be seen" is 2
    joints = joints.astype(np.float32)
    if len(joints) == 17:
        return from_coco(joints)
    return joints[list(BODY_25)] if len(joints) == 25 else joints


def _finite(value: Any) -> float:
    """A number as it is; NaN for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e30:
        return math.nan
    return float(value)


def _size(frames: list[dict[str, Any]], people: list[np.ndarray]) -> tuple[int, int]:
    """Width and height of the picture. Where coordinates are shares of it (0 to 1), they become pixels."""
    every = np.concatenate(people)
    points = every[every[..., 2] > 0][:, :2]
    if not len(points):
        raise ValueError("There is not one joint in the keypoints. Upload those of a clip with people in it.")
    told = [(_finite(frame.get("canvas_width")), _finite(frame.get("canvas_height"))) for frame in frames]
    sizes = {(round(wide), round(high)) for wide, high in told if 1 <= wide <= FAR and 1 <= high <= FAR}
    shares = bool((np.abs(points) <= 1).all())
    if len(sizes) > 1:
        raise ValueError("The frames have pictures of different sizes. Upload the keypoints of one clip.")
    if shares:
        if not sizes:
            raise ValueError(f"The coordinates are shares of a picture whose size is not told. {WRITE_AGAIN}")
        for frame in people:
            frame[..., :2] *= next(iter(sizes))
    if sizes:
        return next(iter(sizes))
    return tuple(int(length) for length in np.ceil(np.maximum(points.max(axis=0), 1) * 1.05) + 1)
