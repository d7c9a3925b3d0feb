"""Counting tokens without transformers: the same as with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from pipelines.catalog import MINIATURES
from pipelines.models import tokens

NEW = MINIATURES / "sd" / "tokenizer"  # tokenizer.json


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """The same tokenizer as older libraries saved it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    model = json.loads((NEW / "tokenizer.json").read_text())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return folder


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a robot in blue waving on the beach",
        "Don't   WAVE, I'll dance!!! 12345 ... don't",
        "ünïcödé é e\u0301 漢字 🤖\u200b ß İ",
        "<|endoftext|> and <|startoftext|>",
        "a bear wearing green jumps in the snow, " * 30,
        "🤖é" * 60,
        "x" * 2000,
    ],
)
def test_counts_and_cuts_as_transformers_does(old, prompt):
    theirs = CLIPTokenizer.from_pretrained(NEW)(prompt, return_offsets_mapping=True, verbose=False)
    count = len(theirs.input_ids)
    cut = prompt[theirs.offset_mapping[tokens.MAX_TOKENS - 1][0] :] if count > tokens.MAX_TOKENS else ""
    for folder in (NEW, old):
        tokenizer = tokens.tokenizer_of(folder)
        assert tokenizer.encode(prompt, add_special_tokens=False).ids == theirs.input_ids[1:-1]
        assert tokens.report(prompt, tokenizer, tokens.MAX_TOKENS) == (count, cut)


def test_the_limit_is_exact():
    tokenizer = tokens.tokenizer_of(NEW)
    for words, cut in ((75, ""), (76, "a"), (77, "a a")):
        assert tokens.report(" ".join(["a"] * words), tokenizer, tokens.MAX_TOKENS) == (words + 2, cut)


def test_it_needs_neither_torch_nor_transformers():
    imports = "import sys; from pathlib import Path; from pipelines.models import tokens"
    script = f"{imports}; tokens.tokenizer_of(Path({str(NEW)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; print(len({{'torch', 'transformers'}} & set(sys.modules)))"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "0", done.stderr
