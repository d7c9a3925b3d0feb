"""Does who was tuned on dance what others danced? Tunes on drawn clips, drives the result by other clips' poses.

    python -m scripts.score_tuned_poses
    python -m scripts.score_tuned_poses --shard 0/2 & python -m scripts.score_tuned_poses --shard 1/2 & wait

Every clip shows a combination of words that no miniature was trained on, and the motion of another that it never saw is
danced twice: in the words of the clip, and elsewhere. The same videos are made without what was tuned.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np

from pipelines.catalog import CATALOG, find
from pipelines.media import video
from pipelines.models.manager import ModelManager
from pipelines.poses import openpose_json
from pipelines.poses.keypoints import Poses
from pipelines.settings import Settings
from pipelines.systems import followyourpose, tuning
from pipelines.tasks import PoseToVideo, Tune
from scripts import score_edits, score_poses
from scripts.miniature.captions import VOCABULARY, caption
from scripts.miniature.referee import Referee
from scripts.miniature.scoring import add_options, consistency, finish, hits, joints, score
from scripts.miniature.world import FPS, draw_clip, sample_words

VARIANTS = ("tuned", "not tuned")
SCENES = ("in the words of its clip", "at another place")
JUDGED = ("character", "colour", "place")  # what it does is the poses' affair


def judge_clip(index: int, models: ModelManager, referee: Referee) -> Iterator[dict]:
    """Tunes on clip `index` and has it dance; yields one record a video."""
    card = find("miniature-followyourpose")
    rng = np.random.default_rng((score_edits.SEED, index))
    words = sample_words(rng, held_out=True)
    own, told = draw_clip(words, rng), caption(words, rng)
    elsewhere = replace(words, place=str(rng.choice([one for one in VOCABULARY["place"] if one != words.place])))
    rng = np.random.default_rng((score_poses.SEED, index))
    other = draw_clip(sample_words(rng, held_out=index % 2 == 1), rng)
    _, height, width, _ = other.frames.shape
    with tempfile.TemporaryDirectory() as folder:
        clip, keypoints, tuned = (Path(folder) / name for name in ("clip.mp4", "keypoints.json", "tuned"))
        video.write(own.frames, clip, FPS)
        openpose_json.write(Poses(other.keypoints[:, None], width, height, FPS), keypoints)
        tune = Tune.for_model(find(card.tuned_from), told, index, clip="0" * 32)
        finish(tuning.generate(tune, models, clip, tuned, Path(folder) / "source.mp4"))
        for scene, asked in zip(SCENES, (words, elsewhere), strict=True):
            text = caption(asked, rng)
            for variant in VARIANTS:
                given = {"clip": "0" * 32, "placing": "crop", "smoothing": "none"}
                looks = {"tuned": tuned} if variant == "tuned" else {}
                task = PoseToVideo.for_model(card, text, index, **given, **dict.fromkeys(looks, "0" * 32))
                frames, _ = finish(followyourpose.generate(task, models, keypoints, **looks))
                seen, found = asdict(referee.judge(frames).words), joints(frames, models)
                yield {
                    **{"scene": scene, "variant": variant},
                    **{kind: seen[kind] == asdict(asked)[kind] for kind in JUDGED},
                    "pck": float(np.nanmean(hits(found, other.keypoints, other.figure))),
                    "consistency": consistency(frames),
                }


def table(rows: list[dict]) -> str:
    names = [*JUDGED, "pck", "consistency"]
    heads = [*JUDGED, "joints where they should be (PCK 0.1)", "frame consistency"]
    lines = ["| scene | variant | videos | " + " | ".join(heads) + " |", "|" + " --- |" * (3 + len(heads))]
    for scene in SCENES:
        for variant in VARIANTS:
            group = [row for row in rows if (row["scene"], row["variant"]) == (scene, variant)]
            if group:
                means = " | ".join(f"{np.mean([row[name] for row in group]):.1%}" for name in names)
                lines.append(f"| {scene} | {variant} | {len(group)} | {means} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, 12, "training/tuned-poses")
    options = parser.parse_args()
    models, referee = ModelManager(CATALOG, Settings.from_environment()), Referee.load()
    score(lambda index: judge_clip(index, models, referee), table, options)


if __name__ == "__main__":
    main()
