"""Scores the paper theatre with its referee: does a video show what its caption asks for?

    python -m scripts.score_miniature --model miniature-modelscope --videos 200 --out training/score
    python -m scripts.score_miniature --reconstructions --vae training/vae --clips 200 --out training/score

The first generates videos as the app does, half of them of word combinations that training held back; the second sends
drawn clips through the autoencoder alone: what is lost there no video can show, and its flicker is the least there can
be. Verdicts are kept in the folder OUT; a run goes on where an earlier one stopped, and several processes can share the
work (--shard 0/2, --shard 1/2). Another model needs another folder.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pipelines  # noqa: F401  repairs torchvision before diffusers imports it  # isort: skip
import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from pipelines.catalog import CATALOG
from pipelines.models.folders import card_of_folder
from pipelines.models.manager import ModelManager
from pipelines.settings import Settings
from pipelines.systems import modelscope
from pipelines.systems.preview import to_uint8
from pipelines.tasks import TextToVideo
from scripts.miniature.captions import VOCABULARY, caption
from scripts.miniature.referee import Referee
from scripts.miniature.scoring import finish
from scripts.miniature.world import Words, draw_clip, sample_words

SEED = 7
SAMPLES = 8  # videos on the contact sheet
Maker = Callable[[Words, str, int, np.random.Generator], tuple[np.ndarray, dict[str, float]]]


def video_maker(model: str, steps: int | None) -> Maker:
    """Generates as the app does, with the model's own defaults; `model` is a name or a folder."""
    card = CATALOG.get(model) or card_of_folder(Path(model))
    models = ModelManager({card.name: card}, Settings.from_environment())
    settings = {} if steps is None else {"steps": steps}

    def make(words: Words, text: str, index: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float]]:
        frames, _ = finish(modelscope.generate(TextToVideo.for_model(card, text, index, **settings), models))
        return frames, {}

    return make


def reconstruction_maker(folder: Path) -> Maker:
    """Draws a clip and sends it through the autoencoder in `folder`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).to(device).eval()

    @torch.no_grad()
    def make(words: Words, text: str, index: int, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float]]:
        drawn = draw_clip(words, rng).frames
        images = torch.from_numpy(drawn).to(device).permute(0, 3, 1, 2) / 127.5 - 1
        restored = [vae.decode(vae.encode(image).latent_dist.mode()).sample[0] for image in images.split(1)]
        frames = to_uint8(torch.stack(restored).permute(0, 2, 3, 1)).cpu().numpy()
        error = np.square(frames.astype(np.float32) - drawn).mean()
        return frames, {"psnr": float(10 * np.log10(255**2 / error))}

    return make


def run(make: Maker, name: str, count: int, shard: tuple[int, int], out: Path) -> None:
    """Makes and judges those of `count` clips that fall to this shard and that no earlier run has judged."""
    (out / "samples").mkdir(parents=True, exist_ok=True)
    done = {record["index"] for record in records(out, name)}
    todo = [index for index in range(shard[0], count, shard[1]) if index not in done]
    referee = Referee.load()
    with (out / f"{name}-{shard[0]}.jsonl").open("a") as file:
        for index in tqdm(todo, name, mininterval=10):
            rng = np.random.default_rng((SEED, index))
            words = sample_words(rng, held_out=index % 2 == 1)
            text = caption(words, rng)
            frames, facts = make(words, text, index, rng)
            record = {"index": index, "caption": text, "seen": index % 2 == 0, "asked": asdict(words)}
            file.write(json.dumps(record | asdict(referee.judge(frames)) | facts) + "\n")
            file.flush()
            if index < SAMPLES:
                np.savez_compressed(out / "samples" / f"{name}-{index}.npz", frames=frames)


def records(out: Path, name: str) -> Iterator[dict]:
    for path in sorted(out.glob(f"{name}-*.jsonl")):
        yield from map(json.loads, path.read_text().splitlines())


def table(rows: list[dict]) -> str:
    """Shares of right words, seen and never-seen combinations apart, and the commonest mistakes."""
    numbers = [name for name in ("flicker", "motion", "psnr") if name in rows[0]]
    lines = ["| combinations | clips | " + " | ".join((*VOCABULARY, "all four", *numbers)) + " |"]
    lines.append("|" + " --- |" * lines[0][1:].count("|"))
    for name, seen in (("seen", True), ("never seen", False)):
        group = [row for row in rows if row["seen"] == seen]
        if group:
            right = np.array([[row["asked"][kind] == row["words"][kind] for kind in VOCABULARY] for row in group])
            shares = [f"{share:.1%}" for share in (*right.mean(axis=0), right.all(axis=1).mean())]
            means = [f"{np.mean([row[number] for row in group]):.2f}" for number in numbers]
            lines.append(f"| {name} | {len(group)} | " + " | ".join((*shares, *means)) + " |")
    pairs = ((row["asked"][kind], row["words"][kind]) for row in rows for kind in VOCABULARY)
    mistakes = Counter(f"{asked} -> {shown}" for asked, shown in pairs if asked != shown)
    lines += ["", "mistakes: " + (", ".join(f"{pair} ({times})" for pair, times in mistakes.most_common(12)) or "none")]
    return "\n".join(lines)


def contact_sheet(out: Path, name: str, side: int = 160, columns: int = 8) -> Image.Image | None:
    """A strip of frames under its caption for each of the first videos; None as long as one of them is missing."""
    captions = {row["index"]: row["caption"] for row in records(out, name)}
    if not all(index in captions for index in range(SAMPLES)):
        return None
    title = 26
    sheet = Image.new("RGB", (columns * side, SAMPLES * (side + title)), (250, 248, 244))
    for index in range(SAMPLES):
        frames = np.load(out / "samples" / f"{name}-{index}.npz")["frames"]
        top = index * (side + title)
        ImageDraw.Draw(sheet).text((8, top + 4), captions[index], (40, 40, 48), ImageFont.load_default(15))
        for column, at in enumerate(np.linspace(0, len(frames) - 1, columns).round().astype(int)):
            frame = Image.fromarray(frames[at]).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(frame, (column * side, top + title))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="miniature-modelscope", help="a name in the catalog, or a folder")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--steps", type=int, help="denoising steps, if not the model's default")
    parser.add_argument("--reconstructions", action="store_true", help="judge the autoencoder instead")
    parser.add_argument("--vae", type=Path, default=Path("training/vae"))
    parser.add_argument("--clips", type=int, default=200, help="clips to reconstruct")
    parser.add_argument("--shard", default="0/1", help="I/N: make every Nth clip from the Ith on")
    parser.add_argument("--out", type=Path, default=Path("training/score"))
    arguments = parser.parse_args()
    index, shards = map(int, arguments.shard.split("/"))
    if arguments.reconstructions:
        run(reconstruction_maker(arguments.vae), "reconstructions", arguments.clips, (index, shards), arguments.out)
    else:
        make = video_maker(arguments.model, arguments.steps)
        run(make, "videos", arguments.videos, (index, shards), arguments.out)
    for name in ("videos", "reconstructions"):
        if rows := list(records(arguments.out, name)):
            print(f"\n{name}\n\n{table(rows)}")
        if sheet := contact_sheet(arguments.out, name):
            sheet.save(arguments.out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
