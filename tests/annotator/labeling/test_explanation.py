"""“Why?” is answered by a process of its own, about utterances that show a suggestion, and never without an end."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from annotator.codebook.definition import codebook_of
from annotator.errors import AnnotatorError, BackboneError, BadInput, NoProject
from annotator.labeling import explanation as why
from annotator.labeling.explanation import Explanation, PendingExplanation
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.snapshot import read_texts
from model import load
from model.backbones.catalog import STARTER, cache_folder
from store import utterances
from tests.annotator.scenes import change, classifier_of

TOLD = {"text": "Because.", "label": "wish", "backbone": "some-model"}


class Said:
    """Stands in for what the model gives back."""

    text, label = "Because.", 2


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace the process that asks the model, and record what it would have been asked."""
    requests: list[Any] = []
    monkeypatch.setattr(load, "explain_label", lambda *about: requests.append(about) or Said())
    return requests


def in_pool(project: Project) -> int:
    return utterances.ids_in(project.db, "pool")[0]


# In the process


def test_the_backbone_of_the_round_in_use_is_asked_as_the_round_asks(project: Project, asked: list[Any]) -> None:
    config = change(project, backbone="some-model", context_turns=0)
    run_round(project, classifier_of(project), config)
    change(project, backbone="another", context_turns=3)
    wanted = in_pool(project)
    assert why.explain(project, wanted) == Explanation("Because.", "wish", "some-model")
    ((backbone, task, recipe, utterance, folder),) = asked
    assert folder.name == "round-0000"
    assert (backbone, task, recipe) == ("some-model", codebook_of(project).task(), config.recipe)
    assert utterance == read_texts(project, [wanted], 0)[0]


def test_what_shows_no_suggestion_is_not_explained(project: Project, asked: list[Any]) -> None:
    for unfit in (utterances.ids_in(project.db, "audit")[0], 999):
        with pytest.raises(BadInput, match=f"Utterance {unfit} shows no suggestion"):
            why.explain(project, unfit)
    change(project, show_suggestions=False)
    with pytest.raises(BadInput):
        why.explain(project, in_pool(project))
    assert asked == []


def told_by(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(sys, "argv", ["explain", *arguments])
    why.main()
    return json.loads(capsys.readouterr().out)


def test_the_process_writes_one_line_that_the_app_reads(
    project: Project, asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = told_by([str(project.folder), str(in_pool(project))], monkeypatch, capsys)
    assert told == {"text": "Because.", "label": "wish", "backbone": project.config.backbone}
    assert why._parse(f"a library says hello\n{json.dumps(told)}\n", 0) == Explanation(**told)


def test_an_error_in_the_process_is_told_with_message_and_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NoProject) as direct:
        Project.open(tmp_path / "none")
    told = told_by([str(tmp_path / "none"), "1"], monkeypatch, capsys)
    with pytest.raises(AnnotatorError) as caught:
        why._parse(json.dumps(told), 0)
    assert (caught.value.message, caught.value.hint) == (direct.value.message, direct.value.hint)


# In the app


def running(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )


def outcome(asking: PendingExplanation) -> Explanation:
    while (found := asking.answer()) is None:
        time.sleep(0.05)
    return found


def test_there_is_no_answer_until_the_process_has_ended() -> None:
    process = running(f"input(); print({json.dumps(TOLD)!r})")
    asking = PendingExplanation(process, limit=60)
    assert asking.answer() is None
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    assert outcome(asking) == Explanation(**TOLD)


def test_a_question_can_be_dropped() -> None:
    process = running("input()")
    PendingExplanation(process, limit=60).stop()
    assert process.returncode is not None


def test_a_process_that_dies_is_an_error_that_names_the_log() -> None:
    with pytest.raises(BackboneError, match="code 3") as caught:
        outcome(PendingExplanation(running("raise SystemExit(3)"), limit=60))
    assert "worker.log" in caught.value.hint


def test_a_process_that_takes_too_long_is_ended() -> None:
    process = running("import time; time.sleep(600)")
    with pytest.raises(BackboneError, match="within 0 seconds"):
        PendingExplanation(process, limit=0).answer()
    assert process.returncode is not None


def test_asking_starts_a_process_that_writes_its_troubles_to_the_log(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(why.sys, "executable", str(_failing(project.folder)))
    with pytest.raises(BackboneError, match="code 7"):
        outcome(PendingExplanation.start(project.folder, 5))
    assert (
        f"-m annotator.labeling.explanation {project.folder.resolve()} 5" in (project.folder / "worker.log").read_text()
    )


def _failing(folder: Path) -> Path:
    script = folder / "python"
    script.write_text('#!/bin/sh\necho "$@" >&2\nexit 7\n')
    script.chmod(0o755)
    return script


@pytest.mark.slow
@pytest.mark.skipif(
    not (cache_folder() / "backbones" / STARTER / "config.json").is_file(),
    reason="the starter backbone has not been converted here",
)
def test_the_starter_gives_a_reason_and_a_label(project: Project) -> None:
    wanted = in_pool(project)
    first = outcome(PendingExplanation.start(project.folder, wanted, limit=600))
    assert first.label in codebook_of(project).names
    assert first.backbone == STARTER
    assert len(first.text.split()) > 2
    assert first.text == " ".join(first.text.split())
