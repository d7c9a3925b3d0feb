"""Does it go on from an image? Makes videos with the small TempoFunk and judges them.

    python -m scripts.score_hints
    python -m scripts.score_hints --shard 0/2 & python -m scripts.score_hints --shard 1/2 & wait

Every video is asked for three times: by its prompt alone; with an image, the first picture of a clip that was drawn for
nobody else; and with that image and a mask over its dancer, where the prompt names other clothes than the image shows.
Half of them have a combination of words that training held back.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import cv2
import numpy as np
from PIL import Image

from pipelines.catalog import CATALOG, find
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import tempofunk
from pipelines.systems.metrics import motion_magnitude
from pipelines.tasks import TextToVideo
from scripts.miniature.captions import VOCABULARY, caption
from scripts.miniature.referee import Referee
from scripts.miniature.scoring import add_options, consistency, finish, score
from scripts.miniature.world import COLOURS, Words, draw_clip, sample_words

SEED = 10_000_000  # of clips that nothing was trained on
VARIANTS = ("no image", "image", "image and mask")


def judge_video(index: int, models: ModelManager, referee: Referee, options: argparse.Namespace) -> Iterator[dict]:
    """Makes and judges video `index`: one record a variant."""
    card = find("miniature-tempofunk")
    rng = np.random.default_rng((SEED, index))
    words = sample_dance(rng, held_out=index % 2 == 1)
    drawn = draw_clip(words, rng)
    other = replace(words, colour=str(rng.choice([colour for colour in COLOURS if colour != words.colour])))
    with tempfile.TemporaryDirectory() as folder:
        image, mask = Path(folder) / "image.png", Path(folder) / "mask.png"
        Image.fromarray(drawn.frames[0]).save(image)
        Image.fromarray(cv2.dilate(drawn.figure[0], np.ones((25, 25), np.uint8))).save(mask)
        for variant, asked, files in zip(VARIANTS, (words, words, other), ((), (image,), (image, mask)), strict=True):
            names = dict(zip(("image", "mask"), ("0" * 32 for _ in files), strict=False))
            settings = {"guidance": options.guidance, **names}
            task = TextToVideo.for_model(card, caption(asked, rng), index, **settings)
            frames, _ = finish(tempofunk.generate(task, models, *files))
            seen = asdict(referee.judge(frames).words)
            first = frames[0].astype(np.float32) - drawn.frames[0]
            yield {
                **{"variant": variant, "seen": index % 2 == 0},
                **{kind: seen[kind] == word for kind, word in asdict(asked).items()},
                "motion": motion_magnitude(frames),
                "source motion": motion_magnitude(drawn.frames),
                "consistency": consistency(frames),
                "psnr": float(10 * np.log10(255**2 / np.square(first).mean())),
            }


def sample_dance(rng: np.random.Generator, held_out: bool) -> Words:
    while (words := sample_words(rng, held_out=held_out)).action != "dancing":
        pass
    return words


def table(rows: list[dict]) -> str:
    shares = [*VOCABULARY, "consistency"]
    heads = [*VOCABULARY, "frame consistency", "motion", "stillest", "first frame to the image, dB"]
    lines = ["| variant | combinations | videos | " + " | ".join(heads) + " |", "|" + " --- |" * (3 + len(heads))]
    for variant in VARIANTS:
        for title, seen in (("seen", True), ("never seen", False)):
            group = [row for row in rows if row["variant"] == variant and row["seen"] == seen]
            if group:
                means = [f"{np.mean([row[name] for row in group]):.1%}" for name in shares]
                moved = [row["motion"] for row in group]
                means += [f"{number:.1f}" for number in (np.mean(moved), np.min(moved))]
                means.append(f"{np.mean([row['psnr'] for row in group]):.1f}")
                lines.append(f"| {variant} | {title} | {len(group)} | " + " | ".join(means) + " |")
    moved = [row["source motion"] for row in rows]
    return "\n".join(lines) + f"\n\nof the drawn clips: motion {np.mean(moved):.1f}, stillest {np.min(moved):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidance", type=float, default=find("miniature-tempofunk").defaults.guidance)
    add_options(parser, 100, "training/hints")
    options = parser.parse_args()
    models, referee = ModelManager(CATALOG, Settings.from_environment()), Referee.load()
    score(lambda index: judge_video(index, models, referee, options), table, options)


if __name__ == "__main__":
    main()
