"""A simulated annotator, and `simulate`: the loop as experts run it, answered from known labels.

It shows on a finished project what the tool would have been worth: how good the model is after so many
answers. Every answer counts towards the budget, those that only measure included.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from annotator.codebook.definition import CodebookDraft, codebook_of, create_project, draft_from_names
from annotator.config import RoundConfig
from annotator.errors import BadInput
from annotator.exchange.imports import add_utterances
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import Round, run_round
from annotator.methods.calibration import Calibrator
from annotator.methods.metrics import evaluate
from annotator.project import Project
from annotator.reporting.stopping import advise, left
from annotator.rounds.progress import Listener, Report, nobody
from annotator.rounds.snapshot import read_texts, take_snapshot
from annotator.simulation.memo import Memo, Remembering
from model.load import load_classifier
from model.types import Logits
from store import annotations, rounds, utterances
from store.files.importers import ImportPlan, detect_columns, read_utterances
from store.files.readers import Rejected, read_header
from store.utterances import NewUtterance

ORACLE = "oracle"
SCORES = ("accuracy", "macro_f1", "nll", "brier", "ece")


@dataclass(frozen=True)
class Plan:
    """What to simulate."""

    data: Path
    context: Path | None = None  # more turns of the same conversations, to be read but not labelled
    codebook: CodebookDraft | None = None
    labels: int = 100
    rounds: int = 1
    pool_limit: int | None = 1000
    test_limit: int | None = None
    noise: float = 0.0  # the share of answers that are wrong, at random
    annotators: int = 1  # who take turns, and err apart from one another
    resplit: bool = False  # test on a random fifth of all rows, whatever split the file gives
    keep: Path | None = None  # a folder for each round's logits and known labels, to try calibration on them later
    config: RoundConfig = RoundConfig()  # noqa: RUF009  (frozen, hence safe to share)


@dataclass(frozen=True)
class Gold:
    """A labelled file, read once: what can be asked, what is only tested on, what is read around them."""

    train: tuple[NewUtterance, ...]
    test: tuple[NewUtterance, ...]
    context: tuple[NewUtterance, ...]
    draft: CodebookDraft
    order: tuple[str, ...] = ()  # the ids of all of them as they stand in the file, then of those in the other file


def read_gold(plan: Plan) -> Gold:
    """Read the labelled file, and the file of turns around it if there is one. Raises BadInput."""
    columns = detect_columns(read_header(plan.data))
    if columns.label is None:
        raise BadInput(f"{plan.data.name} has no label column.", "Name the column of known labels “label”.")
    rows = _accepted(plan.data, ImportPlan(columns, keep_copies=True))
    labeled = [row for row in rows if row.given_label]
    around, order = [row for row in rows if not row.given_label], [row.external_id for row in rows]
    if plan.context:
        turns = _accepted(plan.context, ImportPlan(detect_columns(read_header(plan.context)), keep_copies=True))
        known = {row.external_id for row in rows}  # a whole transcript has the labelled turns too
        others = [row for row in turns if row.external_id not in known]
        around, order = around + others, order + [row.external_id for row in others]
    train, test = _split(labeled, None if plan.resplit else columns.split)
    if len({row.given_label for row in train}) < 2:
        raise BadInput(f"{plan.data.name} has one label only.", "Take a file with two or more.")
    draft = plan.codebook or draft_from_names(sorted({row.given_label or "" for row in labeled}))
    context = tuple(replace(row, context_only=True) for row in around)
    return Gold(tuple(train), tuple(test), context, draft, tuple(order))


def _accepted(path: Path, plan: ImportPlan) -> list[NewUtterance]:
    return [row for row in read_utterances(path, plan) if not isinstance(row, Rejected)]


def _split(rows: list[NewUtterance], column: str | None) -> tuple[list[NewUtterance], list[NewUtterance]]:
    """Follow the file's split column; without one, hold a random fifth back for testing."""
    if column:
        is_test = np.array([row.metadata.get(column) == "test" for row in rows])
    else:
        is_test = np.random.default_rng(0).random(len(rows)) < 0.2
    if not is_test.any() or is_test.all():
        raise BadInput(f"{int(is_test.sum())} of {len(rows)} rows are marked as test.", "Mark some, not all.")
    return [r for r, t in zip(rows, is_test, strict=True) if not t], [
        r for r, t in zip(rows, is_test, strict=True) if t
    ]


