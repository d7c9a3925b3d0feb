"""Does the dancer follow? Drives the small FollowYourPose with poses that it has never seen, and judges the videos.

    python -m scripts.score_poses
    python -m scripts.score_poses --shard 0/2 & python -m scripts.score_poses --shard 1/2 & wait

Every video has a motion of its own, drawn for nobody else; half of them have a combination of words that training held
back. The poses are given as keypoints; the joints of the result are read by the built-in detector. Each motion is also
made without poses.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np

from pipelines.catalog import CATALOG, find
from pipelines.models.manager import ModelManager
from pipelines.poses import openpose_json
from pipelines.poses.keypoints import Poses
from pipelines.settings import Settings
from pipelines.systems import followyourpose
from pipelines.tasks import PoseToVideo
from scripts.miniature.captions import VOCABULARY, caption
from scripts.miniature.referee import Referee
from scripts.miniature.scoring import add_options, consistency, finish, hits, joints, score
from scripts.miniature.world import FPS, draw_clip, sample_words

SEED = 8_000_000  # of motions that nothing was trained on
VARIANTS = ("with poses", "without")


def judge_video(index: int, models: ModelManager, referee: Referee, options: argparse.Namespace) -> Iterator[dict]:
    """Makes and judges video `index`: one record a variant."""
    card = find("miniature-followyourpose")
    rng = np.random.default_rng((SEED, index))
    words = sample_words(rng, held_out=index % 2 == 1)
    drawn, text = draw_clip(words, rng), caption(words, rng)
    _, height, width, _ = drawn.frames.shape
    known = hits(joints(drawn.frames, models), drawn.keypoints, drawn.figure)  # what the detector itself is worth
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keypoints.json"
        openpose_json.write(Poses(drawn.keypoints[:, None], width, height, FPS), file)
        for variant in VARIANTS:
            strength = options.strength if variant == VARIANTS[0] else 0.0
            settings = {"placing": "crop", "smoothing": "none", "strength": strength, "guidance": options.guidance}
            task = PoseToVideo.for_model(card, text, index, clip="0" * 32, **settings)
            frames, _ = finish(followyourpose.generate(task, models, file))
            seen, found = asdict(referee.judge(frames).words), joints(frames, models)
            right, there = hits(found, drawn.keypoints, drawn.figure), found[..., 2] > 0
            yield {
                **{"variant": variant, "seen": index % 2 == 0},
                **{kind: seen[kind] == word for kind, word in asdict(words).items()},
                "pck": float(np.nanmean(right)),
                "found": float(there[drawn.keypoints[..., 2] > 0].mean()),
                "pck of found": float(np.nansum(right[there]) / max(1, np.isfinite(right[there]).sum())),
                "detector": float(np.nanmean(known)),
                "consistency": consistency(frames),
                "source": consistency(drawn.frames),
            }


def table(rows: list[dict]) -> str:
    names = [*VOCABULARY, "pck", "found", "pck of found", "consistency"]
    heads = [*VOCABULARY, "joints where they should be (PCK 0.1)", "joints found", "of these where they should be"]
    heads.append("frame consistency")
    lines = ["| variant | combinations | videos | " + " | ".join(heads) + " |", "|" + " --- |" * (3 + len(heads))]
    for variant in VARIANTS:
        for title, seen in (("seen", True), ("never seen", False)):
            group = [row for row in rows if row["variant"] == variant and row["seen"] == seen]
            if group:
                means = " | ".join(f"{np.mean([row[name] for row in group]):.1%}" for name in names)
                lines.append(f"| {variant} | {title} | {len(group)} | {means} |")
    drawn = [np.mean([row[name] for row in rows]) for name in ("detector", "source")]
    return "\n".join(lines) + "\n\nof the drawn clips: PCK {:.1%}, frame consistency {:.1%}".format(*drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, 100, "training/poses")
    parser.add_argument("--guidance", type=float, default=find("miniature-followyourpose").defaults.guidance)
    parser.add_argument("--strength", type=float, default=1.0)
    options = parser.parse_args()
    models, referee = ModelManager(CATALOG, Settings.from_environment()), Referee.load()
    score(lambda index: judge_video(index, models, referee, options), table, options)


if __name__ == "__main__":
    main()
