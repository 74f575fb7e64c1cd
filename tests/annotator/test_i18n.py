"""The catalog holds all visible sentences, in the same words and numbers; English is what stands in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import numpy as np
import pytest
from babel.messages.catalog import Message as Entry
from babel.messages.pofile import read_po

from annotator import i18n
from annotator.errors import BadInput, Message, UnknownName
from annotator.i18n import number, respell, say, say_many, translate
from annotator.reporting import charts
from annotator.reporting.summary import Pace, PaceStep
from tests.annotator.sentences import ROOT, Sentence, wanted

CODES = [code for code in i18n.CODES if code != i18n.ENGLISH]


@pytest.fixture
def german(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(i18n, "_choice", lambda: "de")


def entries(code: str) -> dict[Sentence, Entry]:
    with (i18n.FOLDER / f"{code}.po").open("rb") as file:
        catalog = read_po(file, code, abort_invalid=True)
    found = {}
    for one in catalog:
        if one.id:
            first, many = one.id if isinstance(one.id, tuple) else (one.id, "")
            found[Sentence(first, many, one.context or "")] = one
    return found


def places(text: str) -> set[tuple[str, str]]:
    """Return the names and forms of what is written into a text."""
    return {(name, form or "") for _, name, form, _ in Formatter().parse(text) if name is not None}


def test_every_language_is_called_by_its_own_name() -> None:
    assert [i18n.named(code) for code in i18n.CODES] == ["English", "Deutsch"]


@pytest.mark.parametrize("code", CODES)
def test_all_that_is_shown_is_in_the_catalog_and_nothing_else(code: str) -> None:
    known = set(entries(code))
    missing = "\n".join(f"{one}" for one in sorted(wanted() - known))
    assert not missing, f"write a translation of:\n{missing}"
    unsaid = "\n".join(f"{one}" for one in sorted(known - wanted()))
    assert not unsaid, f"take out what nobody says any more:\n{unsaid}"


@pytest.mark.parametrize("code", CODES)
def test_translations_are_whole_and_have_the_same_places(code: str) -> None:
    for sentence, one in entries(code).items():
        said = one.string if isinstance(one.string, tuple) else (one.string,)
        assert all(text.strip() for text in said), sentence
        assert not one.fuzzy, sentence
        if '{"text"' in sentence.english:  # an example in braces, not a place
            continue
        for place, text in enumerate(said):
            needed = places(sentence.many or sentence.english)
            may_lack = {one for one in needed if one[0] == "n"} if sentence.many and place == 0 else set()  # “the one”
            assert needed - may_lack <= places(text) <= needed, sentence
            assert text[:1].isspace() == sentence.english[:1].isspace(), sentence
            assert len(re.findall(r"\*\*|`", text)) == len(re.findall(r"\*\*|`", sentence.english)), sentence
        if sentence.many:
            assert len(said) == one_plural_form_each(code), sentence


def test_german_has_one_word_for_each_term_and_one_form_of_address() -> None:
    other_words = r"Späher|ungesehen|[Gg]elernt|\blern\w*|Aufgabenstellung|Anleitung|\b[Dd](?:u|ein\w*|ich|ir)\b"
    for sentence, one in entries("de").items():
        texts = one.string if isinstance(one.string, tuple) else (one.string,)
        assert not any(re.search(other_words, text) for text in texts), sentence
        if "precision" in sentence.english.lower():  # of numbers, it is another word
            assert re.search("räzision|Rechengenauigkeit", "".join(texts)), sentence


def one_plural_form_each(code: str) -> int:
    with (i18n.FOLDER / f"{code}.po").open("rb") as file:
        return read_po(file, code).num_plurals


def test_english_is_what_stands_in_the_source() -> None:
    assert say("Save") == "Save"
    assert say("Search", "page") == "Search"
    assert [say_many("{n:,} answer", "{n:,} answers", n) for n in (0, 1, 1200)] == [
        "0 answers",
        "1 answer",
        "1,200 answers",
    ]
    assert number(0.5, ".0%") == "50%"
    assert translate("There is no text.") == "There is no text."
    assert respell("4.7 GB") == "4.7 GB"


def test_german_has_its_own_words_plurals_and_numbers(german: None) -> None:
    assert say("Save") == "Speichern"
    assert (say("Search", "page"), say("Search")) == ("Suche", "Suchen")
    assert say_many("{n:,} answer", "{n:,} answers", 1) == "1 Antwort"
    assert say_many("{n:,} answer", "{n:,} answers", 1200) == "1.200 Antworten"
    assert number(0.5, ".0%") == "50\u00a0%"
    assert number(1234.5, ",.1f") == "1.234,5"
    assert respell("4.7 GB") == "4,7 GB"


def test_charts_write_numbers_as_the_language_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(50, 2.0, (PaceStep(1, 25, 2.5), PaceStep(26, 50, 1.5)), 0, 0.0)
    english = charts.svg(charts.time_per_answer(pace), "pace")
    monkeypatch.setattr(i18n, "_choice", lambda: "de")
    german = charts.svg(charts.time_per_answer(pace), "pace")
    assert (">0.5<" in english, ">0,5<" in english) == (True, False)
    assert (">0.5<" in german, ">0,5<" in german) == (False, True)


def test_what_has_no_translation_stays_english(german: None) -> None:
    assert say("Flibbertigibbet {n}", n=3) == "Flibbertigibbet 3"
    assert say("") == translate("") == ""


def test_what_a_person_wrote_is_never_translated_or_read_as_a_place(german: None) -> None:
    assert say("Change “{label}”", label="Label {n} 1,5 %") == "„Label {n} 1,5 %“ ändern"


def test_errors_are_recognised_and_what_stands_in_them_is_kept(german: None) -> None:
    error = UnknownName.among("strategy", "x", ["a", "b"])
    assert translate(error.message) == "„x“ gibt es nicht (strategy)."
    assert translate(error.hint) == "Eines davon wählen: a, b."
    assert (
        translate(Message("There is no file {path}.", path="/tmp/a {b}.csv")) == "Es gibt keine Datei /tmp/a {b}.csv."
    )
    assert translate("Something nobody foresaw.") == "Something nobody foresaw."


def test_a_value_that_reads_like_a_sentence_is_not_translated(german: None) -> None:
    error = BadInput(Message("{name} has no header row: {cells}.", name="There is no text.", cells="{n}"))
    assert translate(error.message).startswith("There is no text.")
    assert "{n}" in translate(error.message)


def test_a_message_survives_a_row_and_a_text_of_an_earlier_version_stays_as_it_is(german: None) -> None:
    message = Message("There is no file {path}.", path="a.csv")
    assert Message.load(message.dump()) == message == "There is no file a.csv."
    assert translate(Message.load(message.dump())) == "Es gibt keine Datei a.csv."
    for text in ("There is no file a.csv.", "{", '{"message": 1}', "null"):
        assert translate(Message.load(text)) == text


@pytest.mark.parametrize("n", [1200, 1200.0, np.int64(1200), np.float32(1200)], ids=lambda n: type(n).__name__)
def test_a_number_of_any_kind_keeps_its_form_in_a_row(n: float) -> None:
    message = Message("{n:,.0f} labels", n=n)
    assert Message.load(message.dump()) == message == "1,200 labels"


@pytest.mark.parametrize(
    ("requested", "spoken"),
    [("de", "de"), ("de-AT", "de"), ("DE_ch", "de"), ("en-GB", "en"), ("fr", "en"), ("", "en"), (None, "en")],
)
def test_a_browser_gets_its_language_or_english(requested: str | None, spoken: str) -> None:
    assert i18n.best(requested) == spoken


# Nothing a person reads is forgotten

SHOWN = {  # what of these calls a person reads, by place and by name
    **dict.fromkeys(("title", "header", "subheader", "write", "markdown", "caption", "text"), (0,)),
    **dict.fromkeys(("info", "success", "warning", "error", "toast", "spinner", "status", "expander"), (0,)),
    **dict.fromkeys(("button", "download_button", "form_submit_button", "checkbox", "toggle", "radio"), (0,)),
    **dict.fromkeys(("selectbox", "segmented_control", "pills", "slider", "number_input", "text_input"), (0,)),
    **dict.fromkeys(("text_area", "file_uploader", "dialog", "metric", "TextColumn", "NumberColumn"), (0,)),
    "tabs": (0,),
    "html": (1,),  # of our own pages' frame
    "Page": (),
    "set_page_config": (),
}
NAMED = ("label", "help", "placeholder", "title", "page_title", "text")
EXCEPTIONS = {
    "Annotator",  # the name of this program
}


def unwrapped(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SHOWN:
            shown = [node.args[place] for place in SHOWN[node.func.attr] if place < len(node.args)]
            shown += [given.value for given in node.keywords if given.arg in NAMED]
            for one in shown:
                yield from (f"{path.name}:{text}" for text in literals(one) if text not in EXCEPTIONS)


def literals(node: ast.AST) -> Iterator[str]:
    """Yield the texts with letters in an expression that pass no function of the catalog."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str) and re.search("[a-zA-Z]{2}", re.sub("<.*?>", "", node.value)):
            yield node.value
    elif not isinstance(node, ast.Call | ast.Subscript | ast.Compare):
        for child in ast.iter_child_nodes(node):
            yield from literals(child)


PAGES = [ROOT / "streamlit_app.py", *sorted((ROOT / "annotator" / "pages").glob("*.py"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_whatever_a_page_shows_is_translated_through_the_catalog(path: Path) -> None:
    assert not list(unwrapped(path))
