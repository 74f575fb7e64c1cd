"""Test the audit sample: a random fifth of an import that never separates copies of a text."""

from __future__ import annotations

import json
import sqlite3
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotator.codebook.definition import create_project
from annotator.exchange.imports import add_utterances, import_file
from annotator.methods.guarantee import Target
from annotator.methods.sampling import audit_size, draw_audit
from annotator.project import Project
from store import annotations, utterances
from store.annotations import NewAnnotation
from store.files.importers import ImportPlan, detect_columns
from store.files.readers import read_header
from store.utterances import NewUtterance
from tests.annotator.scenes import draft, texts


def alone(count: int) -> dict[int, int]:
    return {i: i for i in range(count)}


def slices(project: Project) -> dict[str, str]:
    return {row["external_id"]: row["slice"] for row in project.db["utterance"].rows}


def named(items: list[str], prefix: str = "u") -> list[NewUtterance]:
    return [NewUtterance(f"{prefix}{i}", text) for i, text in enumerate(items)]


@pytest.mark.parametrize(
    ("count", "precision", "size"),
    [
        (0, 0.95, 0),
        (1, 0.95, 0),
        (10, 0.95, 2),
        (400, 0.95, 80),
        (1530, 0.95, 306),
        (10**6, 0.95, 306),
        (10**6, 0.9, 152),
        (10**6, 0.98, 772),
    ],
)
def test_a_fifth_is_drawn_and_no_more_than_a_guarantee_at_the_target_takes(count, precision, size):
    assert audit_size(count, Target(precision)) == size


@given(groups=st.dictionaries(st.integers(0, 200), st.integers(0, 20)), size=st.integers(0, 40), seed=st.integers(0, 9))
def test_groups_stay_together_and_no_more_is_drawn_than_asked(groups, size, seed):
    drawn = draw_audit(groups, size, np.random.default_rng(seed))
    assert drawn <= set(groups)
    assert len(drawn) <= size
    kept = {groups[i] for i in drawn}
    assert drawn == {i for i, group in groups.items() if group in kept}


def test_without_copies_exactly_as_many_are_drawn_as_asked():
    assert len(draw_audit(alone(100), 20, np.random.default_rng(0))) == 20


def test_every_utterance_has_the_same_chance():
    counts, draws = np.zeros(50), 4_000
    rng = np.random.default_rng(5)
    for _ in range(draws):
        counts[list(draw_audit(alone(50), 10, rng))] += 1
    assert abs(counts.sum() - 10 * draws) < 1e-9
    expected = 10 * draws / 50
    # A draw without replacement has less variance than independent ones, hence the factor.
    statistic = ((counts - expected) ** 2 / expected).sum() / (1 - 10 / 50)
    assert statistic < 85.4  # chi-squared with 49 degrees of freedom, 0.1 %


