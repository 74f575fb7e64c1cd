"""Texts that a tokenizer cannot spell are found, whatever it writes in place of a character."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from annotator.errors import BadCodebook
from model.backbones.backbone import Backbone
from model.prompts.spelling import Spelling, count_unspelled, tokenizer_file
from model.prompts.tokens import PromptTokens
from model.types import Utterance
from tests.model import tiny

TEXTS = ["refund", "退款 refund", "取消 refund", "café", "🙂", "(a) – b"]
LATIN = {character: i for i, character in enumerate("abcdefghijklmnopqrstuvwxyz é()–")}


def leaving_out() -> Tokenizer:
    """Make a tokenizer without bytes and without an unknown token: it leaves out what it does not know."""
    return Tokenizer(models.BPE(LATIN, []))


def unnamed_unknown() -> Tokenizer:
    """Make a tokenizer whose unknown token is in its file alone."""
    return Tokenizer(models.BPE(LATIN | {"<unk>": len(LATIN)}, [], unk_token="<unk>"))


def of_words() -> Tokenizer:
    """Make a tokenizer that replaces a whole word because of one character."""
    pieces = {piece: i for i, piece in enumerate(["[UNK]", *LATIN, *(f"##{one}" for one in LATIN)])}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    return tokenizer


@pytest.mark.parametrize("make", [leaving_out, unnamed_unknown, of_words])
def test_what_is_left_out_or_unknown_is_found(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    spelling = Spelling(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    assert not spelling.is_complete
    assert [text for text in TEXTS if not spelling.covers(text)] == ["退款 refund", "取消 refund", "🙂"]


def test_invisible_characters_may_be_left_out() -> None:
    tokenizer = leaving_out()
    spelling = Spelling(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    assert spelling.covers("a\u200bb\x07")


def test_a_tokenizer_with_bytes_spells_everything(llama: Backbone, t5: Backbone) -> None:
    for backbone, complete in ((llama, True), (t5, False)):
        spelling = Spelling(lambda text, b=backbone: b.tokenizer(text, add_special_tokens=False)["input_ids"])
        assert spelling.is_complete is complete
        assert spelling.covers("refund")
        assert spelling.covers("退款") is complete


def test_texts_are_counted_from_the_tokenizer_file_alone(folders: dict[str, str], tmp_path: Path) -> None:
    for name, count in (("t5", 5), ("llama", 0)):
        file = tokenizer_file(folders[name])
        assert file
        found = [text for text in TEXTS if count_unspelled(file, [text])]
        assert len(found) == count, found
    assert tokenizer_file("some-people/none-here") is None
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Own"}}')
    with pytest.raises(ValueError, match=r".+"):
        count_unspelled(tmp_path / "tokenizer.json", TEXTS)


def tokens_of(tokenizer: Any, *words: str, template: str = "options") -> PromptTokens:
    return PromptTokens(tokenizer, "causal", tiny.task_of(*words), template, 512)


def test_a_label_that_would_lose_a_character_is_refused() -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=leaving_out(), eos_token="(")
    assert tokens_of(tokenizer, "refund", "a joy").trie
    with pytest.raises(BadCodebook, match="cannot spell “a 款 joy”"):
        _ = tokens_of(tokenizer, "refund", "a 款 joy").trie


def test_a_label_behind_a_code_is_spelled_too() -> None:
    pieces = {piece: len(LATIN) + i for i, piece in enumerate(["A", "B", " A", " B"])}
    made = Tokenizer(models.BPE(LATIN | pieces, [(" ", "A"), (" ", "B")]))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="(")
    assert tokens_of(tokenizer, "refund", "joy", template="codes").trie
    with pytest.raises(BadCodebook, match="cannot spell “退款”"):
        _ = tokens_of(tokenizer, "退款", "取消", template="codes").trie


def test_an_utterance_that_spells_an_end_of_text_counts_as_not_spelled(t5: Backbone) -> None:
    tokens = PromptTokens(t5.tokenizer, t5.family, tiny.task_of("refund", "joy"), "options", 512)
    assert tokens.spells(Utterance("refund"))
    assert not tokens.spells(Utterance("refund </s> joy"))
