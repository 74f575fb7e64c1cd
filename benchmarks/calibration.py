"""Test on labeled data sets whether probabilities are calibrated and whether guarantees of precision hold.

    python -m benchmarks.calibration [--quick | --tiny] [--data trec,snips] [--labels 100,200,400] [--seeds 0,1,2]
        [--classifier both|probe] [--strategy random]

Calibration is measured for each data set, number of labels and seed. A round is made as in `annotator simulate
--strategy random`, or after every 20 answers with another strategy. Its probabilities are evaluated before and after
calibration on 1,000 other rows drawn at random from the whole file. The files' own test splits are not used: guarantees
are about the pool, and the test splits differ from it (TREC's have easier questions, AnnoMI's other conversations).
Log-likelihoods of rounds are kept in $ANNOTATOR_KEPT and not computed again.

- inside_band: the calibration error lies within the band of exactly right probabilities at this n (97.5 % quantile).
  More rows make the band narrower, so the figure is also given for 300 rows, the size of an audit sample that makes
  guarantees, and with 100 of the rows moved to the audit sample (“more”).
- inside_band_limit: the same for a reference that is correct except for temperature, which is fitted on the same
  number of answers.
- nll_not_worse: calibration raises the NLL by no more than its standard error; “paired” uses the standard error of the
  difference, which is close to 0 where the two hardly differ.
- temperature_within: the temperature is within the 95 % interval that follows from the round's spread.

Guarantees are replayed on the same log-likelihoods. A thousand times for each data set, an audit sample is drawn at
random from the rows; probabilities are calibrated and a threshold is certified on it, and the other rows show whether
the guarantee holds. For comparison, everything from 0.9 on is accepted by raw and by calibrated probabilities, without
a guarantee.

With --classifier probe nothing is fine-tuned, which takes minutes instead of hours. --quick makes two such rounds on
one data set and replays a hundred draws. A share that could not be measured is null.
"""

import os
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import log_softmax

from annotator.config import RoundConfig
from annotator.methods.calibration import CalibrationPrior, Calibrator, fit_calibrator
from annotator.methods.guarantee import Evidence, Guarantee, NotYet, Target, accepted, certify
from annotator.methods.metrics import calibration_band, evaluate, expected_calibration_error
from annotator.methods.query_strategies import STRATEGIES
from annotator.simulation.memo import Memo
from annotator.simulation.oracle import simulate
from benchmarks.command import PROBE_NAMES, RANDOM_WEIGHTS, SCRATCH, Command
from benchmarks.data import PUBLIC, SETS, plan_of
from benchmarks.measure import print_last
from model.backbones.catalog import STARTER
from model.probe.scaling import fit_temperature
from model.recipe import Recipe

KEPT = os.environ.get("ANNOTATOR_KEPT", str(Path.home() / ".cache" / "annotator" / "kept"))
JUDGED = 1000
COMMAND = Command(
    __doc__,
    full={
        "data": tuple(name for name in PUBLIC if name != "banking77"), "labels": (100, 200, 400), "seeds": (0, 1, 2),
        "classifier": "both", "strategy": "random", "epochs": Recipe().epochs, "judged": JUDGED, "audits": (100, 300),
        "more": 100, "draws": 1000, "kept": KEPT, "backbone": STARTER,
    },
    quick={"data": ("trec",), "labels": (100, 200), "seeds": (0,), "classifier": "probe", "draws": 100},
    tiny={
        "data": ("client_talk",), "labels": (60,), "seeds": (0,), "epochs": 1, "judged": 100, "audits": (20, 40),
        "more": 20, "draws": 20, "kept": SCRATCH, **RANDOM_WEIGHTS,
    },
    choices={"data": tuple(SETS), "classifier": ("both", *PROBE_NAMES), "strategy": sorted(STRATEGIES)},
    figures=(
        "rounds", "inside_band", "inside_band_limit", "temperature_within", "nll_not_worse", "nll_not_worse_paired",
        "guarantee_holds", "guarantee_by_target",
    ),
    gaps=("guarantee_holds",),
)  # fmt: skip
TARGETS = (0.90, 0.95, 0.98)
BATCH = 20  # answers between two rounds with a strategy other than random
UNKNOWN = 1.0  # a nearly flat prior: standard deviation of the log temperature
WITHIN = 1.96  # standard deviations in a 95 % interval
FIXED = 0.9  # a threshold set by hand
Array = NDArray[np.float64]
console = Console(width=120)


