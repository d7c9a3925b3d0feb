"""Does it edit? Tunes on drawn clips, tells them again, and lets the referee and the pose detector judge.

    python -m scripts.score_edits
    python -m scripts.score_edits --shard 0/2 & python -m scripts.score_edits --shard 1/2 & wait

Every clip shows a combination of words and a motion that no miniature was trained on. In turn its clothes, its place
and its character are changed by the prompt; each edit is also made without tuning and without inversion.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np

from pipelines.catalog import CATALOG
from pipelines.media import video
from pipelines.model_tasks import TRAINED
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import tuneavideo, tuning
from pipelines.tasks import Edit, Tune
from scripts.miniature.captions import VOCABULARY, caption
from scripts.miniature.referee import Referee
from scripts.miniature.scoring import add_options, consistency, finish, hits, joints, score
from scripts.miniature.world import Clip, Words, draw_clip, sample_words

SEED = 9_000_000  # of clips that nothing was trained on
KINDS = ("colour", "place", "character")
VARIANTS = {  # name -> the number of tuning steps (None: the usual), and the strength of the edits
    "tuned, from the inverted clip": (None, 0.0),
    "not tuned": (0, 0.0),
    "from plain noise": (None, 1.0),
}


def judge_clip(index: int, models: ModelManager, referee: Referee, options: argparse.Namespace) -> Iterator[dict]:
    """Tunes on clip `index` and edits it; yields one record an edit."""
    card = CATALOG["miniature-sd"]
    rng = np.random.default_rng((SEED, index))
    words = sample_words(rng, held_out=True)
    drawn = draw_clip(words, rng)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        video.write(drawn.frames, clip, 8)
        there = joints(drawn.frames, models)
        found = hits(there, drawn.keypoints, drawn.figure) == 1  # the others would judge the detector
        yield judge("source", "", words, drawn.frames, drawn, found, models, referee) | {"seconds": 0}
        text = caption(words, rng)
        tuned = {}
        for name, steps in (("usual", options.steps), ("none", 0)):
            # Tuning has one step at least; with this learning rate it changes nothing to speak of.
            recipe = {"steps": steps, "learning_rate": options.rate} if steps else {"steps": 1, "learning_rate": 1e-6}
            task = Tune.for_model(card, text, index, clip="0" * 32, trained=options.trained, **recipe)
            tuned[name] = Path(folder) / name
            started = time.perf_counter()
            finish(tuning.generate(task, models, clip, tuned[name], Path(folder) / "source.mp4"))
            seconds = time.perf_counter() - started if steps else seconds  # noqa: F821  the usual comes first
        for kind in KINDS:
            others = [word for word in VOCABULARY[kind] if word != getattr(words, kind)]
            asked = replace(words, **{kind: str(rng.choice(others))})
            told = caption(asked, rng)
            # All edits as they are meant, and one a clip without the parts of the method.
            for variant, (steps, strength) in list(VARIANTS.items())[: None if kind == KINDS[index % 3] else 1]:
                shape = {"frames": 16, "width": 128, "height": 128, "fps": 8, "guidance": options.guidance}
                task = Edit.for_model(card, told, index, tuned="0" * 32, strength=strength, **shape)
                folder_ = tuned["none" if steps == 0 else "usual"]
                frames, _ = finish(tuneavideo.generate(task, models, folder_))
                verdict = judge(variant, kind, asked, frames, drawn, found, models, referee)
                yield verdict | {"seconds": seconds}


def judge(
    variant: str,
    kind: str,
    asked: Words,
    frames: np.ndarray,
    drawn: Clip,
    found: np.ndarray,
    models: ModelManager,
    referee: Referee,
) -> dict:
    """What the referee reads of `frames`, how many joints are where they are in the clip, and how alike frames are.

    Joints count that were `found` [F,18] in the clip itself.
    """
    seen = asdict(referee.judge(frames).words)
    right = {name: seen[name] == word for name, word in asdict(asked).items()}
    now = joints(frames, models)
    there = hits(now, drawn.keypoints, drawn.figure)
    return {
        **{"variant": variant, "kind": kind, "asked": asdict(asked), "seen": seen},
        "changed": right[kind] if kind else True,
        "kept": [right[name] for name in VOCABULARY if name != kind],
        "pck": float(there[found].mean()),
        "found": float(found[drawn.keypoints[..., 2] > 0].mean()),
        "found again": float((now[..., 2] > 0)[found].mean()),  # anywhere: less is the detector's fault as well
        "consistency": consistency(frames),
    }


def table(rows: list[dict]) -> str:
    head = (
        "| variant | edits | changed word holds | words left alone stay | motion kept (PCK 0.1) | frame consistency |"
    )
    lines = [head, "|" + " --- |" * 6]
    for variant in ("source", *VARIANTS):
        group = [row for row in rows if row["variant"] == variant]
        if group:
            values = [np.mean([row[name] for row in group]) for name in ("changed", "kept", "pck", "consistency")]
            lines.append(
                f"| {variant} | {len(group)} | " + " | ".join(f"{100 * value:.1f}%" for value in values) + " |"
            )
    seconds = [row["seconds"] for row in rows if row["variant"] != "source"]
    by_kind = {
        kind: np.mean(
            [row["changed"] for row in rows if row["kind"] == kind and row["variant"] == next(iter(VARIANTS))]
        )
        for kind in KINDS
    }
    lines += ["", f"tuning: {np.mean(seconds):.0f} s; changed, by kind: {by_kind}"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    recipe = CATALOG["miniature-sd"].tuning
    add_options(parser, 20, "training/edits")
    parser.add_argument("--steps", type=int, default=recipe.steps)
    parser.add_argument("--rate", type=float, default=recipe.learning_rate)
    parser.add_argument("--guidance", type=float, default=CATALOG["miniature-sd"].defaults.guidance)
    parser.add_argument("--trained", choices=TRAINED, default="all")
    options = parser.parse_args()
    models, referee = ModelManager(CATALOG, Settings.from_environment()), Referee.load()
    score(lambda index: judge_clip(index, models, referee, options), table, options)


if __name__ == "__main__":
    main()
