"""OpenPose on drawn clips: decoding, weights, and the sentences for clips in which nobody can be found."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from pipelines.cards import Source
from pipelines.catalog import CATALOG
from pipelines.detectors import DETECTORS
from pipelines.events import Progress
from pipelines.models import loading
from pipelines.models.convert import openpose as openpose_file
from pipelines.models.manager import ModelManager
from pipelines.poses import detection, keypoints, openpose, tracking
from pipelines.settings import Settings
from scripts.miniature.openpose import HEIGHT, STRIDE, draw_maps


class Answers:
    """A stand-in for a network that knows the maps of all pictures: in frame n, of its own grey, are people[n]."""

    def __init__(self, people: list[np.ndarray], width: int, height: int):
        self.people, self.width, self.height = people, width, height
        self.asked = 0

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += 1
        _, _, high, wide = images.shape
        assert high == HEIGHT and wide % STRIDE == 0
        number = round((float(images[0, 0, 0, 0] + 0.5) * 256 - 20) / 5)
        shown = self.people[number].copy()
        shown[..., :2] = (shown[..., :2] + 0.5) * HEIGHT / self.height - 0.5
        fields, heatmaps = draw_maps(shown, wide)
        return torch.from_numpy(fields)[None], torch.from_numpy(heatmaps)[None]

    def frames(self) -> np.ndarray:
        greys = 20 + 5 * np.arange(len(self.people), dtype=np.uint8)
        return np.broadcast_to(greys[:, None, None, None], (len(greys), self.height, self.width, 3)).copy()

    def manager(self, monkeypatch) -> ModelManager:
        answer = self

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.nothing = nn.Parameter(torch.zeros(1))

            def forward(self, images):
                return answer(images)

        def component(detector, part, settings, on_progress):
            return loading.Component(key="answers", bytes=4, load=lambda on_progress: Network())

        monkeypatch.setattr(loading, "detector_component", component)
        return ModelManager(CATALOG, Settings(), device="cpu")


def crowd(count: int, width: int, height: int, size: float) -> np.ndarray:
    """Joints [count, 18, 3] of people who stand apart in rows."""
    from test_keypoints import dancer

    columns = max(1, int(width / size))
    people = dancer(count, x=0, height=size) - (0, 110, 0)
    offsets = [
        ((column + 0.5) * size, (row + 1.05) * size, 0) for row, column in (divmod(n, columns) for n in range(count))
    ]
    return people + np.array(offsets, np.float32)[:, None]


@pytest.mark.parametrize("width, height", [(128, 128), (320, 180), (180, 320), (640, 500)])
def test_decoding_finds_the_joints_that_the_maps_were_drawn_for(monkeypatch, width, height):
    people = [crowd(2, width, height, 0.45 * min(width, height)) for _ in range(3)]
    people[1] = people[1][:1]
    people[2][1, 5:8] = 0  # without a left arm
    answers = Answers(people, width, height)
    events, (poses, _) = tiny.finish(detection.extract(answers.frames(), 8.0, "openpose", answers.manager(monkeypatch)))
    assert (poses.width, poses.height, poses.fps) == (width, height, 8.0)
    assert poses.seen.any(axis=2).sum(axis=1).tolist() == [2, 1, 2]
    found = tracking.track(poses)
    assert found.joints.shape[1] == 2
    for number, there in enumerate(people):
        for person in there:
            mine = min(found.joints[number], key=lambda each: np.abs(each - person)[:, :2].sum())
            assert ((mine[:, 2] > 0) <= (person[:, 2] > 0)).all()
            both = (mine[:, 2] > 0) & (person[:, 2] > 0)
            assert both.sum() >= (person[:, 2] > 0).sum() - 3  # eyes and ears of small people may merge
            errors = np.hypot(*(mine - person)[both, :2].T)
            assert errors.max() < 0.03 * height and np.median(errors) < 0.01 * height
    assert all(isinstance(event, Progress) for event in events)
    steps = [(event.step, event.total) for event in events if event.stage == "Finding people"]
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_thirty_people_are_found(monkeypatch):
    answers = Answers([crowd(30, 1200, 400, 118)], 1200, 400)
    _, (poses, _) = tiny.finish(detection.extract(answers.frames(), 8.0, "openpose", answers.manager(monkeypatch)))
    assert poses.joints.shape[1] == 30


def test_stopping_leaves_the_rest_undone(monkeypatch):
    answers = Answers([crowd(1, 128, 128, 100)] * 24, 128, 128)
    models = answers.manager(monkeypatch)
    events = detection.extract(answers.frames(), 8.0, "openpose", models)
    while next(events).stage != "Finding people":
        pass
    events.close()
    assert answers.asked <= 2 + 2 * detection.THREADS
    assert not any(resident.leases for resident in models.stats())


def test_nobody_in_some_frames_is_told_and_nobody_in_any_is_a_sentence(monkeypatch):
    there, nobody = crowd(1, 128, 128, 100), np.zeros((0, 18, 3))
    answers = Answers([there, nobody, nobody, there], 128, 128)
    models = answers.manager(monkeypatch)
    _, (poses, _) = tiny.finish(detection.extract(answers.frames(), 8.0, "openpose", models))
    assert "of the 4 frames: 2–3." in keypoints.tell_absent(poses)
    answers.people = [nobody] * 4
    for detector, advice in (("openpose", "from head to foot"), ("miniature-openpose", "knows only drawn figures")):
        with pytest.raises(ValueError, match=f"Nobody was found in any of the 4 frames.*{advice}"):
            tiny.finish(detection.extract(answers.frames(), 8.0, detector, models))


def test_a_black_clip_and_an_unknown_detector_are_sentences(monkeypatch):
    models = Answers([], 128, 128).manager(monkeypatch)
    black = np.full((4, 96, 96, 3), 9, np.uint8)
    with pytest.raises(ValueError, match="is black"):
        tiny.finish(detection.extract(black, 8.0, "openpose", models))
    with pytest.raises(ValueError, match="miniature-openpose, openpose"):
        tiny.finish(detection.extract(black, 8.0, "mmpose", models))


@pytest.mark.parametrize("width, height", [(2000, 20), (20, 2000), (1, 1)])
def test_pictures_of_any_shape_are_looked_at(width, height):
    frame = np.full((height, width, 3), 200, np.uint8)
    seen, scale = openpose.as_seen(frame)
    assert seen.shape[0] == openpose.SEEN_HEIGHT and seen.shape[1] <= 3.1 * openpose.SEEN_HEIGHT and (scale > 0).all()


# Weights


@pytest.fixture(scope="module")
def annotators(tmp_path_factory) -> Path:
    """OpenPose's real network, with random weights, as lllyasviel/Annotators has it."""
    from controlnet_aux.open_pose.model import bodypose_model

    folder = tmp_path_factory.mktemp("annotators")
    weights = tiny.randomised(bodypose_model()).state_dict()
    assert sum(weight.numel() for weight in weights.values()) == 52_311_446
    torch.save({name.partition(".")[2]: weight for name, weight in weights.items()}, folder / openpose_file.FILE)
    return folder


