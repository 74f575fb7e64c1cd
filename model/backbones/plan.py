"""Choose how a round runs on a machine: the fastest plan that fits into its memory. Imports nothing heavy.

A plan fixes the settings that memory depends on: precision, 4-bit weights, checkpointing, tokens in a row, and the
optimizer. A setting that differs from its default is the user's and stays; the others are free. All combinations are
compared (`best_first`). Those that fit come first, and among them those that leave results as they are: rows and
checkpointing do, 4-bit weights, another precision and an 8-bit optimizer do not. Then the cost decides (`_cost`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

from annotator.errors import BackboneRefused, Message
from model.backbones.catalog import SHAPES, STARTER
from model.backbones.memory import BF16, FP32, Job, in_gb, layers_through, peak, row_of
from model.recipe import LEAST_TOKENS, Recipe

FREE: dict[str, tuple[Any, ...]] = {  # settings a plan may choose, the default first
    "precision": ("auto", "bf16"),
    "quantization": ("none", "nf4"),
    "checkpointing": (False, True),
    "row_tokens": (1024, 512, 256, 128, LEAST_TOKENS),
    "optimizer": ("adamw", "paged_adamw", "adamw_8bit"),
}
LABELS = 200  # of the round whose time is compared

# The cost model. A unit is one token in one pass through the layers, at the machine's own precision.
_PASSES = 2  # in training, forward and backward; full tuning has one more, for the gradients of the weights
_RECOMPUTING = 1  # with checkpointing, the forward pass once more
_UNPACKING = {True: 200, False: 100}  # tokens in whose time 4-bit weights are unpacked, by GPU or not
_SLOW = {FP32: 2.0, BF16: 4.0}  # a precision that is not the machine's own
_AMPLE = 0.9  # of the free memory, which the plan of a recommended backbone may need
_PATIENCE = 4  # times the starter's time, which a larger backbone may take on a processor
_STEPS = {"adamw": 1.0, "adamw_8bit": 1.02, "paged_adamw": 1.1, "paged_adamw_8bit": 1.1}


@dataclass(frozen=True)
class Plan:
    """One way to run a round: the recipe with all settings fixed, its memory and its cost."""

    job: Job  # with this plan's recipe
    need: int  # bytes at the peak
    certain: int  # of them, without what the C library may retain
    cost: float  # of a round of 200 labels, in tokens and passes
    same: bool  # results are those of the user's settings, except for rounding

    @property
    def recipe(self) -> Recipe:
        """The recipe of the round."""
        return self.job.recipe

    @property
    def operations(self) -> float:
        """What the time of a round is compared by: its cost times the size of the backbone."""
        return self.cost * self.job.shape.parameters

    @property
    def fits(self) -> bool:
        """Whether memory suffices."""
        return self.need <= self.job.machine.free

    @property
    def may_fit(self) -> bool:
        """Whether memory suffices if the C library retains nothing."""
        return self.certain <= self.job.machine.free


def best_first(job: Job) -> list[Plan]:
    """Return every plan for a round, the best first."""
    found = [_plan(replace(job, recipe=recipe), job.recipe) for recipe in _candidates(job)]
    return sorted(found, key=_rank)


def _rank(plan: Plan) -> tuple[float, ...]:
    """Return the sort key: those that fit by sameness and cost, behind them the others by need."""
    departures = len(changed(plan.recipe, Recipe()))
    return (0, not plan.same, plan.cost, departures, plan.need) if plan.fits else (1, plan.need, plan.cost, departures)


def best_plan(job: Job) -> Plan | None:
    """Return the fastest plan that fits; else the smallest, if it fits by what is certain; else None."""
    first = best_first(job)[0]
    return first if first.may_fit else None


def choose(name: str, job: Job) -> Plan:
    """Return the best plan. Raises BackboneRefused with the smallest need and a backbone that fits."""
    first = best_first(job)[0]
    if first.may_fit:
        return first
    raise BackboneRefused(
        Message(
            "A round with “{name}” needs at least {memory} of memory; {free} are free.",
            name=name,
            memory=in_gb(first.need),
            free=in_gb(job.machine.free),
        ),
        way_out(job),
    )


def way_out(job: Job) -> Message:
    """Return a hint for a round that does not fit with its settings."""
    found = best_plan(job)
    if found:
        chosen = ", ".join(f"recipe.{name}={getattr(found.recipe, name)}" for name in changed(found.recipe, job.recipe))
        return Message("Set {settings}, which takes {memory}.", settings=chosen, memory=in_gb(found.need))
    name = largest_fitting(job)
    if name:
        return Message(
            "Choose {backbone}, the largest of the catalog that fits, or close other programs.", backbone=name
        )
    return Message("Close other programs.")


def largest_fitting(job: Job) -> str:
    """Return the name of the largest backbone of the catalog that a round fits with; empty if there is none."""
    by_size = sorted(SHAPES, key=lambda name: -SHAPES[name].parameters)
    return next((name for name in by_size if best_first(replace(job, shape=SHAPES[name]))[0].fits), "")


@lru_cache(maxsize=8)  # a page asks at each click
def rank_catalog(job: Job) -> tuple[tuple[str, Plan], ...]:
    """Return every backbone of the catalog with its best plan, those that suit the machine best first.

    The largest that fits with a tenth to spare and leaves results as they are; on a processor, where time is short,
    only up to four times the starter's time. Then the others that fit, the fastest first, and those that do not.
    """
    best = {name: best_first(replace(job, shape=shape))[0] for name, shape in SHAPES.items()}
    limit = math.inf if job.machine.gpu else _PATIENCE * best[STARTER].operations

    def key(name: str) -> tuple[float, ...]:
        plan, size = best[name], best[name].job.shape.parameters
        suits = plan.need <= _AMPLE * plan.job.machine.free and plan.same and plan.operations <= limit
        return (0, -size) if suits else (1, plan.operations) if plan.fits else (2, plan.need)

    return tuple((name, best[name]) for name in sorted(best, key=key))


def changed(recipe: Recipe, before: Recipe) -> list[str]:
    """Return the names of the free settings in which two recipes differ."""
    return [name for name in FREE if getattr(recipe, name) != getattr(before, name)]


def _candidates(job: Job) -> Iterator[Recipe]:
    """Yield the recipe with every combination of its free settings."""
    values = {name: _values(name, job) for name in FREE}
    for chosen in product(*values.values()):
        yield replace(job.recipe, **dict(zip(values, chosen, strict=True)))


def _values(name: str, job: Job) -> tuple[Any, ...]:
    """Return the values of a setting to compare: the user's alone, or all that the machine and the method allow."""
    default, *others = FREE[name]
    given, machine = getattr(job.recipe, name), job.machine
    if given != default:
        return (given,)
    possible = {
        "precision": machine.width != BF16,
        "quantization": machine.four_bit and job.recipe.method != "full",
        "optimizer": job.recipe.probe_weight < 1,
        "checkpointing": job.recipe.probe_weight < 1 and job.shape.recomputes,
    }
    if not possible.get(name, True):
        return (default,)
    return (default, *(other for other in others if machine.gpu or not str(other).startswith("paged")))


