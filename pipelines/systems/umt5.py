"""UMT5 (Chung et al., 2023, "UniMax") as Wan reads prompts with it: larger than all the rest of a model together."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from pipelines.models.text_states import TextStates
from pipelines.tasks import PoseToVideo, TextToVideo

if TYPE_CHECKING:
    from pipelines.models.manager import ModelManager

MAX_TOKENS = 512  # the mark at the end included
READ = 1  # to be raised whenever `encode` changes, so that older states are not used


def read(texts: list[str], task: TextToVideo | PoseToVideo, models: "ModelManager") -> Tensor:
    """The states of `texts`, on the device: (texts, 512, c).

    UMT5-XXL is larger than all the rest of a model together: it is leased only where one of them was not read before by
    the same weights, given back before the transformer comes, and stays on the CPU where the device is too small.
    """
    part = models.faster("text_encoder") if task.precision == "fast" else "text_encoder"
    tokenizer_name, encoder_name = f"{task.model}/tokenizer", f"{task.model}/{part}"
    keys = models.key(tokenizer_name), models.key(encoder_name), models.empty(encoder_name).dtype, models.device.type
    kept = TextStates(models.settings, f"{READ}, {', '.join(map(str, keys))}", MAX_TOKENS)
    states = {text: found for text in texts if (found := kept.get(text)) is not None}
    if missing := [text for text in dict.fromkeys(texts) if text not in states]:
        with (
            models.lease(tokenizer_name) as tokenizer,
            models.lease(encoder_name, working_bytes=2**28, anywhere=True) as encoder,
        ):
            for text in missing:
                states[text] = encode([text], tokenizer, encoder)[0].cpu()
                kept.keep(text, states[text])
    return torch.stack([states[text] for text in texts]).to(models.device)


def encode(texts: list[str], tokenizer: PreTrainedTokenizerBase, encoder: UMT5EncoderModel) -> Tensor:
    """UMT5's last hidden states of each text cut to 512 tokens, zeros after its end: (texts, 512, c).

    Only as many tokens are computed as the longest text has; those that pad the others are masked.
    """
    tokens = tokenizer(texts, return_tensors="pt", padding="longest", truncation=True, max_length=MAX_TOKENS)
    tokens = tokens.to(encoder.device)
    states = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    states = states * tokens.attention_mask[..., None]
    return F.pad(states, (0, 0, 0, MAX_TOKENS - states.shape[1]))  # (texts, 512, c)


# Loading


def build(config: dict[str, Any]) -> UMT5EncoderModel:
    """With one table of words under its two names."""
    encoder = UMT5EncoderModel(UMT5Config.from_dict(config))
    encoder.encoder.embed_tokens = encoder.shared
    return encoder


def with_words(encoder: UMT5EncoderModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Files hold the table of words once."""
    return weights | {"encoder.embed_tokens.weight": weights["shared.weight"]}
