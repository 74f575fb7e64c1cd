"""The Rounds page states what a language model of the catalog is, and asks for consent to its license."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from annotator import i18n
from annotator.backbones import described, languages_of, size_of
from annotator.project import Project
from model.backbones.catalog import CATALOG, Languages
from model.backbones.packages import is_accepted
from tests.pages.test_pages import page, shown

NAME = "gemma-3-270m"


def test_a_description_has_size_license_languages_and_access() -> None:
    text = described(CATALOG["gemma-3-4b-it"])
    assert "4.3 billion parameters" in text
    assert "Gemma Terms of Use" in text
    assert "English and 139 more languages" in text
    assert "recommended for texts that are not in English" in text
    assert "account" in text
    assert size_of(CATALOG["qwen3-0.6b"]) == "596 million parameters"


def test_languages_are_named_in_the_language_of_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Languages(3, ("en", "de", "fr"))
    assert languages_of(few) == "English, German, and French"
    monkeypatch.setattr(i18n, "_choice", lambda: "de")
    assert languages_of(few) == "Englisch, Deutsch und Französisch"
    assert "139 weitere Sprachen" in described(CATALOG["gemma-3-4b-it"])


@pytest.mark.parametrize("code", i18n.CODES)
def test_every_language_of_the_catalog_has_a_name(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(i18n, "_choice", lambda: code)
    for entry in CATALOG.values():
        assert entry.languages.count >= len(entry.languages.main)
        assert languages_of(entry.languages)


def test_the_page_describes_the_language_model_that_is_typed(project: Project) -> None:
    app = page("rounds")
    assert described(CATALOG["smollm2-135m-instruct"]) in shown(app)
    app.text_input[0].set_value("qwen3-4b").run()
    assert described(CATALOG["qwen3-4b"]) in shown(app)
    app.text_input[0].set_value("some/other-model").run()
    assert not app.exception
    assert "billion" not in shown(app)


def test_a_license_is_accepted_on_the_page_once(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANNOTATOR_CACHE", str(tmp_path / "cache"))
    app = page("rounds")
    app.text_input[0].set_value(NAME).run()
    assert CATALOG[NAME].terms in shown(app)
    assert not is_accepted(CATALOG[NAME])
    app.checkbox(key=f"accept-{NAME}").check().run()
    assert not app.exception
    assert is_accepted(CATALOG[NAME])
    record = json.loads((tmp_path / "cache" / "licenses" / f"{NAME}.json").read_text("utf-8"))
    assert record["by"] == "anna"
    assert not [box for box in app.checkbox if box.key == f"accept-{NAME}"]
    assert CATALOG[NAME].terms in shown(app)
