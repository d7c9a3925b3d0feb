"""FollowYourPose's comparison of methods, measured on the paper theatre: `python -m scripts.scoreboard`.

    python -m scripts.scoreboard --shard 0/2 & python -m scripts.scoreboard --shard 1/2 & wait

Ma et al. 2023, table 1: who follows the poses, shows the words and keeps its frames alike? Every method is given the
same motion, which no model has seen, and the same new words. Tune-A-Video edits the clip in which a dancer with other
words moves so; the others follow that clip's joints.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np
from diffusers import UNet2DConditionModel

from pipelines.cards import ModelCard, Source
from pipelines.catalog import CATALOG, MINIATURES, find
from pipelines.media import video
from pipelines.models.manager import ModelManager
from pipelines.poses import detection, openpose_json
from pipelines.poses.keypoints import Poses
from pipelines.settings import Settings
from pipelines.systems import followyourpose, metrics, tuneavideo, tuning
from pipelines.tasks import Edit, PoseToVideo, Tune
from scripts.miniature import networks
from scripts.miniature.captions import VOCABULARY, caption
from scripts.miniature.referee import Referee
from scripts.miniature.scoring import add_options, consistency, finish, likeness, score
from scripts.miniature.world import FPS, Words, draw_clip, sample_words

SEED = 7_000_000  # of motions that nothing was trained on
JUDGED = ("character", "colour", "place")  # what a dancer does is the poses' affair
TUNED, PICTURES, FOLLOWED, RETARGETED = METHODS = (
    "Tune-A-Video",
    "pose adapter, frame by frame",
    "FollowYourPose",
    "FollowYourPose, retargeted",
)
SAMPLED = {"scheduler": "ddim", "steps": 25, "guidance": 2.5}  # the image model, of which there is no faster one
COLUMNS = {
    "words": "words (referee)",
    "pose": "pose accuracy (OKS-AP)",
    "consistency": "frame consistency",
    "likeness": "all pairs of frames",
    "new": "frames that show the new words",
}
DRAWS = 10_000  # of the bootstrap


def frame_by_frame(folder: Path) -> ModelCard:
    """Makes of FollowYourPose, in `folder`, the image model with its pose adapter, which sees one frame at a time."""
    card = find("miniature-followyourpose")
    image = UNet2DConditionModel.from_pretrained(MINIATURES / "sd" / "unet").float()
    following = networks.load_followyourpose(image, MINIATURES / "followyourpose" / "unet")
    unet = networks.followyourpose_unet(image)
    unet.skeleton_adapter.load_state_dict(following.skeleton_adapter.state_dict())
    shutil.copytree(MINIATURES / "sd", folder / "pictures", ignore=shutil.ignore_patterns("unet"))
    shutil.copy(MINIATURES / "followyourpose" / "model_index.json", folder / "pictures")
    networks.save_followyourpose(unet, folder / "pictures" / "unet")
    limits = replace(card.limits, frames=replace(card.limits.frames, low=1), once=1, window=1)
    return replace(card, name="pictures", source=Source(str(folder / "pictures")), limits=limits)


def judge_motion(index: int, models: ModelManager, referee: Referee) -> Iterator[dict]:
    """Has every method dance motion `index`; yields one record each."""
    rng = np.random.default_rng((SEED, index))
    before = sample_words(rng, None)
    drawn, told = draw_clip(before, rng), caption(before, rng)
    words = other_words(before, rng)
    text = caption(words, rng)
    _, height, width, _ = drawn.frames.shape
    shown = Poses(drawn.keypoints[:, None], width, height, FPS)
    with tempfile.TemporaryDirectory() as folder:
        clip, keypoints, tuned = (Path(folder) / name for name in ("clip.mp4", "keypoints.json", "tuned"))
        video.write(drawn.frames, clip, FPS)
        openpose_json.write(shown, keypoints)
        for method in METHODS:
            if method == TUNED:
                base, given = find("miniature-sd"), {"clip": "0" * 32}
                tune = Tune.for_model(base, told, index, **given)
                finish(tuning.generate(tune, models, clip, tuned, Path(folder) / "source.mp4"))
                shape = {"frames": len(drawn.frames), "width": width, "height": height, "fps": FPS}
                edit = Edit.for_model(base, text, index, tuned="0" * 32, **shape)
                frames, _ = finish(tuneavideo.generate(edit, models, tuned))
                wanted = shown
            else:
                given = {"clip": "0" * 32, "placing": "crop", "smoothing": "none"}
                task = follow(method, text, index, **given)
                followed = []
                frames, _ = finish(followyourpose.generate(task, models, keypoints, follow=followed.append))
                wanted = followed[0].poses  # its own, where bodies differ
            yield {"method": method} | judge(frames, words, before, wanted, models, referee)


def follow(method: str, text: str, seed: int, **given: object) -> PoseToVideo:
    """The task of a method that follows poses."""
    settings = (SAMPLED if method == PICTURES else {}) | given
    task = PoseToVideo.for_model(
        find("miniature-followyourpose"), text, seed, retarget=method == RETARGETED, **settings
    )
    return replace(task, model="pictures") if method == PICTURES else task  # no page offers to make them one by one


def other_words(words: Words, rng: np.random.Generator) -> Words:
    """Another character, in other clothes and at another place, that does the same."""
    changed = {kind: [word for word in VOCABULARY[kind] if word != getattr(words, kind)] for kind in JUDGED}
    return replace(words, **{kind: str(rng.choice(others)) for kind, others in changed.items()})


def judge(
    frames: np.ndarray, words: Words, before: Words, wanted: Poses, models: ModelManager, referee: Referee
) -> dict:
    """The columns of one video, each from 0 to 1."""
    seen = asdict(referee.judge(frames).words)
    single = [asdict(referee.judge(np.repeat(frame[None], 8, axis=0)).words) for frame in frames]
    new, old = (
        np.array([[one[kind] == getattr(of, kind) for kind in JUDGED] for one in single]) for of in (words, before)
    )
    try:
        found, _ = finish(detection.extract(frames, FPS, "miniature-openpose", models))
        pose = metrics.pose_accuracy(found, wanted) / 100
    except ValueError:  # nobody is found
        pose = 0.0
    return {
        "words": float(np.mean([seen[kind] == getattr(words, kind) for kind in JUDGED])),
        "pose": pose,
        "consistency": consistency(frames),
        "likeness": likeness(frames),
        "new": float((new.sum(axis=1) > old.sum(axis=1)).mean()),
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the mean of so many videos lies in 95 of 100 draws: the bootstrap's percentiles."""
    rng, known = np.random.default_rng(0), np.asarray(values)
    means = known[rng.integers(len(known), size=(DRAWS, len(known)))].mean(axis=1)
    return tuple(np.percentile(means, (2.5, 97.5)).tolist())


def table(rows: list[dict]) -> str:
    lines = ["| method | videos | " + " | ".join(COLUMNS.values()) + " |", "|" + " --- |" * (2 + len(COLUMNS))]
    for method in METHODS:
        group = [row for row in rows if row["method"] == method]
        if group:
            cells = [_cell([row[name] for row in group]) for name in COLUMNS]
            lines.append(f"| {method} | {len(group)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    low, high = interval(values)
    return f"{100 * np.mean(values):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, 50, "training/scoreboard")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = frame_by_frame(Path(folder))
        models = ModelManager({**CATALOG, pictures.name: pictures}, Settings.from_environment())
        referee = Referee.load()
        score(lambda index: judge_motion(index, models, referee), table, options)


if __name__ == "__main__":
    main()