def test_openposes_own_file_is_converted_once_and_loaded_by_the_same_code(annotators, tmp_path):
    settings = Settings(cache=tmp_path, hub=False)
    detectors = {"openpose": replace(DETECTORS["openpose"], source=Source(str(annotators)))}
    models = ModelManager(CATALOG, settings, device="cpu", detectors=detectors)
    original = torch.load(annotators / openpose_file.FILE, weights_only=True)
    with models.lease("openpose/body") as network:
        names = {name.partition(".")[2]: weight for name, weight in network.state_dict().items()}
        assert names.keys() == original.keys()
        assert all(weight.equal(original[name]) for name, weight in names.items())
        fields, heatmaps = network(torch.zeros(1, 3, 64, 80))
        assert (fields.shape, heatmaps.shape) == ((1, 38, 8, 10), (1, 19, 8, 10))
    converted = list((tmp_path / "converted").glob("*/*.safetensors"))
    assert len(converted) == 1
    written = converted[0].stat().st_mtime_ns
    again = loading.detector_component(detectors["openpose"], "body", settings)
    assert again.bytes == converted[0].stat().st_size and converted[0].stat().st_mtime_ns == written


def test_weights_that_are_missing_or_damaged_are_sentences(annotators, tmp_path):
    settings = Settings(cache=tmp_path / "cache", hub=False)
    detector = DETECTORS["openpose"]
    with pytest.raises(ValueError, match="lllyasviel/Annotators is not on this machine.*MARIONETTE_HUB=1"):
        loading.detector_component(detector, "body", settings)
    damaged = replace(detector, source=Source(str(tmp_path)))
    with pytest.raises(ValueError, match="missing|no weights"):
        loading.detector_component(damaged, "body", settings)
    (tmp_path / openpose_file.FILE).write_bytes((annotators / openpose_file.FILE).read_bytes()[:1_000_000])
    with pytest.raises(ValueError, match="damaged"):
        loading.detector_component(damaged, "body", settings)
    torch.save({"conv1_1.weight": torch.zeros(3)}, tmp_path / openpose_file.FILE)
    with pytest.raises(ValueError, match="is not OpenPose's body network"):
        loading.detector_component(damaged, "body", settings)
    torch.save({"a": Path("a")}, tmp_path / openpose_file.FILE)
    with pytest.raises(ValueError, match="holds more than weights"):
        loading.detector_component(damaged, "body", settings)


def test_a_copy_in_the_cache_is_found(annotators, tmp_path):
    (tmp_path / "Annotators").symlink_to(annotators)
    settings = Settings(cache=tmp_path, hub=False)
    assert loading.detector_component(DETECTORS["openpose"], "body", settings).bytes > 200_000_000


def test_the_small_network_has_openposes_interface(tmp_path):
    from safetensors.torch import save_file

    from pipelines.models.networks.openpose import BodyPoseNetwork

    network = tiny.randomised(BodyPoseNetwork(32, [1, 2]))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config = {"_class_name": "BodyPoseNetwork", "width": 32, "dilations": [1, 2]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    detectors = {"small": replace(DETECTORS["openpose"], source=Source(str(tmp_path)))}
    models = ModelManager(CATALOG, Settings(cache=tmp_path / "cache"), device="cpu", detectors=detectors)
    images = torch.randn(2, 3, 184, 104)
    with models.lease("small/body") as loaded:
        for found, expected in zip(loaded(images), network(images), strict=True):
            assert found.shape[2:] == (23, 13) and found.equal(expected)