@dataclass(frozen=True)
class Kept:
    """A round's log-likelihoods for rows with known labels."""

    data: str
    labels: int
    seed: int
    audit: Array  # (a, k) logits
    audit_truth: NDArray[np.int64]
    test: Array  # (n, k) logits
    test_truth: NDArray[np.int64]
    probe: Array  # (n, k) logits of the probe alone
    training_examples: int  # number of them, on which the probe is calibrated
    share: float  # weight of the probe in this round

    @property
    def calibrator(self) -> Calibrator:
        """The calibrator fitted to the round's audit answers."""
        return fit_calibrator(self.audit, self.audit_truth, self.calibration_prior)

    @cached_property
    def calibration_prior(self) -> CalibrationPrior:
        """Return the calibrator's prior before any audit answer is used; the other rows are its pool."""
        return CalibrationPrior.trained(self.test, self.probe, self.training_examples, 1 - self.share)


def collect(data: str, labels: int, seed: int, given: Namespace, memo: Memo) -> Kept:
    """Read a kept round, or make it.

    `given` holds the classifier, the query strategy, the backbone, the number of test rows and the folder of rounds.
    """
    way = (
        # Folders keep the name of earlier versions, so that their rounds are found.
        "scout" if given.classifier in PROBE_NAMES else given.classifier,
        given.strategy,
        Path(given.backbone).name,
        f"{given.epochs}-epochs",
        f"{given.judged}-judge",
    )
    usual = ("both", "random", STARTER, f"{Recipe().epochs}-epochs", f"{JUDGED}-judge")
    folder = Path(given.kept).joinpath(data, *(one for one in way if one not in usual))
    path = folder / f"labels-{labels}-seed-{seed}.npz"
    recipe = Recipe(probe_weight=1.0) if given.classifier in PROBE_NAMES else Recipe(epochs=given.epochs)
    if not path.exists() or "examples" not in np.load(path):  # of an earlier version
        plan = plan_of(data)
        config = RoundConfig(strategy=given.strategy, recipe=recipe, backbone=given.backbone)
        if given.strategy == "random":
            config = replace(config, score_limit=100)  # the open pool is neither tested nor queried
        else:
            plan = replace(plan, rounds=labels // BATCH)
        wanted = replace(plan, labels=labels, test_limit=given.judged, resplit=True, keep=folder, config=config)
        console.print(f"{data}, {labels} labels, seed {seed} …")
        list(simulate(wanted, [seed], memo=memo))
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in ("audit", "audit_truth", "test", "test_truth", "probe")}
        return Kept(data, labels, seed, **arrays, training_examples=int(stored["examples"]), share=recipe.probe_weight)


def evaluate_round(kept: Kept, more: int, few: int) -> dict[str, Any]:
    """Evaluate a round's probabilities on the test rows before and after calibration.

    Also on `few` rows only, and with `more` audit answers.
    """
    calibrated, raw = (one(kept.test) for one in (kept.calibrator, Calibrator(1.0)))
    after, before = (evaluate(rows, kept.test_truth) for rows in (calibrated, raw))
    rows = np.arange(len(kept.test_truth))
    raw_loss, loss = (-np.log(one[rows, kept.test_truth]) for one in (raw, calibrated))
    gap = loss - raw_loss  # above 0: calibration made it worse
    error, paired = (values.std(ddof=1) / np.sqrt(len(rows)) for values in (raw_loss, gap))
    return {
        "before": before,
        "after": after,
        "inside": inside_band(calibrated, kept.test_truth),
        "inside_few": inside_often(kept, 0, few),
        "inside_given_more": inside_often(kept, more, None),
        "inside_at_best": inside_at_best(kept),
        "temperature_within": abs(spreads_off(kept)) <= WITHIN,
        "not_worse": bool(gap.mean() <= error),
        "not_worse_paired": bool(gap.mean() <= paired),
    }


def inside_band(probabilities: Array, truth: NDArray[np.int64]) -> bool:
    """Return whether the calibration error is within the band of exactly right probabilities."""
    return expected_calibration_error(probabilities, truth) <= calibration_band(probabilities)[1]


