"""Are the probabilities honest, and do promises of precision hold? On public data sets with known labels.

    python -m benchmarks.calibration [--quick | --tiny] [--data trec,snips] [--labels 100,200,400] [--seeds 0,1,2]
        [--classifier both|scout] [--strategy random]

Two things, the first for each data set, number of labels and seed:

- a round is made as in `annotator simulate --strategy random`, or after every 20 answers by another strategy, and is
  judged before and after calibration on 1,000 other rows, drawn at random from the whole file: what is promised is
  promised of the pool, and the files' own test splits are other people's sentences (TREC's questions are easier,
  AnnoMI's conversations others). “inside band”: the calibration error after it is one that exactly right
  probabilities would show too at this n, 97.5 times in 100 or more. The more rows, the narrower that band; so the
  same is told of 300 of them, as many as an audit slice has where promises are made. “More”: a hundred of those rows
  are audit answers in addition, and the others judge. The limit: how often a round would be inside that was right in
  everything but its temperature, and learned that from as many answers as the round had. “NLL not worse”: it is not
  above the raw one by more than the raw one's standard error; “paired”, by more than that of the difference, which is
  next to nothing where the two hardly differ. “Temperature within”: it is off by no more than 95 times in 100 allow,
  by the spread that the round takes for it. What a round said is kept in $ANNOTATOR_KEPT and not computed again.
- promises are replayed on what was kept: of those rows an audit slice is drawn at random a thousand times for each
  data set, probabilities are calibrated on it, a threshold is certified on it, and the rest shows whether the promise
  holds. Beside it, accepting everything from 0.9 on, by raw and by calibrated probabilities, which promises nothing.

With --classifier scout, rounds are those of the quick mode, in which nothing is trained: minutes in place of hours.
--quick makes two such rounds on one data set and replays a hundred draws. A share that could not be measured is null.
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
from annotator.methods.calibration import CalibrationPrior, Calibrator, ProbeEvidence, fit_calibrator
from annotator.methods.guarantee import Evidence, Guarantee, NotYet, Target, accepted, certify
from annotator.methods.metrics import calibration_band, evaluate, expected_calibration_error
from annotator.methods.query_strategies import STRATEGIES
from annotator.simulation.memo import Memo
from annotator.simulation.oracle import simulate
from benchmarks.command import RANDOM_WEIGHTS, SCRATCH, Command
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
    quick={"data": ("trec",), "labels": (100, 200), "seeds": (0,), "classifier": "scout", "draws": 100},
    tiny={
        "data": ("client_talk",), "labels": (60,), "seeds": (0,), "epochs": 1, "judged": 100, "audits": (20, 40),
        "more": 20, "draws": 20, "kept": SCRATCH, **RANDOM_WEIGHTS,
    },
    choices={"data": tuple(SETS), "classifier": ("both", "scout"), "strategy": sorted(STRATEGIES)},
    figures=(
        "rounds", "inside_band", "inside_band_limit", "temperature_within", "nll_not_worse", "nll_not_worse_paired",
        "guarantee_holds", "guarantee_by_target",
    ),
    gaps=("guarantee_holds",),
)  # fmt: skip
TARGETS = (0.90, 0.95, 0.98)
BATCH = 20  # answers between two rounds, where a strategy chooses
UNKNOWN = 1.0  # spread of a log temperature of which next to nothing is known
WITHIN = 1.96  # spreads: a log temperature is further off once in twenty times
FIXED = 0.9  # the threshold one would set by hand
Array = NDArray[np.float64]
console = Console(width=120)


@dataclass(frozen=True)
class Kept:
    """What a round said where the answer is known."""

    data: str
    labels: int
    seed: int
    audit: Array  # (a, k) logits
    audit_truth: NDArray[np.int64]
    test: Array  # (n, k) logits
    test_truth: NDArray[np.int64]
    heard: Array  # (n, k) logits of the scout alone
    training_examples: int  # answers that made it honest
    chosen: float  # share of them that were not drawn at random
    share: float  # the scout's, in this round

    @property
    def calibrator(self) -> Calibrator:
        """What the round made of its audit answers."""
        return fit_calibrator(self.audit, self.audit_truth, self.calibration_prior)

    @cached_property
    def calibration_prior(self) -> CalibrationPrior:
        """What is known of the calibrator before an audit answer is looked at; the other rows are its pool."""
        return CalibrationPrior.trained(
            self.share, self.test, ProbeEvidence(self.heard, self.training_examples, self.chosen)
        )


def collect(data: str, labels: int, seed: int, given: Namespace, memo: Memo) -> Kept:
    """Read what a round said, or make the round if it has not been made.

    Given are the classifier, the strategy by which was chosen what it learned from, the backbone, how many rows judge,
    and where rounds are kept.
    """
    way = (
        given.classifier,
        given.strategy,
        Path(given.backbone).name,
        f"{given.epochs}-epochs",
        f"{given.judged}-judge",
    )
    usual = ("both", "random", STARTER, f"{Recipe().epochs}-epochs", f"{JUDGED}-judge")
    folder = Path(given.kept).joinpath(data, *(one for one in way if one not in usual))
    path = folder / f"labels-{labels}-seed-{seed}.npz"
    recipe = Recipe(probe_weight=1.0) if given.classifier == "scout" else Recipe(epochs=given.epochs)
    if not path.exists() or "chosen" not in np.load(path):  # earlier versions kept less
        plan = plan_of(data)
        config = RoundConfig(strategy=given.strategy, recipe=recipe, backbone=given.backbone)
        if given.strategy == "random":
            config = replace(config, score_limit=100)  # the open pool is not judged, and nothing is chosen from it
        else:
            plan = replace(plan, rounds=labels // BATCH)
        wanted = replace(plan, labels=labels, test_limit=given.judged, resplit=True, keep=folder, config=config)
        console.print(f"{data}, {labels} labels, seed {seed} …")
        list(simulate(wanted, [seed], memo=memo))
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in ("audit", "audit_truth", "test", "test_truth", "heard")}
        training_examples, chosen = int(stored["lessons"]), float(stored["chosen"])
        return Kept(
            data, labels, seed, **arrays, training_examples=training_examples, chosen=chosen, share=recipe.probe_weight
        )


def judge(kept: Kept, more: int, few: int) -> dict[str, Any]:
    """Compare a round's probabilities on the test split before and after calibration.

    They are also judged on `few` rows, and after `more` audit answers.
    """
    calibrated, raw = (one(kept.test) for one in (kept.calibrator, Calibrator(1.0)))
    after, before = (evaluate(rows, kept.test_truth) for rows in (calibrated, raw))
    rows = np.arange(len(kept.test_truth))
    loss, lost = (-np.log(said[rows, kept.test_truth]) for said in (raw, calibrated))
    gap = lost - loss  # above 0: made worse
    error, paired = (values.std(ddof=1) / np.sqrt(len(rows)) for values in (loss, gap))
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
    """Say whether the calibration error is one that exactly right probabilities show too."""
    return expected_calibration_error(probabilities, truth) <= calibration_band(probabilities)[1]


def inside_often(kept: Kept, more: int, judging: int | None, draws: int = 10) -> float:
    """Return how often a round is inside the band when `more` of the other rows calibrate, too, and `judging` judge."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        asked, rest = np.split(rng.permutation(len(kept.test_truth)), [more])
        logits = np.concatenate([kept.audit, kept.test[asked]])
        truth = np.concatenate([kept.audit_truth, kept.test_truth[asked]])
        rest = rest[:judging]
        said = fit_calibrator(logits, truth, kept.calibration_prior)(kept.test[rest])
        found.append(inside_band(said, kept.test_truth[rest]))
    return float(np.mean(found))


