"""Run the loop with a simulated annotator who answers from known labels.

On a finished project, `simulate` shows how good the model would have been after a given number of answers. All answers
count toward the budget, including audit answers.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import CodebookDraft, draft_from_names
from annotator.config import RoundConfig
from annotator.errors import BadInput, Message
from annotator.exchange.imports import add_utterances
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import Promoted, run_round
from annotator.methods.calibration import Calibrator
from annotator.methods.metrics import evaluate
from annotator.project import Project
from annotator.reporting.stopping import advise, left
from annotator.rounds.planning import planned
from annotator.rounds.progress import Listener, Report, discard
from annotator.rounds.snapshot import read_texts
from annotator.simulation.memo import Memo, Remembering
from annotator.simulation.runs import Outlook, Run
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
    """Settings of a simulation."""

    data: Path
    context: Path | None = None  # more turns of the same conversations, read as context but not labeled
    codebook: CodebookDraft | None = None
    labels: int = 100
    rounds: int = 1
    pool_limit: int | None = 1000
    test_limit: int | None = None
    noise: float = 0.0  # share of answers that are wrong, at random
    annotators: int = 1  # who take turns and make independent errors
    resplit: bool = False  # test on a random fifth of all rows instead of the file's split
    keep: Path | None = None  # folder for each round's logits and known labels, for benchmarks of calibration
    config: RoundConfig = RoundConfig()  # noqa: RUF009  (frozen, hence safe to share)


@dataclass(frozen=True)
class Gold:
    """The rows of a labeled file: for training, for testing, and for context."""

    train: tuple[NewUtterance, ...]
    test: tuple[NewUtterance, ...]
    context: tuple[NewUtterance, ...]
    draft: CodebookDraft
    order: tuple[str, ...] = ()  # external ids in the order of the file, followed by those of the context file


def read_gold(plan: Plan) -> Gold:
    """Read the labeled file and, if given, the file with context turns. Raises BadInput."""
    columns = detect_columns(read_header(plan.data))
    if columns.label is None:
        raise BadInput(
            Message("{name} has no label column.", name=plan.data.name), "Name the column of known labels “label”."
        )
    rows = _accepted(plan.data, ImportPlan(columns, keep_copies=True))
    labeled = [row for row in rows if row.given_label]
    around, order = [row for row in rows if not row.given_label], [row.external_id for row in rows]
    if plan.context:
        turns = _accepted(plan.context, ImportPlan(detect_columns(read_header(plan.context)), keep_copies=True))
        known = {row.external_id for row in rows}  # a full transcript includes the labeled turns
        others = [row for row in turns if row.external_id not in known]
        around, order = around + others, order + [row.external_id for row in others]
    train, test = _split(labeled, None if plan.resplit else columns.split)
    if len({row.given_label for row in train}) < 2:
        raise BadInput(Message("{name} has only one label.", name=plan.data.name), "Use a file with at least two.")
    draft = plan.codebook or draft_from_names(sorted({row.given_label or "" for row in labeled}))
    context = tuple(replace(row, context_only=True) for row in around)
    return Gold(tuple(train), tuple(test), context, draft, tuple(order))


def _accepted(path: Path, plan: ImportPlan) -> list[NewUtterance]:
    return [row for row in read_utterances(path, plan) if not isinstance(row, Rejected)]


def _split(rows: list[NewUtterance], column: str | None) -> tuple[list[NewUtterance], list[NewUtterance]]:
    """Split rows into training and test by the file's split column; without one, test on a random fifth."""
    if column:
        is_test = np.array([row.metadata.get(column) == "test" for row in rows])
    else:
        is_test = np.random.default_rng(0).random(len(rows)) < 0.2
    if not is_test.any() or is_test.all():
        raise BadInput(
            Message("{n} of {n2} rows are test rows.", n=int(is_test.sum()), n2=len(rows)),
            "Mark some rows as test, not all.",
        )
    return [r for r, t in zip(rows, is_test, strict=True) if not t], [
        r for r, t in zip(rows, is_test, strict=True) if t
    ]


