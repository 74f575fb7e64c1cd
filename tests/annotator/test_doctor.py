"""Test the memory check of backbones before they are loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotator import doctor
from annotator.doctor import prospect
from model.backbones import machine
from model.backbones.catalog import CATALOG, SHAPES, STARTER
from model.backbones.memory import FP32, estimate, in_gb, least
from model.recipe import Recipe

NAME = "llama-3.2-3b-instruct"
WHOLE = estimate(SHAPES[NAME], Recipe()).total
IN_4BIT = estimate(SHAPES[NAME], Recipe(quantization="nf4")).total
LEAST = least(SHAPES[NAME], Recipe())


def test_what_fits_says_both_needs_and_what_is_free_and_gives_no_hint():
    found = prospect(NAME, Recipe(), WHOLE, FP32)
    assert (found.fits, found.hint) == (True, "")
    assert found.needs == f"needs about {in_gb(WHOLE)} ({in_gb(IN_4BIT)} in 4-bit), {in_gb(WHOLE)} free"


@pytest.mark.parametrize(
    ("free", "fits", "said", "hint"),
    [
        (WHOLE - 1, True, "not enough for long utterances", "4-bit"),
        (LEAST - 1, False, "not enough", "smaller backbone"),
        (10**9, False, "not enough", "smaller backbone"),
    ],
)
def test_what_does_not_fit_or_only_just_says_why_and_what_to_do(free, fits, said, hint):
    found = prospect(NAME, Recipe(), free, FP32)
    assert found.fits is fits
    assert found.needs.endswith(f": {said}")
    assert hint in found.hint


@pytest.mark.parametrize("recipe", [Recipe(quantization="nf4"), Recipe(method="full")])
def test_4_bit_is_not_offered_where_it_is_taken_or_cannot_be(recipe):
    assert "4-bit" not in prospect(NAME, recipe, 10**9, FP32).needs


def test_a_hub_id_that_is_not_in_the_catalog_is_let_pass():
    assert prospect("somebody/some-model", Recipe(), 0, FP32).fits


@pytest.mark.parametrize(("free", "can"), [(10**12, True), (10**9, False)])
def test_the_doctor_compares_every_backbone_with_what_is_free(monkeypatch, free, can):
    monkeypatch.setattr("model.backbones.machine.free_memory", lambda: free)
    monkeypatch.setattr(doctor, "_whereabouts", lambda entry: (True, "downloaded"))
    findings = {finding.subject: finding for finding in doctor.examine()}
    width = machine.preferred_dtype(machine.best_device()).itemsize
    for name, entry in CATALOG.items():
        finding = findings[f"{name} ({entry.family})"]
        assert "needs about" in finding.reason
        assert finding.reason.endswith("; downloaded")
        assert f"{in_gb(free)} free" in finding.reason
        assert can or not finding.can or least(SHAPES[name], Recipe(), width) <= free
    assert findings[f"{NAME} (causal)"].can is can


def test_what_fits_but_is_not_here_cannot_be_run_yet(monkeypatch):
    monkeypatch.setattr("model.backbones.machine.free_memory", lambda: 10**12)
    absent = replace(CATALOG[STARTER], source="no_such_package:weights.gguf")
    finding = doctor._backbone(absent)
    assert not finding.can
    assert "no_such_package is not installed" in finding.reason