def spreads_off(kept: Kept) -> float:
    """Return by how many spreads the temperature is too low, what the other rows leave open counted in."""
    told = fit_calibrator(kept.test, kept.test_truth, replace(kept.calibration_prior, spread=UNKNOWN))
    spread = np.hypot(kept.calibrator.spread, told.spread)
    return float(np.log(told.temperature / kept.calibrator.temperature) / spread)


def inside_at_best(kept: Kept, draws: int = 10) -> float:
    """Return how often a round is inside that is right but for a temperature learned from as many answers.

    The world is drawn from the round's own probabilities, at the temperature that is best for the other rows.
    """
    rng = np.random.default_rng(0)
    logits = log_softmax(kept.test / fit_temperature(kept.test, kept.test_truth, spread=UNKNOWN), axis=1)
    said, found = np.exp(logits), []
    for _ in range(draws):
        asked = rng.choice(len(logits), kept.labels)
        temperature = fit_temperature(logits[asked], _draw(rng, said[asked]), spread=UNKNOWN)
        found.append(inside_band(Calibrator(temperature)(logits), _draw(rng, said)))
    return float(np.mean(found))


def _draw(rng: np.random.Generator, probabilities: Array) -> NDArray[np.int64]:
    """Draw a label for each row from what it says."""
    reach = probabilities.cumsum(axis=1)
    return np.asarray((reach < rng.random((len(reach), 1)) * reach[:, -1:]).sum(axis=1))


def replay(kept: Sequence[Kept], answers: int, draws: int) -> dict[float, dict[str, Array]]:
    """Draw audit slices from the test splits; for each target the outcome of every draw, nan where nothing was claimed.

    Returns for each target (draws,) precision and share accepted of the promise and of the two fixed thresholds.
    """
    rng = np.random.default_rng(0)
    found: dict[float, dict[str, list[tuple[float, float]]]] = {t: {} for t in TARGETS}
    for draw in range(draws):
        one = kept[draw % len(kept)]
        order = rng.permutation(len(one.test_truth))
        asked, rest = order[:answers], order[answers:]
        evidence, raw, truth = _evidence(one, asked, rest), Calibrator(1.0)(one.test[rest]), one.test_truth[rest]
        pool = evidence.pool
        for target in TARGETS:
            guarantee = certify(evidence, Target(target))
            ways = {
                "promise": accepted(pool, guarantee if isinstance(guarantee, Guarantee) else {}),
                "fixed, raw": accepted(raw, _fixed()),
                "fixed, calibrated": accepted(pool, _fixed()),
            }
            for name, said in ways.items():
                found[target].setdefault(name, []).append(_outcome(said, truth))
    return {t: {name: np.array(values) for name, values in ways.items()} for t, ways in found.items()}


