"""The comparison of methods: frames that are made one by one, and intervals that tell how sure a mean is."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipelines.catalog import CATALOG
from pipelines.models.manager import ModelManager
from pipelines.poses import openpose_json
from pipelines.poses.keypoints import Poses
from pipelines.settings import Settings
from pipelines.systems import followyourpose
from scripts import scoreboard
from scripts.miniature.captions import VOCABULARY
from scripts.miniature.scoring import consistency, finish, likeness
from scripts.miniature.world import Words, draw_clip

FRAMES = 8


def test_frame_by_frame_a_pose_changes_its_own_frame_only(tmp_path):
    drawn = draw_clip(Words("bear", "red", "snow", "dancing"), np.random.default_rng(1), FRAMES)
    card = scoreboard.frame_by_frame(tmp_path)
    models = ModelManager({**CATALOG, card.name: card}, Settings(data=tmp_path))
    moved = drawn.keypoints.copy()
    moved[3, :, 0] += 20
    videos = {}
    for name in (scoreboard.PICTURES, scoreboard.FOLLOWED):
        for which, keypoints in (("drawn", drawn.keypoints), ("moved", moved)):
            file = tmp_path / "keypoints.json"
            openpose_json.write(Poses(keypoints[:, None], *drawn.frames.shape[2:0:-1], 8), file)
            settings = {"placing": "crop", "smoothing": "none", "steps": 2, "frames": FRAMES}
            task = scoreboard.follow(name, "a bear", 1, clip="0" * 32, **settings)
            videos[name, which], _ = finish(followyourpose.generate(task, models, file))
    changed = {
        name: (videos[name, "drawn"] != videos[name, "moved"]).any(axis=(1, 2, 3)).tolist()
        for name in (scoreboard.PICTURES, scoreboard.FOLLOWED)
    }
    assert changed[scoreboard.PICTURES] == [index == 3 for index in range(FRAMES)]
    assert all(changed[scoreboard.FOLLOWED])


def test_an_interval_holds_the_mean_and_narrows_with_the_videos():
    values = np.random.default_rng(3).uniform(size=400)
    low, high = scoreboard.interval(values[:20])
    assert low < values[:20].mean() < high
    spread = 1.96 * values.std() / 20
    assert scoreboard.interval(values) == pytest.approx((values.mean() - spread, values.mean() + spread), abs=0.005)
    assert scoreboard.interval([0.5]) == (0.5, 0.5)


def test_frames_are_alike_as_their_pixels_correlate():
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    turning = np.stack([frame, 255 - frame, frame])
    assert consistency(turning) == pytest.approx(-1) and likeness(turning) == pytest.approx(-1 / 3)


def test_the_new_words_are_all_others_but_for_the_action():
    words = Words("bear", "red", "snow", "dancing")
    for seed in range(20):
        other = scoreboard.other_words(words, np.random.default_rng(seed))
        assert replace(other, **{kind: getattr(words, kind) for kind in scoreboard.JUDGED}) == words
        for kind in scoreboard.JUDGED:
            assert getattr(other, kind) in VOCABULARY[kind] and getattr(other, kind) != getattr(words, kind)


def test_the_table_has_a_line_for_every_method_that_was_judged():
    rows = [{"method": method, **dict.fromkeys(scoreboard.COLUMNS, 0.25)} for method in scoreboard.METHODS[1:]]
    table = scoreboard.table(json.loads(json.dumps(rows + rows)))
    assert table.count("25.0 (25.0 to 25.0)") == 3 * len(scoreboard.COLUMNS)
    assert [line.split(" | ")[:2] for line in table.splitlines()[2:]] == [
        [f"| {one}", "2"] for one in scoreboard.METHODS[1:]
    ]
