"""What another batch is expected to give: how the scout's errors have fallen with its answers, carried on.

A scout is taught a quarter, half, three quarters and all of the answers that teach, and is judged on the audit answers,
which were drawn at random and teach it nothing. The share of errors is taken to fall as a power of the answers
(Figueroa et al. 2012, BMC Medical Informatics and Decision Making 12:8). What came of it in simulations:
`python -m benchmarks.gain`.
"""

import numpy as np

from annotator.pool import round_scout
from annotator.project import Project
from annotator.teaching import Answered, answered, drawn_at_random, hits
from model.scout import Scout
from store import rounds, states

LESSONS, JUDGES = 40, 20  # answers of which fewer tell next to nothing
MOST = 500  # lessons that are looked at: the curve is carried on from there, and a page need not wait long
QUARTERS = (1, 2, 3, 4)
DRAWS = 5  # of each part of the lessons, as one draw says little
FEW = 10  # answers that change little


def expected_gain(lessons: Answered, judges: Answered, scout: Scout, more: int) -> float | None:
    """Return what share of all utterances so many more answers are expected to put right; None with too few to tell.

    `scout` knows the codebook's words and what its voices are worth.
    """
    if len(lessons) < LESSONS or len(judges) < JUDGES:
        return None
    most, rng = min(len(lessons), MOST), np.random.default_rng(0)
    sizes = [most * quarter // QUARTERS[-1] for quarter in QUARTERS]
    wrong = [1 - _right(lessons, judges, scout, size, rng) for size in sizes]
    least = 1 / (2 * len(judges))  # no error at all among so few is no proof that there are none
    fall, start = np.polyfit(np.log(sizes), np.log(np.maximum(wrong, least)), 1)
    now, then = np.exp(start + min(fall, 0.0) * np.log([len(lessons), len(lessons) + more]))
    return float(now - then)


def _right(lessons: Answered, judges: Answered, scout: Scout, size: int, rng: np.random.Generator) -> float:
    draws = DRAWS if size < len(lessons) else 1  # all of them can be drawn in one way only
    taught = (rng.permutation(len(lessons))[:size] for _ in range(draws))
    return float(np.mean([hits(lessons.at(rows), judges, scout).mean() for rows in taught]))


_recent: dict[tuple[object, ...], float | None] = {}  # the last one: to judge anew takes seconds


def recent_gain(project: Project) -> float | None:
    """Return what share of utterances another batch is expected to put right; anew for every round and few answers."""
    order, promoted = project.codebook().ids, rounds.promoted(project.db)
    drawn = drawn_at_random(project, order)
    taught = {i: column for i, column in project.lessons(order).items() if i not in drawn}
    more, known = project.config.batch_size, states.known(project.db, list(taught))
    taught = {i: column for i, column in taught.items() if i in known}
    if promoted is None or len(taught) < LESSONS or len(drawn) < JUDGES:
        return None
    key = str(project.folder.resolve()), promoted["id"], len(taught) // FEW, len(drawn) // FEW, order, more
    if key not in _recent:
        lessons = answered(project, taught)
        scout = round_scout(project, order, lessons.states.shape[1])
        found = expected_gain(lessons, answered(project, drawn), scout, more)
        _recent.clear()
        _recent[key] = found
    return _recent[key]
