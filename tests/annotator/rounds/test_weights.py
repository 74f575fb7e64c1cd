"""Test that a round refuses other weights than its own, with a message on pages and command line."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from annotator.cli.main import main
from annotator.codebook.definition import codebook_of
from annotator.config import RoundConfig
from annotator.errors import AnnotatorError, BackboneChanged, ProjectError
from annotator.labeling.explanation import explain
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.prediction import Labeler
from annotator.rounds.summaries import about_training, about_weights
from annotator.rounds.worker import work
from model.load import load_classifier
from model.recipe import Recipe
from model.types import Utterance
from store import annotations, jobs, rounds, states, utterances
from tests.annotator.scenes import new_project, work_through
from tests.model.tiny import save_llama, save_qwen2

TINY = Recipe(epochs=1, rank=2)
TEXTS = [Utterance("We will build it."), Utterance("It was built.")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project with a round of a tiny model, both in one folder."""
    place = tmp_path_factory.mktemp("made")
    save_llama(place / "backbone")
    config = RoundConfig(backbone="backbone", recipe=TINY, minimum_labels=4)
    with pytest.MonkeyPatch.context() as patch, new_project(place / "p", config=config) as project:
        patch.chdir(place)
        work_through(project, 20)
        retrain(project)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy to work in: the backbone is named as seen from there."""
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    monkeypatch.chdir(copy)
    return copy


def retrain(project: Project) -> None:
    config = project.config
    run_round(project, load_classifier(config.backbone, codebook_of(project).task(), config.recipe), config)


def replace_backbone(place: Path) -> None:
    shutil.rmtree(place / "backbone")
    save_qwen2(place / "backbone")


def as_before_weights_were_noted(place: Path) -> None:
    """Take from the round what an earlier version did not note."""
    with Project.open(place / "p") as project:
        row = rounds.promoted(project.db)
        assert row is not None
        project.db.execute("UPDATE round SET fingerprint = NULL, revision = NULL")
        project.db.conn.commit()
    path = place / "p" / "adapters" / row.folder / "round.json"
    described = json.loads(path.read_text())
    for name in ("fingerprint", "revision", "seal", "files", "round", "tokenization"):
        del described[name]
    path.write_text(json.dumps(described))


def test_a_round_stores_its_weights_in_its_row_and_in_its_folder(place: Path) -> None:
    with Project.open(place / "p") as project:
        row = rounds.promoted(project.db)
        assert row is not None
        described = json.loads((place / "p" / "adapters" / row.folder / "round.json").read_text())
        assert about_weights(project) == ("", [])
        assert "Round 1 trained" in about_training(row)[0]
        more = replace(row, metrics_json=json.dumps({"trained": 1200, "frozen_experts": 9, "unspelled": 1}))
        assert about_training(more) == [
            "Round 1 trained 1,200 weights. The experts of backbone were not trained.",
            "1 utterance has characters that backbone cannot spell. It may read it like another.",
        ]
    assert len(row.fingerprint) == 64
    assert described["fingerprint"] == row.fingerprint
    assert row.revision is row.fingerprint_noted is None


def test_with_other_weights_a_round_is_not_asked_and_it_is_said_everywhere(place: Path, tmp_path: Path) -> None:
    expected = Labeler.of(place / "p").probabilities(TEXTS)
    kept = shutil.copytree(place / "backbone", tmp_path / "kept")
    replace_backbone(place)
    with pytest.raises(BackboneChanged, match="differ from those this round was trained with"):
        Labeler.of(place / "p")
    with Project.open(place / "p") as project:
        refused, _ = about_weights(project)
        assert "The weights of backbone differ from those round 1 was trained with" in refused
        with pytest.raises(BackboneChanged):
            explain(project, utterances.ids_in(project.db, "pool")[0])
    (place / "talk.csv").write_text("text\nWe will.\n")
    arguments = ["score", "talk.csv", "--project", "p", "--out", "out.csv"]
    failed = CliRunner().invoke(main, arguments)
    assert isinstance(failed.exception, AnnotatorError) or "differ from those" in failed.output
    assert "round 1 was trained with" in " ".join(CliRunner().invoke(main, ["status", "p"]).output.split())
    shutil.rmtree(place / "backbone")
    shutil.copytree(kept, place / "backbone")
    np.testing.assert_allclose(Labeler.of(place / "p").probabilities(TEXTS), expected, atol=1e-5)


def test_a_new_round_works_with_other_weights_and_reads_anew_with_a_word(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Project.open(place / "p") as project:
        asked = utterances.ids_in(project.db, "pool")
        assert states.known(project.db, asked)
        replace_backbone(place)
        with caplog.at_level(logging.WARNING):
            retrain(project)
        assert "round 2 recomputes all hidden states" in caplog.text
        refused, told = about_weights(project)
        assert not refused
        assert told == ["Round 2 used other weights than round 1 and read all utterances again."]
        caplog.clear()
        retrain(project)
        assert "reads anew" not in caplog.text
    assert Labeler.of(place / "p").round_number == 3


def test_the_weights_of_a_round_made_before_are_noted_when_it_is_first_restored(place: Path) -> None:
    expected = Labeler.of(place / "p").probabilities(TEXTS)
    as_before_weights_were_noted(place)
    np.testing.assert_allclose(Labeler.of(place / "p").probabilities(TEXTS), expected, atol=1e-5)
    with Project.open(place / "p") as project:
        row = rounds.promoted(project.db)
        assert row is not None
        assert row.fingerprint
        refused, told = about_weights(project)
        assert (refused, len(told)) == ("", 1)
        assert (
            f"Round 1 did not record its weights. Those it was first restored with, on {row.fingerprint_noted[:10]}"
            in told[0]
        )
    replace_backbone(place)
    with pytest.raises(BackboneChanged):
        Labeler.of(place / "p")


def test_an_old_round_in_a_project_that_cannot_be_written_is_asked_all_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model import restore

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    as_before_weights_were_noted(place)
    monkeypatch.setattr(restore, "write_description", refuse)
    assert Labeler.of(place / "p").round_number == 1
    with Project.open(place / "p") as project:
        assert rounds.promoted(project.db).fingerprint is None


def test_an_adapter_that_is_not_the_one_of_the_round_is_refused(place: Path) -> None:
    with Project.open(place / "p") as project:
        project.db.execute("UPDATE round SET fingerprint = 'another'")
        project.db.conn.commit()
    with pytest.raises(ProjectError, match="is not the one that round 1 saved"):
        Labeler.of(place / "p")


def test_adapters_of_two_rounds_that_were_swapped_are_refused(place: Path) -> None:
    with Project.open(place / "p") as project:
        retrain(project)
    first, second = place / "p" / "adapters" / "round-0001", place / "p" / "adapters" / "round-0002"
    first.rename(place / "aside")
    second.rename(first)
    (place / "aside").rename(second)
    with pytest.raises(ProjectError, match="is not the one that round 2 saved"):
        Labeler.of(place / "p")


def test_rounds_keep_to_the_commit_the_last_one_used_and_say_when_the_hub_has_moved_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from annotator.rounds import summaries

    loaded: list[str] = []

    def load(backbone: str, *about: object) -> object:
        loaded.append(backbone)
        return load_classifier("backbone", *about)  # type: ignore[arg-type]

    monkeypatch.setattr("model.load.load_classifier", load)
    with Project.open(place / "p") as project:
        project.db.execute("UPDATE round SET revision = ?", ["a" * 40])
        project.db.conn.commit()
        monkeypatch.setattr(summaries, "has_changed", lambda *_: False)
        monkeypatch.setattr(summaries, "newest_known", lambda name: "b" * 40)
        assert f"choose backbone@{'b' * 40}" in about_weights(project)[1][0]
        monkeypatch.setattr(summaries, "newest_known", lambda name: "a" * 40)
        assert about_weights(project)[1] == []
        work(project, jobs.begin(project.db, "a test", annotations.last_id(project.db)))
    assert loaded == [f"backbone@{'a' * 40}"]