def simulate(plan: Plan, seeds: Sequence[int], listener: Listener = discard, memo: Memo | None = None) -> Iterator[Run]:
    """Yield the figures after every round of every seed. A memo can be shared by plans with one file and task."""
    gold, memo = read_gold(plan), Memo() if memo is None else memo
    for seed in seeds:
        config = replace(plan.config, seed=seed, batch_size=-(-plan.labels // plan.rounds), retrain_every=0)
        config = replace(config, recipe=replace(config.recipe, seed=seed))
        with tempfile.TemporaryDirectory() as folder, create_project(Path(folder), gold.draft, config) as project:
            test = fill(project, gold, plan, seed)
            yield from _run_rounds(project, plan, Answers(gold, test, plan.noise, seed), memo, listener)


@dataclass(frozen=True)
class Answers:
    """The known labels of training and test utterances, and the oracle's errors."""

    gold: Gold
    test: Mapping[int, int]  # utterance id -> column of the known label
    noise: float = 0.0
    seed: int = 0

    def of(self, external_id: str) -> str:
        """Return the name of the known label, or a wrong one where the oracle makes an error."""
        right = self.truth[external_id]
        return self.mistakes.get(external_id, right)

    @cached_property
    def mistakes(self) -> dict[str, str]:
        """Wrong answers by external id, the same for every strategy."""
        rng = np.random.default_rng([self.seed, 1])
        names = sorted({label.name for label in self.gold.draft.leaves})
        wrong = {}
        for row in self.gold.train:
            others = [name for name in names if name.casefold() != (row.given_label or "").casefold()]
            if rng.random() < self.noise:
                wrong[row.external_id] = others[int(rng.integers(len(others)))]
        return wrong

    @cached_property
    def truth(self) -> dict[str, str]:
        """Names of the known labels of training rows, by external id."""
        return {row.external_id: row.given_label or "" for row in self.gold.train}


def _run_rounds(project: Project, plan: Plan, known: Answers, memo: Memo, listener: Listener) -> Iterator[Run]:
    config = planned(project, project.config)
    task = codebook_of(project).task()
    loaded = load_classifier(config.backbone, task, config.recipe, config.template, project.cache)
    classifier = Remembering(loaded, memo)
    test = read_texts(project, list(known.test), config.context_turns)
    if config.recipe.probe_weight:
        classifier.remember(test, classifier.states(test))
    if config.strategy != "random":
        run_round(project, classifier, config, Report(listener))  # round 0: zero-shot, as in the app
    for number in range(1, plan.rounds + 1):
        answered = answer_until(project, known, round(plan.labels * number / plan.rounds), plan.annotators)
        done = run_round(project, classifier, config, Report(listener))
        logits = done.adapter.logits(test)
        if plan.keep:
            path = plan.keep / f"labels-{answered}-seed-{config.seed}.npz"
            keep(path, project, done, (logits, done.adapter.probe_logits(test)), known)
        raw, metrics = (evaluate(to(logits), list(known.test.values())) for to in (Calibrator(1.0), done.calibrator))
        yield Run(
            config.strategy,
            config.seed,
            number,
            answered,
            done.row.trained_on,
            done.row.audited_on,
            done.calibrator.temperature,
            raw.nll,
            raw.ece,
            outlook(project, done, known),
            metrics,
        )


def keep(path: Path, project: Project, done: Promoted, test: tuple[Logits, Logits | None], known: Answers) -> None:
    """Write a round's log-likelihoods with known labels to an .npz file: arrays `audit` and `test` with `…_truth`.

    `test` holds the log-likelihoods of the test rows by the round, and `probe` those by its probe alone, if there is
    one. `examples` is the number of training examples. The round was measured on the log-likelihoods in `audit`.
    """
    predictions = rounds.predictions_of(project.db, done.row)
    order = predictions.label_ids
    truth = {a.utterance_id: order.index(a.label_id) for a in annotations.answers(project.db) if a.label_id}
    is_answered = np.array([i in truth for i in predictions.utterance_ids.tolist()])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        audit=predictions.logits[is_answered],
        audit_truth=np.array([truth[i] for i in predictions.utterance_ids[is_answered].tolist()], dtype=np.int64),
        test=test[0],
        test_truth=np.array(list(known.test.values()), dtype=np.int64),
        probe=() if test[1] is None else test[1],
        examples=done.row.trained_on,
    )


def answer_until(project: Project, known: Answers, target: int, annotators: int = 1) -> int:
    """Answer questions until `target` answers exist or no question is left; return the number of answers."""
    codebook = codebook_of(project)
    answered = annotations.counts(project.db)["label"]
    names = [ORACLE, *(f"{ORACLE} {number}" for number in range(2, annotators + 1))]
    while answered < target and (question := next_question(project, names[answered % annotators])):
        label = codebook.id_of(known.of(question.utterance.external_id))
        answer(project, question, names[answered % annotators], Answer("label", label))
        answered += 1
    return answered


def outlook(project: Project, done: Promoted, known: Answers) -> Outlook:
    """Return whether the advice is to stop, with the expected and the actual number of wrong open suggestions."""
    rest = left(project)
    advice = advise(project, rest)
    if rest.view is None or advice.wrong is None:  # every utterance the round has scored is answered
        return Outlook(advice.is_steady)
    order, codebook = done.row.label_ids, codebook_of(project)
    ids = {name: codebook.id_of(name) for name in set(known.truth.values())}
    truth = [ids[known.truth[row.external_id]] for row in utterances.read(project.db, rest.pool)]
    wrong = np.array(order)[rest.view.probabilities.argmax(axis=1)] != truth
    return Outlook(advice.is_steady, len(wrong), advice.wrong, int(wrong.sum()))


def summarize(runs: Sequence[Run]) -> dict[str, float]:
    """Return the mean and standard deviation of each score over seeds, from each seed's last round."""
    last = {run.seed: run.metrics for run in runs}.values()
    values = {name: np.array([getattr(metrics, name) for metrics in last]) for name in SCORES}
    means = {f"mean_{name}": float(value.mean()) for name, value in values.items()}
    spreads = {f"sd_{name}": float(value.std(ddof=1)) if len(value) > 1 else 0.0 for name, value in values.items()}
    return means | spreads


def fill(project: Project, gold: Gold, plan: Plan, seed: int) -> dict[int, int]:
    """Add a sample of the training rows as pool and all other rows as context; return the test labels by id."""
    rng = np.random.default_rng(seed)
    pool = set(rng.permutation(len(gold.train))[: plan.pool_limit].tolist())
    limit = np.random.default_rng(0).permutation(len(gold.test))[: plan.test_limit]  # the same for all seeds
    rows = [
        *(replace(row, context_only=i not in pool) for i, row in enumerate(gold.train)),
        *(replace(row, context_only=True) for row in gold.test),
        *gold.context,
    ]
    place = {name: i for i, name in enumerate(gold.order)}  # keeps turns with the same number in file order
    rows.sort(key=lambda row: place.get(row.external_id, len(place)))
    ids = dict(zip((row.external_id for row in rows), add_utterances(project, rows), strict=True))
    codebook = codebook_of(project)
    known = [(row.external_id, codebook.id_of(row.given_label or "")) for row in gold.test]
    return {ids[known[i][0]]: codebook.ids.index(_present(known[i][1])) for i in sorted(limit)}


def _present(label_id: int | None) -> int:
    if label_id is None:
        raise BadInput("The file has labels that the codebook lacks.", "Add them to the codebook file.")
    return label_id
