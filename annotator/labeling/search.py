"""Search for utterances by words, pattern, answers and predictions, and find similar utterances.

Texts are scanned, not indexed: 200,000 take about half a second, and no second copy has to be stored.
"""

import heapq
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import regex

from annotator.errors import BadInput, Message
from annotator.project import Project
from annotator.rounds.statuses import people_differ
from store import rounds, utterances
from store import search as rows
from store.search import Conditions

PATIENCE = 10.0  # seconds that a pattern may take over all texts
WIDTH = 3  # characters per n-gram in the first pass
PIECES = 40  # n-grams of a text compared in the first pass, spread over the text
COMPARED = 5_000  # texts compared in the second pass: those that share most n-grams


@dataclass(frozen=True)
class Search:
    """Search conditions. All words must occur, in any order and case; the pattern must match."""

    words: str = ""
    pattern: str = ""
    where: Conditions = field(default_factory=Conditions)

    def to_json(self) -> str:
        """Return the search as JSON, to be stored with a bulk answer."""
        return json.dumps(asdict(self), ensure_ascii=False)


def find(project: Project, search: Search) -> list[int]:
    """Return the utterances found, in import order. Raises BadInput for a pattern that is wrong or takes too long."""
    found = rows.candidates(project.db, search.where, rounds.promoted(project.db))
    if search.where.quarrel == "people":
        differ = set(people_differ(project))
        found = (row for row in found if row[0] in differ)
    if search.words.strip():
        found = _with_words(found, search.words)
    if search.pattern:
        found = _matching(found, search.pattern)
    return [utterance_id for utterance_id, _ in found]


def _with_words(found: Iterator[tuple[int, str]], words: str) -> Iterator[tuple[int, str]]:
    wanted = words.casefold().split()
    for utterance_id, text in found:
        plain = text.casefold()
        if all(word in plain for word in wanted):
            yield utterance_id, text


def _matching(found: Iterator[tuple[int, str]], pattern: str) -> Iterator[tuple[int, str]]:
    try:
        compiled = regex.compile(pattern, regex.IGNORECASE)
    except regex.error as error:
        raise BadInput(
            Message("The pattern “{pattern}” is invalid: {error}.", pattern=pattern, error=error),
            "Put a \\ before a special character to search for it literally.",
        ) from error
    until = time.monotonic() + PATIENCE
    for utterance_id, text in found:
        try:
            hit = compiled.search(text, timeout=max(0.001, until - time.monotonic()))
        except TimeoutError as error:
            raise BadInput(
                Message(
                    "The pattern “{pattern}” takes longer than {patience:.0f} seconds.",
                    pattern=pattern,
                    patience=PATIENCE,
                ),
                "Avoid nested repetitions such as (a+)+: they are slow.",
            ) from error
        if hit:
            yield utterance_id, text


def alike(project: Project, utterance_id: int, count: int = 10) -> list[tuple[int, float]]:
    """Return the utterances most similar to one, with similarities from 0 to 1; exact copies are left out.

    The similarity is the cosine of TF-IDF weights of character n-grams of length 2 to 4, so that inflected words match.
    It is computed for the texts that share most trigrams.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # here, so that the app starts without it

    (row,) = utterances.read(project.db, [utterance_id])
    own = row.text.casefold()
    pieces = sorted({own[i : i + WIDTH] for i in range(max(1, len(own) - WIDTH + 1))})
    pieces = pieces[:: -(-len(pieces) // PIECES)]
    others = ((i, text.casefold()) for i, text in rows.candidates(project.db, Conditions(), None) if i != utterance_id)
    near = heapq.nlargest(COMPARED, ((sum(p in text for p in pieces), i, text) for i, text in others if text != own))
    if not near or not own.strip():
        return []
    weights = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit_transform([own, *(text for *_, text in near)])
    likeness = (weights[1:] @ weights[0].T).toarray().ravel()
    best = sorted(zip(likeness.tolist(), (i for _, i, _ in near), strict=True), key=lambda pair: (-pair[0], pair[1]))
    return [(i, share) for share, i in best[:count] if share > 0]
