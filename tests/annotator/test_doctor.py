"""Test the plan of each backbone before it is loaded, as the doctor and the Rounds page show it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotator import doctor
from annotator.doctor import prospect, sentence
from model.backbones.catalog import CATALOG, SHAPES, STARTER
from model.backbones.memory import BF16, Job, Machine, in_gb
from model.backbones.plan import best_first, best_plan
from model.recipe import Recipe

NAME = "llama-3.1-8b-instruct"


def job(gigabytes: float, **recipe: object) -> Job:
    return Job(SHAPES[NAME], replace(Recipe(), **recipe), Machine(round(gigabytes * 1e9), True, BF16))


def test_what_fits_is_shown_with_settings_and_memory_in_one_line():
    found, plan = prospect(NAME, job(80)), best_plan(job(80))
    need = in_gb(plan.need).removesuffix(" GB")
    assert found.needs == f"{NAME}: bf16, rows of 1024; {need} of 80 GB"
    assert (found.fits, found.hint, found.notes) == (True, "", "")


def test_4_bit_weights_are_shown_with_the_reason():
    found = prospect(NAME, job(12))
    least = min(plan.need for plan in best_first(job(12)) if plan.same)
    assert found.needs.startswith(f"{NAME}: 4-bit, checkpointing, rows of ")
    assert found.needs.endswith(" of 12 GB")
    assert found.fits
    assert found.notes == f"This changes results slightly; without it, a round needs at least {in_gb(least)}."


def test_4_bit_weights_that_a_person_chose_need_no_reason():
    assert not prospect(NAME, job(12, quantization="nf4")).notes


def test_what_fits_nowhere_is_shown_with_its_least_need_and_a_way_out():
    found = prospect(NAME, job(3))
    least = min(plan.need for plan in best_first(job(3)))
    assert found.needs == f"needs at least {in_gb(least)}, 3.0 GB free"
    assert not found.fits
    assert "the largest of the catalog that fits" in found.hint


def test_what_fits_only_just_is_shown_as_such():
    starter = Job(SHAPES[STARTER])
    smallest = best_first(starter)[0]
    between = (smallest.need + smallest.certain) // 2
    found = prospect(STARTER, replace(starter, machine=Machine(between)))
    assert found.fits
    assert found.notes == "Memory suffices only just."


def test_a_hub_id_that_is_not_in_the_catalog_is_let_pass():
    assert prospect("somebody/some-model", None).fits


@pytest.mark.parametrize(
    ("minutes", "shown"), [(0.2, "1 minute"), (6.4, "6 minutes"), (80, "80 minutes"), (130, "2 hours")]
)
def test_the_time_of_a_round_ends_the_line_where_it_is_known(minutes, shown):
    assert sentence(NAME, best_plan(job(12)), minutes).endswith(f"; a round of 200 labels takes about {shown}")


@pytest.mark.parametrize(("free", "can"), [(10**12, True), (4 * 10**9, False)])
def test_the_doctor_plans_every_backbone_and_begins_with_what_suits_best(monkeypatch, free, can):
    monkeypatch.setattr(doctor, "this_machine", lambda: Machine(free, True, BF16))
    monkeypatch.setattr(doctor, "_whereabouts", lambda entry: (True, "downloaded"))
    findings = [one for one in doctor.examine() if one.reason.endswith("; downloaded")]
    by_name = {finding.subject.split()[0]: finding for finding in findings}
    assert set(by_name) == set(CATALOG)
    assert by_name[NAME].can is can
    assert findings[0].can
    assert [finding.can for finding in findings] == sorted((finding.can for finding in findings), reverse=True)
    assert all(("rows of" in one.reason) is one.can or "needs at least" in one.reason for one in findings)
    largest = max(CATALOG.values(), key=lambda entry: entry.millions).name
    assert (findings[0].subject.split()[0] == largest) is can


def test_what_fits_but_is_not_here_cannot_be_run_yet():
    absent = replace(CATALOG[STARTER], source="no_such_package:weights.gguf")
    finding = doctor._backbone(absent, Job(SHAPES[STARTER], machine=Machine(10**12)), 1.0)
    assert not finding.can
    assert "no_such_package is not installed" in finding.reason


def test_a_folder_is_at_hand_and_a_hub_id_only_in_the_cache(tmp_path):
    assert doctor.at_hand(str(tmp_path))
    assert not doctor.at_hand("somebody/some-model")
    assert not doctor.at_hand("llama-3.1-8b-instruct")
