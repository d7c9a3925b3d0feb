"""BlazePose: the networks against LiteRT's recordings, and who is found, followed and kept in drawn scenes."""

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch

from pipelines.models.manager import ModelManager
from pipelines.poses import blazepose, detection, keypoints
from pipelines.poses.blazepose import BlazePose, Person, Region
from pipelines.settings import Settings
from scripts.convert_blazepose import RECORDED, pictures

FPS = 16.0


@pytest.fixture(scope="module")
def models() -> ModelManager:
    return ModelManager({}, Settings(hub=False), device="cpu")


@pytest.fixture(scope="module")
def networks(models):
    with models.lease("blazepose/detector") as detector, models.lease("blazepose/landmarks") as landmarks:
        yield BlazePose(detector, landmarks)


def figure(height: int) -> tuple[np.ndarray, np.ndarray]:
    """A drawn figure [h, w, 3] of so many pixels and where it is [h, w], from head to foot."""
    whole = pictures(512)["figure"]
    ramp = np.linspace(60, 220, 512)
    behind = np.stack([np.add.outer(ramp, ramp) / 2, np.tile(ramp, (512, 1)), np.full((512, 512), 150)], -1)
    mask = (np.abs(whole.astype(int) - behind.astype(np.uint8)).max(axis=-1) > 3).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3)))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = round(mask[box].shape[1] * height / mask[box].shape[0]), height
    return cv2.resize(whole[box], size, interpolation=cv2.INTER_AREA), cv2.resize(mask[box], size)


