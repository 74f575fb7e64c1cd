"""The fastest plan that fits is chosen; the user's settings stay; what leaves results as they are comes first."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from annotator.errors import BackboneRefused
from model.backbones.catalog import CATALOG, SHAPES, STARTER
from model.backbones.memory import BF16, FP32, Job, Machine
from model.backbones.plan import (
    FREE,
    Plan,
    best_first,
    best_plan,
    changed,
    choose,
    largest_fitting,
    rank_catalog,
    way_out,
)
from model.prompts.lengths import Lengths
from model.recipe import Recipe

LLAMA = "llama-3.1-8b-instruct"
LONG = Lengths(instruction=300, longest=500, typical=300)  # in which rows of 1024 tokens are full
ALL = [
    Machine(gigabytes * 10**9, gpu, width)
    for gigabytes in (2, 8, 24, 80)
    for gpu in (True, False)
    for width in (FP32, BF16)
]


def job(gigabytes: float, name: str = LLAMA, gpu: bool = True, lengths: Lengths = LONG, **recipe: Any) -> Job:
    machine = Machine(round(gigabytes * 1e9), gpu, BF16 if gpu else FP32)
    return Job(SHAPES[name], replace(Recipe(), **recipe), machine, lengths)


def chosen(*about: Any, **recipe: Any) -> Plan:
    found = best_plan(job(*about, **recipe))
    assert found
    return found


def test_with_ample_memory_a_round_runs_with_the_default_settings() -> None:
    assert chosen(200).recipe == Recipe()
    assert chosen(64, STARTER, False).recipe == Recipe()


def test_an_8b_llama_in_4_bits_with_checkpoints_trains_in_10_gb() -> None:
    plan = chosen(10)
    assert (plan.recipe.quantization, plan.recipe.checkpointing) == ("nf4", True)
    assert plan.fits
    small = chosen(10, row_tokens=512)
    assert small.need < plan.need <= 10e9


def test_less_memory_never_gives_a_faster_or_a_larger_plan() -> None:
    plans = [chosen(gigabytes) for gigabytes in (8, 12, 16, 24, 48, 80, 160)]
    assert [plan.need for plan in plans] == sorted(plan.need for plan in plans)
    for smaller, larger in pairwise(plans):
        assert (larger.same, -larger.cost) >= (smaller.same, -smaller.cost)


@pytest.mark.parametrize("machine", ALL, ids=str)
@pytest.mark.parametrize("name", [STARTER, LLAMA, "flan-t5-large"])
def test_no_plan_that_fits_is_better_than_the_one_chosen(machine: Machine, name: str) -> None:
    every = best_first(Job(SHAPES[name], Recipe(), machine, LONG))
    fitting = [plan for plan in every if plan.need <= machine.free]
    if not fitting:
        assert every[0].need == min(plan.need for plan in every) > machine.free
        return
    assert every[0].fits
    assert every[0].same or not any(plan.same for plan in fitting)
    assert every[0].cost == min(plan.cost for plan in fitting if plan.same == every[0].same)


@pytest.mark.parametrize(
    "setting",
    [
        {"quantization": "nf4"},
        {"checkpointing": True},
        {"row_tokens": 300},
        {"optimizer": "adamw_8bit"},
        {"precision": "fp32"},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_a_setting_that_differs_from_its_default_is_the_user_s_and_stays(setting: dict[str, Any]) -> None:
    for gigabytes in (1, 8, 200):
        for plan in best_first(job(gigabytes, **setting)):
            assert all(getattr(plan.recipe, name) == value for name, value in setting.items())


def test_settings_that_are_not_free_are_never_touched() -> None:
    recipe = Recipe(epochs=3, rank=4, max_tokens=200)
    for plan in best_first(Job(SHAPES[LLAMA], recipe, Machine(8 * 10**9), LONG)):
        assert replace(plan.recipe, **{name: getattr(recipe, name) for name in FREE}) == recipe


def test_4_bit_weights_are_chosen_only_where_no_plan_with_unchanged_results_fits() -> None:
    full = min(plan.need for plan in best_first(job(1)) if plan.same)
    assert chosen(full / 1e9 + 0.001).recipe.quantization == "none"
    assert chosen(full / 1e9 - 0.001).recipe.quantization == "nf4"


def test_weights_that_are_trained_themselves_are_never_planned_in_4_bits() -> None:
    assert {plan.recipe.quantization for plan in best_first(job(8, method="full"))} == {"none"}


def test_a_full_tuning_saves_on_the_optimizer_before_it_is_refused() -> None:
    name, plain = "smollm2-360m-instruct", Recipe(method="full")
    least = min(plan.need for plan in best_first(job(1, name, method="full")) if plan.recipe.optimizer == "adamw")
    plan = chosen(least / 1e9 - 0.01, name, method="full")
    assert changed(plan.recipe, plain)[-1] == "optimizer"


def test_pages_of_the_optimizer_are_planned_on_a_gpu_alone() -> None:
    on_gpu, on_processor = ({plan.recipe.optimizer for plan in best_first(job(8, gpu=gpu))} for gpu in (True, False))
    assert on_gpu - on_processor == {"paged_adamw"}


def test_a_machine_without_kernels_for_4_bits_gets_none() -> None:
    plans = best_first(Job(SHAPES[LLAMA], Recipe(), Machine(10**9, four_bit=False), LONG))
    assert {plan.recipe.quantization for plan in plans} == {"none"}


def test_the_quick_classifier_alone_is_planned_without_training() -> None:
    reading = best_first(job(8, probe_weight=1.0))
    assert reading[0].need < chosen(8).need
    assert {(plan.recipe.checkpointing, plan.recipe.optimizer) for plan in reading} == {(False, "adamw")}


def test_a_round_of_the_upper_layers_costs_less() -> None:
    upper, every = chosen(200, depth="upper"), chosen(200)
    assert 0.4 * every.cost < upper.cost < 0.8 * every.cost


def test_shorter_texts_need_less_and_give_up_nothing_more() -> None:
    short = replace(LONG, longest=20, typical=12)
    assert best_plan(job(200, lengths=short)).need < best_plan(job(200)).need  # type: ignore[union-attr]
    for gigabytes in (8, 12, 18, 24, 48):
        assert best_first(job(gigabytes, lengths=short))[0].same >= best_first(job(gigabytes))[0].same


def test_what_fits_nowhere_is_refused_with_the_least_need_and_a_backbone_that_fits() -> None:
    tight = job(3)
    least = min(plan.need for plan in best_first(tight))
    with pytest.raises(BackboneRefused) as caught:
        choose(LLAMA, tight)
    assert f"needs at least {least / 1e9:.1f} GB of memory; 3.0 GB are free" in caught.value.message
    name = largest_fitting(tight)
    assert f"Choose {name}, the largest of the catalog that fits" in caught.value.hint
    assert best_first(job(3, name))[0].fits
    larger = [other for other in CATALOG if CATALOG[other].millions > CATALOG[name].millions]
    assert larger
    assert not any(best_first(job(3, other))[0].fits for other in larger)


def test_where_no_backbone_fits_the_hint_names_none() -> None:
    assert way_out(job(0.01)) == "Close other programs."


def test_a_round_refused_for_its_settings_is_advised_the_plan_that_fits() -> None:
    advice = way_out(job(12))
    assert advice.startswith("Set recipe.quantization=nf4, recipe.checkpointing=True")


def test_what_the_c_library_may_retain_is_no_reason_to_refuse() -> None:
    plans = best_first(job(4, STARTER, gpu=False))
    smallest = min(plans, key=lambda plan: plan.need)
    between = (smallest.need + smallest.certain) / 2e9
    tight = best_first(job(between, STARTER, gpu=False))[0]
    assert tight.may_fit
    assert not tight.fits
    assert choose(STARTER, job(between, STARTER, gpu=False)) == tight


def test_the_catalog_begins_with_the_largest_that_fits_without_changed_results() -> None:
    ranked = rank_catalog(job(24))
    assert {name for name, _ in ranked} == set(CATALOG)
    best, plan = ranked[0]
    assert plan.fits
    assert plan.same
    for name, other in ranked[1:]:
        assert not (other.fits and other.same) or SHAPES[name].parameters <= SHAPES[best].parameters
    fits = [plan.fits for _, plan in ranked]
    assert fits == sorted(fits, reverse=True)


def test_on_a_processor_a_backbone_that_takes_far_longer_is_not_put_first() -> None:
    ranked = rank_catalog(job(200, gpu=False))
    starter = next(plan for name, plan in ranked if name == STARTER)
    assert ranked[0][1].operations <= 4 * starter.operations
    assert SHAPES[ranked[0][0]].parameters > SHAPES[STARTER].parameters
    assert rank_catalog(job(200))[0][1].job.shape.parameters == max(shape.parameters for shape in SHAPES.values())
