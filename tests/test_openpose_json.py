"""OpenPose's files: those of all its relatives are read, and hostile ones end in a sentence."""

import json
import os
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_keypoints import dancer

from pipelines.poses import openpose_json, openpose_parser
from pipelines.poses.keypoints import Poses


def person(joints: np.ndarray) -> dict:
    return {"pose_keypoints_2d": joints.ravel().tolist()}


def frame(*people: np.ndarray, **more) -> dict:
    return {"version": 1.3, "people": [person(each) for each in people], **more}


def save(path: Path, content) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def two() -> Poses:
    joints = np.stack([dancer(12, x=60), dancer(12, x=190)], axis=1)
    joints[3, 1] = 0
    joints[5, 0, 7] = 0
    return Poses(joints, 256, 128, 12.5)


@pytest.mark.parametrize("name", ["poses.json", "poses.zip"])
def test_what_is_written_is_read_again(tmp_path, name):
    openpose_json.write(two(), tmp_path / name)
    again = openpose_json.read(tmp_path / name)
    assert (again.width, again.height, again.fps) == (256, 128, 12.5)
    assert again.joints == pytest.approx(two().joints, abs=0.006)
    assert np.array_equal(again.seen, two().seen)
    assert openpose_json.read(tmp_path / name, fps=30).fps == 30


def test_the_files_of_a_zip_come_in_the_order_of_their_numbers(tmp_path):
    contents = [json.dumps(frame(dancer(1)[0] + (number, 0, 0))).encode() for number in range(12)]
    names = sorted((f"clip_{number}_keypoints.json", number) for number in range(12))  # 10 before 2
    read = openpose_json.read(zipped(tmp_path / "a.zip", *((name, contents[number]) for name, number in names)))
    assert read.joints[:, 0, 0, 0] - read.joints[0, 0, 0, 0] == pytest.approx(np.arange(12), abs=1e-3)


def test_body_25_and_coco_become_18_joints(tmp_path):
    joints = dancer(1)[0]
    body_25 = np.concatenate([joints[:8], [[1, 1, 1]], joints[8:], np.ones((6, 3))])
    from_25 = openpose_json.read(save(tmp_path / "25.json", frame(body_25)))
    assert from_25.joints[0, 0] == pytest.approx(joints)
    coco = joints[[0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]]
    coco[:, 2] = 2  # as COCO says "to be seen"
    from_17 = openpose_json.read(save(tmp_path / "17.json", frame(coco)))
    assert np.delete(from_17.joints[0, 0], 1, axis=0) == pytest.approx(np.delete(joints, 1, axis=0))


def test_a_picture_without_a_size_just_contains_the_joints(tmp_path):
    read = openpose_json.read(save(tmp_path / "a.json", [frame(each) for each in dancer(4)]))
    x, y, _ = dancer(4).max(axis=(0, 1))
    assert x < read.width < 1.1 * x + 2 and y < read.height < 1.1 * y + 2 and read.fps == openpose_json.FPS


def test_shares_of_a_picture_become_pixels_where_its_size_is_told(tmp_path):
    shares = dancer(1)[0] / (256, 128, 1)
    told = openpose_json.read(save(tmp_path / "a.json", frame(shares, canvas_width=256, canvas_height=128)))
    assert told.joints[0, 0] == pytest.approx(dancer(1)[0], abs=1e-3)
    with pytest.raises(ValueError, match="keypoint_scale 0"):
        openpose_json.read(save(tmp_path / "b.json", frame(shares)))


def test_joints_that_are_missing_or_no_numbers_are_missing(tmp_path):
    values = dancer(1)[0].ravel().tolist()
    values[0], values[4], values[8], values[9], values[12] = None, float("nan"), 0, 1e300, float("inf")
    read = openpose_json.read(save(tmp_path / "a.json", {"people": [{"pose_keypoints_2d": values}]}))
    assert not read.seen[0, 0, :5].any() and read.seen[0, 0, 5:].all() and np.isfinite(read.joints).all()