def scene(width: int, height: int, *people: tuple[int, int, int]) -> np.ndarray:
    """Figures before a wall: left, top and height of each."""
    image = np.full((height, width, 3), (205, 200, 190), np.uint8)
    image[3 * height // 4 :] = (150, 130, 110)
    for left, top, tall in people:
        drawn, mask = figure(tall)
        place = image[top : top + mask.shape[0], left : left + mask.shape[1]]
        place[mask > 0] = drawn[: place.shape[0], : place.shape[1]][mask > 0]
    return image


def search(frames, networks, fps=FPS):
    _, found = tiny.finish(blazepose.find(np.stack(frames), fps, networks))
    return [people[people[..., 2].any(axis=1)] for people in found]


@pytest.mark.parametrize("kind", ["figure", "noise"])
def test_the_networks_say_what_litert_says(networks, kind):
    with np.load(RECORDED) as recorded:
        for part, network in (("detector", networks._detector), ("landmarks", networks._landmarks)):
            side = 256 if part == "landmarks" else 224
            image = torch.from_numpy(pictures(side)[kind]).permute(2, 0, 1)[None].float()
            with torch.inference_mode():
                outputs = network(image / 255 if part == "landmarks" else image / 127.5 - 1)
            for name, output in zip(("Identity", "Identity_1"), outputs, strict=True):
                wanted = torch.from_numpy(recorded[f"{part} {kind} {name}"]).reshape(output.shape)
                assert (output - wanted).abs().max() <= 1e-3 * wanted.abs().max()
                if name == "Identity" and part == "landmarks":
                    assert (output - wanted)[..., :2].abs().max() < 0.5  # pixels
        assert abs(recorded["detector figure Identity_1"]).max() > 1  # the recording is one of pictures, not of nothing


def test_weights_take_their_licence_with_them():
    folder = Path(blazepose.__file__).resolve().parents[2] / "assets" / "detectors" / "blazepose"
    assert "Apache License" in (folder / "LICENSE").read_text() and "MediaPipe" in (folder / "NOTICE").read_text()


def test_joints_lie_on_the_figure(networks):
    left, top, tall = 150, 60, 360
    (person,) = search([scene(640, 480, (left, top, tall))], networks)[0]
    drawn, _ = figure(tall)
    wide = drawn.shape[1]
    # The figure's right arm, to the left in the picture, is raised; where it was drawn, as shares of its box.
    wanted = {0: (0.49, 0.13), 2: (0.3, 0.26), 5: (0.66, 0.26), 8: (0.38, 0.58), 11: (0.58, 0.58)}
    wanted |= {4: (0.06, 0.26), 9: (0.34, 0.78), 12: (0.63, 0.78)}
    for joint, (x, y) in wanted.items():
        assert person[joint, 2] > 0.5, keypoints.JOINTS[joint]
        apart = np.hypot(*(person[joint, :2] - (left + x * wide, top + y * tall)))
        assert apart < 0.1 * tall, keypoints.JOINTS[joint]


def test_small_people_in_a_wide_picture_are_found(networks):
    """300 pixels in 1400 x 900, which the detector misses when it sees the whole picture only."""
    people = ((180, 420, 300), (700, 380, 300), (1150, 440, 300))
    assert len(search([scene(1400, 900, *people)], networks)[0]) == 3


def test_who_comes_between_two_looks_is_followed_back(networks):
    frames = [scene(400, 400, *(() if number < 2 else ((60 + 6 * number, 40, 320),))) for number in range(6)]
    found = search(frames, networks)
    assert [len(people) for people in found] == [0, 0, 1, 1, 1, 1]
    steps = np.diff([people[0, 1, 0] for people in found[2:]])
    assert np.abs(steps - 6).max() < 4


def test_a_crowd_takes_no_longer_than_a_few(networks, monkeypatch):
    """Of all who are seen, MOST are looked at, the largest; and nobody twice."""
    monkeypatch.setattr(blazepose, "MOST", 2)
    crowd = scene(900, 420, (40, 60, 340), (330, 60, 340), (660, 180, 200))
    found = search([crowd, crowd], networks)
    assert [len(people) for people in found] == [2, 2]
    assert all(people[:, 1, 0].max() < 620 for people in found)


def person(*, right=0.0, down=0.0, size=1.0, sure=1.0) -> Person:
    """A figure about 300 pixels high, or `size` times as high about the same middle, so many pixels further."""
    joints = np.load(Path(__file__).parent / "data" / "blazepose.npz")["landmarks figure Identity"].reshape(39, 5)
    places = (joints[:, :2] - 128) * 1.5 * size + (300 + right, 300 + down)
    shown = blazepose._joints(places, np.ones(39), np.empty((600, 900, 3)))
    return Person(shown, sure, Region.around(*places[[blazepose.HIPS, blazepose.CIRCLE]]))


def test_a_figure_seen_in_the_body_of_another_is_nobody():
    """As a chest with its arms may be taken for somebody small; who stands close to another is somebody."""
    whole = person()
    assert person(size=0.5, down=-30).is_on(whole) and not whole.is_on(person(size=0.5, down=-30))
    assert not person(right=110).is_on(whole) and not person(right=110).is_same(whole)
    assert person(right=3).is_on(whole)


class Shown:
    """A stand-in for both networks: finds these people, each where a square is at least so wide."""

    def __init__(self, *people: tuple[Person, float]):
        self._people = people

    def regions(self, frame, closely=False):
        return [each.next for each, _ in self._people]

    def people(self, frame, regions):
        return [
            each for region in regions for each, least in self._people if region.side >= least and near(region, each)
        ]


def near(region: Region, each: Person) -> bool:
    return np.hypot(region.x - each.next.x, region.y - each.next.y) < 0.15 * each.next.side


def test_nobody_new_is_found_in_the_body_of_who_is_followed():
    whole, chest, beside = person(), person(size=0.5, down=-100), person(right=250)
    frames = np.zeros((2, 600, 900, 3), np.uint8)
    shown = Shown((whole, 0), (chest, 0), (beside, 0))
    assert chest.is_on(whole) and not near(whole.next, chest)
    new = blazepose._newcomers(frames, [], [whole], shown.regions(frames[0]), shown)
    assert [each is beside for each in new] == [True]
    new = blazepose._newcomers(frames, [], [], shown.regions(frames[0]), shown)
    assert [each is whole or each is beside for each in new] == [True, True]


def test_who_is_lost_is_looked_for_in_a_wider_square():
    there = person()
    frame, side = np.zeros((600, 900, 3), np.uint8), there.next.side
    assert blazepose._followed(frame, [there.next], Shown((there, 1.05 * side))) == [there]
    assert blazepose._followed(frame, [there.next], Shown((there, 0))) == [there]
    assert blazepose._followed(frame, [there.next], Shown((there, 2 * side))) == []


def test_of_two_findings_of_one_person_the_surer_one_stays(networks):
    """The worse one would lead astray in the next frame."""

    class Landmarks(torch.nn.Linear):
        def forward(self, images):
            points = torch.zeros(len(images), 39, 5)
            points[..., :2], points[..., 3] = torch.rand(39, 2) * 200 + 28, 9.0
            return points, torch.tensor([0.6, 0.9, 0.4])[: len(images)]

    found = BlazePose(networks._detector, Landmarks(1, 1))
    regions = [Region(200.0, 200.0, side, 0.0) for side in (300.0, 301.0, 302.0)]
    assert [round(each.confidence, 1) for each in found.people(np.zeros((400, 400, 3), np.uint8), regions)] == [0.9]


def test_regions_are_cut_upright():
    """A square that lies on its side is turned; points in it go back to where they came from."""
    image = np.zeros((200, 300, 3), np.uint8)
    cv2.circle(image, (180, 100), 4, (255, 255, 255), -1)
    region = Region.around(np.array([150.5, 100.5]), np.array([180.5, 100.5]))  # the head is to the right
    cut = region.cut(image, 64)
    row, column = np.unravel_index(cut[..., 0].argmax(), (64, 64))
    assert row < 25 and abs(column - 32) < 4  # in the cut it is up
    assert np.allclose(region.to_picture(np.array([[32.0, 32.0]]), 64), (150.5, 100.5))
    back = region.to_picture(np.array([[32.0, 32 - 32 / 1.25]]), 64)
    assert np.allclose(back, (180.5, 100.5), atol=1e-6)


def test_stopping_ends_the_search(networks):
    frames = np.stack([scene(300, 300, (80, 20, 260))] * 40)
    events = blazepose.find(frames, FPS, networks)
    assert next(events) == 1
    events.close()
    assert torch.get_num_threads() >= 1


def test_a_thread_of_one_core_keeps_to_it():
    """However many the process has: two threads of two cores each would wait for each other on two cores."""
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    thread = blazepose._one_core()
    try:
        ones = torch.ones(300, 300)
        thread.submit(torch.mm, ones, ones).result()
        assert (thread.submit(torch.get_num_threads).result(), torch.get_num_threads()) == (1, 2)
    finally:
        thread.shutdown()
        torch.set_num_threads(usual)


def test_auto_takes_people_for_people_and_drawings_for_drawings(models):
    from scripts.miniature.world import Words, draw_clip

    people = np.stack([scene(400, 400, (60 + 8 * number, 40, 320)) for number in range(5)]).astype(np.float32)
    grain = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 200, people.shape[1:]), (0, 0), 2)  # as no drawing has
    people = np.clip(people + grain, 0, 255).astype(np.uint8)
    _, (poses, by) = tiny.finish(detection.extract(people, FPS, "auto", models))
    assert by == "blazepose" and poses.seen.any(axis=2).sum(axis=1).min() == 1
    drawn = draw_clip(Words("bear", "red", "beach", "waving"), np.random.default_rng(1), frames=5).frames
    _, (poses, by) = tiny.finish(detection.extract(drawn, 8.0, "auto", models))
    assert by == "miniature-openpose" and poses.seen.any(axis=2).all(axis=0).any()


