"""Every utterance of a batch is asked once, by one annotator at a time, and no lease blocks it for good."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlite_utils import Database

from store import annotations, queue
from store.database import fetch, fetch_value, open_database
from store.queue import QueueEntry
from tests.store.rows import add_labels, add_utterances, begin_round, entries, fill_queue, say


def leased(db: Database, annotator: str, count: int = 10) -> list[int]:
    return [row.utterance_id for row in queue.lease(db, annotator, count)]


def test_two_annotators_never_have_the_same_utterance_and_each_keeps_his_own(db: Database) -> None:
    ids = fill_queue(db, 5)
    assert leased(db, "ann", 2) == ids[:2]
    assert leased(db, "ben", 2) == ids[2:4]
    assert leased(db, "ann", 2) == ids[:2]
    assert leased(db, "cleo") == ids[4:]
    assert leased(db, "dora") == []
    assert [queue.count_open(db, who) for who in ("ann", "dora")] == [2, 0]


def test_what_is_asked_comes_with_the_reason_it_is(db: Database) -> None:
    (utterance,) = add_utterances(db, 1)
    queue.replace(db, None, [queue.QueueEntry(utterance, "margin", 0.25, None, 70)])
    (row,) = queue.lease(db, "ann", 1)
    assert (row.strategy, row.score, row.propensity, row.pool_size, row.round_id) == ("margin", 0.25, None, 70, None)


def test_an_expired_lease_may_be_taken_by_another(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = fill_queue(db, 2)
    with monkeypatch.context() as patch:
        patch.setattr(queue, "LEASE", timedelta(seconds=-1))
        assert leased(db, "ann") == ids
    assert leased(db, "ben") == ids
    assert leased(db, "ann") == []


def test_an_answered_utterance_is_asked_of_nobody_and_comes_back_when_undone(db: Database) -> None:
    ids, (label, _) = fill_queue(db, 3), add_labels(db)
    say(db, "ann", ids[0], label)
    say(db, "ann", ids[1], None, "none_fits")
    assert (leased(db, "ann", 1), queue.count_open(db, "ben"), queue.size(db)) == (ids[2:], 0, 3)
    annotations.undo(db, "ann")
    assert leased(db, "ann") == ids[1:]


def test_a_skip_hides_an_utterance_from_the_skipper_alone(db: Database) -> None:
    ids = fill_queue(db, 2)
    assert leased(db, "ann") == ids
    say(db, "ann", ids[0], None, "skip")
    assert leased(db, "ann") == ids[1:]
    assert leased(db, "ben") == ids[:1]  # at once, not when the skipper's lease has run out


def test_an_answer_taken_back_is_asked_first_again(db: Database) -> None:
    ids, (label, _) = fill_queue(db, 3), add_labels(db)
    say(db, "ann", ids[1], label)
    say(db, "ann", ids[2], label)
    for utterance in (ids[2], ids[1]):
        annotations.undo(db, "ann")
        queue.put_first(db, None, *entries([utterance]), "ann")
        assert leased(db, "ann", 1) == [utterance]
    assert leased(db, "ann") == [ids[1], ids[2], ids[0]]


def test_an_answer_taken_back_is_asked_first_also_when_it_has_left_the_batch(db: Database) -> None:
    ids = add_utterances(db, 3)
    for batch in ([], ids[1:]):
        queue.replace(db, None, entries(batch))
        queue.put_first(db, None, *entries(ids[:1]), "ann")
        assert leased(db, "ann") == [ids[0], *batch]
        assert ids[0] not in leased(db, "ben")


def test_what_is_put_ahead_comes_first_in_its_order_whether_it_was_in_the_batch_or_not(db: Database) -> None:
    *ids, new = add_utterances(db, 5)
    queue.replace(db, None, entries(ids))
    queue.put_ahead(db, None, entries([new, ids[2]]))
    assert leased(db, "ann") == [new, ids[2], ids[0], ids[1], ids[3]]
    queue.put_ahead(db, None, [])
    assert leased(db, "ann")[0] == new


def test_a_new_batch_keeps_nothing_of_the_old_but_who_has_what_on_screen(db: Database) -> None:
    ids = fill_queue(db, 5)
    assert leased(db, "ann", 2) == ids[:2]
    queue.replace(db, None, entries([ids[3], ids[1], ids[2]]))
    assert queue.queued_ids(db) == set(ids[1:4])
    assert leased(db, "ben") == [ids[3], ids[2]]
    assert leased(db, "ann") == [ids[1]]


def test_a_refill_goes_behind_what_is_on_screen_and_replaces_the_rest(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, (label, _) = fill_queue(db, 6), add_labels(db)
    assert leased(db, "ann", 3) == ids[:3]
    say(db, "ann", ids[0], label)
    say(db, "ann", ids[1], None, "skip")
    monkeypatch.setattr(queue, "LEASE", timedelta(seconds=-1))
    assert leased(db, "ben") == [ids[1], *ids[3:]]  # a lease that has run out holds nothing
    assert queue.leased_ids(db) == {ids[2]}
    queue.refill(db, None, entries([ids[5], ids[4], ids[2]]))
    assert leased(db, "ben") == [ids[5], ids[4]]
    assert leased(db, "ann") == [ids[2], ids[5], ids[4]]


def test_a_batch_is_extended_behind_what_is_there(db: Database) -> None:
    ids = fill_queue(db, 3)
    queue.replace(db, None, entries(ids[:1]))
    queue.extend(db, None, entries([ids[2], ids[0], ids[1]]))
    assert leased(db, "ann") == [ids[0], ids[2], ids[1]]


def test_eight_threads_drain_a_batch_without_a_duplicate_or_an_error(db: Database, tmp_path: Path) -> None:
    ids, (label, _) = fill_queue(db, 200), add_labels(db)

    def drain(annotator: str) -> list[int]:
        done = []
        with closing(open_database(tmp_path / "project")) as mine:
            while mine_now := leased(mine, annotator, 3):
                say(mine, annotator, mine_now[0], label)
                done.append(mine_now[0])
        return done

    with ThreadPoolExecutor(8) as pool:
        done = Counter(i for part in pool.map(drain, [f"annotator {n}" for n in range(8)]) for i in part)
    assert done == Counter(ids)
    assert Counter(row.utterance_id for row in annotations.answers(db)) == done


@pytest.mark.parametrize("ahead", [timedelta(days=365), queue.LEASE + timedelta(minutes=5)])
def test_a_lease_made_while_the_clock_was_ahead_holds_nothing(db: Database, ahead: timedelta) -> None:
    ids = fill_queue(db, 2)
    assert leased(db, "ann") == ids
    db.execute("UPDATE queue SET leased_until = ?", ((datetime.now(UTC) + ahead).isoformat(timespec="milliseconds"),))
    assert queue.leased_ids(db) == set()
    assert queue.holder(db, ids[0]) is None
    assert queue.count_open(db, "ben") == 2
    assert leased(db, "ben") == ids


def test_who_has_an_utterance_on_screen_is_known_until_it_is_answered(db: Database) -> None:
    ids, (label, _) = fill_queue(db, 2), add_labels(db)
    leased(db, "ann", 1)
    assert [queue.holder(db, i) for i in ids] == ["ann", None]
    assert (queue.leased_ids(db, but="ann"), queue.leased_ids(db, but="ben")) == (set(), {ids[0]})
    say(db, "ben", ids[0], None, "skip")
    assert queue.holder(db, ids[0]) == "ann"
    say(db, "ann", ids[0], label)
    assert queue.holder(db, ids[0]) is None


@pytest.mark.parametrize("kind", ["skip", "none_fits"])
def test_a_skip_or_none_fits_of_its_holder_ends_a_lease(db: Database, kind: annotations.Kind) -> None:
    ids = fill_queue(db, 2)
    leased(db, "ann", 1)
    say(db, "ann", ids[0], None, kind)
    assert queue.holder(db, ids[0]) is None
    assert queue.leased_ids(db) == set()


def test_a_lease_lasts_ten_minutes_however_it_began(db: Database) -> None:
    ids, start = fill_queue(db, 2), datetime.now(UTC)
    leased(db, "ann", 1)
    queue.put_first(db, None, *entries(ids[1:]), "ben")
    for (until,) in db.execute("SELECT leased_until FROM queue"):
        assert timedelta(minutes=10) <= datetime.fromisoformat(until) - start + timedelta(milliseconds=1)
        assert datetime.fromisoformat(until) <= datetime.now(UTC) + timedelta(minutes=10)
        assert len(until) == len("2026-01-31T12:00:00.000+00:00"), "texts of one length are compared as times"


@pytest.mark.parametrize(("seconds", "holds"), [(50, True), (70, False)])
def test_a_lease_may_end_a_minute_late_because_clocks_differ(db: Database, seconds: int, holds: bool) -> None:
    fill_queue(db, 1)
    leased(db, "ann")
    until = datetime.now(UTC) + queue.LEASE + timedelta(seconds=seconds)
    db.execute("UPDATE queue SET leased_until = ?", (until.isoformat(timespec="milliseconds"),))
    assert bool(queue.leased_ids(db)) == holds


def order(db: Database) -> list[int]:
    return [row["utterance_id"] for row in fetch(db, "SELECT utterance_id FROM queue ORDER BY rank")]


def test_what_is_open_and_of_these_strategies_is_exchanged_in_its_place(db: Database) -> None:
    *ids, new, newer = add_utterances(db, 10)
    label_ids = add_labels(db)
    round_id = begin_round(db, label_ids).id
    queue.replace(db, None, [QueueEntry(i, "margin" if i != ids[6] else "audit", 0.5, None, 9) for i in ids])
    leased(db, "ann", 1)
    for utterance, kind in ((ids[1], "label"), (ids[2], "none_fits"), (ids[3], "skip")):
        say(db, "ben", utterance, label_ids[0] if kind == "label" else None, kind)  # type: ignore[arg-type]
    assert [queue.count_left(db, names) for names in (["margin"], ["audit", "margin"], [])] == [3, 4, 0]
    chosen = [QueueEntry(i, "entropy", 0.25, None, 8, 3) for i in (ids[6], new, newer)]
    assert queue.exchange(db, round_id, chosen, ["margin"]) == 2
    assert order(db) == [*ids[:4], new, newer, ids[6]], "a surplus place is removed"
    assert queue.count_left(db, ["margin"]) == 0
    (entry,) = (row for row in fetch(db, "SELECT * FROM queue") if row["utterance_id"] == new)
    assert (entry["strategy"], entry["score"], entry["pool_size"], entry["chosen_after"]) == ("entropy", 0.25, 8, 3)
    assert entry["round_id"] == round_id
    assert queue.exchange(db, round_id, entries([ids[4], ids[5], ids[7]]), ["entropy"]) == 2
    assert order(db) == [*ids[:4], ids[4], ids[5], ids[6]], "a surplus entry is ignored"


def test_what_needs_no_answer_any_more_is_dropped_also_from_a_screen(db: Database) -> None:
    ids = fill_queue(db, 4)
    leased(db, "ann", 1)
    queue.drop(db, [ids[0], ids[2], 999])
    assert order(db) == [ids[1], ids[3]]


def test_entries_carry_the_round_that_chose_them(db: Database) -> None:
    ids, round_id = add_utterances(db, 4), begin_round(db, add_labels(db)).id
    queue.replace(db, round_id, entries(ids[:1]))
    queue.refill(db, round_id, entries(ids[1:2]))
    queue.put_ahead(db, round_id, entries(ids[2:3]))
    queue.put_first(db, round_id, *entries(ids[3:]), "ann")
    assert fetch_value(db, "SELECT count(*) FROM queue WHERE round_id = ?", (round_id,)) == queue.size(db) == 3