def inside_often(kept: Kept, more: int, tests: int | None, draws: int = 10) -> float:
    """Return the share of draws inside the band, with `more` rows moved to calibration and `tests` rows for testing."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        moved, rest = np.split(rng.permutation(len(kept.test_truth)), [more])
        logits = np.concatenate([kept.audit, kept.test[moved]])
        truth = np.concatenate([kept.audit_truth, kept.test_truth[moved]])
        rest = rest[:tests]
        probabilities = fit_calibrator(logits, truth, kept.calibration_prior)(kept.test[rest])
        found.append(inside_band(probabilities, kept.test_truth[rest]))
    return float(np.mean(found))


def spreads_off(kept: Kept) -> float:
    """Return how many standard deviations the temperature is too low, including those of the reference temperature."""
    reference = fit_calibrator(kept.test, kept.test_truth, replace(kept.calibration_prior, spread=UNKNOWN))
    spread = np.hypot(kept.calibrator.spread, reference.spread)
    return float(np.log(reference.temperature / kept.calibrator.temperature) / spread)


def inside_at_best(kept: Kept, draws: int = 10) -> float:
    """Return the share of draws inside the band for a reference that is correct except for its fitted temperature.

    True labels are drawn from the round's own probabilities at the temperature that fits the other rows best.
    """
    rng = np.random.default_rng(0)
    logits = log_softmax(kept.test / fit_temperature(kept.test, kept.test_truth, spread=UNKNOWN), axis=1)
    probabilities, found = np.exp(logits), []
    for _ in range(draws):
        answered = rng.choice(len(logits), kept.labels)
        temperature = fit_temperature(logits[answered], _draw(rng, probabilities[answered]), spread=UNKNOWN)
        found.append(inside_band(Calibrator(temperature)(logits), _draw(rng, probabilities)))
    return float(np.mean(found))


def _draw(rng: np.random.Generator, probabilities: Array) -> NDArray[np.int64]:
    """Draw a label for each row from its probabilities."""
    reach = probabilities.cumsum(axis=1)
    return np.asarray((reach < rng.random((len(reach), 1)) * reach[:, -1:]).sum(axis=1))


def replay(kept: Sequence[Kept], answers: int, draws: int) -> dict[float, dict[str, Array]]:
    """Draw audit samples from the test rows and accept by the guarantee and by two fixed thresholds.

    Returns for each target and way (draws, 2): precision, nan where nothing was accepted, and share accepted.
    """
    rng = np.random.default_rng(0)
    found: dict[float, dict[str, list[tuple[float, float]]]] = {t: {} for t in TARGETS}
    for draw in range(draws):
        one = kept[draw % len(kept)]
        order = rng.permutation(len(one.test_truth))
        audit, rest = order[:answers], order[answers:]
        evidence, raw, truth = _evidence(one, audit, rest), Calibrator(1.0)(one.test[rest]), one.test_truth[rest]
        pool = evidence.pool
        for target in TARGETS:
            guarantee = certify(evidence, Target(target))
            ways = {
                "guarantee": accepted(pool, guarantee if isinstance(guarantee, Guarantee) else {}),
                "fixed, raw": accepted(raw, _fixed()),
                "fixed, calibrated": accepted(pool, _fixed()),
            }
            for name, labels in ways.items():
                found[target].setdefault(name, []).append(_outcome(labels, truth))
    return {t: {name: np.array(values) for name, values in ways.items()} for t, ways in found.items()}


def peek(kept: Sequence[Kept], most: int, draws: int, target: float = 0.95) -> Array:
    """Check after every 20 of `most` audit answers, accept at the first guarantee; (draws,) precision, nan for none."""
    rng, found = np.random.default_rng(1), np.full(draws, np.nan)
    for draw in range(draws):
        one = kept[draw % len(kept)]
        order = rng.permutation(len(one.test_truth))
        rest = order[most:]
        for answers in range(min(60, most), most + 1, 20):
            evidence = _evidence(one, order[:answers], rest)
            guarantee = certify(evidence, Target(target))
            if isinstance(guarantee, Guarantee):
                found[draw] = _outcome(accepted(evidence.pool, guarantee), one.test_truth[rest])[0]
                break
    return found


def foresee(kept: Sequence[Kept], most: int, draws: int, target: float = 0.95) -> Array:
    """Add the number of answers reported as missing, or half of it; (m, 2) whether there was a guarantee then.

    Uses the draws without a guarantee at first whose round has enough rows for the missing answers.
    """
    rng, found, answers = np.random.default_rng(2), [], min(60, most)
    for draw in range(draws):
        one = kept[draw % len(kept)]
        order = rng.permutation(len(one.test_truth))
        made = certify(_evidence(one, order[:answers], order[answers:]), Target(target))
        if isinstance(made, NotYet) and made.missing and answers + made.missing <= len(order) - most:
            given = (answers + made.missing, answers + made.missing // 2)
            later = (certify(_evidence(one, order[:n], order[n:]), Target(target)) for n in given)
            found.append([isinstance(guarantee, Guarantee) for guarantee in later])
    return np.array(found, dtype=float).reshape(-1, 2)


def _evidence(one: Kept, audit: NDArray[np.int64], rest: NDArray[np.int64]) -> Evidence:
    """Return evidence with some rows as audit sample and others as pool, calibrated on the audit sample."""
    calibrator = fit_calibrator(one.test[audit], one.test_truth[audit], one.calibration_prior)
    return Evidence(calibrator(one.test[audit]), one.test_truth[audit], calibrator(one.test[rest]), calibrator.spread)


def _fixed() -> Guarantee:
    return Guarantee(Target(FIXED), FIXED, 0, 0, 0)


def _outcome(labels: NDArray[np.int64], truth: NDArray[np.int64]) -> tuple[float, float]:
    taken = labels >= 0
    return (float((labels == truth)[taken].mean()) if taken.any() else float("nan")), float(taken.mean())


def show_rounds(runs: Sequence[tuple[Kept, dict[str, Any]]]) -> None:
    """Print a line for each round."""
    table = Table(title="Other rows, raw → calibrated")
    for column in ("data", "labels", "seed", "n", "accuracy", "ECE", "band to", "NLL", "Brier", "inside", "not worse"):
        table.add_column(column, justify="left" if column == "data" else "right")
    for kept, run in runs:
        before, after = run["before"], run["after"]
        ece = f"{before.ece:.3f} → {after.ece:.3f}"
        nll = f"{before.nll:.3f} → {after.nll:.3f}"
        brier = f"{before.brier:.3f} → {after.brier:.3f}"
        cells = (kept.data, kept.labels, kept.seed, after.n, f"{after.accuracy:.3f}", ece,
                 f"{after.ece_band[1]:.3f}", nll, brier, run["inside"], run["not_worse"])  # fmt: skip
        table.add_row(*(str(cell) for cell in cells))
    console.print(table)


def show_replay(data: str, answers: int, outcomes: dict[float, dict[str, Array]]) -> None:
    """Print how often each way accepted anything, how often its precision held, and how much it accepted."""
    table = Table(title=f"{data}: {answers} audit answers")
    for column in ("target", "way", "accepts", "precision held", "lowest tenth", "accepted of the pool"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for target, ways in outcomes.items():
        for name, values in ways.items():
            claimed = values[~np.isnan(values[:, 0])]
            held = f"{(claimed[:, 0] >= target).mean():.1%}" if len(claimed) else "–"
            low = f"{np.quantile(claimed[:, 0], 0.1):.3f}" if len(claimed) else "–"
            table.add_row(f"{target:.2f}", name, f"{len(claimed) / len(values):.1%}", held, low,
                          f"{values[:, 1].mean():.1%}")  # fmt: skip
    console.print(table)


def show_guarantees(data: str, kept: Sequence[Kept], given: Namespace) -> dict[str, NDArray[np.bool_]]:
    """Replay and print guarantees; return for each target and size whether each guarantee held."""
    held = {}
    for answers in given.audits:
        outcomes = replay(kept, answers, given.draws)
        show_replay(data, answers, outcomes)
        for target, ways in outcomes.items():
            precision = ways["guarantee"][:, 0]
            held[f"{target} with {answers}"] = precision[~np.isnan(precision)] >= target
    first = peek(kept, max(given.audits), given.draws * 2 // 5)
    held["peeking"] = first[~np.isnan(first)] >= TARGETS[1]
    share = f"{held['peeking'].mean():.1%} of {len(held['peeking'])}" if len(held["peeking"]) else "none"
    console.print(f"{data}: accepting at the first guarantee of 95 %, checked every 20 answers: {share} held")
    foreseen = foresee(kept, max(given.audits), given.draws * 2 // 5)
    if len(foreseen):
        enough, half = foreseen.mean(axis=0)
        console.print(
            f"{data}: answers missing for a guarantee of 95 % after 60 answers, {len(foreseen)} estimates: "
            f"with that many it was made in {enough:.0%}, with half of them in {half:.0%}"
        )
    return held


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    few = max(given.audits)
    memos: dict[str, Memo] = defaultdict(Memo)  # untrained results are shared within a data set
    wanted = product(given.data, given.labels, given.seeds)
    kept = [collect(data, labels, seed, given, memos[data]) for data, labels, seed in wanted]
    runs = [(one, evaluate_round(one, given.more, few)) for one in kept]
    show_rounds(runs)
    guarantees = {data: show_guarantees(data, [one for one in kept if one.data == data], given) for data in given.data}
    held = {(data, target): made for data, found in guarantees.items() for target, made in found.items() if len(made)}
    certified = [made for (_, target), made in held.items() if target != "peeking"]

    def share(name: str) -> float:
        return round(float(np.mean([run[name] for _, run in runs])), 3)

    result: dict[str, Any] = {
        "rounds": len(runs),
        "inside_band": share("inside"),
        f"inside_band_{few}": share("inside_few"),
        f"inside_band_{given.more}_more": share("inside_given_more"),
        "inside_band_limit": share("inside_at_best"),
        "temperature_within": share("temperature_within"),
        "nll_not_worse": share("not_worse"),
        "nll_not_worse_paired": share("not_worse_paired"),
        "guarantee_holds": round(float(np.mean(np.concatenate(certified))), 4) if certified else None,
        "guarantee_by_target": {f"{d} {t}": round(float(made.mean()), 3) for (d, t), made in held.items()},
    }
    print_last(result)


if __name__ == "__main__":
    main()
