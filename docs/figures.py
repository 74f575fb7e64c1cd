"""Take the pictures of the README and the guide from the running app: `make figures`.

    python -m docs.figures [--into FOLDER] [--all FOLDER]

With --into the pictures go into another folder than the one of the documentation. With --all every page goes into a
folder, in both widths and both colour schemes, to be looked at.

A sample project is labelled from its known answers, with rounds in between that the scout makes alone, and Chromium
looks at the pages. What the pictures show is what the program does.
"""

import argparse
import csv
import re
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from annotator.codebook.definition import codebook_of
from annotator.exchange.samples import SAMPLES, create_sample
from annotator.labeling import onboarding
from annotator.labeling.session import Answer, answer, next_question
from annotator.loop import run_round
from annotator.project import Project
from model.load import load_classifier
from tests.browser.conftest import CHROMIUM, SECOND, SWITCHES, serve

PICTURES = Path(__file__).parent / "pictures"
ANSWERS = (0, 50, 100, 200, 300)
PAGES = ("label", "search", "review", "codebook", "rounds", "insights", "data", "export")
SHOTS = (
    ("label", 1280, "light"), ("label", 390, "dark"), ("rounds", 1280, "light"), ("insights", 1280, "light"),
    ("codebook", 1280, "light"), ("review", 1280, "light"), ("search", 390, "light"), ("export", 1280, "dark"),
)  # fmt: skip


def main() -> None:
    """Prepare a project, open the app on it, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, metavar="FOLDER", default=PICTURES)
    parser.add_argument("--all", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    everywhere: Path | None = given.all
    shots = tuple(product(PAGES, (1280, 390), ("light", "dark"))) if everywhere else SHOTS
    pictures: Path = everywhere or given.into
    pictures.mkdir(exist_ok=True, parents=True)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder) / "client-talk")
        app = serve(Path(folder))
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
                for name, width, scheme in shots:
                    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
                    page.goto(f"{app.url}/{name if name != 'label' else ''}?project=client-talk&annotator=anna")
                    ready(page, name)
                    page.screenshot(path=pictures / f"{name}-{width}-{scheme}.png")
        finally:
            app.kill()


def prepare(folder: Path) -> None:
    """Label the sample from its known answers, with a round after each step."""
    with SAMPLES["client_talk"].data.open(encoding="utf-8", newline="") as file:
        known = {row["id"]: row["label"] for row in csv.DictReader(file)}
    with create_sample("client_talk", folder) as project:
        quick = replace(project.config.recipe, probe_weight=1.0)
        project.config = replace(project.config, retrain_every=0, recipe=quick)
        config = project.config
        classifier = load_classifier(config.backbone, codebook_of(project).task(), config.recipe, config.template)
        for target in ANSWERS:
            label_until(project, known, target)
            run_round(project, classifier, config)
        label_until(project, known, ANSWERS[-1] + 7)
        onboarding.end(project, "anna")


def label_until(project: Project, known: dict[str, str], target: int) -> None:
    """Answer as the sample's author did."""
    codebook = codebook_of(project)
    while project.db["annotation"].count < target and (question := next_question(project, "anna")):
        label = codebook.id_of(known[question.utterance.external_id])
        answer(project, question, "anna", Answer("label", label, milliseconds=4000))


def ready(page: Page, name: str) -> None:
    """Wait until the page stands; on the label page, go on to an utterance with a suggestion."""
    expect(page.get_by_test_id("stSidebar")).to_be_attached(timeout=60 * SECOND)
    if name == "label":
        expect(page.get_by_role("button", name="Skip")).to_be_visible(timeout=30 * SECOND)
        while not page.locator(".likely").count():
            page.keyboard.press("s")
            page.wait_for_timeout(1500)
    if name == "insights":
        expect(page.get_by_test_id("stVegaLiteChart").nth(2)).to_be_visible(timeout=60 * SECOND)
        weighed = page.get_by_text(re.compile(r"Another \d+ answers"))  # when all else is drawn
        expect(weighed).to_be_visible(timeout=60 * SECOND)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)  # what stands for a chart to come
    page.wait_for_timeout(2500)


if __name__ == "__main__":
    main()