def test_frames_and_people_without_a_body_are_empty(tmp_path):
    content = [
        frame(dancer(1)[0]),
        {"people": []},
        {"people": [{"pose_keypoints_2d": []}, {"pose_keypoints_2d": None}]},
    ]
    read = openpose_json.read(save(tmp_path / "a.json", content))
    assert read.seen.any(axis=(1, 2)).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "content, says",
    [
        ("", "empty"),
        ("{", "no JSON"),
        ('[{"people": []},]', "no JSON"),
        ('[{"people": []} {"people": []}]', "no JSON"),
        ('{"people": []} {"people": []}', "no JSON"),
        ('{"people": []}PK\x03\x04', "no JSON"),
        ('{"people": ' + "[" * 100_000, "no JSON"),
        ('{"people": [' + "9" * 5000 + "]}", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("1" * 10_000, "no JSON"),
        ('{"people": "me"}', "people"),
        ("[1, 2]", "people"),
        ("[]", "no frames"),
        ('{"people": []}', "not one joint"),
        ('{"people": [1]}', "pose_keypoints_2d"),
        ('{"people": [{"pose_keypoints_2d": "a"}]}', "pose_keypoints_2d"),
        ('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "has 3 numbers"),
        (json.dumps({"people": [{"pose_keypoints_2d": [0] * 54}]}), "not one joint"),
        (json.dumps({"people": [{"pose_keypoints_2d": ["x"] * 54}]}), "not one joint"),
        (json.dumps({"people": [{}] * 65}), "65 people"),
        (json.dumps([{"people": []}] * 2001), "2000 frames"),
    ],
)
def test_what_is_no_keypoints_ends_in_a_sentence(tmp_path, content, says):
    with pytest.raises(ValueError, match=says):
        openpose_json.read(save(tmp_path / "a.json", content))


def test_different_sizes_are_refused(tmp_path):
    frames = [frame(dancer(1)[0], canvas_width=size, canvas_height=128) for size in (256, 300)]
    with pytest.raises(ValueError, match="different sizes"):
        openpose_json.read(save(tmp_path / "a.json", frames))


def zipped(path: Path, *files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    bomb = zipped(tmp_path / "bomb.zip", *((f"{number}.json", b" " * (20 * 2**20)) for number in range(3)))
    assert bomb.stat().st_size < 2**16
    read = []
    original = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *args: read.append(args) or original(*args))
    with open(bomb, "rb") as file, pytest.raises(openpose_parser.Refused, match="more memory than keypoints"):
        openpose_parser.parse(file, "bomb.zip", 2**20)
    assert [size for _, size in read] == [2**20 + 1]
    monkeypatch.setattr(openpose_json, "MAX_BYTES", 2**20)
    with pytest.raises(ValueError, match="more memory than keypoints"):
        openpose_json.read(bomb)


def test_a_zip_of_many_lists_costs_little_here_and_in_the_process_that_reads_it(tmp_path):
    lists = b'{"people":[' + b",".join([b"[]"] * 500_000) + b"]}"
    path = zipped(tmp_path / "lists.zip", *((f"{number}.json", lists) for number in range(40)))  # 60 MB of them
    tracemalloc.start()
    with pytest.raises(ValueError, match="500000 people in frame 1, and 64"):
        openpose_json.read(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep the limit on memory")
def test_what_would_take_more_memory_than_there_may_be_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "numbers.json", '{"people": [[' + ",".join(["1.5"] * 4_000_000) + "]]}")
    with pytest.raises(ValueError, match="has 4000000 numbers"):
        openpose_json.read(path)
    monkeypatch.setattr(openpose_json, "MEMORY_MB", 100)
    with pytest.raises(ValueError, match="100 MB of memory"):
        openpose_json.read(path)
    save(path, '{"people": [' + "[]," * 2_000_000 + "1]}")
    with pytest.raises(ValueError, match="more lists than keypoints"):
        openpose_json.read(path)


def test_one_frame_at_a_time_is_in_memory(tmp_path):
    person = {"pose_keypoints_2d": dancer(1)[0].ravel().tolist(), "face_keypoints_2d": [1.5] * 210}
    path = save(tmp_path / "a.json", [{"people": [person] * 20}] * 100)
    with open(path, "rb") as file:
        tracemalloc.start()
        facts, payload = openpose_parser.parse(file, "a.json", 2**26)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert facts["bodies"] == 2000 and most < 3 * path.stat().st_size + 3 * len(payload) + 2**20


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_called_by_its_name(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(frame(dancer(1)[0])).encode(encoding))
    assert openpose_json.is_keypoints(path)
    with pytest.raises(ValueError, match="UTF-16.*Save it as UTF-8"):
        openpose_json.read(path)


def test_an_empty_zip_is_called_empty(tmp_path):
    path = zipped(tmp_path / "a.zip")
    assert openpose_json.is_keypoints(path)
    with pytest.raises(ValueError, match="The zip is empty"):
        openpose_json.read(path)


def test_odd_names_in_a_zip_are_only_names(tmp_path):
    content = json.dumps(frame(dancer(1)[0])).encode()
    for names in (("1\u00b23.json", "2.json"), ("9" * 5005 + ".json", "2.json"), ("\u0662.json", "a/\n.json")):
        read = openpose_json.read(zipped(tmp_path / "a.zip", *((name, content) for name in names)))
        assert len(read.joints) == 2
    data = zipped(tmp_path / "b.zip", ("\u00e4.json", b"{")).read_bytes()
    (tmp_path / "b.zip").write_bytes(data.replace("\u00e4".encode(), b"\xff\xfe"))  # no UTF-8
    with pytest.raises(ValueError, match="The zip is damaged"):
        openpose_json.read(tmp_path / "b.zip")
    with pytest.raises(ValueError, match=r"^\?\?x.json is no JSON file"):
        openpose_json.read(zipped(tmp_path / "c.zip", ("\x1b\u202ex.json", b"{")))


@pytest.mark.parametrize("fps, known", [(1e-9, None), (5000, None), (0.5, 0.5), (0, openpose_json.FPS), ("9", 8)])
def test_a_rate_that_no_clip_has_is_told(tmp_path, fps, known):
    path = save(tmp_path / "a.json", [frame(dancer(1)[0], fps=fps)])
    if known:
        assert openpose_json.read(path).fps == known
    else:
        with pytest.raises(ValueError, match=f"says {fps:g} frames a second"):
            openpose_json.read(path)


def test_a_zip_that_lies_about_its_size_is_counted_as_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(openpose_json, "MAX_BYTES", 2**20)
    data = bytearray(zipped(tmp_path / "a.zip", ("a.json", b" " * (20 * 2**20))).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # the sizes of the unpacked file
        at = data.index(signature) + offset
        data[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "lie.zip").write_bytes(data)
    with pytest.raises(ValueError, match="damaged|no JSON|more memory"):
        openpose_json.read(tmp_path / "lie.zip")


def test_zips_that_hold_nothing_or_too_much(tmp_path):
    with pytest.raises(ValueError, match="no .json file"):
        openpose_json.read(zipped(tmp_path / "a.zip", ("a.txt", b"{}"), ("__MACOSX/a.json", b"{}")))
    with pytest.raises(ValueError, match="4000 files"):
        openpose_json.read(zipped(tmp_path / "b.zip", *((f"{number}.json", b"{}") for number in range(4001))))
    inner = zipped(tmp_path / "inner.zip", ("a.json", b"{}")).read_bytes()
    with pytest.raises(ValueError, match="no JSON"):
        openpose_json.read(zipped(tmp_path / "c.zip", ("a.json", inner)))
    broken = zipped(tmp_path / "d.zip", ("a.json", os.urandom(5000))).read_bytes()
    (tmp_path / "d.zip").write_bytes(broken[:1000] + b"\0" * 500 + broken[1500:])
    with pytest.raises(ValueError, match="damaged"):
        openpose_json.read(tmp_path / "d.zip")
    (tmp_path / "e.zip").write_bytes(broken[:2000])
    with pytest.raises(ValueError, match="damaged"):
        openpose_json.read(tmp_path / "e.zip")


def test_a_zip_with_a_path_writes_nothing_anywhere(tmp_path):
    content = json.dumps(frame(dancer(1)[0])).encode()
    read = openpose_json.read(zipped(tmp_path / "a.zip", ("../../evil.json", content)))
    assert read.seen.any() and sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip"]


def test_links_folders_and_devices_are_refused(tmp_path):
    target = save(tmp_path / "a.json", frame(dancer(1)[0]))
    (tmp_path / "link.json").symlink_to(target)
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "link.json", tmp_path, tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(ValueError, match="not an ordinary file"):
            openpose_json.read(path)
    with pytest.raises(ValueError, match="can't be opened"):
        openpose_json.read(tmp_path / "nothing.json")


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(frame(dancer(1)[0])).encode())
    assert openpose_json.read(path).seen.all()
