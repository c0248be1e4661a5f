"""Phrases to tokens and weights, word-level and BPE."""

import json
import logging

import pytest
import torch
from transformers import AutoTokenizer, CLIPTokenizer

from kb.errors import UserError
from tigergen.model.tokens import encode, join_prompts, phrase_tokenizer, split_phrases

PHRASES = ["FTC", "irregular margin", "irregular shape", "solid", "transverse plane"]
ROLES = [[("FTC", "particular"), ("irregular margin", "joint"), ("solid", "common")]]
HIGH, JOINT, LOW = 3.1, 1.5121, 0.6335


@pytest.fixture(scope="module")
def words():
    return phrase_tokenizer(PHRASES, max_tokens=8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP BPE tokenizer that merges "so" and "lid" and knows every letter."""
    folder = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz,"
    merges = ["s o", "l i", "li d</w>", "so lid</w>", "f t"]
    pieces = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=48)


def test_one_phrase_is_one_token(words) -> None:
    tokens = encode(words, ["FTC, irregular margin, solid", "irregular shape"])
    names = [words.convert_ids_to_tokens(row) for row in tokens.ids.tolist()]
    assert names[0] == ["[BOS]", "FTC", "irregular margin", "solid", "[EOS]", "[PAD]", "[PAD]", "[PAD]"]
    assert names[1] == ["[BOS]", "irregular shape", "[EOS]"] + ["[PAD]"] * 5


def test_word_level_weights_follow_roles_and_special_tokens_keep_one(words) -> None:
    tokens = encode(words, ["FTC, irregular margin, solid"], ROLES, {"irregular margin": 0.3})
    expected = torch.tensor([[1, HIGH, JOINT, LOW, 1, 1, 1, 1]])
    assert torch.allclose(tokens.weights, expected, atol=1e-4)


def test_a_phrase_without_a_role_is_common_and_an_unseen_joint_phrase_counts_as_rare(words) -> None:
    tokens = encode(words, ["irregular shape, solid"], [[("irregular shape", "joint")]])
    assert torch.allclose(tokens.weights[0, 1:3], torch.tensor([HIGH, LOW]), atol=1e-4)


def test_without_roles_every_weight_is_one(words) -> None:
    assert encode(words, ["FTC, solid", ""]).weights.eq(1).all()


@pytest.mark.parametrize("kind", ["words", "clip"])
@pytest.mark.parametrize("prompt", ["FTC, irregular margin, solid", "solid", "", "solid,  FTC"])
def test_ids_equal_those_of_the_tokenizer_itself(kind, prompt, request) -> None:
    tokenizer = request.getfixturevalue(kind)
    own = tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(encode(tokenizer, [prompt]).ids, own)


def test_a_phrase_spreads_its_weight_over_its_bpe_pieces(clip) -> None:
    tokens = encode(clip, ["FTC, irregular margin, solid"], ROLES, {"irregular margin": 0.3})
    comma = clip(",", add_special_tokens=False).input_ids
    weights = {}
    for phrase, weight in (("FTC", HIGH), ("irregular margin", JOINT), ("solid", LOW)):
        weights[phrase] = [weight] * len(clip(phrase, add_special_tokens=False).input_ids)
    assert len(weights["irregular margin"]) > 2 and len(weights["solid"]) == 1
    expected = [1.0, *weights["FTC"], 1.0, *weights["irregular margin"], 1.0, *weights["solid"]]
    assert tokens.ids[0, len(weights["FTC"]) + 1].item() == comma[0]
    assert torch.allclose(tokens.weights[0, : len(expected)], torch.tensor(expected), atol=1e-4)
    assert tokens.weights[0, len(expected) :].eq(1).all()


def test_an_unknown_phrase_is_a_user_error(words) -> None:
    with pytest.raises(UserError, match="'taller than wide'"):
        encode(words, ["FTC, taller than wide"])


def test_phrases_with_commas_cannot_enter_a_vocabulary() -> None:
    with pytest.raises(UserError, match="comma"):
        phrase_tokenizer(["solid, cystic"])


def test_too_many_roles_is_a_user_error(words) -> None:
    with pytest.raises(UserError, match="1 prompts but 2"):
        encode(words, ["FTC"], [[], []])


def test_a_long_prompt_loses_whole_phrases_from_its_end_and_says_so(words, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        ids = encode(words, [", ".join(["FTC"] * 5 + ["solid"] * 5)]).ids
    assert words.convert_ids_to_tokens(ids[0].tolist()) == ["[BOS]"] + ["FTC"] * 5 + ["solid", "[EOS]"]
    assert "6 phrases of 10" in caplog.text


def test_save_and_load_give_the_same_tokens(words, tmp_path) -> None:
    words.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert torch.equal(encode(again, ["FTC, solid"]).ids, encode(words, ["FTC, solid"]).ids)


def test_prompts_split_and_join() -> None:
    assert split_phrases(" solid ,FTC,, ") == ["solid", "FTC"]
    assert [join_prompts("a", "b"), join_prompts("a", ""), join_prompts("", "b")] == ["a, b", "a", "b"]
