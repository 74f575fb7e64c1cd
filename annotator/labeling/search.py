"""Finding utterances: by words, by a pattern, by what was answered and what the model says; and what is like one.

Texts are read through, not indexed: 200,000 take about half a second, and there is no second copy of them to keep.
"""

import heapq
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import regex

from annotator.errors import BadInput
from annotator.project import Project
from annotator.rounds.statuses import people_differ
from store import rounds, utterances
from store import search as rows
from store.search import Conditions

PATIENCE = 10.0  # seconds a pattern may take over all texts
WIDTH = 3  # characters in a piece of text that two texts may share
PIECES = 40  # of a text that others are looked through for, spread over all there are
COMPARED = 5_000  # texts compared closely: those that share most pieces


@dataclass(frozen=True)
class Search:
    """What is looked for. Every word must occur, in any order, upper and lower case aside; a pattern must match."""

    words: str = ""
    pattern: str = ""
    where: Conditions = field(default_factory=Conditions)

    def to_json(self) -> str:
        """Write as JSON, to be kept with what is done to the utterances found."""
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
            f"The pattern “{pattern}” is invalid: {error}.",
            "Put a \\ before a special character to search for it literally.",
        ) from error
    until = time.monotonic() + PATIENCE
    for utterance_id, text in found:
        try:
            hit = compiled.search(text, timeout=max(0.001, until - time.monotonic()))
        except TimeoutError as error:
            raise BadInput(
                f"The pattern “{pattern}” takes longer than {PATIENCE:.0f} seconds.",
                "Avoid nested repetitions such as (a+)+: they are slow.",
            ) from error
        if hit:
            yield utterance_id, text


def alike(project: Project, utterance_id: int, count: int = 10) -> list[tuple[int, float]]:
    """Return the utterances most like one, with their likeness from 0 to 1; exact copies of it are left out.

    The cosine of TF-IDF weights of pieces of two to four characters, so that other forms of a word count too. It is
    computed among the texts that share most pieces of three.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # here, so that the app opens without it

    (row,) = utterances.read(project.db, [utterance_id])
    own = row["text"].casefold()
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
