"""A round is numbered and promoted atomically, and its predictions are read as they were stored."""

from __future__ import annotations

import numpy as np
import pytest
from sqlite_utils import Database

from annotator.errors import ProjectDamaged
from store import queue, rounds
from store.database import fetch, fetch_value, immediate
from tests.store.rows import add_labels, add_utterances, begin_round, entries, predictions


def promote(db: Database, round_id: int) -> None:
    rounds.promote(db, round_id, f"round-{round_id:04d}", {"temperature": 1.5}, {"accuracy": 0.5}, peak_memory=7)


@pytest.mark.parametrize(("trained_on", "numbers"), [(0, [0, 1, 2]), (2, [1, 2, 3])])
def test_rounds_are_numbered_from_one_after_one_that_trains_on_nothing(
    db: Database, trained_on: int, numbers: list[int]
) -> None:
    found = [begin_round(db, [1], trained_on)]
    rounds.close(db, found[0].id, "failed")  # a number is never given twice
    found += [begin_round(db, [1]), begin_round(db, [1])]
    assert [row.number for row in found] == numbers
    assert [row.number for row in rounds.history(db)] == numbers[::-1]


def test_the_round_in_use_is_the_newest_promoted_one(db: Database) -> None:
    assert rounds.promoted(db) is None
    first, second, third = (begin_round(db, [1]) for _ in range(3))
    promote(db, second.id)
    promote(db, first.id)
    rounds.close(db, third.id, "cancelled")
    found = rounds.promoted(db)
    assert found is not None
    assert (found.id, found.folder) == (second.id, "round-0002")
    assert (found.calibration, found.metrics) == ({"temperature": 1.5}, {"accuracy": 0.5})
    assert (found.peak_memory, third.peak_memory) == (7, None)


def test_damage_to_one_value_of_a_round_leaves_the_others_readable(db: Database) -> None:
    promote(db, begin_round(db, [1, 2]).id)
    db.execute("UPDATE round SET metrics = '{\"accuracy\"'")
    found = rounds.promoted(db)
    assert found is not None
    assert (found.label_ids, found.calibration) == ((1, 2), {"temperature": 1.5})
    with pytest.raises(ProjectDamaged, match="the metrics of a round"):
        _ = found.metrics


def test_a_round_that_is_over_is_neither_promoted_nor_closed_again(db: Database) -> None:
    row = begin_round(db, [1])
    rounds.close(db, row.id, "failed")
    rounds.close(db, row.id, "cancelled")
    with pytest.raises(ValueError, match="not running"):
        promote(db, row.id)
    (found,) = rounds.history(db)
    assert found.state == "failed"


def test_a_promotion_that_breaks_off_leaves_nothing(db: Database) -> None:
    ids, label_ids = add_utterances(db, 4), add_labels(db)
    queue.replace(db, None, entries(ids[:2]))
    row = begin_round(db, label_ids)

    def break_off() -> None:
        with immediate(db):
            rounds.save_predictions(db, row.id, predictions(ids, label_ids))
            queue.replace(db, row.id, entries(ids[2:]))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert fetch_value(db, "SELECT count(*) FROM prediction") == 0
    assert queue.queued_ids(db) == set(ids[:2])
    assert rounds.promoted(db) is None
    promote(db, row.id)  # it is still running


def test_predictions_that_are_cut_short_are_not_kept_in_part(db: Database) -> None:
    ids, label_ids = add_utterances(db, 4), add_labels(db)
    row = begin_round(db, label_ids)
    whole = predictions([*ids, ids[0]], label_ids)  # the last one is there twice
    with pytest.raises(Exception, match="UNIQUE"):
        rounds.save_predictions(db, row.id, whole)
    assert fetch_value(db, "SELECT count(*) FROM prediction") == 0


def test_predictions_read_back_to_the_precision_of_float32(db: Database) -> None:
    ids, label_ids = add_utterances(db, 50), add_labels(db, 3)
    row = begin_round(db, label_ids)
    given = predictions(ids, label_ids)
    rounds.save_predictions(db, row.id, given)
    read = rounds.predictions_of(db, row)
    assert read.utterance_ids.tolist() == ids
    assert read.label_ids == tuple(label_ids)
    np.testing.assert_array_equal(read.probabilities, given.probabilities.astype(np.float32))
    np.testing.assert_array_equal(read.logits, given.logits.astype(np.float32))
    np.testing.assert_allclose(read.mass, np.log(np.exp(given.logits).sum(axis=1)), rtol=1e-6)
    stored = [r["mass"] for r in fetch(db, "SELECT mass FROM prediction ORDER BY utterance_id")]
    np.testing.assert_array_equal(stored, given.mass)


def test_predictions_of_some_utterances_are_those_rows_in_order_of_id(db: Database) -> None:
    ids, label_ids = add_utterances(db, 5), add_labels(db)
    row, other = begin_round(db, label_ids), begin_round(db, label_ids)
    given = predictions(ids, label_ids)
    rounds.save_predictions(db, row.id, given)
    rounds.save_predictions(db, other.id, predictions(ids, label_ids, seed=1))
    some = rounds.predictions_of(db, row, only=[ids[3], ids[1], 999])
    assert some.utterance_ids.tolist() == [ids[1], ids[3]]
    np.testing.assert_array_equal(some.logits, given.logits[[1, 3]].astype(np.float32))
    none = rounds.predictions_of(db, row, only=[])
    assert (none.probabilities.shape, none.mass.shape) == ((0, 2), (0,))
