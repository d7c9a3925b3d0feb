"""The miniatures' tokenizer: CLIP's own kind, trained on what is said in a paper theatre."""

import json
import pydoc_data.topics
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizerFast

from .captions import caption
from .world import sample_words


def train_tokenizer(folder: Path, seed: int) -> None:
    """Trains CLIP's kind of tokenizer, byte-level BPE with an end-of-word mark, on captions and plain English.

    The English is the documentation that comes with Python; it makes words that no caption holds short enough.
    """
    rng = np.random.default_rng(seed)
    captions = [caption(sample_words(rng, None), rng) for _ in range(20_000)]
    english = "\n".join(pydoc_data.topics.topics.values()).splitlines()
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    word = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""  # CLIP's own pattern
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(word), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1536, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator([*captions, *english], trainer)
    learned = json.loads(bpe.to_str())["model"]
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += [token for token in sorted(learned["vocab"], key=learned["vocab"].get) if token not in set(tokens)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    merges = [tuple(merge) for merge in learned["merges"]]
    CLIPTokenizerFast(
        vocab={token: index for index, token in enumerate(tokens)}, merges=merges, model_max_length=77
    ).save_pretrained(folder)
