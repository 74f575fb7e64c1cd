"""Find texts that a tokenizer cannot spell, so that a model reads different ones alike. Needs no torch.

A tokenizer writes one token for all characters it does not know, or leaves them out.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

from model.backbones.fingerprint import newest_known, place_of
from model.backbones.foreign import BareErrors

_RARE = "龘𐍈🫠ሴ"
_VISIBLE = "LNPS"  # Unicode categories of letters, numbers, punctuation and symbols; others may be left out

Spell = Callable[[str], Sequence[int]]
"""Returns the token ids of a text, without special tokens."""


class Spelling:
    """Which texts a tokenizer spells. `unknown` is the id it reserves for characters it does not know, if any."""

    def __init__(self, spell: Spell, unknown: int | None = None) -> None:
        self._spell = spell
        self._left_out: dict[str, bool] = {}
        shared = set[int].intersection(*(set(spell(f"x{one}x")) for one in _RARE)) - set(spell("xx"))
        self.unknown = shared if unknown is None else shared | {unknown}

    @cached_property
    def is_complete(self) -> bool:
        """Whether all texts are spelled, as with a tokenizer that falls back to bytes; tried on rare characters."""
        return self._covers(_RARE)

    def covers(self, text: str) -> bool:
        """Return whether every character of a text is spelled."""
        return self.is_complete or set(text) <= self._common or self._covers(text)

    @cached_property
    def _common(self) -> set[str]:
        """The printable ASCII characters that are spelled, at the start of a word and within."""
        return {character for character in string.printable if self._covers(f"{character} x{character}x")}

    def _covers(self, text: str) -> bool:
        return not (self.unknown & set(self._spell(text)) or any(map(self._leaves_out, set(text))))

    def _leaves_out(self, character: str) -> bool:
        if character not in self._left_out:
            is_visible = unicodedata.category(character)[0] in _VISIBLE
            bare, written = (list(self._spell(text)) for text in ("xx", f"x{character}x"))
            self._left_out[character] = is_visible and bare == written
        return self._left_out[character]


def tokenizer_file(backbone: str, revision: str = "") -> Path | None:
    """Return the tokenizer file of a backbone on this machine; None if it is missing, or of another format."""
    folder = place_of(backbone, revision or newest_known(backbone))
    return folder / "tokenizer.json" if folder and (folder / "tokenizer.json").is_file() else None


def count_unspelled(file: Path, texts: Iterable[str]) -> int:
    """Count the texts that a tokenizer file cannot spell. Raises ValueError if it cannot be read."""
    from tokenizers import Tokenizer

    with BareErrors():
        tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()  # as some files set it
    spelling = Spelling(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    return 0 if spelling.is_complete else sum(not spelling.covers(text) for text in texts)
