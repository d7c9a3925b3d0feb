"""The tokenizer and the text encoder that all miniatures share."""

import argparse
import copy

import torch
from accelerate import Accelerator
from transformers import CLIPTextModel, CLIPTokenizerFast

from scripts.miniature import data, networks
from scripts.miniature.captions import VOCABULARY, caption
from scripts.miniature.tokenizer import train_tokenizer

from .loop import SEED, go_on_from, train


class TextTrainer(torch.nn.Module):
    """Teaches the text encoder to say all four words at the end of the text and at every position after it.

    A picture shows little of an action, and a text encoder trained with pictures leaves it out; what the UNets attend
    to most is the padding. Every word has its own fixed direction among the states; a caption's states are classified
    by their products with them.
    """

    def __init__(self, text_encoder: CLIPTextModel, start: CLIPTextModel | None):
        super().__init__()
        self.text_encoder = text_encoder
        self.start = [start]  # in a list: not a part
        words = sum(map(len, VOCABULARY.values()))
        self.register_buffer("directions", torch.nn.init.orthogonal_(torch.empty(words, networks.TEXT_WIDTH)))

    def forward(self, ids: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """ids [B,77]; words [B,4], indices into the four vocabularies."""
        states = self.text_encoder(ids).last_hidden_state.float()
        after = ids == self.text_encoder.config.pad_token_id  # (B, 77): the end of the text, and its padding
        logits = (states[after] @ self.directions.T).split([len(options) for options in VOCABULARY.values()], dim=1)
        labels = words[:, None].expand(-1, ids.shape[1], -1)[after].unbind(1)
        loss = sum(map(torch.nn.functional.cross_entropy, logits, labels))
        if self.start[0]:  # the UNets to go on from know these states
            with torch.no_grad():
                known = self.start[0](ids).last_hidden_state
            loss = loss + 2 * (states - known).square().mean()
        return loss


def train_text(accelerator: Accelerator, arguments: argparse.Namespace) -> None:
    work, device = arguments.work, accelerator.device
    if accelerator.is_main_process:
        if arguments.start:
            CLIPTokenizerFast.from_pretrained(arguments.start / "sd" / "tokenizer").save_pretrained(work / "tokenizer")
        else:
            train_tokenizer(work / "tokenizer", SEED)
    accelerator.wait_for_everyone()
    tokenizer = CLIPTokenizerFast.from_pretrained(work / "tokenizer")
    text_encoder = networks.text_encoder(len(tokenizer))
    go_on_from(arguments.start, "sd/text_encoder", text_encoder)
    trainer = TextTrainer(text_encoder, copy.deepcopy(text_encoder).to(device) if arguments.start else None)
    drawn = data.load_words(work / "clips")
    index = {kind: {word: i for i, word in enumerate(options)} for kind, options in VOCABULARY.items()}

    def loss_of(trainer, step, rng):
        words = [drawn[clip] for clip in rng.integers(0, len(drawn), 64)]
        labels = torch.tensor([[index[kind][getattr(each, kind)] for kind in VOCABULARY] for each in words])
        return trainer(tokenize(tokenizer, [caption(each, rng) for each in words]).to(device), labels.to(device))

    train(accelerator, "text", trainer, loss_of, arguments.text_steps, {"": 1e-3}, work)
    if accelerator.is_main_process:
        text_encoder.save_pretrained(work / "text_encoder")
    accelerator.wait_for_everyone()


def tokenize(tokenizer: CLIPTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Token ids [B,77]."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
