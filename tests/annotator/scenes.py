"""Small projects to test on, and people who answer in them."""

import csv
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from annotator.codebook import changes
from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import CodebookDraft, parse_codebook
from annotator.config import RoundConfig
from annotator.exchange.imports import add_utterances
from annotator.exchange.samples import SAMPLES
from annotator.labeling.session import Answer, Question, answer, next_question
from annotator.loop import run_round
from annotator.project import Project
from store import annotations, labels, rounds, utterances
from store.annotations import NewAnnotation
from store.database import FILENAME
from store.database import select as select_rows
from store.labels import Change
from store.utterances import NewUtterance
from tests.fake import FakeClassifier

LABELS = ("promise", "report", "wish")
PROMISE, REPORT, WISH = 1, 2, 3  # their ids, in a project of these
WORDS = {
    "promise": ("will", "shall", "guarantee", "by", "next", "year"),
    "report": ("did", "built", "was", "last", "opened", "term"),
    "wish": ("hope", "would", "like", "dream", "someday", "wish"),
}
TOPICS = ("schools", "roads", "taxes", "bridges", "parks", "trains", "housing", "farms", "ports", "energy")
_MADE: dict[tuple[int, RoundConfig, tuple[str, ...]], Path] = {}
CONFIG = RoundConfig(batch_size=10, minimum_labels=4, retrain_every=10, withheld_share=0.0)


def draft(*names: str) -> CodebookDraft:
    return parse_codebook({"name": "Test", "labels": [{"name": name} for name in names or LABELS]})


def truth(text: str) -> str:
    """Return the label of a made-up text: its first word."""
    return text.split()[0].strip(":")


def texts(count: int, start: int = 0) -> list[str]:
    """Make up different texts; the label's words are in them, and its name is in front."""
    found = []
    for i in range(start, start + count):
        label = LABELS[i % len(LABELS)]
        words = WORDS[label]
        found.append(f"{label}: {words[i % 6]} {words[(i // 3) % 6]} {TOPICS[i % 10]} {TOPICS[(i // 7) % 10]} n{i}")
    return found


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def first_rows(name: str, count: int, folder: Path) -> Path:
    """Copy the first rows of a sample and its codebook, for use as `samples.DATA`; return the file of rows."""
    sample, path = SAMPLES[name], folder / SAMPLES[name].data.name
    rows = sample.data.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(rows[: count + 1]), "utf-8")
    shutil.copy(sample.data.with_suffix(".yaml"), folder)
    return path


def new_project(folder: Path, count: int = 60, config: RoundConfig = CONFIG, labels: Sequence[str] = LABELS) -> Project:
    """Create a project of made-up texts, by a copy if this process has made the same before."""
    key = (count, config, tuple(labels))
    if key in _MADE:
        return copied(_MADE[key], folder)
    project = create_project(folder, draft(*labels), config)
    if count:
        add_utterances(project, [NewUtterance(f"u{i}", text) for i, text in enumerate(texts(count))])
    project.close()
    _MADE[key] = Path(shutil.copytree(folder, Path(_templates().name) / str(len(_MADE))))
    return Project.open(folder)


@cache
def _templates() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


def copied(source: Path, folder: Path) -> Project:
    """Copy a closed project, with times of its own, and open the copy."""
    return Project.open(Path(shutil.copytree(source, folder, copy_function=shutil.copy, dirs_exist_ok=True)))


def change(project: Project, **settings: Any) -> RoundConfig:
    project.config = replace(project.config, **settings)
    return project.config


def classifier_of(project: Project, pause: float = 0.0) -> FakeClassifier:
    return FakeClassifier(codebook_of(project).task(), pause)


def right(project: Project, question: Question) -> Answer:
    return Answer("label", codebook_of(project).id_of(truth(question.utterance.text)))


def work_through(project: Project, count: int, annotator: str = "ada") -> list[Question]:
    """Answer so many questions rightly, or as many as there are."""
    asked: list[Question] = []
    while len(asked) < count and (question := next_question(project, annotator)):
        answer(project, question, annotator, right(project, question))
        asked.append(question)
    return asked


def label_pool(project: Project, count: int, annotator: str = "ada", without: Sequence[str] = ()) -> int:
    """Answer questions until so many pool utterances have a label; audit questions are answered too."""
    done = 0
    while done < count and (question := next_question(project, annotator)):
        said = right(project, question)
        skip = truth(question.utterance.text) in without
        answer(project, question, annotator, Answer("skip") if skip else said)
        done += 0 if skip or question.is_audit else 1
    return done


def say(project: Project, utterance: int, who: str, label: int | None, strategy: str = "random") -> None:
    """Store an answer to an utterance, whether it was asked for or not; without a label, that none fits."""
    new = NewAnnotation(utterance, who, "label" if label else "none_fits", label, strategy, labels.version(project.db))
    annotations.record(project.db, new)


def skip_to_suggestion(project: Project) -> Question:
    """Answer until a question comes with suggestions."""
    while (question := next_question(project, "ada")) and not question.suggestion:
        say(project, question.utterance.id, "ada", PROMISE)
    assert question
    return question


def make(project: Project, change: Change, who: str = "ada") -> int:
    """Change the codebook; return its new version."""
    return changes.make(project, changes.propose(project, change), who)


def promoted(project: Project) -> rounds.Predictions:
    """Return the predictions of the round in use."""
    row = rounds.promoted(project.db)
    assert row
    return rounds.predictions_of(project.db, row)


def half_answered(folder: Path, labels: int) -> Project:
    """Make a project with `labels` labels, texts that begin with their label, half of them answered, and a round."""
    names = [f"topic{i}" for i in range(labels)]
    project = new_project(folder, 0, labels=names)
    add_utterances(
        project, [NewUtterance(f"u{i}", f"topic{i % labels}: word{i} {'x' * (i % 7)}") for i in range(40 * labels)]
    )
    ids = [i for part in ("pool", "audit") for i in utterances.ids_in(project.db, part)]
    for row in utterances.read(project.db, ids[::2]):
        label = codebook_of(project).id_of(truth(row.text))
        annotations.record(project.db, NewAnnotation(row.id, "ada", "label", label, "test", 1))
    run_round(project, classifier_of(project), project.config)
    return project


@contextmanager
def another_writes(folder: Path) -> Iterator[None]:
    """Hold the project's lock, as another program does that writes for long."""
    with closing(sqlite3.connect(folder / FILENAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def answers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by a statement with every read of all standing answers, whatever connection it uses."""
    found: list[str] = []
    real = select_rows

    def select(db: Any, kind: Any, source: str, parameters: Any = ()) -> Iterator[Any]:
        if "FROM answer JOIN" in source and "json_each" not in source:
            found.append(source)
        return real(db, kind, source, parameters)

    monkeypatch.setattr(annotations, "select", select)
    return found