def simulate(
    plan: Plan, seeds: Sequence[int], listener: Listener = nobody, memo: Memo | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the test metrics after every round of every seed. A memo serves all of one file and task."""
    gold, memo = read_gold(plan), Memo() if memo is None else memo
    for seed in seeds:
        config = replace(plan.config, seed=seed, batch_size=-(-plan.labels // plan.rounds), retrain_every=0)
        config = replace(config, recipe=replace(config.recipe, seed=seed))
        with tempfile.TemporaryDirectory() as folder, create_project(Path(folder), gold.draft, config) as project:
            test = _fill(project, gold, plan, seed)
            yield from _run_rounds(project, plan, Answers(gold, test, plan.noise, seed), memo, listener)


@dataclass(frozen=True)
class Answers:
    """What the oracle knows: the label of every utterance it may be asked, and of the test's."""

    gold: Gold
    test: Mapping[int, int]  # utterance id -> column of its label
    noise: float = 0.0
    seed: int = 0

    def of(self, external_id: str) -> str:
        """Return the known label's name, or a wrong one where the oracle errs."""
        right = self.truth[external_id]
        return self.mistakes.get(external_id, right)

    @cached_property
    def mistakes(self) -> dict[str, str]:
        """Say where the oracle errs, and what it says there: the same for every strategy."""
        rng = np.random.default_rng([self.seed, 1])
        names = sorted({label.name for label in self.gold.draft.labels})
        wrong = {}
        for row in self.gold.train:
            others = [name for name in names if name.casefold() != (row.given_label or "").casefold()]
            if rng.random() < self.noise:
                wrong[row.external_id] = others[int(rng.integers(len(others)))]
        return wrong

    @cached_property
    def truth(self) -> dict[str, str]:
        """Name the known label of every utterance that may be asked."""
        return {row.external_id: row.given_label or "" for row in self.gold.train}


def _run_rounds(
    project: Project, plan: Plan, known: Answers, memo: Memo, listener: Listener
) -> Iterator[dict[str, Any]]:
    config = project.config
    loaded = load_classifier(config.backbone, codebook_of(project).task(), config.recipe, config.template)
    classifier = Remembering(loaded, memo)
    test = read_texts(project, list(known.test), config.context_turns)
    if config.recipe.probe_weight:
        classifier.remember(test, classifier.states(test))
    if config.strategy != "random":
        run_round(project, classifier, config, Report(listener))  # round 0: zero-shot, as in the app
    for number in range(1, plan.rounds + 1):
        answered = _answer_until(project, known, round(plan.labels * number / plan.rounds), plan.annotators)
        done = run_round(project, classifier, config, Report(listener))
        logits = done.adapter.logits(test)
        if plan.keep:
            told, path = (
                (logits, done.adapter.probe_logits(test)),
                plan.keep / f"labels-{answered}-seed-{config.seed}.npz",
            )
            keep(path, project, done, told, known)
        scores = judge(done, logits, list(known.test.values()))
        yield {
            "strategy": config.strategy,
            "seed": config.seed,
            "round": number,
            "labels": answered,
            "trained_on": done.row["trained_on"],
            "audited_on": done.row["audited_on"],
            "temperature": done.calibrator.temperature,
            **outlook(project, done, known),
            **scores,
        }


def keep(path: Path, project: Project, done: Round, told: tuple[Logits, Logits | None], known: Answers) -> None:
    """Write what a round said where the answer is known: `audit` and `test` logits with the true columns, by name.

    Told are the logits of the test, and those of the scout alone, if there is one: `heard`, made honest by so many
    `lessons`, of which that share was `chosen`. The audit's are those that the round was measured on, blind also where
    they were trained on.
    """
    said = rounds.predictions_of(project.db, done.row)
    order = said.label_ids
    truth = {a["utterance_id"]: order.index(a["label_id"]) for a in annotations.answers(project.db) if a["label_id"]}
    asked = np.array([i in truth for i in said.utterance_ids.tolist()])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        audit=said.logits[asked],
        audit_truth=np.array([truth[i] for i in said.utterance_ids[asked].tolist()], dtype=np.int64),
        test=told[0],
        test_truth=np.array(list(known.test.values()), dtype=np.int64),
        lessons=done.row["trained_on"],
        chosen=take_snapshot(project, project.config, np.random.default_rng(0)).chosen,
        heard=() if told[1] is None else told[1],
    )