def test_the_same_generator_draws_the_same():
    one, same, other = (draw_audit(alone(50), 10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_a_large_import_is_drawn_quickly():
    began = time.process_time()
    assert len(draw_audit(alone(100_000), 300, np.random.default_rng(0))) == 300
    assert time.process_time() - began < 5


def test_pool_and_audit_share_nothing_and_leave_nothing_out(tmp_path):
    with create_project(tmp_path, draft()) as project:
        add_utterances(project, named(texts(100)))
        pool, audit = (set(utterances.ids_in(project.db, name)) for name in ("pool", "audit"))
        assert (len(pool), len(audit)) == (80, 20)
        assert not pool & audit


def test_context_is_never_drawn(tmp_path):
    with create_project(tmp_path, draft()) as project:
        around = [NewUtterance(f"c{i}", text, context_only=True) for i, text in enumerate(texts(100, 200))]
        add_utterances(project, [*named(texts(50)), *around])
        found = slices(project)
        assert {found[f"c{i}"] for i in range(100)} == {"context"}
        assert utterances.count_slices(project.db) == {"pool": 40, "audit": 10, "context": 100}


def test_a_later_import_has_its_own_share_and_leaves_the_first_as_it_was(tmp_path):
    with create_project(tmp_path, draft()) as project:
        add_utterances(project, named(texts(50), "a"))
        before = slices(project)
        add_utterances(project, named(texts(50, 50), "b"))
        after = slices(project)
        assert before.items() <= after.items()
        assert sum(after[f"b{i}"] == "audit" for i in range(50)) == 10


def test_copies_of_a_text_are_in_one_sample(tmp_path):
    with create_project(tmp_path, draft()) as project:
        add_utterances(project, named([text for text in texts(40) for _ in range(3)]))
        found = slices(project)
        for i in range(40):
            assert len({found[f"u{3 * i + copy}"] for copy in range(3)}) == 1
        assert "audit" in found.values()


def test_copies_that_come_with_a_later_import_lie_where_the_first_lies(tmp_path):
    with create_project(tmp_path, draft()) as project:
        add_utterances(project, named(texts(50), "a"))
        add_utterances(project, named([text.upper() for text in texts(50)], "b"))
        found = slices(project)
        assert all(found[f"a{i}"] == found[f"b{i}"] for i in range(50))


def test_the_same_words_in_two_conversations_are_two_utterances(tmp_path):
    with create_project(tmp_path, draft()) as project:
        add_utterances(project, [NewUtterance(f"u{i}", "Yes.", conversation=f"c{i}", turn=1) for i in range(100)])
        assert utterances.count_slices(project.db) == {"pool": 80, "audit": 20, "context": 0}


# Whole conversations


def spoken_in(count: int, turns: int, start: int = 0) -> list[NewUtterance]:
    """Make conversations of so many turns each."""
    lines = texts(count * turns, start)
    return [NewUtterance(f"t{start + i}", line, f"c{i // turns}", float(start + i)) for i, line in enumerate(lines)]


def conversations_of(project: Project) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in utterances.iterate(project.db):
        found.setdefault(row.conversation, set()).add(row.slice)
    return found


def whole_import(project: Project, rows: list[NewUtterance]) -> None:
    columns = ("id", "text", "conversation", "turn")
    lines = [dict(zip(columns, (one.external_id, one.text, one.conversation, one.turn), strict=True)) for one in rows]
    path = project.folder / "turns.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    plan = ImportPlan(detect_columns(read_header(path)))
    assert import_file(project, path, plan, whole_conversations=True).to_label == len(rows)


def test_whole_conversations_are_drawn_if_asked(tmp_path):
    with create_project(tmp_path, draft()) as project:
        whole_import(project, spoken_in(20, 5))
        assert all(len(slices) == 1 for slices in conversations_of(project).values())
        assert utterances.count_slices(project.db)["audit"] == 20


def test_turns_that_come_later_follow_their_conversation(tmp_path):
    with create_project(tmp_path, draft()) as project:
        whole_import(project, spoken_in(20, 5))
        before = conversations_of(project)
        whole_import(project, spoken_in(20, 5, 100))
        assert conversations_of(project) == before


def test_unasked_single_turns_are_drawn(tmp_path):
    with create_project(tmp_path, draft()) as project:
        add_utterances(project, spoken_in(20, 5))
        assert any(len(slices) == 2 for slices in conversations_of(project).values())


# What was drawn stays drawn


@pytest.mark.parametrize(("before", "after"), [("pool", "audit"), ("audit", "pool")])
def test_the_database_keeps_an_answered_utterance_in_its_sample(tmp_path, before, after):
    with create_project(tmp_path, draft()) as project:
        add_utterances(project, named(texts(50)))
        one, other = utterances.ids_in(project.db, before)[:2]
        annotations.record(project.db, NewAnnotation(one, "ada", "label", 1, "margin", 1))
        with pytest.raises(sqlite3.IntegrityError, match="final"):
            project.db.execute("UPDATE utterance SET slice = ? WHERE id = ?", (after, one))
        project.db.execute("UPDATE utterance SET slice = ? WHERE id = ?", (after, other))
