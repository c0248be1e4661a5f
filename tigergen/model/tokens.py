"""Prompts to token numbers and token weights, for the phrase tokenizer of the small presets and for CLIP's BPE.

A prompt is a list of phrases joined by ", ". The phrase tokenizer has one token a phrase; a BPE tokenizer has several,
and each piece carries its phrase's weight. Start, end, padding and separators carry weight 1.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kb.errors import UserError
from tigergen.model.weighting import phrase_weights

SEPARATOR = ", "
logger = logging.getLogger(__name__)
Roles = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Tokens:
    """Token numbers `ids` int64 [B, T] and attention weights `weights` float32 [B, T] of a batch of prompts."""

    ids: Tensor
    weights: Tensor


def phrase_tokenizer(phrases: Sequence[str], max_tokens: int = 32) -> Any:
    """Tokenizer in which each comma-separated phrase is one token; a `PreTrainedTokenizerFast` (save, load as usual).

    Raises UserError if a phrase holds a comma or is empty.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    for phrase in phrases:
        if not phrase.strip() or "," in phrase:
            raise UserError(f"vocabulary phrase {phrase!r} is empty or holds a comma; a prompt is split at commas")
    special = ["[PAD]", "[BOS]", "[EOS]", "[UNK]"]
    vocabulary = {token: number for number, token in enumerate([*special, *dict.fromkeys(phrases)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Strip()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s*,\s*"), behavior="removed")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[(token, vocabulary[token]) for token in ("[BOS]", "[EOS]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        unk_token="[UNK]",
        model_max_length=max_tokens,
    )


def split_phrases(prompt: str) -> list[str]:
    """The phrases of a prompt, in order, without surrounding blanks."""
    return [phrase for phrase in (part.strip() for part in prompt.split(",")) if phrase]


def join_prompts(fg: str, bg: str) -> str:
    """The U-Net's prompt: FG phrases, then BG phrases."""
    return SEPARATOR.join(part for part in (fg.strip(), bg.strip()) if part)


def encode(
    tokenizer: Any,
    prompts: Sequence[str],
    roles: Sequence[Roles] | None = None,
    tau: Mapping[str, float] | None = None,
) -> Tokens:
    """Encode prompts to [B, T] with T the tokenizer's `model_max_length`, and weigh their tokens (equations 9, 10).

    `roles` holds one list of (phrase, role) a prompt; without it every weight is 1. A phrase that has no role counts
    as common. `tau` holds the frequency of joint phrases. Every prompt is padded to the same length, because padding
    is attended to and an image must not depend on its batch. Phrases beyond the length are dropped whole, last first,
    with a warning. Raises UserError for a phrase that the tokenizer does not know.
    """
    if roles is not None and len(roles) != len(prompts):
        raise UserError(f"{len(prompts)} prompts but {len(roles)} lists of roles; give one list a prompt")
    length = tokenizer.model_max_length
    separator = _pieces(tokenizer, ",")
    known: dict[str, list[int]] = {}
    ids, weights = [], []
    for number, prompt in enumerate(prompts):
        phrases = split_phrases(prompt)
        by_phrase = _weights_of(phrases, roles[number], tau) if roles is not None else dict.fromkeys(phrases, 1.0)
        row, row_weights = [tokenizer.bos_token_id], [1.0]
        for position, phrase in enumerate(phrases):
            if phrase not in known:
                known[phrase] = _known_pieces(tokenizer, phrase)
            lead = separator if position else []
            if len(row) + len(lead) + len(known[phrase]) + 1 > length:
                logger.warning("prompt %d has more than %d tokens: kept %d phrases of %d", number, length, position,
                               len(phrases))  # fmt: skip
                break
            row += lead + known[phrase]
            row_weights += [1.0] * len(lead) + [by_phrase[phrase]] * len(known[phrase])
        padding = length - len(row) - 1
        ids.append([*row, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding])
        weights.append([*row_weights, 1.0, *[1.0] * padding])
    shape = (len(prompts), length)
    return Tokens(torch.tensor(ids).reshape(shape), torch.tensor(weights, dtype=torch.float32).reshape(shape))


def _weights_of(phrases: Sequence[str], roles: Roles, tau: Mapping[str, float] | None) -> dict[str, float]:
    role_of = dict(roles)
    return phrase_weights([(phrase, role_of.get(phrase, "common")) for phrase in phrases], tau)


def _pieces(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _known_pieces(tokenizer: Any, phrase: str) -> list[int]:
    pieces = _pieces(tokenizer, phrase)
    # CLIP's unknown token is its end token: a byte-level BPE never needs it, a phrase vocabulary does.
    if tokenizer.unk_token_id in pieces:
        raise UserError(f"phrase {phrase!r} is not in this model's vocabulary; train with it or leave it out")
    return pieces
