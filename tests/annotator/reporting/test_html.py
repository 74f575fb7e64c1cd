"""The report contains all figures and their origin, and shows foreign text unchanged."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from annotator.cli.main import main
from annotator.codebook.definition import codebook_of, create_project
from annotator.codebook.draft import parse_codebook
from annotator.exchange.imports import add_utterances
from annotator.labeling.auto_accept import accept, take_back
from annotator.loop import run_round
from annotator.methods.guarantee import Target
from annotator.project import Project
from annotator.reporting.html import report
from store import annotations, utterances
from store.annotations import NewAnnotation
from store.utterances import NewUtterance
from tests.annotator.scenes import CONFIG, answers_read, classifier_of, label_pool, new_project, truth

EVIL = "<script>alert('x')</script> <img src=http://evil.example/p.png> \"&amp;"


class Page(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        if self._inside != "style":
            self.words.append(data)
        if self._inside == "h2" and data.strip():
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def answer_audit(project: Project, annotator: str = "ada") -> None:
    codebook = codebook_of(project)
    for row in utterances.read(project.db, utterances.ids_in(project.db, "audit")):
        label = codebook.id_of(truth(row.text)) or codebook.ids[row.id % 2]
        details = {"strategy": "audit", "codebook_version": codebook.version, "milliseconds": 5000}
        annotations.record(project.db, NewAnnotation(row.id, annotator, "label", label, **details))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[str, Page]:
    """A report of a project with everything in it."""
    with new_project(tmp_path_factory.mktemp("report") / "p", 400) as project:
        answer_audit(project)
        answer_audit(project, "bob")
        run_round(project, classifier_of(project), project.config)
        label_pool(project, 60)
        run_round(project, classifier_of(project), project.config)
        take_back(project, accept(project, "ada", Target(0.8)), "bob")
        text = report(project)
    return text, Page(text)


def test_every_section_is_there(whole):
    assert whole[1].headings == [
        "Model quality",
        "Auto-accept",
        "Confusions",
        "Changes in the last round",
        "Labels and answering time",
        "Agreement between people",
        "Rounds",
        "Configuration of round 1",
        "Codebook, version 3",
    ]
    assert whole[1].tags.count("svg") == 7


def test_every_picture_says_how_many_answers_it_comes_from(whole):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", whole[0], re.DOTALL)
    assert len(captions) == 7
    assert [bool(re.search(r"\d", one)) for one in captions] == [True] * 7
    audit = [one for one in captions if "drawn at random" in one or "randomly drawn" in one]
    assert len(audit) == 4
    assert all("80" in one for one in audit)


def test_the_figures_configuration_and_codebook_are_written_out(whole):
    text = whole[1].text
    assert "measured on 80 audit answers" in text
    assert "Two people chose the same label in 100 of 100 cases (80 pairs of answers to 80 utterances)" in text
    assert "not representative" in text
    assert "batch_size 10" in text
    assert "recipe: learning_rate" in text
    assert "of round 1, accepted by ada" in text
    assert "Undone by bob" in text
    for name in ("promise", "report", "wish"):
        assert name in text


def test_nothing_is_fetched_and_nothing_runs(whole):
    text, page = whole
    assert not {"script", "iframe", "object", "embed", "link", "img", "image", "base"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on"), name
        if not name.startswith("xmlns"):
            assert "http" not in value, (name, value)
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "@import" not in style
    assert "url(" not in style


def test_ids_in_the_pictures_do_not_meet(whole):
    ids = [value for name, value in whole[1].attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]+)\)", whole[0])
    assert set(used) <= set(ids)


def test_hostile_names_and_texts_are_shown_as_they_are(tmp_path):
    labels = [{"name": f"{EVIL} {i}", "definition": EVIL, "examples": [EVIL], "words": f"w{i}"} for i in range(2)]
    draft = parse_codebook({"name": EVIL, "instruction": EVIL, "labels": labels})
    with create_project(tmp_path / "p", draft, CONFIG) as project:
        add_utterances(project, [NewUtterance(str(i), f"{EVIL} {i}") for i in range(60)])
        run_round(project, classifier_of(project), project.config)
        answer_audit(project, EVIL)
        for utterance in utterances.ids_in(project.db, "pool")[:20]:
            new = NewAnnotation(utterance, EVIL, "label", 1 + (utterance % 3 == 0), "margin", 1)
            annotations.record(project.db, new)
        run_round(project, classifier_of(project), project.config)
        text = report(project)
    page = Page(text)
    assert not {"script", "img"} & set(page.tags)
    assert page.headings[-1].startswith("Codebook")
    assert page.text.count("<script>alert('x')</script>") >= 5, "shown, not swallowed"
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)  # well formed, whatever the labels are called


def test_a_project_without_a_round_has_a_report_too(tmp_path):
    with new_project(tmp_path / "p") as project:
        page = Page(report(project))
    assert "There is no round yet" in page.text
    assert page.headings == [
        "Labels and answering time",
        "Agreement between people",
        "Rounds",
        "Configuration of the first round",
        "Codebook, version 3",
    ]


def test_a_round_that_nobody_has_measured_claims_nothing(tmp_path):
    with new_project(tmp_path / "p") as project:
        run_round(project, classifier_of(project), project.config)
        page = Page(report(project))
    assert "not known yet" in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_the_command_writes_the_file(tmp_path):
    new_project(tmp_path / "p").close()
    target = tmp_path / "out.html"
    done = CliRunner().invoke(main, ["report", str(tmp_path / "p"), "--out", str(target)])
    assert done.exit_code == 0, done.output
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert "no project" in CliRunner().invoke(main, ["report", str(tmp_path / "none")]).output.lower()


def test_a_report_reads_all_answers_once(tmp_path, monkeypatch):
    with new_project(tmp_path / "p", 400) as project:
        answer_audit(project)
        run_round(project, classifier_of(project), project.config)
        label_pool(project, 60)
        run_round(project, classifier_of(project), project.config)
        read = answers_read(monkeypatch)
        report(project)
    assert len(read) == 1
