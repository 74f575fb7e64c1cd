"""Test how probabilities of a round pass to the labels in use after changes of the codebook."""

from __future__ import annotations

import numpy as np
from sqlite_utils import Database

from store import labels
from store.labels import Change
from tests.store.rows import add_labels


def retire(db: Database, label: int) -> None:
    labels.write(db, Change("retire", {label: {"retired_at": "2026-01-01"}}))


def test_a_retired_label_passes_to_labels_that_the_round_knows_and_to_no_newer_one(db: Database) -> None:
    first, second, third = add_labels(db, 3)
    retire(db, first)
    newer = labels.add(db, "newer")
    used, passed = labels.shares(db, (first, second, third))
    assert used == (second, third, newer)
    np.testing.assert_allclose(passed, [[0.5, 0.5, 0], [1, 0, 0], [0, 1, 0]])


def test_a_merged_label_passes_whole_and_a_split_one_evenly_to_its_parts(db: Database) -> None:
    first, second, third = add_labels(db, 3)
    labels.write(db, Change("merge", {first: {"merged_into": second}}))
    parts = [labels.add(db, name, split_from=third) for name in ("part", "other part")]
    retire(db, third)
    used, passed = labels.shares(db, (first, second, third))
    assert used == (second, *parts)
    np.testing.assert_allclose(passed, [[1, 0, 0], [1, 0, 0], [0, 0.5, 0.5]])


def test_where_a_round_knows_no_label_in_use_all_are_equally_likely(db: Database) -> None:
    (first, second) = add_labels(db)
    new = [labels.add(db, name) for name in ("new", "newer")]
    for label in (first, second):
        retire(db, label)
    used, passed = labels.shares(db, (first, second))
    assert used == tuple(new)
    np.testing.assert_allclose(passed, np.full((2, 2), 0.5))
