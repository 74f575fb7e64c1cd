"""Test that every utterance has one status, the counts add up, and exports explain what they leave out."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from click.testing import CliRunner

from annotator.cli.main import main
from annotator.codebook.changes import make, propose, retire
from annotator.exchange.export import ExportContext, ExportPlan, export_rows
from annotator.exchange.imports import import_file
from annotator.labeling.auto_accept import evidence_of
from annotator.labeling.bulk import preview
from annotator.labeling.review import disagreements
from annotator.labeling.search import Search, find
from annotator.labeling.session import Answer
from annotator.loop import run_round
from annotator.reporting.summary import in_use, label_counts, queried_accuracy
from annotator.reporting.text import unfitting
from annotator.rounds.snapshot import training_labels
from annotator.rounds.statuses import added_up, statuses
from store import annotations, labels, rounds, utterances
from store.annotations import ADJUDICATED, NewAnnotation
from store.files.columns import imported_columns
from store.files.importers import ImportPlan, detect_columns
from store.search import Conditions
from tests.annotator.scenes import PROMISE, REPORT, WISH, classifier_of, new_project, say, texts, truth, write_csv


@pytest.fixture
def labeled(tmp_path):
    """A project whose 20 labels came with the file."""
    with new_project(tmp_path / "p", 0) as project:
        rows = [{"id": f"u{i}", "text": text, "label": truth(text)} for i, text in enumerate(texts(20))]
        import_file(project, write_csv(tmp_path / "f.csv", rows), ImportPlan(detect_columns(list(rows[0]))))
        yield project


def skip(project, utterance, who="ada"):
    annotations.record(project.db, NewAnnotation(utterance, who, "skip", None, "random", 1))


def row_of(project, utterance, **plan):
    (name,) = (row.external_id for row in utterances.read(project.db, [utterance]))
    (row,) = (row for row in export_rows(project, ExportPlan(**plan)) if row.id == name)
    return row


def other_than_given(project, utterance):
    (given,) = annotations.answers_to(project.db, [utterance])
    return given.label_id % 3 + 1


def test_an_experts_correction_of_a_label_from_the_file_is_exported_and_trained_on(labeled):
    one = utterances.ids_in(labeled.db, "pool")[0]
    right = other_than_given(labeled, one)
    say(labeled, one, "anna", right)
    row = row_of(labeled, one)
    names = labels.names(labeled.db)
    assert (row.label, row.source, row.annotator, row.answers) == (names[right], "expert", "anna", 1)
    assert [answer["source"] for answer in json.loads(row.answers_given)] == ["given", "expert"]
    assert statuses(labeled).counts()["labeled"] == len(list(export_rows(labeled, ExportPlan()))) == 20
    assert training_labels(labeled, (1, 2, 3))[one] == right - 1


def test_a_corrected_label_from_the_file_counts_nowhere_beside_its_correction(labeled):
    one = utterances.ids_in(labeled.db, "pool")[0]
    right = other_than_given(labeled, one)
    wrong = annotations.answers_to(labeled.db, [one])[0].label_id
    before = annotations.count_by_slice(labeled.db)
    say(labeled, one, "anna", right)
    after = annotations.count_by_slice(labeled.db)
    assert after["pool", wrong] == before["pool", wrong] - 1
    assert sum(after.values()) == sum(before.values())
    assert {count.name: count.pool for count in label_counts(labeled, None)} == {
        name: after.get(("pool", label), 0) for name, label in (("promise", 1), ("report", 2), ("wish", 3))
    }
    assert disagreements(labeled) == find(labeled, Search(where=Conditions(quarrel="people"))) == []
    assert one not in find(labeled, Search(where=Conditions(label_id=wrong)))
    assert one in find(labeled, Search(where=Conditions(label_id=right)))
    assert one in find(labeled, Search(where=Conditions(label_id=wrong, annotator="given")))
    assert preview(labeled, "ben", [one], Answer("label", right), replace=False).beside == 0
    assert preview(labeled, "Anna", [one], Answer("label", right), replace=False).same == 1


def test_the_model_is_not_at_odds_with_a_label_from_the_file_that_a_person_replaced(labeled):
    run_round(labeled, classifier_of(labeled), labeled.config)
    known = rounds.predictions_of(labeled.db, rounds.promoted(labeled.db))
    audit = utterances.ids_in(labeled.db, "audit")[0]
    best = known.label_ids[known.probabilities[known.utterance_ids.tolist().index(audit)].argmax()]
    annotations.record(labeled.db, NewAnnotation(audit, "given", "label", best % 3 + 1, "given", 1))
    assert audit in find(labeled, Search(where=Conditions(quarrel="model")))
    say(labeled, audit, "anna", best)
    assert audit not in find(labeled, Search(where=Conditions(quarrel="model")))


def test_a_tie_between_people_is_disputed_and_not_trained_on(labeled):
    one = utterances.ids_in(labeled.db, "pool")[0]
    say(labeled, one, "anna", PROMISE)
    say(labeled, one, "ben", WISH)
    assert row_of(labeled, one).kind == "disputed"
    assert statuses(labeled).of(one) == "disputed"
    assert one not in training_labels(labeled, (1, 2, 3))
    assert disagreements(labeled) == [one]
    say(labeled, one, "cem", WISH)
    assert (row_of(labeled, one).kind, row_of(labeled, one).label) == ("label", "wish")


def test_the_statuses_of_all_utterances_add_up_whatever_was_answered(tmp_path):
    rng = random.Random(7)
    with new_project(tmp_path / "p", 60) as project:
        ids = [i for part in ("pool", "audit") for i in utterances.ids_in(project.db, part)]
        for _ in range(120):
            one, who = rng.choice(ids[:50]), rng.choice(["anna", "Anna", "ben", "cem"])
            if rng.random() < 0.3:
                skip(project, one, who)
            else:
                strategy = rng.choice(["random", "random", "random", ADJUDICATED])
                say(project, one, who, rng.choice([None, PROMISE, REPORT, WISH]), strategy)
        run_round(project, classifier_of(project), project.config)
        make(project, propose(project, retire(project, WISH)), "ada")
        for with_model in (False, True):
            plan = ExportPlan(with_model=with_model)
            known = ExportContext(project, plan)
            counts = known.statuses.counts()
            assert sum(counts.values()) == 60
            assert {one for one in counts if counts[one]} >= {"labeled", "disputed", "none_fits"}
            kinds = Counter((row.kind, row.source == "model") for row in export_rows(project, plan, known))
            said = {"labeled": "label", "disputed": "disputed", "none_fits": "none_fits"}
            said |= {"skipped": "skip", "out_of_use": "out_of_use"}
            assert {one: kinds[kind, False] for one, kind in said.items()} == {one: counts[one] for one in said}
            assert kinds["label", True] == counts["model"]
            assert kinds.total() == 60 - counts["unlabeled"]


def test_card_status_and_export_say_the_counts_and_what_is_left_out(tmp_path):
    folder = tmp_path / "p"
    with new_project(folder, 10) as project:
        pool = utterances.ids_in(project.db, "pool")
        say(project, pool[0], "anna", PROMISE)
        for who, label in (("anna", PROMISE), ("ben", WISH)):
            say(project, pool[1], who, label)
        say(project, pool[2], "anna", None)
        skip(project, pool[3])
        for rows, count in (("utterances", 4), ("answers", 5)):
            output = run("export", folder, "--rows", rows, "--out", tmp_path / "o.csv")
            assert f"{count} rows in" in output
            assert "1 labeled + 1 disputed + 1 none fits + 1 skipped + 6 without an answer = 10." in output
            assert "6 of 10 utterances are left out because nobody has answered." in output
            card = (tmp_path / "o.README.md").read_text(encoding="utf-8")
            assert "6 of 10 utterances are left out because nobody has answered." in card
            assert "| `disputed` | 1 | yes |" in card
            assert "| **all** | 10 |" in card
            assert f"| **all** |  |  | {count} |" in card
    assert "6 without an answer = 10." in run("status", folder)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_nothing_adds_up_to_nothing():
    assert added_up({"labeled": 0}) == "0 = 0"


# None fits


def test_a_round_is_wrong_on_what_it_chose_where_none_fits(tmp_path):
    with new_project(tmp_path / "p", 60) as project:
        run_round(project, classifier_of(project), project.config)
        row = rounds.promoted(project.db)
        ids = rounds.predictions_of(project.db, row).utterance_ids.tolist()
        one = next(i for i in ids if i in set(utterances.ids_in(project.db, "pool")))
        new = NewAnnotation(one, "ada", "none_fits", None, "margin", 1, round_id=row.id)
        annotations.record(project.db, new)
        (found,) = queried_accuracy(project)
        assert (found.right, found.n) == (0, 1)


def test_insights_say_on_how_many_audit_answers_no_label_fits(tmp_path):
    with new_project(tmp_path / "p", 60) as project:
        run_round(project, classifier_of(project), project.config)
        assert unfitting(in_use(project)) == ""
        for one in utterances.ids_in(project.db, "audit")[:2]:
            say(project, one, "ada", None, "audit")
        assert (evidence_of(project, rounds.promoted(project.db))[0].truth < 0).sum() == 2
        assert unfitting(in_use(project)).startswith("No label of this round fits 2 more audit utterances")


# Imported columns


def test_a_name_that_is_taken_gets_a_prefix_until_it_is_free():
    taken = ["label", "kind", "p(wish)"]
    assert imported_columns(["party", "Kind", "imported_Kind", "p(wish)", ""], taken) == {
        "party": "party",
        "Kind": "imported_imported_Kind",
        "imported_Kind": "imported_Kind",
        "p(wish)": "imported_p(wish)",
        "": "imported_",
    }