def peek(kept: Sequence[Kept], most: int, draws: int, target: float = 0.95) -> Array:
    """Look after every 20 of `most` audit answers, accept at the first promise; (draws,) precision, nan for none."""
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
    """Ask how many answers are missing, and give them, and half of them; (m, 2) whether a promise was made then.

    Of the draws that could make none from so many audit answers, those whose round has as many rows as are missing.
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


def _evidence(one: Kept, asked: NDArray[np.int64], rest: NDArray[np.int64]) -> Evidence:
    """Take some rows for the audit slice and others for the pool, calibrated on the former."""
    calibrator = fit_calibrator(one.test[asked], one.test_truth[asked], one.calibration_prior)
    return Evidence(calibrator(one.test[asked]), one.test_truth[asked], calibrator(one.test[rest]), calibrator.spread)


def _fixed() -> Guarantee:
    return Guarantee(Target(FIXED), FIXED, 0, 0, 0)


def _outcome(said: NDArray[np.int64], truth: NDArray[np.int64]) -> tuple[float, float]:
    taken = said >= 0
    return (float((said == truth)[taken].mean()) if taken.any() else float("nan")), float(taken.mean())


def show_rounds(runs: Sequence[tuple[Kept, dict[str, Any]]]) -> None:
    """Print a line for each round."""
    table = Table(title="Other rows, raw → calibrated")
    for column in ("data", "labels", "seed", "n", "accuracy", "ECE", "band to", "NLL", "Brier", "inside", "not worse"):
        table.add_column(column, justify="left" if column == "data" else "right")
    for kept, run in runs:
        before, after = run["before"], run["after"]
        pairs = (f"{before[name]:.3f} → {after[name]:.3f}" for name in ("ece", "nll", "brier"))
        ece, nll, brier = pairs
        cells = (kept.data, kept.labels, kept.seed, after["n"], f"{after['accuracy']:.3f}", ece,
                 f"{after['ece_band'][1]:.3f}", nll, brier, run["inside"], run["not_worse"])  # fmt: skip
        table.add_row(*(str(cell) for cell in cells))
    console.print(table)


def show_replay(data: str, answers: int, outcomes: dict[float, dict[str, Array]]) -> None:
    """Print how often each way claimed something, how often it held, and how much it accepted."""
    table = Table(title=f"{data}: {answers} audit answers")
    for column in ("target", "way", "claims", "precision held", "lowest tenth", "accepted of the pool"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for target, ways in outcomes.items():
        for name, values in ways.items():
            claimed = values[~np.isnan(values[:, 0])]
            held = f"{(claimed[:, 0] >= target).mean():.1%}" if len(claimed) else "–"
            low = f"{np.quantile(claimed[:, 0], 0.1):.3f}" if len(claimed) else "–"
            table.add_row(f"{target:.2f}", name, f"{len(claimed) / len(values):.1%}", held, low,
                          f"{values[:, 1].mean():.1%}")  # fmt: skip
    console.print(table)


def show_promises(data: str, kept: Sequence[Kept], given: Namespace) -> dict[str, NDArray[np.bool_]]:
    """Replay promises and print them; return for each target and size whether each that was made held."""
    held = {}
    for answers in given.audits:
        outcomes = replay(kept, answers, given.draws)
        show_replay(data, answers, outcomes)
        for target, ways in outcomes.items():
            precision = ways["promise"][:, 0]
            held[f"{target} with {answers}"] = precision[~np.isnan(precision)] >= target
    first = peek(kept, max(given.audits), given.draws * 2 // 5)
    held["peeking"] = first[~np.isnan(first)] >= TARGETS[1]
    share = f"{held['peeking'].mean():.1%} of {len(held['peeking'])}" if len(held["peeking"]) else "none"
    console.print(f"{data}: accepting at the first promise of 95 %, looking every 20 answers: {share} promises held")
    foreseen = foresee(kept, max(given.audits), given.draws * 2 // 5)
    if len(foreseen):
        enough, half = foreseen.mean(axis=0)
        console.print(
            f"{data}: asked after 60 answers how many more a promise of 95 % takes, {len(foreseen)} times: "
            f"with so many it was made in {enough:.0%}, with half of them in {half:.0%}"
        )
    return held


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    few = max(given.audits)
    memos: dict[str, Memo] = defaultdict(Memo)  # what is untrained is asked once for each data set
    wanted = product(given.data, given.labels, given.seeds)
    kept = [collect(data, labels, seed, given, memos[data]) for data, labels, seed in wanted]
    runs = [(one, judge(one, given.more, few)) for one in kept]
    show_rounds(runs)
    guarantees = {data: show_promises(data, [one for one in kept if one.data == data], given) for data in given.data}
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
