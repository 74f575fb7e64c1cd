"""Test predictions for new text: they equal those of the round in the project."""

from __future__ import annotations

import csv
import json
import shutil
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from annotator.cli.main import main
from annotator.codebook import changes
from annotator.codebook.definition import codebook_of, create_project
from annotator.config import RoundConfig
from annotator.errors import NoProject, RoundError
from annotator.exchange.imports import add_utterances
from annotator.loop import run_round
from annotator.methods.calibration import Calibrator
from annotator.methods.metrics import Array
from annotator.project import Project
from annotator.rounds import prediction as labeller_module
from annotator.rounds.prediction import Labeler, with_context
from annotator.rounds.snapshot import read_texts
from model.load import load_classifier
from model.recipe import Recipe
from model.types import Progress, Utterance, no_progress
from store import rounds
from store.files.importers import Columns, ImportPlan, read_utterances
from store.files.readers import Rejected
from store.files.spool import Spool
from store.utterances import NewUtterance
from tests.annotator.scenes import draft, new_project, texts, work_through
from tests.model.tiny import save_llama

TINY = Recipe(epochs=1, rank=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a round of a tiny model, trained on a few answers."""
    backbone = save_llama(tmp_path_factory.mktemp("backbone"))
    place = tmp_path_factory.mktemp("project") / "p"
    config = RoundConfig(backbone=backbone, recipe=TINY, minimum_labels=4)
    with new_project(place, config=config) as project:
        turns = [NewUtterance(f"t{i}", text, "c", float(i), "ada") for i, text in enumerate(texts(8, 100))]
        add_utterances(project, turns)
        work_through(project, 20)
        run_round(project, load_classifier(config.backbone, codebook_of(project).task(), TINY), project.config)
    return place


def test_it_says_what_the_round_said_in_the_project(folder):
    with Project.open(folder) as project:
        row = rounds.promoted(project.db)
        stored = rounds.predictions_of(project.db, row)
        labeler = Labeler.of(folder)
        asked = read_texts(project, stored.utterance_ids.tolist(), labeler.context_turns)
    assert any(one.context for one in asked)
    np.testing.assert_allclose(
        labeler.probabilities(asked), stored.probabilities, atol=1e-3
    )  # states are kept in half precision


def test_it_speaks_of_the_labels_in_use(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "p"))
    before = {one["label"]: one["score"] for one in Labeler.of(copy)("We will build it.")}
    with Project.open(copy) as project:
        target, report = codebook_of(project).id_of("wish"), codebook_of(project).id_of("report")
        changes.make(project, changes.propose(project, changes.merge(project, [target], report)), "ada")
        changes.make(project, changes.propose(project, changes.add(project, {"name": "threat"})), "ada")
    after = {one["label"]: one["score"] for one in Labeler.of(copy)("We will build it.")}
    assert set(after) == {"promise", "report"}, "the round was not trained with threats"
    assert after["promise"] == pytest.approx(before["promise"], abs=1e-6)
    assert after["report"] == pytest.approx(before["report"] + before["wish"], abs=1e-6)


def test_one_text_gets_all_labels_likeliest_first_and_several_get_a_list_each(folder):
    labeler = Labeler.of(folder)
    one = labeler("We will build it.")
    assert {answer["label"] for answer in one} == {"promise", "report", "wish"}
    assert [a["score"] for a in one] == sorted((a["score"] for a in one), reverse=True)
    assert sum(a["score"] for a in one) == pytest.approx(1)
    several = labeler(["We will build it.", "We built it."])
    assert [a["score"] for a in several[0]] == pytest.approx([a["score"] for a in one], abs=1e-5)
    assert labeler([]) == []


def test_a_project_without_a_round_says_what_to_do(tmp_path):
    new_project(tmp_path / "p").close()
    with pytest.raises(RoundError, match=r"no finished round yet. Run `annotator retrain` first"):
        Labeler.of(tmp_path / "p")
    with pytest.raises(NoProject):
        Labeler.of(tmp_path / "nowhere")


def score(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["score", *map(str, arguments)])
    assert result.exit_code in (0, 1), result.output
    return " ".join(result.output.split())


@pytest.fixture
def talk(tmp_path) -> Path:
    path = tmp_path / "talk.csv"
    rows = [("c", 2, "ada", "Second, I will."), ("", "", "bob", "Alone."), ("c", 1, "bob", "First, will you?")]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("conversation", "turn", "speaker", "text"), *rows, ("c", 3, "ada", "")])
    return path


def test_a_file_is_scored_in_its_order_and_what_cannot_be_read_is_told(folder, talk, tmp_path):
    output = score(talk, "--project", folder, "--out", tmp_path / "out.parquet")
    assert "3 rows in" in output
    assert "row 5: There is no text." in output
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["text"] for row in table] == ["Second, I will.", "Alone.", "First, will you?"]
    for row in table:
        shares = {name: row[f"p({name})"] for name in ("promise", "report", "wish")}
        assert sum(shares.values()) == pytest.approx(1)
        assert row["probability"] == shares[row["label"]] == max(shares.values())
        assert row["model_round"] == 1


def test_columns_without_a_meaning_for_us_are_in_the_scored_file_too(folder, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("text,party,label,probability\nI will.,A,x,007\nHe did.,,,\n", encoding="utf-8")
    score(path, "--project", folder, "--out", tmp_path / "out.parquet")
    first, second = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert (first["party"], first["imported_probability"]) == ("A", "007")
    assert (second["party"], second["imported_probability"]) == (None, None)
    assert 0 < first["probability"] <= 1


def test_the_turns_before_an_utterance_are_read_also_if_they_are_not_scored(folder, talk, tmp_path):
    score(talk, "--project", folder, "--out", tmp_path / "all.jsonl")
    score(talk, "--project", folder, "--out", tmp_path / "ada.jsonl", "--only", "speaker=ada")
    everyone = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    ada = [json.loads(line) for line in (tmp_path / "ada.jsonl").read_text().splitlines()]
    assert [row["speaker"] for row in ada] == ["ada"]
    assert ada[0]["probability"] == pytest.approx(everyone[0]["probability"], abs=1e-5)


def test_an_ending_that_names_no_format_is_refused_before_the_work(folder, talk, tmp_path):
    said = score(talk, "--project", folder, "--out", tmp_path / "out.xyz")
    assert (
        "The format of “out.xyz” is not clear from its name. Use one of these endings: .csv, .jsonl, .parquet." in said
    )


turn_numbers = st.lists(st.sampled_from([None, 0.0, 0.5, 1.0, 1.5, 2.0, -1.0]), min_size=1, max_size=12)


@given(numbers=turn_numbers, turns=st.integers(0, 5))
def test_the_context_of_a_file_is_that_of_a_project(tmp_path_factory, numbers, turns):
    rows = [NewUtterance(f"t{i}", f"text {i}", "c", n, "ada" if i % 2 else None) for i, n in enumerate(numbers)]
    with create_project(tmp_path_factory.mktemp("p") / "p", draft()) as project:
        ids = add_utterances(project, rows)
        expected = read_texts(project, ids, turns)
    with Spool() as spool:
        spool.fill(rows)
        assert [utterance for _, utterance in with_context(spool, turns)] == expected
        assert [row for row, _ in with_context(spool, turns)] == rows


def test_turns_of_the_same_number_are_read_in_the_order_of_the_file():
    rows = [NewUtterance(text, text, "c", turn, None) for text, turn in (("b", 1.0), ("d", 2.0), ("c", 1.0))]
    with Spool() as spool:
        spool.fill([*rows, NewUtterance("a", "a", "c", None), NewUtterance("other", "other", "another", 0.0)])
        said = {row.text: [turn.text for turn in before] for row, before in spool.with_turns(2)}
    assert said == {"b": [], "c": ["b"], "d": ["b", "c"], "a": [], "other": []}  # “a” has no place among them


# A file larger than memory -----------------------------------------------------------------------------------------


@dataclass
class Echo:
    """Stands for a round: its logits depend on what is read of an utterance, and it notes how many it is asked."""

    asked: list[int] = field(default_factory=list)

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Array:
        self.asked.append(len(utterances))
        progress(0.5)
        read = ["\n".join((*one.context, one.text)) for one in utterances]
        return np.array([[zlib.crc32(f"{i}{text}".encode()) / 2**32 for i in range(2)] for text in read])


def write_talk(path: Path, rows: int, characters: int = 10) -> ImportPlan:
    """Write long conversations, their turns in disorder, with an unreadable row now and then."""
    order = np.random.default_rng(0).permutation(rows).tolist()
    talk = [(f"c{i % 3}", i // 3, "ada", f"{i} {'x' * characters}" if i % 50 else "") for i in order]
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("conversation", "turn", "speaker", "text"), *talk])
    return ImportPlan(Columns("text", conversation="conversation", turn="turn", speaker="speaker"))


def test_a_file_scored_part_by_part_comes_out_as_if_it_were_scored_at_once(tmp_path, monkeypatch):
    plan = write_talk(tmp_path / "talk.csv", 200)
    shares: list[float] = []
    found = {}
    for at_once in (1000, 7):
        monkeypatch.setattr(labeller_module, "AT_ONCE", at_once)
        echo, target = Echo(), tmp_path / f"{at_once}.jsonl"
        labeler = Labeler(echo, Calibrator(1.0), ("yes", "no"), np.eye(2), 1, context_turns=3)
        count, rejected = labeler.score_file(tmp_path / "talk.csv", plan, target, shares.append)
        found[at_once] = (count, rejected, target.read_text())
        assert max(echo.asked) <= at_once
        assert sum(echo.asked) == count == 196
    assert found[7] == found[1000]
    texts = [json.loads(line)["text"] for line in found[7][2].splitlines()]
    assert texts == [row.text for row in read_utterances(tmp_path / "talk.csv", plan) if not isinstance(row, Rejected)]
    assert shares[1:] == sorted(shares[1:])
    assert shares[-1] < 1


def test_scoring_a_file_takes_no_more_memory_the_longer_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(labeller_module, "AT_ONCE", 20)
    labeler = Labeler(Echo(), Calibrator(1.0), ("yes", "no"), np.eye(2), 1, context_turns=3)
    peaks = []
    for rows in (200, 2000):
        source = tmp_path / f"{rows}.csv"
        plan = write_talk(source, rows, characters=2000)
        tracemalloc.start()
        labeler.score_file(source, plan, tmp_path / "out.jsonl")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (tmp_path / "out.jsonl").stat().st_size > 0.9 * source.stat().st_size
    assert peaks[1] < 1.5 * peaks[0] < 1e6 < (tmp_path / "2000.csv").stat().st_size
