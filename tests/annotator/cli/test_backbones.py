"""The commands about language models: the catalog, and fetching one before its first use."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotator.cli import terminal
from model.backbones.catalog import CATALOG
from tests.annotator.cli.test_main import good, refused
from tests.model.backbones.test_packages import NAME, Registry, registry  # noqa: F401  (a fixture)
from tests.model.tiny import save_llama


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.console, "width", 400)


def test_the_catalog_is_listed_with_licenses_languages_and_a_recommendation() -> None:
    lines = {line.split()[1]: line for line in good("backbones").splitlines() if len(line.split()) > 1}
    assert set(CATALOG) <= set(lines)
    assert "Apache-2.0" in lines["qwen3-4b"]
    assert "4.0 billion" in lines["qwen3-4b"]
    assert "English, Chinese" in lines["qwen3-4b"]
    assert "112 more languages" in lines["qwen3-4b"]
    assert "recommended for other languages" in lines["qwen3-4b"]
    assert "recommended" not in lines["llama-3.2-1b-instruct"]
    assert "account on the hub" in lines["llama-3.2-1b-instruct"]


def test_the_license_is_shown_before_it_can_be_accepted(registry: Registry) -> None:  # noqa: F811
    output = refused("fetch", NAME)
    assert registry.entry.terms in output
    assert "--accept-license" in output
    output = good("fetch", NAME, "--accept-license")
    assert registry.entry.terms in output
    assert f"{NAME} is on this machine: " in output
    assert good("fetch", NAME), "the acceptance is remembered"


def test_a_backbone_without_terms_is_fetched_without_the_option(tmp_path: Path) -> None:
    assert "million parameters" in good("fetch", save_llama(tmp_path))