def _plan(job: Job, wanted: Recipe) -> Plan:
    need = peak(job)
    differing = set(changed(job.recipe, wanted)) - {"row_tokens", "checkpointing"}
    same = not differing or (job.recipe.optimizer == "paged_adamw" and differing == {"optimizer"})
    return Plan(job, need.total, need.total - need.retained, _cost(job), same)


def _cost(job: Job) -> float:
    """Return the cost of a round of 200 labels: training on them, and scoring every utterance.

    Each row computes the instruction and unpacks 4-bit weights again, so short rows cost more. Scoring counts as
    whole passes, the lower layers of which are computed when a text is first read.
    """
    recipe, lengths = job.recipe, job.lengths
    unpacking = _UNPACKING[job.machine.gpu] if recipe.quantization == "nf4" else 0
    passes = _PASSES + (recipe.method == "full") + recipe.checkpointing * _RECOMPUTING
    trained, scored = (row_of(job, lengths.typical, training) for training in (True, False))
    upper = layers_through(job) / max(job.shape.layers, job.shape.encoder_layers)
    training = upper * passes * (trained.tokens + unpacking) / trained.utterances * _STEPS[recipe.optimizer]
    scoring = (scored.tokens + unpacking) / scored.utterances
    examples = LABELS * recipe.epochs if recipe.probe_weight < 1 else 0
    slow = 1.0 if job.width == job.machine.width else _SLOW[job.width]
    return slow * (training * examples + scoring * lengths.count)
