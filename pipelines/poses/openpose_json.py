"""OpenPose's JSON files: read from strangers, and written for download. Nothing here trusts a file.

Known: one file a frame as OpenPose writes them, in a zip, or one file with a list of all frames as the web UIs for
ControlNet write it, with the size of the picture beside the people. Bodies of 18 joints, of 25 (BODY_25, whose feet are
left out) and of COCO's 17. openpose_parser.py reads them, in a process whose memory and time are limited.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.media import limited
from pipelines.messages import said
from pipelines.poses import openpose_parser
from pipelines.poses.keypoints import Poses, from_coco, stack
from pipelines.poses.openpose_parser import FAR, MAX_FRAMES, MAX_PEOPLE, VALUES

WRITE_AGAIN = said("Write the keypoints once more with OpenPose (--write_json, --keypoint_scale 0).")
MAX_BYTES = 64 * 2**20  # of all files together, unpacked
SECONDS, MEMORY_MB = 20, 512  # of the process that parses them
FPS = 8.0  # where the file does not say
BODY_25 = (*range(8), *range(9, 19))  # the 18 joints among its 25: it has the middle of the hips as number 8
BEGINNINGS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", *openpose_parser.WIDE[:-1])  # of zips, and of UTF-16


def read(path: str | Path, fps: float | None = None) -> Poses:
    """The people in one upload, a .json or a zip.

    `fps` is that of the clip, where it is known. The picture's size is what the file says, or else just contains all
    joints. Joints that are missing, null or no numbers (NaN) are taken as missing. Raises ValueError in words for the
    person who uploaded it.
    """
    path, row = Path(path), 2 + VALUES
    try:
        file = limited.open_file(path)
    except (OSError, ValueError) as error:
        raise ValueError(said("The uploaded file can't be opened. Upload it again.")) from error
    if file is None:
        raise ValueError(said("That is not an ordinary file. Upload a JSON file or a zip of them."))
    with file:
        size = file.seek(0, 2)
        if not size:
            raise ValueError(said("The file is empty. Upload it again."))
        if size > MAX_BYTES:
            raise ValueError(
                said("The keypoints take more than {most} MB. Choose a part of the clip.", most=MAX_BYTES // 2**20)
            )
        try:
            facts, payload = limited.parse(
                Path(openpose_parser.__file__),
                file,
                seconds=SECONDS,
                memory_mb=MEMORY_MB,
                answer=MAX_FRAMES * MAX_PEOPLE * row * 4,
                name=path.name[:200],
                most=MAX_BYTES,
            )
        except (limited.OutOfTime, limited.OutOfMemory) as error:
            raise ValueError(
                said(
                    "The keypoints take more than {seconds} seconds or {memory} MB of memory to read. {advice}",
                    seconds=SECONDS,
                    memory=MEMORY_MB,
                    advice=WRITE_AGAIN,
                )
            ) from error
        except limited.Failed as error:
            raise ValueError(said("The keypoints are damaged. {advice}", advice=WRITE_AGAIN)) from error
    people = _people(facts["frames"], np.frombuffer(payload, np.float32).reshape(facts["bodies"], row))
    width, height = _size([tuple(told) for told in facts["sizes"]], people)
    return stack(people, width, height, fps or facts["fps"] or FPS)


def is_keypoints(path: str | Path) -> bool:
    """Whether the first bytes of the upload `path` are those of JSON or of a zip, as those of no video are."""
    try:
        file = limited.open_file(path)
        if file is None:
            return False
        with file:
            head = file.read(64)
    except (OSError, ValueError):  # ValueError: no file has such a name
        return False
    return head.startswith(BEGINNINGS) or head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


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


def _people(frames: int, rows: np.ndarray) -> list[np.ndarray]:
    """The joints [P, 18, 3] in each of `frames` frames, of what the parser found of each body."""
    joints = rows[:, 2:].reshape(-1, VALUES // 3, 3)
    known = np.isfinite(joints).all(axis=2) & (joints[..., 2] > 0) & (np.abs(joints[..., :2]) < FAR).all(axis=2)
    joints = np.where(known[..., None], joints, 0)
    joints[..., 2] = np.minimum(joints[..., 2], 1)  # COCO's own flag for "to be seen" is 2
    bodies = joints[:, :18].copy()
    bodies[rows[:, 1] == 51] = from_coco(joints[rows[:, 1] == 51, :17])
    bodies[rows[:, 1] == 75] = joints[rows[:, 1] == 75][:, BODY_25]
    nobody = np.zeros((1, 18, 3), np.float32)
    found = np.split(bodies, np.searchsorted(rows[:, 0], np.arange(1, frames)))
    return [each if len(each) else nobody for each in found]


def _size(told: list[tuple[int, int]], people: list[np.ndarray]) -> tuple[int, int]:
    """Width and height of the picture. Where coordinates are shares of it (0 to 1), they become pixels."""
    every = np.concatenate(people)
    points = every[every[..., 2] > 0][:, :2]
    if not len(points):
        raise ValueError(said("There is not one joint in the keypoints. Upload those of a clip with people in it."))
    if len(told) > 1:
        raise ValueError(said("The frames have pictures of different sizes. Upload the keypoints of one clip."))
    if (np.abs(points) <= 1).all():
        if not told:
            raise ValueError(
                said(
                    "The coordinates are shares of a picture whose size is not told. {advice}",
                    advice=WRITE_AGAIN,
                )
            )
        for frame in people:
            frame[..., :2] *= told[0]
    if told:
        return told[0]
    width, height = np.ceil(np.maximum(points.max(axis=0), 1) * 1.05) + 1
    return int(width), int(height)
