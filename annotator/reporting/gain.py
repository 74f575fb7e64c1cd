"""What another batch is expected to give: how the scout's errors have fallen with its answers, carried on.

A scout is taught a quarter, half, three quarters and all of the answers that teach, and is judged on the audit answers,
which were drawn at random and teach it nothing. The share of errors is taken to fall as a power of the answers
(Figueroa et al. 2012, BMC Medical Informatics and Decision Making 12:8). What came of it in simulations:
`python -m benchmarks.gain`.
"""

import numpy as np

from annotator.codebook.definition import codebook_of
from annotator.project import Project
from annotator.reporting.learning_curve import Answered, answered, drawn_at_random, hits
from annotator.rounds.cache import Cache, cache_key
from annotator.rounds.candidates import probe_in_use
from annotator.rounds.snapshot import training_labels
from model.finite import check_finite
from model.probe.probe import Probe
from store import states

EXAMPLES, JUDGES = 40, 20  # answers of which fewer tell next to nothing
MOST = 200  # lessons that are looked at: the curve is carried on from there, and a page waits for it
QUARTERS = (1, 2, 3, 4)
DRAWS = 3  # of each part of the lessons, as one draw says little


def expected_gain(training_examples: Answered, judges: Answered, probe: Probe, more: int) -> float | None:
    """Return what share of all utterances so many more answers are expected to put right; None with too few to tell.

    `scout` knows the codebook's words and what its voices are worth.
    """
    if len(training_examples) < EXAMPLES or len(judges) < JUDGES:
        return None
    most, rng = min(len(training_examples), MOST), np.random.default_rng(0)
    sizes = [most * quarter // QUARTERS[-1] for quarter in QUARTERS]
    wrong = [1 - _right(training_examples, judges, probe, size, rng) for size in sizes]
    least = 1 / (2 * len(judges))  # no error at all among so few is no proof that there are none
    fall, start = np.polyfit(np.log(sizes), np.log(np.maximum(wrong, least)), 1)
    now, then = np.exp(start + min(fall, 0.0) * np.log([len(training_examples), len(training_examples) + more]))
    check_finite("errors of the scout", now - then)
    return float(now - then)


def _right(training_examples: Answered, judges: Answered, probe: Probe, size: int, rng: np.random.Generator) -> float:
    draws = DRAWS if size < len(training_examples) else 1  # all of them can be drawn in one way only
    taught = (rng.permutation(len(training_examples))[:size] for _ in range(draws))
    return float(np.mean([hits(training_examples.at(rows), judges, probe).mean() for rows in taught]))


_cache: Cache[float | None] = Cache()


def recent_gain(project: Project, wait: bool = True) -> float | None:
    """Return what share of utterances another batch is expected to put right; anew for every round and few answers.

    Without `wait` only what is known already.
    """
    order, more = codebook_of(project).ids, project.config.batch_size
    drawn, training_examples = drawn_at_random(project, order), training_labels(project, order)
    known = states.known(project.db, list(training_examples))
    taught = {i: column for i, column in training_examples.items() if i in known and i not in drawn}
    if len(taught) < EXAMPLES or len(drawn) < JUDGES:
        return None

    def find() -> float | None:
        teaching, judging = answered(project, taught), answered(project, drawn)
        return expected_gain(teaching, judging, probe_in_use(project, order, teaching.states.shape[1]), more)

    rests_on = cache_key(project, len(taught), len(drawn)), more
    return _cache.get(rests_on, find) if wait or _cache.has(rests_on) else None
