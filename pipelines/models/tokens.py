"""Counts the tokens of a prompt while it is being typed: without torch and without transformers."""

from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

MAX_TOKENS = 77  # of CLIP, its two marks included
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`: from tokenizer.json, or CLIP's as older libraries saved it, vocab.json and
    merges.txt."""
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    tokenizer = Tokenizer(BPE.from_file(*files, unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    special = [(token, tokenizer.token_to_id(token)) for token in ("<|startoftext|>", "<|endoftext|>")]
    tokenizer.post_processor = processors.TemplateProcessing("<|startoftext|> $A <|endoftext|>", None, special)
    return tokenizer


def report(prompt: str, tokenizer: Tokenizer, most: int) -> tuple[int, str]:
    """How many tokens `prompt` is, special ones included, and the end of it that is beyond `most` ("" for none)."""
    encoded = tokenizer.encode(prompt, add_special_tokens=False)
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    read = most - special
    cut = prompt[encoded.offsets[read][0] :] if len(encoded) > read else ""
    return len(encoded) + special, cut