def _answer_until(project: Project, known: Answers, target: int, annotators: int = 1) -> int:
    """Answer questions until so many have been answered or none is left; return how many were."""
    codebook = codebook_of(project)
    answered = annotations.counts(project.db)["label"]
    names = [ORACLE, *(f"{ORACLE} {number}" for number in range(2, annotators + 1))]
    while answered < target and (question := next_question(project, names[answered % annotators])):
        label = codebook.id_of(known.of(question.utterance["external_id"]))
        answer(project, question, names[answered % annotators], Answer("label", label))
        answered += 1
    return answered


def judge(done: Round, logits: Logits, truth: Sequence[int]) -> dict[str, Any]:
    """Evaluate on the test split, calibrated, with NLL and ECE before calibration beside it."""
    raw = evaluate(Calibrator(1.0)(logits), truth)
    return {**evaluate(done.calibrator(logits), truth), "raw_nll": raw["nll"], "raw_ece": raw["ece"]}


def outlook(project: Project, done: Round, known: Answers) -> dict[str, Any]:
    """Say whether an expert would be advised to stop here, and what is wrong among the suggestions for the rest.

    How many are expected to be wrong, and how many are, as the oracle knows the answers.
    """
    rest = left(project)
    advice = advise(project, rest)
    said = {"steady": advice.is_steady, "open": 0, "wrong_expected": 0.0, "wrong": 0}
    if rest.view is None:  # everything that the round has scored is answered
        return said
    order, codebook = rounds.labels_of(done.row), codebook_of(project)
    ids = {name: codebook.id_of(name) for name in set(known.truth.values())}
    truth = [ids[known.truth[row["external_id"]]] for row in utterances.read(project.db, rest.pool)]
    wrong = np.array(order)[rest.view.probabilities.argmax(axis=1)] != truth
    return said | {"open": len(wrong), "wrong_expected": advice.wrong, "wrong": int(wrong.sum())}


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return mean and standard deviation over seeds of each seed's last round."""
    last = list({run["seed"]: run for run in runs}.values())
    values = {name: np.array([run[name] for run in last]) for name in SCORES}
    means = {f"mean_{name}": float(value.mean()) for name, value in values.items()}
    spreads = {f"sd_{name}": float(value.std(ddof=1)) if len(value) > 1 else 0.0 for name, value in values.items()}
    return means | spreads


def _fill(project: Project, gold: Gold, plan: Plan, seed: int) -> dict[int, int]:
    """Put a sample of the training rows into the pool, all others in as context; return the test's labels."""
    rng = np.random.default_rng(seed)
    asked = set(rng.permutation(len(gold.train))[: plan.pool_limit].tolist())
    limit = np.random.default_rng(0).permutation(len(gold.test))[: plan.test_limit]  # the same for all seeds
    rows = [
        *(replace(row, context_only=i not in asked) for i, row in enumerate(gold.train)),
        *(replace(row, context_only=True) for row in gold.test),
        *gold.context,
    ]
    place = {name: i for i, name in enumerate(gold.order)}  # turns of the same number are read as the file has them
    rows.sort(key=lambda row: place.get(row.external_id, len(place)))
    ids = dict(zip((row.external_id for row in rows), add_utterances(project, rows), strict=True))
    codebook = codebook_of(project)
    known = [(row.external_id, codebook.id_of(row.given_label or "")) for row in gold.test]
    return {ids[known[i][0]]: codebook.ids.index(_known(known[i][1])) for i in sorted(limit)}


def _known(label_id: int | None) -> int:
    if label_id is None:
        raise BadInput("The file has labels that the codebook has not.", "Add them to the codebook file.")
    return label_id