@pytest.mark.parametrize("character", ["person", "robot", "bear", "astronaut"])
@pytest.mark.parametrize("world", ["miniature", "theatre"])
def test_auto_tells_a_drawing_by_a_single_picture(models, world, character):
    from scripts.miniature.world import Words

    draw = importlib.import_module(f"scripts.{world}.world").draw_clip
    drawn = draw(Words(character, "green", "beach", "waving"), np.random.default_rng(2), frames=1).frames
    _, (_, by) = tiny.finish(detection.extract(drawn, 8.0, "auto", models))
    assert by == "miniature-openpose"


def test_auto_tells_a_photo_by_a_single_picture(models):
    """The detector of drawn figures is as sure of this person as BlazePose, but few drawings have such grain all over;
    a robot, of which BlazePose knows nothing, is one with grain, too."""
    from scripts.miniature.world import Words, draw_clip

    for character, detectors in (("person", (detection.DRAWN, detection.PEOPLE)), ("robot", (detection.DRAWN,) * 2)):
        words = Words(character, "red", "beach", "waving")
        picture = draw_clip(words, np.random.default_rng(1), frames=1).frames
        grain = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 40, picture.shape[1:3]), (0, 0), 1.5)
        photo = np.clip(picture + grain[..., None], 0, 255).astype(np.uint8)
        found = [tiny.finish(detection.extract(shown, 8.0, "auto", models))[1][1] for shown in (picture, photo)]
        assert found == list(detectors)


def test_what_neither_is_sure_of_is_no_drawn_figure(models):
    """Of blots both see nobody, or hardly somebody: nobody is found, rather than a dancer among them."""
    blots = cv2.GaussianBlur(np.random.default_rng(3).normal(0, 2000, (240, 320, 3)), (0, 0), 20)
    blots = np.clip(blots + 128, 0, 255).astype(np.uint8)[None]
    with pytest.raises(ValueError, match="Nobody was found in the frame"):
        tiny.finish(detection.extract(blots, 8.0, "auto", models))


def test_nobody_is_nobody(models):
    wall = np.repeat(scene(320, 240)[None], 3, axis=0)
    with pytest.raises(ValueError, match="Nobody was found in any of the 3 frames. Choose a part of the clip"):
        tiny.finish(detection.extract(wall, FPS, "blazepose", models))
