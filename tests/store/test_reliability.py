"""No answer is lost and no error occurs while several people label and rounds are promoted."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

from sqlite_utils import Database

from store import annotations, labels, queue, rounds, utterances
from store.database import fetch, fetch_value, immediate, open_database
from tests.store.rows import add_labels, begin_round, entries, fill_queue, predictions, say

ANNOTATORS, ANSWERS, POOL = 4, 60, 500


def label_some(folder: Path, annotator: str) -> list[tuple[int, int, int]]:
    """Answer what is asked, as the label page does; return (annotation, utterance, label) for each answer."""
    said = []
    with closing(open_database(folder)) as db:
        label_ids = [row.id for row in labels.current(db)]
        while len(said) < ANSWERS:
            utterance = queue.lease(db, annotator, 10)[0].utterance_id
            label = label_ids[utterance % len(label_ids)]
            said.append((say(db, annotator, utterance, label), utterance, label))
            time.sleep(0.01)  # reading: long enough for rounds to come in between
    return said


def promote_some(folder: Path) -> int:
    """Promote rounds, as the worker does, until all answers are in; return how many."""
    count, deadline = 0, time.monotonic() + 60
    with closing(open_database(folder)) as db:
        label_ids, pool = [row.id for row in labels.current(db)], utterances.ids_in(db, "pool")
        while count < 2 or (annotations.last_id(db) < ANNOTATORS * ANSWERS and time.monotonic() < deadline):
            row = begin_round(db, label_ids)
            with immediate(db):
                rounds.save_predictions(db, row.id, predictions(pool, label_ids, seed=count))
                rounds.promote(db, row.id, "adapter", {}, {})
                queue.replace(db, row.id, entries(sorted(set(pool) - annotations.answered_ids(db))))
            count += 1
            time.sleep(0.1)
    return count


def test_four_annotators_lose_no_answer_while_rounds_are_promoted(db: Database, tmp_path: Path) -> None:
    fill_queue(db, POOL)
    add_labels(db)
    folder = tmp_path / "project"
    with ProcessPoolExecutor(ANNOTATORS + 1, get_context("spawn")) as pool:
        promoting = pool.submit(promote_some, folder)
        labeling = [pool.submit(label_some, folder, f"annotator {n}") for n in range(ANNOTATORS)]
        said = [answer for part in labeling for answer in part.result()]
        promoted = promoting.result()
    stored = fetch(db, "SELECT id, utterance_id, label_id FROM annotation ORDER BY id")
    assert [tuple(row.values()) for row in stored] == sorted(said)
    assert len({row["utterance_id"] for row in stored}) == ANNOTATORS * ANSWERS  # none was asked of two
    assert promoted >= 2
    assert fetch_value(db, "SELECT count(*) FROM prediction") == promoted * POOL
    assert fetch_value(db, "PRAGMA integrity_check") == "ok"
