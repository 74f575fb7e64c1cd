"""Lengths of texts are those of the tokens that a round computes; without a tokenizer, an upper estimate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model.backbones.backbone import load_backbone
from model.prompts.lengths import Lengths, count_tokens, estimate_tokens
from model.prompts.tokens import PromptTokens
from model.types import Utterance
from tests.model.tiny import LABEL_SETS

TASK = LABEL_SETS["words that begin one another"]
TEXTS = [Utterance("word " * n) for n in (3, 30, 9, 300, 10)]


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_counted_lengths_are_those_of_the_token_ids(folders: dict[str, str], name: str) -> None:
    backbone = load_backbone(folders[name])
    tokens = PromptTokens(backbone.tokenizer, backbone.family, TASK, "definitions", 100)
    found, bodies = count_tokens(tokens, TEXTS), sorted(len(tokens.body(text)) for text in TEXTS)
    assert found.instruction == len(tokens.prefix)
    assert found.longest == bodies[-1]
    assert (found.typical, found.count, found.counted) == (bodies[2], 5, True)
    assert found.nodes == tokens.trie.nodes - 1
    leaves = set(range(1, tokens.trie.nodes)) - set(tokens.trie.parents.tolist())
    assert found.paths == len(leaves)


def test_estimated_lengths_grow_with_the_bytes_up_to_the_limit() -> None:
    found = estimate_tokens(TASK, "definitions", 100, TEXTS)
    assert not found.counted
    assert 100 < found.longest < 120
    assert found.longest == estimate_tokens(TASK, "definitions", 100, [Utterance("word " * 900)]).longest
    accented = estimate_tokens(TASK, "definitions", 1000, [Utterance("é" * 60)])
    assert accented.typical > estimate_tokens(TASK, "definitions", 1000, [Utterance("e" * 60)]).typical


def test_codes_are_labels_of_one_token() -> None:
    assert estimate_tokens(TASK, "codes", 100, TEXTS).nodes == 0
    assert estimate_tokens(TASK, "definitions", 100, TEXTS).nodes > 0


def test_without_utterances_usual_lengths_are_assumed() -> None:
    found, usual = estimate_tokens(TASK, "definitions", 100, []), Lengths()
    assert (found.longest, found.typical, found.count) == (usual.longest, usual.typical, 0)
    assert found == replace(found, counted=False)
