"""Utterances that the chosen backbone cannot spell are counted before a round."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from annotator.cli.main import main
from annotator.config import RoundConfig
from annotator.exchange.imports import add_utterances
from annotator.project import Project
from annotator.rounds import spelling
from annotator.rounds.spelling import about_spelling
from store.utterances import NewUtterance
from tests.annotator.scenes import new_project
from tests.model.tiny import save_llama, save_t5

NOTICE = "2 utterances have characters that {} cannot spell. It may read some of them alike."


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save_t5(tmp_path / "t5")
    save_llama(tmp_path / "llama")
    with new_project(tmp_path / "p", config=RoundConfig(backbone=str(tmp_path / "t5"))) as project:
        add_utterances(project, [NewUtterance(text, text) for text in ("我要退款", "取消订单")])
    return tmp_path


def test_texts_a_tokenizer_cannot_spell_are_shown_before_a_round(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Project.open(place / "p") as project:
        assert about_spelling(project) == [NOTICE.format(place / "t5")]
        monkeypatch.setattr(spelling, "count_unspelled", lambda *_: pytest.fail("counted twice"))
        assert about_spelling(project)
        monkeypatch.undo()
        add_utterances(project, [NewUtterance("b", "退货")])
        assert about_spelling(project)[0].startswith("3 utterances")
        for backbone, count in ((place / "llama", 0), (place / "nowhere", 0), (place / "t5", 1)):
            project.config = RoundConfig(backbone=str(backbone))
            assert len(about_spelling(project)) == count
        (place / "t5" / "tokenizer.json").write_text("{}")
        assert about_spelling(project) == []


def test_the_doctor_of_a_project_shows_them_too(place: Path) -> None:
    done = CliRunner().invoke(main, ["doctor", str(place / "p")])
    assert "2 utterances have characters" in " ".join(done.output.split())
